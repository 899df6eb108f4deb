//! Rows into scores: models whose every answer is computed in one order, on the CPU and on a device.
//!
//! * A [`Model`] is checked when it is made, and scores on the CPU, in blocks of rows: [`Forest`], [`Boosted`] and [`Linear`].
//! * A [`Link`] turns what boosted trees and linear models add up into probabilities, with an exponential of our own ([`exp()`]).
//! * A [`DeviceModel`] is a model on a device, which gives the same bits.
//!
//! A row's scores depend on that row and the model alone, however rows are cut into batches. A score that is no number is always
//! [`f64::NAN`], to the bit.

mod block;
mod boosted;
mod device;
mod exp;
mod forest;
mod linear;
mod link;
mod trees;

pub use self::{
    boosted::{Boosted, BoostedTree},
    device::{DeviceModel, Scored, Scoring},
    exp::exp,
    forest::{Forest, Tree},
    linear::{Linear, LinearForm},
    link::Link,
    trees::Compare,
};

/// A model that can be scored on the CPU and put on a device.
pub trait Model: device::OnDevice {
    /// How many features a row has.
    fn width(&self) -> usize;

    /// How many scores a row gets.
    fn outputs(&self) -> usize;

    /// The scores, row after row; what a device's are compared with. There is one column per feature, NaN where missing.
    ///
    /// # Panics
    ///
    /// If the columns are not as many as features, or not of one length.
    fn score(&self, columns: &[&[f64]]) -> Vec<f64>;
}

/// Why something is no model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelFault {
    /// The model as a whole.
    #[error("the model {0}")]
    Whole(String),
    /// One of its trees.
    #[error("tree {tree} of the model: {fault}")]
    Tree {
        /// The tree, from 0, in the order in which they were given.
        tree: usize,
        /// What is wrong with it.
        fault: String,
    },
}

/// Kernels count features in 31 bits, and scores of a row in fewer.
fn check_size(width: usize, outputs: usize) -> Result<(), ModelFault> {
    let fits = (1..trees::MISSING_LEFT as usize).contains(&width) && (1..=usize::from(u16::MAX)).contains(&outputs);
    if fits { Ok(()) } else { Err(ModelFault::Whole(format!("is for {width} features and {outputs} outputs"))) }
}

/// All of these are finite, or the first that isn't is named.
fn check_finite(what: &str, numbers: &[f64]) -> Result<(), String> {
    let odd = numbers.iter().position(|number| !number.is_finite());
    odd.map_or(Ok(()), |at| Err(format!("{what} {at} is {}, not a finite number", numbers[at])))
}

/// NaN in its one form: which bits an operation gives it is each device's own affair.
fn one_nan(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value }
}
