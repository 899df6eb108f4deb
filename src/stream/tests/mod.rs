//! The engine against DataFusion's batch answer, over random data.

mod batch;
mod case;
mod check;
mod clock;
pub mod codec;
mod follow;
mod grammar;
mod joins;
mod model;
pub mod mutants;
mod oracle;
mod relations;
mod replace;
mod shrink;
mod temporal_join;
mod ties;
mod upsert;
mod views;
mod windows;
