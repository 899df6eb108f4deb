//! Trees and forests that the `linfa` crates trained become flat forests.
//!
//! `linfa` keeps one class in a leaf, so a tree's shares are 0 and 1 and a forest's scores are its votes. At prediction it sends a value
//! left that is less than the threshold, as we do, and NaN right.

use std::collections::{BTreeMap, VecDeque};

use linfa::{Float, Label};
use linfa_trees::{DecisionTree, TreeNode};

use crate::{
    classes::Classes,
    forest::{FlatForest, ForestError, TreeForm},
};

/// A label that `linfa` trains with and [`Classes`] holds.
pub trait ClassLabel: Label + Ord {
    /// Classes of these labels, which are distinct and in ascending order.
    fn classes(labels: Vec<Self>) -> Classes;
}

impl ClassLabel for bool {
    fn classes(labels: Vec<Self>) -> Classes {
        Classes::Boolean(labels)
    }
}

impl ClassLabel for String {
    fn classes(labels: Vec<Self>) -> Classes {
        Classes::Text(labels)
    }
}

impl ClassLabel for usize {
    fn classes(labels: Vec<Self>) -> Classes {
        // Labels beyond the range would collide, and then be refused as out of order.
        Classes::Integer(labels.into_iter().map(|label| i64::try_from(label).unwrap_or(i64::MAX)).collect())
    }
}

/// Why a forest of `linfa`'s can't be taken over.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ImportError {
    /// The trees and the lists of their features differ in number.
    #[error("there are {trees} trees, but {lists} lists of the features that they use")]
    Lists {
        /// How many trees.
        trees: usize,
        /// How many lists.
        lists: usize,
    },
    /// A tree that uses a feature beyond its list.
    #[error("tree {tree} looks at its feature {feature}, but its list has {listed} features")]
    Feature {
        /// The tree, from 0.
        tree: usize,
        /// The feature, as the tree numbers it.
        feature: usize,
        /// How long the list is.
        listed: usize,
    },
    /// What came out is no forest.
    #[error(transparent)]
    Forest(#[from] ForestError),
}

/// Takes over one tree. `names` are those of its features; `labels` are all classes that it was trained on, also those no leaf predicts.
pub fn from_tree<F: Float, L: ClassLabel>(tree: &DecisionTree<F, L>, names: &[String], labels: &[L]) -> Result<FlatForest, ImportError> {
    from_trees(std::slice::from_ref(tree), &[(0..names.len()).collect()], names, labels)
}

/// Takes over the trees of a bagged ensemble. `features_of_trees` tells for each tree which of the named features it was given, in its
/// own order (`model_features` of a `linfa_ensemble::EnsembleLearner`).
pub fn from_trees<F: Float, L: ClassLabel>(
    trees: &[DecisionTree<F, L>],
    features_of_trees: &[Vec<usize>],
    names: &[String],
    labels: &[L],
) -> Result<FlatForest, ImportError> {
    if trees.len() != features_of_trees.len() {
        return Err(ImportError::Lists { trees: trees.len(), lists: features_of_trees.len() });
    }
    // A label that a leaf predicts is a class, whether or not it was named.
    let predicted = trees.iter().flat_map(|tree| tree.iter_nodes().filter_map(TreeNode::prediction));
    let mut labels: Vec<L> = labels.iter().cloned().chain(predicted).collect();
    labels.sort_unstable();
    labels.dedup();
    let forms = trees.iter().zip(features_of_trees).enumerate();
    let forms = forms.map(|(number, (tree, features))| flatten(number, tree, features, &labels)).collect::<Result<_, _>>()?;
    let metadata = BTreeMap::from([("algorithm".into(), "linfa-trees".into()), ("trees".into(), trees.len().to_string())]);
    Ok(FlatForest::new(names.to_vec(), L::classes(labels), metadata, forms)?)
}

fn flatten<F: Float, L: ClassLabel>(number: usize, tree: &DecisionTree<F, L>, features: &[usize], labels: &[L]) -> Result<TreeForm, ImportError> {
    let mut form = TreeForm::default();
    let mut open = VecDeque::from([tree.root_node()]);
    while let Some(node) = open.pop_front() {
        let children: Vec<&TreeNode<F, L>> = node.children().into_iter().filter_map(Option::as_deref).collect();
        if let Some(class) = node.prediction() {
            form.feature.push(-1);
            form.threshold.push(0.0);
            form.left.push(0);
            form.shares.extend(labels.iter().map(|label| f64::from(u8::from(*label == class))));
            continue;
        }
        let (feature, threshold, _) = node.split();
        let mapped = features.get(feature).ok_or(ImportError::Feature { tree: number, feature, listed: features.len() })?;
        form.left.push((form.feature.len() + 1 + open.len()) as u32);
        form.feature.push(i32::try_from(*mapped).unwrap_or(i32::MAX));
        // An `f32` threshold is an `f64` too, so nothing is lost.
        form.threshold.push(threshold.to_f64().unwrap_or(f64::NAN));
        open.extend(children);
    }
    Ok(form)
}
