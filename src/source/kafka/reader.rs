//! A reader follows a topic for ever: a thread of its own polls Kafka and gathers records per partition; whoever cuts epochs takes
//! them from there. A broker that is down is asked again and again; the state says so.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::Headers,
    types::RDKafkaRespErr,
};
use tokio::sync::Notify;

use super::client::{Client, consumer, group_of, partition_numbers, watermarks};
use crate::{
    catalog::KafkaDef,
    error::Result,
    source::{Feed, FeedState, FeedStatus, Header, PartitionStatus, RecordsBuilder, Slice, Start},
};

/// The reader waits when this many payload bytes lie untaken.
const PENDING_BYTES: usize = 128 << 20;
/// What a record costs beside its payload and key.
const RECORD_BYTES: usize = 64;
/// Records are gathered in pieces of this many bytes, so that an epoch's limits can be kept without copying.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
struct Partition {
    /// Finished pieces, oldest first, then the one being filled.
    pieces: std::collections::VecDeque<Piece>,
    position: i64,
    taken: i64,
    /// Something has been read from it.
    delivered: bool,
    end: Option<i64>,
    end_reached: Option<Instant>,
}

#[derive(Debug)]
struct Piece {
    begin: i64,
    end: i64,
    records: RecordsBuilder,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    room: Condvar,
    stop: AtomicBool,
    /// Told when there is something to take.
    input: Arc<Notify>,
}

#[derive(Debug)]
struct State {
    reader: FeedState,
    partitions: BTreeMap<i32, Partition>,
    bytes: usize,
    commit: Option<BTreeMap<i32, i64>>,
    /// How often something was taken: which partition comes first changes each time.
    turns: usize,
}

impl State {
    /// The broker answers again. Partitions that were at their end are so from now on, not from before the outage.
    fn recovered(&mut self) {
        if let FeedState::Connecting(_) = self.reader {
            self.reader = FeedState::Running;
            let now = Instant::now();
            self.partitions.values_mut().filter_map(|p| p.end_reached.as_mut()).for_each(|at| *at = now);
        }
    }

    fn new() -> Self {
        Self { reader: FeedState::Connecting("starting".into()), partitions: BTreeMap::new(), bytes: 0, commit: None, turns: 0 }
    }

    /// An equal share of the limits from each partition that has something, then what else fits. Where the limits are too small for
    /// all, another partition is first each time, so none starves; a record beyond the limits is taken alone.
    fn take(&mut self, max_bytes: usize, max_records: usize) -> Vec<Slice> {
        let mut numbers: Vec<i32> = self.partitions.iter().filter(|(_, p)| !p.pieces.is_empty()).map(|(number, _)| *number).collect();
        if numbers.is_empty() {
            return vec![];
        }
        let first = self.turns % numbers.len();
        numbers.rotate_left(first);
        self.turns += 1;
        let share = (max_bytes / numbers.len(), (max_records / numbers.len()).max(1));
        let (mut bytes, mut records) = (0, 0);
        let mut slices: Vec<Slice> = vec![];
        for round in 0.. {
            let before = slices.len();
            for number in &numbers {
                let (bytes_left, records_left) = (max_bytes.saturating_sub(bytes), max_records.saturating_sub(records));
                let (bytes_left, records_left) = if round == 0 { (bytes_left.min(share.0), records_left.min(share.1)) } else { (bytes_left, records_left) };
                let Some(piece) = self.partitions.get_mut(number).and_then(|p| p.take(bytes_left, records_left, slices.is_empty())) else { continue };
                bytes += piece.records.byte_len();
                records += piece.records.len();
                slices.push(Slice { partition: *number, begin: piece.begin, end: piece.end, records: piece.records.finish() });
            }
            if slices.len() == before {
                // Nothing is within its share, and nothing was taken yet: the first one gets all there is, or more.
                if before == 0 && round == 0 {
                    continue;
                }
                break;
            }
        }
        self.bytes -= bytes + records * RECORD_BYTES;
        slices.sort_by_key(|s| (s.partition, s.begin));
        slices
    }
}

impl Partition {
    /// The front piece or what of it fits; with `at_least_one` its first record even if that is too large.
    fn take(&mut self, max_bytes: usize, max_records: usize, at_least_one: bool) -> Option<Piece> {
        let piece = self.pieces.pop_front()?;
        let piece = if piece.records.byte_len() <= max_bytes && piece.records.len() <= max_records {
            piece
        } else {
            let (head, rest) = piece.split(max_bytes, max_records, at_least_one);
            if !rest.records.is_empty() {
                self.pieces.push_front(rest);
            }
            if head.records.is_empty() {
                return None;
            }
            head
        };
        self.taken = piece.end;
        if self.pieces.is_empty() && self.end_reached.is_some() {
            self.end_reached = Some(Instant::now());
        }
        Some(piece)
    }
}

/// Follows one topic.
#[derive(Debug)]
pub struct KafkaReader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaReader {
    /// Starts to follow the topic. Partitions that `from` does not name start at the oldest record.
    /// `input` is told when there is something to take.
    pub fn start(source: &str, kafka: KafkaDef, from: Start, input: Arc<Notify>) -> Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::new(State::new()), room: Condvar::new(), stop: AtomicBool::new(false), input });
        let client = consumer(&kafka, &group_of(source, &kafka))?;
        let following = shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("read {source}"))
            .spawn(move || follow(&client, &kafka, &from, &following))
            .map_err(|e| crate::Error::External(format!("no thread for reading source {source}: {e}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Feed for KafkaReader {
    fn take(&self, max_bytes: usize, max_records: usize) -> Vec<Slice> {
        let slices = self.shared.state.lock().take(max_bytes, max_records);
        self.shared.room.notify_all();
        slices
    }

    fn has_input(&self) -> bool {
        self.shared.state.lock().partitions.values().any(|p| !p.pieces.is_empty())
    }

    fn status(&self) -> FeedStatus {
        let state = self.shared.state.lock();
        let partitions = state
            .partitions
            .iter()
            .map(|(number, p)| {
                let at_end_since = if p.pieces.is_empty() { p.end_reached } else { None };
                (*number, PartitionStatus { position: p.taken, end: p.end, at_end_since })
            })
            .collect();
        FeedStatus { state: state.reader.clone(), partitions }
    }

    fn commit(&self, offsets: BTreeMap<i32, i64>) {
        self.shared.state.lock().commit = Some(offsets);
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.room.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a reader's thread had panicked");
        }
    }
}

impl Piece {
    /// The records that fit, and the rest; with `at_least_one` the first fits in any case.
    fn split(self, max_bytes: usize, max_records: usize, at_least_one: bool) -> (Piece, Piece) {
        let records = self.records.finish();
        let mut head = RecordsBuilder::new();
        let mut rest = RecordsBuilder::new();
        let mut cut = self.end;
        for record in records.iter() {
            let size = record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
            let forced = at_least_one && head.is_empty() && rest.is_empty();
            let fits = forced || (rest.is_empty() && head.byte_len() + size <= max_bytes && head.len() < max_records);
            if !fits && rest.is_empty() {
                cut = record.offset;
            }
            let into = if fits { &mut head } else { &mut rest };
            into.push(record.offset, record.timestamp_ms, record.key, record.value, record.headers.to_vec());
        }
        (Piece { begin: self.begin, end: cut, records: head }, Piece { begin: cut, end: self.end, records: rest })
    }
}

/// The thread's work: find the partitions, assign them, gather for ever.
fn follow(client: &Client, kafka: &KafkaDef, from: &Start, shared: &Shared) {
    let mut backoff = Duration::from_millis(100);
    while !shared.stop.load(Ordering::Relaxed) {
        match assign(client, kafka, from, shared) {
            Ok(()) => break,
            Err(error) => {
                tracing::warn!(topic = kafka.topic, "{error}");
                shared.state.lock().reader = FeedState::Connecting(error.to_string());
                let until = Instant::now() + backoff;
                while Instant::now() < until && !shared.stop.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                }
                backoff = (backoff * 2).min(Duration::from_secs(5));
            }
        }
    }
    let mut troubled_since: Option<Instant> = None;
    while !shared.stop.load(Ordering::Relaxed) {
        commit(client, kafka, shared);
        match client.poll(Duration::from_millis(50)) {
            // On a silent topic nothing else tells that the broker is back.
            None if troubled_since.is_some_and(|since| since.elapsed() > Duration::from_secs(2)) && partition_numbers(client, kafka).is_ok() => {
                troubled_since = None;
                shared.state.lock().recovered();
            }
            None => {}
            Some(Ok(message)) => {
                if troubled_since.take().is_some() {
                    shared.state.lock().recovered();
                }
                gather(client, kafka, &message, shared);
            }
            Some(Err(KafkaError::PartitionEOF(number))) => {
                let end = cached_end(client, &kafka.topic, number);
                let mut state = shared.state.lock();
                state.recovered();
                troubled_since = None;
                if let Some(partition) = state.partitions.get_mut(&number) {
                    partition.end_reached = Some(Instant::now());
                    partition.end = end.or(partition.end);
                }
                drop(state);
                shared.input.notify_one();
            }
            Some(Err(error)) => {
                let code = error.rdkafka_error_code();
                let out_of_range = matches!(code, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange));
                if out_of_range && start_anew(client, kafka, from, shared) {
                    continue;
                }
                let mut state = shared.state.lock();
                match code {
                    Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                        let sentence = format!(
                            "topic {} no longer holds the records to go on at ({error}): they were deleted, or the topic was made anew; drop the source's views and create them again to start at what is there",
                            kafka.topic
                        );
                        tracing::error!("{sentence}");
                        state.reader = FeedState::Failed(sentence);
                    }
                    _ => {
                        // librdkafka goes on trying by itself.
                        troubled_since.get_or_insert_with(Instant::now);
                        if !matches!(state.reader, FeedState::Failed(_)) {
                            let sentence = format!("Kafka at {}: {error}", kafka.brokers);
                            if state.reader != FeedState::Connecting(sentence.clone()) {
                                tracing::warn!(topic = kafka.topic, "{sentence}");
                            }
                            state.reader = FeedState::Connecting(sentence);
                        }
                    }
                }
            }
        }
    }
}

fn assign(client: &Client, kafka: &KafkaDef, from: &Start, shared: &Shared) -> Result<()> {
    let Start { offsets: from, fresh: start_only } = from;
    let numbers = partition_numbers(client, kafka)?;
    let mut assignment = TopicPartitionList::new();
    let mut partitions = BTreeMap::new();
    for number in numbers {
        // Where the start lies before the oldest record, the oldest is where a fresh reader starts. A checkpoint's offset is never
        // moved: records between it and the oldest one would be lost without a word.
        let (low, _) = watermarks(client, kafka, number)?;
        let start = match from.get(&number) {
            Some(offset) if start_only.contains(&number) => (*offset).max(low),
            Some(offset) => *offset,
            None => low,
        };
        let offset = if from.contains_key(&number) { Offset::Offset(start) } else { Offset::Beginning };
        assignment
            .add_partition_offset(&kafka.topic, number, offset)
            .map_err(|e| crate::Error::External(format!("partition {number} of topic {}: {e}", kafka.topic)))?;
        partitions.insert(number, Partition { position: start, taken: start, ..Partition::default() });
    }
    client.assign(&assignment).map_err(|e| crate::Error::External(format!("topic {} can't be assigned: {e}", kafka.topic)))?;
    let mut state = shared.state.lock();
    state.partitions = partitions;
    state.reader = FeedState::Running;
    drop(state);
    shared.input.notify_one();
    Ok(())
}

/// Retention was faster than the first fetch of partitions that nobody has read yet: they start at what is the oldest record by now.
/// Whether that was the trouble.
fn start_anew(client: &Client, kafka: &KafkaDef, from: &Start, shared: &Shared) -> bool {
    let positions: Vec<(i32, i64, bool)> = {
        let state = shared.state.lock();
        let unread = |number: &i32, p: &Partition| !p.delivered && (from.fresh.contains(number) || !from.offsets.contains_key(number));
        state.partitions.iter().map(|(number, p)| (*number, p.position, unread(number, p))).collect()
    };
    let mut moved = false;
    let mut assignment = TopicPartitionList::new();
    for (number, position, unread) in positions {
        let offset = match watermarks(client, kafka, number) {
            Ok((low, _)) if unread && low > position => {
                moved = true;
                if let Some(partition) = shared.state.lock().partitions.get_mut(&number) {
                    (partition.position, partition.taken) = (low, low);
                }
                low
            }
            Ok(_) => position,
            Err(_) => return false,
        };
        if assignment.add_partition_offset(&kafka.topic, number, Offset::Offset(offset)).is_err() {
            return false;
        }
    }
    moved && client.assign(&assignment).is_ok()
}

fn gather(client: &Client, kafka: &KafkaDef, message: &rdkafka::message::BorrowedMessage<'_>, shared: &Shared) {
    let number = message.partition();
    let end = cached_end(client, &kafka.topic, number);
    let mut state = shared.state.lock();
    while state.bytes > PENDING_BYTES && !shared.stop.load(Ordering::Relaxed) {
        shared.room.wait_for(&mut state, Duration::from_millis(100));
    }
    let State { partitions, bytes, .. } = &mut *state;
    let partition = partitions.entry(number).or_default();
    let offset = message.offset();
    let size = message.payload_len() + message.key_len();
    let fill = match partition.pieces.back_mut() {
        Some(piece) if piece.records.byte_len() + size <= PIECE_BYTES => piece,
        _ => {
            partition.pieces.push_back(Piece { begin: partition.position.min(offset), end: offset, records: RecordsBuilder::new() });
            match partition.pieces.back_mut() {
                Some(piece) => piece,
                None => return,
            }
        }
    };
    let before = fill.records.byte_len();
    fill.records.push(offset, message.timestamp().to_millis(), message.key(), message.payload(), headers_of(message));
    fill.end = offset + 1;
    *bytes += fill.records.byte_len() - before + RECORD_BYTES;
    partition.position = offset + 1;
    partition.delivered = true;
    partition.end = end.or(partition.end);
    partition.end_reached = None;
    drop(state);
    shared.input.notify_one();
}

pub(super) fn headers_of(message: &rdkafka::message::BorrowedMessage<'_>) -> Vec<Header> {
    match message.headers() {
        Some(headers) => headers.iter().map(|h| Header { key: h.key.to_string(), value: h.value.map(<[u8]>::to_vec) }).collect(),
        None => vec![],
    }
}

fn commit(client: &Client, kafka: &KafkaDef, shared: &Shared) {
    let Some(offsets) = shared.state.lock().commit.take() else { return };
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        if let Err(error) = list.add_partition_offset(&kafka.topic, partition, Offset::Offset(offset)) {
            tracing::warn!(topic = kafka.topic, partition, "an offset to show could not be given to the client: {error}");
        }
    }
    if let Err(error) = client.commit(&list, CommitMode::Async) {
        tracing::warn!(topic = kafka.topic, "offsets could not be shown to the group: {error}");
    }
}

/// One past the newest record, as librdkafka last heard it; no question is sent.
fn cached_end(client: &Client, topic: &str, partition: i32) -> Option<i64> {
    let name = std::ffi::CString::new(topic).ok()?;
    let (mut low, mut high) = (-1i64, -1i64);
    // SAFETY: the client outlives the call, `name` is a C string that lives until it returns, both out-pointers are valid.
    let code = unsafe { rdkafka::bindings::rd_kafka_get_watermark_offsets(client.client().native_ptr(), name.as_ptr(), partition, &mut low, &mut high) };
    (code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state(partitions: &[&[usize]]) -> State {
        let mut state = State::new();
        for (number, sizes) in partitions.iter().enumerate() {
            let mut partition = Partition::default();
            for (piece, chunk) in sizes.chunks(7).enumerate() {
                let begin = piece as i64 * 7;
                let mut records = RecordsBuilder::new();
                for (at, size) in chunk.iter().enumerate() {
                    records.push(begin + at as i64, None, None, Some(&vec![b'x'; *size]), vec![]);
                }
                state.bytes += records.byte_len() + records.len() * RECORD_BYTES;
                partition.pieces.push_back(Piece { begin, end: begin + chunk.len() as i64, records });
            }
            state.partitions.insert(number as i32, partition);
        }
        state
    }

    /// Every record once and in order, within the limits unless it is alone.
    fn drain(state: &mut State, max_bytes: usize, max_records: usize) -> Vec<Vec<(i32, i64, usize)>> {
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        let mut epochs = vec![];
        loop {
            let slices = state.take(max_bytes, max_records);
            if slices.is_empty() {
                assert_eq!(state.bytes, 0);
                return epochs;
            }
            let mut epoch = vec![];
            for slice in &slices {
                let expected = next.entry(slice.partition).or_default();
                assert_eq!(slice.begin, *expected, "ranges join");
                *expected = slice.end;
                epoch.extend(slice.records.iter().map(|r| (slice.partition, r.offset, r.value.unwrap().len())));
            }
            let bytes: usize = epoch.iter().map(|(_, _, size)| size).sum();
            assert!(epoch.len() == 1 || (bytes <= max_bytes && epoch.len() <= max_records), "{} records, {bytes} bytes", epoch.len());
            epochs.push(epoch);
        }
    }

    #[test]
    fn limits_hold_and_every_record_comes_once() {
        for (max_bytes, max_records) in [(1_000_000, 1_000_000), (100, 1_000), (1_000, 5), (35, 3), (1, 1)] {
            let mut state = state(&[&[10; 50], &[10; 3], &[], &[20; 30]]);
            let all: usize = drain(&mut state, max_bytes, max_records).iter().map(Vec::len).sum();
            assert_eq!(all, 83);
        }
    }

    #[test]
    fn a_record_beyond_the_limit_is_alone_and_nobody_starves() {
        let mut state = state(&[&[10; 400], &[10; 400], &[5_000, 10, 10]]);
        let epochs = drain(&mut state, 100, 100);
        let large = epochs.iter().position(|e| e.iter().any(|(_, _, size)| *size == 5_000)).unwrap();
        assert_eq!(epochs[large].len(), 1);
        assert!(large < 10, "it waited {large} epochs");
    }

    #[test]
    fn partitions_share_an_epoch() {
        let mut state = state(&[&[10; 70], &[10; 70], &[10; 70]]);
        let first = state.take(300, 1000);
        assert_eq!(first.iter().map(|s| s.partition).collect::<std::collections::BTreeSet<_>>().len(), 3);
    }
}
