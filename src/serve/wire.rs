//! What travels: the same columns as the session delivers, in types that every client knows.
//!
//! Views become plain text, bytes and lists (the JDBC driver 18.3 has no views), dictionaries and run-length encodings are written out.
//! The schema a client is told first and the one the rows come with are made by the same function, since clients compare them field by field.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, UnionArray},
    compute::{CastOptions, cast_with_options},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, UnionMode},
};

use crate::error::{Error, Result};

/// The schema under which a result of this schema travels.
pub(crate) fn wire_schema(schema: &Schema) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(wire_field).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn wire_field(field: &FieldRef) -> FieldRef {
    let data_type = wire_type(field.data_type());
    if data_type == *field.data_type() {
        return field.clone();
    }
    Arc::new(Field::new(field.name(), data_type, field.is_nullable()).with_metadata(field.metadata().clone()))
}

fn wire_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, value) => wire_type(value),
        DataType::RunEndEncoded(_, values) => wire_type(values.data_type()),
        DataType::List(item) | DataType::ListView(item) => DataType::List(wire_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(wire_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(wire_field(item), *size),
        DataType::Map(entries, sorted) => DataType::Map(wire_field(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(wire_field).collect()),
        DataType::Union(fields, mode) => DataType::Union(fields.iter().map(|(id, field)| (id, wire_field(field))).collect(), *mode),
        plain => plain.clone(),
    }
}

/// A batch as it travels under `schema`, which [`wire_schema`] made of what the session told.
pub(crate) fn wire_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.num_columns() != schema.fields().len() {
        return Err(Error::Internal(format!("a result of {} columns was announced with {}", batch.num_columns(), schema.fields().len())));
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| wire_array(column, field.data_type())).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), columns, &options)?)
}

fn wire_array(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type {
        return Ok(array.clone());
    }
    // Arrow casts no union to another: its arms are cast one by one.
    if let (DataType::Union(_, mode), DataType::Union(fields, _)) = (array.data_type(), data_type) {
        let union = array.as_union();
        let offsets = match mode {
            UnionMode::Dense => union.offsets().cloned(),
            UnionMode::Sparse => None,
        };
        let arms = fields.iter().map(|(id, field)| wire_array(union.child(id), field.data_type())).collect::<Result<Vec<_>>>()?;
        return Ok(Arc::new(UnionArray::try_new(fields.clone(), union.type_ids().clone(), offsets, arms)?));
    }
    let options = CastOptions { safe: false, ..Default::default() };
    Ok(cast_with_options(array, data_type, &options)?)
}

/// How many bytes of text and bytes the views among a batch's columns stand for: many rows may share one buffer, and don't once written out.
pub(crate) fn viewed_bytes(batch: &RecordBatch) -> usize {
    let lengths = |views: &[u128]| views.iter().map(|view| *view as u32 as usize).sum::<usize>();
    let column_bytes = |column: &ArrayRef| match column.data_type() {
        DataType::Utf8View => lengths(column.as_string_view().views()),
        DataType::BinaryView => lengths(column.as_binary_view().views()),
        _ => 0,
    };
    batch.columns().iter().map(column_bytes).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{
        array::{
            DictionaryArray, Int32Array, Int32RunArray, Int64Array, ListArray, ListViewArray, StringArray, StringViewArray, StructArray,
            builder::{ListBuilder, StringViewBuilder},
        },
        datatypes::Int32Type,
    };

    use super::*;

    fn check(array: ArrayRef, expected: &DataType) {
        let schema = Schema::new(vec![Field::new("c", array.data_type().clone(), true)]);
        let wire = wire_schema(&schema);
        assert_eq!(wire.field(0).data_type(), expected);
        let batch = RecordBatch::try_new(Arc::new(schema), vec![array.clone()]).unwrap();
        let sent = wire_batch(&batch, &wire).unwrap();
        assert_eq!(sent.schema(), wire);
        let text = |batch: &RecordBatch| arrow::util::pretty::pretty_format_batches(std::slice::from_ref(batch)).unwrap().to_string();
        assert_eq!(text(&sent), text(&batch));
    }

    #[test]
    fn views_dictionaries_and_runs_become_plain() {
        check(Arc::new(StringViewArray::from(vec![Some("a long text that no view holds inline"), None])), &DataType::Utf8);
        check(Arc::new(vec![Some("a"), Some("b"), None, Some("a")].into_iter().collect::<DictionaryArray<Int32Type>>()), &DataType::Utf8);
        let runs = Int32RunArray::try_new(&Int32Array::from(vec![2, 3]), &StringArray::from(vec!["x", "y"])).unwrap();
        check(Arc::new(runs), &DataType::Utf8);
    }

    #[test]
    fn nested_types_are_followed() {
        let mut builder = ListBuilder::new(StringViewBuilder::new());
        builder.append_value([Some("a"), None]);
        builder.append_null();
        let list: ListArray = builder.finish();
        let text_item = Arc::new(Field::new("item", DataType::Utf8, true));
        check(Arc::new(list.clone()), &DataType::List(text_item.clone()));

        let inner = Arc::new(list) as ArrayRef;
        let structure = StructArray::try_new(vec![Field::new("l", inner.data_type().clone(), true)].into(), vec![inner], None).unwrap();
        check(Arc::new(structure), &DataType::Struct(vec![Field::new("l", DataType::List(text_item), true)].into()));

        let item = Arc::new(Field::new("item", DataType::Int64, true));
        let view = ListViewArray::try_new(item.clone(), vec![0, 1].into(), vec![1, 2].into(), Arc::new(Int64Array::from(vec![1, 2, 3])), None).unwrap();
        check(Arc::new(view), &DataType::List(item));
    }

    #[test]
    fn a_null_where_none_was_announced_is_an_error() {
        let batch = RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![None, Some(1)])) as ArrayRef)]).unwrap();
        let announced = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        assert!(wire_batch(&batch, &announced).is_err());
    }
}
