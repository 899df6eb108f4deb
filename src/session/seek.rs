//! Where in a topic a predicate can hold, as far as partition, offset and timestamp tell. Errs on the side of too much only: what is
//! read is filtered once more.

use datafusion::{
    common::ScalarValue,
    logical_expr::{BinaryExpr, Expr, Operator, expr::InList},
};

use arrow::datatypes::{DataType, TimeUnit};

use crate::catalog::Metadata;

/// What of one partition can satisfy a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First offset.
    pub begin: i64,
    /// One past the last offset.
    pub end: i64,
    /// No record that is older than so many milliseconds since 1970; `i64::MIN` where time says nothing. There is no upper bound by
    /// time: timestamps in a topic are not sorted, so nothing tells that no more will come.
    pub since: i64,
}

impl Bounds {
    const ALL: Bounds = Bounds { begin: i64::MIN, end: i64::MAX, since: i64::MIN };

    fn both(self, other: Self) -> Option<Self> {
        let both = Self { begin: self.begin.max(other.begin), end: self.end.min(other.end), since: self.since.max(other.since) };
        (both.begin < both.end).then_some(both)
    }

    fn either(self, other: Self) -> Self {
        Self { begin: self.begin.min(other.begin), end: self.end.max(other.end), since: self.since.min(other.since) }
    }
}

/// What of a partition can satisfy all of these predicates; `None`: nothing. `kind` tells which columns are metadata.
pub fn bounds<'a>(filters: impl IntoIterator<Item = &'a Expr>, kind: &dyn Fn(&str) -> Option<Metadata>, partition: i32) -> Option<Bounds> {
    filters.into_iter().try_fold(Bounds::ALL, |bounds, filter| bounds.both(of(filter, kind, partition)?))
}

fn of(expr: &Expr, kind: &dyn Fn(&str) -> Option<Metadata>, partition: i32) -> Option<Bounds> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => of(left, kind, partition)?.both(of(right, kind, partition)?),
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => match (of(left, kind, partition), of(right, kind, partition)) {
            (Some(left), Some(right)) => Some(left.either(right)),
            (only, None) | (None, only) => only,
        },
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (column(left, kind), column(right, kind)) {
            (Some(column), None) => compare(column, *op, right, partition),
            (None, Some(column)) => op.swap().map_or(Some(Bounds::ALL), |op| compare(column, op, left, partition)),
            _ => Some(Bounds::ALL),
        },
        Expr::Between(between) if !between.negated => match column(&between.expr, kind) {
            Some(column) => {
                let low = compare(column, Operator::GtEq, &between.low, partition)?;
                low.both(compare(column, Operator::LtEq, &between.high, partition)?)
            }
            None => Some(Bounds::ALL),
        },
        Expr::InList(InList { expr, list, negated: false }) => match column(expr, kind) {
            Some(column) => list.iter().filter_map(|value| compare(column, Operator::Eq, value, partition)).reduce(Bounds::either),
            None => Some(Bounds::ALL),
        },
        Expr::Literal(ScalarValue::Boolean(Some(false)), _) => None,
        _ => Some(Bounds::ALL),
    }
}

/// Which metadata an operand is: a column, or one that is cast to a type that holds all of its values.
fn column(expr: &Expr, kind: &dyn Fn(&str) -> Option<Metadata>) -> Option<Metadata> {
    let (inner, target) = match expr {
        Expr::Column(column) => return kind(&column.name),
        Expr::Cast(cast) => (&cast.expr, cast.field.data_type()),
        Expr::TryCast(cast) => (&cast.expr, cast.field.data_type()),
        _ => return None,
    };
    let metadata = column(inner, kind)?;
    let exact = match (metadata, target) {
        (Metadata::Partition | Metadata::Offset, target) => *target == DataType::Int64,
        // A time zone would shift the values; rounding to seconds would not keep them.
        (Metadata::Timestamp, DataType::Timestamp(TimeUnit::Millisecond | TimeUnit::Microsecond | TimeUnit::Nanosecond, zone)) => {
            zone.as_deref().is_none_or(|zone| matches!(zone, "UTC" | "+00:00" | "Z"))
        }
        _ => false,
    };
    exact.then_some(metadata)
}

fn compare(column: Metadata, op: Operator, value: &Expr, partition: i32) -> Option<Bounds> {
    let Expr::Literal(value, _) = value else { return Some(Bounds::ALL) };
    match column {
        Metadata::Partition => {
            let Some(value) = integer(value) else { return Some(Bounds::ALL) };
            let holds = holds(i64::from(partition), op, value).unwrap_or(true);
            holds.then_some(Bounds::ALL)
        }
        Metadata::Offset => {
            let Some(value) = integer(value) else { return Some(Bounds::ALL) };
            let next = value.saturating_add(1);
            let (begin, end) = match op {
                Operator::Eq => (value, next),
                Operator::Gt => (next, i64::MAX),
                Operator::GtEq => (value, i64::MAX),
                Operator::Lt => (i64::MIN, value),
                Operator::LtEq => (i64::MIN, next),
                _ => return Some(Bounds::ALL),
            };
            Bounds::ALL.both(Bounds { begin, end, ..Bounds::ALL })
        }
        Metadata::Timestamp => {
            let Some(nanos) = nanoseconds(value) else { return Some(Bounds::ALL) };
            let floor = nanos.div_euclid(1_000_000);
            let millis = match op {
                Operator::Gt => floor + 1,
                Operator::Eq | Operator::GtEq if nanos.rem_euclid(1_000_000) == 0 => floor,
                Operator::Eq | Operator::GtEq => floor + 1,
                _ => return Some(Bounds::ALL),
            };
            Some(Bounds { since: i64::try_from(millis).unwrap_or(i64::MIN), ..Bounds::ALL })
        }
        Metadata::Key | Metadata::Headers => Some(Bounds::ALL),
    }
}

fn holds(left: i64, op: Operator, right: i64) -> Option<bool> {
    Some(match op {
        Operator::Eq => left == right,
        Operator::NotEq => left != right,
        Operator::Lt => left < right,
        Operator::LtEq => left <= right,
        Operator::Gt => left > right,
        Operator::GtEq => left >= right,
        _ => return None,
    })
}

fn integer(value: &ScalarValue) -> Option<i64> {
    match value {
        ScalarValue::Int8(value) => value.map(i64::from),
        ScalarValue::Int16(value) => value.map(i64::from),
        ScalarValue::Int32(value) => value.map(i64::from),
        ScalarValue::Int64(value) => *value,
        ScalarValue::UInt8(value) => value.map(i64::from),
        ScalarValue::UInt16(value) => value.map(i64::from),
        ScalarValue::UInt32(value) => value.map(i64::from),
        ScalarValue::UInt64(value) => value.and_then(|value| i64::try_from(value).ok()),
        _ => None,
    }
}

/// A literal in nanoseconds since 1970.
fn nanoseconds(value: &ScalarValue) -> Option<i128> {
    Some(match value {
        ScalarValue::TimestampSecond(Some(value), _) => i128::from(*value) * 1_000_000_000,
        ScalarValue::TimestampMillisecond(Some(value), _) => i128::from(*value) * 1_000_000,
        ScalarValue::TimestampMicrosecond(Some(value), _) => i128::from(*value) * 1_000,
        ScalarValue::TimestampNanosecond(Some(value), _) => i128::from(*value),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use datafusion::{logical_expr::cast, prelude::*};

    use super::*;

    fn kind(name: &str) -> Option<Metadata> {
        match name {
            "_partition" => Some(Metadata::Partition),
            "_offset" => Some(Metadata::Offset),
            "_timestamp" => Some(Metadata::Timestamp),
            _ => None,
        }
    }

    fn found(expr: Expr, partition: i32) -> Option<(i64, i64, i64)> {
        bounds([&expr], &kind, partition).map(|b| (b.begin, b.end, b.since))
    }

    const LOW: i64 = i64::MIN;
    const HIGH: i64 = i64::MAX;
    const ALL: Option<(i64, i64, i64)> = Some((LOW, HIGH, LOW));

    fn at(nanos: i64) -> Expr {
        lit(ScalarValue::TimestampNanosecond(Some(nanos), None))
    }

    #[test]
    fn partitions_are_chosen() {
        let one = || col("_partition").eq(lit(1));
        assert_eq!(found(one(), 1), ALL);
        assert_eq!(found(one(), 0), None);
        assert_eq!(found(lit(1i64).eq(cast(col("_partition"), DataType::Int64)), 0), None);
        assert_eq!(found(col("_partition").in_list(vec![lit(1), lit(3)], false), 3), ALL);
        assert_eq!(found(col("_partition").in_list(vec![lit(1), lit(3)], false), 2), None);
        assert_eq!(found(col("_partition").in_list(vec![lit(1)], true), 1), ALL, "not understood: all is read");
        assert_eq!(found(one().or(col("a").gt(lit(3))), 0), ALL);
        assert_eq!(found(one().and(col("a").gt(lit(3))), 0), None);
        assert_eq!(found(col("_partition").gt(lit(1)), 1), None);
        assert_eq!(found(cast(col("_partition"), DataType::Utf8).eq(lit("1")), 0), ALL);
    }

    #[test]
    fn offsets_are_bounded() {
        assert_eq!(found(col("_offset").gt(lit(5i64)).and(col("_offset").lt_eq(lit(9i64))), 0), Some((6, 10, LOW)));
        assert_eq!(found(lit(5i64).gt(col("_offset")), 0), Some((LOW, 5, LOW)));
        assert_eq!(found(col("_offset").between(lit(5i64), lit(7i64)), 0), Some((5, 8, LOW)));
        assert_eq!(found(col("_offset").eq(lit(5i64)).and(col("_offset").eq(lit(6i64))), 0), None);
        assert_eq!(found(col("_offset").gt(lit(HIGH)), 0), None);
        assert_eq!(found(col("_offset").gt(col("n")), 0), ALL);
        // Each partition has bounds of its own.
        let each = |p: i32, o: i64| col("_partition").eq(lit(p)).and(col("_offset").gt_eq(lit(o)));
        assert_eq!(found(each(0, 10).or(each(1, 20)), 0), Some((10, HIGH, LOW)));
        assert_eq!(found(each(0, 10).or(each(1, 20)), 1), Some((20, HIGH, LOW)));
        assert_eq!(found(each(0, 10).or(each(1, 20)), 2), None);
    }

    #[test]
    fn time_bounds_from_below_only() {
        assert_eq!(found(col("_timestamp").gt_eq(at(5_000_000)), 0), Some((LOW, HIGH, 5)));
        assert_eq!(found(col("_timestamp").gt_eq(at(5_000_001)), 0), Some((LOW, HIGH, 6)));
        assert_eq!(found(col("_timestamp").gt(at(5_000_000)), 0), Some((LOW, HIGH, 6)));
        assert_eq!(found(col("_timestamp").gt(at(-1)), 0), Some((LOW, HIGH, 0)));
        assert_eq!(found(col("_timestamp").lt(at(5_000_000)), 0), ALL);
        let typed = |unit, zone: Option<&str>| cast(col("_timestamp"), DataType::Timestamp(unit, zone.map(Into::into))).gt(at(0));
        assert_eq!(found(typed(TimeUnit::Nanosecond, None), 0), Some((LOW, HIGH, 1)));
        assert_eq!(found(typed(TimeUnit::Nanosecond, Some("+00:00")), 0), Some((LOW, HIGH, 1)));
        assert_eq!(found(typed(TimeUnit::Nanosecond, Some("+02:00")), 0), ALL);
        assert_eq!(found(typed(TimeUnit::Second, None), 0), ALL);
    }
}
