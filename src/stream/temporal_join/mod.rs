//! The temporal join: each row of a stream meets the version of a table's row that was valid at the time the row says, as in
//! `FROM orders AS o JOIN rates FOR SYSTEM_TIME AS OF o.at AS r ON o.currency = r.currency`. The table is a source with a primary key; a
//! record's version is valid from its event time on, until the next one of its key.
//!
//! A row is answered at once, with the version that is known, and again where one comes later that was valid at its time, until the table's
//! watermark has passed that time. So the answer is that of a batch at every epoch.
//!
//! * `node`: the logical node, what stands for the table below it, and its planning.
//! * `exec`: the physical operator; `codec`: as bytes.
//! * `state`: the rows that may be answered again, and the versions.

mod codec;
mod exec;
mod node;
mod state;

pub use exec::TemporalJoinExec;
pub use node::{Parts, TemporalJoin, TemporalJoinPlanner, VersionsTable, version_columns};
