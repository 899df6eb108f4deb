//! Time, window and JSON functions over Arrow arrays, for any DataFusion program.
//!
//! * [`window`]: which windows a timestamp lies in.
//! * [`json`]: values out of JSON text.
//! * [`proctime`]: when a row is processed.
//! * [`versions`]: which version of a row is valid at a time.
//! * `min` and `max`, for which NaN is the greatest float in whatever order rows come.
//!
//! Knows nothing of the server, of Kafka or of how a plan is run: functions of columns, no more.

mod extremes;
pub mod json;
pub mod proctime;
pub mod versions;
pub mod window;

use std::sync::Arc;

use datafusion::{
    common::Result,
    execution::FunctionRegistry,
    logical_expr::{AggregateUDF, ScalarUDF, WindowUDF},
};

/// Makes every function of this crate known: to a context, or to a session's state.
///
/// # Errors
///
/// Those of the registry; a context and a state have none.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    for function in functions() {
        registry.register_udf(function)?;
    }
    for function in aggregate_functions() {
        registry.register_udaf(function)?;
    }
    for function in window_functions() {
        registry.register_udwf(function)?;
    }
    Ok(())
}

/// Every scalar function of this crate.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    window::functions().into_iter().chain(json::functions()).chain([proctime::function(), versions::function()]).collect()
}

/// Every aggregate function of this crate. They take the place of DataFusion's of the same names.
pub fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    extremes::functions()
}

/// Every function of this crate that takes an OVER clause.
pub fn window_functions() -> Vec<Arc<WindowUDF>> {
    window::window_functions()
}
