//! Columns of fixed-width values: numbers, booleans, dates, timestamps.

use std::{fmt::Debug, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, BooleanBufferBuilder, PrimitiveArray},
    datatypes::{ArrowPrimitiveType, DataType, TimeUnit},
    datatypes::{Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type},
    datatypes::{TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType},
    datatypes::{UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};

use super::{
    super::{
        nulls::Nulls,
        time::{self, digits_of},
    },
    Natural, ValueColumn,
};
use crate::{catalog::TimeFormat, error::Result};

/// Which values a column has.
#[derive(Debug)]
pub(super) enum Kind {
    /// Integers, and what SQL calls them.
    Int(&'static str),
    /// Floating-point numbers, and what SQL calls them.
    Float(&'static str),
    /// Decimals: digits in all, and after the point.
    Decimal(u8, i8),
    Date,
    /// Timestamps of this unit; how they are written where they are text or numbers.
    Time(TimeUnit, TimeFormat),
}

impl Kind {
    /// What the type is called in a reason.
    fn expected(&self) -> String {
        match self {
            Kind::Int(name) | Kind::Float(name) => (*name).into(),
            Kind::Decimal(precision, scale) => format!("DECIMAL({precision}, {scale})"),
            Kind::Date => "DATE".into(),
            Kind::Time(unit, format) => {
                let written = match format {
                    TimeFormat::Rfc3339 => "or RFC 3339 text".to_string(),
                    TimeFormat::Local(zone) => format!("or local time in {zone}"),
                    TimeFormat::EpochSeconds => "or seconds since 1970".into(),
                    TimeFormat::EpochMillis => "or milliseconds since 1970".into(),
                    TimeFormat::EpochMicros => "or microseconds since 1970".into(),
                };
                format!("a time of TIMESTAMP({}) {written}", digits_of(*unit))
            }
        }
    }
}

/// How a column's values are made of a format's.
pub(super) trait Native: ArrowPrimitiveType {
    /// The value, if it is one of a column of this kind.
    fn read(value: &Natural<'_>, kind: &Kind) -> Option<Self::Native>;
}

macro_rules! integers {
    ($($type:ty),*) => {
        $(impl Native for $type {
            fn read(value: &Natural<'_>, _kind: &Kind) -> Option<Self::Native> {
                value.integer()?.try_into().ok()
            }
        })*
    };
}
integers!(Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type);

impl Native for Float32Type {
    fn read(value: &Natural<'_>, _kind: &Kind) -> Option<f32> {
        value.float()
    }
}

impl Native for Float64Type {
    fn read(value: &Natural<'_>, _kind: &Kind) -> Option<f64> {
        value.double()
    }
}

impl Native for Decimal128Type {
    fn read(value: &Natural<'_>, kind: &Kind) -> Option<i128> {
        let Kind::Decimal(precision, scale) = kind else { return None };
        let unscaled = value.scaled((*scale).into())?;
        (unscaled.unsigned_abs() < 10u128.checked_pow((*precision).into())?).then_some(unscaled)
    }
}

impl Native for Date32Type {
    fn read(value: &Natural<'_>, _kind: &Kind) -> Option<i32> {
        match value {
            Natural::Date(days) => Some(*days),
            Natural::Text(text) => time::date(text.as_bytes()),
            _ => None,
        }
    }
}

macro_rules! timestamps {
    ($($type:ty),*) => {
        $(impl Native for $type {
            fn read(value: &Natural<'_>, kind: &Kind) -> Option<i64> {
                let Kind::Time(unit, format) = kind else { return None };
                timestamp(value, *unit, format)
            }
        })*
    };
}
timestamps!(TimestampSecondType, TimestampMillisecondType, TimestampMicrosecondType, TimestampNanosecondType);

/// A time in a unit, if it needs no rounding.
fn timestamp(value: &Natural<'_>, unit: TimeUnit, format: &TimeFormat) -> Option<i64> {
    if let Natural::Timestamp(count, has) = value {
        return scale(*count, i64::from(digits_of(unit)) - i64::from(digits_of(*has)));
    }
    let digits = match format {
        TimeFormat::EpochSeconds => 0,
        TimeFormat::EpochMillis => 3,
        TimeFormat::EpochMicros => 6,
        TimeFormat::Rfc3339 | TimeFormat::Local(_) => {
            let Natural::Text(text) = value else { return None };
            return time::timestamp(text.as_bytes(), format, unit);
        }
    };
    match value {
        Natural::Int(count) => scale(i64::try_from(*count).ok()?, i64::from(digits_of(unit)) - digits),
        Natural::Decimal(..) => i64::try_from(value.scaled(digits_of(unit) as i32 - digits as i32)?).ok(),
        // The shortest text that stands for the number is what was meant.
        Natural::Float(_) | Natural::Double(_) => time::epoch(format!("{:e}", value.double().filter(|value| value.is_finite())?).as_bytes(), format, unit),
        _ => None,
    }
}

/// A count times a power of ten, if it stays a whole number.
fn scale(count: i64, power: i64) -> Option<i64> {
    let step = 10i64.checked_pow(u32::try_from(power.abs()).ok()?)?;
    if power >= 0 { count.checked_mul(step) } else { (count % step == 0).then(|| count / step) }
}

/// A column of fixed-width values.
#[derive(Debug)]
pub(super) struct Cells<T: ArrowPrimitiveType> {
    kind: Kind,
    data_type: DataType,
    values: Vec<T::Native>,
    nulls: Nulls,
}

impl<T: ArrowPrimitiveType> Cells<T> {
    /// An empty column.
    pub(super) fn new(data_type: &DataType, kind: Kind) -> Self {
        Self { kind, data_type: data_type.clone(), values: Vec::new(), nulls: Nulls::default() }
    }
}

impl<T: Native + Debug> ValueColumn for Cells<T> {
    fn put(&mut self, value: &Natural<'_>) -> Result<(), String> {
        let Some(native) = T::read(value, &self.kind) else { return Err(value.misfit(&self.expected())) };
        self.values.push(native);
        self.nulls.push(true);
        Ok(())
    }

    fn put_null(&mut self) {
        self.values.push(T::Native::default());
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.nulls.truncate(len);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let values = std::mem::take(&mut self.values);
        let array = PrimitiveArray::<T>::try_new(values.into(), self.nulls.finish())?;
        Ok(Arc::new(array.with_data_type(self.data_type.clone())))
    }

    fn expected(&self) -> String {
        self.kind.expected()
    }
}

/// A column of booleans.
#[derive(Debug)]
pub(super) struct Flags {
    values: BooleanBufferBuilder,
    nulls: Nulls,
}

impl Default for Flags {
    fn default() -> Self {
        Self { values: BooleanBufferBuilder::new(0), nulls: Nulls::default() }
    }
}

impl ValueColumn for Flags {
    fn put(&mut self, value: &Natural<'_>) -> Result<(), String> {
        let flag = match value {
            Natural::Bool(flag) => *flag,
            _ => return Err(value.misfit(&self.expected())),
        };
        self.values.append(flag);
        self.nulls.push(true);
        Ok(())
    }

    fn put_null(&mut self) {
        self.values.append(false);
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.nulls.truncate(len);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(Arc::new(BooleanArray::new(self.values.finish(), self.nulls.finish())))
    }

    fn expected(&self) -> String {
        "BOOLEAN".into()
    }
}
