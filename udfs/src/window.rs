//! Window functions: which tumbling window a timestamp falls in.
//!
//! `__window_start(ts, size [, offset])` and `__window_end(ts, size [, offset])` give the bounds of the half-open window
//! `[start, start + size)` that holds `ts`. Windows are aligned to 1970-01-01T00:00:00Z plus `offset`, also before 1970. The result
//! has the type of `ts`; NULL gives NULL; a window that the type can't hold whole gives NULL. `size` and `offset` are constants
//! without months, `size` positive, both whole in the unit of `ts`.
//!
//! The names begin with `__` since users don't write them: they are what `TUMBLE` in FROM becomes, and what a planner looks for when
//! it asks which column is a window's bound ([`WindowCall::of`]).

use std::{any::Any, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
        buffer::NullBuffer,
        datatypes::{
            DataType, Date32Type, Field, FieldRef, IntervalUnit, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
            TimestampSecondType,
        },
    },
    common::{Result, ScalarValue, exec_err, internal_err, plan_err},
    logical_expr::{ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

/// The name of the function that gives a window's first instant.
pub const WINDOW_START: &str = "__window_start";
/// The name of the function that gives the instant at which a window has ended.
pub const WINDOW_END: &str = "__window_end";

const DAY_NS: i64 = 86_400_000_000_000;

/// Both functions, to be registered with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![window_start(), window_end()]
}

/// `__window_start`.
pub fn window_start() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(WindowBound::new(Bound::Start)))
}

/// `__window_end`.
pub fn window_end() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(WindowBound::new(Bound::End)))
}

/// Which end of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bound {
    /// The first instant of the window.
    Start,
    /// The first instant after the window.
    End,
}

/// Tumbling windows of one size, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tumbling {
    /// Length of a window; positive.
    pub size_ns: i64,
    /// Where the windows are aligned: start of the first one at or after 1970, in `0..size_ns`.
    pub offset_ns: i64,
}

impl Tumbling {
    /// Windows of a positive size; any offset will do, it is taken modulo the size.
    pub fn new(size_ns: i64, offset_ns: i64) -> Option<Self> {
        (size_ns > 0).then(|| Self { size_ns, offset_ns: offset_ns.rem_euclid(size_ns) })
    }

    /// The window of an instant in nanoseconds since 1970, as `(start, end)`; `None` if it doesn't fit 64 bits.
    pub fn window_of(&self, ns: i64) -> Option<(i64, i64)> {
        window_of(ns, self.size_ns, self.offset_ns)
    }
}

/// A call of `__window_start` or `__window_end` found in a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowCall<'a> {
    /// Which end it gives.
    pub bound: Bound,
    /// The timestamp argument.
    pub time: &'a Expr,
    /// The windows.
    pub windows: Tumbling,
}

impl<'a> WindowCall<'a> {
    /// Reads an expression that is such a call; an alias around it doesn't matter, anything else does.
    pub fn of(expr: &'a Expr) -> Option<Self> {
        let Expr::ScalarFunction(call) = unaliased(expr) else { return None };
        let implementation: &dyn Any = call.func.inner().as_ref();
        let bound = implementation.downcast_ref::<WindowBound>()?.bound;
        let size = constant(call.args.get(1)?)?;
        let offset = match call.args.get(2) {
            Some(offset) => constant(offset)?,
            None => 0,
        };
        Some(Self { bound, time: call.args.first()?, windows: Tumbling::new(size, offset)? })
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

fn constant(expr: &Expr) -> Option<i64> {
    match unaliased(expr) {
        Expr::Literal(value, _) => interval_ns(value),
        _ => None,
    }
}

/// The length of an interval or duration in nanoseconds, a day being 24 hours; `None` if it is NULL, has months, or doesn't fit 64 bits.
pub fn interval_ns(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::IntervalMonthDayNano(Some(i)) if i.months == 0 => i64::from(i.days).checked_mul(DAY_NS)?.checked_add(i.nanoseconds),
        ScalarValue::IntervalDayTime(Some(i)) => i64::from(i.days).checked_mul(DAY_NS)?.checked_add(i64::from(i.milliseconds) * 1_000_000),
        ScalarValue::DurationSecond(Some(n)) => n.checked_mul(1_000_000_000),
        ScalarValue::DurationMillisecond(Some(n)) => n.checked_mul(1_000_000),
        ScalarValue::DurationMicrosecond(Some(n)) => n.checked_mul(1_000),
        ScalarValue::DurationNanosecond(Some(n)) => Some(*n),
        _ => None,
    }
}

/// The window of `t` in whatever unit the three numbers have. `size > 0`, `offset` in `0..size`.
fn window_of(t: i64, size: i64, offset: i64) -> Option<(i64, i64)> {
    // `t.rem_euclid(size)` and `offset` both lie in 0..size, so this can't overflow where `t - offset` could.
    let mut into = t.rem_euclid(size) - offset;
    if into < 0 {
        into += size;
    }
    let start = t.checked_sub(into)?;
    Some((start, start.checked_add(size)?))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowBound {
    bound: Bound,
    signature: Signature,
}

impl WindowBound {
    fn new(bound: Bound) -> Self {
        Self { bound, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for WindowBound {
    fn name(&self) -> &str {
        match self.bound {
            Bound::Start => WINDOW_START,
            Bound::End => WINDOW_END,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if !(2..=3).contains(&types.len()) {
            return plan_err!("a window takes a timestamp, a size and perhaps an offset, not {} arguments", types.len());
        }
        let time = match &types[0] {
            DataType::Null => DataType::Timestamp(TimeUnit::Nanosecond, None),
            other => other.clone(),
        };
        if unit_ns(&time).is_none() {
            return plan_err!("a window is over a TIMESTAMP or DATE column, not over {}: cast it, or name another column", types[0]);
        }
        for interval in &types[1..] {
            if !matches!(interval, DataType::Interval(IntervalUnit::MonthDayNano | IntervalUnit::DayTime) | DataType::Duration(_)) {
                return plan_err!("a window's size and offset are intervals like INTERVAL '1 minute', not {interval}");
            }
        }
        Ok([&[time], &types[1..]].concat())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first() {
            Some(time) => Ok(time.clone()),
            None => internal_err!("{} without arguments", self.name()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let Some(time) = args.arg_fields.first() else { return internal_err!("{} without arguments", self.name()) };
        // Judged here, at planning, so that a bad size is refused before a row is read.
        Windows::read(time.data_type(), args.scalar_arguments.get(1..).unwrap_or_default())?;
        Ok(Arc::new(Field::new(self.name(), time.data_type().clone(), true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Some((time, constants)) = args.args.split_first() else { return internal_err!("{} without arguments", self.name()) };
        let constants: Vec<_> = constants.iter().map(|c| if let ColumnarValue::Scalar(s) = c { Some(s) } else { None }).collect();
        let windows = Windows::read(&time.data_type(), &constants)?;
        match time {
            ColumnarValue::Array(times) => Ok(ColumnarValue::Array(bounds(times, windows, self.bound)?)),
            ColumnarValue::Scalar(time) => {
                let one = bounds(&time.to_array()?, windows, self.bound)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&one, 0)?))
            }
        }
    }
}

/// Windows in the unit of the timestamp column.
#[derive(Debug, Clone, Copy)]
struct Windows {
    size: i64,
    offset: i64,
}

impl Windows {
    fn read(time: &DataType, constants: &[Option<&ScalarValue>]) -> Result<Self> {
        let Some(unit) = unit_ns(time) else { return plan_err!("a window is over a TIMESTAMP or DATE column, not over {time}") };
        let mut lengths = [0_i64; 2];
        for (length, constant) in lengths.iter_mut().zip(constants) {
            let Some(value) = constant else { return plan_err!("a window's size and offset must be constants like INTERVAL '1 minute'") };
            match interval_ns(value) {
                Some(ns) if ns % unit == 0 => *length = ns / unit,
                Some(_) => return plan_err!("a window of {value} has no whole number of steps in {time}: cast the column to a finer type"),
                None => return plan_err!("a window needs a fixed length without months, like INTERVAL '1 minute', not {value}"),
            }
        }
        let [size, offset] = lengths;
        if size <= 0 {
            return plan_err!("a window's size must be positive");
        }
        Ok(Self { size, offset: offset.rem_euclid(size) })
    }
}

/// Nanoseconds per step of a type that windows can be over.
fn unit_ns(time: &DataType) -> Option<i64> {
    match time {
        DataType::Timestamp(TimeUnit::Second, _) => Some(1_000_000_000),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Some(1_000_000),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Some(1_000),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(1),
        DataType::Date32 => Some(DAY_NS),
        _ => None,
    }
}

fn bounds(times: &ArrayRef, windows: Windows, bound: Bound) -> Result<ArrayRef> {
    match times.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => Ok(typed::<TimestampSecondType>(times, windows, bound)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => Ok(typed::<TimestampMillisecondType>(times, windows, bound)),
        DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(typed::<TimestampMicrosecondType>(times, windows, bound)),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => Ok(typed::<TimestampNanosecondType>(times, windows, bound)),
        DataType::Date32 => Ok(typed::<Date32Type>(times, windows, bound)),
        other => exec_err!("a window is over a TIMESTAMP or DATE column, not over {other}"),
    }
}

/// One pass over the values buffer. Rows next to each other mostly lie in one window, so the window last found is tried first:
/// a subtraction and a comparison in place of a 64-bit division.
fn typed<T>(times: &ArrayRef, windows: Windows, bound: Bound) -> ArrayRef
where
    T: ArrowPrimitiveType<Native: Into<i64> + TryFrom<i64> + Default>,
{
    let times = times.as_primitive::<T>();
    let Windows { size, offset } = windows;
    let mut last: Option<(i64, T::Native)> = None;
    let mut misfits: Vec<usize> = vec![];
    let values: Vec<T::Native> = times
        .values()
        .iter()
        .enumerate()
        .map(|(row, &t)| {
            let t: i64 = t.into();
            if let Some((start, value)) = last
                && (t.wrapping_sub(start) as u64) < size as u64
            {
                return value;
            }
            let found = window_of(t, size, offset).and_then(|(start, end)| {
                // Both ends must fit, or `window_start` would know a window that `window_end` doesn't.
                let (first, past) = (T::Native::try_from(start).ok()?, T::Native::try_from(end).ok()?);
                Some((start, if bound == Bound::Start { first } else { past }))
            });
            match found {
                Some((start, value)) => {
                    last = Some((start, value));
                    value
                }
                None => {
                    misfits.push(row);
                    T::Native::default()
                }
            }
        })
        .collect();
    let nulls = match misfits.is_empty() {
        true => times.nulls().cloned(),
        false => {
            let mut valid: Vec<bool> = (0..times.len()).map(|row| times.is_valid(row)).collect();
            misfits.into_iter().for_each(|row| valid[row] = false);
            Some(NullBuffer::from(valid))
        }
    };
    Arc::new(PrimitiveArray::<T>::new(values.into(), nulls).with_data_type(times.data_type().clone()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::{
        arrow::array::{Date32Array, Int64Array, TimestampNanosecondArray},
        config::ConfigOptions,
        prelude::SessionContext,
    };

    use super::*;

    const MINUTE: i64 = 60_000_000_000;

    fn call(bound: Bound, times: ColumnarValue, constants: &[ScalarValue]) -> Result<ColumnarValue> {
        let time = times.data_type();
        let rows = if let ColumnarValue::Array(a) = &times { a.len() } else { 1 };
        let mut args = vec![times];
        args.extend(constants.iter().cloned().map(ColumnarValue::Scalar));
        let arg_fields = args.iter().map(|a| Arc::new(Field::new("a", a.data_type(), true))).collect();
        WindowBound::new(bound).invoke_with_args(ScalarFunctionArgs {
            args,
            arg_fields,
            number_rows: rows,
            return_field: Arc::new(Field::new("r", time, true)),
            config_options: Arc::new(ConfigOptions::default()),
        })
    }

    fn ns(length: i64) -> ScalarValue {
        ScalarValue::new_interval_mdn(0, 0, length)
    }

    /// By search over windows in 128 bits, without a remainder.
    fn naive(t: i64, size: i64, offset: i64, low: i128, high: i128) -> Option<(i128, i128)> {
        let (t, size, offset) = (t as i128, size as i128, offset as i128);
        let mut start = offset + (t - offset) / size * size;
        while start > t {
            start -= size;
        }
        while start + size <= t {
            start += size;
        }
        (start >= low && start + size <= high).then_some((start, start + size))
    }

    /// A small generator, so that the crate needs no further dependency for its tests.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self) -> i64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 as i64
        }
    }

    #[test]
    fn agrees_with_a_naive_search() {
        let mut dice = Dice(42);
        for round in 0..400 {
            let size = 1 + dice.roll().rem_euclid(if round % 2 == 0 { 1_000 } else { i64::MAX - 1 });
            let offset = if round % 3 == 0 { dice.roll() / 2 } else { 0 };
            let mut at = dice.roll() >> (round % 60);
            let times: Vec<Option<i64>> = (0..100)
                .map(|i| {
                    at = if i % 10 == 0 { dice.roll() >> (round % 60) } else { at.wrapping_add(dice.roll() % 50) };
                    match i % 17 {
                        0 => None,
                        1 => Some([i64::MIN, i64::MAX, i64::MIN + 1, i64::MAX - 1, 0, -1][round % 6]),
                        _ => Some(at),
                    }
                })
                .collect();
            let array: ArrayRef = Arc::new(TimestampNanosecondArray::from(times.clone()).with_timezone("+02:00"));
            for bound in [Bound::Start, Bound::End] {
                let ColumnarValue::Array(got) = call(bound, ColumnarValue::Array(array.clone()), &[ns(size), ns(offset)]).unwrap() else { panic!() };
                assert_eq!(got.data_type(), array.data_type());
                let got = got.as_primitive::<TimestampNanosecondType>();
                for (row, t) in times.iter().enumerate() {
                    let want = t.and_then(|t| naive(t, size, offset, i64::MIN as i128, i64::MAX as i128));
                    let want = want.map(|(start, end)| if bound == Bound::Start { start as i64 } else { end as i64 });
                    assert_eq!(got.is_valid(row).then(|| got.value(row)), want, "row {row}: {t:?}, size {size}, offset {offset}, {bound:?}");
                }
            }
        }
    }

    #[test]
    fn floors_before_1970() {
        let windows = Tumbling::new(MINUTE, 0).unwrap();
        assert_eq!(windows.window_of(-1), Some((-MINUTE, 0)));
        assert_eq!(windows.window_of(0), Some((0, MINUTE)));
        assert_eq!(windows.window_of(-MINUTE), Some((-MINUTE, 0)));
        assert_eq!(windows.window_of(i64::MIN), None);
        assert_eq!(Tumbling::new(0, 0), None);
        assert_eq!(Tumbling::new(MINUTE, -1).unwrap().window_of(0), Some((-1, MINUTE - 1)));
    }

    #[test]
    fn every_unit_and_a_scalar() {
        for (unit, per_second) in
            [(TimeUnit::Second, 1), (TimeUnit::Millisecond, 1_000), (TimeUnit::Microsecond, 1_000_000), (TimeUnit::Nanosecond, 1_000_000_000)]
        {
            for zone in [None, Some("Europe/Madrid")] {
                let kind = DataType::Timestamp(unit, zone.map(Into::into));
                let time = ScalarValue::Int64(Some(61 * per_second)).cast_to(&kind).unwrap();
                let ColumnarValue::Scalar(got) = call(Bound::End, ColumnarValue::Scalar(time), &[ns(MINUTE)]).unwrap() else { panic!() };
                assert_eq!(got, ScalarValue::Int64(Some(120 * per_second)).cast_to(&kind).unwrap());
            }
        }
        let half = call(Bound::Start, ColumnarValue::Scalar(ScalarValue::TimestampSecond(Some(1), None)), &[ns(500_000_000)]);
        assert!(half.unwrap_err().to_string().contains("no whole number of steps"));
    }

    #[test]
    fn dates_in_whole_days() {
        let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(-1), Some(0), Some(8), None, Some(i32::MAX), Some(i32::MIN)]));
        let week = ScalarValue::new_interval_mdn(0, 7, 0);
        let ColumnarValue::Array(got) = call(Bound::Start, ColumnarValue::Array(days.clone()), &[week]).unwrap() else { panic!() };
        assert_eq!(got.as_primitive::<Date32Type>(), &Date32Array::from(vec![Some(-7), Some(0), Some(7), None, None, None]));
        assert!(call(Bound::Start, ColumnarValue::Array(days), &[ns(MINUTE)]).is_err());
    }

    #[test]
    fn refuses_what_is_no_window() {
        let time = ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(1), None));
        for (size, message) in [
            (ns(0), "must be positive"),
            (ns(-1), "must be positive"),
            (ScalarValue::new_interval_mdn(1, 0, 0), "without months"),
            (ScalarValue::IntervalMonthDayNano(None), "fixed length"),
        ] {
            let error = call(Bound::Start, time.clone(), &[size]).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[tokio::test]
    async fn in_a_plan() {
        let context = SessionContext::new();
        functions().into_iter().for_each(|f| context.register_udf(f.as_ref().clone()));
        let rows = |sql: &'static str| {
            let context = context.clone();
            async move { context.sql(sql).await?.collect().await }
        };
        let got = rows(
            "SELECT count(*) FROM (SELECT to_timestamp_nanos(value * 7919000000 - 90000000000000) AS ts FROM generate_series(1, 50000))
             WHERE __window_start(ts, INTERVAL '1 minute') = date_bin(INTERVAL '1 minute', ts, TIMESTAMP '1970-01-01T00:00:00')
               AND __window_end(ts, INTERVAL '1 minute') = __window_start(ts, INTERVAL '1 minute') + INTERVAL '1 minute'",
        )
        .await
        .unwrap();
        assert_eq!(got[0].column(0).as_ref(), &Int64Array::from(vec![50_000]) as &dyn Array);
        for (sql, message) in [
            ("SELECT __window_start(now(), arrow_cast(value, 'Duration(Second)')) FROM generate_series(1, 2)", "must be constants"),
            ("SELECT __window_start(1, INTERVAL '1 minute')", "not over Int64"),
            ("SELECT __window_start(now(), 'minute')", "are intervals like"),
            ("SELECT __window_start(now())", "not 1 arguments"),
            ("SELECT __window_start(now(), INTERVAL '1 month')", "without months"),
        ] {
            let error = rows(sql).await.unwrap_err().to_string();
            assert!(error.contains(message), "{sql}: {error}");
        }
    }

    #[test]
    fn is_found_in_an_expression() {
        use datafusion::logical_expr::{col, lit};
        let call = window_end().call(vec![col("ts"), lit(ns(MINUTE)), lit(ns(-1))]).alias("window_end");
        let found = WindowCall::of(&call).unwrap();
        assert_eq!((found.bound, found.time, found.windows), (Bound::End, &col("ts"), Tumbling { size_ns: MINUTE, offset_ns: MINUTE - 1 }));
        assert!(WindowCall::of(&col("window_end")).is_none());
        assert!(WindowCall::of(&window_end().call(vec![col("ts"), col("size")])).is_none());
    }
}
