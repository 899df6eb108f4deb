//! Features cut into at most 255 bins of about equal weight: a split is then a choice between two bins, found by counting.

use crate::features::Features;

/// As many bins as fit a byte beside the one for missing values.
const MAX_BINS: usize = 255;

/// All rows' bins.
pub(super) struct Binned {
    pub(super) features: Vec<BinnedFeature>,
}

/// One feature's bins.
pub(super) struct BinnedFeature {
    /// Thresholds between neighbouring bins: a value of bin `b` is less than `edges[b]` and at least `edges[b - 1]`. One fewer than bins.
    pub(super) edges: Vec<f64>,
    /// Each row's bin; [`Self::missing`] where missing.
    pub(super) bin_of_row: Vec<u8>,
}

impl Binned {
    pub(super) fn of(features: &Features) -> Self {
        Self { features: (0..features.width()).map(|feature| BinnedFeature::of(features.column(feature).collect())).collect() }
    }
}

impl BinnedFeature {
    /// The bin of missing values, beyond all others.
    pub(super) fn missing(&self) -> u8 {
        // At most 255 bins, so at most 254 edges.
        self.edges.len() as u8 + 1
    }

    fn of(values: Vec<f64>) -> Self {
        let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let edges = edges(&sorted);
        let missing = edges.len() as u8 + 1;
        let bin = |&value: &f64| if value.is_nan() { missing } else { edges.partition_point(|&edge| edge <= value) as u8 };
        let bin_of_row = values.iter().map(bin).collect();
        Self { edges, bin_of_row }
    }
}

/// Thresholds that cut ascending values into bins of about equal weight; each value a bin of its own where there are few.
fn edges(sorted: &[f64]) -> Vec<f64> {
    let changes = || sorted.windows(2).enumerate().filter(|(_, pair)| pair[0] < pair[1]);
    let few = changes().count() < MAX_BINS;
    let mut edges = vec![];
    for (place, pair) in changes() {
        let values_below = place + 1;
        // The next cut is due once the bins so far have their part of the values.
        if few || values_below * MAX_BINS >= (edges.len() + 1) * sorted.len() {
            edges.push(threshold_between(pair[0], pair[1]));
        }
    }
    edges.truncate(MAX_BINS - 1);
    edges
}

/// A threshold that `lower` is less than and `upper` is not: the middle, where rounding leaves it apart from `lower`.
fn threshold_between(lower: f64, upper: f64) -> f64 {
    let middle = lower / 2.0 + upper / 2.0;
    if lower < middle && middle <= upper { middle } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_values_have_a_bin_each() {
        let feature = BinnedFeature::of(vec![3.0, f64::NAN, -1.0, 3.0, 0.0, -0.0]);
        assert_eq!(feature.edges, [-0.5, 1.5]);
        assert_eq!(feature.bin_of_row, [2, 3, 0, 2, 1, 1]);
        assert_eq!(feature.missing(), 3);
    }

    #[test]
    fn many_values_share_bins_of_about_equal_weight() {
        let feature = BinnedFeature::of((0..10_000).map(|i| f64::from(i).powi(3)).collect());
        assert_eq!(feature.edges.len(), MAX_BINS - 1);
        let mut counts = [0; 256];
        feature.bin_of_row.iter().for_each(|&bin| counts[usize::from(bin)] += 1);
        assert!(counts[..255].iter().all(|&count| (30..=50).contains(&count)), "{counts:?}");
    }

    #[test]
    fn a_frequent_value_takes_no_bins_from_the_others() {
        let values = (0..10_000).map(|i| if i % 2 == 0 { 0.0 } else { f64::from(i) }).collect();
        assert!(BinnedFeature::of(values).edges.len() > 120);
    }

    #[test]
    fn thresholds_separate_whatever_the_scale() {
        for (lower, upper) in [(1.0, 1.0f64.next_up()), (0.0, f64::MIN_POSITIVE.next_down()), (0.0, 5e-324), (f64::MIN, f64::MAX), (-5e-324, 0.0)] {
            let threshold = threshold_between(lower, upper);
            assert!(lower < threshold && threshold <= upper, "{lower:e} {threshold:e} {upper:e}");
        }
    }

    #[test]
    fn a_value_that_is_a_threshold_belongs_above_it() {
        // Between these two lies no number, so the threshold is the greater one.
        let feature = BinnedFeature::of(vec![1.0f64.next_up(), 1.0]);
        assert_eq!((feature.edges, feature.bin_of_row), (vec![1.0f64.next_up()], vec![1, 0]));
    }

    #[test]
    fn nothing_but_missing_values() {
        let feature = BinnedFeature::of(vec![f64::NAN; 3]);
        assert_eq!((feature.edges.len(), feature.bin_of_row), (0, vec![1; 3]));
    }
}
