//! The rows that will leave, and when they came.

use std::{
    any::Any,
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, AsArray, Int64Array},
    datatypes::{DataType, Field, FieldRef, Int64Type, Schema, SchemaRef},
    record_batch::RecordBatch,
};
use serde_json::json;

use crate::{
    error::Result,
    stream::{
        epoch::{OperatorState, only_log},
        hidden::WEIGHT,
        key_map::KeyHash,
        row_index::RowIndex,
        segments::{RowId, SegmentLog, gathered},
    },
};

#[cfg(test)]
use crate::stream::tests::mutants::Mutant;

/// A batch of changes.
#[derive(Debug)]
pub struct Arriving {
    /// The rows.
    pub rows: RecordBatch,
    /// `1` adds the row, `-1` takes one like it away.
    pub weights: Int64Array,
}

/// The rows between epochs.
#[derive(Debug)]
pub struct ExpiryState {
    /// Nanoseconds that a row stays.
    ttl: i64,
    /// What it gives: the rows' columns and the weight.
    output: SchemaRef,
    rows: SchemaRef,
    /// The rows' columns, then when each came in nanoseconds since 1970.
    log: SegmentLog,
    /// Finds a row that is taken away; only where the input is a changing one.
    index: Option<RowIndex>,
    /// Rows by when they came.
    order: BTreeSet<(i64, RowId)>,
    staged: Option<Staged>,
}

/// One epoch's work, not yet part of the state.
#[derive(Debug)]
struct Staged {
    now: i64,
    gone: Vec<RowId>,
    come: RecordBatch,
}

impl ExpiryState {
    /// No rows. `output` ends with the weight; `changing`: the input takes rows away.
    pub fn new(output: SchemaRef, ttl: i64, changing: bool) -> Result<Self> {
        let rows: Vec<FieldRef> = output.fields().iter().filter(|field| field.name() != WEIGHT).cloned().collect();
        let rows = Arc::new(Schema::new(rows));
        let came: FieldRef = Arc::new(Field::new("__came", DataType::Int64, false));
        let stored: Vec<FieldRef> = rows.fields().iter().cloned().chain([came]).collect();
        Ok(Self {
            ttl,
            output,
            index: if changing { Some(RowIndex::new(&rows)?) } else { None },
            log: SegmentLog::new(Arc::new(Schema::new(stored))),
            rows,
            order: BTreeSet::new(),
            staged: None,
        })
    }

    /// Moves the clock, takes an epoch's rows in, and returns what comes and goes. Takes effect with `commit`.
    ///
    /// What is taken away after it has left is gone already and says nothing. Of equal rows the oldest goes.
    pub fn stage(&mut self, arriving: &[Arriving], now: i64) -> Result<Option<RecordBatch>> {
        let before = now.saturating_sub(self.ttl);
        let mut gone: Vec<RowId> = self.order.iter().take_while(|(came, _)| *came <= before).map(|(_, row)| *row).collect();
        #[cfg(test)]
        if Mutant::ClockForgotten.is_on() {
            gone.clear();
        }
        let expired: HashSet<RowId> = gone.iter().copied().collect();
        let mut come: Vec<Option<(usize, usize)>> = vec![];
        let mut fresh: HashMap<KeyHash, Vec<usize>> = HashMap::new();
        let mut taking = self.index.as_ref().map(RowIndex::taking);
        // Rows of this epoch may be taken away before they are named: those that are held go only when none of them is left.
        let mut goes: Vec<KeyHash> = vec![];
        for (at, part) in arriving.iter().enumerate() {
            let hashes = self.index.as_ref().map(|index| index.hashes(&part.rows)).transpose()?;
            for row in 0..part.rows.num_rows() {
                let weight = part.weights.value(row);
                let hash = hashes.as_ref().map(|hashes| hashes[row]);
                for _ in 0..weight.unsigned_abs() {
                    match hash {
                        Some(hash) if weight < 0 => goes.push(hash),
                        Some(hash) => {
                            fresh.entry(hash).or_default().push(come.len());
                            come.push(Some((at, row)));
                        }
                        None => come.push(Some((at, row))),
                    }
                }
            }
        }
        for hash in goes {
            if let Some(at) = fresh.get_mut(&hash).and_then(Vec::pop) {
                come[at] = None;
                continue;
            }
            let Some(taking) = &mut taking else { continue };
            gone.extend(std::iter::from_fn(|| taking.take(hash)).find(|row| !expired.contains(row)));
        }
        let come: Vec<(usize, usize)> = come.into_iter().flatten().collect();
        let parts: Vec<&RecordBatch> = arriving.iter().map(|part| &part.rows).collect();
        let come = gathered(&self.rows, &parts, &come)?;
        let leaving = self.visible(&self.log.gather(&gone)?)?;
        let places: Vec<(usize, usize)> = (0..leaving.num_rows()).map(|row| (0, row)).chain((0..come.num_rows()).map(|row| (1, row))).collect();
        let mut weights = vec![-1; leaving.num_rows()];
        weights.resize(places.len(), 1);
        let output = match places.is_empty() {
            true => None,
            false => {
                let mut columns = gathered(&self.rows, &[&leaving, &come], &places)?.columns().to_vec();
                columns.push(Arc::new(Int64Array::from(weights)));
                Some(RecordBatch::try_new(self.output.clone(), columns)?)
            }
        };
        self.staged = Some(Staged { now, gone, come });
        Ok(output)
    }

    /// Rows of the log without the time at which they came.
    fn visible(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(rows.project(&(0..self.rows.fields().len()).collect::<Vec<_>>())?)
    }

    fn came(&self, rows: &RecordBatch) -> Vec<i64> {
        rows.column(self.rows.fields().len()).as_primitive::<Int64Type>().values().to_vec()
    }
}

impl OperatorState for ExpiryState {
    fn commit(&mut self) -> Result<()> {
        let Some(Staged { now, gone, come }) = self.staged.take() else { return Ok(()) };
        let rows = self.log.gather(&gone)?;
        self.log.remove_all(&gone);
        for (row, came) in gone.into_iter().zip(self.came(&rows)) {
            self.order.remove(&(came, row));
            if let Some(index) = &mut self.index {
                index.take(row);
            }
        }
        let hashes = self.index.as_ref().map(|index| index.hashes(&come)).transpose()?;
        let mut columns = come.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_value(now, come.num_rows())) as ArrayRef);
        let ids = self.log.append(RecordBatch::try_new(self.log.schema().clone(), columns)?);
        for (at, row) in ids.into_iter().enumerate() {
            self.order.insert((now, row));
            if let Some((index, hashes)) = self.index.as_mut().zip(hashes.as_ref()) {
                index.add(hashes[at], row);
            }
        }
        self.log.compact()
    }

    fn abort(&mut self) {
        self.staged = None;
    }

    fn logs(&self) -> Vec<&SegmentLog> {
        vec![&self.log]
    }

    fn meta(&self) -> serde_json::Value {
        json!({})
    }

    fn restore(&mut self, logs: Vec<SegmentLog>, _: &serde_json::Value) -> Result<()> {
        self.log = only_log(logs)?;
        self.staged = None;
        self.order.clear();
        #[cfg(test)]
        if Mutant::StateForgotten.is_on() {
            self.log = SegmentLog::new(self.log.schema().clone());
        }
        if let Some(index) = &mut self.index {
            index.clear();
        }
        let parts = self.log.live().collect::<Result<Vec<_>>>()?;
        for (ids, rows) in parts {
            let hashes = self.index.as_ref().map(|index| index.hashes(&self.visible(&rows)?)).transpose()?;
            for (at, (row, came)) in ids.into_iter().zip(self.came(&rows)).enumerate() {
                self.order.insert((came, row));
                if let Some((index, hashes)) = self.index.as_mut().zip(hashes.as_ref()) {
                    index.add(hashes[at], row);
                }
            }
        }
        Ok(())
    }

    fn has_open_windows(&self) -> bool {
        false
    }

    fn due(&self) -> Option<i64> {
        self.order.first().map(|(came, _)| came.saturating_add(self.ttl))
    }

    fn rows(&self) -> usize {
        self.log.rows()
    }

    fn bytes(&self) -> usize {
        self.log.bytes() + self.order.len() * 24 + self.index.as_ref().map_or(0, RowIndex::bytes)
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
