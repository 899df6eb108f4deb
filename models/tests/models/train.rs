//! Trained forests: they learn, they are the same for the same seed, and what can't be learnt is refused.

use std::{num::NonZeroUsize, sync::Arc};

use crate::common::{Random, columns, names};
use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, StringArray};
use tidegate_models::{Classes, FlatForest, ForestParams, train};

fn params(trees: usize) -> ForestParams {
    ForestParams { trees, seed: 42, ..ForestParams::default() }
}

fn int(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

/// Rows of four features in [0, 1), and a class for each.
fn rows_of(seed: u64, count: usize, class: impl Fn(&[f64], &mut Random) -> i64) -> (Vec<ArrayRef>, Vec<i64>) {
    let random = &mut Random::new(seed);
    let rows: Vec<Vec<f64>> = (0..count).map(|_| (0..4).map(|_| random.unit()).collect()).collect();
    let classes = rows.iter().map(|row| class(row, random)).collect();
    (columns(&rows, 4), classes)
}

fn accuracy(forest: &FlatForest, columns: &[ArrayRef], classes: &[i64]) -> f64 {
    let labels = forest.score(columns).unwrap().labels();
    let right = labels.as_primitive::<arrow::datatypes::Int64Type>().values().iter().zip(classes).filter(|(a, b)| a == b).count();
    right as f64 / classes.len() as f64
}

#[test]
fn a_separable_problem_is_learnt() {
    // A checkerboard: no feature alone says anything.
    let board = |row: &[f64], _: &mut Random| i64::from((row[0] < 0.5) != (row[1] < 0.5));
    let (columns, classes) = rows_of(1, 4_000, board);
    let forest = train(&names(4), &columns, &int(classes.clone()), &params(40)).unwrap();
    let (fresh, fresh_classes) = rows_of(2, 2_000, board);
    assert!(accuracy(&forest, &columns, &classes) > 0.99);
    let measured = accuracy(&forest, &fresh, &fresh_classes);
    assert!(measured > 0.97, "{measured}");
}

#[test]
fn on_noise_probabilities_are_near_the_truth() {
    // Class 2 with probability p = 0.2 + 0.6 x, else what another feature says. Who knows all that is right in 65 % of the cases: in the
    // mean of max(p, 1 - p).
    let noisy = |row: &[f64], random: &mut Random| if random.unit() < 0.2 + 0.6 * row[2] { 2 } else { i64::from(row[1] < 0.5) };
    let (columns, classes) = rows_of(3, 20_000, noisy);
    let forest = train(&names(4), &columns, &int(classes), &ForestParams { min_leaf_rows: 100, ..params(40) }).unwrap();
    let (fresh, fresh_classes) = rows_of(4, 5_000, noisy);
    let base_rate = (0..3).map(|class| fresh_classes.iter().filter(|&&c| c == class).count()).max().unwrap() as f64 / 5_000.0;
    let measured = accuracy(&forest, &fresh, &fresh_classes);
    assert!(measured > base_rate + 0.11 && measured < 0.67, "{measured} against a base rate of {base_rate}");
    let scores = forest.score(&fresh).unwrap().of_class(2);
    let truth = fresh[2].as_primitive::<arrow::datatypes::Float64Type>().values().iter().map(|x| 0.2 + 0.6 * x);
    let error = scores.values().iter().zip(truth).map(|(p, truth)| (p - truth).abs()).sum::<f64>() / 5_000.0;
    assert!(error < 0.04, "probabilities are off by {error} on average");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let (columns, classes) = rows_of(5, 2_000, |row, random| (row[0] * 2.0 + random.unit() * 2.0) as i64);
    let target = int(classes);
    let json = |seed, threads| {
        let params = ForestParams { trees: 12, seed, threads: NonZeroUsize::new(threads).unwrap(), ..ForestParams::default() };
        train(&names(4), &columns, &target, &params).unwrap().to_json()
    };
    let first = json(1, 1);
    assert_eq!(first, json(1, 1));
    assert_eq!(first, json(1, 3), "threads change nothing");
    assert_ne!(first, json(2, 1));
}

#[test]
fn that_a_value_is_missing_is_learnt() {
    // Only that feature 1 is missing tells the class; missing is as often the one as the other side of feature 0.
    let random = &mut Random::new(6);
    let rows: Vec<Vec<f64>> = (0..2_000).map(|_| vec![random.unit(), if random.below(3) == 0 { f64::NAN } else { random.unit() }]).collect();
    let classes: Vec<i64> = rows.iter().map(|row| i64::from(row[1].is_nan())).collect();
    let columns = columns(&rows, 2);
    let forest = train(&names(2), &columns, &int(classes.clone()), &params(20)).unwrap();
    assert_eq!(accuracy(&forest, &columns, &classes), 1.0);
}

#[test]
fn scale_and_ties_do_not_matter() {
    // Differences of one part in 10^12 of tiny and of huge numbers, and a feature without any difference.
    for scale in [1e-300, 1.0, 1e300] {
        let values: Vec<f64> = (0..100).map(|i| scale * (1.0 + f64::from(i) * 1e-12)).collect();
        let columns: Vec<ArrayRef> = vec![Arc::new(Float64Array::from(values)), Arc::new(Float64Array::from(vec![1.0; 100]))];
        let target: Vec<i64> = (0..100).map(|i| i64::from(i >= 50)).collect();
        let params = ForestParams { min_leaf_rows: 1, ..params(15) };
        let forest = train(&names(2), &columns, &int(target.clone()), &params).unwrap();
        assert!(accuracy(&forest, &columns, &target) > 0.95, "scale {scale:e}");
    }
}

#[test]
fn without_anything_to_learn_from_the_shares_remain() {
    let columns: Vec<ArrayRef> = vec![Arc::new(Float64Array::from(vec![None::<f64>; 400]))];
    let target = int((0..400).map(|i| i64::from(i % 4 == 0)));
    let forest = train(&names(1), &columns, &target, &params(50)).unwrap();
    assert_eq!(forest.node_count(), 50);
    let share = forest.score(&columns).unwrap().row(0)[1];
    assert!((share - 0.25).abs() < 0.02, "{share}");
}

#[test]
fn leaves_and_depth_are_bounded() {
    let (columns, classes) = rows_of(7, 1_000, |_, random| random.below(2) as i64);
    let stumps = train(&names(4), &columns, &int(classes.clone()), &ForestParams { max_depth: 1, ..params(10) }).unwrap();
    assert!(stumps.trees().iter().all(|tree| tree.feature.len() == 3));
    let coarse = train(&names(4), &columns, &int(classes), &ForestParams { min_leaf_rows: 300, ..params(10) }).unwrap();
    assert!(coarse.trees().iter().all(|tree| tree.feature.len() <= 5));
}

#[test]
fn classes_keep_their_type() {
    let columns: Vec<ArrayRef> = vec![int(0..40)];
    let target: ArrayRef = Arc::new(StringArray::from_iter_values((0..40).map(|i| if i < 20 { "won" } else { "lost" })));
    let forest = train(&["minute".into()], &columns, &target, &params(20)).unwrap();
    assert_eq!(forest.classes(), &Classes::Text(vec!["lost".into(), "won".into()]));
    let labels = forest.score(&[int([2, 38])]).unwrap().labels();
    assert_eq!(labels.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["won", "lost"]);
}

#[test]
fn what_can_not_be_learnt_is_refused_in_a_sentence() {
    let x: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]));
    let refused = |columns: &[&ArrayRef], target: ArrayRef, params: &ForestParams| {
        let columns: Vec<ArrayRef> = columns.iter().map(|&column| column.clone()).collect();
        train(&names(columns.len()), &columns, &target, params).unwrap_err().to_string()
    };
    let two = || int([0, 1, 1]);
    let plain = &params(5);
    assert_eq!(refused(&[&x], int([3, 3, 3]), plain), "the target is '3' in all rows; a forest needs rows of at least two classes");
    assert_eq!(refused(&[&x], int([1, 2]), plain), "the target has 2 rows, but the features have 3");
    let none: ArrayRef = Arc::new(Float64Array::from(Vec::<f64>::new()));
    assert_eq!(refused(&[&none], int([]), plain), "there are 0 rows to train on; a forest takes between 2 and 2,000,000,000");
    let target: ArrayRef = Arc::new(Float64Array::from(vec![0.0, f64::NAN, 1.0]));
    assert!(refused(&[&x], target, plain).starts_with("the target is NaN in row 1, "));
    let target: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(1), None]));
    assert!(refused(&[&x], target, plain).starts_with("the target is NULL in row 2;"));
    let infinite: ArrayRef = Arc::new(Float64Array::from(vec![1.0, f64::NEG_INFINITY, 3.0]));
    assert!(refused(&[&x, &infinite], two(), plain).starts_with("feature 'f1' is -inf in row 1; leave such rows out"));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    assert!(refused(&[&text], two(), plain).starts_with("feature 'f0' is Utf8, not a number"));
    let short: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    assert_eq!(refused(&[&x, &short], two(), plain), "feature 'f1' has 1 rows where the others have 3");
    assert_eq!(refused(&[&x], two(), &params(0)), "the number of trees is 0, but must be between 1 and 10000");
    let wide = ForestParams { features_per_split: Some(2), ..params(5) };
    assert_eq!(refused(&[&x], two(), &wide), "the number of features per split is 2, but must be between 1 and 1");
    assert!(train(&[], &[], &two(), plain).is_err());
    let many: ArrayRef = int(0..1_001);
    assert!(refused(&[&many], many.clone(), plain).starts_with("the target has 1001 different values;"));
    let twice = train(&["a".into(), "a".into()], &[x.clone(), x.clone()], &two(), plain).unwrap_err();
    assert_eq!(twice.to_string(), "the forest has two features called 'a'");
}
