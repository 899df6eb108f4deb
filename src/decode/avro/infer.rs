//! The columns that a schema tells: one for each field of the record, nested ones as SQL's nested types.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Fields};

use super::{
    super::payload::{DEEPEST, MOST_PARTS, too_many_parts},
    resolve::unit,
    schema_of,
};
use crate::{
    catalog::{AvroDef, ColumnDef, Origin, TimeFormat},
    error::{Error, Result},
    source::avro::{AvroSchema, Kind, Logical, TypeId},
};

/// The columns of payloads in Avro.
pub(in crate::decode) fn columns(def: &AvroDef) -> Result<Vec<ColumnDef>> {
    let schema = schema_of(def)?;
    let root = schema.nullable(schema.root()).unwrap_or(schema.root());
    let Kind::Record(record) = &schema.at(root).kind else {
        return Err(Error::Invalid(format!("the Avro schema is {}, and columns are the fields of a record: declare a record", schema.name_of(root))));
    };
    if record.fields.is_empty() {
        return Err(Error::Invalid(format!("record {} has no fields, and a source has columns: declare some", record.name.full)));
    }
    let mut left = MOST_PARTS;
    let column = |field: &crate::source::avro::Field| ColumnDef {
        name: field.name.clone(),
        data_type: data_type(&schema, field.of, 0, &mut vec![root], &mut left),
        origin: Origin::Payload { path: vec![field.name.clone()], time: TimeFormat::default() },
    };
    let columns = record.fields.iter().map(column).collect();
    match left {
        0 => Err(too_many_parts(&record.name.full)),
        _ => Ok(columns),
    }
}

/// The SQL type that holds all values of a type; `within` are the records around it.
fn data_type(schema: &AvroSchema, of: TypeId, depth: usize, within: &mut Vec<TypeId>, left: &mut usize) -> DataType {
    *left = left.saturating_sub(1);
    if *left == 0 {
        return DataType::Utf8View;
    }
    if let Some(some) = schema.nullable(of) {
        return data_type(schema, some, depth, within, left);
    }
    let described = schema.at(of);
    match (&described.kind, described.logical) {
        (_, Logical::Decimal(precision, scale)) if precision <= u32::from(DECIMAL128_MAX_PRECISION) => DataType::Decimal128(precision as u8, scale as i8),
        // More digits than SQL's decimals have, as text.
        (_, Logical::Decimal(..) | Logical::Uuid | Logical::TimeMillis | Logical::TimeMicros) => DataType::Utf8View,
        (_, Logical::Date) => DataType::Date32,
        (_, Logical::Timestamp(digits) | Logical::LocalTimestamp(digits)) => {
            // Without a zone, as the times of other sources are declared.
            DataType::Timestamp(unit(digits), None)
        }
        (Kind::Boolean, _) => DataType::Boolean,
        (Kind::Int, _) => DataType::Int32,
        (Kind::Long, _) => DataType::Int64,
        (Kind::Float, _) => DataType::Float32,
        (Kind::Double, _) => DataType::Float64,
        (Kind::Bytes | Kind::Fixed(_), _) => DataType::Binary,
        (Kind::Record(record), _) if depth < DEEPEST && !within.contains(&of) && !record.fields.is_empty() => {
            within.push(of);
            let fields: Vec<Field> =
                record.fields.iter().map(|field| Field::new(&field.name, data_type(schema, field.of, depth + 1, within, left), true)).collect();
            within.pop();
            DataType::Struct(Fields::from(fields))
        }
        (Kind::Array(items), _) if depth < DEEPEST => DataType::new_list(data_type(schema, *items, depth + 1, within, left), true),
        (Kind::Map(values), _) if depth < DEEPEST => {
            let value = data_type(schema, *values, depth + 2, within, left);
            let fields = vec![Field::new("key", DataType::Utf8View, true), Field::new("value", value, true)];
            DataType::new_list(DataType::Struct(Fields::from(fields)), true)
        }
        // Text, symbols, unions of several types, and what nests too deep or in itself.
        _ => DataType::Utf8View,
    }
}
