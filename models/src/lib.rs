//! Trained models in one flat form, and their scorer over Arrow arrays. Knows nothing of the server, of SQL or of Kafka.
//!
//! In the order a model lives:
//!
//! * [`features`]: Arrow columns become numbers; what is NULL or NaN is *missing*.
//! * [`classes`]: the labels that a model tells apart, and their order.
//! * [`mod@train`]: a random forest from columns and a target, the same for the same seed.
//! * [`linfa`]: trees and forests that the `linfa` crates trained become ours.
//! * [`forest`]: the flat form, its durable JSON, and its scorer.
//!
//! Invariants: a [`forest::FlatForest`] that exists is valid, so that scoring can't fail on its account; a row's scores depend on that row
//! and the model alone, to the bit, however the rows are cut into batches.

pub mod classes;
pub mod features;
pub mod forest;
pub mod linfa;
pub mod train;

pub use self::{
    classes::Classes,
    forest::{FlatForest, Scores},
    train::{ForestParams, train},
};
