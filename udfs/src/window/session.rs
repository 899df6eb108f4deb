//! `__session_start(ts, gap)` and `__session_end(ts, gap)`, with `OVER (PARTITION BY … ORDER BY ts)`.
//!
//! The rows of one partition, in the order of their times, are cut into sessions: a new one begins where the time since the row before is
//! the gap or more. A session lasts from its first row's time until the gap has passed after its last row's. A row whose time is NULL
//! belongs to no session, both bounds are NULL; so they are where the end doesn't fit the type.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray},
        datatypes::{
            DataType, Date32Type, Field, FieldRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
        },
    },
    common::{Result, exec_err, internal_err, plan_err},
    logical_expr::{
        PartitionEvaluator, Signature, Volatility, WindowUDFImpl,
        function::{PartitionEvaluatorArgs, WindowUDFFieldArgs},
    },
    physical_expr::expressions::Literal,
};

use super::{Bound, SESSION_END, SESSION_START, by_time_type, coerced, length_ns, unit_ns};

/// One of the two functions.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionBound {
    /// Which end it gives.
    pub(super) bound: Bound,
    signature: Signature,
}

impl SessionBound {
    pub(super) fn new(bound: Bound) -> Self {
        Self { bound, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl WindowUDFImpl for SessionBound {
    fn name(&self) -> &str {
        match self.bound {
            Bound::Start => SESSION_START,
            Bound::End => SESSION_END,
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types.len() {
            2 => coerced(types),
            other => plan_err!("{} takes a timestamp and a gap, not {other} arguments", self.name()),
        }
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        match args.get_input_field(0) {
            Some(time) => Ok(Arc::new(Field::new(args.name(), time.data_type().clone(), true))),
            None => internal_err!("{} without arguments", self.name()),
        }
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        let [time, gap] = args.input_exprs() else { return internal_err!("{} takes two arguments", self.name()) };
        let gap_ns = length_ns("gap", gap.downcast_ref::<Literal>().map(Literal::value))?;
        if gap_ns <= 0 {
            return plan_err!("a session's gap must be positive");
        }
        let Some(field) = args.input_fields().first() else { return internal_err!("{time} without a type") };
        match unit_ns(field.data_type()) {
            Some(unit) if gap_ns % unit == 0 => Ok(Box::new(Sessions { bound: self.bound, gap: gap_ns / unit })),
            Some(_) => plan_err!("a session's gap has no whole number of steps in {}: cast the column to a finer type", field.data_type()),
            None => plan_err!("a session is over a TIMESTAMP or DATE column, not over {}", field.data_type()),
        }
    }
}

/// Evaluates one partition at a time; nothing is kept from one to the next.
#[derive(Debug)]
struct Sessions {
    bound: Bound,
    /// In the unit of the column; positive.
    gap: i64,
}

impl PartitionEvaluator for Sessions {
    fn evaluate_all(&mut self, values: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
        match values.first() {
            Some(times) => by_time_type!(times, typed, self.gap, self.bound),
            None => internal_err!("sessions without times"),
        }
    }
}

fn typed<T>(times: &ArrayRef, gap: i64, bound: Bound) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType<Native: Into<i64> + TryFrom<i64>>,
{
    let times = times.as_primitive::<T>();
    let mut bounds: Vec<Option<T::Native>> = vec![None; times.len()];
    // The rows of the session that is being read, its first and its last time.
    let mut rows: Vec<usize> = vec![];
    let (mut first, mut last) = (0_i64, 0_i64);
    let close = |rows: &mut Vec<usize>, first: i64, last: i64, bounds: &mut [Option<T::Native>]| {
        let end = last.checked_add(gap).and_then(|end| T::Native::try_from(end).ok());
        let value = match bound {
            Bound::Start => end.and_then(|_| T::Native::try_from(first).ok()),
            Bound::End => end,
        };
        rows.drain(..).for_each(|row| bounds[row] = value);
    };
    for row in (0..times.len()).filter(|row| times.is_valid(*row)) {
        let t: i64 = times.value(row).into();
        if rows.is_empty() {
            first = t;
        } else if t < last {
            return exec_err!("sessions are read in the order of time: write OVER (… ORDER BY ts), ascending, with the same column as in the function");
        } else if t.checked_sub(last).is_none_or(|pause| pause >= gap) {
            close(&mut rows, first, last, &mut bounds);
            first = t;
        }
        rows.push(row);
        last = t;
    }
    close(&mut rows, first, last, &mut bounds);
    Ok(Arc::new(PrimitiveArray::<T>::from_iter(bounds).with_data_type(times.data_type().clone())))
}
