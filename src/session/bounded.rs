//! Functions whose result can be larger than any memory though their arguments are a few bytes: `repeat('x', 100000000000)`. They say so
//! instead of asking the system for it, which would end the process.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array},
    compute::{CastOptions, cast_with_options, kernels::length::length},
    datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, IntervalUnit, TimeUnit},
};
use datafusion::{
    common::{Result, ScalarValue, plan_err, resources_err},
    execution::{FunctionRegistry, SessionState},
    logical_expr::{
        ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
        interval_arithmetic::Interval,
        simplify::{ExprSimplifyResult, SimplifyContext},
        sort_properties::{ExprProperties, SortProperties},
    },
};

/// The most bytes of one call's result, over all rows of a batch.
const MOST_BYTES: f64 = (1u64 << 30) as f64;
/// How deep a type may be that is written as text.
const DEEPEST_TYPE: usize = 32;
/// What a day has at least, in nanoseconds, whatever the calendar.
const DAY: f64 = 86_400e9;

/// Puts these functions in the place of those that they are made of.
pub(super) fn register(state: &mut SessionState) -> Result<()> {
    for (name, kind) in [
        ("repeat", Kind::Repeat),
        ("lpad", Kind::Pad),
        ("rpad", Kind::Pad),
        ("array_repeat", Kind::Elements),
        ("array_resize", Kind::Resize),
        ("range", Kind::Range),
        ("generate_series", Kind::Range),
        ("arrow_cast", Kind::Type),
        ("arrow_try_cast", Kind::Type),
    ] {
        if let Ok(inner) = state.udf(name) {
            state.register_udf(Arc::new(ScalarUDF::new_from_impl(Bounded { inner, kind })))?;
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// (text, times)
    Repeat,
    /// (text, length, …)
    Pad,
    /// (value, times)
    Elements,
    /// (list, length, …)
    Resize,
    /// (end), (start, end), (start, end, step)
    Range,
    /// (value, type)
    Type,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    inner: Arc<ScalarUDF>,
    kind: Kind,
}

impl Bounded {
    /// About how many bytes the result will have.
    fn result_bytes(&self, args: &ScalarFunctionArgs) -> Result<f64> {
        let arrays = args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let bytes = match (self.kind, arrays.as_slice()) {
            (Kind::Repeat, [text, times]) => product(&whole(&length(text)?)?, &whole(times)?),
            (Kind::Pad, [_, length, ..]) => sum(&whole(length)?, 1.0),
            (Kind::Elements, [value, times]) => sum(&whole(times)?, each(value)),
            (Kind::Resize, [list, length, ..]) => sum(&whole(length)?, each(list).min(64.0)),
            (Kind::Range, [end]) => sum(&whole(end)?, 8.0),
            (Kind::Range, [start, end, rest @ ..]) => range(start, end, rest.first())?,
            _ => 0.0,
        };
        Ok(bytes)
    }
}

/// Values as whole numbers; what can't be one is NULL.
fn whole(array: &ArrayRef) -> Result<Int64Array> {
    let cast = cast_with_options(array, &DataType::Int64, &CastOptions { safe: true, ..Default::default() })?;
    Ok(cast.as_primitive::<Int64Type>().clone())
}

fn sum(counts: &Int64Array, each: f64) -> f64 {
    counts.iter().flatten().map(|count| count.max(0) as f64 * each).sum()
}

fn product(left: &Int64Array, right: &Int64Array) -> f64 {
    left.iter().zip(right.iter()).map(|(left, right)| left.unwrap_or(0).max(0) as f64 * right.unwrap_or(0).max(0) as f64).sum()
}

/// How many bytes a value has, on average and at least.
fn each(array: &ArrayRef) -> f64 {
    let bytes = array.to_data().get_slice_memory_size().unwrap_or(0);
    (bytes as f64 / array.len().max(1) as f64).max(8.0)
}

/// A range's bytes: of numbers, or of days or moments with a step of time.
fn range(start: &ArrayRef, end: &ArrayRef, step: Option<&ArrayRef>) -> Result<f64> {
    let is_time = !start.data_type().is_integer() && !start.data_type().is_null();
    let number = |array: &ArrayRef| -> Result<Int64Array> {
        match array.data_type() {
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => whole(&cast_safely(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?),
            _ => whole(array),
        }
    };
    // Moments in microseconds, since nanoseconds would not hold all days.
    let scale = if is_time { 1e3 } else { 1.0 };
    let steps: Vec<f64> = match step {
        None => vec![if is_time { DAY } else { 1.0 }; start.len()],
        Some(step) if matches!(step.data_type(), DataType::Interval(_)) => {
            let step = cast_safely(step, &DataType::Interval(IntervalUnit::MonthDayNano))?;
            let step = step.as_primitive::<IntervalMonthDayNanoType>();
            step.iter().map(|step| step.map_or(f64::INFINITY, |s| (f64::from(s.months) * 28.0 + f64::from(s.days)) * DAY + s.nanoseconds as f64)).collect()
        }
        Some(step) => whole(step)?.iter().map(|step| step.map_or(f64::INFINITY, |step| step as f64)).collect(),
    };
    let (start, end) = (number(start)?, number(end)?);
    let counts = start.iter().zip(end.iter()).zip(steps).map(|((start, end), step)| match (start, end) {
        // A step of nothing is the function's own error.
        (Some(start), Some(end)) if step != 0.0 => ((end as f64 - start as f64) * scale / step).max(0.0) + 1.0,
        _ => 0.0,
    });
    Ok(counts.sum::<f64>() * 8.0)
}

fn cast_safely(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    Ok(cast_with_options(array, data_type, &CastOptions { safe: true, ..Default::default() })?)
}

/// How deep parentheses are in a text.
fn depth(text: &str) -> usize {
    let (mut now, mut most) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'<' => now += 1,
            b')' | b'>' => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    }
    most
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, arg_types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(arg_types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if self.kind == Kind::Type
            && let Some(Some(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)))) =
                args.scalar_arguments.get(1)
            && depth(text) > DEEPEST_TYPE
        {
            return plan_err!("a type in {} is more than {DEEPEST_TYPE} levels deep", self.name());
        }
        self.inner.return_field_from_args(args)
    }

    fn is_strict(&self) -> bool {
        self.inner.is_strict()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.kind != Kind::Type {
            let bytes = self.result_bytes(&args)?;
            if bytes > MOST_BYTES {
                return resources_err!("{} would make values of {bytes:.0} bytes at once, more than {MOST_BYTES:.0}: make smaller ones, or fewer", self.name());
            }
        }
        self.inner.invoke_with_args(args)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.inner.simplify(args, info)
    }

    fn short_circuits(&self) -> bool {
        self.inner.short_circuits()
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        self.inner.evaluate_bounds(inputs)
    }

    fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>> {
        self.inner.propagate_constraints(interval, inputs)
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(inputs)
    }

    fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool> {
        self.inner.preserves_lex_ordering(inputs)
    }

    fn coerce_types(&self, arg_types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(arg_types)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::{execution::SessionStateBuilder, prelude::SessionContext};

    use super::*;

    async fn ask(sql: &str) -> Result<usize> {
        let mut state = SessionStateBuilder::new().with_default_features().build();
        register(&mut state)?;
        let batches = SessionContext::new_with_state(state).sql(sql).await?.collect().await?;
        Ok(batches.iter().map(|batch| batch.num_rows()).sum())
    }

    #[tokio::test]
    async fn what_no_memory_holds_is_refused() {
        for expression in [
            "repeat('x', 100000000000)",
            "repeat('x', 2000000000)",
            "lpad('x', 2000000000)",
            "rpad('x', 2000000000, 'ab')",
            "array_repeat(1, 9223372036854775807)",
            "array_repeat(repeat('x', 1000000), 100000)",
            "array_resize([1], 100000000000)",
            "range(100000000000)",
            "range(0, -9223372036854775807, -1)",
            "generate_series(-9223372036854775808, 9223372036854775807)",
            "generate_series(TIMESTAMP '1970-01-01', TIMESTAMP '2200-01-01', INTERVAL '1 nanosecond')",
            "arrow_typeof(range(0, 10000000000))",
        ] {
            let error = ask(&format!("SELECT {expression}")).await.unwrap_err().to_string();
            assert!(error.contains("would make values of") || error.contains("at once"), "{expression}: {error}");
        }
        let deep = format!("SELECT arrow_cast(NULL, '{}Int64{}')", "List(".repeat(1000), ")".repeat(1000));
        assert!(ask(&deep).await.unwrap_err().to_string().contains("levels deep"));
    }

    #[tokio::test]
    async fn what_one_holds_is_not() {
        for expression in [
            "repeat('ab', 3)",
            "lpad(NULL, 10)",
            "rpad('x', -1)",
            "array_repeat('x', 5)",
            "array_resize([1, 2], 5, 0)",
            "range(5)",
            "range(5, 0, -1)",
            "generate_series(DATE '2020-01-01', DATE '2021-01-01', INTERVAL '1 month')",
            "range(TIMESTAMP '2020-01-01', TIMESTAMP '2020-01-02', INTERVAL '1 hour')",
            "range(1, NULL)",
            "arrow_cast([[1]], 'List(List(Int32))')",
        ] {
            assert_eq!(ask(&format!("SELECT {expression}")).await.map_err(|e| format!("{expression}: {e}")), Ok(1));
        }
    }
}
