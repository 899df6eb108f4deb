//! Trees that linfa trained predict the same once they are flat.

use crate::common::{Random, columns, names};
use ::linfa::{Dataset, traits::*};
use arrow::array::AsArray;
use linfa_trees::DecisionTree;
use ndarray::{Array1, Array2};
use tidegate_models::{
    Classes,
    linfa::{ImportError, from_tree, from_trees},
};

/// Rows of `width` features with few distinct values, so that values meet thresholds, and a noisy class of three.
fn data(seed: u64, count: usize, width: usize) -> (Array2<f64>, Array1<usize>) {
    let random = &mut Random::new(seed);
    let rows = Array2::from_shape_fn((count, width), |_| random.below(9) as f64 / 2.0);
    let classes = rows.rows().into_iter().map(|row| if random.below(4) == 0 { random.below(3) } else { (row[0] + row[width - 1]) as usize % 3 }).collect();
    (rows, classes)
}

fn rows_of(array: &Array2<f64>) -> Vec<Vec<f64>> {
    array.rows().into_iter().map(|row| row.to_vec()).collect()
}

#[test]
fn a_tree_predicts_what_linfa_predicts() {
    for seed in 0..20 {
        let (rows, classes) = data(seed, 300, 4);
        let tree = DecisionTree::params().max_depth(Some(1 + seed as usize % 10)).fit(&Dataset::new(rows, classes)).unwrap();
        let flat = from_tree(&tree, &names(4), &[0usize, 1, 2]).unwrap();
        assert_eq!(flat.classes(), &Classes::Integer(vec![0, 1, 2]));
        // Quarters, so that some values equal a threshold; NaN goes right in both.
        let random = &mut Random::new(seed + 1_000);
        let fresh = Array2::from_shape_fn((500, 4), |_| if random.below(10) == 0 { f64::NAN } else { random.below(19) as f64 / 4.0 });
        let expected: Vec<usize> = tree.predict(&fresh).to_vec();
        let scores = flat.score(&columns(&rows_of(&fresh), 4)).unwrap();
        assert_eq!(scores.best().collect::<Vec<_>>(), expected, "seed {seed}");
    }
}

#[test]
fn trees_vote() {
    let (rows, classes) = data(1, 400, 4);
    // Each tree sees two of the four features, in an order of its own.
    let views = vec![vec![3, 0], vec![1, 3], vec![0, 2]];
    let view = |features: &Vec<usize>| rows.select(ndarray::Axis(1), features);
    let train = |features: &Vec<usize>| DecisionTree::params().fit(&Dataset::new(view(features), classes.clone())).unwrap();
    let trees: Vec<DecisionTree<f64, usize>> = views.iter().map(train).collect();
    let flat = from_trees(&trees, &views, &names(4), &[]).unwrap();
    let scores = flat.score(&columns(&rows_of(&rows), 4)).unwrap();
    let votes: Vec<Vec<usize>> = trees.iter().zip(&views).map(|(tree, features)| tree.predict(&view(features)).to_vec()).collect();
    for row in 0..rows.nrows() {
        for class in 0..3 {
            let share = votes.iter().filter(|votes| votes[row] == class).count() as f64 / 3.0;
            assert!((scores.row(row)[class] - share).abs() < 1e-15);
        }
    }
}

#[test]
fn text_and_boolean_labels() {
    let rows = Array2::from_shape_fn((20, 1), |(row, _)| row as f64);
    let text: Array1<String> = (0..20).map(|row| if row < 10 { "won" } else { "lost" }.to_string()).collect();
    let tree = DecisionTree::params().fit(&Dataset::new(rows.clone(), text)).unwrap();
    // A class that no leaf predicts keeps its place.
    let flat = from_tree(&tree, &names(1), &["drawn".to_string()]).unwrap();
    let labels = flat.score(&columns(&[vec![1.0], vec![15.0]], 1)).unwrap().labels();
    assert_eq!(labels.as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["won", "lost"]);
    let flags: Array1<bool> = (0..20).map(|row| row < 10).collect();
    let tree = DecisionTree::params().fit(&Dataset::new(rows, flags)).unwrap();
    assert_eq!(from_tree(&tree, &names(1), &[]).unwrap().classes(), &Classes::Boolean(vec![false, true]));
}

#[test]
fn what_does_not_fit_is_refused() {
    let (rows, classes) = data(1, 300, 4);
    let tree = DecisionTree::params().fit(&Dataset::new(rows, classes)).unwrap();
    assert!(matches!(from_tree(&tree, &names(1), &[]), Err(ImportError::Feature { tree: 0, listed: 1, .. })));
    assert!(matches!(from_trees(std::slice::from_ref(&tree), &[], &names(4), &[]), Err(ImportError::Lists { trees: 1, lists: 0 })));
    let sentence = from_trees(&[tree], &[vec![7; 4]], &names(4), &[]).unwrap_err().to_string();
    assert!(sentence.contains("it looks at feature 7, which the forest doesn't have"), "{sentence}");
}
