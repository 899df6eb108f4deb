//! Window and JSON functions over Arrow arrays, for any DataFusion program.
//!
//! * [`window`]: which tumbling window a timestamp falls in.
//! * [`json`]: values out of JSON text.
//!
//! Knows nothing of the server, of Kafka or of how a plan is run: functions of columns, no more.

pub mod json;
pub mod window;

use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

/// Every function of this crate.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    window::functions().into_iter().chain(json::functions()).collect()
}
