//! Typed columns under construction, for the formats that have types of their own: a reader puts one value after the other, and each column judges
//! whether that is one of its declared SQL type. What doesn't fit, exactly, is a fault of the record, never a NULL and never rounded
//! (floating-point columns take the nearest value, as declared).
//!
//! The same rules hold as for JSON: a TEXT column takes any plain value as it is written, a number is in range or a misfit, a number in a
//! TIMESTAMP column is what the column's FORMAT says.

mod cells;
mod natural;
mod nested;
mod rows;

mod text;

use std::fmt::Debug;

use arrow::{
    array::ArrayRef,
    datatypes::{DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit},
    datatypes::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
    datatypes::{UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};

use self::{
    cells::{Cells, Flags, Kind},
    text::{Bytes, Texts},
};
pub(super) use self::{
    natural::Natural,
    nested::{Items, Parts},
    rows::RowColumns,
};
use crate::{
    catalog::TimeFormat,
    error::{Error, Result},
};

/// A column under construction.
pub(super) trait ValueColumn: Debug + Send {
    /// Appends a value. `Err` says why it can't: `has … where … is expected`, to be put behind the column's name; nothing is appended then.
    fn put(&mut self, value: &Natural<'_>) -> Result<(), String>;

    /// Appends NULL.
    fn put_null(&mut self);

    /// Rows so far.
    fn len(&self) -> usize;

    /// Forgets all rows from `len` on, and parts of a nested value that was left unfinished.
    fn truncate(&mut self, len: usize);

    /// The rows so far as an array of the declared type; the column is empty then.
    fn finish(&mut self) -> Result<ArrayRef>;

    /// The column as one of arrays, if it is: its items are put into [`Items::item`], then [`Items::close`] makes a row of them.
    fn items(&mut self) -> Option<&mut Items> {
        None
    }

    /// The column as one of structs, if it is: each field gets one value or NULL, then [`Parts::close`] makes a row of them.
    fn parts(&mut self) -> Option<&mut Parts> {
        None
    }

    /// What the type is called in a reason.
    fn expected(&self) -> String;
}

/// An empty column of a declared type; `name` is for the error. `format` is the format's name.
pub(super) fn new_column(format: &str, name: &str, data_type: &DataType, time: &TimeFormat) -> Result<Box<dyn ValueColumn>> {
    Ok(match data_type {
        DataType::Boolean => Box::new(Flags::default()),
        DataType::Int8 => Box::new(Cells::<Int8Type>::new(data_type, Kind::Int("TINYINT"))),
        DataType::Int16 => Box::new(Cells::<Int16Type>::new(data_type, Kind::Int("SMALLINT"))),
        DataType::Int32 => Box::new(Cells::<Int32Type>::new(data_type, Kind::Int("INT"))),
        DataType::Int64 => Box::new(Cells::<Int64Type>::new(data_type, Kind::Int("BIGINT"))),
        DataType::UInt8 => Box::new(Cells::<UInt8Type>::new(data_type, Kind::Int("TINYINT UNSIGNED"))),
        DataType::UInt16 => Box::new(Cells::<UInt16Type>::new(data_type, Kind::Int("SMALLINT UNSIGNED"))),
        DataType::UInt32 => Box::new(Cells::<UInt32Type>::new(data_type, Kind::Int("INT UNSIGNED"))),
        DataType::UInt64 => Box::new(Cells::<UInt64Type>::new(data_type, Kind::Int("BIGINT UNSIGNED"))),
        DataType::Float32 => Box::new(Cells::<Float32Type>::new(data_type, Kind::Float("REAL"))),
        DataType::Float64 => Box::new(Cells::<Float64Type>::new(data_type, Kind::Float("DOUBLE"))),
        DataType::Decimal128(precision, scale) => Box::new(Cells::<arrow::datatypes::Decimal128Type>::new(data_type, Kind::Decimal(*precision, *scale))),
        DataType::Date32 => Box::new(Cells::<Date32Type>::new(data_type, Kind::Date)),
        DataType::Timestamp(unit, _) => {
            let kind = Kind::Time(*unit, time.clone());
            match unit {
                TimeUnit::Second => Box::new(Cells::<TimestampSecondType>::new(data_type, kind)),
                TimeUnit::Millisecond => Box::new(Cells::<TimestampMillisecondType>::new(data_type, kind)),
                TimeUnit::Microsecond => Box::new(Cells::<TimestampMicrosecondType>::new(data_type, kind)),
                TimeUnit::Nanosecond => Box::new(Cells::<TimestampNanosecondType>::new(data_type, kind)),
            }
        }
        DataType::Utf8View => Box::new(Texts::views()),
        DataType::Utf8 => Box::new(Texts::plain()),
        DataType::Binary => Box::new(Bytes::default()),
        DataType::Struct(fields) => Box::new(Parts::new(format, name, fields)?),
        DataType::List(item) => Box::new(Items::new(format, name, item, time)?),
        other => {
            let message = format!(
                "column {name} has type {other}, which {format} can't be read as; declare BOOLEAN, an integer type, REAL, DOUBLE, \
                 DECIMAL, TEXT, BYTEA, DATE, TIMESTAMP, STRUCT or an ARRAY of these"
            );
            return Err(Error::Unsupported(message));
        }
    })
}
