//! Where sinks write: rows of a query over a view become records of a topic or files of a folder. Knows nothing of sessions, and of views
//! only the pieces that an outbox gives.
//!
//! * [`changes`]: what became of each key.
//! * [`records`]: rows as records with keys and headers.
//! * [`topic`]: records written to a topic, at least once or in transactions.
//! * [`folder`]: rows written as files that a manifest lists.

pub mod changes;
pub mod folder;
pub mod records;
pub mod topic;
