//! Grows one tree, breadth first, so that its nodes come out in the order of the flat form.

use std::collections::VecDeque;

use super::{Dice, bins::Binned};
use crate::forest::TreeForm;

/// What all trees of a forest share.
pub(super) struct Growth<'a> {
    pub(super) features: &'a Binned,
    pub(super) class_of_row: &'a [u32],
    pub(super) classes: usize,
    pub(super) max_depth: usize,
    pub(super) min_leaf_rows: u64,
    pub(super) features_per_split: usize,
}

/// A row in a tree's sample, with how often it was drawn.
#[derive(Clone, Copy)]
struct Drawn {
    row: u32,
    times: u32,
}

/// A node whose rows are known and whose split is not.
struct Open {
    /// Its rows are `sample[start..end]`.
    start: usize,
    end: usize,
    depth: usize,
}

/// How a node's rows are divided.
#[derive(Clone, Copy)]
struct Split {
    feature: usize,
    /// Rows of bins up to this one go left.
    last_left: u8,
    missing_left: bool,
    /// How pure the sides are; greater is purer.
    purity: f64,
}

impl Growth<'_> {
    /// Grows a tree on a bootstrap sample: as many draws as there are rows, with replacement.
    pub(super) fn grow(&self, dice: &mut Dice) -> TreeForm {
        let mut sample = self.draw(dice);
        let mut tree = TreeForm::default();
        let mut open = VecDeque::from([Open { start: 0, end: sample.len(), depth: 0 }]);
        while let Some(Open { start, end, depth }) = open.pop_front() {
            let rows = &mut sample[start..end];
            let totals = self.count(rows);
            let split = if depth < self.max_depth { self.best_split(rows, &totals, dice) } else { None };
            match split {
                None => push_leaf(&mut tree, &totals),
                Some(split) => {
                    let children = tree.feature.len() + 1 + open.len();
                    self.push_split(&mut tree, split, children as u32);
                    let middle = start + self.divide(rows, split);
                    open.push_back(Open { start, end: middle, depth: depth + 1 });
                    open.push_back(Open { start: middle, end, depth: depth + 1 });
                }
            }
        }
        tree
    }

    fn draw(&self, dice: &mut Dice) -> Vec<Drawn> {
        let mut times = vec![0u32; self.class_of_row.len()];
        for _ in 0..times.len() {
            times[dice.below(self.class_of_row.len())] += 1;
        }
        times.iter().enumerate().filter(|(_, times)| **times > 0).map(|(row, &times)| Drawn { row: row as u32, times }).collect()
    }

    /// How many (drawn) rows there are of each class.
    fn count(&self, rows: &[Drawn]) -> Vec<u64> {
        let mut totals = vec![0; self.classes];
        for drawn in rows {
            totals[self.class_of_row[drawn.row as usize] as usize] += u64::from(drawn.times);
        }
        totals
    }

    /// The split that leaves the purest sides, among a sample of the features; `None` if none makes them purer than the whole.
    fn best_split(&self, rows: &[Drawn], totals: &[u64], dice: &mut Dice) -> Option<Split> {
        let all: u64 = totals.iter().sum();
        if all < 2 * self.min_leaf_rows || totals.iter().filter(|&&total| total > 0).count() < 2 {
            return None;
        }
        let mut features: Vec<usize> = (0..self.features.features.len()).collect();
        let mut best: Option<Split> = None;
        let mut tried = 0;
        // Features on which the node's rows don't differ cost no try, else a node could end as a leaf by mere bad luck.
        for drawn in 0..features.len() {
            if tried == self.features_per_split {
                break;
            }
            let chosen = drawn + dice.below(features.len() - drawn);
            features.swap(drawn, chosen);
            let Some(found) = self.best_split_on(features[drawn], rows, totals) else { continue };
            tried += 1;
            // Ties go to the feature that was drawn first.
            if best.is_none_or(|best| found.purity > best.purity) {
                best = Some(found);
            }
        }
        // A hair above the whole's purity is rounding, and no gain.
        best.filter(|split| split.purity > purity(totals) * (1.0 + 1e-12))
    }

    /// The best split on one feature that leaves enough rows on both sides.
    fn best_split_on(&self, feature: usize, rows: &[Drawn], totals: &[u64]) -> Option<Split> {
        let binned = &self.features.features[feature];
        let missing_bin = usize::from(binned.missing());
        let mut counts = vec![0u64; (missing_bin + 1) * self.classes];
        for drawn in rows {
            let row = drawn.row as usize;
            counts[usize::from(binned.bin_of_row[row]) * self.classes + self.class_of_row[row] as usize] += u64::from(drawn.times);
        }
        let (present, missing) = counts.split_at(missing_bin * self.classes);
        let missing_total: u64 = missing.iter().sum();

        let mut best: Option<Split> = None;
        let mut consider = |last_left: usize, left: &[u64], missing_left: bool| {
            let right: Vec<u64> = totals.iter().zip(left).map(|(total, left)| total - left).collect();
            let (left_total, right_total) = (left.iter().sum::<u64>(), right.iter().sum::<u64>());
            if left_total.min(right_total) < self.min_leaf_rows {
                return;
            }
            let purity = purity(left) + purity(&right);
            if best.is_none_or(|best| purity > best.purity) {
                // With no value missing here the split says nothing of them: they go with the most.
                let missing_left = if missing_total == 0 { left_total >= right_total } else { missing_left };
                best = Some(Split { feature, last_left: last_left as u8, missing_left, purity });
            }
        };
        let mut left = vec![0u64; self.classes];
        for (bin, bin_counts) in present.chunks_exact(self.classes).enumerate() {
            if bin_counts.iter().all(|&count| count == 0) {
                continue;
            }
            left.iter_mut().zip(bin_counts).for_each(|(left, count)| *left += count);
            consider(bin, &left, false);
            if missing_total > 0 {
                let with_missing: Vec<u64> = left.iter().zip(missing).map(|(left, missing)| left + missing).collect();
                consider(bin, &with_missing, true);
            }
        }
        best
    }

    /// Moves the rows that go left before the others; gives how many they are.
    fn divide(&self, rows: &mut [Drawn], split: Split) -> usize {
        let binned = &self.features.features[split.feature];
        let goes_left = |drawn: &Drawn| {
            let bin = binned.bin_of_row[drawn.row as usize];
            if bin == binned.missing() { split.missing_left } else { bin <= split.last_left }
        };
        // Both sides keep their order: memory is then read forwards all the way down.
        let (left, right): (Vec<Drawn>, Vec<Drawn>) = rows.iter().partition(|drawn| goes_left(drawn));
        rows[..left.len()].copy_from_slice(&left);
        rows[left.len()..].copy_from_slice(&right);
        left.len()
    }

    fn push_split(&self, tree: &mut TreeForm, split: Split, children: u32) {
        let edges = &self.features.features[split.feature].edges;
        if split.missing_left {
            tree.missing_left.push(tree.feature.len() as u32);
        }
        tree.feature.push(split.feature as i32);
        // After the last bin come only missing values: all that is present goes left.
        tree.threshold.push(edges.get(usize::from(split.last_left)).copied().unwrap_or(f64::MAX));
        tree.left.push(children);
    }
}

fn push_leaf(tree: &mut TreeForm, totals: &[u64]) {
    let all = totals.iter().sum::<u64>() as f64;
    tree.feature.push(-1);
    tree.threshold.push(0.0);
    tree.left.push(0);
    tree.shares.extend(totals.iter().map(|&total| total as f64 / all));
}

/// The sum of squared class counts over the count: what is left of it after a split orders splits as Gini's impurity does.
fn purity(counts: &[u64]) -> f64 {
    let all: u64 = counts.iter().sum();
    let squares: f64 = counts.iter().map(|&count| count as f64 * count as f64).sum();
    if all == 0 { 0.0 } else { squares / all as f64 }
}
