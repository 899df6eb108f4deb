//! Decision forests in one flat form: every tree's nodes in arrays, no pointers, made to be walked fast and moved to a device as they are.
//!
//! A forest's answer for a row is the mean over its trees of the class shares in the leaf that the row reaches. At an inner node a row goes
//! left if its value is *less than* the threshold, right if not; a missing value goes the way that the node says.

mod exact;
mod form;
mod json;
mod score;

pub use self::{
    form::{ForestError, NodeFault, TreeForm},
    json::VERSION,
    score::Scores,
};

use std::collections::BTreeMap;

use crate::classes::Classes;

/// A valid forest, ready to score.
#[derive(Debug, Clone, PartialEq)]
pub struct FlatForest {
    /// Names of the features, in the order of their numbers.
    features: Vec<String>,
    classes: Classes,
    /// What its maker wants remembered: where it came from, how it was trained. Means nothing to the scorer.
    metadata: BTreeMap<String, String>,
    /// The trees as they were given, for the durable form.
    trees: Vec<TreeForm>,
    /// All nodes, tree after tree.
    nodes: Vec<Node>,
    /// Each tree's first node.
    roots: Vec<u32>,
    /// Class shares of all leaves, one after the other.
    shares: Vec<f64>,
}

/// One node, 16 bytes: four to a cache line, and what a node decides lies together.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Node {
    /// A row whose value is less goes left.
    threshold: f64,
    /// The feature's number; [`Node::LEAF`] in a leaf. The top bit says that missing values go left.
    feature: u32,
    /// The left child, the right one being the next; in a leaf the place of its shares.
    next: u32,
}

impl Node {
    const LEAF: u32 = u32::MAX;
    const MISSING_LEFT: u32 = 1 << 31;
}

impl FlatForest {
    /// Names of the features, in the order in which columns are scored.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// The classes, in the order of the scores.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// What its maker wants remembered.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The same forest with one more thing remembered.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Its trees.
    pub fn trees(&self) -> &[TreeForm] {
        &self.trees
    }

    /// How many nodes all its trees have.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }
}
