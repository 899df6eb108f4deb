//! Tables that the server keeps: immutable Parquet files in a folder, and a manifest that says which of them are the table.
//!
//! * `manifest`: which files are the table, with a checksum.
//! * `store`: one table's folder: snapshots for readers, changes that count as a whole or not at all.
//! * `data_file`: files and folders that go when nobody needs them any more.
//! * `writer`: rows to files, in bounded memory.
//! * `conform`: batches of whatever types to a table's columns, or a sentence that names column and value.
//! * `rewrite`: files without some of their rows, and small files made one.
//! * `scan`: a snapshot as a table of a query.
//! * `latest`: a table as it is whenever it is read.
//! * `disk`: the steps of a write, at each of which a test may let it fail.
//!
//! Knows nothing of sessions, statements or streams.
//!
//! Invariant: a change counts from when on its manifest has its name. Before that a crash leaves the table as it was; after that it has all of the
//! change. A file that a snapshot names stays until the last holder of the snapshot lets it go.

mod conform;
mod data_file;
mod disk;
mod latest;
mod manifest;
mod rewrite;
mod scan;
mod store;
#[cfg(test)]
mod tests;
mod writer;

pub use conform::{Conform, Origin};
pub use data_file::DataFile;
pub use disk::{Hook, Step};
pub use latest::LatestTable;
pub use manifest::read_manifest;
pub use rewrite::{Marks, compact, without};
pub use scan::{FILE, ROW, StoredTable};
pub use store::{Change, Snapshot, TableStore, Turn};
pub use writer::{Room, RowWriter};
