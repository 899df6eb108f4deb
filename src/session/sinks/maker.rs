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

/// The records of pieces, some at a time.
struct Making<'a> {
    maker: &'a mut dyn Maker,
    handle: &'a Handle,
    pieces: std::slice::Iter<'a, Piece>,
    /// The piece that was taken, and which of its records are still to be made.
    taken: Option<(&'a Piece, Range<usize>)>,
}

impl Iterator for Making<'_> {
    type Item = std::result::Result<Vec<Numbered>, Failed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((piece, left)) = &mut self.taken
                && left.start < left.end
            {
                let range = left.start..left.end.min(left.start + TOGETHER);
                left.start = range.end;
                return Some(self.maker.make(piece, range).map_err(Failed::Unmade));
            }
            let piece = self.pieces.next()?;
            match self.maker.take(self.handle, piece) {
                Ok(count) => self.taken = Some((piece, 0..count)),
                Err(failed) => return Some(Err(failed)),
            }
        }
    }
}

/// Gives `write` the records of pieces, in order. While it sends some, the next ones are made.
pub(super) fn make_beside<R>(
    maker: &mut dyn Maker,
    handle: &Handle,
    pieces: &[Piece],
    write: impl FnOnce(&mut Made<'_>) -> std::result::Result<R, Failed>,
) -> std::result::Result<R, Failed> {
    let mut making = Making { maker, handle, pieces: pieces.iter(), taken: None };
    if pieces.iter().map(|piece| piece.rows.num_rows()).sum::<usize>() <= TOGETHER {
        return write(&mut making);
    }
    std::thread::scope(|scope| {
        let (give, take) = sync_channel(AHEAD);
        let make = move || {
            // Where the writer has given up, nobody takes it.
            let _ = making.try_for_each(|made| give.send(Some(made))).and_then(|()| give.send(None));
        };
        std::thread::Builder::new()
            .name("sink records".into())
            .spawn_scoped(scope, make)
            .map_err(|e| Error::External(format!("no thread for the records of a sink: {e}")))?;
        // If that thread panics it has not said that these are all, and what came so far must not be taken for that.
        let early = || Some(Err(Error::Internal("the thread that makes records has ended early".into()).into()));
        write(&mut std::iter::from_fn(move || take.recv().unwrap_or_else(|_| early())))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        datatypes::Schema,
        record_batch::{RecordBatch, RecordBatchOptions},
    };

    use super::*;

    /// Makes records without anything in them, until it comes to one that it can't make.
    struct Counting {
        /// It is an error,
        fails_at: usize,
        /// or worse.
        panics_at: usize,
    }

    impl Maker for Counting {
        fn take(&mut self, _: &Handle, piece: &Piece) -> std::result::Result<usize, Failed> {
            Ok(piece.rows.num_rows())
        }

        fn make(&mut self, piece: &Piece, range: Range<usize>) -> Result<Vec<Numbered>> {
            let numbers = piece.begin as usize + range.start..piece.begin as usize + range.end;
            assert!(!numbers.contains(&self.panics_at), "as the test wants it");
            if numbers.contains(&self.fails_at) {
                return Err(Error::Invalid("it can't be written".into()));
            }
            let record = |at: usize| Numbered { key: None, payload: None, epoch: 1, sequence: piece.begin + at as u64, headers: vec![] };
            Ok(range.map(record).collect())
        }
    }

    const NEVER: usize = usize::MAX;
    const MANY: usize = TOGETHER * 5 + 7;

    /// Pieces of so many rows, numbered from 0.
    fn pieces(counts: &[usize]) -> Vec<Piece> {
        let rows =
            |count| RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &RecordBatchOptions::new().with_row_count(Some(count))).unwrap();
        let mut begin = 0;
        let mut piece = |count: &usize| {
            let piece = Piece { begin, rows: rows(*count), epochs: vec![] };
            begin = piece.end();
            piece
        };
        counts.iter().map(&mut piece).collect()
    }

    fn made<R>(maker: Counting, counts: &[usize], write: impl FnOnce(&mut Made<'_>) -> std::result::Result<R, Failed>) -> std::result::Result<R, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut maker = maker;
        make_beside(&mut maker, runtime.handle(), &pieces(counts), write)
    }

    fn sequences(records: &mut Made<'_>) -> std::result::Result<Vec<u64>, Failed> {
        let mut found = vec![];
        for made in records {
            found.extend(made?.iter().map(|record| record.sequence));
        }
        Ok(found)
    }

    #[test]
    fn all_records_come_in_order() {
        for counts in [&[][..], &[0], &[1, 0, 2], &[TOGETHER], &[TOGETHER + 1], &[MANY, 0, 1, TOGETHER, MANY]] {
            let found = made(Counting { fails_at: NEVER, panics_at: NEVER }, counts, sequences).unwrap();
            assert_eq!(found, (0..counts.iter().sum::<usize>() as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn one_that_can_t_be_made_ends_them() {
        for (fails_at, counts) in [(0, &[1][..]), (0, &[MANY]), (MANY, &[MANY, 1])] {
            let failed = made(Counting { fails_at, panics_at: NEVER }, counts, sequences).unwrap_err();
            assert!(matches!(failed, Failed::Unmade(Error::Invalid(_))), "{failed:?}");
        }
    }

    #[test]
    fn a_writer_that_gives_up_is_not_held() {
        let gives_up = |records: &mut Made<'_>| {
            records.next().unwrap().unwrap();
            Err::<(), _>(Failed::Stopped)
        };
        assert!(matches!(made(Counting { fails_at: NEVER, panics_at: NEVER }, &[MANY, MANY], gives_up), Err(Failed::Stopped)));
    }

    #[test]
    fn what_was_made_before_a_panic_is_not_taken_for_all() {
        let mut taken_for_all = false;
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            made(Counting { fails_at: NEVER, panics_at: MANY - 1 }, &[MANY], |records| {
                taken_for_all = sequences(records).is_ok();
                Ok(())
            })
        }));
        assert!(panicked.is_err() && !taken_for_all);
    }
}
