//! Typed columns under construction. Each judges the values it is given; what it can't hold is a fault of the record.
//!
//! A column that a query doesn't need is judged by the same code as one that it does, and emptied after each record:
//! that is how a record's fate can't depend on the query.

use std::fmt::Debug;

use arrow::{
    array::ArrayRef,
    buffer::Buffer,
    datatypes::{DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type},
    datatypes::{TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
    datatypes::{UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};

use super::{
    cells::{Cells, Date, Decimal, Double, Flags, Int, Single, Time},
    fault::Judged,
    nested::{ListColumn, StructColumn},
    path::Slot,
    text::{Bytes, TextView},
    value::{Payload, Value},
};
use crate::{
    catalog::TimeFormat,
    error::{Error, Result},
};

/// A column under construction.
pub(in crate::decode) trait Column: Debug + Send {
    /// Makes room for so many rows more.
    fn reserve(&mut self, rows: usize);

    /// Appends a value that isn't `null`, or says why it can't. After a fault the column may hold parts of the value: the
    /// caller truncates it.
    fn put(&mut self, value: Value<'_>) -> Judged;

    /// Appends NULL.
    fn put_null(&mut self);

    /// Rows so far.
    fn len(&self) -> usize;

    /// Forgets all rows from `len` on, and what a fault left behind.
    fn truncate(&mut self, len: usize);

    /// The rows so far as an array; the column is empty then. `records` is the buffer that payloads lie in.
    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef>;

    /// The last row of a timestamp column, in its unit.
    fn last_timestamp(&self) -> Option<i64> {
        None
    }
}

/// Appends what is in a slot.
#[inline(always)]
pub(super) fn append(column: &mut dyn Column, payload: &Payload<'_>, slot: Slot) -> Judged {
    if slot.is_set() {
        let value = Value { payload, first: slot.first as usize, past: slot.past as usize };
        if !value.is_null() {
            return column.put(value);
        }
    }
    column.put_null();
    Ok(())
}

/// An empty column of a type; `name` is for the error.
pub(super) fn new_column(name: &str, data_type: &DataType, time: &TimeFormat) -> Result<Box<dyn Column>> {
    Ok(match data_type {
        DataType::Boolean => Box::new(Flags::default()),
        DataType::Int8 => Box::new(Cells::<Int8Type, _>::new(data_type, Int { name: "TINYINT" })),
        DataType::Int16 => Box::new(Cells::<Int16Type, _>::new(data_type, Int { name: "SMALLINT" })),
        DataType::Int32 => Box::new(Cells::<Int32Type, _>::new(data_type, Int { name: "INT" })),
        DataType::Int64 => Box::new(Cells::<Int64Type, _>::new(data_type, Int { name: "BIGINT" })),
        DataType::UInt8 => Box::new(Cells::<UInt8Type, _>::new(data_type, Int { name: "TINYINT UNSIGNED" })),
        DataType::UInt16 => Box::new(Cells::<UInt16Type, _>::new(data_type, Int { name: "SMALLINT UNSIGNED" })),
        DataType::UInt32 => Box::new(Cells::<UInt32Type, _>::new(data_type, Int { name: "INT UNSIGNED" })),
        DataType::UInt64 => Box::new(Cells::<UInt64Type, _>::new(data_type, Int { name: "BIGINT UNSIGNED" })),
        DataType::Float32 => Box::new(Cells::<Float32Type, _>::new(data_type, Single)),
        DataType::Float64 => Box::new(Cells::<Float64Type, _>::new(data_type, Double)),
        DataType::Decimal128(precision, scale) => Box::new(Cells::new(data_type, Decimal { precision: *precision, scale: *scale })),
        DataType::Date32 => Box::new(Cells::<Date32Type, _>::new(data_type, Date)),
        DataType::Timestamp(unit, _) => {
            let kind = Time { unit: *unit, format: time.clone() };
            match unit {
                TimeUnit::Second => Box::new(Cells::<TimestampSecondType, _>::new(data_type, kind)),
                TimeUnit::Millisecond => Box::new(Cells::<TimestampMillisecondType, _>::new(data_type, kind)),
                TimeUnit::Microsecond => Box::new(Cells::<TimestampMicrosecondType, _>::new(data_type, kind)),
                TimeUnit::Nanosecond => Box::new(Cells::<TimestampNanosecondType, _>::new(data_type, kind)),
            }
        }
        DataType::Utf8View => Box::new(TextView::default()),
        DataType::Utf8 => Box::new(Bytes::text()),
        DataType::Binary => Box::new(Bytes::binary()),
        DataType::Struct(fields) => Box::new(StructColumn::new(name, fields)?),
        DataType::List(item) => Box::new(ListColumn::new(name, item)?),
        other => {
            let message = format!(
                "column {name} has type {other}, which JSON can't be read as; declare BOOLEAN, an integer type, REAL, DOUBLE, \
                 DECIMAL, TEXT, BYTEA, DATE, TIMESTAMP, STRUCT or an ARRAY of these"
            );
            return Err(Error::Unsupported(message));
        }
    })
}
