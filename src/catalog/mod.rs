//! What has been declared: sources and views, durably. Knows nothing of how a view runs, and nothing of SQL: texts are read by a parser
//! that the caller passes in.

mod definition;
mod file;
mod object;
mod store;

pub use definition::*;
pub use object::*;
pub use store::*;
