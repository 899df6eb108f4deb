//! Columns of fixed-width values: numbers, booleans, dates, timestamps.

use std::{fmt::Debug, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder, PrimitiveArray, make_array},
    buffer::{Buffer, NullBuffer},
    datatypes::{ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, TimeUnit},
};

use super::{
    super::{
        nulls::Nulls,
        number::{self, Number},
        time,
    },
    column::Column,
    fault::Judged,
    value::{Text, Value, unescape},
};
use crate::{catalog::TimeFormat, error::Result};

/// How the values of one type are read.
pub(super) trait Kind<T: ArrowPrimitiveType>: Debug + Send {
    /// The value, if it is one of this type.
    fn read(&self, value: &Value<'_>) -> Option<T::Native>;

    /// What the type is called in a reason.
    fn name(&self) -> String;
}

/// A column of fixed-width values.
#[derive(Debug)]
pub(super) struct Cells<T: ArrowPrimitiveType, K> {
    kind: K,
    data_type: DataType,
    values: Vec<T::Native>,
    nulls: Nulls,
}

impl<T: ArrowPrimitiveType, K: Kind<T>> Cells<T, K> {
    /// An empty column.
    pub(super) fn new(data_type: &DataType, kind: K) -> Self {
        Self { kind, data_type: data_type.clone(), values: Vec::new(), nulls: Nulls::default() }
    }

    /// Appends values that were read elsewhere, those of a range of rows; `valid` says of each row whether it has one.
    pub(super) fn extend(&mut self, values: &[T::Native], valid: &[u8], rows: std::ops::Range<usize>) {
        self.values.extend_from_slice(values);
        self.nulls.extend(valid, rows);
    }

    /// The last row's value, if it has one.
    #[inline]
    pub(super) fn last(&self) -> Option<T::Native> {
        let last = self.values.len().checked_sub(1)?;
        self.nulls.is_valid(last).then(|| self.values[last])
    }
}

impl<T: ArrowPrimitiveType + Debug, K: Kind<T>> Column for Cells<T, K> {
    fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows);
    }

    #[inline(always)]
    fn put(&mut self, value: Value<'_>) -> Judged {
        let Some(native) = self.kind.read(&value) else {
            return value.misfit(self.kind.name());
        };
        self.values.push(native);
        self.nulls.push(true);
        Ok(())
    }

    #[inline(always)]
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
        let values = std::mem::take(&mut self.values);
        let array = PrimitiveArray::<T>::try_new(values.into(), self.nulls.finish())?;
        // Timestamps are counts until here.
        Ok(make_array(array.into_data().into_builder().data_type(self.data_type.clone()).build()?))
    }
}

/// Integers: any JSON number whose value is one and is in range.
#[derive(Debug)]
pub(super) struct Int {
    /// What SQL calls them.
    pub(super) name: &'static str,
}

impl<T: ArrowPrimitiveType> Kind<T> for Int
where
    T::Native: TryFrom<i64> + TryFrom<i128>,
{
    #[inline(always)]
    fn read(&self, value: &Value<'_>) -> Option<T::Native> {
        let text = value.raw();
        match number::short_integer(text) {
            Some(value) => value.try_into().ok(),
            None => number::integer(text).and_then(|value| value.try_into().ok()),
        }
    }

    fn name(&self) -> String {
        self.name.into()
    }
}

/// Doubles: the nearest one to any JSON number.
#[derive(Debug)]
pub(super) struct Double;

impl Kind<Float64Type> for Double {
    #[inline(always)]
    fn read(&self, value: &Value<'_>) -> Option<f64> {
        number::double(value.raw())
    }

    fn name(&self) -> String {
        "DOUBLE".into()
    }
}

/// Floats: the nearest one to any JSON number.
#[derive(Debug)]
pub(super) struct Single;

impl Kind<Float32Type> for Single {
    fn read(&self, value: &Value<'_>) -> Option<f32> {
        number::float(value.raw())
    }

    fn name(&self) -> String {
        "REAL".into()
    }
}

/// Decimals: a JSON number, or text that is one, that needs no rounding.
#[derive(Debug)]
pub(super) struct Decimal {
    /// Digits in all.
    pub(super) precision: u8,
    /// Digits after the point.
    pub(super) scale: i8,
}

impl Kind<Decimal128Type> for Decimal {
    fn read(&self, value: &Value<'_>) -> Option<i128> {
        let read = |text: &[u8]| Number::parse(text)?.scaled(self.scale.into());
        let unscaled = if value.is_text() { read_text(value, read) } else { read(value.raw()) }?;
        (unscaled.unsigned_abs() < 10u128.checked_pow(self.precision.into())?).then_some(unscaled)
    }

    fn name(&self) -> String {
        format!("DECIMAL({}, {})", self.precision, self.scale)
    }
}

/// Dates: text.
#[derive(Debug)]
pub(super) struct Date;

impl Kind<Date32Type> for Date {
    fn read(&self, value: &Value<'_>) -> Option<i32> {
        read_text(value, time::date)
    }

    fn name(&self) -> String {
        "DATE as 'YYYY-MM-DD'".into()
    }
}

/// Timestamps, as text or as a number by their format.
#[derive(Debug)]
pub(super) struct Time {
    /// The column's unit.
    pub(super) unit: TimeUnit,
    /// How they are written.
    pub(super) format: TimeFormat,
}

impl<T: ArrowPrimitiveType<Native = i64>> Kind<T> for Time {
    #[inline(always)]
    fn read(&self, value: &Value<'_>) -> Option<i64> {
        match self.format {
            TimeFormat::Rfc3339 | TimeFormat::Local(_) => read_text(value, |text| time::timestamp(text, &self.format, self.unit)),
            _ => time::epoch(value.raw(), &self.format, self.unit),
        }
    }

    fn name(&self) -> String {
        let written = match &self.format {
            TimeFormat::Rfc3339 => "as RFC 3339 text".to_string(),
            TimeFormat::Local(zone) => format!("as local time in {zone}"),
            TimeFormat::EpochSeconds => "as seconds since 1970".into(),
            TimeFormat::EpochMillis => "as milliseconds since 1970".into(),
            TimeFormat::EpochMicros => "as microseconds since 1970".into(),
        };
        format!("TIMESTAMP({}) {written}", time::digits_of(self.unit))
    }
}

/// Reads the content of a string; other values have none.
#[inline]
fn read_text<T>(value: &Value<'_>, read: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    if !value.is_text() {
        return None;
    }
    match value.text().ok()? {
        Text::Plain(text) => read(text),
        Text::Escaped(inner) => {
            let mut text = Vec::new();
            unescape(inner, &mut text);
            read(&text)
        }
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

impl Flags {
    /// Appends flags that were read elsewhere, as a bitmap: those of a range of rows; `valid` says of each row whether it has one.
    pub(super) fn extend(&mut self, flags: &[u8], valid: &[u8], rows: std::ops::Range<usize>) {
        self.values.append_packed_range(rows.clone(), flags);
        self.nulls.extend(valid, rows);
    }
}

impl Column for Flags {
    fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows);
    }

    #[inline(always)]
    fn put(&mut self, value: Value<'_>) -> Judged {
        let flag = match value.raw() {
            b"true" => true,
            b"false" => false,
            _ => return value.misfit("BOOLEAN".into()),
        };
        self.values.append(flag);
        self.nulls.push(true);
        Ok(())
    }

    #[inline(always)]
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
        let nulls: Option<NullBuffer> = self.nulls.finish();
        Ok(Arc::new(BooleanArray::new(self.values.finish(), nulls)))
    }
}
