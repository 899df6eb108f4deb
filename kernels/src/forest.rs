//! Scoring with a decision forest in its flat form: the reference on the CPU, and the same on a device.
//!
//! A forest's answer for a row is the mean over its trees of the class shares in the leaf that the row reaches. At an inner node a row
//! goes left if its value is less than the threshold, right if not; a missing value (NaN) goes the way that the node says. Shares are
//! added up in the order of the trees and divided once, so both devices give the same bits.

use crate::{
    device::{Arg, DeviceError, Finished, Gpu, Kernel, Plan, Region, Resident, Slot, Ticket, Timing, row_count},
    plain::{bytes, numbers, numbers_mut},
};

/// Rows that one block scores.
const BLOCK: u32 = 128;
/// Shared memory that a block may use for its rows, so that several blocks fit a multiprocessor.
const MOST_STAGED: usize = 32 << 10;

/// Rows that the reference takes at once.
const SCORED_TOGETHER: usize = 64;

const LEAF: u32 = u32::MAX;
const MISSING_LEFT: u32 = 1 << 31;

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

/// Why some arrays are no forest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tree {tree} of the forest: {fault}")]
pub struct ForestFault {
    /// The tree, from 0.
    pub tree: usize,
    /// What is wrong with it.
    pub fault: String,
}

/// A forest whose every path ends in a leaf.
#[derive(Debug, Clone, PartialEq)]
pub struct Forest {
    width: usize,
    classes: usize,
    /// All nodes, tree after tree.
    nodes: Vec<Node>,
    /// Each tree's first node.
    roots: Vec<u32>,
    /// Class shares of all leaves.
    shares: Vec<f64>,
}

/// One node, as the kernel reads it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
struct Node {
    threshold: f64,
    /// The top bit says that missing values go left; all ones are a leaf.
    feature: u32,
    /// The left child; in a leaf the place of its shares.
    next: u32,
}

impl Forest {
    /// Checks trees over `width` features and for `classes` classes.
    pub fn new<'a>(width: usize, classes: usize, trees: impl IntoIterator<Item = Tree<'a>>) -> Result<Self, ForestFault> {
        let mut forest = Self { width, classes, nodes: vec![], roots: vec![], shares: vec![] };
        if width == 0 || width >= (MISSING_LEFT - 1) as usize || classes == 0 || classes > u16::MAX.into() {
            return Err(ForestFault { tree: 0, fault: format!("there are {width} features and {classes} classes") });
        }
        for (number, tree) in trees.into_iter().enumerate() {
            forest.append(&tree).map_err(|fault| ForestFault { tree: number, fault })?;
        }
        if forest.roots.is_empty() {
            return Err(ForestFault { tree: 0, fault: "there is no tree".into() });
        }
        Ok(forest)
    }

    fn append(&mut self, tree: &Tree<'_>) -> Result<(), String> {
        let count = tree.feature.len();
        let leaves = tree.feature.iter().filter(|&&feature| feature == -1).count();
        if count == 0 || tree.threshold.len() != count || tree.left.len() != count || tree.shares.len() != leaves * self.classes {
            return Err(format!("its arrays don't fit together: {count} nodes, {leaves} leaves, {} shares", tree.shares.len()));
        }
        if self.nodes.len() + count >= LEAF as usize || self.shares.len() + tree.shares.len() >= LEAF as usize {
            return Err("with it there are more nodes or shares than 32 bits number".into());
        }
        let first = self.nodes.len() as u32;
        let mut next_shares = self.shares.len();
        for node in 0..count {
            let (feature, left) = (tree.feature[node], tree.left[node]);
            if feature == -1 {
                self.nodes.push(Node { threshold: 0.0, feature: LEAF, next: next_shares as u32 });
                next_shares += self.classes;
                continue;
            }
            let known = usize::try_from(feature).ok().filter(|&feature| feature < self.width);
            let known = known.ok_or_else(|| format!("node {node} looks at feature {feature}"))? as u32;
            // Children after their parent: there is no way back, so every way ends.
            if left as usize <= node || left as usize + 1 >= count {
                return Err(format!("node {node} of {count} has its children at {left}"));
            }
            let missing = if tree.missing_left.binary_search(&(node as u32)).is_ok() { MISSING_LEFT } else { 0 };
            self.nodes.push(Node { threshold: tree.threshold[node], feature: known | missing, next: first + left });
        }
        self.roots.push(first);
        self.shares.extend_from_slice(tree.shares);
        Ok(())
    }

    /// How many features a row has.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The reference: for each row a probability per class, row after row. There is one column per feature, NaN where missing.
    ///
    /// # Panics
    ///
    /// If the columns are not as many as features, or not of one length.
    pub fn score(&self, columns: &[&[f64]]) -> Vec<f64> {
        let rows = self.rows(columns);
        let mut probabilities = vec![0.0; rows * self.classes];
        // Rows in blocks, tree after tree: a block's values and a tree's upper nodes both stay in the nearest cache.
        let mut block = vec![0.0; SCORED_TOGETHER * self.width];
        for (number, sums) in probabilities.chunks_mut(SCORED_TOGETHER * self.classes).enumerate() {
            let (first, count) = (number * SCORED_TOGETHER, sums.len() / self.classes);
            for (feature, column) in columns.iter().enumerate() {
                let cells = block[feature..].iter_mut().step_by(self.width);
                cells.zip(&column[first..first + count]).for_each(|(cell, value)| *cell = *value);
            }
            for &root in &self.roots {
                for (row, sums) in block.chunks_exact(self.width).zip(sums.chunks_exact_mut(self.classes)) {
                    let shares = self.leaf(root, row);
                    sums.iter_mut().zip(&self.shares[shares..]).for_each(|(sum, share)| *sum += share);
                }
            }
            sums.iter_mut().for_each(|sum| *sum /= self.roots.len() as f64);
        }
        probabilities
    }

    /// Where the shares of the leaf lie that a row reaches.
    fn leaf(&self, root: u32, row: &[f64]) -> usize {
        let mut node = &self.nodes[root as usize];
        while node.feature != LEAF {
            let value = row[(node.feature & !MISSING_LEFT) as usize];
            let left = value < node.threshold || (value.is_nan() && node.feature & MISSING_LEFT != 0);
            node = &self.nodes[node.next as usize + usize::from(!left)];
        }
        node.next as usize
    }

    fn rows(&self, columns: &[&[f64]]) -> usize {
        assert_eq!(columns.len(), self.width, "a column per feature");
        let rows = columns.first().map_or(0, |column| column.len());
        assert!(columns.iter().all(|column| column.len() == rows), "columns of one length");
        rows
    }

    fn node_bytes(&self) -> Vec<u8> {
        self.nodes
            .iter()
            .flat_map(|node| (u128::from(node.threshold.to_bits()) | u128::from(node.feature) << 64 | u128::from(node.next) << 96).to_le_bytes())
            .collect()
    }
}

/// Cells from one column's beginning to the next one's: a column begins at a multiple of 16 bytes.
fn stride(rows: usize) -> usize {
    rows.next_multiple_of(2)
}

/// A forest on a device.
#[derive(Debug, Clone)]
pub struct DeviceForest {
    width: usize,
    classes: usize,
    trees: u32,
    nodes: Resident,
    roots: Resident,
    shares: Resident,
    /// Given up last: closing a device waits for its thread if nothing is left on it.
    gpu: Gpu,
}

/// Rows being scored.
#[derive(Debug)]
pub struct Scoring {
    ticket: Ticket,
    probabilities: Region,
}

/// Rows that were scored.
#[derive(Debug)]
pub struct Scored {
    finished: Finished,
    probabilities: Region,
}

impl DeviceForest {
    /// Puts a forest on a device.
    pub fn new(gpu: &Gpu, forest: &Forest) -> Result<Self, DeviceError> {
        Ok(Self {
            gpu: gpu.clone(),
            width: forest.width,
            classes: forest.classes,
            trees: forest.roots.len() as u32,
            nodes: gpu.upload(forest.node_bytes())?,
            roots: gpu.upload(bytes(&forest.roots).to_vec())?,
            shares: gpu.upload(bytes(&forest.shares).to_vec())?,
        })
    }

    /// Begins to score rows, given as [`Forest::score`] takes them.
    pub fn begin(&self, columns: &[&[f64]]) -> Result<Scoring, DeviceError> {
        let rows = columns.first().map_or(0, |column| column.len());
        if columns.len() != self.width || columns.iter().any(|column| column.len() != rows) {
            return Err(DeviceError::Batch(format!("the forest takes {} columns of one length", self.width)));
        }
        let (mut slot, x, probabilities) = self.prepare(rows)?;
        let column_bytes = stride(rows) * 8;
        let parts: Vec<_> = columns.iter().enumerate().map(|(feature, column)| (x, feature * column_bytes, bytes(column))).collect();
        slot.fill(&parts)?;
        Ok(Scoring { ticket: slot.submit()?, probabilities })
    }

    /// Begins to score rows that `fill` writes where the device takes them from, which spares a copy: it is called for each feature with
    /// the cells of that feature's column, which hold rubbish.
    pub fn begin_in_place(&self, rows: usize, mut fill: impl FnMut(usize, &mut [f64])) -> Result<Scoring, DeviceError> {
        let (mut slot, x, probabilities) = self.prepare(rows)?;
        if rows > 0 {
            let cells: &mut [f64] = numbers_mut(slot.write(x));
            cells.chunks_exact_mut(stride(rows)).enumerate().for_each(|(feature, cells)| fill(feature, &mut cells[..rows]));
        }
        Ok(Scoring { ticket: slot.submit()?, probabilities })
    }

    /// A slot for so many rows, with where the features and the scores are.
    fn prepare(&self, rows: usize) -> Result<(Slot, Region, Region), DeviceError> {
        let (count, stride) = (row_count(rows)?, stride(rows));
        let mut plan = Plan::default();
        let x = plan.input(stride * self.width * 8);
        let probabilities = plan.output(rows * self.classes * 8);
        let staged = self.width * BLOCK as usize * 8;
        let (staged, shared) = if staged <= MOST_STAGED { (1, staged as u32) } else { (0, 0) };
        let args = vec![
            Arg::Region(x),
            Arg::U32(count),
            Arg::U32(stride as u32),
            Arg::U32(self.width as u32),
            Arg::Resident(self.nodes.clone()),
            Arg::Resident(self.roots.clone()),
            Arg::U32(self.trees),
            Arg::Resident(self.shares.clone()),
            Arg::U32(self.classes as u32),
            Arg::U32(staged),
            Arg::Region(probabilities),
        ];
        if count > 0 {
            // SAFETY: as the kernel's contract says; the forest was checked when it was made.
            unsafe { plan.launch(Kernel::ForestScore, count.div_ceil(BLOCK), BLOCK, shared, args) };
        }
        Ok((self.gpu.slot(plan)?, x, probabilities))
    }

    /// Scores rows: what [`Forest::score`] gives, to the bit.
    pub fn score(&self, columns: &[&[f64]]) -> Result<Vec<f64>, DeviceError> {
        Ok(self.begin(columns)?.wait()?.probabilities().to_vec())
    }
}

impl Scoring {
    /// Waits for the scores.
    pub fn wait(self) -> Result<Scored, DeviceError> {
        Ok(Scored { finished: self.ticket.wait()?, probabilities: self.probabilities })
    }
}

impl Scored {
    /// For each row a probability per class, row after row.
    pub fn probabilities(&self) -> &[f64] {
        numbers(self.finished.output(self.probabilities))
    }

    /// How long it took on the device.
    pub fn timing(&self) -> Timing {
        self.finished.timing()
    }
}
