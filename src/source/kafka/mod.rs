//! Kafka as a source: readers that follow a topic (`reader`) and scans that end (`scan`).
//!
//! Partitions are assigned, never balanced in a group: where to read is decided by checkpoints alone. Offsets are committed to a
//! group for people's Kafka tools only.

mod client;
mod identity;
mod loss;
mod pending;
mod reader;
mod scan;
#[cfg(test)]
mod tests;

pub use client::{Partitions, Since, Told, group_of, partitions_of, reachable, resolve_start};
pub use loss::{Loss, describe};
pub use reader::KafkaReader;
pub use scan::{Pace, ScanRange, ranges_of, records_since, resolve_ranges, scan};
