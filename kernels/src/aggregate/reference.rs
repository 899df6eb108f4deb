//! The aggregation on the CPU, row by row.

use std::collections::HashMap;

use super::{AggregateError, Aggregates, Batch, Groups, Input, Values, float_sum};
use crate::plain::bit;

/// Aggregates a batch.
pub fn aggregate(batch: &Batch<'_>) -> Result<Groups, AggregateError> {
    let rows = batch.rows()?;
    let mut numbers: HashMap<(i64, i64), u32> = HashMap::new();
    let mut groups = Groups::default();
    // Each row's group, `u32::MAX` if it has none.
    let mut group_of = vec![u32::MAX; rows];
    for (row, group) in group_of.iter_mut().enumerate().filter(|(row, _)| bit(batch.selected, *row)) {
        let bin = batch.times.map_or(Some(0), |(times, windows)| windows.start(times[row])).ok_or(AggregateError::Range)?;
        let key = batch.keys[row];
        *group = *numbers.entry((bin, key)).or_insert_with(|| {
            groups.keys.push(key);
            groups.bins.push(bin);
            groups.rows.push(0);
            groups.keys.len() as u32 - 1
        });
        groups.rows[*group as usize] += 1;
    }
    let count = groups.keys.len();
    groups.inputs = batch.inputs.iter().map(|input| one(input, &group_of, count)).collect();
    Ok(groups.sorted())
}

fn one(input: &Input<'_>, group_of: &[u32], groups: usize) -> Aggregates {
    // The rows that have a value, each with its group.
    let rows = || group_of.iter().enumerate().filter(|(row, group)| **group != u32::MAX && bit(input.valid, *row)).map(|(row, group)| (row, *group as usize));
    let mut count = vec![0u64; groups];
    rows().for_each(|(_, group)| count[group] += 1);
    match input.values {
        Values::Int64(values) => {
            let (mut sum, mut min, mut max) = (vec![0i128; groups], vec![i64::MAX; groups], vec![i64::MIN; groups]);
            for (row, group) in rows() {
                let value = values[row];
                sum[group] += i128::from(value);
                min[group] = min[group].min(value);
                max[group] = max[group].max(value);
            }
            blank(&count, &mut min);
            blank(&count, &mut max);
            Aggregates::Int64 { count, sum, min, max }
        }
        Values::Float64(values) => {
            let mut greatest = vec![0u32; groups];
            rows().for_each(|(row, group)| greatest[group] = greatest[group].max(float_sum::exponent(values[row]).unwrap_or(0)));
            let (mut units, mut flags) = (vec![0i128; groups], vec![0u32; groups]);
            let (mut min, mut max): (Vec<Option<f64>>, Vec<Option<f64>>) = (vec![None; groups], vec![None; groups]);
            for (row, group) in rows() {
                let value = values[row];
                if value.is_finite() {
                    units[group] += float_sum::multiple(value, greatest[group]);
                } else {
                    flags[group] |= float_sum::flag(value);
                }
                min[group] = Some(min[group].map_or(value, |min| if value.total_cmp(&min).is_lt() { value } else { min }));
                max[group] = Some(max[group].map_or(value, |max| if value.total_cmp(&max).is_gt() { value } else { max }));
            }
            let sum = (0..groups).map(|group| float_sum::sum(units[group], greatest[group], flags[group])).collect();
            let plain = |values: Vec<Option<f64>>| values.into_iter().map(Option::unwrap_or_default).collect();
            Aggregates::Float64 { count, sum, min: plain(min), max: plain(max) }
        }
    }
}

/// Zero where there is no value.
fn blank(count: &[u64], values: &mut [i64]) {
    values.iter_mut().zip(count).filter(|(_, count)| **count == 0).for_each(|(value, _)| *value = 0);
}

impl Groups {
    /// By bin and then by key.
    pub(super) fn sorted(self) -> Self {
        // The keys move with the numbers: looking them up for each comparison would miss the cache each time.
        let mut order: Vec<(i64, i64, usize)> = (0..self.keys.len()).map(|group| (self.bins[group], self.keys[group], group)).collect();
        order.sort_unstable();
        let order: Vec<usize> = order.into_iter().map(|(_, _, group)| group).collect();
        fn pick<T: Copy>(order: &[usize], values: &[T]) -> Vec<T> {
            order.iter().map(|&group| values[group]).collect()
        }
        let inputs = self.inputs.iter().map(|input| match input {
            Aggregates::Int64 { count, sum, min, max } => {
                Aggregates::Int64 { count: pick(&order, count), sum: pick(&order, sum), min: pick(&order, min), max: pick(&order, max) }
            }
            Aggregates::Float64 { count, sum, min, max } => {
                Aggregates::Float64 { count: pick(&order, count), sum: pick(&order, sum), min: pick(&order, min), max: pick(&order, max) }
            }
        });
        Self { keys: pick(&order, &self.keys), bins: pick(&order, &self.bins), rows: pick(&order, &self.rows), inputs: inputs.collect() }
    }
}
