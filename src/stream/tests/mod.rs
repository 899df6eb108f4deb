//! The engine against DataFusion's batch answer, over random data.

mod clock;
pub mod mutants;
mod oracle;
