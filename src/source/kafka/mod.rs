//! Kafka as a source: readers that follow a topic (`reader`) and scans that end (`scan`).
//!
//! Partitions are assigned, never balanced in a group: where to read is decided by checkpoints alone. Offsets are committed to a
//! group for people's Kafka tools only.

mod client;
mod reader;
mod scan;

pub use client::{Partitions, group_of, partitions_of, reachable, resolve_start};
pub use reader::KafkaReader;
pub use scan::{ScanRange, resolve_ranges, scan};
