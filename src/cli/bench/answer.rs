//! Whether a view holds what a batch query answers.

use arrow::{
    array::{Array, RecordBatch},
    util::display::{ArrayFormatter, FormatOptions},
};

/// Rows as text, in an order that does not depend on theirs. Floats have nine significant digits, since sums of the same numbers differ by the order in which they are
/// added.
pub(super) fn comparable(batches: &[RecordBatch]) -> anyhow::Result<Vec<String>> {
    let options = FormatOptions::default().with_null("∅");
    let mut rows = vec![];
    for batch in batches {
        let columns = batch.columns().iter().map(|column| Ok((ArrayFormatter::try_new(column, &options)?, column.data_type().is_floating())));
        let columns = columns.collect::<anyhow::Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().map(|(column, is_float)| {
                let text = column.value(row).to_string();
                match text.parse::<f64>() {
                    Ok(float) if *is_float => format!("{float:.8e}"),
                    _ => text,
                }
            });
            rows.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    rows.sort_unstable();
    Ok(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray};

    use super::*;

    fn rows(names: &[&str], floats: &[Option<f64>]) -> Vec<String> {
        let names: ArrayRef = Arc::new(StringArray::from(names.to_vec()));
        let floats: ArrayRef = Arc::new(Float64Array::from(floats.to_vec()));
        comparable(&[RecordBatch::try_from_iter_with_nullable([("name", names, true), ("float", floats, true)]).unwrap()]).unwrap()
    }

    #[test]
    fn order_and_the_last_bits_of_floats_are_nothing_but_values_and_counts_are() {
        let one = rows(&["a", "b", "1.50"], &[Some(0.1 + 0.2), None, Some(2.0)]);
        assert_eq!(one, rows(&["1.50", "a", "b"], &[Some(2.0), Some(0.3), None]));
        assert_ne!(one, rows(&["a", "b", "1.5"], &[Some(0.3), None, Some(2.0)]));
        assert_ne!(one, rows(&["a", "b", "1.50"], &[Some(0.300001), None, Some(2.0)]));
        assert_ne!(one, rows(&["a", "a", "b", "1.50"], &[Some(0.3), Some(0.3), None, Some(2.0)]));
    }
}
