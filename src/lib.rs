//! Tidegate: Kafka topics are tables, continuous views are kept up to date, everything is read over Arrow Flight SQL.
//!
//! The road a record takes, and the modules in that order:
//!
//! ```text
//! Kafka partition ──► source ──► decode ──► stream (epoch plan + state) ──► view snapshots ──► session ──► serve
//!                     slices     Arrow          watermark, windows,          one epoch,         SQL in,      Flight SQL
//!                     offsets    columns        aggregates, checkpoints      all views          rows out
//! ```
//!
//! * [`access`]: who calls, and what they may do: users, grants, passwords, tokens.
//! * [`sql`]: the dialect. Text in, plain structs and rewritten ASTs out; knows neither Kafka nor Flight.
//! * [`catalog`]: what has been declared (sources, views), durably. Knows nothing of how a view runs.
//! * [`source`]: connectors. Kafka, the embedded broker, simulated and replayed matches: payload bytes with their offsets.
//! * [`decode`]: payload bytes to Arrow columns; one bad record costs one error row.
//! * [`stream`]: the epoch engine: clock, watermarks, stateful operators, checkpoints, published snapshots.
//! * [`tables`]: tables that the server keeps: Parquet files, a manifest, changes as a whole or not at all.
//! * [`sink`]: where sinks write: records of a topic, files of a folder.
//! * [`session`]: one client's session: a statement in, a result out.
//! * [`serve`]: Flight SQL over a session.
//! * [`tls`]: certificates, and connections over TLS.
//! * [`console`]: metrics and health over HTTP.
//! * [`cli`]: the command line.
//! * [`durable`]: files that outlive a power cut.
//!
//! Dependencies point one way, down this list's arrows; `tests/layering.rs` holds them to it.

pub mod access;
pub mod catalog;
pub mod cli;
pub mod config;
pub mod console;
pub mod decode;
pub mod device;
pub mod durable;
pub mod error;
pub mod serve;
pub mod session;
pub mod sink;
pub mod source;
pub mod sql;
pub mod stream;
pub mod tables;
pub mod tls;
pub mod units;

pub use error::{Error, Result};
