//! Connectors: where records come from. Yields payload bytes with partition, offset, timestamp, key and headers.
//! Knows nothing of SQL or of what the bytes mean.

pub mod avro;
pub mod broker;
mod encode;
mod feed;
pub mod framing;
pub mod kafka;
pub mod matches;
pub mod producer;
mod record_producer;
mod records;
pub mod registry;

pub use avro::AvroSchema;
pub use encode::{Outgoing, RecordEncoder, not_written, ready_to_write};
pub use feed::{Feed, FeedState, FeedStatus, PartitionStatus, Start};
pub use record_producer::RecordProducer;
pub use records::{Header, Picked, Record, Records, RecordsBuilder, Slice};
