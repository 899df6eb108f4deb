//! Trains a random forest: many trees, each grown on a sample of the rows, each split chosen among a sample of the features.
//!
//! Breiman, "Random Forests", Machine Learning 45 (2001), with features binned as in LightGBM, and missing values sent to the side that
//! separates better. Trees are grown here and not by `linfa-trees`, for three reasons: its leaves keep a class and no shares, and it
//! prunes splits whose sides agree on the class, so that there are no probabilities to average; it sums and breaks ties in the order of a
//! randomly seeded hash map, so that a seed does not give one forest; and it has no missing values. [`crate::linfa`] takes over trees
//! that it trained.
//!
//! Invariant: the forest is a function of rows, target and parameters. Threads only change how long it takes. Impurities are fractions of
//! integer counts, summed in class order, and random numbers come from ChaCha with one stream a tree.

mod bins;
mod grow;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use arrow::array::ArrayRef;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use self::{bins::Binned, grow::Growth};
use crate::{
    classes::{Classes, TargetError},
    features::{FeatureError, Features},
    forest::{FlatForest, ForestError, TreeForm},
};

/// How many classes a forest may tell apart: beyond that the target is rather an identifier taken by mistake.
const MAX_CLASSES: usize = 1_000;

/// How a forest is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct ForestParams {
    /// How many trees, 1 to 10,000.
    pub trees: usize,
    /// How many splits a row can pass at most, 1 to 64.
    pub max_depth: usize,
    /// How many (sampled) rows a leaf has at least.
    pub min_leaf_rows: u64,
    /// Among how many features each split is chosen; `None` is the square root of their number, rounded up.
    pub features_per_split: Option<usize>,
    /// Seed of all that is random.
    pub seed: u64,
    /// How many threads grow trees. Does not change the forest.
    pub threads: NonZeroUsize,
}

impl Default for ForestParams {
    fn default() -> Self {
        Self { trees: 100, max_depth: 12, min_leaf_rows: 5, features_per_split: None, seed: 0, threads: NonZeroUsize::MIN }
    }
}

/// Why no forest was trained.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrainError {
    /// A parameter out of range.
    #[error("{name} is {value}, but must be between {least} and {most}")]
    Parameter {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u64,
        /// The least allowed.
        least: u64,
        /// The greatest allowed.
        most: u64,
    },
    /// No rows, or more than can be numbered.
    #[error("there are {0} rows to train on; a forest takes between 2 and 2,000,000,000")]
    Rows(usize),
    /// A target of other length than the features.
    #[error("the target has {target} rows, but the features have {features}")]
    TargetRows {
        /// Rows of the target.
        target: usize,
        /// Rows of the features.
        features: usize,
    },
    /// All rows are of one class.
    #[error("the target is '{0}' in all rows; a forest needs rows of at least two classes")]
    OneClass(String),
    /// More classes than can be meant.
    #[error("the target has {0} different values; a forest tells up to {MAX_CLASSES} classes apart")]
    ManyClasses(usize),
    /// An infinite value: it says that an earlier computation went wrong, and would take any threshold with it.
    #[error("feature '{feature}' is {value} in row {row}; leave such rows out, or turn the value into NULL, which counts as missing")]
    Infinite {
        /// The feature.
        feature: String,
        /// The row.
        row: usize,
        /// Its value.
        value: f64,
    },
    /// The target is no target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The features are no features.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// The features' names are no names.
    #[error(transparent)]
    Forest(#[from] ForestError),
}

/// Trains a forest that predicts `target` from one column per name. NULL and NaN features are missing values and welcome.
pub fn train(names: &[String], columns: &[ArrayRef], target: &ArrayRef, params: &ForestParams) -> Result<FlatForest, TrainError> {
    let features = Features::of_columns(names, columns)?;
    let features_per_split = params.features_per_split.unwrap_or_else(|| ceil_sqrt(names.len()));
    for (name, value, least, most) in [
        ("the number of trees", params.trees as u64, 1, 10_000),
        ("the greatest depth", params.max_depth as u64, 1, 64),
        ("the least number of rows in a leaf", params.min_leaf_rows, 1, u64::from(u32::MAX)),
        ("the number of features per split", features_per_split as u64, 1, names.len() as u64),
    ] {
        if !(least..=most).contains(&value) {
            return Err(TrainError::Parameter { name, value, least, most });
        }
    }
    if !(2..=2_000_000_000).contains(&features.rows()) {
        return Err(TrainError::Rows(features.rows()));
    }
    if target.len() != features.rows() {
        return Err(TrainError::TargetRows { target: target.len(), features: features.rows() });
    }
    let (classes, class_of_row) = Classes::of_target(target)?;
    match classes.len() {
        0 | 1 => return Err(TrainError::OneClass(classes.label(0).unwrap_or_default())),
        2..=MAX_CLASSES => (),
        many => return Err(TrainError::ManyClasses(many)),
    }
    for (feature, name) in names.iter().enumerate() {
        if let Some((row, value)) = features.column(feature).enumerate().find(|(_, value)| value.is_infinite()) {
            return Err(TrainError::Infinite { feature: name.clone(), row, value });
        }
    }

    let binned = Binned::of(&features);
    let growth = Growth {
        features: &binned,
        class_of_row: &class_of_row,
        classes: classes.len(),
        max_depth: params.max_depth,
        min_leaf_rows: params.min_leaf_rows,
        features_per_split,
    };
    let trees = grow_trees(&growth, params);
    let metadata = BTreeMap::from([
        ("algorithm".into(), "random_forest".into()),
        ("rows".into(), features.rows().to_string()),
        ("trees".into(), params.trees.to_string()),
        ("max_depth".into(), params.max_depth.to_string()),
        ("min_leaf_rows".into(), params.min_leaf_rows.to_string()),
        ("features_per_split".into(), features_per_split.to_string()),
        ("seed".into(), params.seed.to_string()),
    ]);
    Ok(FlatForest::new(names.to_vec(), classes, metadata, trees)?)
}

/// Grows all trees, on several threads if wished; a tree depends on its number only, not on who grows it.
fn grow_trees(growth: &Growth<'_>, params: &ForestParams) -> Vec<TreeForm> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut grown = vec![];
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= params.trees {
                return grown;
            }
            grown.push((number, growth.grow(&mut Dice::new(params.seed, number as u64))));
        }
    };
    let mut trees: Vec<(usize, TreeForm)> = thread::scope(|scope| {
        let threads = params.threads.get().min(params.trees);
        // The caller is one of the threads; where the system gives no more of them, those there are do it all.
        let helpers: Vec<_> = (1..threads).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let mut grown = work();
        for helper in helpers {
            grown.extend(helper.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        grown
    });
    trees.sort_by_key(|(number, _)| *number);
    trees.into_iter().map(|(_, tree)| tree).collect()
}

/// A tree's own random numbers. How they are drawn is spelled out here, so that no library's update changes what a seed gives.
struct Dice(ChaCha8Rng);

impl Dice {
    fn new(seed: u64, stream: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        let mut rng = ChaCha8Rng::from_seed(key);
        rng.set_stream(stream);
        Self(rng)
    }

    /// A number below `bound`. Off uniform by less than `bound` / 2^64.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }
}

fn ceil_sqrt(n: usize) -> usize {
    let root = n.isqrt();
    if root * root < n { root + 1 } else { root }
}
