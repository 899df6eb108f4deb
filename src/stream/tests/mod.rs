//! The engine against DataFusion's batch answer, over random data.

mod batch;
mod case;
mod check;
mod clock;
mod follow;
mod model;
pub mod mutants;
mod oracle;
mod shrink;
mod upsert;
mod views;
