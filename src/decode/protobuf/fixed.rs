//! Columns of fixed-width values: numbers, booleans, dates, timestamps; and which column reads which kind of field.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, BooleanBufferBuilder, PrimitiveArray},
    buffer::Buffer,
    datatypes::{
        ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};

use super::{
    super::{nulls::Nulls, number::Number, time},
    column::{Column, Payload},
    fault::{Judged, misfit},
    scalar::{Scalar, utf8},
    texts::{EnumNames, Runs, Texts},
    wire::Raw,
};
use crate::{catalog::TimeFormat, error::Result};

/// An empty column of a type for such values; or advice what to declare instead.
pub(super) fn scalar_column(scalar: Scalar, data_type: &DataType, time: &TimeFormat) -> Result<Result<Box<dyn Column>, String>> {
    fn whole<T: ArrowPrimitiveType>(scalar: Scalar, data_type: &DataType, expected: &str) -> Box<dyn Column>
    where
        T::Native: TryFrom<i128>,
    {
        Fixed::<T>::boxed(scalar, data_type, expected.into(), |scalar, _, raw| scalar.integer(raw)?.try_into().ok())
    }
    let integer = scalar.is_integer();
    let number = integer || matches!(scalar, Scalar::Float | Scalar::Double);
    Ok(Ok(match data_type {
        DataType::Boolean if matches!(scalar, Scalar::Bool) => Box::new(Flags::default()),
        DataType::Int8 if integer => whole::<Int8Type>(scalar, data_type, "TINYINT"),
        DataType::Int16 if integer => whole::<Int16Type>(scalar, data_type, "SMALLINT"),
        DataType::Int32 if integer => whole::<Int32Type>(scalar, data_type, "INT"),
        DataType::Int64 if integer => whole::<Int64Type>(scalar, data_type, "BIGINT"),
        DataType::UInt8 if integer => whole::<UInt8Type>(scalar, data_type, "TINYINT UNSIGNED"),
        DataType::UInt16 if integer => whole::<UInt16Type>(scalar, data_type, "SMALLINT UNSIGNED"),
        DataType::UInt32 if integer => whole::<UInt32Type>(scalar, data_type, "INT UNSIGNED"),
        DataType::UInt64 if integer => whole::<UInt64Type>(scalar, data_type, "BIGINT UNSIGNED"),
        DataType::Float32 if number => Fixed::<Float32Type>::boxed(scalar, data_type, "REAL".into(), |scalar, _, raw| scalar.float(raw)),
        DataType::Float64 if number => Fixed::<Float64Type>::boxed(scalar, data_type, "DOUBLE".into(), |scalar, _, raw| scalar.double(raw)),
        DataType::Decimal128(precision, scale) if integer || matches!(scalar, Scalar::String) => {
            let (precision, scale) = (*precision, *scale);
            let expected = format!("DECIMAL({precision}, {scale})");
            Fixed::<Decimal128Type>::boxed(scalar, data_type, expected, move |scalar, text, raw| {
                let unscaled = match scalar {
                    Scalar::String => Number::parse(text.as_bytes())?.scaled(scale.into()),
                    _ => scalar.integer(raw)?.checked_mul(10i128.checked_pow(u32::try_from(scale).ok()?)?),
                }?;
                (unscaled.unsigned_abs() < 10u128.checked_pow(precision.into())?).then_some(unscaled)
            })
        }
        DataType::Date32 if matches!(scalar, Scalar::String) => {
            Fixed::<Date32Type>::boxed(scalar, data_type, "DATE as 'YYYY-MM-DD'".into(), |_, text, _| time::date(text.as_bytes()))
        }
        DataType::Timestamp(unit, _) => {
            let text = matches!(time, TimeFormat::Rfc3339 | TimeFormat::Local(_));
            match (&scalar, text) {
                (Scalar::String, true) => {}
                (Scalar::String, false) => return Ok(Err("TIMESTAMP without FORMAT 'epoch_…', since the field is text".into())),
                (_, true) if integer => return Ok(Err("TIMESTAMP FORMAT 'epoch_s', 'epoch_ms' or 'epoch_us', which says what the number counts".into())),
                _ if number => {}
                _ => return Ok(Err(advice(&scalar))),
            }
            moments(scalar, *unit, time, data_type)
        }
        DataType::Utf8View | DataType::Utf8 => {
            let view = *data_type == DataType::Utf8View;
            match scalar {
                Scalar::Bytes => return Ok(Err(advice(&scalar))),
                Scalar::Enum(kind) if view => Box::new(EnumNames::new(&kind)),
                _ if view => Box::new(Texts::new(scalar)),
                _ => Box::new(Runs::text(scalar)),
            }
        }
        DataType::Binary if matches!(scalar, Scalar::Bytes | Scalar::String) => Box::new(Runs::binary(scalar)),
        _ => return Ok(Err(advice(&scalar))),
    }))
}

/// What a column of such values can be declared as.
fn advice(scalar: &Scalar) -> String {
    match scalar {
        Scalar::Bool => "BOOLEAN or TEXT",
        Scalar::Float | Scalar::Double => "DOUBLE, REAL or TEXT",
        Scalar::String => "TEXT, BYTEA, DATE, TIMESTAMP or DECIMAL(p, s)",
        Scalar::Bytes => "BYTEA",
        Scalar::Enum(_) => "TEXT for its names, or INT for its numbers",
        _ => "an integer type, DECIMAL(p, s), DOUBLE, TEXT, or TIMESTAMP with FORMAT 'epoch_…'",
    }
    .into()
}

fn moments(scalar: Scalar, unit: TimeUnit, format: &TimeFormat, data_type: &DataType) -> Box<dyn Column> {
    fn boxed<T: ArrowPrimitiveType<Native = i64>>(scalar: Scalar, unit: TimeUnit, format: &TimeFormat, data_type: &DataType) -> Box<dyn Column> {
        let expected = time::expected(unit, format);
        let format = format.clone();
        Fixed::<T>::boxed(scalar, data_type, expected, move |scalar, text, raw| match scalar {
            Scalar::String => time::timestamp(text.as_bytes(), &format, unit),
            Scalar::Float | Scalar::Double => time::epoch(scalar.double(raw)?.to_string().as_bytes(), &format, unit),
            _ => time::epoch_of(scalar.integer(raw)?, &format, unit),
        })
    }
    match unit {
        TimeUnit::Second => boxed::<TimestampSecondType>(scalar, unit, format, data_type),
        TimeUnit::Millisecond => boxed::<TimestampMillisecondType>(scalar, unit, format, data_type),
        TimeUnit::Microsecond => boxed::<TimestampMicrosecondType>(scalar, unit, format, data_type),
        TimeUnit::Nanosecond => boxed::<TimestampNanosecondType>(scalar, unit, format, data_type),
    }
}

/// How a value is read, given its text if it is text.
type Read<T> = Box<dyn Fn(&Scalar, &str, Raw) -> Option<T> + Send>;

/// A column of fixed-width values.
struct Fixed<T: ArrowPrimitiveType> {
    scalar: Scalar,
    read: Read<T::Native>,
    /// What the type is called in a reason.
    expected: String,
    data_type: DataType,
    values: Vec<T::Native>,
    nulls: Nulls,
}

impl<T: ArrowPrimitiveType> Fixed<T> {
    fn boxed(
        scalar: Scalar,
        data_type: &DataType,
        expected: String,
        read: impl Fn(&Scalar, &str, Raw) -> Option<T::Native> + Send + 'static,
    ) -> Box<dyn Column> {
        Box::new(Self { scalar, read: Box::new(read), expected, data_type: data_type.clone(), values: vec![], nulls: Nulls::default() })
    }
}

impl<T: ArrowPrimitiveType> fmt::Debug for Fixed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixed").field("scalar", &self.scalar).field("data_type", &self.data_type).field("values", &self.values).finish_non_exhaustive()
    }
}

impl<T: ArrowPrimitiveType> Column for Fixed<T> {
    fn put(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        let Some(&raw) = raws.last() else { return misfit("no value", self.expected.clone()) };
        let text = if matches!(self.scalar, Scalar::String) { utf8(payload, raw)? } else { "" };
        let Some(value) = (self.read)(&self.scalar, text, raw) else {
            return misfit(&self.scalar.shown(payload, raw), self.expected.clone());
        };
        self.values.push(value);
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

    fn finish(&mut self, _records: &Buffer) -> Result<ArrayRef> {
        let array = PrimitiveArray::<T>::try_new(std::mem::take(&mut self.values).into(), self.nulls.finish())?;
        Ok(Arc::new(array.with_data_type(self.data_type.clone())))
    }
}

/// A column of booleans.
#[derive(Debug)]
struct Flags {
    values: BooleanBufferBuilder,
    nulls: Nulls,
}

impl Default for Flags {
    fn default() -> Self {
        Self { values: BooleanBufferBuilder::new(0), nulls: Nulls::default() }
    }
}

impl Column for Flags {
    fn put(&mut self, _payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        let Some(Raw::Varint(value)) = raws.last() else { return misfit("no value", "BOOLEAN".into()) };
        self.values.append(*value != 0);
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

    fn finish(&mut self, _records: &Buffer) -> Result<ArrayRef> {
        let nulls = self.nulls.finish();
        Ok(Arc::new(BooleanArray::new(self.values.finish(), nulls)))
    }
}
