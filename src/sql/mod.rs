//! The dialect: statements that DataFusion lacks, and window functions in FROM. Text in, plain structs and rewritten text out.
//! Knows neither Kafka nor Flight nor devices.

mod statement;

pub use statement::*;
