//! Typed columns under construction. Each judges the values it is given; what it can't hold is a fault of the record.
//!
//! A column that a query doesn't need is judged by the same code as one that it does, and emptied after each record:
//! that is how a record's fate can't depend on the query.

use std::fmt::Debug;

use arrow::{
    array::ArrayRef,
    buffer::Buffer,
    datatypes::{DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type},
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
}

/// A column of any type. Those of the types that are most common are no trait objects: what they do becomes part of the loop over a record's
/// columns, where a call per value would cost as much as the value.
#[derive(Debug)]
pub(super) enum AnyColumn {
    Int(Cells<Int32Type, Int>),
    BigInt(Cells<Int64Type, Int>),
    Double(Cells<Float64Type, Double>),
    Text(TextView),
    Flags(Flags),
    Times(Cells<Int64Type, Time>),
    Other(Box<dyn Column>),
}

/// Does the same with a column whatever it is.
macro_rules! whatever_it_is {
    ($any:expr, $column:ident => $what:expr) => {
        match $any {
            AnyColumn::Int($column) => $what,
            AnyColumn::BigInt($column) => $what,
            AnyColumn::Double($column) => $what,
            AnyColumn::Text($column) => $what,
            AnyColumn::Flags($column) => $what,
            AnyColumn::Times($column) => $what,
            AnyColumn::Other($column) => $what,
        }
    };
}

impl AnyColumn {
    /// Appends what is in a slot.
    #[inline(always)]
    pub(super) fn append(&mut self, payload: &Payload<'_>, slot: Slot) -> Judged {
        if slot.is_set() {
            let value = Value { payload, first: slot.first as usize, past: slot.past as usize };
            if !value.is_null() {
                return self.put(value);
            }
        }
        self.put_null();
        Ok(())
    }

    /// The last row of a timestamp column, in its unit.
    #[inline]
    pub(super) fn last_timestamp(&self) -> Option<i64> {
        if let AnyColumn::Times(times) = self { times.last() } else { None }
    }
}

impl Column for AnyColumn {
    fn reserve(&mut self, rows: usize) {
        whatever_it_is!(self, column => column.reserve(rows))
    }

    #[inline(always)]
    fn put(&mut self, value: Value<'_>) -> Judged {
        whatever_it_is!(self, column => column.put(value))
    }

    #[inline(always)]
    fn put_null(&mut self) {
        whatever_it_is!(self, column => column.put_null())
    }

    fn len(&self) -> usize {
        whatever_it_is!(self, column => column.len())
    }

    fn truncate(&mut self, len: usize) {
        whatever_it_is!(self, column => column.truncate(len))
    }

    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef> {
        whatever_it_is!(self, column => column.finish(records))
    }
}

/// An empty column of a type; `name` is for the error.
pub(super) fn new_column(name: &str, data_type: &DataType, time: &TimeFormat) -> Result<AnyColumn> {
    Ok(match data_type {
        DataType::Boolean => AnyColumn::Flags(Flags::default()),
        DataType::Int32 => AnyColumn::Int(Cells::new(data_type, Int { name: "INT" })),
        DataType::Int64 => AnyColumn::BigInt(Cells::new(data_type, Int { name: "BIGINT" })),
        DataType::Float64 => AnyColumn::Double(Cells::new(data_type, Double)),
        DataType::Utf8View => AnyColumn::Text(TextView::default()),
        DataType::Timestamp(unit, _) => AnyColumn::Times(Cells::new(data_type, Time { unit: *unit, format: time.clone() })),
        _ => AnyColumn::Other(uncommon_column(name, data_type)?),
    })
}

fn uncommon_column(name: &str, data_type: &DataType) -> Result<Box<dyn Column>> {
    Ok(match data_type {
        DataType::Int8 => Box::new(Cells::<Int8Type, _>::new(data_type, Int { name: "TINYINT" })),
        DataType::Int16 => Box::new(Cells::<Int16Type, _>::new(data_type, Int { name: "SMALLINT" })),
        DataType::UInt8 => Box::new(Cells::<UInt8Type, _>::new(data_type, Int { name: "TINYINT UNSIGNED" })),
        DataType::UInt16 => Box::new(Cells::<UInt16Type, _>::new(data_type, Int { name: "SMALLINT UNSIGNED" })),
        DataType::UInt32 => Box::new(Cells::<UInt32Type, _>::new(data_type, Int { name: "INT UNSIGNED" })),
        DataType::UInt64 => Box::new(Cells::<UInt64Type, _>::new(data_type, Int { name: "BIGINT UNSIGNED" })),
        DataType::Float32 => Box::new(Cells::<Float32Type, _>::new(data_type, Single)),
        DataType::Decimal128(precision, scale) => Box::new(Cells::new(data_type, Decimal { precision: *precision, scale: *scale })),
        DataType::Date32 => Box::new(Cells::<Date32Type, _>::new(data_type, Date)),
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
