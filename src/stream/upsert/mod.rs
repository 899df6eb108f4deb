//! The rows of a source with a primary key: a record takes the place of the one before it with the same key, or deletes it. What comes
//! out are changes.
//!
//! * `node`: the logical node, directly above the leaf, and its planning.
//! * `exec`: the physical operator; `codec`: as bytes.
//! * `state`: the newest row of each key.

mod codec;
mod exec;
mod node;
mod state;

pub use exec::UpsertExec;
pub use node::{Upsert, UpsertPlanner};
pub use state::{Shape, UpsertState};
