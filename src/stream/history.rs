//! Epochs that can still be read (`AS OF EPOCH`) after others have been published.
//!
//! An old epoch costs what has been replaced since: segments that still live are shared with the newest epoch. Kept are the newest
//! epochs without a gap, at most so many, none much older than a minute, and at most so many bytes that only they hold.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{published::Published, segments::Snapshot};

/// At most so many epochs are kept; each costs a few kilobytes beside its rows.
const EPOCHS: usize = 1000;
/// When an epoch is published, those go that have been there for longer.
const AGE: Duration = Duration::from_secs(60);
/// Rows that only old epochs hold take at most so many bytes.
const BYTES: usize = 64 << 20;

/// The newest epochs, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    kept: VecDeque<Kept>,
    /// The bytes that only old epochs hold.
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    published: Arc<Published>,
    at: Instant,
    /// The bytes that the next epoch no longer holds.
    gone: usize,
}

impl History {
    /// An epoch was published. One that is published again (a view came or went) replaces itself.
    pub fn push(&mut self, published: Arc<Published>) {
        self.push_at(published, Instant::now(), EPOCHS, BYTES);
    }

    fn push_at(&mut self, published: Arc<Published>, at: Instant, epochs: usize, bytes: usize) {
        if self.kept.back().is_some_and(|newest| newest.published.epoch >= published.epoch) {
            self.kept.pop_back();
        }
        if let Some(before) = self.kept.back_mut() {
            let gone = gone(&before.published, &published);
            self.bytes = self.bytes - before.gone + gone;
            before.gone = gone;
        } else {
            self.bytes = 0;
        }
        self.kept.push_back(Kept { published, at, gone: 0 });
        while self.kept.len() > 1
            && let Some(oldest) = self.kept.front()
            && (self.kept.len() > epochs || self.bytes > bytes || at.duration_since(oldest.at) > AGE)
        {
            self.bytes -= oldest.gone;
            self.kept.pop_front();
        }
    }

    /// An epoch, if it is still there; else the oldest and the newest that are.
    pub fn at(&self, epoch: u64) -> Result<Arc<Published>, Option<(u64, u64)>> {
        let found = self.kept.binary_search_by_key(&epoch, |kept| kept.published.epoch);
        found.map(|at| self.kept[at].published.clone()).map_err(|_| {
            let of = |kept: Option<&Kept>| kept.map(|kept| kept.published.epoch);
            of(self.kept.front()).zip(of(self.kept.back()))
        })
    }
}

/// The bytes of the segments that `old` holds and `new` doesn't.
fn gone(old: &Published, new: &Published) -> usize {
    let mut bytes = 0;
    for (name, view) in &old.views {
        let after = new.views.get(name);
        bytes += gone_of(&view.contents, after.map(|view| &view.contents));
        bytes += gone_of(&view.late, after.map(|view| &view.late));
    }
    for (name, source) in &old.sources {
        bytes += gone_of(&source.errors, new.sources.get(name).map(|source| &source.errors));
    }
    bytes
}

fn gone_of(old: &Snapshot, new: Option<&Snapshot>) -> usize {
    // Most epochs only append: what both begin with needs no look.
    let same = new.map_or(0, |new| old.segments().zip(new.segments()).take_while(|(old, new)| Arc::ptr_eq(old, new)).count());
    let mut rest = old.segments().skip(same).peekable();
    if rest.peek().is_none() {
        return 0;
    }
    // A segment in which rows died is another one over the same batch.
    let after: HashSet<usize> = new.into_iter().flat_map(|new| new.segments().skip(same)).filter_map(|segment| segment.identity()).collect();
    rest.filter(|segment| segment.identity().is_some_and(|identity| !after.contains(&identity))).map(|segment| segment.batch.get_array_memory_size()).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::{
        array::Int64Array,
        datatypes::{DataType, Field, Schema},
        record_batch::RecordBatch,
    };

    use super::*;
    use crate::stream::{published::PublishedSource, segments::SegmentLog};

    fn log() -> SegmentLog {
        SegmentLog::new(Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])))
    }

    fn rows(log: &SegmentLog, count: i64) -> RecordBatch {
        RecordBatch::try_new(log.snapshot().schema().clone(), vec![Arc::new(Int64Array::from_iter_values(0..count))]).unwrap()
    }

    fn published(epoch: u64, log: &SegmentLog) -> Arc<Published> {
        let none = BTreeMap::new;
        let source = PublishedSource {
            offsets: none(),
            watermark: None,
            partitions: BTreeMap::new(),
            errors: log.snapshot(),
            errors_total: 0,
            rows_total: 0,
            drift: Arc::default(),
            outboxes: vec![],
        };
        Arc::new(Published { epoch, sources: BTreeMap::from([("s".to_string(), source)]), views: BTreeMap::new() })
    }

    fn rows_at(history: &History, epoch: u64) -> usize {
        history.at(epoch).unwrap().sources["s"].errors.rows()
    }

    #[test]
    fn old_epochs_are_there_until_others_push_them_out() {
        let (mut history, mut log, now) = (History::default(), log(), Instant::now());
        assert_eq!(history.at(0).unwrap_err(), None);
        for epoch in 1..=10 {
            log.append(rows(&log, 1));
            history.push_at(published(epoch, &log), now, 4, BYTES);
        }
        assert_eq!(history.at(6).unwrap_err(), Some((7, 10)));
        assert_eq!(history.at(11).unwrap_err(), Some((7, 10)));
        assert_eq!((7..=10).map(|epoch| rows_at(&history, epoch)).collect::<Vec<_>>(), [7, 8, 9, 10]);
        history.push_at(published(11, &log), now + AGE * 2, 100, BYTES);
        assert_eq!(history.at(10).unwrap_err(), Some((11, 11)));
    }

    #[test]
    fn only_what_was_replaced_counts() {
        let (mut history, mut log, now) = (History::default(), log(), Instant::now());
        log.append(rows(&log, 1000));
        history.push_at(published(1, &log), now, 100, 20_000);
        log.append(rows(&log, 10));
        history.push_at(published(2, &log), now, 100, 20_000);
        assert_eq!(history.bytes, 0, "the newest epoch holds all of it");
        // Everything dies: 8000 bytes are held by old epochs alone.
        log.keep_newest(0);
        log.compact().unwrap();
        history.push_at(published(3, &log), now, 100, 20_000);
        assert!((8_000..20_000).contains(&history.bytes), "{}", history.bytes);
        assert_eq!(rows_at(&history, 2), 1010);
        for epoch in 4..8 {
            log.append(rows(&log, 1000));
            history.push_at(published(epoch, &log), now, 100, 20_000);
            log.keep_newest(0);
            log.compact().unwrap();
        }
        assert!(history.bytes <= 20_000, "{}", history.bytes);
        assert!(history.at(2).is_err());
        assert!(history.at(7).is_ok());
    }

    #[test]
    fn an_epoch_that_is_published_again_replaces_itself() {
        let (mut history, mut log) = (History::default(), log());
        history.push(published(3, &log));
        log.append(rows(&log, 2));
        history.push(published(3, &log));
        assert_eq!(rows_at(&history, 3), 2);
        assert_eq!(history.kept.len(), 1);
    }
}
