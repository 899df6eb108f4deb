//! A scan reads ranges of a topic once and ends: what a plain SELECT over a topic sees.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{
    client::{Partitions, Since, TOGETHER, consumer, headers_of, looker, messages, partitions_of, since, watermarks},
    loss::Loss,
    refusal::refusal,
};
use crate::{
    catalog::KafkaDef,
    error::{Error, Result},
    source::{RecordsBuilder, Slice},
};

/// A slice of a scan holds at most about this many bytes.
const SLICE_BYTES: usize = 4 << 20;
/// A broker that says nothing for this long ends a scan with an error.
pub(super) const SILENCE: Duration = Duration::from_secs(20);
/// One that refuses the client for this long ends it, too.
const REFUSED: Duration = Duration::from_secs(3);

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
    Ok(ranges_of(&partitions_of(kafka)?, from, to))
}

/// The same, where what the topic holds is known already.
pub fn ranges_of(held: &Partitions, from: &BTreeMap<i32, i64>, to: Option<&BTreeMap<i32, i64>>) -> BTreeMap<i32, ScanRange> {
    let mut ranges = BTreeMap::new();
    for (partition, (low, high)) in held {
        let begin = from.get(partition).copied().unwrap_or(*low).max(*low);
        let end = match to {
            // A partition that the epoch does not know yet had nothing in it then.
            Some(to) => to.get(partition).copied().unwrap_or(begin).min(*high),
            None => *high,
        };
        if begin < end {
            ranges.insert(*partition, ScanRange { begin, end });
        }
    }
    ranges
}

/// For each partition the first record whose timestamp is not before so many milliseconds since 1970.
pub fn records_since(kafka: &KafkaDef, times: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, Since>> {
    since(&looker(kafka)?, kafka, times)
}

/// What a scan gives at a time, and whether it goes on.
pub struct Pace<'a> {
    /// A slice holds at most so many records.
    pub records: usize,
    /// Asked now and then while nothing arrives; `false` ends the scan.
    pub wanted: &'a dyn Fn() -> bool,
}

/// Reads the ranges and gives their records slice by slice; stops early when `give` returns false. Blocks: run it on a thread
/// that may wait. Where retention overtakes it, it goes on at what is the oldest record by then, and says what it has missed.
pub fn scan(kafka: &KafkaDef, ranges: &BTreeMap<i32, ScanRange>, pace: &Pace<'_>, mut give: impl FnMut(Slice) -> bool) -> Result<Vec<Loss>> {
    let mut losses = vec![];
    if ranges.is_empty() {
        return Ok(losses);
    }
    // A consumer of its own: nobody else's reading is disturbed.
    let client = consumer(kafka, "tidegate-scan")?;
    let failed = |e: KafkaError| match e.rdkafka_error_code().and_then(|code| refusal(code, "")) {
        Some(refusal) => Error::Invalid(format!("reading topic {} from {} failed: {refusal}", kafka.topic, kafka.place())),
        None => Error::External(format!("reading topic {} from {} failed: {e}", kafka.topic, kafka.place())),
    };
    let mut assignment = TopicPartitionList::new();
    for (partition, range) in ranges {
        assignment.add_partition_offset(&kafka.topic, *partition, Offset::Offset(range.begin)).map_err(failed)?;
    }
    client.assign(&assignment).map_err(failed)?;
    let mut open: BTreeMap<i32, Open> = ranges.iter().map(|(p, r)| (*p, Open { begin: r.begin, end: r.end, records: RecordsBuilder::new() })).collect();
    let mut heard = Instant::now();
    let mut overtaken = 0;
    while !open.is_empty() {
        let batch = messages(&client, Duration::from_millis(100), TOGETHER);
        if batch.is_empty() {
            let refusal = client.context().refused().filter(|_| heard.elapsed() > REFUSED);
            if let Some(refusal) = refusal {
                return Err(Error::Invalid(format!("topic {} on {} can't be read: {refusal}", kafka.topic, kafka.place())));
            }
            if heard.elapsed() > SILENCE {
                return Err(Error::External(format!(
                    "Kafka at {} has not answered for {} seconds while topic {} was read",
                    kafka.place(),
                    SILENCE.as_secs(),
                    kafka.topic
                )));
            }
            if !(pace.wanted)() {
                return Ok(losses);
            }
        }
        for message in batch {
            match message {
                Ok(message) => {
                    heard = Instant::now();
                    let partition = message.partition();
                    let Some(reading) = open.get_mut(&partition) else { continue };
                    if message.offset() < reading.end {
                        let timestamp = message.timestamp().to_millis();
                        reading.records.push(message.offset(), timestamp, message.key(), message.payload(), headers_of(&message));
                    }
                    let done = message.offset() + 1 >= reading.end;
                    if done || reading.records.byte_len() >= SLICE_BYTES || reading.records.len() >= pace.records.max(1) {
                        let slice = reading.cut(partition, (message.offset() + 1).min(reading.end));
                        if !give(slice) {
                            return Ok(losses);
                        }
                    }
                    if done {
                        open.remove(&partition);
                    }
                }
                // Position, not counting, tells the end: gaps (compaction, transaction markers) hold no record.
                Err(KafkaError::PartitionEOF(partition)) => {
                    heard = Instant::now();
                    if let Some(reading) = open.remove(&partition)
                        && !give(reading.rest(partition))
                    {
                        return Ok(losses);
                    }
                }
                // Retention has overtaken the scan: it goes on at what is the oldest record by now.
                Err(KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)) => {
                    overtaken += 1;
                    let mut gone = vec![];
                    let mut assignment = TopicPartitionList::new();
                    for (partition, reading) in &open {
                        let next = reading.records.next_offset().unwrap_or(reading.begin);
                        let held @ (low, _) = watermarks(&client, kafka, *partition)?;
                        let loss = Loss::check(*partition, next, held);
                        losses.extend(loss);
                        // Retention may overtake it again at once: each time a little more room is left.
                        let position = if low > next { low + (reading.end - low).max(0) * (overtaken - 1) / 64 } else { next };
                        // A topic that was made anew holds nothing of what was to be read.
                        let anew = loss.is_some_and(|loss| loss.offsets().is_none());
                        if position >= reading.end || anew || overtaken > 64 {
                            gone.push(*partition);
                        } else {
                            assignment.add_partition_offset(&kafka.topic, *partition, Offset::Offset(position)).map_err(failed)?;
                        }
                    }
                    for partition in gone {
                        if let Some(reading) = open.remove(&partition)
                            && !give(reading.rest(partition))
                        {
                            return Ok(losses);
                        }
                    }
                    client.assign(&assignment).map_err(failed)?;
                    // What else has come is fetched again.
                    break;
                }
                // The client looks for the coordinator of its group, which nobody needs here.
                Err(error) if error.rdkafka_error_code().is_some_and(is_passing) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
    Ok(losses)
}

/// A partition that has not been read to the end of its range yet.
struct Open {
    begin: i64,
    end: i64,
    records: RecordsBuilder,
}

impl Open {
    /// What was gathered, as the range up to an offset.
    fn cut(&mut self, partition: i32, upto: i64) -> Slice {
        let slice = Slice { partition, begin: self.begin, end: upto, records: std::mem::take(&mut self.records).finish() };
        self.begin = upto;
        slice
    }

    /// What was gathered, as the rest of the range.
    fn rest(self, partition: i32) -> Slice {
        Slice { partition, begin: self.begin, end: self.end, records: self.records.finish() }
    }
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
            | Code::KafkaStorageError
            | Code::NetworkException
            | Code::ReplicaNotAvailable
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::GroupAuthorizationFailed
            | Code::Authentication
            | Code::SSL
            | Code::Resolve
    )
}
