//! What has been declared: sources, tables, views, sinks, connections and secrets, durably. Knows nothing of how a view runs.

mod definition;
mod format;
mod link;
mod protobuf;
mod seal;
mod secrets;
mod sink;
mod store;
mod table;

pub use definition::*;
pub use format::*;
pub use link::{ClientSettings, Hidden, Keeper, Link, OptionValue};
pub use protobuf::{Framing, ProtobufDef, compile_proto, message_of, only_message, read_descriptor_set};
pub use seal::{KeySource, Seal};
pub use secrets::is_secret;
pub use sink::*;
pub use store::{Catalog, Definition, Object, ObjectKind, ParseDefinition, Replacement, Sealing};
pub use table::{TableColumn, TableDef, kept_type};
