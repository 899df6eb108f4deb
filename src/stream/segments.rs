//! An append-only log of immutable Arrow batches whose rows can be replaced and removed.
//!
//! It is the one container of everything that lasts: operator state, view contents, late and error rows. Rows have stable
//! ids ([`RowId`]); a segment is never changed, only rows in it die. So a snapshot is a list of pointers, a change of ten rows
//! costs ten rows, and an incremental checkpoint is the segments made since the last one plus who died.
//!
//! Invariant: every live row id points at exactly one row, and that row's segment names the id back.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StructArray, UInt32Array},
    buffer::{BooleanBuffer, MutableBuffer},
    compute::{filter_record_batch, interleave, interleave_record_batch, take, take_record_batch},
    datatypes::{DataType, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};

use super::lookup::{self, Lookups};
use crate::error::{Error, Result};

/// Rows of several batches as one.
pub fn gathered(schema: &SchemaRef, parts: &[&RecordBatch], places: &[(usize, usize)]) -> Result<RecordBatch> {
    if places.is_empty() {
        return Ok(RecordBatch::new_empty(schema.clone()));
    }
    if schema.fields().is_empty() {
        return Ok(RecordBatch::try_new_with_options(schema.clone(), vec![], &RecordBatchOptions::new().with_row_count(Some(places.len())))?);
    }
    let columns = interleave_record_batch(parts, places)?.columns().to_vec();
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// A row's name for as long as it lives; reused after it died.
pub type RowId = u32;

/// Merged segments grow to at most this many rows, so that a death copies at most 2 KiB of tombstones.
const SEGMENT_ROWS: usize = 16 * 1024;
/// So many small segments at the end are merged into one.
const TIER: usize = 8;

/// One immutable batch and which of its rows have died since.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The rows as they were appended.
    pub batch: RecordBatch,
    /// One bit a row, set when the row has died; `None`: all live.
    dead: Option<Arc<Vec<u64>>>,
    /// How many rows have died.
    dead_rows: usize,
    /// Where values are, for those who look for them.
    lookups: Arc<Lookups>,
}

impl Segment {
    pub(super) fn new(batch: RecordBatch) -> Self {
        Self { batch, dead: None, dead_rows: 0, lookups: Arc::default() }
    }

    fn is_dead(&self, row: usize) -> bool {
        self.dead.as_ref().is_some_and(|bits| bits[row / 64] >> (row % 64) & 1 == 1)
    }

    fn bury(&mut self, rows: impl Iterator<Item = usize>) {
        let words = self.batch.num_rows().div_ceil(64);
        let bits = Arc::make_mut(self.dead.get_or_insert_with(|| Arc::new(vec![0; words])));
        for row in rows {
            bits[row / 64] |= 1 << (row % 64);
            self.dead_rows += 1;
        }
    }

    /// Rows that are still live.
    pub fn live_rows(&self) -> usize {
        self.batch.num_rows() - self.dead_rows
    }

    /// The live rows as a batch.
    pub fn live(&self) -> Result<RecordBatch> {
        self.live_of(self.batch.clone())
    }

    /// The live rows of some of its columns.
    fn live_of(&self, columns: RecordBatch) -> Result<RecordBatch> {
        let Some(bits) = &self.dead else { return Ok(columns) };
        let rows = columns.num_rows();
        let mut keep = MutableBuffer::with_capacity(bits.len() * 8);
        bits.iter().for_each(|word| keep.push(!word));
        Ok(filter_record_batch(&columns, &BooleanArray::new(BooleanBuffer::new(keep.into(), 0, rows), None))?)
    }

    /// Live rows among which are all that have one of the values of these hashes in a column.
    fn candidates(&self, column: usize, hashes: &[u32]) -> Result<Vec<u32>> {
        let mut rows = self.lookups.rows(column, self.batch.column(column), self.batch.num_columns(), hashes)?;
        rows.retain(|row| !self.is_dead(*row as usize));
        Ok(rows)
    }

    /// What tells this segment's batch from those of others while both are there; `None` for a batch without columns.
    pub(super) fn identity(&self) -> Option<usize> {
        self.batch.columns().first().map(|column| Arc::as_ptr(column).cast::<()>() as usize)
    }

    /// The tombstones, for a checkpoint; empty when all rows live.
    pub fn tombstones(&self) -> &[u64] {
        self.dead.as_ref().map_or(&[], |bits| bits.as_slice())
    }
}

/// What readers hold: the live rows of a log at one epoch, unaffected by what comes after.
#[derive(Debug, Clone)]
pub struct Snapshot {
    schema: SchemaRef,
    segments: Arc<[Arc<Segment>]>,
    rows: usize,
}

impl Snapshot {
    /// The rows' schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The segments, oldest first.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter()
    }

    /// Some columns of the live rows, segment by segment; all if nobody says which.
    pub fn batches_of(&self, columns: Option<&Vec<usize>>) -> Result<Vec<RecordBatch>> {
        let of = |segment: &Arc<Segment>| segment.live_of(projected(&segment.batch, columns)?);
        self.segments.iter().map(of).collect()
    }

    /// Some columns of those rows among which are all that have one of these values in a column: few others. Found by indexes that are made
    /// when they are first needed.
    pub fn having(&self, column: usize, values: &ArrayRef, columns: Option<&Vec<usize>>) -> Result<Vec<RecordBatch>> {
        let hashes = lookup::hashes(values)?;
        let mut found = vec![];
        for segment in self.segments.iter() {
            let rows = segment.candidates(column, &hashes)?;
            if !rows.is_empty() {
                found.push(take_record_batch(&projected(&segment.batch, columns)?, &UInt32Array::from(rows))?);
            }
        }
        Ok(found)
    }

    /// How many rows [`Self::having`] would give.
    pub fn count_having(&self, column: usize, values: &ArrayRef) -> Result<usize> {
        let hashes = lookup::hashes(values)?;
        self.segments.iter().map(|segment| Ok(segment.candidates(column, &hashes)?.len())).sum()
    }

    /// The live rows, segment by segment.
    pub fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> + Send + 'static {
        let segments = self.segments.clone();
        (0..segments.len()).map(move |i| segments[i].live())
    }
}

fn projected(batch: &RecordBatch, columns: Option<&Vec<usize>>) -> Result<RecordBatch> {
    Ok(match columns {
        Some(columns) => batch.project(columns)?,
        None => batch.clone(),
    })
}

/// A segment as a checkpoint keeps it: its number, its rows, its tombstones.
#[derive(Debug, Clone)]
pub struct StoredSegment {
    /// The segment's number in its log: never reused.
    pub id: u64,
    /// The rows as they were appended.
    pub batch: RecordBatch,
    /// See [`Segment::tombstones`].
    pub tombstones: Vec<u64>,
}

/// There is one for each row: packed, so that it takes 12 bytes and not 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, packed(4))]
struct Place {
    segment: u64,
    row: u32,
}

const NOWHERE: Place = Place { segment: u64::MAX, row: 0 };

/// The log itself; one writer.
#[derive(Debug)]
pub struct SegmentLog {
    schema: SchemaRef,
    segments: BTreeMap<u64, Arc<Segment>>,
    /// For each segment the id of each of its rows.
    owners: BTreeMap<u64, Vec<RowId>>,
    /// Where each row id's row is.
    places: Vec<Place>,
    free: Vec<RowId>,
    next_segment: u64,
    live: usize,
    /// Rows that died since the log was compacted last.
    died: usize,
    /// Bytes of all segments' batches, kept so that nobody has to add them up each epoch.
    stored_bytes: usize,
}

impl SegmentLog {
    /// An empty log of rows of this schema.
    pub fn new(schema: SchemaRef) -> Self {
        Self { schema, segments: BTreeMap::new(), owners: BTreeMap::new(), places: vec![], free: vec![], next_segment: 0, live: 0, died: 0, stored_bytes: 0 }
    }

    /// The rows' schema.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Live rows.
    pub fn rows(&self) -> usize {
        self.live
    }

    /// Bytes held, the index of places included.
    pub fn bytes(&self) -> usize {
        self.stored_bytes + self.places.len() * 16
    }

    /// Appends rows under new ids.
    pub fn append(&mut self, batch: RecordBatch) -> Vec<RowId> {
        let ids: Vec<RowId> = (0..batch.num_rows()).map(|_| self.allocate()).collect();
        self.put(batch, ids.clone());
        ids
    }

    fn allocate(&mut self) -> RowId {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(NOWHERE);
            (self.places.len() - 1) as RowId
        })
    }

    /// Appends one row per slot: `None` gets a new id, `Some(id)` replaces that id's row. Returns the ids.
    pub fn upsert(&mut self, batch: RecordBatch, slots: &[Option<RowId>]) -> Vec<RowId> {
        self.bury(&slots.iter().flatten().copied().collect::<Vec<_>>());
        let ids: Vec<RowId> = slots.iter().map(|slot| slot.unwrap_or_else(|| self.allocate())).collect();
        self.put(batch, ids.clone());
        ids
    }

    fn put(&mut self, batch: RecordBatch, ids: Vec<RowId>) {
        if ids.is_empty() {
            return;
        }
        let segment = self.next_segment;
        self.next_segment += 1;
        for (row, id) in ids.iter().enumerate() {
            self.places[*id as usize] = Place { segment, row: row as u32 };
        }
        self.live += ids.len();
        let batch = own_buffers(batch);
        self.stored_bytes += batch.get_array_memory_size();
        self.segments.insert(segment, Arc::new(Segment::new(batch)));
        self.owners.insert(segment, ids);
    }

    /// Removes a row; its id may be given to another row later.
    pub fn remove(&mut self, id: RowId) {
        self.remove_all(&[id]);
    }

    /// Removes rows, each named once.
    pub fn remove_all(&mut self, ids: &[RowId]) {
        self.bury(ids);
        for id in ids {
            self.places[*id as usize] = NOWHERE;
        }
        self.free.extend(ids);
    }

    /// Rows that came together often go together.
    fn bury(&mut self, ids: &[RowId]) {
        let places = &self.places;
        let segment_of = |id: RowId| places[id as usize].segment;
        for together in ids.chunk_by(|a, b| segment_of(*a) == segment_of(*b)) {
            if let Some(segment) = self.segments.get_mut(&segment_of(together[0])) {
                Arc::make_mut(segment).bury(together.iter().map(|id| places[*id as usize].row as usize));
                self.live -= together.len();
                self.died += together.len();
            }
        }
    }

    /// The rows of these ids, in this order.
    pub fn gather(&self, ids: &[RowId]) -> Result<RecordBatch> {
        self.gather_columns(ids, &(0..self.schema.fields().len()).collect::<Vec<_>>())
    }

    /// Some columns of the rows of these ids, in this order.
    pub fn gather_columns(&self, ids: &[RowId], columns: &[usize]) -> Result<RecordBatch> {
        let schema = if columns.len() == self.schema.fields().len() { self.schema.clone() } else { Arc::new(self.schema.project(columns)?) };
        if ids.is_empty() {
            return Ok(RecordBatch::new_empty(schema));
        }
        let mut segments: Vec<u64> = ids.iter().map(|id| self.places[*id as usize].segment).collect();
        segments.sort_unstable();
        segments.dedup();
        let batches = segments
            .iter()
            .map(|s| self.segments.get(s).map(|s| &s.batch).ok_or_else(|| Error::Internal("a row that is not there was asked for".into())))
            .collect::<Result<Vec<_>>>()?;
        let positions: Vec<(usize, usize)> = ids
            .iter()
            .map(|id| {
                let Place { segment, row } = self.places[*id as usize];
                (segments.partition_point(|s| *s < segment), row as usize)
            })
            .collect();
        let of_column = |column: &usize| interleave(&batches.iter().map(|batch| batch.column(*column).as_ref()).collect::<Vec<_>>(), &positions);
        let gathered = columns.iter().map(of_column).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new_with_options(schema, gathered, &RecordBatchOptions::new().with_row_count(Some(ids.len())))?)
    }

    /// Every live row with its id, segment by segment.
    pub fn live(&self) -> impl Iterator<Item = Result<(Vec<RowId>, RecordBatch)>> + '_ {
        self.segments.iter().map(|(number, segment)| Ok((self.live_ids(*number, segment).collect(), segment.live()?)))
    }

    fn live_ids<'a>(&'a self, number: u64, segment: &'a Segment) -> impl Iterator<Item = RowId> + 'a {
        self.owners[&number].iter().enumerate().filter(|(row, _)| !segment.is_dead(*row)).map(|(_, id)| *id)
    }

    /// Merges small segments and drops dead ones. Call between epochs: it changes no row, only where rows lie, and moves few more rows
    /// than have died since the last time.
    pub fn compact(&mut self) -> Result<()> {
        self.drop_dead();
        // Tiers: when the newest segments, of the newest one's size class or smaller, are TIER or more, they become one.
        let class = |rows: usize| rows.max(1).ilog2() / TIER.ilog2();
        while let Some(newest) = self.segments.values().next_back() {
            let size = class(newest.live_rows());
            let mut rows = 0;
            let tail: Vec<u64> = self
                .segments
                .iter()
                .rev()
                .take_while(|(_, s)| {
                    rows += s.live_rows();
                    class(s.live_rows()) <= size && rows <= SEGMENT_ROWS
                })
                .map(|(number, _)| *number)
                .collect();
            if tail.len() < TIER {
                break;
            }
            self.merge(tail)?;
        }
        // Space: while more than half of what is stored is dead, live rows leave the segments that hold the most of it.
        let stored: usize = self.segments.values().map(|s| s.batch.num_rows()).sum();
        if stored > 2 * self.live + SEGMENT_ROWS {
            self.thin_out(self.died.max(SEGMENT_ROWS))?;
        }
        self.died = 0;
        Ok(())
    }

    /// Moves at most so many live rows out of segments of which less than half is live, the sparsest first. All at once would hold an epoch
    /// up for a tenth of a second at a million keys. A segment that is left half done comes first the next time; since each row moved frees the
    /// room of one that has died at least, as many as have died are enough to keep up.
    fn thin_out(&mut self, most: usize) -> Result<()> {
        let sparse = self.segments.iter().filter(|(_, s)| s.dead_rows * 2 > s.batch.num_rows());
        let mut by_share: Vec<(usize, u64)> = sparse.map(|(number, s)| (s.live_rows() * SEGMENT_ROWS / s.batch.num_rows(), *number)).collect();
        by_share.sort_unstable();
        let ids: Vec<RowId> = by_share.iter().flat_map(|(_, number)| self.live_ids(*number, &self.segments[number])).take(most).collect();
        for part in ids.chunks(SEGMENT_ROWS) {
            let rows = self.gather(part)?;
            self.upsert(rows, &part.iter().copied().map(Some).collect::<Vec<_>>());
        }
        self.drop_dead();
        Ok(())
    }

    fn drop_dead(&mut self) {
        let dead: Vec<u64> = self.segments.iter().filter(|(_, s)| s.live_rows() == 0).map(|(number, _)| *number).collect();
        dead.into_iter().for_each(|number| self.drop_segment(number));
    }

    fn drop_segment(&mut self, number: u64) {
        if let Some(segment) = self.segments.remove(&number) {
            self.stored_bytes -= segment.batch.get_array_memory_size();
        }
        self.owners.remove(&number);
    }

    fn merge(&mut self, mut numbers: Vec<u64>) -> Result<()> {
        numbers.sort_unstable();
        let mut ids = vec![];
        for number in &numbers {
            ids.extend(self.live_ids(*number, &self.segments[number]));
        }
        let batch = self.gather(&ids)?;
        for number in numbers {
            self.drop_segment(number);
        }
        self.live -= ids.len();
        self.put(batch, ids);
        Ok(())
    }

    /// Drops the oldest rows until at most `rows` are left; returns how many went.
    pub fn keep_newest(&mut self, rows: usize) -> usize {
        let mut dropped = 0;
        while self.live > rows {
            let Some(oldest) = self.segments.keys().next().copied() else { break };
            let ids = self.owners[&oldest].clone();
            let segment = self.segments[&oldest].clone();
            for (row, id) in ids.into_iter().enumerate() {
                if self.live <= rows {
                    return dropped;
                }
                if !segment.is_dead(row) {
                    self.remove(id);
                    dropped += 1;
                }
            }
            self.drop_segment(oldest);
        }
        dropped
    }

    /// What readers hold from now on.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { schema: self.schema.clone(), segments: self.segments.values().cloned().collect(), rows: self.live }
    }

    /// The segments for a checkpoint: numbers with shared pointers, no copy.
    pub fn segments(&self) -> impl Iterator<Item = (u64, Arc<Segment>)> + '_ {
        self.segments.iter().map(|(number, segment)| (*number, segment.clone()))
    }

    /// A log from a checkpoint's segments. Row ids are given anew.
    pub fn restore(schema: SchemaRef, stored: Vec<StoredSegment>) -> Result<Self> {
        let mut log = Self::new(schema);
        for StoredSegment { id, batch, tombstones } in stored {
            if *batch.schema() != *log.schema {
                return Err(Error::Internal("a checkpoint's rows do not have the schema that its view has now".into()));
            }
            let rows = batch.num_rows();
            let mut segment = Segment::new(batch);
            if !tombstones.is_empty() {
                if tombstones.len() != rows.div_ceil(64) {
                    return Err(Error::Internal("a checkpoint's tombstones do not fit its rows".into()));
                }
                segment.dead_rows = tombstones.iter().map(|word| word.count_ones() as usize).sum();
                segment.dead = Some(Arc::new(tombstones));
            }
            let mut owners = vec![0; rows];
            for (row, owner) in owners.iter_mut().enumerate() {
                if !segment.is_dead(row) {
                    *owner = log.allocate();
                    log.places[*owner as usize] = Place { segment: id, row: row as u32 };
                    log.live += 1;
                }
            }
            log.next_segment = log.next_segment.max(id + 1);
            log.stored_bytes += segment.batch.get_array_memory_size();
            log.segments.insert(id, Arc::new(segment));
            log.owners.insert(id, owners);
        }
        Ok(log)
    }
}

/// Rows that stay get buffers of their own and of their size: text views may point into large shared ones (a payload slice, other
/// segments), and a filter leaves room for its whole batch around the few rows that passed.
fn own_buffers(batch: RecordBatch) -> RecordBatch {
    let columns = batch.columns().iter().map(own_buffer).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    // The columns have the types and lengths they had.
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).unwrap_or(batch)
}

fn own_buffer(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        DataType::Struct(_) => {
            let (fields, columns, nulls) = array.as_struct().clone().into_parts();
            let columns = columns.iter().map(own_buffer).collect();
            StructArray::try_new_with_length(fields, columns, nulls, array.len()).map_or_else(|_| array.clone(), |owned| Arc::new(owned) as ArrayRef)
        }
        DataType::List(_) => {
            let (field, offsets, values, nulls) = array.as_list::<i32>().clone().into_parts();
            ListArray::try_new(field, offsets, own_buffer(&values), nulls).map_or_else(|_| array.clone(), |owned| Arc::new(owned) as ArrayRef)
        }
        _ => {
            let needed = array.to_data().get_slice_memory_size().unwrap_or(usize::MAX / 4);
            if array.get_buffer_memory_size() <= 2 * needed + 256 {
                return array.clone();
            }
            take(array, &UInt32Array::from_iter_values(0..array.len() as u32), None).unwrap_or_else(|_| array.clone())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use arrow::{
        array::Int64Array,
        datatypes::{Field, Int64Type, Schema},
    };
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]))
    }

    fn batch(values: &[i64]) -> RecordBatch {
        RecordBatch::try_new(schema(), vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap()
    }

    fn values(snapshot: &Snapshot) -> Vec<i64> {
        let mut all: Vec<i64> = snapshot.batches().flat_map(|b| b.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        all.sort_unstable();
        all
    }

    /// Random appends, replacements, removals, compactions and restores against a plain map.
    #[test]
    fn behaves_like_a_map() {
        for seed in 0..60 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut log = SegmentLog::new(schema());
            let mut model: HashMap<RowId, i64> = HashMap::new();
            let mut held: Vec<(Snapshot, Vec<i64>)> = vec![];
            for step in 0..200 {
                let fresh: Vec<i64> = (0..rng.random_range(0..40)).map(|i| step * 1000 + i).collect();
                let known: Vec<RowId> = model.keys().copied().collect();
                match rng.random_range(0..10) {
                    0..=3 => {
                        let mut used = std::collections::HashSet::new();
                        let slots: Vec<Option<RowId>> = fresh
                            .iter()
                            .map(|_| {
                                if known.is_empty() || rng.random_bool(0.5) {
                                    None
                                } else {
                                    Some(known[rng.random_range(0..known.len())]).filter(|id| used.insert(*id))
                                }
                            })
                            .collect();
                        for (id, value) in log.upsert(batch(&fresh), &slots).into_iter().zip(&fresh) {
                            model.insert(id, *value);
                        }
                    }
                    4..=5 => {
                        for (id, value) in log.append(batch(&fresh)).into_iter().zip(&fresh) {
                            assert!(model.insert(id, *value).is_none(), "an id was given twice");
                        }
                    }
                    6..=7 => {
                        for id in known.iter().take(rng.random_range(0..20)) {
                            log.remove(*id);
                            model.remove(id);
                        }
                    }
                    8 => log.compact().unwrap(),
                    _ => {
                        let stored = log.segments().map(|(id, s)| StoredSegment { id, batch: s.batch.clone(), tombstones: s.tombstones().to_vec() }).collect();
                        log = SegmentLog::restore(schema(), stored).unwrap();
                        model.clear();
                        for part in log.live() {
                            let (ids, rows) = part.unwrap();
                            model.extend(ids.into_iter().zip(rows.column(0).as_primitive::<Int64Type>().values().iter().copied()));
                        }
                    }
                }
                let mut want: Vec<i64> = model.values().copied().collect();
                want.sort_unstable();
                assert_eq!(values(&log.snapshot()), want, "seed {seed} step {step}");
                assert_eq!(log.rows(), want.len());
                let ids: Vec<RowId> = model.keys().copied().collect();
                let gathered = log.gather(&ids).unwrap();
                assert_eq!(gathered.column(0).as_primitive::<Int64Type>().values().to_vec(), ids.iter().map(|id| model[id]).collect::<Vec<_>>());
                if rng.random_bool(0.1) {
                    held.push((log.snapshot(), want));
                }
            }
            for (snapshot, want) in held {
                assert_eq!(values(&snapshot), want, "a held snapshot changed (seed {seed})");
            }
        }
    }

    #[test]
    fn small_appends_do_not_pile_up() {
        let mut log = SegmentLog::new(schema());
        for i in 0..5000 {
            log.append(batch(&[i]));
            log.compact().unwrap();
        }
        assert!(log.segments().count() < 60, "{} segments", log.segments().count());
        assert_eq!(log.rows(), 5000);
    }

    #[test]
    fn few_rows_of_a_large_buffer_do_not_hold_it() {
        let mut log = SegmentLog::new(schema());
        let large = batch(&(0..100_000).collect::<Vec<_>>());
        log.append(large.slice(500, 3));
        assert!(log.bytes() < 2_000, "{} bytes for three rows", log.bytes());
        assert_eq!(values(&log.snapshot()), [500, 501, 502]);
    }

    #[test]
    fn keeps_the_newest_rows() {
        let mut log = SegmentLog::new(schema());
        for i in 0..10 {
            log.append(batch(&[i * 2, i * 2 + 1]));
        }
        assert_eq!(log.keep_newest(5), 15);
        assert_eq!(values(&log.snapshot()), vec![15, 16, 17, 18, 19]);
        log.compact().unwrap();
        assert_eq!(log.keep_newest(5), 0);
    }

    #[test]
    fn death_frees_space() {
        let mut log = SegmentLog::new(schema());
        let mut ids = vec![];
        for i in 0..200_000 / 1000 {
            ids.extend(log.append(batch(&(0..1000).map(|j| i * 1000 + j).collect::<Vec<_>>())));
            log.compact().unwrap();
        }
        for (i, id) in ids.iter().enumerate() {
            if i % 10 != 0 {
                log.remove(*id);
            }
        }
        log.compact().unwrap();
        assert!(stored(&log) <= 2 * log.rows() + SEGMENT_ROWS, "{} rows stored for {}", stored(&log), log.rows());
    }

    fn stored(log: &SegmentLog) -> usize {
        log.segments().map(|(_, s)| s.batch.num_rows()).sum()
    }

    /// Small changes of a large log: no compaction moves much at once, and yet the dead do not pile up.
    #[test]
    fn compaction_moves_a_little_at_a_time_and_keeps_up() {
        const KEYS: usize = 20 * SEGMENT_ROWS;
        const CHANGED: usize = 1000;
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut log = SegmentLog::new(schema());
        let mut ids = vec![];
        for _ in 0..5 {
            ids.extend(log.append(batch(&vec![0; KEYS / 5])));
            log.compact().unwrap();
        }
        let mut moved = 0;
        for _ in 0..2 * KEYS / CHANGED {
            let mut slots: Vec<RowId> = (0..CHANGED).map(|_| ids[rng.random_range(0..KEYS)]).collect();
            slots.sort_unstable();
            slots.dedup();
            log.upsert(batch(&vec![1; slots.len()]), &slots.iter().copied().map(Some).collect::<Vec<_>>());
            let newest = log.next_segment;
            log.compact().unwrap();
            let rows: usize = log.segments().filter(|(number, _)| *number >= newest).map(|(_, s)| s.batch.num_rows()).sum();
            // A merge of small segments, and what was thinned out.
            assert!(rows <= 2 * SEGMENT_ROWS, "{rows} rows at once");
            moved += rows;
            assert!(stored(&log) <= 2 * log.rows() + KEYS / 5, "{} rows stored for {}", stored(&log), log.rows());
        }
        assert!(moved > KEYS / 2, "only {moved} rows were moved: this tests nothing");
    }

    #[test]
    fn rows_are_found_by_a_value_as_a_scan_finds_them() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(11);
        let mut log = SegmentLog::new(schema());
        let mut ids = vec![];
        for _ in 0..60 {
            let values: Vec<i64> = (0..rng.random_range(1..900)).map(|_| rng.random_range(0..500)).collect();
            ids.extend(log.append(batch(&values)));
            for _ in 0..rng.random_range(0..200) {
                let id = ids.swap_remove(rng.random_range(0..ids.len()));
                log.remove(id);
            }
            log.compact().unwrap();
            let snapshot = log.snapshot();
            let wanted = [rng.random_range(0..600), rng.random_range(0..600)];
            let array = Arc::new(Int64Array::from(wanted.to_vec())) as ArrayRef;
            let found = snapshot.having(0, &array, None).unwrap();
            assert_eq!(found.iter().map(RecordBatch::num_rows).sum::<usize>(), snapshot.count_having(0, &array).unwrap());
            let mut found: Vec<i64> =
                found.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).filter(|v| wanted.contains(v)).collect();
            let mut all: Vec<i64> = values_of(&snapshot).into_iter().filter(|v| wanted.contains(v)).collect();
            found.sort_unstable();
            all.sort_unstable();
            assert_eq!(found, all);
        }
    }

    fn values_of(snapshot: &Snapshot) -> Vec<i64> {
        snapshot.batches_of(Some(&vec![0])).unwrap().iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }
}
