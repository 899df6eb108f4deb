//! What is read of a record, told once: `record!` takes the names and types of its fields. From them come the columns of the source that we read, the struct that
//! serde fills, the reader of simd-json's tape, and Arrow's builders with what is pushed into them.

use std::{borrow::Cow, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringViewBuilder, TimestampMillisecondBuilder},
    compute::kernels::cast_utils::string_to_timestamp_nanos,
};
use serde::{Deserialize, Serialize};
use simd_json::{
    prelude::{ValueAsScalar, ValueIntoString},
    tape::Value,
};

use crate::source;

/// A part of a record: a value, which is a column, or an object of parts. Each may be missing. Texts are borrowed from the payload.
pub(super) trait Part<'a>: Deserialize<'a> {
    /// Arrow's builders of its columns.
    type Builder;

    /// Adds its columns, as they are declared of a source, where it stands at this path.
    fn declare(path: &[&str], columns: &mut Vec<String>);

    /// Empty builders with room for so many rows.
    fn builder(rows: usize) -> Self::Builder;

    /// What a value on simd-json's tape is.
    fn of_tape(value: Value<'_, 'a>) -> Option<Self>;

    /// Appends a row.
    fn push(part: Option<Self>, builder: &mut Self::Builder) -> anyhow::Result<()>;

    /// Adds its columns, in the order in which they are declared.
    fn finish(builder: Self::Builder, columns: &mut Vec<ArrayRef>);
}

/// A whole record, whatever it borrows from.
pub(super) trait Record: 'static {
    type Builder;
    type Row<'a>: Part<'a, Builder = Self::Builder>;

    /// Its columns, as they are declared of a source.
    fn columns() -> String {
        let mut columns = vec![];
        Self::Row::<'_>::declare(&[], &mut columns);
        columns.join(", ")
    }

    /// Reads each payload and appends its row.
    fn read(records: &source::Records, mut row: impl for<'a> FnMut(&'a [u8], &mut Self::Builder) -> anyhow::Result<()>) -> anyhow::Result<RecordBatch> {
        let mut builder = Self::Row::<'_>::builder(records.len());
        for record in records.iter() {
            row(record.value.unwrap_or_default(), &mut builder)?;
        }
        let mut columns = vec![];
        Self::Row::<'_>::finish(builder, &mut columns);
        Ok(RecordBatch::try_from_iter(columns.into_iter().enumerate().map(|(place, column)| (place.to_string(), column)))?)
    }
}

/// A record, or an object in one, of these fields. `<'a>` is there if it borrows; `"type" as kind` is a field that is called otherwise in the payload.
macro_rules! record {
    ($(#[$attribute:meta])* $name:ident<'a> { $($fields:tt)* }) => {
        record!(@part [$(#[$attribute])* #[serde(bound(deserialize = "'de: 'a"))]] $name [<'a>] { $($fields)* });

        impl Record for $name<'static> {
            type Builder = <Self as Part<'static>>::Builder;
            type Row<'a> = $name<'a>;
        }
    };
    ($name:ident { $($fields:tt)* }) => {
        record!(@part [] $name [] { $($fields)* });
    };
    (@part [$($attributes:tt)*] $name:ident [$($life:tt)*] { $($($key:literal as)? $field:ident: $type:ty),* $(,)? }) => {
        #[derive(Default, serde::Deserialize)]
        $($attributes)*
        pub(super) struct $name $($life)* {
            $($(#[serde(rename = $key)])? $field: Option<$type>),*
        }

        impl<'a> Part<'a> for $name $($life)* {
            type Builder = ($(<$type as Part<'a>>::Builder,)*);

            fn declare(path: &[&str], columns: &mut Vec<String>) {
                $(<$type as Part<'a>>::declare(&[path, &[record!(@key $field $($key)?)]].concat(), columns);)*
            }

            fn builder(rows: usize) -> Self::Builder {
                ($(<$type as Part<'a>>::builder(rows),)*)
            }

            fn of_tape(value: simd_json::tape::Value<'_, 'a>) -> Option<Self> {
                let mut record = Self::default();
                for (key, value) in &value.as_object()? {
                    match key {
                        $(record!(@key $field $($key)?) => record.$field = <$type as Part<'a>>::of_tape(value),)*
                        _ => {}
                    }
                }
                Some(record)
            }

            fn push(record: Option<Self>, ($($field,)*): &mut Self::Builder) -> anyhow::Result<()> {
                let record = record.unwrap_or_default();
                $(<$type as Part<'a>>::push(record.$field, $field)?;)*
                Ok(())
            }

            fn finish(($($field,)*): Self::Builder, columns: &mut Vec<arrow::array::ArrayRef>) {
                $(<$type as Part<'a>>::finish($field, columns);)*
            }
        }
    };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
}

pub(super) use record;

/// A text, borrowed where it has no escapes.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Text<'a> {
    pub(super) fn of(text: impl Into<Cow<'a, str>>) -> Self {
        Self(text.into())
    }
}

/// A time as RFC 3339 has it.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Time<'a>(#[serde(borrow)] pub(super) Text<'a>);

impl Time<'_> {
    /// Milliseconds since 1970, by Arrow's own parser.
    fn millis(&self) -> anyhow::Result<i64> {
        Ok(string_to_timestamp_nanos(&self.0.0)?.div_euclid(1_000_000))
    }
}

/// Milliseconds since 1970.
#[derive(Deserialize)]
#[serde(transparent)]
pub(super) struct EpochMillis(i64);

/// A value's type: what SQL calls it, its builder, how it is read from a value on the tape, and what of it is appended.
macro_rules! value {
    ($type:ty, $sql:literal, $builder:ty, $value:ident => $of_tape:expr, $found:ident => $appended:expr) => {
        impl<'a> Part<'a> for $type {
            type Builder = $builder;

            fn declare(path: &[&str], columns: &mut Vec<String>) {
                columns.push(column(path, $sql));
            }

            fn builder(rows: usize) -> Self::Builder {
                <$builder>::with_capacity(rows)
            }

            fn of_tape($value: Value<'_, 'a>) -> Option<Self> {
                $of_tape
            }

            fn push(part: Option<Self>, builder: &mut Self::Builder) -> anyhow::Result<()> {
                match part {
                    Some($found) => builder.append_value($appended),
                    None => builder.append_null(),
                }
                Ok(())
            }

            fn finish(mut builder: Self::Builder, columns: &mut Vec<ArrayRef>) {
                columns.push(Arc::new(builder.finish()));
            }
        }
    };
}

value!(i32, "INT", Int32Builder, value => value.as_i32(), number => number);
value!(i64, "BIGINT", Int64Builder, value => value.as_i64(), number => number);
value!(f64, "DOUBLE", Float64Builder, value => value.cast_f64(), number => number);
value!(bool, "BOOLEAN", BooleanBuilder, value => value.as_bool(), truth => truth);
value!(Text<'a>, "TEXT", StringViewBuilder, value => value.into_string().map(Text::of), text => text.0);
value!(Time<'a>, "TIMESTAMP(3)", TimestampMillisecondBuilder, value => value.into_string().map(|text| Time(Text::of(text))), time => time.millis()?);
value!(EpochMillis, "TIMESTAMP(3) FORMAT 'epoch_ms'", TimestampMillisecondBuilder, value => value.as_i64().map(EpochMillis), time => time.0);

impl<'a> Part<'a> for Vec<f64> {
    type Builder = ListBuilder<Float64Builder>;

    fn declare(path: &[&str], columns: &mut Vec<String>) {
        columns.push(column(path, "DOUBLE[]"));
    }

    fn builder(rows: usize) -> Self::Builder {
        ListBuilder::with_capacity(Float64Builder::with_capacity(rows), rows)
    }

    fn of_tape(value: Value<'_, 'a>) -> Option<Self> {
        value.as_array()?.iter().map(|value| value.cast_f64()).collect()
    }

    fn push(part: Option<Self>, builder: &mut Self::Builder) -> anyhow::Result<()> {
        builder.values().append_slice(part.as_deref().unwrap_or_default());
        builder.append(part.is_some());
        Ok(())
    }

    fn finish(mut builder: Self::Builder, columns: &mut Vec<ArrayRef>) {
        columns.push(Arc::new(builder.finish()));
    }
}

/// The declaration of a column at a path.
fn column(path: &[&str], sql: &str) -> String {
    match path {
        [name] => format!("{name} {sql}"),
        _ => format!("{} {sql} PATH '$.{}'", path.join("_"), path.join(".")),
    }
}
