//! The CPU scorer, which is also the reference that a GPU's scores are compared with, to the bit.
//!
//! Rows are scored in blocks, tree after tree, so that a tree's upper nodes and a block's values both stay in the nearest cache. A row's
//! shares are added up in the order of the trees and divided once by their number, whatever the block: so its score depends on nothing
//! else than the row.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, FixedSizeListArray, Float64Array, RecordBatch},
    datatypes::{DataType, Field},
};

use super::{FlatForest, Node};
use crate::{
    classes::Classes,
    features::{FeatureError, Features},
};

/// Rows in a block: with 16 features 8 KiB of values, a quarter of the nearest cache.
const BLOCK: usize = 64;

/// What a forest says of some rows: for each a probability per class.
#[derive(Debug, Clone, PartialEq)]
pub struct Scores {
    classes: Classes,
    /// Row after row.
    probabilities: Vec<f64>,
}

impl FlatForest {
    /// Scores rows given as one column per feature, in the order of [`Self::features`]. NULL and NaN are missing.
    pub fn score(&self, columns: &[ArrayRef]) -> Result<Scores, FeatureError> {
        Ok(self.score_features(&Features::of_columns(&self.features, columns)?))
    }

    /// Scores the rows of a batch, whose columns are found by the features' names.
    pub fn score_batch(&self, batch: &RecordBatch) -> Result<Scores, FeatureError> {
        let absent = |feature: &String| {
            let columns: Vec<&str> = batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
            FeatureError::Absent { feature: feature.clone(), columns: columns.join(", ") }
        };
        let column = |feature: &String| batch.column_by_name(feature).cloned().ok_or_else(|| absent(feature));
        self.score(&self.features.iter().map(column).collect::<Result<Vec<_>, _>>()?)
    }

    fn score_features(&self, features: &Features) -> Scores {
        let (width, classes) = (features.width(), self.classes.len());
        let mut probabilities = vec![0.0; features.rows() * classes];
        let mut block = vec![0.0; BLOCK * width];
        for (number, sums) in probabilities.chunks_mut(BLOCK * classes).enumerate() {
            let block = &mut block[..sums.len() / classes * width];
            features.copy_rows(number * BLOCK, block);
            self.score_block(block, sums);
        }
        Scores { classes: self.classes.clone(), probabilities }
    }

    /// Adds up the shares of a block of rows and divides them by the number of trees.
    fn score_block(&self, block: &[f64], sums: &mut [f64]) {
        let (width, classes) = (self.features.len(), self.classes.len());
        for &root in &self.roots {
            for (row, sums) in block.chunks_exact(width).zip(sums.chunks_exact_mut(classes)) {
                let shares = self.leaf(root, row);
                sums.iter_mut().zip(&self.shares[shares..shares + classes]).for_each(|(sum, share)| *sum += share);
            }
        }
        let trees = self.roots.len() as f64;
        sums.iter_mut().for_each(|sum| *sum /= trees);
    }

    /// Where the shares of the leaf lie that a row reaches.
    fn leaf(&self, root: u32, row: &[f64]) -> usize {
        let mut node = &self.nodes[root as usize];
        while node.feature != Node::LEAF {
            let value = row[(node.feature & !Node::MISSING_LEFT) as usize];
            let goes_left = value < node.threshold || (value.is_nan() && node.feature & Node::MISSING_LEFT != 0);
            node = &self.nodes[node.next as usize + usize::from(!goes_left)];
        }
        node.next as usize
    }
}

impl Scores {
    /// How many rows were scored.
    pub fn rows(&self) -> usize {
        self.probabilities.len() / self.classes.len()
    }

    /// The classes, in the order of the probabilities.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }

    /// One row's probabilities, one a class.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.probabilities[row * self.classes.len()..][..self.classes.len()]
    }

    /// All rows' probabilities of one class.
    pub fn of_class(&self, class: usize) -> Float64Array {
        self.probabilities.chunks_exact(self.classes.len()).map(|row| row[class]).collect::<Vec<_>>().into()
    }

    /// All probabilities as one list a row, of the type [`Self::list_type`] gives.
    pub fn to_lists(&self) -> ArrayRef {
        let values = Arc::new(Float64Array::from(self.probabilities.clone()));
        Arc::new(FixedSizeListArray::new(Self::item(), self.classes.len() as i32, values, None))
    }

    /// The Arrow type of [`Self::to_lists`] for this many classes.
    pub fn list_type(classes: usize) -> DataType {
        DataType::FixedSizeList(Self::item(), classes as i32)
    }

    fn item() -> Arc<Field> {
        Arc::new(Field::new("item", DataType::Float64, false))
    }

    /// Each row's most probable class, by number; of several equally probable ones the first.
    pub fn best(&self) -> impl Iterator<Item = usize> + '_ {
        self.probabilities.chunks_exact(self.classes.len()).map(|row| {
            let better = |best: usize, class: usize| if row[class] > row[best] { class } else { best };
            (1..row.len()).fold(0, better)
        })
    }

    /// Each row's most probable class, as its label; of several equally probable ones the first.
    pub fn labels(&self) -> ArrayRef {
        self.classes.labels(self.best())
    }
}
