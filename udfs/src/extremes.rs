//! `min` and `max` as DataFusion has them, but for floats by group: there DataFusion's answer depends on the order of the rows as soon as one
//! is NaN, and `max` of nothing but -∞ is not -∞. Here floats are in IEEE 754's total order in groups, too, as they are for DataFusion without
//! any: NaN is the greatest. So it does not matter in which parts, and in which order, rows are aggregated.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::ArrowNumericType,
        datatypes::{DataType, Float32Type, Float64Type},
    },
    common::{Result, ScalarValue, internal_err},
    functions_aggregate::min_max::{max_udaf, min_udaf},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity, Signature, StatisticsArgs,
        function::AccumulatorArgs, utils::AggregateOrderSensitivity,
    },
};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::prim_op::PrimitiveGroupsAccumulator;

/// `min` and `max`, to be registered in the place of DataFusion's.
pub(crate) fn functions() -> Vec<Arc<AggregateUDF>> {
    [min_udaf(), max_udaf()].map(|function| Arc::new(AggregateUDF::from(Extreme { function }))).into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Extreme {
    /// DataFusion's.
    function: Arc<AggregateUDF>,
}

impl Extreme {
    fn is_max(&self) -> bool {
        self.function.name() == "max"
    }

    /// `end` is the value of the total order that every other one replaces.
    fn groups<T>(&self, data_type: &DataType, order: fn(&T::Native, &T::Native) -> std::cmp::Ordering, end: T::Native) -> Box<dyn GroupsAccumulator>
    where
        T: ArrowNumericType + Send,
    {
        let wins = if self.is_max() { std::cmp::Ordering::Greater } else { std::cmp::Ordering::Less };
        let keep = move |kept: &mut T::Native, new: T::Native| {
            if order(&new, kept) == wins {
                *kept = new;
            }
        };
        Box::new(PrimitiveGroupsAccumulator::<T, _>::new(data_type, keep).with_starting_value(end))
    }
}

impl AggregateUDFImpl for Extreme {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.inner().coerce_types(types)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.function.accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.function.create_sliding_accumulator(args)
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        // Half floats one by one: nobody groups by the million over them.
        args.return_field.data_type() != &DataType::Float16 && self.function.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>> {
        let data_type = args.return_field.data_type();
        // The least value of the total order is -NaN with all bits set, the greatest NaN with all but the sign.
        match data_type {
            DataType::Float64 => {
                let end = if self.is_max() { u64::MAX } else { u64::MAX >> 1 };
                Ok(self.groups::<Float64Type>(data_type, f64::total_cmp, f64::from_bits(end)))
            }
            DataType::Float32 => {
                let end = if self.is_max() { u32::MAX } else { u32::MAX >> 1 };
                Ok(self.groups::<Float32Type>(data_type, f32::total_cmp, f32::from_bits(end)))
            }
            DataType::Float16 => internal_err!("{} of half floats has no accumulator by group", self.name()),
            _ => self.function.create_groups_accumulator(args),
        }
    }

    fn is_descending(&self) -> Option<bool> {
        self.function.is_descending()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.function.order_sensitivity()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.function.value_from_stats(args)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.function.inner().set_monotonicity(data_type)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use datafusion::{arrow::util::pretty::pretty_format_batches, prelude::SessionContext};

    /// Issue: a view's `max` differed from the batch answer where epochs were cut behind a NaN.
    #[tokio::test]
    async fn nan_is_the_greatest_in_whatever_order() {
        let context = SessionContext::new();
        crate::aggregate_functions().into_iter().for_each(|function| context.register_udaf(function.as_ref().clone()));
        let rows = |values: &[&str]| values.iter().map(|v| format!("(1, '{v}')")).collect::<Vec<_>>().join(", ");
        for float in ["DOUBLE", "REAL"] {
            for (values, min, max) in [
                (["NaN", "1", "2"], "1.0", "NaN"),
                (["1", "NaN", "2"], "1.0", "NaN"),
                (["2", "1", "NaN"], "1.0", "NaN"),
                (["-inf", "-inf", "-inf"], "-inf", "-inf"),
                (["NaN", "NaN", "NaN"], "NaN", "NaN"),
            ] {
                for group in ["GROUP BY k", ""] {
                    let query =
                        format!("SELECT min(w) AS a, max(w) AS b FROM (SELECT k, CAST(t AS {float}) AS w FROM (VALUES {}) AS v(k, t)) {group}", rows(&values));
                    let answer = context.sql(&query).await.unwrap().collect().await.unwrap();
                    let text = pretty_format_batches(&answer).unwrap().to_string();
                    let cells: Vec<&str> = text.lines().nth(3).unwrap().split(['|', ' ']).filter(|cell| !cell.is_empty()).collect();
                    assert_eq!(cells, [min, max], "{query}");
                }
            }
        }
    }
}
