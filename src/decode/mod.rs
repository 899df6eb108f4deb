//! Payload bytes to Arrow columns, for just the columns that are needed. One bad record costs one error row.
//!
//! A record's fate depends only on the source's declaration: every declared column is parsed and judged for every record,
//! and only the needed ones are materialised.

use arrow::record_batch::RecordBatch;

use crate::{catalog::SourceDef, error::Result, source::Records};

/// Turns the records of one source into columns.
#[derive(Debug)]
pub struct Decoder {}

/// What became of a run of records.
#[derive(Debug)]
pub struct Decoded {
    /// The good rows: the needed columns, in declaration order, named and typed as declared.
    pub batch: RecordBatch,
    /// For each row of `batch` the index (into the records) of the record it came from; rises, repeats where one record gave several rows.
    pub record_of: Vec<u32>,
    /// Event time of each row of `batch` in nanoseconds since 1970 (judged from the watermark column even if it isn't needed); empty if the source declares no watermark.
    pub event_time: Vec<i64>,
    /// The bad records, in order.
    pub errors: Vec<BadRecord>,
}

/// A record that can't be read as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// Which record, as an index into the records.
    pub record: u32,
    /// Why, as a sentence without a full stop.
    pub reason: String,
}

impl Decoder {
    /// Compiles a source's declaration. `needed` are positions in `source.columns`, rising.
    pub fn new(_source: &SourceDef, _needed: &[usize]) -> Result<Self> {
        Ok(Self {})
    }

    /// Decodes the records of `partition`. Never fails on data: what can't be read is in `errors`.
    pub fn decode(&mut self, _partition: i32, _records: &Records, _now_ms: i64) -> Result<Decoded> {
        Err(crate::Error::Internal("not built yet".into()))
    }
}
