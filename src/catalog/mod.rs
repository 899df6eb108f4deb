//! What has been declared: sources, tables and views, durably. Knows nothing of how a view runs.

mod definition;
mod secrets;
mod sink;
mod store;
mod table;

pub use definition::*;
pub use secrets::is_secret;
pub use sink::*;
pub use store::{Catalog, Definition, Object, ObjectKind, ParseDefinition, Replacement};
pub use table::{TableColumn, TableDef, kept_type};
