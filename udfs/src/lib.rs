//! Window and JSON functions over Arrow arrays, for any DataFusion program.
//!
//! * [`window`]: which tumbling window a timestamp falls in.
//! * [`json`]: values out of JSON text.
//!
//! Knows nothing of the server, of Kafka or of how a plan is run: functions of columns, no more.

pub mod json;
pub mod window;
