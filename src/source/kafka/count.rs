//! A consumer that does nothing but count: what librdkafka itself can do, for benchmarks.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer, error::KafkaError};

use super::{
    client::{TOGETHER, consumer, messages},
    scan::{SILENCE, ScanRange},
};
use crate::{
    catalog::KafkaDef,
    error::{Error, Result},
};

/// Reads these ranges of a topic with the settings of a source, and keeps nothing: how many records there are, and how many bytes their payloads have.
/// Blocks: run it on a thread that may wait.
pub fn count(kafka: &KafkaDef, ranges: &BTreeMap<i32, ScanRange>) -> Result<(u64, u64)> {
    let client = consumer(kafka, "tidegate-count")?;
    let failed = |e: KafkaError| Error::External(format!("reading topic {} from {} failed: {e}", kafka.topic, kafka.place()));
    let mut assignment = TopicPartitionList::new();
    for (partition, range) in ranges {
        assignment.add_partition_offset(&kafka.topic, *partition, Offset::Offset(range.begin)).map_err(failed)?;
    }
    client.assign(&assignment).map_err(failed)?;
    let mut open: BTreeMap<i32, i64> = ranges.iter().map(|(partition, range)| (*partition, range.end)).collect();
    let (mut records, mut bytes, mut heard) = (0, 0, Instant::now());
    while !open.is_empty() {
        for message in messages(&client, Duration::from_millis(100), TOGETHER) {
            heard = Instant::now();
            match message {
                Ok(message) => {
                    records += 1;
                    bytes += message.payload().map_or(0, <[u8]>::len) as u64;
                    if open.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                        open.remove(&message.partition());
                    }
                }
                Err(KafkaError::PartitionEOF(partition)) => _ = open.remove(&partition),
                Err(error) => return Err(failed(error)),
            }
        }
        if heard.elapsed() > SILENCE {
            return Err(Error::External(format!(
                "Kafka at {} has not answered for {} seconds while topic {} was counted",
                kafka.place(),
                SILENCE.as_secs(),
                kafka.topic
            )));
        }
    }
    Ok((records, bytes))
}
