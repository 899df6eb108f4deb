//! A scan reads ranges of a topic once and ends: what a plain SELECT over a topic sees.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    client::{consumer, partition_numbers, watermarks},
    reader::headers_of,
};
use crate::{
    catalog::KafkaDef,
    error::{Error, Result},
    source::{RecordsBuilder, Slice},
};

/// A slice of a scan holds at most about this many bytes.
const SLICE_BYTES: usize = 4 << 20;
/// A broker that says nothing for this long ends the scan with an error.
const SILENCE: Duration = Duration::from_secs(20);

/// Offsets of one partition to read, half-open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanRange {
    /// First offset.
    pub begin: i64,
    /// One past the last offset.
    pub end: i64,
}

/// What a query that starts now sees of a topic: from `from` (or the oldest record, where that is gone or not named) up to `to`
/// (or the newest record there is now).
pub fn resolve_ranges(kafka: &KafkaDef, from: &BTreeMap<i32, i64>, to: Option<&BTreeMap<i32, i64>>) -> Result<BTreeMap<i32, ScanRange>> {
    let client = consumer(kafka, "tidegate-scan")?;
    let mut ranges = BTreeMap::new();
    for partition in partition_numbers(&client, kafka)? {
        let (low, high) = watermarks(&client, kafka, partition)?;
        let begin = from.get(&partition).copied().unwrap_or(low).max(low);
        let end = match to {
            // A partition that the epoch does not know yet had nothing in it then.
            Some(to) => to.get(&partition).copied().unwrap_or(begin).min(high),
            None => high,
        };
        if begin < end {
            ranges.insert(partition, ScanRange { begin, end });
        }
    }
    Ok(ranges)
}

/// Reads the ranges and gives their records slice by slice; stops early when `give` returns false. Blocks: run it on a thread
/// that may wait.
pub fn scan(kafka: &KafkaDef, ranges: &BTreeMap<i32, ScanRange>, mut give: impl FnMut(Slice) -> bool) -> Result<()> {
    if ranges.is_empty() {
        return Ok(());
    }
    let client = consumer(kafka, "tidegate-scan")?;
    let failed = |e: KafkaError| Error::External(format!("reading topic {} from {} failed: {e}", kafka.topic, kafka.brokers));
    let mut assignment = TopicPartitionList::new();
    for (partition, range) in ranges {
        assignment.add_partition_offset(&kafka.topic, *partition, Offset::Offset(range.begin)).map_err(failed)?;
    }
    client.assign(&assignment).map_err(failed)?;
    let mut open: BTreeMap<i32, (i64, RecordsBuilder)> = ranges.iter().map(|(p, r)| (*p, (r.begin, RecordsBuilder::new()))).collect();
    let mut heard = std::time::Instant::now();
    let mut overtaken = 0;
    while !open.is_empty() {
        match client.poll(Duration::from_millis(100)) {
            None if heard.elapsed() > SILENCE => {
                return Err(Error::External(format!(
                    "Kafka at {} has not answered for {} seconds while topic {} was read",
                    kafka.brokers,
                    SILENCE.as_secs(),
                    kafka.topic
                )));
            }
            None => {}
            Some(Ok(message)) => {
                heard = std::time::Instant::now();
                let partition = message.partition();
                let Some((begin, builder)) = open.get_mut(&partition) else { continue };
                let end = ranges[&partition].end;
                if message.offset() < end {
                    builder.push(message.offset(), message.timestamp().to_millis(), message.key(), message.payload(), headers_of(&message));
                }
                let done = message.offset() + 1 >= end;
                if done || builder.byte_len() >= SLICE_BYTES {
                    let upto = (message.offset() + 1).min(end);
                    let slice = Slice { partition, begin: *begin, end: upto, records: std::mem::take(builder).finish() };
                    *begin = upto;
                    if !give(slice) {
                        return Ok(());
                    }
                }
                if done {
                    open.remove(&partition);
                }
            }
            // Position, not counting, tells the end: gaps (compaction, transaction markers) hold no record.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                heard = std::time::Instant::now();
                if let Some((begin, builder)) = open.remove(&partition) {
                    let slice = Slice { partition, begin, end: ranges[&partition].end, records: builder.finish() };
                    if !give(slice) {
                        return Ok(());
                    }
                }
            }
            Some(Err(KafkaError::MessageConsumption(code))) if is_passing(code) => {}
            // Retention has overtaken the scan: it goes on at what is the oldest record by now.
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))) => {
                overtaken += 1;
                let mut gone = vec![];
                let mut assignment = TopicPartitionList::new();
                for (partition, (begin, builder)) in &open {
                    let (low, end) = (watermarks(&client, kafka, *partition)?.0, ranges[partition].end);
                    let next = builder.next_offset().unwrap_or(*begin);
                    // Retention may overtake it again at once: each time a little more room is left.
                    let position = if low > next { low + (end - low) * (overtaken - 1) / 64 } else { next };
                    if position >= end || overtaken > 64 {
                        gone.push(*partition);
                    } else {
                        assignment.add_partition_offset(&kafka.topic, *partition, Offset::Offset(position)).map_err(failed)?;
                    }
                }
                for partition in gone {
                    if let Some((begin, builder)) = open.remove(&partition)
                        && !give(Slice { partition, begin, end: ranges[&partition].end, records: builder.finish() })
                    {
                        return Ok(());
                    }
                }
                client.assign(&assignment).map_err(failed)?;
            }
            Some(Err(error)) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// Errors that librdkafka mends by itself.
fn is_passing(code: rdkafka::error::RDKafkaErrorCode) -> bool {
    use rdkafka::error::RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable
            | Code::RequestTimedOut
    )
}
