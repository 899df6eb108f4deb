//! What the engine asks of whatever follows a topic.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::Slice;

/// Follows a topic and gathers its records until they are taken.
pub trait Feed: Send + Sync + std::fmt::Debug {
    /// Takes what has been gathered, at most so many payload bytes and records, no partition starving; at least one record if
    /// there is any. In order of partition and offset.
    fn take(&self, max_bytes: usize, max_records: usize) -> Vec<Slice>;
    /// Whether there is anything to take.
    fn has_input(&self) -> bool;
    /// Leaves just these partitions out of the two above until told otherwise; what they have stays.
    fn hold_back(&self, partitions: BTreeSet<i32>);
    /// What the feed and its partitions are doing.
    fn status(&self) -> FeedStatus;
    /// Shows offsets to Kafka's own tools; nothing here ever reads them.
    fn commit(&self, offsets: BTreeMap<i32, i64>);
}

/// Where a feed starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Offsets by partition; a partition that is not named starts at its oldest record.
    pub offsets: BTreeMap<i32, i64>,
    /// Those of them that nobody has read up to yet: they come from the source's declaration, not from a checkpoint.
    pub fresh: BTreeSet<i32>,
    /// The id of the topic that the others were read from, where it is known.
    pub topic: Option<String>,
}

/// What a feed is doing, as `SHOW SOURCES` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FeedState {
    /// It has not reached the broker yet, or has lost it; it goes on trying. Why.
    Connecting(String),
    /// It reads.
    Running,
    /// It can't go on: why, and what to do.
    Failed(String),
}

/// What is known of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Offset of the next record to take.
    pub position: i64,
    /// One past the newest record, as last heard; `None` before the first answer.
    pub end: Option<i64>,
    /// Since when everything that the partition holds has been gathered and taken; `None` while there is something to read.
    pub at_end_since: Option<Instant>,
    /// How many offsets were deleted before they were read, since the feed was started; where that is known.
    pub lost: u64,
}

/// What a feed and its partitions are doing.
#[derive(Debug, Clone)]
pub struct FeedStatus {
    /// The feed.
    pub state: FeedState,
    /// Its partitions; empty until the broker has named them.
    pub partitions: BTreeMap<i32, PartitionStatus>,
    /// What was lost last, as a sentence, where reading went on.
    pub last_loss: Option<String>,
    /// What disturbs nothing but should be known, as a sentence.
    pub note: Option<String>,
    /// The topic's id, where the broker tells one: it changes when the topic is made anew.
    pub topic: Option<String>,
}
