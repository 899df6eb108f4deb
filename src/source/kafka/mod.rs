//! Kafka as a source: readers that follow a topic (`reader`) and scans that end (`scan`).
//!
//! Partitions are assigned, never balanced in a group: where to read is decided by checkpoints alone. Offsets are committed to a
//! group for people's Kafka tools only.

mod client;
pub(crate) mod configure;
mod count;
mod deliveries;
mod identity;
mod look;
mod loss;
mod pending;
mod reader;
mod refusal;
mod scan;
#[cfg(test)]
mod tests;
mod throttle;
mod token;
mod told;

pub use client::{Partitions, Since, group_of, partitions_of, reachable, resolve_start};
pub use count::count;
pub use deliveries::Deliveries;
pub use look::{Sample, Sampled, TopicInfo, check_connection, sample, topics};
pub use loss::{Loss, describe};
pub use reader::KafkaReader;
pub use refusal::{Refusal, refusal};
pub use scan::{Pace, ScanRange, ranges_of, records_since, resolve_ranges, scan};
pub use told::Told;
