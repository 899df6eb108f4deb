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

use super::client::{Client, consumer, group_of, partition_numbers};
use crate::{
    catalog::KafkaDef,
    error::Result,
    source::{Feed, FeedState, FeedStatus, Header, PartitionStatus, RecordsBuilder, Slice},
};

/// The reader waits when this many payload bytes lie untaken.
const PENDING_BYTES: usize = 128 << 20;
/// Records are gathered in pieces of this many bytes, so that an epoch's limits can be kept without copying.
const PIECE_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
struct Partition {
    /// Finished pieces, oldest first, then the one being filled.
    pieces: std::collections::VecDeque<Piece>,
    position: i64,
    taken: i64,
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
}

/// Follows one topic.
#[derive(Debug)]
pub struct KafkaReader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaReader {
    /// Starts to follow the topic. `from`: offsets to go on at; partitions not in it start at the oldest record.
    /// `input` is told when there is something to take.
    pub fn start(source: &str, kafka: KafkaDef, from: BTreeMap<i32, i64>, input: Arc<Notify>) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State { reader: FeedState::Connecting("starting".into()), partitions: BTreeMap::new(), bytes: 0, commit: None }),
            room: Condvar::new(),
            stop: AtomicBool::new(false),
            input,
        });
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
        let mut state = self.shared.state.lock();
        let (mut bytes, mut records) = (0, 0);
        let mut slices = vec![];
        // Round by round one piece of each partition, so that none starves and they keep pace.
        loop {
            let mut progress = false;
            let numbers: Vec<i32> = state.partitions.keys().copied().collect();
            for number in numbers {
                let Some(partition) = state.partitions.get_mut(&number) else { continue };
                let Some(front) = partition.pieces.front() else { continue };
                let full = bytes + front.records.byte_len() > max_bytes || records + front.records.len() > max_records;
                if full && !slices.is_empty() {
                    continue;
                }
                let Some(piece) = partition.pieces.pop_front() else { continue };
                let piece = if full && piece.records.len() > 1 {
                    let (head, rest) = piece.split(max_bytes, max_records);
                    partition.pieces.push_front(rest);
                    head
                } else {
                    piece
                };
                partition.taken = piece.end;
                if partition.pieces.is_empty() && partition.end_reached.is_some() {
                    partition.end_reached = Some(Instant::now());
                }
                bytes += piece.records.byte_len();
                records += piece.records.len();
                state.bytes -= piece.records.byte_len();
                slices.push(Slice { partition: number, begin: piece.begin, end: piece.end, records: piece.records.finish() });
                progress = true;
            }
            if !progress {
                break;
            }
        }
        drop(state);
        self.shared.room.notify_all();
        slices.sort_by_key(|s| (s.partition, s.begin));
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
    /// The records that fit, at least one, and the rest.
    fn split(self, max_bytes: usize, max_records: usize) -> (Piece, Piece) {
        let records = self.records.finish();
        let mut head = RecordsBuilder::new();
        let mut rest = RecordsBuilder::new();
        let mut cut = self.end;
        for record in records.iter() {
            let size = record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
            let fits = head.is_empty() || (rest.is_empty() && head.byte_len() + size <= max_bytes && head.len() < max_records);
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
fn follow(client: &Client, kafka: &KafkaDef, from: &BTreeMap<i32, i64>, shared: &Shared) {
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
            None => {}
            Some(Ok(message)) => {
                if troubled_since.take().is_some() {
                    shared.state.lock().reader = FeedState::Running;
                }
                gather(client, kafka, &message, shared);
            }
            Some(Err(KafkaError::PartitionEOF(number))) => {
                let end = cached_end(client, &kafka.topic, number);
                let mut state = shared.state.lock();
                if !matches!(state.reader, FeedState::Failed(_)) {
                    state.reader = FeedState::Running;
                }
                troubled_since = None;
                if let Some(partition) = state.partitions.get_mut(&number) {
                    partition.end_reached = Some(Instant::now());
                    partition.end = end.or(partition.end);
                }
                drop(state);
                shared.input.notify_one();
            }
            Some(Err(error)) => {
                let mut state = shared.state.lock();
                match error.rdkafka_error_code() {
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

fn assign(client: &Client, kafka: &KafkaDef, from: &BTreeMap<i32, i64>, shared: &Shared) -> Result<()> {
    let numbers = partition_numbers(client, kafka)?;
    let mut assignment = TopicPartitionList::new();
    let mut partitions = BTreeMap::new();
    for number in numbers {
        let offset = match from.get(&number) {
            Some(offset) => Offset::Offset(*offset),
            None => Offset::Beginning,
        };
        assignment
            .add_partition_offset(&kafka.topic, number, offset)
            .map_err(|e| crate::Error::External(format!("partition {number} of topic {}: {e}", kafka.topic)))?;
        let start = from.get(&number).copied().unwrap_or(0);
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
    *bytes += fill.records.byte_len() - before;
    partition.position = offset + 1;
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
