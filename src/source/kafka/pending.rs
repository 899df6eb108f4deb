//! What a reader has gathered of each partition and nobody has taken yet. No Kafka in here.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use super::loss::Loss;
use crate::source::{FeedState, FeedStatus, Header, PartitionStatus, Record, Records, RecordsBuilder, Slice};

/// What a record costs beside its payload and key.
const RECORD_BYTES: usize = 64;
/// Records are gathered in pieces of this many bytes, so that an epoch's limits can be kept without copying.
const PIECE_BYTES: usize = 1 << 20;

/// So many records such a piece has room for, before it has to make more.
const PIECE_RECORDS: usize = 2048;

/// All partitions of a reader.
#[derive(Debug)]
pub(super) struct Pending {
    /// What the reader is doing.
    pub reader: FeedState,
    /// What is known of each partition.
    pub partitions: BTreeMap<i32, Partition>,
    /// The topic's id, where the broker tells one.
    pub topic: Option<String>,
    /// What lies untaken.
    pub bytes: usize,
    /// Offsets to show to Kafka's own tools.
    pub commit: Option<BTreeMap<i32, i64>>,
    /// Partitions that nothing is taken from for now.
    held: BTreeSet<i32>,
    /// How often something was taken: which partition comes first changes each time.
    turns: usize,
    /// A partition that has been silent for so long may count as idle.
    idle_timeout: Duration,
    /// The last loss.
    last_loss: Option<String>,
    /// What disturbs nothing but should be known.
    pub note: Option<String>,
}

/// One partition.
#[derive(Debug, Default)]
pub(super) struct Partition {
    /// Finished pieces, oldest first.
    pieces: VecDeque<Piece>,
    /// The one behind them, that is being filled.
    filling: Option<Filling>,
    /// What lies untaken in them.
    bytes: usize,
    /// Offset of the next record to gather.
    pub position: i64,
    /// Offset of the next record to take.
    taken: i64,
    /// Something has been read from it, so what is gone was lost.
    pub delivered: bool,
    /// One past the newest record, as last heard.
    end: Option<i64>,
    /// Since when all has been gathered and taken.
    end_reached: Option<Instant>,
    /// When the broker was last asked, and said that nothing more had come.
    confirmed: Option<Instant>,
    /// Offsets that were deleted before they were read, where that is known.
    lost: u64,
}

/// The records of the offsets `begin..end`.
#[derive(Debug)]
struct Piece {
    begin: i64,
    end: i64,
    records: Records,
}

#[derive(Debug)]
struct Filling {
    begin: i64,
    end: i64,
    records: RecordsBuilder,
}

/// A record to gather.
pub(super) struct Arrived<'a> {
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Vec<Header>,
}

impl Pending {
    /// Nothing yet, of a reader that has not reached its broker.
    pub fn new(idle_timeout: Duration) -> Self {
        let reader = FeedState::Connecting("starting".into());
        Self {
            reader,
            partitions: BTreeMap::new(),
            topic: None,
            bytes: 0,
            commit: None,
            held: BTreeSet::new(),
            turns: 0,
            idle_timeout,
            last_loss: None,
            note: None,
        }
    }

    /// The broker answers again. Partitions that were at their end are so from now on, not from before the outage.
    pub fn recovered(&mut self) {
        if let FeedState::Connecting(_) = self.reader {
            self.reader = FeedState::Running;
            let now = Instant::now();
            self.partitions.values_mut().filter_map(|p| p.end_reached.as_mut()).for_each(|at| *at = now);
        }
    }

    /// Whether there is anything to take.
    pub fn has_input(&self) -> bool {
        self.to_take().next().is_some()
    }

    /// The partitions that have something to take.
    fn to_take(&self) -> impl Iterator<Item = (&i32, &Partition)> {
        self.partitions.iter().filter(|(number, p)| p.has_some() && !self.held.contains(number))
    }

    /// Nothing is taken from these partitions until told otherwise; whether that changes anything.
    pub fn hold_back(&mut self, partitions: BTreeSet<i32>) -> bool {
        let differs = self.held != partitions;
        self.held = partitions;
        differs
    }

    /// The partitions that are held back.
    pub fn held(&self) -> &BTreeSet<i32> {
        &self.held
    }

    /// What lies untaken of partitions that are not held back.
    pub fn bytes_to_take(&self) -> usize {
        self.to_take().map(|(_, p)| p.bytes).sum()
    }

    /// A record has arrived; `end` is one past the newest one, if that is known.
    pub fn gather(&mut self, number: i32, record: Arrived<'_>, end: Option<i64>) {
        let partition = self.partitions.entry(number).or_default();
        let bytes = partition.gather(record);
        partition.end = end.or(partition.end);
        partition.end_reached = None;
        self.bytes += bytes;
    }

    /// A partition has been read to its end.
    pub fn ended(&mut self, number: i32, end: Option<i64>) {
        if let Some(partition) = self.partitions.get_mut(&number) {
            partition.end_reached = Some(Instant::now());
            partition.end = end.or(partition.end);
        }
    }

    /// Partitions that have been silent for long enough to count as idle, if only the broker says once more that nothing has come.
    pub fn unconfirmed(&self, now: Instant) -> Vec<i32> {
        let due = |p: &Partition| p.silent_since().is_some_and(|since| since + self.idle_timeout <= now && !p.is_confirmed(since + self.idle_timeout));
        self.partitions.iter().filter(|(_, p)| due(p)).map(|(number, _)| *number).collect()
    }

    /// What the broker, asked at a moment, said that the ends of partitions are.
    pub fn confirm(&mut self, asked: Instant, ends: &BTreeMap<i32, i64>) {
        for (number, end) in ends {
            let Some(partition) = self.partitions.get_mut(number) else { continue };
            if *end <= partition.end.unwrap_or(partition.position) {
                partition.confirmed = Some(asked);
            } else {
                // More has come, and is on its way: its records or the next end of the partition will tell.
                partition.end = Some(*end);
                partition.end_reached = None;
            }
        }
    }

    /// Goes on after a loss at what is there.
    pub fn skip(&mut self, loss: &Loss, sentence: &str) {
        if let Some(partition) = self.partitions.get_mut(&loss.partition) {
            partition.start_at(loss.oldest);
            partition.lost += loss.offsets().unwrap_or(0).unsigned_abs();
        }
        self.last_loss = Some(sentence.to_string());
    }

    /// What the reader and its partitions are doing.
    pub fn status(&self, now: Instant) -> FeedStatus {
        let at_end_since = |p: &Partition| {
            // What the broker said long ago makes no partition idle.
            p.silent_since().filter(|since| *since + self.idle_timeout > now || p.is_confirmed(*since + self.idle_timeout))
        };
        let status = |p: &Partition| PartitionStatus { position: p.taken, end: p.end, at_end_since: at_end_since(p), lost: p.lost };
        FeedStatus {
            state: self.reader.clone(),
            partitions: self.partitions.iter().map(|(number, p)| (*number, status(p))).collect(),
            last_loss: self.last_loss.clone(),
            note: self.note.clone(),
            topic: self.topic.clone(),
        }
    }

    /// An equal share of the limits from each partition that has something, then what else fits. Where the limits are too small for
    /// all, another partition is first each time, so none starves; a record beyond the limits is taken alone.
    pub fn take(&mut self, max_bytes: usize, max_records: usize) -> Vec<Slice> {
        let mut numbers: Vec<i32> = self.to_take().map(|(number, _)| *number).collect();
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
                let Some(partition) = self.partitions.get_mut(number) else { continue };
                // A topic that was made anew begins at lower offsets: that is for the next epoch.
                let last = slices.iter().rev().find(|s| s.partition == *number).map(|s| s.end);
                if last.zip(partition.begin()).is_some_and(|(end, begin)| begin < end) {
                    continue;
                }
                let Some(piece) = partition.take(bytes_left, records_left, slices.is_empty()) else { continue };
                bytes += piece.records.byte_len();
                records += piece.records.len();
                slices.push(Slice { partition: *number, begin: piece.begin, end: piece.end, records: piece.records });
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
        // Stable: within a partition they come in the order in which they were read.
        slices.sort_by_key(|s| s.partition);
        slices
    }
}

impl Partition {
    /// A partition to be read from an offset on.
    pub fn at(offset: i64) -> Self {
        Self { position: offset, taken: offset, ..Self::default() }
    }

    /// A partition that was added while the reader ran: nothing of it may be missed.
    pub fn new_at_its_first_record() -> Self {
        Self { delivered: true, ..Self::at(0) }
    }

    /// Reading goes on at another offset. What was gathered before stays; behind it comes a piece without records, so that whoever takes them
    /// knows where the partition stands although it may hold nothing any more.
    pub fn start_at(&mut self, offset: i64) {
        self.position = offset;
        self.finish();
        self.filling = Some(Filling { begin: offset, end: offset, records: RecordsBuilder::new() });
        (self.end, self.end_reached) = (None, None);
    }

    /// Adds a record; how many bytes it takes.
    fn gather(&mut self, record: Arrived<'_>) -> usize {
        let (offset, size) = (record.offset, record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len));
        let fits = self.filling.as_ref().is_some_and(|piece| piece.records.byte_len() + size <= PIECE_BYTES && piece.end <= offset);
        if !fits {
            // Where one piece was full the next will be.
            let records = if self.finish() { RecordsBuilder::with_capacity(PIECE_BYTES, PIECE_RECORDS) } else { RecordsBuilder::new() };
            self.filling = Some(Filling { begin: self.position.min(offset), end: offset, records });
        }
        let Some(fill) = &mut self.filling else { return 0 };
        fill.records.push(offset, record.timestamp_ms, record.key, record.value, record.headers);
        fill.end = offset + 1;
        self.position = offset + 1;
        self.delivered = true;
        self.bytes += size + RECORD_BYTES;
        size + RECORD_BYTES
    }

    /// Finishes the piece that is being filled, if there is one.
    fn finish(&mut self) -> bool {
        let filled = self.filling.take();
        let is_some = filled.is_some();
        self.pieces.extend(filled.map(|piece| Piece { begin: piece.begin, end: piece.end, records: piece.records.finish() }));
        is_some
    }

    fn has_some(&self) -> bool {
        !self.pieces.is_empty() || self.filling.is_some()
    }

    /// The first offset that there is to take.
    fn begin(&self) -> Option<i64> {
        self.pieces.front().map(|piece| piece.begin).or(self.filling.as_ref().map(|piece| piece.begin))
    }

    fn silent_since(&self) -> Option<Instant> {
        self.end_reached.filter(|_| !self.has_some())
    }

    fn is_confirmed(&self, at: Instant) -> bool {
        self.confirmed.is_some_and(|confirmed| confirmed >= at)
    }

    /// The front piece or what of it fits; with `at_least_one` its first record even if that is too large.
    fn take(&mut self, max_bytes: usize, max_records: usize, at_least_one: bool) -> Option<Piece> {
        if self.pieces.is_empty() {
            self.finish();
        }
        let piece = self.pieces.pop_front()?;
        let fitting = piece.fitting(max_bytes, max_records).max(usize::from(at_least_one));
        if fitting == 0 && !piece.records.is_empty() {
            self.pieces.push_front(piece);
            return None;
        }
        let (piece, rest) = piece.split_at(fitting);
        if let Some(rest) = rest {
            self.pieces.push_front(rest);
        }
        self.taken = piece.end;
        self.bytes -= piece.records.byte_len() + piece.records.len() * RECORD_BYTES;
        if !self.has_some() && self.end_reached.is_some() {
            self.end_reached = Some(Instant::now());
        }
        Some(piece)
    }
}

impl Piece {
    /// How many of its records are within these limits.
    fn fitting(&self, max_bytes: usize, max_records: usize) -> usize {
        if self.records.len() <= max_records && self.records.byte_len() <= max_bytes {
            return self.records.len();
        }
        let within = |left: &mut usize, record: Record<'_>| {
            *left = left.checked_sub(record.byte_len())?;
            Some(())
        };
        self.records.iter().take(max_records).scan(max_bytes, within).count()
    }

    /// Its first so many records, and the others, if there are any.
    fn split_at(self, count: usize) -> (Piece, Option<Piece>) {
        let Piece { begin, end, records } = self;
        let (head, rest) = records.split_at(count);
        let Some(next) = rest.iter().next() else { return (Piece { begin, end, records: head }, None) };
        let cut = next.offset;
        (Piece { begin, end: cut, records: head }, Some(Piece { begin: cut, end, records: rest }))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state(partitions: &[&[usize]]) -> Pending {
        let mut state = Pending::new(Duration::from_secs(1));
        for (number, sizes) in partitions.iter().enumerate() {
            let mut partition = Partition::default();
            for (piece, chunk) in sizes.chunks(7).enumerate() {
                let begin = piece as i64 * 7;
                let mut records = RecordsBuilder::new();
                for (at, size) in chunk.iter().enumerate() {
                    records.push(begin + at as i64, None, None, Some(&vec![b'x'; *size]), vec![]);
                }
                let bytes = records.byte_len() + records.len() * RECORD_BYTES;
                state.bytes += bytes;
                partition.bytes += bytes;
                partition.pieces.push_back(Piece { begin, end: begin + chunk.len() as i64, records: records.finish() });
            }
            state.partitions.insert(number as i32, partition);
        }
        state
    }

    /// Every record once and in order, within the limits unless it is alone.
    fn drain(state: &mut Pending, max_bytes: usize, max_records: usize) -> Vec<Vec<(i32, i64, usize)>> {
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

    #[test]
    fn what_is_held_back_stays_and_comes_in_order_afterwards() {
        let mut state = state(&[&[10; 30], &[10; 30]]);
        assert!(state.hold_back(BTreeSet::from([1])));
        assert_eq!(state.bytes_to_take(), state.bytes / 2);
        let taken = state.take(1_000_000, 1_000_000);
        assert_eq!(taken.iter().map(|s| (s.partition, s.records.len())).fold((0, 0), |(p, n), (partition, len)| (p + partition, n + len)), (0, 30));
        assert!(!state.has_input(), "what is left is held back");
        assert!(state.take(1_000_000, 1_000_000).is_empty());
        assert!(state.status(Instant::now()).partitions[&1].at_end_since.is_none(), "what is held back is not at its end");
        assert!(state.hold_back(BTreeSet::new()));
        assert_eq!(drain(&mut state, 1_000_000, 1_000_000).iter().flatten().map(|(partition, ..)| *partition).collect::<Vec<_>>(), [1; 30]);
    }

    fn arrived(offset: i64) -> Arrived<'static> {
        Arrived { offset, timestamp_ms: None, key: None, value: Some(b"x"), headers: vec![] }
    }

    #[test]
    fn a_topic_made_anew_goes_to_the_next_epoch() {
        let mut state = Pending::new(Duration::from_secs(1));
        state.partitions.insert(0, Partition::at(90));
        (90..93).for_each(|offset| state.gather(0, arrived(offset), None));
        state.skip(&Loss { partition: 0, expected: 93, oldest: 0, end: 2, anew: false }, "gone");
        (0..2).for_each(|offset| state.gather(0, arrived(offset), None));
        let ranges = |slices: Vec<Slice>| slices.iter().map(|s| (s.begin, s.end, s.records.len())).collect::<Vec<_>>();
        assert_eq!(ranges(state.take(1000, 1000)), [(90, 93, 3)]);
        assert_eq!(ranges(state.take(1000, 1000)), [(0, 2, 2)]);
        assert_eq!(state.bytes, 0);
        assert_eq!(state.status(Instant::now()).last_loss.as_deref(), Some("gone"));
    }

    #[test]
    fn a_partition_that_was_emptied_says_where_it_stands() {
        let mut state = Pending::new(Duration::from_secs(1));
        state.partitions.insert(0, Partition::at(3));
        (3..5).for_each(|offset| state.gather(0, arrived(offset), None));
        state.skip(&Loss { partition: 0, expected: 5, oldest: 20, end: 20, anew: false }, "gone");
        let slices = state.take(1000, 1000);
        assert_eq!(slices.iter().map(|s| (s.begin, s.end, s.records.len())).collect::<Vec<_>>(), [(3, 5, 2), (20, 20, 0)]);
        let status = state.status(Instant::now()).partitions[&0];
        assert_eq!((status.position, status.lost), (20, 15));
        assert!(!state.has_input() && state.bytes == 0);
    }

    #[test]
    fn an_old_end_makes_no_partition_idle() {
        let timeout = Duration::from_secs(60);
        let mut state = Pending::new(timeout);
        state.partitions.insert(0, Partition::at(0));
        state.gather(0, arrived(0), Some(1));
        state.take(1000, 1000);
        let now = Instant::now();
        let later = now + timeout * 2;
        let silent = |state: &Pending, at| state.status(at).partitions[&0].at_end_since.is_some();
        assert!(!silent(&state, now), "it has not been read to its end");
        state.ended(0, Some(1));
        assert!(silent(&state, now), "it is at its end, for less than the timeout");
        assert!(state.unconfirmed(now).is_empty());
        assert!(!silent(&state, later), "nobody has asked whether that still holds");
        assert_eq!(state.unconfirmed(later), [0]);
        // An answer to a question that was asked too early tells nothing.
        state.confirm(now, &BTreeMap::from([(0, 1)]));
        assert_eq!(state.unconfirmed(later), [0]);
        state.confirm(later, &BTreeMap::from([(0, 1)]));
        assert!(silent(&state, later));
        assert!(state.unconfirmed(later).is_empty());
    }

    #[test]
    fn what_has_come_meanwhile_keeps_a_partition_awake() {
        let mut state = Pending::new(Duration::ZERO);
        state.partitions.insert(0, Partition::at(7));
        state.ended(0, Some(7));
        state.confirm(Instant::now(), &BTreeMap::from([(0, 8)]));
        assert_eq!(state.status(Instant::now()).partitions[&0].at_end_since, None);
        assert_eq!(state.status(Instant::now()).partitions[&0].end, Some(8));
    }
}
