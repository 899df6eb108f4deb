//! Gradient-boosted trees: a row's margin is a base score plus the values of the leaves that the row reaches, added up in the order of the
//! trees. A tree belongs to one margin; a link makes scores of the margins.
//!
//! Values, thresholds and sums are `f64`. A library that rounds them to `f32` gives scores that differ in their last digits, and may send a
//! value that lies between two `f32` to the other side of a threshold.

use super::{
    Compare, Link, Model, ModelFault,
    block::{self, ROWS},
    check_finite, check_size,
    device::{OnDevice, Resources},
    trees::{Arrays, Trees},
};
use crate::{
    device::{Arg, DeviceError, Gpu, Kernel},
    plain::bytes,
};

/// One tree, node by node, the root's first.
#[derive(Debug, Clone, Copy)]
pub struct BoostedTree<'a> {
    /// The number of the feature that an inner node looks at; -1 in a leaf.
    pub feature: &'a [i32],
    /// What a row's value is compared with; anything in a leaf.
    pub threshold: &'a [f64],
    /// The left child, which comes after its parent; the right child is the next node. Anything in a leaf.
    pub left: &'a [u32],
    /// The inner nodes where a missing value goes left, ascending.
    pub missing_left: &'a [u32],
    /// The inner nodes that ask whether a value is one of a set of categories. They can't be scored: a tree with one is refused.
    pub categorical: &'a [u32],
    /// The leaves' values, leaf after leaf in the order of the nodes.
    pub values: &'a [f64],
    /// The margin that the tree adds to.
    pub output: usize,
}

/// Boosted trees whose every path ends in a leaf.
#[derive(Debug, Clone, PartialEq)]
pub struct Boosted {
    width: usize,
    outputs: usize,
    trees: Trees,
    /// Each tree's first node; those of one margin together, in the order in which they were given.
    roots: Vec<u32>,
    /// Where in `roots` each margin's trees begin, and where the last one's end.
    firsts: Vec<u32>,
    /// What each margin is before its first tree.
    base: Vec<f64>,
    link: Link,
}

impl Boosted {
    /// Checks trees over `width` features. There is a margin for each of the `base` scores.
    pub fn new<'a>(width: usize, compare: Compare, base: &[f64], link: Link, trees: impl IntoIterator<Item = BoostedTree<'a>>) -> Result<Self, ModelFault> {
        check_size(width, base.len())?;
        check_finite("has a base score that can't be added to: number", base).map_err(ModelFault::Whole)?;
        let outputs = link.outputs(base.len())?;
        let mut nodes = Trees::new(width);
        let mut roots = Vec::new();
        for (number, tree) in trees.into_iter().enumerate() {
            let root = append(&mut nodes, &tree, compare, base.len()).map_err(|fault| ModelFault::Tree { tree: number, fault })?;
            roots.push((tree.output, root));
        }
        roots.sort_by_key(|(output, _)| *output);
        let firsts = (0..=base.len()).map(|output| roots.partition_point(|root| root.0 < output) as u32).collect();
        let roots = roots.into_iter().map(|(_, root)| root).collect();
        Ok(Self { width, outputs, trees: nodes, roots, firsts, base: base.to_vec(), link })
    }
}

fn append(trees: &mut Trees, tree: &BoostedTree<'_>, compare: Compare, margins: usize) -> Result<u32, String> {
    if let Some(node) = tree.categorical.first() {
        return Err(format!("node {node} splits by categories, which can't be scored; train it with numbers or with one column a category"));
    }
    if tree.output >= margins {
        return Err(format!("it adds to output {} of {margins}", tree.output));
    }
    check_finite("the value of leaf", tree.values)?;
    let BoostedTree { feature, threshold, left, missing_left, .. } = *tree;
    trees.append(&Arrays { feature, threshold, left, missing_left }, compare, tree.values.iter().copied())
}

impl Model for Boosted {
    fn width(&self) -> usize {
        self.width
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn score(&self, columns: &[&[f64]]) -> Vec<f64> {
        let mut margins = vec![0.0; self.base.len() * ROWS];
        block::score_in_blocks(columns, self.width, self.outputs, |block, scores| {
            for (margin, sums) in margins.chunks_exact_mut(ROWS).enumerate() {
                sums.fill(self.base[margin]);
                for &root in &self.roots[self.firsts[margin] as usize..self.firsts[margin + 1] as usize] {
                    self.trees.each_leaf(root, block, |row, value| sums[row] += value);
                }
            }
            self.link.apply(&mut margins, scores);
        })
    }
}

impl OnDevice for Boosted {
    fn upload(&self, gpu: &Gpu) -> Result<Resources, DeviceError> {
        let args = vec![
            Arg::Resident(gpu.upload(self.trees.bytes())?),
            Arg::Resident(gpu.upload(bytes(&self.roots).to_vec())?),
            Arg::Resident(gpu.upload(bytes(&self.firsts).to_vec())?),
            Arg::Resident(gpu.upload(bytes(&self.base).to_vec())?),
            Arg::U32(self.base.len() as u32),
            Arg::U32(self.link.number()),
        ];
        Ok(Resources { kernel: Kernel::BoostedScore, args, stages: true })
    }
}
