//! What has been declared: sources and views, durably. Knows nothing of how a view runs.

mod definition;

pub use definition::*;
