//! What has been declared: sources, tables and views, durably. Knows nothing of how a view runs.

mod definition;
mod format;
mod protobuf;
mod secrets;
mod store;
mod table;

pub use definition::*;
pub use format::*;
pub use protobuf::{Framing, ProtobufDef, compile_proto, message_of, only_message, read_descriptor_set};
pub use secrets::is_secret;
pub use store::{Catalog, Definition, Object, ObjectKind, ParseDefinition, Replacement};
pub use table::{TableColumn, TableDef, kept_type};
