//! What changed, epoch by epoch, for those who follow a view. A bounded ring: a follower that falls behind it is told so, and
//! never holds the pipeline up. What is in it serves those who come back, too.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array, UInt64Array},
    compute::{concat_batches, take_record_batch},
    datatypes::Int64Type,
    record_batch::RecordBatch,
    row::{RowConverter, Rows, SortField},
};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::{Error, Result};

/// A follower may lag this many bytes of changes behind.
pub const RETAINED_BYTES: usize = 64 << 20;
/// While nobody follows, at most so many bytes wait for those who come back.
const UNFOLLOWED_BYTES: usize = 8 << 20;
/// What an epoch's changes take beside their rows.
const ENTRY_BYTES: usize = 512;
/// While nobody follows, changes wait at most so long.
const UNFOLLOWED_AGE: Duration = Duration::from_secs(60);

/// The changes of one epoch.
#[derive(Debug, Clone)]
pub struct EpochChanges {
    /// The epoch that made them.
    pub epoch: u64,
    /// The view's columns, then [`super::hidden::WEIGHT`] if the view is a changing one, or where another definition takes the view's place.
    pub batches: Arc<[RecordBatch]>,
}

#[derive(Debug)]
struct Entry {
    changes: EpochChanges,
    bytes: usize,
    at: Instant,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Every change of a later epoch is in the ring.
    complete_after: u64,
    /// Epochs up to here may have been numbered by another pipeline, or have been lost in a crash.
    foreign_before: u64,
    ended: Option<String>,
}

impl Ring {
    fn drop_oldest(&mut self) {
        if let Some(old) = self.entries.pop_front() {
            self.bytes -= old.bytes;
            self.complete_after = old.changes.epoch;
        }
    }

    /// Drops what the only follower has taken.
    fn forget(&mut self, epoch: u64) {
        while self.entries.front().is_some_and(|entry| entry.changes.epoch <= epoch) {
            self.drop_oldest();
        }
    }

    /// Those after an epoch.
    fn after(&self, epoch: u64) -> Vec<EpochChanges> {
        let start = self.entries.partition_point(|entry| entry.changes.epoch <= epoch);
        self.entries.range(start..).map(|entry| entry.changes.clone()).collect()
    }
}

/// The ring of one view.
#[derive(Debug)]
pub struct ChangeLog {
    ring: Mutex<Ring>,
    /// Every change up to this epoch is in the ring or gone; followers wake when there are any, or the view has ended.
    newest: watch::Sender<u64>,
    /// There is one follower, who never comes back.
    for_one: bool,
}

impl ChangeLog {
    /// A ring that holds every change after this epoch.
    pub fn new(epoch: u64) -> Self {
        Self { ring: Mutex::new(Ring { complete_after: epoch, ..Ring::default() }), newest: watch::Sender::new(epoch), for_one: false }
    }

    /// The same for one follower: what that one has taken is gone.
    pub fn for_one(epoch: u64) -> Self {
        Self { for_one: true, ..Self::new(epoch) }
    }

    /// Adds an epoch's changes.
    pub fn push(&self, changes: EpochChanges) {
        let epoch = changes.epoch;
        let any = !changes.batches.is_empty();
        {
            let mut ring = self.ring.lock();
            if any {
                let bytes = ENTRY_BYTES + changes.batches.iter().map(|b| b.get_array_memory_size()).sum::<usize>();
                ring.bytes += bytes;
                ring.entries.push_back(Entry { changes, bytes, at: Instant::now() });
            }
            if self.newest.receiver_count() > 0 {
                // The newest stays, however large: who keeps up gets it.
                while ring.bytes > RETAINED_BYTES && ring.entries.len() > 1 {
                    ring.drop_oldest();
                }
            } else {
                let is_old = |ring: &Ring| ring.entries.front().is_some_and(|entry| entry.at.elapsed() > UNFOLLOWED_AGE);
                while ring.bytes > UNFOLLOWED_BYTES || is_old(&ring) {
                    ring.drop_oldest();
                }
            }
        }
        self.newest.send_if_modified(|newest| {
            *newest = epoch;
            any
        });
    }

    /// Whether anybody follows.
    pub fn is_followed(&self) -> bool {
        self.newest.receiver_count() > 0
    }

    /// An epoch's changes are not known: whoever began to follow just before it is told to begin anew.
    pub fn skip(&self, epoch: u64) {
        {
            let mut ring = self.ring.lock();
            ring.entries.clear();
            (ring.bytes, ring.complete_after) = (0, epoch);
        }
        self.newest.send_replace(epoch);
    }

    /// Nobody can go on behind an epoch before this one: it may have been another pipeline's, or one that a crash has taken back.
    pub fn resumable_from(&self, epoch: u64) {
        self.ring.lock().foreign_before = epoch;
    }

    /// Whether somebody who has seen everything up to an epoch can go on from there.
    pub fn can_resume(&self, epoch: u64) -> bool {
        let ring = self.ring.lock();
        epoch >= ring.complete_after.max(ring.foreign_before)
    }

    /// Bytes of changes that followers have not taken, or that are kept for the slowest of them.
    pub fn held_bytes(&self) -> usize {
        self.ring.lock().bytes
    }

    /// The view is gone: followers end with this sentence.
    pub fn end(&self, reason: String) {
        self.ring.lock().ended = Some(reason);
        self.newest.send_modify(|_| {});
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.ring.lock().ended.is_some()
    }

    /// Every change up to this epoch is in the ring or gone.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Follows from now on. Ask for the snapshot to start from *after* this call: see [`Follower::next`].
    pub fn follow(self: &Arc<Self>) -> Follower {
        Follower { newest: self.newest.subscribe(), log: self.clone() }
    }
}

/// One who follows a view.
#[derive(Debug)]
pub struct Follower {
    log: Arc<ChangeLog>,
    newest: watch::Receiver<u64>,
}

impl Follower {
    /// The changes of all epochs after `epoch`, oldest first, once there are any; waits for them. `None`: the follower has fallen behind, they
    /// are no longer held.
    pub async fn next(&mut self, epoch: u64) -> Result<Option<Vec<EpochChanges>>> {
        loop {
            {
                let mut ring = self.log.ring.lock();
                if self.log.for_one {
                    ring.forget(epoch);
                }
                if epoch < ring.complete_after {
                    return Ok(None);
                }
                let changes = ring.after(epoch);
                if !changes.is_empty() {
                    return Ok(Some(changes));
                }
                if let Some(reason) = &ring.ended {
                    return Err(Error::Cancelled(reason.clone()));
                }
                self.newest.mark_unchanged();
            }
            if self.newest.changed().await.is_err() {
                return Err(Error::Cancelled("the view is gone".into()));
            }
        }
    }

    /// Every change up to this epoch is in the log or gone.
    pub fn newest(&self) -> u64 {
        self.log.newest()
    }

    /// The changes after `epoch` that are there now, and the epoch up to which they are all. `None`: they are no longer held.
    pub fn held(&self, epoch: u64) -> Option<(Vec<EpochChanges>, u64)> {
        let ring = self.log.ring.lock();
        // Within the lock it is not behind what the ring holds; it may trail it.
        let newest = self.log.newest();
        let changes = (epoch >= ring.complete_after).then(|| ring.after(epoch))?;
        let last = changes.last().map_or(epoch, |change| change.epoch);
        Some((changes, last.max(newest).max(epoch)))
    }
}

/// Several epochs' changes as one: what comes and goes in between is left out. Under one key what goes stands before what comes.
pub fn consolidate(batches: Vec<RecordBatch>, changing: bool, key: Option<&[usize]>) -> Result<Vec<RecordBatch>> {
    let Some(first) = batches.first().filter(|_| changing) else { return Ok(batches) };
    let all = concat_batches(first.schema_ref(), &batches)?;
    let width = all.num_columns() - 1;
    let weights = all.column(width).as_primitive::<Int64Type>();
    let rows = Encoded::new(all.columns()[..width].to_vec(), all.num_rows())?;
    let keys = key.map(|key| Encoded::new(key.iter().map(|c| all.column(*c).clone()).collect(), all.num_rows())).transpose()?;
    // Key, in order of appearance; within it each row with the sum of its weights.
    let mut groups: Vec<Vec<(usize, i64)>> = vec![];
    let mut group_of: HashMap<&[u8], usize> = HashMap::new();
    let mut place_of: HashMap<&[u8], (usize, usize)> = HashMap::new();
    for row in 0..all.num_rows() {
        let bytes = rows.row(row);
        if let Some((group, at)) = place_of.get(bytes) {
            groups[*group][*at].1 += weights.value(row);
            continue;
        }
        let group = *group_of.entry(keys.as_ref().map_or(bytes, |keys| keys.row(row))).or_insert_with(|| {
            groups.push(vec![]);
            groups.len() - 1
        });
        place_of.insert(bytes, (group, groups[group].len()));
        groups[group].push((row, weights.value(row)));
    }
    let mut taken = vec![];
    for group in groups {
        for sign in [-1, 1] {
            for (row, weight) in group.iter().filter(|(_, weight)| weight.signum() == sign) {
                taken.extend(std::iter::repeat_n((*row as u64, sign), weight.unsigned_abs() as usize));
            }
        }
    }
    if taken.is_empty() {
        return Ok(vec![]);
    }
    let mut columns = take_record_batch(&all, &UInt64Array::from_iter_values(taken.iter().map(|(row, _)| *row)))?.columns().to_vec();
    columns[width] = Arc::new(Int64Array::from_iter_values(taken.into_iter().map(|(_, sign)| sign)));
    Ok(vec![RecordBatch::try_new(all.schema(), columns)?])
}

/// Rows as comparable bytes.
struct Encoded(Option<Rows>);

impl Encoded {
    fn new(columns: Vec<ArrayRef>, rows: usize) -> Result<Self> {
        if columns.is_empty() {
            debug_assert!(rows > 0);
            return Ok(Self(None));
        }
        let converter = RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect())?;
        Ok(Self(Some(converter.convert_columns(&columns)?)))
    }

    fn row(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{array::Int64Array, datatypes::*};

    use super::*;

    fn changes(epoch: u64, rows: usize) -> EpochChanges {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        let batch = RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(vec![epoch as i64; rows]))]).unwrap();
        EpochChanges { epoch, batches: Arc::new([batch]) }
    }

    #[tokio::test]
    async fn a_follower_gets_each_epoch_once_and_in_order() {
        let log = Arc::new(ChangeLog::new(3));
        let mut follower = log.follow();
        log.push(changes(4, 1));
        log.push(changes(5, 1));
        let first = follower.next(3).await.unwrap().unwrap();
        assert_eq!(first.iter().map(|c| c.epoch).collect::<Vec<_>>(), [4, 5]);
        let writer = log.clone();
        tokio::spawn(async move { writer.push(changes(6, 1)) });
        assert_eq!(follower.next(5).await.unwrap().unwrap()[0].epoch, 6);
        log.end("dropped".into());
        assert!(follower.next(6).await.unwrap_err().to_string().contains("dropped"));
    }

    #[tokio::test]
    async fn a_slow_follower_is_told_and_the_ring_stays_small() {
        let log = Arc::new(ChangeLog::new(0));
        let mut follower = log.follow();
        for epoch in 1..=40 {
            log.push(changes(epoch, 1 << 18));
        }
        assert!(log.held_bytes() <= RETAINED_BYTES);
        assert!(follower.next(0).await.unwrap().is_none());
        assert!(follower.held(0).is_none() && !log.can_resume(0) && log.can_resume(40));
        assert_eq!(follower.next(39).await.unwrap().unwrap()[0].epoch, 40, "what is there is given");
    }

    #[tokio::test]
    async fn what_the_only_follower_has_taken_is_dropped() {
        let log = Arc::new(ChangeLog::for_one(0));
        let mut follower = log.follow();
        log.push(changes(1, 10));
        log.push(changes(2, 10));
        assert_eq!(follower.next(0).await.unwrap().unwrap().len(), 2);
        log.push(changes(3, 10));
        assert_eq!(follower.next(2).await.unwrap().unwrap().len(), 1);
        log.push(changes(4, 10));
        assert_eq!(follower.next(3).await.unwrap().unwrap().len(), 1);
        assert_eq!(log.ring.lock().entries.len(), 1);
    }

    #[tokio::test]
    async fn who_comes_back_soon_has_missed_nothing() {
        let log = Arc::new(ChangeLog::new(0));
        let mut follower = log.follow();
        log.push(changes(1, 10));
        assert_eq!(follower.next(0).await.unwrap().unwrap().len(), 1);
        drop(follower);
        log.push(changes(2, 10));
        log.push(EpochChanges { epoch: 3, batches: Arc::new([]) });
        assert!(log.can_resume(0));
        let (held, upto) = log.follow().held(1).unwrap();
        assert_eq!((held.iter().map(|c| c.epoch).collect::<Vec<_>>(), upto), (vec![2], 3));
        // Numbers of another pipeline's epochs say nothing.
        log.resumable_from(2);
        assert!(!log.can_resume(1) && log.can_resume(2));
    }

    #[tokio::test]
    async fn little_is_kept_for_nobody() {
        let log = Arc::new(ChangeLog::new(0));
        for epoch in 1..=40 {
            log.push(changes(epoch, 1 << 16));
        }
        assert!(log.held_bytes() <= UNFOLLOWED_BYTES && log.held_bytes() > 0);
        log.push(changes(41, 1 << 21));
        assert_eq!(log.held_bytes(), 0, "one epoch alone may be too much");
        assert!(!log.can_resume(40));
        let mut follower = log.follow();
        log.push(changes(42, 10));
        assert_eq!(follower.next(41).await.unwrap().unwrap()[0].epoch, 42);
    }
}
