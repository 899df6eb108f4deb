//! The form that a tree is given in, and the checks that make a forest of it.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{FlatForest, Node, exact};
use crate::classes::Classes;

/// How far a leaf's shares may be from 1 in sum: far more than rounding, far less than a mistake.
const SHARE_TOLERANCE: f64 = 1e-6;

/// One tree, node by node: the arrays below have one entry a node, the root's first.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeForm {
    /// The number of the feature that an inner node looks at; -1 in a leaf.
    pub feature: Vec<i32>,
    /// A row whose value is less than this goes to the left child; 0 in a leaf.
    #[serde(with = "exact")]
    pub threshold: Vec<f64>,
    /// The left child, which comes after its parent; the right child is the next node. 0 in a leaf.
    pub left: Vec<u32>,
    /// The inner nodes where a missing value goes left, ascending; in all others it goes right.
    pub missing_left: Vec<u32>,
    /// The leaves' class shares, leaf after leaf in the order of the nodes, each as long as there are classes.
    #[serde(with = "exact")]
    pub shares: Vec<f64>,
}

/// Why something is no forest.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ForestError {
    /// Not JSON, or not of the form's shape.
    #[error("this is not a forest's JSON: {0}")]
    Json(String),
    /// JSON of something else.
    #[error("this is of format '{0}', not 'tidegate-forest'")]
    Format(String),
    /// A version that this program can't read.
    #[error("the forest is of version {found}, but this program reads version {readable} only; take a newer program, or train it again")]
    Version {
        /// The version it says.
        found: u64,
        /// The version that is read.
        readable: u64,
    },
    /// No features, too many, or two of one name.
    #[error("the forest {0}")]
    Features(String),
    /// Fewer than two classes, or out of order.
    #[error("the forest's classes {0}")]
    Classes(String),
    /// No trees, or too many nodes.
    #[error("the forest {0}")]
    Size(String),
    /// A tree whose arrays don't fit together.
    #[error("tree {tree} of the forest: {fault}")]
    Tree {
        /// The tree, from 0.
        tree: usize,
        /// What is wrong with it.
        fault: String,
    },
    /// A node that can't be.
    #[error("tree {tree}, node {node} of the forest: {fault}")]
    Node {
        /// The tree, from 0.
        tree: usize,
        /// The node in it, from 0.
        node: usize,
        /// What is wrong with it.
        fault: NodeFault,
    },
}

/// What can be wrong with a node.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NodeFault {
    /// A feature that the forest doesn't have.
    #[error("it looks at feature {0}, which the forest doesn't have")]
    Feature(i32),
    /// A threshold that nothing can be compared with, or that JSON readers disagree on.
    #[error("its threshold is {0}, not a finite number")]
    Threshold(f64),
    /// Children before their parent, beyond the last node, or of an earlier parent: there would be a cycle or a node with two ways to it.
    #[error("its children start at {found}, but the next free node is {expected} of {nodes}")]
    Children {
        /// Where they are said to start.
        found: u32,
        /// Where they must start.
        expected: usize,
        /// How many nodes there are.
        nodes: usize,
    },
    /// No inner node has it as a child.
    #[error("no way leads to it")]
    Unreachable,
    /// A share that is no probability.
    #[error("one of its shares is {0}, not between 0 and 1")]
    Share(f64),
    /// Shares that don't sum up to one.
    #[error("its shares sum up to {0}, not to 1")]
    ShareSum(f64),
    /// A direction for missing values in a node that isn't there, is a leaf, or is named out of order.
    #[error("missing values can't go left there: the list of such nodes names inner nodes only, in ascending order")]
    MissingLeft,
}

impl FlatForest {
    /// Checks the parts and makes a forest of them.
    ///
    /// In each tree the children of the first inner node come right after the root, those of the second after them and so on (breadth
    /// first), so that a tree has one form only, and can have neither a cycle nor a node with two parents.
    pub fn new(features: Vec<String>, classes: Classes, metadata: BTreeMap<String, String>, trees: Vec<TreeForm>) -> Result<Self, ForestError> {
        check_features(&features)?;
        if classes.len() < 2 {
            return Err(ForestError::Classes(format!("must be two or more; there are {}", classes.len())));
        }
        if !classes.is_ordered() {
            return Err(ForestError::Classes("must be in ascending order without a repetition".into()));
        }
        if trees.is_empty() {
            return Err(ForestError::Size("has no trees".into()));
        }
        // Node numbers and places of shares must fit 32 bits.
        let largest = trees.iter().map(|tree| tree.feature.len().max(tree.shares.len())).fold(0, usize::saturating_add);
        if largest >= Node::LEAF as usize {
            return Err(ForestError::Size("has more than four thousand million nodes or shares".into()));
        }
        let mut forest = Self { features, classes, metadata, trees: vec![], nodes: vec![], roots: vec![], shares: vec![] };
        for (number, tree) in trees.iter().enumerate() {
            forest.append(number, tree)?;
        }
        forest.trees = trees;
        Ok(forest)
    }

    /// Checks one tree and appends its nodes.
    fn append(&mut self, number: usize, tree: &TreeForm) -> Result<(), ForestError> {
        let whole = |fault: String| ForestError::Tree { tree: number, fault };
        let at = |node, fault| ForestError::Node { tree: number, node, fault };
        let count = tree.feature.len();
        if count == 0 {
            return Err(whole("it has no nodes".into()));
        }
        if tree.threshold.len() != count || tree.left.len() != count {
            return Err(whole(format!(
                "its arrays must have one entry a node, but feature has {count}, threshold {} and left {}",
                tree.threshold.len(),
                tree.left.len()
            )));
        }
        let leaves = tree.feature.iter().filter(|&&feature| feature == -1).count();
        if tree.shares.len() != leaves * self.classes.len() {
            return Err(whole(format!("it has {} shares, but {leaves} leaves of {} classes", tree.shares.len(), self.classes.len())));
        }
        let first = self.nodes.len() as u32;
        let mut missing_left = tree.missing_left.iter().map(|&node| node as usize).peekable();
        let mut leaf_shares = tree.shares.chunks_exact(self.classes.len());
        // The node that nobody's child is yet.
        let mut free = 1;
        for node in 0..count {
            if node >= free {
                return Err(at(node, NodeFault::Unreachable));
            }
            let (feature, threshold, left) = (tree.feature[node], tree.threshold[node], tree.left[node]);
            let misses_left = missing_left.next_if_eq(&node).is_some();
            if feature == -1 {
                if misses_left {
                    return Err(at(node, NodeFault::MissingLeft));
                }
                let shares = leaf_shares.next().unwrap_or_default();
                check_shares(shares).map_err(|fault| at(node, fault))?;
                self.nodes.push(Node { threshold: 0.0, feature: Node::LEAF, next: self.shares.len() as u32 });
                self.shares.extend_from_slice(shares);
                continue;
            }
            let known = usize::try_from(feature).ok().filter(|&feature| feature < self.features.len());
            let known = known.ok_or_else(|| at(node, NodeFault::Feature(feature)))? as u32;
            if !threshold.is_finite() {
                return Err(at(node, NodeFault::Threshold(threshold)));
            }
            if left as usize != free || free + 2 > count {
                return Err(at(node, NodeFault::Children { found: left, expected: free, nodes: count }));
            }
            free += 2;
            self.nodes.push(Node { threshold, feature: known | if misses_left { Node::MISSING_LEFT } else { 0 }, next: first + left });
        }
        // What is left over names a node that isn't there, or came out of order.
        if let Some(node) = missing_left.next() {
            return Err(at(node, NodeFault::MissingLeft));
        }
        self.roots.push(first);
        Ok(())
    }
}

fn check_features(features: &[String]) -> Result<(), ForestError> {
    // One bit of a node's feature is taken, and all ones mean a leaf.
    if features.is_empty() || features.len() >= (Node::MISSING_LEFT - 1) as usize {
        return Err(ForestError::Features(format!("has {} features; it must have at least one", features.len())));
    }
    let mut seen = HashSet::new();
    match features.iter().find(|name| !seen.insert(name.as_str())) {
        Some(twice) => Err(ForestError::Features(format!("has two features called '{twice}'"))),
        None => Ok(()),
    }
}

fn check_shares(shares: &[f64]) -> Result<(), NodeFault> {
    if let Some(&share) = shares.iter().find(|share| !(0.0..=1.0).contains(*share)) {
        return Err(NodeFault::Share(share));
    }
    let sum: f64 = shares.iter().sum();
    if (sum - 1.0).abs() > SHARE_TOLERANCE { Err(NodeFault::ShareSum(sum)) } else { Ok(()) }
}
