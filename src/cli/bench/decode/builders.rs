//! Columns that grow value by value, for readers that know nothing of Arrow.

use arrow::array::{ArrayRef, Float64Builder, ListArray, ListBuilder, RecordBatch};

use crate::source::Records;

/// Arrow's builders of a case's columns.
pub(super) trait Builders: Sized {
    /// Empty ones with room for so many rows.
    fn new(rows: usize) -> Self;

    /// The columns, in the order in which they are declared.
    fn finish(self) -> anyhow::Result<RecordBatch>;
}

/// A struct of builders by the names of their columns.
macro_rules! builders {
    ($name:ident { $($column:ident: $builder:ty),* $(,)? }) => {
        pub(super) struct $name {
            $($column: $builder),*
        }

        impl Builders for $name {
            fn new(rows: usize) -> Self {
                Self { $($column: <$builder>::with_capacity(rows)),* }
            }

            fn finish(mut self) -> anyhow::Result<arrow::array::RecordBatch> {
                crate::cli::bench::decode::builders::batch([$((stringify!($column), std::sync::Arc::new(self.$column.finish()) as arrow::array::ArrayRef)),*])
            }
        }
    };
}

pub(super) use builders;

/// Columns with their names as a batch.
pub(super) fn batch<const N: usize>(columns: [(&str, ArrayRef); N]) -> anyhow::Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// The payloads of records that all have one.
pub(super) fn payloads(records: &Records) -> impl Iterator<Item = &[u8]> {
    (0..records.len()).filter_map(|index| records.get(index).value)
}

/// Lists of numbers.
pub(super) struct Doubles(ListBuilder<Float64Builder>);

impl Doubles {
    pub(super) fn with_capacity(rows: usize) -> Self {
        Self(ListBuilder::with_capacity(Float64Builder::with_capacity(rows), rows))
    }

    pub(super) fn append(&mut self, list: &[f64]) {
        self.0.values().append_slice(list);
        self.0.append(true);
    }

    pub(super) fn finish(&mut self) -> ListArray {
        self.0.finish()
    }
}
