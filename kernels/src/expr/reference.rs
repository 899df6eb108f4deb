//! The reference: expressions computed as they are written, a row at a time.

use std::cmp::Ordering;

use super::{
    batch::{Batch, EvaluateError, Evaluated, Faults, Projected},
    program::Program,
    tree::{Arithmetic, Comparison, Expr, Kind, OutOfRange, Unit},
    value::{Type, Value, bitmap_bytes},
};

/// Evaluates a program over a batch on the CPU.
pub fn evaluate(program: &Program, batch: &Batch<'_>) -> Result<Evaluated, EvaluateError> {
    batch.check(program)?;
    let mut row = Row { batch, row: 0, faults: Faults::NONE };
    let mut selected = program.filter().map(|_| vec![0u8; bitmap_bytes(batch.rows)]);
    let projections = program.projections();
    let mut results: Vec<Projected> = projections.iter().map(|projection| Projected::with_capacity(projection.data_type(), batch.rows)).collect();
    for number in 0..batch.rows {
        row.row = number;
        let passes = program.filter().is_none_or(|filter| row.value(filter) == Value::Boolean(true));
        if let Some(selected) = selected.as_mut().filter(|_| passes) {
            selected[number / 8] |= 1 << (number % 8);
        }
        for (projection, result) in projections.iter().zip(&mut results) {
            let value = if passes { row.value(projection) } else { Value::Null(projection.data_type()) };
            result.push(number, value);
        }
    }
    if row.faults.is_empty() { Ok(Evaluated { selected, results }) } else { Err(EvaluateError::GivenBack(row.faults)) }
}

struct Row<'a> {
    batch: &'a Batch<'a>,
    row: usize,
    /// Those of all rows so far.
    faults: Faults,
}

impl Row<'_> {
    fn value(&mut self, expr: &Expr) -> Value {
        let null = Value::Null(expr.data_type());
        match expr.kind() {
            Kind::Column(number) => self.batch.columns[*number].value(self.row),
            Kind::Literal(value) => *value,
            Kind::Compare(comparison, left, right) => compare(*comparison, self.value(left), self.value(right)),
            Kind::And(left, right) => match (self.value(left), self.value(right)) {
                (Value::Boolean(false), _) | (_, Value::Boolean(false)) => Value::Boolean(false),
                (Value::Boolean(true), Value::Boolean(true)) => Value::Boolean(true),
                _ => null,
            },
            Kind::Or(left, right) => match (self.value(left), self.value(right)) {
                (Value::Boolean(true), _) | (_, Value::Boolean(true)) => Value::Boolean(true),
                (Value::Boolean(false), Value::Boolean(false)) => Value::Boolean(false),
                _ => null,
            },
            Kind::Not(of) => match self.value(of) {
                Value::Boolean(value) => Value::Boolean(!value),
                _ => null,
            },
            Kind::IsNull(of) => Value::Boolean(self.value(of).is_null()),
            Kind::Arithmetic(arithmetic, left, right) => {
                let (left, right) = (self.value(left), self.value(right));
                self.fault_or(null, compute(*arithmetic, left, right))
            }
            Kind::Negate(of) => match self.value(of) {
                Value::Int32(value) => Value::Int32(value.wrapping_neg()),
                Value::Int64(value) => Value::Int64(value.wrapping_neg()),
                Value::Float64(value) => Value::Float64(-value),
                _ => null,
            },
            Kind::Cast(of, out_of_range) => match cast(self.value(of), expr.data_type()) {
                None if *out_of_range == OutOfRange::IsNull => null,
                value => self.fault_or(null, value.ok_or(Faults::CAST)),
            },
            Kind::Case(whens, otherwise) => {
                let then = whens.iter().find(|(when, _)| self.value(when) == Value::Boolean(true)).map(|(_, then)| then);
                then.or(otherwise.as_ref()).map_or(null, |then| self.value(then))
            }
            Kind::InList(of, list) => match self.value(of) {
                Value::Null(_) => null,
                value if list.contains(&value) => Value::Boolean(true),
                _ if list.iter().any(|value| value.is_null()) => null,
                _ => Value::Boolean(false),
            },
            Kind::DateBin { of, stride, origin, unit } => match self.value(of) {
                Value::Int64(time) => date_bin(time, *unit, *stride, *origin).map_or(null, Value::Int64),
                _ => null,
            },
        }
    }

    fn fault_or(&mut self, null: Value, value: Result<Value, Faults>) -> Value {
        value.unwrap_or_else(|fault| {
            self.faults |= fault;
            null
        })
    }
}

fn compare(comparison: Comparison, left: Value, right: Value) -> Value {
    let order = match (left, right) {
        (Value::Boolean(left), Value::Boolean(right)) => Some(left.cmp(&right)),
        (Value::Int32(left), Value::Int32(right)) => Some(left.cmp(&right)),
        (Value::Int64(left), Value::Int64(right)) => Some(left.cmp(&right)),
        (Value::Float64(left), Value::Float64(right)) => Some(one_zero(left).total_cmp(&one_zero(right))),
        _ => None,
    };
    let same = order.map_or(left.is_null() && right.is_null(), Ordering::is_eq);
    let of_order = |holds: fn(Ordering) -> bool| order.map_or(Value::Null(Type::Boolean), |order| Value::Boolean(holds(order)));
    match comparison {
        Comparison::Equal => of_order(Ordering::is_eq),
        Comparison::NotEqual => of_order(Ordering::is_ne),
        Comparison::Less => of_order(Ordering::is_lt),
        Comparison::LessOrEqual => of_order(Ordering::is_le),
        Comparison::Greater => of_order(Ordering::is_gt),
        Comparison::GreaterOrEqual => of_order(Ordering::is_ge),
        Comparison::Distinct => Value::Boolean(!same),
        Comparison::NotDistinct => Value::Boolean(same),
    }
}

/// Both zeros as one.
fn one_zero(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value }
}

fn compute(arithmetic: Arithmetic, left: Value, right: Value) -> Result<Value, Faults> {
    /// Arithmetic on integers of one width.
    macro_rules! integers {
        ($variant:ident, $left:ident, $right:ident) => {
            match arithmetic {
                Arithmetic::AddWrapping => Some($left.wrapping_add($right)),
                Arithmetic::SubtractWrapping => Some($left.wrapping_sub($right)),
                Arithmetic::MultiplyWrapping => Some($left.wrapping_mul($right)),
                Arithmetic::Add => $left.checked_add($right),
                Arithmetic::Subtract => $left.checked_sub($right),
                Arithmetic::Multiply => $left.checked_mul($right),
                Arithmetic::Divide | Arithmetic::Remainder if $right == 0 => return Err(Faults::DIVISION_BY_ZERO),
                Arithmetic::Divide => $left.checked_div($right),
                Arithmetic::Remainder => Some($left.wrapping_rem($right)),
            }
            .map(Value::$variant)
            .ok_or(Faults::OVERFLOW)
        };
    }
    match (left, right) {
        (Value::Int32(left), Value::Int32(right)) => integers!(Int32, left, right),
        (Value::Int64(left), Value::Int64(right)) => integers!(Int64, left, right),
        (Value::Float64(left), Value::Float64(right)) => float(arithmetic, left, right).map(Value::Float64),
        _ => Ok(Value::Null(left.data_type())),
    }
}

fn float(arithmetic: Arithmetic, left: f64, right: f64) -> Result<f64, Faults> {
    const QUIET: u64 = 1 << 51;
    let quiet = |nan: f64| f64::from_bits(nan.to_bits() | QUIET);
    match (left.is_nan(), right.is_nan()) {
        (true, true) if quiet(left).to_bits() != quiet(right).to_bits() => return Err(Faults::NAN),
        (true, _) => return Ok(quiet(left)),
        (false, true) => return Ok(quiet(right)),
        (false, false) => {}
    }
    let result = match arithmetic {
        Arithmetic::AddWrapping | Arithmetic::Add => left + right,
        Arithmetic::SubtractWrapping | Arithmetic::Subtract => left - right,
        Arithmetic::MultiplyWrapping | Arithmetic::Multiply => left * right,
        Arithmetic::Divide => left / right,
        Arithmetic::Remainder => left % right,
    };
    if result.is_nan() { Err(Faults::NAN) } else { Ok(result) }
}

/// `None` if the type doesn't hold the value.
fn cast(value: Value, to: Type) -> Option<Value> {
    // Both ends are floats, and the upper one is the first that is too large. (Those of 32 bits have a fraction that is cut off.)
    let whole = |value: f64, above: f64, below: f64| (value > above && value < below).then_some(value as i64);
    Some(match (value, to) {
        (Value::Null(_), to) => Value::Null(to),
        (Value::Boolean(value), Type::Int32) => Value::Int32(value.into()),
        (Value::Boolean(value), Type::Int64) => Value::Int64(value.into()),
        (Value::Boolean(value), Type::Float64) => Value::Float64(if value { 1.0 } else { 0.0 }),
        (Value::Int32(value), Type::Boolean) => Value::Boolean(value != 0),
        (Value::Int32(value), Type::Int64) => Value::Int64(value.into()),
        (Value::Int32(value), Type::Float64) => Value::Float64(value.into()),
        (Value::Int64(value), Type::Boolean) => Value::Boolean(value != 0),
        (Value::Int64(value), Type::Int32) => Value::Int32(value.try_into().ok()?),
        (Value::Int64(value), Type::Float64) => Value::Float64(value as f64),
        (Value::Float64(value), Type::Boolean) => Value::Boolean(value != 0.0),
        (Value::Float64(value), Type::Int32) => Value::Int32(whole(value, -2_147_483_649.0, 2_147_483_648.0)? as i32),
        (Value::Float64(value), Type::Int64) if value == i64::MIN as f64 => Value::Int64(i64::MIN),
        (Value::Float64(value), Type::Int64) => Value::Int64(whole(value, i64::MIN as f64, 9_223_372_036_854_775_808.0)?),
        (same, _) => same,
    })
}

/// As DataFusion's `date_bin` for strides that are no months. `None` where it doesn't fit.
fn date_bin(time: i64, unit: Unit, stride: i64, origin: i64) -> Option<i64> {
    let scale = nanoseconds(unit);
    let since = time.checked_mul(scale)?.checked_sub(origin)?;
    let rest = since.rem_euclid(stride);
    let begin = origin.checked_add(since.checked_sub(rest)?)?;
    Some(begin / scale)
}

/// How many nanoseconds make one of it.
pub(super) fn nanoseconds(unit: Unit) -> i64 {
    match unit {
        Unit::Second => 1_000_000_000,
        Unit::Millisecond => 1_000_000,
        Unit::Microsecond => 1_000,
        Unit::Nanosecond => 1,
    }
}
