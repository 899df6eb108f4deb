//! Changes as a client sees them: rows with `_op` and `_epoch` in place of weights.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, StringViewArray, new_null_array},
    datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef},
    record_batch::RecordBatch,
    row::{RowConverter, SortField},
};

use crate::{
    error::Result,
    stream::hidden::{PAIR, WEIGHT, weight_field},
};

/// What a query gives, with the columns that say what became of a row and when. `nullable`: a row without values may come as well.
pub(super) fn result_schema(query: &Schema, nullable: bool) -> SchemaRef {
    let open = |field: &FieldRef| if nullable { Arc::new(field.as_ref().clone().with_nullable(true)) } else { field.clone() };
    let mut fields: Vec<FieldRef> = query.fields().iter().map(open).collect();
    fields.push(Arc::new(Field::new("_op", DataType::Utf8View, false)));
    fields.push(Arc::new(Field::new("_epoch", DataType::Int64, false)));
    Arc::new(Schema::new(fields))
}

/// The row that says that changes were left out: whoever adds changes up forgets what was before it.
pub(super) fn gap(schema: &SchemaRef, epoch: u64) -> Result<RecordBatch> {
    let visible = schema.fields().len() - 2;
    let mut columns: Vec<ArrayRef> = schema.fields()[..visible].iter().map(|field| new_null_array(field.data_type(), 1)).collect();
    columns.push(Arc::new(StringViewArray::from(vec!["gap"])));
    columns.push(Arc::new(Int64Array::from(vec![epoch as i64])));
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// A view's changes with their weights, also where rows only come.
pub(super) fn with_weights(schema: &SchemaRef, batch: &RecordBatch) -> Result<RecordBatch> {
    let width = schema.fields().len();
    // A row that goes may have been NULL where none of those that come can be.
    let mut fields: Vec<FieldRef> = schema.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
    fields.push(weight_field());
    let mut columns = batch.columns()[..width].to_vec();
    columns.push(match batch.columns().get(width) {
        Some(weights) => weights.clone(),
        None => Arc::new(Int64Array::from(vec![1; batch.num_rows()])),
    });
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Which rows are the two halves of one update: a row taken away directly before one added under the same key.
pub(super) fn pair_up(rows: &RecordBatch, weights: Option<&Int64Array>, key: Option<&[usize]>) -> Result<Int64Array> {
    let mut pairs = vec![-1; rows.num_rows()];
    if let (Some(weights), Some(key)) = (weights, key)
        && !key.is_empty()
    {
        let columns: Vec<ArrayRef> = key.iter().map(|c| rows.column(*c).clone()).collect();
        let converter = RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect())?;
        let keys = converter.convert_columns(&columns)?;
        for row in 1..rows.num_rows() {
            if weights.value(row - 1) < 0 && weights.value(row) > 0 && keys.row(row - 1) == keys.row(row) {
                (pairs[row - 1], pairs[row]) = (row as i64, row as i64);
            }
        }
    } else if let (Some(weights), Some([])) = (weights, key) {
        // A global aggregate has one row: any -1 before a +1 is its update.
        for row in 1..rows.num_rows() {
            if weights.value(row - 1) < 0 && weights.value(row) > 0 {
                (pairs[row - 1], pairs[row]) = (row as i64, row as i64);
            }
        }
    }
    Ok(Int64Array::from(pairs))
}

/// Replaces weight and pair by `_op` and `_epoch`. An update of which a filter kept only one half is an insert or a delete.
pub(super) fn with_ops(batch: &RecordBatch, schema: &SchemaRef, epoch: u64) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let visible = schema.fields().len() - 2;
    let ops: StringViewArray = match (batch.column_by_name(WEIGHT), batch.column_by_name(PAIR)) {
        (Some(weights), Some(pairs)) => {
            let (weights, pairs) = (weights.as_primitive::<Int64Type>(), pairs.as_primitive::<Int64Type>());
            let same = |a: usize, b: usize| pairs.value(a) >= 0 && pairs.value(a) == pairs.value(b);
            (0..rows)
                .map(|row| {
                    Some(match weights.value(row) > 0 {
                        true if row > 0 && same(row - 1, row) => "update_after",
                        true => "insert",
                        false if row + 1 < rows && same(row, row + 1) => "update_before",
                        false => "delete",
                    })
                })
                .collect()
        }
        _ => (0..rows).map(|_| Some("insert")).collect(),
    };
    let mut columns: Vec<ArrayRef> = batch.columns()[..visible].to_vec();
    columns.push(Arc::new(ops));
    columns.push(Arc::new(Int64Array::from(vec![epoch as i64; rows])));
    for (column, field) in columns.iter_mut().zip(schema.fields()) {
        fit(column, field)?;
    }
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn fit(column: &mut ArrayRef, field: &FieldRef) -> Result<()> {
    if column.data_type() == &DataType::Null {
        *column = new_null_array(field.data_type(), column.len());
    } else if column.data_type() != field.data_type() {
        *column = arrow::compute::cast(column, field.data_type())?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::stream::hidden::pair_field;

    fn changes(rows: &[(&str, i64, i64)]) -> (RecordBatch, Int64Array) {
        let schema = Arc::new(Schema::new(vec![Field::new("k", DataType::Utf8View, true), Field::new("v", DataType::Int64, true)]));
        let batch = RecordBatch::try_new(
            schema,
            vec![Arc::new(StringViewArray::from_iter_values(rows.iter().map(|r| r.0))), Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)))],
        )
        .unwrap();
        (batch, Int64Array::from_iter_values(rows.iter().map(|r| r.2)))
    }

    fn ops(rows: &[(&str, i64, i64)], key: Option<&[usize]>, keep: &[usize]) -> Vec<String> {
        let (batch, weights) = changes(rows);
        let pairs = pair_up(&batch, Some(&weights), key).unwrap();
        let mut fields = batch.schema_ref().fields().to_vec();
        fields.extend([weight_field(), pair_field()]);
        let mut columns = batch.columns().to_vec();
        columns.extend([Arc::new(weights) as ArrayRef, Arc::new(pairs)]);
        let all = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let kept = arrow::compute::take_record_batch(&all, &arrow::array::UInt64Array::from_iter_values(keep.iter().map(|k| *k as u64))).unwrap();
        let result = with_ops(&kept, &result_schema(batch.schema_ref(), false), 7).unwrap();
        result.column(2).as_string_view().iter().map(|s| s.unwrap().to_string()).collect()
    }

    #[test]
    fn halves_of_an_update_are_told_from_inserts_and_deletes() {
        let rows = [("a", 1, -1), ("a", 2, 1), ("b", 1, 1), ("c", 1, -1), ("d", 1, 1)];
        assert_eq!(ops(&rows, Some(&[0]), &[0, 1, 2, 3, 4]), ["update_before", "update_after", "insert", "delete", "insert"]);
        assert_eq!(ops(&rows, None, &[0, 1, 2, 3, 4]), ["delete", "insert", "insert", "delete", "insert"]);
    }

    #[test]
    fn a_filter_that_keeps_one_half_makes_it_an_insert_or_a_delete() {
        let rows = [("a", 1, -1), ("a", 2, 1), ("b", 1, -1), ("b", 2, 1)];
        assert_eq!(ops(&rows, Some(&[0]), &[0, 3]), ["delete", "insert"], "halves of different updates are no update");
        assert_eq!(ops(&rows, Some(&[0]), &[1]), ["insert"]);
    }
}
