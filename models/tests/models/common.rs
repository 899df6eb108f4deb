//! Random forests, rows and data for the tests. All from a seed, so that a failure can be run again.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use tidegate_models::forest::TreeForm;

/// Random numbers from a seed.
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    /// A number in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A value that makes trouble if anything does.
    pub fn value(&mut self) -> f64 {
        match self.below(12) {
            0 => f64::NAN,
            1 => f64::INFINITY,
            2 => f64::NEG_INFINITY,
            3 => 0.0,
            4 => -0.0,
            5 => f64::MAX,
            6 => 5e-324,
            7 | 8 => self.below(4) as f64 - 1.0,
            _ => self.unit() * 4.0 - 2.0,
        }
    }

    /// A finite such value.
    pub fn finite(&mut self) -> f64 {
        loop {
            let value = self.value();
            if value.is_finite() {
                return value;
            }
        }
    }
}

/// A tree as one would draw it: what the flat form is compared with.
pub enum Drawn {
    Leaf(Vec<f64>),
    Split { feature: usize, threshold: f64, missing_left: bool, sides: Box<[Drawn; 2]> },
}

impl Drawn {
    /// A random tree.
    pub fn random(random: &mut Random, features: usize, classes: usize, depth: usize) -> Self {
        if depth == 0 || random.below(5) == 0 {
            let weights: Vec<f64> = (0..classes).map(|_| random.unit()).collect();
            let sum: f64 = weights.iter().sum();
            return Drawn::Leaf(weights.iter().map(|weight| weight / sum).collect());
        }
        let side = |random: &mut Random| Drawn::random(random, features, classes, depth - 1);
        let sides = Box::new([side(random), side(random)]);
        Drawn::Split { feature: random.below(features), threshold: random.finite(), missing_left: random.below(2) == 0, sides }
    }

    /// The shares of the leaf that a row reaches.
    pub fn walk(&self, row: &[f64]) -> &[f64] {
        match self {
            Drawn::Leaf(shares) => shares,
            Drawn::Split { feature, threshold, missing_left, sides } => {
                let left = if row[*feature].is_nan() { *missing_left } else { row[*feature] < *threshold };
                sides[usize::from(!left)].walk(row)
            }
        }
    }

    /// The flat form.
    pub fn flat(&self) -> TreeForm {
        let mut form = TreeForm::default();
        let mut level = vec![self];
        let mut free = 1;
        while !level.is_empty() {
            let mut below = vec![];
            for node in level {
                match node {
                    Drawn::Leaf(shares) => {
                        form.feature.push(-1);
                        form.threshold.push(0.0);
                        form.left.push(0);
                        form.shares.extend(shares);
                    }
                    Drawn::Split { feature, threshold, missing_left, sides } => {
                        if *missing_left {
                            form.missing_left.push(form.feature.len() as u32);
                        }
                        form.feature.push(*feature as i32);
                        form.threshold.push(*threshold);
                        form.left.push(free);
                        free += 2;
                        below.extend(sides.iter());
                    }
                }
            }
            level = below;
        }
        form
    }
}

/// Names for this many features.
pub fn names(features: usize) -> Vec<String> {
    (0..features).map(|feature| format!("f{feature}")).collect()
}

/// Rows as one column per feature; NaN becomes NULL in every other row.
pub fn columns(rows: &[Vec<f64>], features: usize) -> Vec<ArrayRef> {
    let cell = |(row, values): (usize, &Vec<f64>), feature: usize| Some(values[feature]).filter(|value| !value.is_nan() || row % 2 == 0);
    let column = |feature| Arc::new(rows.iter().enumerate().map(|row| cell(row, feature)).collect::<Float64Array>()) as ArrayRef;
    (0..features).map(column).collect()
}
