//! Decision trees in the flat form that kernels read, shared by forests and boosted trees: what a tree is, and a row's way to its leaf.
//!
//! At an inner node a row goes left or right by comparing one of its values with the node's threshold; a missing value (NaN) goes the way
//! that the node says.

use super::block::{self, Block};

/// In a node's feature: missing values go left.
pub(super) const MISSING_LEFT: u32 = 1 << 31;

/// Rows that go through a tree side by side: each waits for memory at every node, and so they wait together.
const ABREAST: usize = 8;

/// When a row goes left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// If its value is less than the threshold, as in XGBoost.
    Less,
    /// If its value is less than the threshold or equal to it, as in LightGBM and scikit-learn.
    LessOrEqual,
}

/// The arrays of one tree but for what its leaves hold, node by node, the root's first.
pub(super) struct Arrays<'a> {
    pub(super) feature: &'a [i32],
    pub(super) threshold: &'a [f64],
    pub(super) left: &'a [u32],
    pub(super) missing_left: &'a [u32],
}

/// Trees whose every path ends in a leaf.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Trees {
    width: usize,
    /// All nodes, tree after tree.
    nodes: Vec<Node>,
}

/// One node, as kernels read it: 16 bytes, so that what a node decides lies together.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Node {
    /// A row whose value is less goes left; in a leaf what it holds.
    value: f64,
    /// The feature; the top bit says that missing values go left. 0 in a leaf.
    feature: u32,
    /// The left child, the right one being the next. A leaf's own number, so that rows which have arrived can go on without moving.
    next: u32,
}

impl Trees {
    pub(super) fn new(width: usize) -> Self {
        Self { width, nodes: vec![] }
    }

    /// Checks a tree and appends its nodes; gives its root. `leaves` are what the leaves hold, in the order of the nodes.
    pub(super) fn append(&mut self, tree: &Arrays<'_>, compare: Compare, leaves: impl IntoIterator<Item = f64>) -> Result<u32, String> {
        let count = tree.feature.len();
        if count == 0 || tree.threshold.len() != count || tree.left.len() != count {
            return Err(format!("its arrays don't fit together: {count} nodes, {} thresholds, {} left children", tree.threshold.len(), tree.left.len()));
        }
        if self.nodes.len() + count > u32::MAX as usize {
            return Err("with it there are more nodes than 32 bits number".into());
        }
        let first = self.nodes.len() as u32;
        let mut missing_left = tree.missing_left.iter().map(|&node| node as usize).peekable();
        let mut leaves = leaves.into_iter();
        for node in 0..count {
            let (feature, threshold, left) = (tree.feature[node], tree.threshold[node], tree.left[node]);
            if feature == -1 {
                let value = leaves.next().ok_or("it has more leaves than values of leaves")?;
                self.nodes.push(Node { value, feature: 0, next: first + node as u32 });
                continue;
            }
            let known = usize::try_from(feature).ok().filter(|&feature| feature < self.width);
            let known = known.ok_or_else(|| format!("node {node} looks at feature {feature}"))? as u32;
            if !threshold.is_finite() {
                return Err(format!("the threshold of node {node} is {threshold}, not a finite number"));
            }
            // Children after their parent: there is no way back, so every way ends.
            if left as usize <= node || left as usize + 1 >= count {
                return Err(format!("node {node} of {count} has its children at {left}"));
            }
            let missing = if missing_left.next_if_eq(&node).is_some() { MISSING_LEFT } else { 0 };
            // At most t is less than the number after t, so that there is one comparison for both.
            let value = if compare == Compare::Less { threshold } else { threshold.next_up() };
            self.nodes.push(Node { value, feature: known | missing, next: first + left });
        }
        if leaves.next().is_some() {
            return Err("it has more values of leaves than leaves".into());
        }
        match missing_left.next() {
            // What is left over names a node that isn't there, or came out of order.
            Some(node) => Err(format!("missing values can't go left at node {node}: inner nodes are named, in ascending order")),
            None => Ok(first),
        }
    }

    /// Tells for each row of a block what the leaf holds that it reaches, in the rows' order.
    pub(super) fn each_leaf(&self, root: u32, block: &Block, mut take: impl FnMut(usize, f64)) {
        for first in (0..block.rows()).step_by(ABREAST) {
            // (The last ones may be rows that don't exist, whose cells mean nothing.)
            let cells = &block.cells()[first..];
            let leaves = if block.missing() { self.leaves::<true>(root, cells) } else { self.leaves::<false>(root, cells) };
            leaves[..ABREAST.min(block.rows() - first)].iter().enumerate().for_each(|(lane, value)| take(first + lane, *value));
        }
    }

    /// What the leaves hold that the first rows of these columns reach. Where nothing is missing, asking for it would take a third
    /// more time.
    fn leaves<const MISSING: bool>(&self, root: u32, cells: &[f64]) -> [f64; ABREAST] {
        let mut at = [root; ABREAST];
        loop {
            let mut moving = false;
            for (lane, at) in at.iter_mut().enumerate() {
                let node = &self.nodes[*at as usize];
                let value = cells[(node.feature & !MISSING_LEFT) as usize * block::ROWS + lane];
                // No short cuts: which way a row goes is not to be guessed.
                let left = (value < node.value) | (MISSING & value.is_nan() & (node.feature & MISSING_LEFT != 0));
                let inner = node.next != *at;
                *at = node.next + u32::from(inner & !left);
                moving |= inner;
            }
            if !moving {
                return at.map(|leaf| self.nodes[leaf as usize].value);
            }
        }
    }

    /// The nodes as kernels read them.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let whole = |node: &Node| u128::from(node.value.to_bits()) | u128::from(node.feature) << 64 | u128::from(node.next) << 96;
        self.nodes.iter().flat_map(|node| whole(node).to_le_bytes()).collect()
    }
}
