//! What makes the records that a sink writes to a topic, some at a time, on a thread beside the one that sends them.

use std::{ops::Range, sync::mpsc::sync_channel};

use tokio::runtime::Handle;

use super::plan::PlannedSink;
use crate::{
    catalog::KafkaSink,
    error::{Error, Result},
    sink::{
        records::{Due, Numbered, RecordMaker, letters},
        topic::{Failed, Made},
    },
    stream::outbox::Piece,
};

/// So many records are made at once.
const TOGETHER: usize = 4096;
/// So many times that wait to be sent, beside those that are being sent and made.
const AHEAD: usize = 1;

/// Makes the records of one piece after the other.
pub(super) trait Maker: Send {
    /// Takes a piece; how many records it comes to.
    fn take(&mut self, handle: &Handle, piece: &Piece) -> std::result::Result<usize, Failed>;
    /// Some of the records of the piece that it has taken.
    fn make(&mut self, piece: &Piece, range: Range<usize>) -> Result<Vec<Numbered>>;
}

/// Makes records of what a sink's query gives.
pub(super) struct RowMaker {
    planned: PlannedSink,
    maker: RecordMaker,
    due: Option<Due>,
}

impl RowMaker {
    pub(super) fn new(planned: PlannedSink, sink: &KafkaSink) -> Result<Self> {
        let maker = RecordMaker::new(planned.shape.clone(), sink.key_format.clone())?;
        Ok(Self { planned, maker, due: None })
    }
}

impl Maker for RowMaker {
    fn take(&mut self, handle: &Handle, piece: &Piece) -> std::result::Result<usize, Failed> {
        let given = handle.block_on(self.planned.given(piece))?;
        // What can't be written stays so: the query has to be another one.
        let due = self.maker.due(&given, piece).map_err(Failed::Unmade)?;
        Ok(self.due.insert(due).count())
    }

    fn make(&mut self, piece: &Piece, range: Range<usize>) -> Result<Vec<Numbered>> {
        match &self.due {
            Some(due) => self.maker.records(due, range, piece),
            None => Err(Error::Internal("records of a piece that was not taken".into())),
        }
    }
}

/// Makes records of a source's bad records.
pub(super) struct LetterMaker {
    /// The source's topic.
    pub(super) topic: String,
}

impl Maker for LetterMaker {
    fn take(&mut self, _: &Handle, piece: &Piece) -> std::result::Result<usize, Failed> {
        Ok(piece.rows.num_rows())
    }

    fn make(&mut self, piece: &Piece, range: Range<usize>) -> Result<Vec<Numbered>> {
        Ok(letters(&self.topic, piece, range))
    }
}

/// Gives `write` the records of a piece that was taken and comes to so many. While it sends some, the next ones are made.
pub(super) fn make_beside<R>(
    maker: &mut dyn Maker,
    piece: &Piece,
    count: usize,
    write: impl FnOnce(&mut Made<'_>) -> std::result::Result<R, Failed>,
) -> std::result::Result<R, Failed> {
    let ranges: Vec<Range<usize>> = (0..count).step_by(TOGETHER).map(|begin| begin..count.min(begin + TOGETHER)).collect();
    if ranges.len() < 2 {
        return write(&mut ranges.into_iter().map(|range| maker.make(piece, range)));
    }
    std::thread::scope(|scope| {
        let (give, take) = sync_channel(AHEAD);
        let runs = ranges.len();
        let make = move || {
            for range in ranges {
                if give.send(maker.make(piece, range)).is_err() {
                    // The writer has given up.
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("sink records".into())
            .spawn_scoped(scope, make)
            .map_err(|e| Error::External(format!("no thread for the records of a sink: {e}")))?;
        // If that thread panics, what it has made so far must not be taken for all.
        let early = |_| Err(Error::Internal("the thread that makes records has ended early".into()));
        write(&mut (0..runs).map(move |_| take.recv().unwrap_or_else(early)))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::{datatypes::Schema, record_batch::RecordBatch};

    use super::*;

    /// Makes records without anything in them, until it comes to one that it can't make.
    struct Counting {
        /// It is an error,
        fails_at: usize,
        /// or worse.
        panics_at: usize,
    }

    impl Maker for Counting {
        fn take(&mut self, _: &Handle, _: &Piece) -> std::result::Result<usize, Failed> {
            Ok(0)
        }

        fn make(&mut self, piece: &Piece, range: Range<usize>) -> Result<Vec<Numbered>> {
            assert!(!range.contains(&self.panics_at), "as the test wants it");
            if range.contains(&self.fails_at) {
                return Err(Error::Invalid("it can't be written".into()));
            }
            let record = |at: usize| Numbered { key: None, payload: None, epoch: 1, sequence: piece.begin + at as u64, headers: vec![] };
            Ok(range.map(record).collect())
        }
    }

    const NEVER: usize = usize::MAX;
    const MANY: usize = TOGETHER * 5 + 7;

    fn piece() -> Piece {
        Piece { begin: 100, rows: RecordBatch::new_empty(Arc::new(Schema::empty())), epochs: vec![] }
    }

    fn sequences(records: &mut Made<'_>) -> std::result::Result<Vec<u64>, Failed> {
        let mut found = vec![];
        for made in records {
            found.extend(made.map_err(Failed::Unmade)?.iter().map(|record| record.sequence));
        }
        Ok(found)
    }

    #[test]
    fn all_records_come_in_order() {
        for count in [0, 1, TOGETHER, TOGETHER + 1, MANY] {
            let found = make_beside(&mut Counting { fails_at: NEVER, panics_at: NEVER }, &piece(), count, sequences).unwrap();
            assert_eq!(found, (100..100 + count as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_that_can_t_be_made_ends_them() {
        for (fails_at, count) in [(0, 1), (0, MANY), (MANY - 1, MANY)] {
            let failed = make_beside(&mut Counting { fails_at, panics_at: NEVER }, &piece(), count, sequences).unwrap_err();
            assert!(matches!(failed, Failed::Unmade(Error::Invalid(_))), "{failed:?}");
        }
    }

    #[test]
    fn a_writer_that_gives_up_is_not_held() {
        let gives_up = |records: &mut Made<'_>| {
            records.next().unwrap().unwrap();
            Err::<(), _>(Failed::Stopped)
        };
        assert!(matches!(make_beside(&mut Counting { fails_at: NEVER, panics_at: NEVER }, &piece(), MANY, gives_up), Err(Failed::Stopped)));
    }

    #[test]
    fn what_was_made_before_a_panic_is_not_taken_for_all() {
        let mut taken_for_all = false;
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            make_beside(&mut Counting { fails_at: NEVER, panics_at: MANY - 1 }, &piece(), MANY, |records| {
                taken_for_all = sequences(records).is_ok();
                Ok(())
            })
        }));
        assert!(panicked.is_err() && !taken_for_all);
    }
}
