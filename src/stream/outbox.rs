//! What a sink has still to write: a view's changes from the sink's cursor on, as rows with numbers.
//!
//! An outbox belongs to its view and goes where that goes: into checkpoints, pauses, other pipelines. Every row that the view gives gets the
//! next number. A checkpoint seals the rows that came since the one before into a block, and only rows of blocks that a checkpoint holds are
//! given to the sink. So whatever a sink has written, a restart finds in the checkpoint just as it was, under the same numbers, if the
//! sink's cursor has not passed it; and no epoch that a crash takes back was ever seen outside.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, Int64Array},
    compute::{concat_batches, filter_record_batch},
    datatypes::{FieldRef, Int64Type, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    hidden::weight_field,
    segments::{Segment, StoredSegment},
};
use crate::error::{Error, Result};

/// A sink is given so many rows at once, or a few more, so that an update is not torn.
const PIECE: usize = 65_536;

/// What a sink asks of its outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxOptions {
    /// So many bytes of changes may wait.
    pub limit: usize,
    /// If more would wait, begin again with what the view holds; else the sink fails.
    pub restart: bool,
    /// How long a change waits for its checkpoint, about.
    pub interval: Duration,
}

/// The outbox of one sink.
#[derive(Debug)]
pub struct Outbox {
    /// The sink's number in the catalog.
    pub sink: u64,
    options: OutboxOptions,
    /// The view's columns, then the weight.
    schema: SchemaRef,
    state: Mutex<State>,
    /// There is more to give, or no more to come.
    told: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Sealed rows that the sink has not written, oldest first.
    blocks: VecDeque<Block>,
    /// Rows since the last checkpoint.
    fresh: Vec<(u64, RecordBatch)>,
    next_block: u64,
    /// The number of the next row.
    end: u64,
    /// Rows with smaller numbers are sealed.
    sealed: u64,
    /// Rows with smaller numbers are in a checkpoint that counts.
    durable: u64,
    /// Rows with smaller numbers may have been given to a sink.
    given: u64,
    /// Rows with smaller numbers were written.
    taken: u64,
    /// What a checkpoint that counts says of `taken`.
    saved: u64,
    /// Bytes of changes that wait; what a view held at the beginning is its own.
    bytes: usize,
    /// Why nothing is kept for the sink any more.
    failure: Option<String>,
    /// The epoch of the newest row, and of the newest that was written.
    newest_epoch: u64,
    taken_epoch: u64,
    /// So many rows had been given when the sink said that it had written more: the state is older than those, and stays so.
    ahead: Option<u64>,
}

#[derive(Debug, Clone)]
struct Block {
    id: u64,
    /// The number of its first row.
    begin: u64,
    segment: Arc<Segment>,
    /// Its rows' epochs in order, with how many rows each has.
    epochs: Vec<(u64, u64)>,
    bytes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredBlock {
    id: u64,
    begin: u64,
    epochs: Vec<(u64, u64)>,
    bytes: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    options: OutboxOptions,
    end: u64,
    taken: u64,
    next_block: u64,
    blocks: Vec<StoredBlock>,
    failure: Option<String>,
    newest_epoch: u64,
    taken_epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ahead: Option<u64>,
}

/// Rows that a sink is to write together.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The number of the first row.
    pub begin: u64,
    /// The view's columns, then the weight.
    pub rows: RecordBatch,
    /// The rows' epochs in order, with how many rows each has.
    pub epochs: Vec<(u64, u64)>,
}

impl Piece {
    /// The number behind the last row.
    pub fn end(&self) -> u64 {
        self.begin + self.rows.num_rows() as u64
    }

    /// The epoch of the row of this number.
    pub fn epoch_of(&self, number: u64) -> u64 {
        let mut behind = self.begin;
        for (epoch, rows) in &self.epochs {
            behind += rows;
            if number < behind {
                return *epoch;
            }
        }
        self.epochs.last().map_or(0, |(epoch, _)| *epoch)
    }
}

/// What a sink finds when it asks for more.
#[derive(Debug)]
pub enum Next {
    /// Rows to write.
    Piece(Piece),
    /// Nothing, so far.
    Nothing,
    /// Nothing is kept for the sink any more, and why.
    Failed(String),
}

/// How far a sink is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lag {
    /// The epoch of the newest row that was written.
    pub epoch: u64,
    /// How many epochs the view is ahead of that, by number.
    pub epochs: u64,
    /// Rows that wait.
    pub rows: u64,
    /// Bytes that wait.
    pub bytes: usize,
    /// The number of the next row to be written.
    pub cursor: u64,
}

impl Outbox {
    /// An empty outbox for changes of rows with these columns.
    pub fn new(sink: u64, options: OutboxOptions, columns: &Schema) -> Self {
        let mut fields: Vec<FieldRef> = columns.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true))).collect();
        fields.push(weight_field());
        Self { sink, options, schema: Arc::new(Schema::new(fields)), state: Mutex::default(), told: Condvar::new() }
    }

    /// What a checkpoint kept of one.
    pub fn restore(sink: u64, columns: &Schema, meta: &Value, segments: Vec<StoredSegment>) -> Result<Self> {
        let broken = |why: String| Error::Internal(format!("what a checkpoint holds for sink {sink} can't be understood: {why}"));
        let stored: Stored = serde_json::from_value(meta.clone()).map_err(|e| broken(e.to_string()))?;
        let outbox = Self::new(sink, stored.options, columns);
        {
            let mut state = outbox.state.lock();
            let mut segments: std::collections::HashMap<u64, RecordBatch> = segments.into_iter().map(|segment| (segment.id, segment.batch)).collect();
            for StoredBlock { id, begin, epochs, bytes } in stored.blocks {
                let batch = segments.remove(&id).ok_or_else(|| broken(format!("block {id} is missing")))?;
                let batch = RecordBatch::try_new(outbox.schema.clone(), batch.columns().to_vec())?;
                if epochs.iter().map(|(_, rows)| rows).sum::<u64>() != batch.num_rows() as u64 {
                    return Err(broken(format!("block {id} has {} rows", batch.num_rows())));
                }
                state.bytes += bytes;
                state.blocks.push_back(Block { id, begin, segment: Arc::new(Segment::new(batch)), epochs, bytes });
            }
            (state.end, state.sealed, state.durable, state.given) = (stored.end, stored.end, stored.end, stored.end);
            (state.taken, state.saved, state.next_block) = (stored.taken, stored.taken, stored.next_block);
            (state.failure, state.newest_epoch, state.taken_epoch) = (stored.failure, stored.newest_epoch, stored.taken_epoch);
            state.ahead = stored.ahead;
        }
        Ok(outbox)
    }

    /// Adds an epoch's changes: the view's columns, and the weight where it has one.
    pub fn push(&self, epoch: u64, batches: &[RecordBatch]) -> Result<()> {
        let mut state = self.state.lock();
        if state.failure.is_some() {
            return Ok(());
        }
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            let rows = self.weighted(batch)?;
            state.bytes += rows.get_array_memory_size();
            state.add(epoch, rows);
        }
        Ok(())
    }

    /// Adds what the view holds.
    pub fn push_snapshot(&self, epoch: u64, batches: &[RecordBatch]) -> Result<()> {
        self.add_snapshot(&mut self.state.lock(), epoch, batches)
    }

    /// What the view holds, in blocks that share its rows: it may be large, and pieces do not span what came before and it. A key that had
    /// other rows meanwhile would else be found gone.
    fn add_snapshot(&self, state: &mut State, epoch: u64, batches: &[RecordBatch]) -> Result<()> {
        self.seal_fresh(state)?;
        for batch in batches.iter().filter(|batch| batch.num_rows() > 0) {
            let (rows, count) = (self.weighted(batch)?, batch.num_rows() as u64);
            (state.end, state.newest_epoch) = (state.end + count, epoch);
            state.seal(rows, vec![(epoch, count)], 0);
        }
        Ok(())
    }

    /// Makes a block of what has come. After an error it is all still there.
    fn seal_fresh(&self, state: &mut State) -> Result<()> {
        if state.fresh.is_empty() {
            return Ok(());
        }
        let rows = concat_batches(&self.schema, state.fresh.iter().map(|(_, rows)| rows))?;
        let mut epochs: Vec<(u64, u64)> = vec![];
        for (epoch, rows) in std::mem::take(&mut state.fresh) {
            match epochs.last_mut().filter(|(last, _)| *last == epoch) {
                Some((_, count)) => *count += rows.num_rows() as u64,
                None => epochs.push((epoch, rows.num_rows() as u64)),
            }
        }
        let held: usize = state.blocks.iter().map(|block| block.bytes).sum();
        // What was counted when it came, so that it is taken off again.
        let bytes = state.bytes.saturating_sub(held);
        state.seal(rows, epochs, bytes);
        Ok(())
    }

    /// Whether more waits than may.
    pub fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.failure.is_none() && state.bytes > self.options.limit
    }

    /// More waits than may: forgets it, and either begins again with what the view holds or fails.
    pub fn give_up(&self, epoch: u64, holds: &[RecordBatch]) -> Result<()> {
        let mut state = self.state.lock();
        let limit = self.options.limit;
        if !self.options.restart {
            let reason =
                format!("more than {limit} bytes of changes waited for it ('max.lag.bytes'): RESUME SINK lets it begin again with what the view holds");
            tracing::error!(sink = self.sink, "a sink fails: {reason}");
            state.forget();
            state.failure = Some(reason);
            self.told.notify_all();
            return Ok(());
        }
        tracing::warn!(sink = self.sink, "more than {limit} bytes of changes waited for a sink: it begins again with what the view holds");
        self.begin_again_with(&mut state, epoch, holds)
    }

    /// Begins again with what the view holds, after a failure.
    pub fn begin_again(&self, epoch: u64, holds: &[RecordBatch]) -> Result<()> {
        let mut state = self.state.lock();
        state.failure = None;
        self.begin_again_with(&mut state, epoch, holds)
    }

    fn begin_again_with(&self, state: &mut State, epoch: u64, holds: &[RecordBatch]) -> Result<()> {
        // Of the rows that went away the keys must still be told.
        let waiting = state.blocks.iter().map(|block| block.segment.batch.clone()).chain(state.fresh.iter().map(|(_, rows)| rows.clone()));
        let mut gone = vec![];
        for rows in waiting {
            let weights = rows.column(rows.num_columns() - 1).as_primitive::<Int64Type>();
            let taken: BooleanArray = weights.iter().map(|weight| Some(weight.is_some_and(|weight| weight < 0))).collect();
            gone.push(filter_record_batch(&rows, &taken)?);
        }
        state.forget();
        for rows in gone.into_iter().filter(|rows| rows.num_rows() > 0) {
            state.bytes += rows.get_array_memory_size();
            state.add(epoch, rows);
        }
        if state.bytes > self.options.limit / 2 {
            state.forget();
            state.failure = Some("more keys have changed while it could not write than 'max.lag.bytes' has room for: give it more".into());
            self.told.notify_all();
            return Ok(());
        }
        self.add_snapshot(state, epoch, holds)
    }

    fn weighted(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let width = self.schema.fields().len() - 1;
        let mut columns: Vec<ArrayRef> = batch.columns()[..width].to_vec();
        columns.push(match batch.columns().get(width) {
            Some(weights) => weights.clone(),
            None => Arc::new(Int64Array::from(vec![1; batch.num_rows()])),
        });
        Ok(RecordBatch::try_new(self.schema.clone(), columns)?)
    }

    /// Seals what has come, for a checkpoint: what that holds of the outbox, and the number that is durable when the checkpoint counts.
    pub fn seal(&self) -> Result<(Value, Blocks, Sealed)> {
        let mut state = self.state.lock();
        self.seal_fresh(&mut state)?;
        let blocks = state.blocks.iter().map(|b| StoredBlock { id: b.id, begin: b.begin, epochs: b.epochs.clone(), bytes: b.bytes }).collect();
        let stored = Stored {
            options: self.options,
            end: state.end,
            taken: state.taken,
            next_block: state.next_block,
            blocks,
            failure: state.failure.clone(),
            newest_epoch: state.newest_epoch,
            taken_epoch: state.taken_epoch,
            ahead: state.ahead,
        };
        let segments = state.blocks.iter().map(|block| (block.id, block.segment.clone())).collect();
        Ok((json!(stored), segments, Sealed { end: state.sealed, taken: state.taken }))
    }

    /// A checkpoint that holds this counts.
    pub fn durable(&self, sealed: Sealed) {
        let mut state = self.state.lock();
        state.durable = state.durable.max(sealed.end);
        state.saved = state.saved.max(sealed.taken);
        self.told.notify_all();
    }

    /// Whether rows wait for a checkpoint, and their sink for them.
    pub fn wants_checkpoint(&self) -> bool {
        let state = self.state.lock();
        // One that has rows and does not write them, since it is paused or its broker away, needs no more of them soon.
        let writes = state.taken >= state.durable || state.taken > state.saved;
        state.failure.is_none() && state.end > state.durable && writes
    }

    /// Whether the sink has written rows that the newest checkpoint still holds for it.
    pub fn has_moved(&self) -> bool {
        let state = self.state.lock();
        state.taken > state.saved
    }

    /// How long a change waits for its checkpoint, about.
    pub fn interval(&self) -> Duration {
        self.options.interval
    }

    /// A sink goes on at this row, or where the outbox says that it was; returns where. An error: its own cursor can't be right.
    pub fn go_on(&self, cursor: Option<u64>) -> Result<u64> {
        let mut state = self.state.lock();
        let Some(cursor) = cursor else { return Ok(state.taken) };
        let given = state.given.max(state.taken);
        // What is given later under the numbers behind that are other rows than those that were written.
        let same = state.ahead.map_or(given, |ahead| ahead.min(given));
        if cursor > same {
            state.ahead = Some(same);
            return Err(Error::Invalid(format!(
                "its cursor says that {cursor} rows were written, but its view has given only {same} of them: the server's state is older than what the sink has written"
            )));
        }
        state.written(cursor);
        Ok(state.taken)
    }

    /// The next rows to write; waits a while for them.
    pub fn next(&self, wait: Duration) -> Result<Next> {
        self.next_from(0, wait)
    }

    /// The rows to write from this number on, if those before it are not written yet but taken already; waits a while for them.
    pub fn next_from(&self, from: u64, wait: Duration) -> Result<Next> {
        let until = Instant::now() + wait;
        let mut state = self.state.lock();
        loop {
            if let Some(reason) = &state.failure {
                return Ok(Next::Failed(reason.clone()));
            }
            if let Some(piece) = state.piece(from) {
                state.given = state.given.max(piece.end());
                return Ok(Next::Piece(piece));
            }
            if self.told.wait_until(&mut state, until).timed_out() {
                return Ok(Next::Nothing);
            }
        }
    }

    /// All rows before this one were written.
    pub fn written(&self, upto: u64) {
        self.state.lock().written(upto);
    }

    /// How far the sink is.
    pub fn lag(&self) -> Lag {
        let state = self.state.lock();
        let rows = state.end - state.taken.min(state.end);
        Lag {
            epoch: state.taken_epoch,
            epochs: if rows == 0 { 0 } else { state.newest_epoch.saturating_sub(state.taken_epoch) },
            rows,
            bytes: state.bytes,
            cursor: state.taken,
        }
    }

    /// Why nothing is kept for the sink any more.
    pub fn failure(&self) -> Option<String> {
        self.state.lock().failure.clone()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

/// The rows that an outbox holds, by the numbers of their blocks.
pub type Blocks = Vec<(u64, Arc<Segment>)>;

/// What a checkpoint holds of an outbox, once it counts.
#[derive(Debug, Clone, Copy)]
pub struct Sealed {
    end: u64,
    taken: u64,
}

impl State {
    fn add(&mut self, epoch: u64, rows: RecordBatch) {
        self.end += rows.num_rows() as u64;
        self.newest_epoch = epoch;
        self.fresh.push((epoch, rows));
    }

    /// A block of rows, behind those that there are.
    fn seal(&mut self, rows: RecordBatch, epochs: Vec<(u64, u64)>, bytes: usize) {
        let (id, begin) = (self.next_block, self.sealed);
        self.next_block += 1;
        self.sealed += rows.num_rows() as u64;
        self.blocks.push_back(Block { id, begin, segment: Arc::new(Segment::new(rows)), epochs, bytes });
    }

    /// Forgets what waits; numbers go on.
    fn forget(&mut self) {
        self.blocks.clear();
        self.fresh.clear();
        (self.bytes, self.sealed, self.taken) = (0, self.end, self.end);
    }

    fn written(&mut self, upto: u64) {
        self.taken = self.taken.max(upto);
        while let Some(block) = self.blocks.front().filter(|block| block.end() <= self.taken) {
            self.taken_epoch = block.epochs.last().map_or(self.taken_epoch, |(epoch, _)| *epoch);
            self.bytes = self.bytes.saturating_sub(block.bytes);
            self.blocks.pop_front();
        }
    }

    fn piece(&self, from: u64) -> Option<Piece> {
        let from = from.max(self.taken);
        let block = self.blocks.iter().find(|block| block.end() > from).filter(|block| block.end() <= self.durable)?;
        let from = from.saturating_sub(block.begin) as usize;
        let rows = &block.segment.batch;
        let upto = cut(rows, from);
        let mut epochs = vec![];
        let mut at = 0;
        for (epoch, count) in &block.epochs {
            let (begin, end) = (at.max(from as u64), (at + count).min(upto as u64));
            if begin < end {
                epochs.push((*epoch, end - begin));
            }
            at += count;
        }
        Some(Piece { begin: block.begin + from as u64, rows: rows.slice(from, upto - from), epochs })
    }
}

impl Block {
    fn end(&self) -> u64 {
        self.begin + self.segment.batch.num_rows() as u64
    }
}

/// Where a piece that begins at this row of a block ends: the same whenever it is asked, and never within an update.
fn cut(rows: &RecordBatch, from: usize) -> usize {
    let weights = rows.column(rows.num_columns() - 1).as_primitive::<Int64Type>();
    let mut upto = (from + PIECE).min(rows.num_rows());
    while upto < rows.num_rows() && weights.value(upto - 1) < 0 {
        upto += 1;
    }
    upto
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;

    const OPTIONS: OutboxOptions = OutboxOptions { limit: 1 << 20, restart: false, interval: Duration::ZERO };

    fn columns() -> Schema {
        Schema::new(vec![Field::new("v", DataType::Int64, false)])
    }

    fn rows(values: impl IntoIterator<Item = i64>) -> RecordBatch {
        RecordBatch::try_new(Arc::new(columns()), vec![Arc::new(Int64Array::from_iter_values(values))]).unwrap()
    }

    fn values(piece: &Piece) -> Vec<i64> {
        piece.rows.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    fn piece(outbox: &Outbox) -> Option<Piece> {
        match outbox.next(Duration::ZERO).unwrap() {
            Next::Piece(piece) => Some(piece),
            _ => None,
        }
    }

    fn reopened(meta: &Value, segments: &[(u64, Arc<Segment>)]) -> Outbox {
        let stored = segments.iter().map(|(id, segment)| StoredSegment { id: *id, batch: segment.batch.clone(), tombstones: vec![] }).collect();
        Outbox::restore(7, &columns(), meta, stored).unwrap()
    }

    #[test]
    fn only_what_a_checkpoint_holds_is_given() {
        let outbox = Outbox::new(7, OPTIONS, &columns());
        outbox.push(3, &[rows([1, 2])]).unwrap();
        assert!(piece(&outbox).is_none() && outbox.wants_checkpoint());
        let (_, _, sealed) = outbox.seal().unwrap();
        assert!(piece(&outbox).is_none(), "the checkpoint does not count yet");
        outbox.push(4, &[rows([3])]).unwrap();
        outbox.durable(sealed);
        let first = piece(&outbox).unwrap();
        assert_eq!((first.begin, values(&first), first.epochs.clone()), (0, vec![1, 2], vec![(3, 2)]));
        outbox.written(first.end());
        assert!(piece(&outbox).is_none() && outbox.has_moved());
        assert_eq!(outbox.lag(), Lag { epoch: 3, epochs: 1, rows: 1, bytes: outbox.bytes(), cursor: 2 });
    }

    #[test]
    fn a_restart_gives_the_same_rows_under_the_same_numbers() {
        let outbox = Outbox::new(7, OPTIONS, &columns());
        outbox.push(3, &[rows([1, 2])]).unwrap();
        outbox.push(4, &[rows([3])]).unwrap();
        let (meta, segments, sealed) = outbox.seal().unwrap();
        outbox.durable(sealed);
        let given = piece(&outbox).unwrap();
        // What comes after the checkpoint is lost in a crash, and comes again in other epochs.
        outbox.push(5, &[rows([4])]).unwrap();
        let again = reopened(&meta, &segments);
        let same = piece(&again).unwrap();
        assert_eq!((same.begin, values(&same), same.epochs.clone()), (given.begin, values(&given), given.epochs.clone()));
        assert_eq!((same.epoch_of(1), same.epoch_of(2)), (3, 4));
        // The sink's own cursor decides where it goes on.
        let again = reopened(&meta, &segments);
        assert_eq!(again.go_on(Some(3)).unwrap(), 3);
        assert!(piece(&again).is_none());
        let again = reopened(&meta, &segments);
        assert!(again.go_on(Some(4)).unwrap_err().to_string().contains("only 3"), "the state is older than what was written");
        // However many other rows come under these numbers later, and in whatever state it is opened again.
        again.push(9, &[rows([7, 8, 9])]).unwrap();
        let (meta, segments, sealed) = again.seal().unwrap();
        again.durable(sealed);
        for later in [again, reopened(&meta, &segments)] {
            assert!(later.go_on(Some(4)).unwrap_err().to_string().contains("only 3"));
            assert_eq!(later.go_on(Some(3)).unwrap(), 3);
        }
    }

    #[test]
    fn large_blocks_are_given_in_pieces_that_do_not_depend_on_when_they_are_asked_for() {
        let outbox = Outbox::new(7, OutboxOptions { limit: usize::MAX, ..OPTIONS }, &columns());
        let count = PIECE as i64 * 2 + 10;
        outbox.push(1, &[rows(0..count)]).unwrap();
        let (meta, segments, sealed) = outbox.seal().unwrap();
        outbox.durable(sealed);
        let mut seen = vec![];
        let mut cuts = vec![];
        while let Some(piece) = piece(&outbox) {
            seen.extend(values(&piece));
            cuts.push(piece.end());
            outbox.written(piece.end());
        }
        assert_eq!(seen, (0..count).collect::<Vec<_>>());
        assert_eq!(outbox.bytes(), 0);
        let again = reopened(&meta, &segments);
        again.go_on(Some(cuts[0])).unwrap();
        assert_eq!(piece(&again).unwrap().end(), cuts[1]);
    }

    #[test]
    fn too_much_that_waits_fails_the_sink_or_begins_it_again() {
        let small = OutboxOptions { limit: 100, ..OPTIONS };
        let outbox = Outbox::new(7, small, &columns());
        outbox.push(1, &[rows(0..1000)]).unwrap();
        assert!(outbox.is_over());
        outbox.give_up(1, &[rows([5])]).unwrap();
        assert!(matches!(outbox.next(Duration::ZERO).unwrap(), Next::Failed(_)));
        assert_eq!(outbox.bytes(), 0);
        outbox.begin_again(2, &[rows([5])]).unwrap();
        let (_, _, sealed) = outbox.seal().unwrap();
        outbox.durable(sealed);
        let snapshot = piece(&outbox).unwrap();
        assert_eq!((snapshot.begin, values(&snapshot)), (1000, vec![5]), "numbers go on");
        let outbox = Outbox::new(7, OutboxOptions { restart: true, ..small }, &columns());
        outbox.push(1, &[rows(0..1000)]).unwrap();
        outbox.give_up(1, &[rows([5])]).unwrap();
        let (_, _, sealed) = outbox.seal().unwrap();
        outbox.durable(sealed);
        assert_eq!(values(&piece(&outbox).unwrap()), [5]);
    }

    #[test]
    fn what_went_away_is_told_apart_from_what_the_view_holds() {
        let outbox = Outbox::new(7, OutboxOptions { restart: true, ..OPTIONS }, &columns());
        let changed = |value: i64, weight: i64| {
            let mut schema = columns().fields().to_vec();
            schema.push(weight_field());
            RecordBatch::try_new(Arc::new(Schema::new(schema)), vec![Arc::new(Int64Array::from(vec![value])), Arc::new(Int64Array::from(vec![weight]))])
                .unwrap()
        };
        // 10, 11 and 10 again: what came of it must not be weighed against what there is now.
        outbox.push(1, &[changed(10, -1), changed(11, 1)]).unwrap();
        outbox.push(2, &[changed(11, -1), changed(10, 1)]).unwrap();
        outbox.give_up(2, &[rows([10])]).unwrap();
        let (meta, segments, sealed) = outbox.seal().unwrap();
        outbox.durable(sealed);
        for outbox in [outbox, reopened(&meta, &segments)] {
            let gone = piece(&outbox).unwrap();
            assert_eq!((gone.begin, values(&gone)), (4, vec![10, 11]));
            outbox.written(gone.end());
            let holds = piece(&outbox).unwrap();
            assert_eq!((holds.begin, values(&holds)), (6, vec![10]));
            outbox.written(holds.end());
            assert_eq!((outbox.lag().rows, outbox.bytes()), (0, 0));
        }
    }

    #[test]
    fn a_sink_that_does_not_write_asks_for_no_checkpoints() {
        let outbox = Outbox::new(7, OPTIONS, &columns());
        outbox.push(1, &[rows([1, 2])]).unwrap();
        assert!(outbox.wants_checkpoint());
        let (_, _, sealed) = outbox.seal().unwrap();
        outbox.durable(sealed);
        outbox.push(2, &[rows([3])]).unwrap();
        assert!(!outbox.wants_checkpoint(), "it has rows to write");
        outbox.written(1);
        assert!(outbox.wants_checkpoint(), "it writes");
    }
}
