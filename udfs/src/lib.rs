//! Time, window and JSON functions over Arrow arrays, for any DataFusion program.
//!
//! * [`window`]: which windows a timestamp lies in.
//! * [`json`]: values out of JSON text.
//! * [`proctime`]: when a row is processed.
//! * `min` and `max`, for which NaN is the greatest float in whatever order rows come.
//!
//! Knows nothing of the server, of Kafka or of how a plan is run: functions of columns, no more.

mod extremes;
pub mod json;
pub mod proctime;
pub mod window;

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};

/// Every scalar function of this crate.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    window::functions().into_iter().chain(json::functions()).chain([proctime::function()]).collect()
}

/// Every aggregate function of this crate. They take the place of DataFusion's of the same names.
pub fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    extremes::functions()
}

/// Every function of this crate that takes an OVER clause.
pub fn window_functions() -> Vec<Arc<WindowUDF>> {
    window::window_functions()
}
