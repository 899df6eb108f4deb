//! A decision forest: a row's scores are the mean over the trees of the class shares in the leaf that the row reaches.
//!
//! Shares are added up in the order of the trees and divided once.

use super::{
    Compare, Model, ModelFault, block, check_finite, check_size,
    device::{OnDevice, Resources},
    trees::{Arrays, Trees},
};
use crate::{
    device::{Arg, DeviceError, Gpu, Kernel},
    plain::bytes,
};

/// One tree, node by node, the root's first; the same arrays that models are kept in.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a> {
    /// The number of the feature that an inner node looks at; -1 in a leaf.
    pub feature: &'a [i32],
    /// A row whose value is less than this goes to the left child.
    pub threshold: &'a [f64],
    /// The left child, which comes after its parent; the right child is the next node.
    pub left: &'a [u32],
    /// The inner nodes where a missing value goes left, ascending.
    pub missing_left: &'a [u32],
    /// The leaves' class shares, leaf after leaf.
    pub shares: &'a [f64],
}

/// A forest whose every path ends in a leaf.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    width: usize,
    classes: usize,
    /// A leaf holds the place of its shares.
    trees: Trees,
    /// Each tree's first node.
    roots: Vec<u32>,
    /// Class shares of all leaves.
    shares: Vec<f64>,
}

impl Forest {
    /// Checks trees over `width` features and for `classes` classes.
    pub fn new<'a>(width: usize, classes: usize, trees: impl IntoIterator<Item = Tree<'a>>) -> Result<Self, ModelFault> {
        check_size(width, classes)?;
        let mut forest = Self { width, classes, trees: Trees::new(width), roots: vec![], shares: vec![] };
        for (number, tree) in trees.into_iter().enumerate() {
            forest.append(&tree).map_err(|fault| ModelFault::Tree { tree: number, fault })?;
        }
        if forest.roots.is_empty() {
            return Err(ModelFault::Whole("has no tree".into()));
        }
        Ok(forest)
    }

    fn append(&mut self, tree: &Tree<'_>) -> Result<(), String> {
        let leaves = tree.feature.iter().filter(|&&feature| feature == -1).count();
        if tree.shares.len() != leaves * self.classes {
            return Err(format!("its arrays don't fit together: {leaves} leaves of {} classes have {} shares", self.classes, tree.shares.len()));
        }
        if self.shares.len() + tree.shares.len() > u32::MAX as usize {
            return Err("with it there are more shares than 32 bits number".into());
        }
        check_finite("share", tree.shares)?;
        let Tree { feature, threshold, left, missing_left, .. } = *tree;
        let places = (self.shares.len()..).step_by(self.classes).take(leaves).map(|place| place as f64);
        let root = self.trees.append(&Arrays { feature, threshold, left, missing_left }, Compare::Less, places)?;
        self.roots.push(root);
        self.shares.extend_from_slice(tree.shares);
        Ok(())
    }
}

impl Model for Forest {
    fn width(&self) -> usize {
        self.width
    }

    fn outputs(&self) -> usize {
        self.classes
    }

    fn score(&self, columns: &[&[f64]]) -> Vec<f64> {
        block::score_in_blocks(columns, self.width, self.classes, |block, sums| {
            for &root in &self.roots {
                self.trees.each_leaf(root, block, |row, place| {
                    let shares = &self.shares[place as usize..][..self.classes];
                    sums[row * self.classes..][..self.classes].iter_mut().zip(shares).for_each(|(sum, share)| *sum += share);
                });
            }
            sums.iter_mut().for_each(|sum| *sum /= self.roots.len() as f64);
        })
    }
}

impl OnDevice for Forest {
    fn upload(&self, gpu: &Gpu) -> Result<Resources, DeviceError> {
        let args = vec![
            Arg::Resident(gpu.upload(self.trees.bytes())?),
            Arg::Resident(gpu.upload(bytes(&self.roots).to_vec())?),
            Arg::U32(self.roots.len() as u32),
            Arg::Resident(gpu.upload(bytes(&self.shares).to_vec())?),
            Arg::U32(self.classes as u32),
        ];
        Ok(Resources { kernel: Kernel::ForestScore, args, stages: true })
    }
}
