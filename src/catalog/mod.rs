//! What has been declared: sources and views, durably. Knows nothing of how a view runs.

mod definition;
mod secrets;
mod store;

pub use definition::*;
pub use secrets::is_secret;
pub use store::{Catalog, Definition, Object, ObjectKind, ParseDefinition, Replacement};
