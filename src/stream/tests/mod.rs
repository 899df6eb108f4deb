//! The engine against DataFusion's batch answer, over random data.

pub mod mutants;
mod oracle;
