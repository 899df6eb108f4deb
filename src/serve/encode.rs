//! Batches as Flight messages below the clients' limits.
//!
//! Not `arrow-flight`'s own encoder: that one sends nothing for a batch without rows (our heartbeat) and counts whole buffers instead of slices.

use arrow::{
    array::{Array, RecordBatch},
    datatypes::Schema,
    ipc::{
        CompressionType,
        writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions},
    },
};
use arrow_flight::{FlightData, SchemaAsIpc};

use crate::error::{Error, Result};

/// The largest message that is sent while a batch can still be divided: Go clients of a few years ago take 4 MiB, ADBC 16 MiB.
pub(crate) const MAX_MESSAGE_BYTES: usize = (2 << 20) - (16 << 10);

/// A message can't be longer than this on the wire, however large its one row is.
const HARD_LIMIT: usize = i32::MAX as usize;

/// Encodes one stream.
pub(crate) struct Encoder {
    options: IpcWriteOptions,
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
}

impl Encoder {
    /// An encoder for one stream, whose columns are compressed if this says how.
    pub fn new(compression: Option<CompressionType>) -> Result<Self> {
        Ok(Self {
            options: IpcWriteOptions::default().try_with_compression(compression)?,
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
        })
    }

    /// The message a stream begins with.
    pub fn schema(&self, schema: &Schema) -> FlightData {
        SchemaAsIpc::new(schema, &self.options).into()
    }

    /// Encodes as many rows from `from` on as fit into one message, at least one; says how many they are.
    pub fn encode(&mut self, batch: &RecordBatch, from: usize) -> Result<(FlightData, usize)> {
        let left = batch.num_rows() - from;
        let mut rows = left.min(fitting_rows(&batch.slice(from, left))?);
        loop {
            let message = self.message(&batch.slice(from, rows))?;
            let bytes = message.data_header.len() + message.data_body.len();
            if bytes <= MAX_MESSAGE_BYTES || (rows <= 1 && bytes <= HARD_LIMIT) {
                return Ok((message, rows));
            }
            if rows <= 1 {
                return Err(Error::Invalid(format!("a row of {bytes} bytes is larger than a message can be: select fewer or smaller columns")));
            }
            // Rows differ in size: these were larger than the average.
            rows /= 2;
        }
    }

    fn message(&mut self, batch: &RecordBatch) -> Result<FlightData> {
        let (dictionaries, encoded) = self.generator.encode(batch, &mut self.dictionaries, &self.options, &mut self.context)?;
        debug_assert!(dictionaries.is_empty(), "dictionaries are written out before a batch gets here");
        Ok(encoded.into())
    }
}

/// About how many rows fill one message; counts only the part of each buffer that a slice uses.
fn fitting_rows(batch: &RecordBatch) -> Result<usize> {
    let mut bytes = 0;
    for column in batch.columns() {
        bytes += column.to_data().get_slice_memory_size()?;
    }
    let rows = batch.num_rows();
    // A tenth is left for padding and the header, so that an even batch is encoded once.
    let fits = MAX_MESSAGE_BYTES - MAX_MESSAGE_BYTES / 10;
    Ok(if bytes <= fits { rows } else { ((rows as u128 * fits as u128 / bytes as u128) as usize).max(1) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    fn sizes(batch: &RecordBatch) -> Vec<(usize, usize)> {
        let mut encoder = Encoder::new(None).unwrap();
        let mut sizes = vec![];
        let mut from = 0;
        while from < batch.num_rows() {
            let (message, rows) = encoder.encode(batch, from).unwrap();
            sizes.push((rows, message.data_header.len() + message.data_body.len()));
            from += rows;
        }
        sizes
    }

    #[test]
    fn large_batches_are_divided_by_rows() {
        let numbers = Arc::new(Int64Array::from_iter_values(0..1_000_000)) as ArrayRef;
        let batch = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
        let sizes = sizes(&batch);
        assert!(sizes.iter().all(|(_, bytes)| *bytes < 2 << 20));
        assert_eq!(sizes.iter().map(|(rows, _)| rows).sum::<usize>(), 1_000_000);
        assert!(sizes.len() < 8, "8 MB need few messages, not {}", sizes.len());
    }

    #[test]
    fn uneven_rows_are_divided_until_they_fit() {
        let texts: Vec<String> = (0..100).map(|i| "x".repeat(if i % 10 == 0 { 1 << 20 } else { 10 })).collect();
        let batch = RecordBatch::try_from_iter([("t", Arc::new(StringArray::from(texts)) as ArrayRef)]).unwrap();
        assert!(sizes(&batch).iter().all(|(_, bytes)| *bytes < 2 << 20));
    }

    #[test]
    fn one_huge_row_goes_out_alone() {
        let texts = vec!["small".to_owned(), "x".repeat(5 << 20), "small".to_owned()];
        let batch = RecordBatch::try_from_iter([("t", Arc::new(StringArray::from(texts)) as ArrayRef)]).unwrap();
        let sizes = sizes(&batch);
        assert_eq!(sizes.len(), 3);
        assert!(sizes[1].1 > 5 << 20);
    }

    #[test]
    fn a_slice_costs_only_its_own_rows() {
        let numbers = Arc::new(Int64Array::from_iter_values(0..1_000_000)) as ArrayRef;
        let slice = RecordBatch::try_from_iter([("n", numbers)]).unwrap().slice(10, 1000);
        assert_eq!(sizes(&slice).len(), 1);
    }

    #[test]
    fn no_rows_are_a_message_too() {
        let batch = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(Vec::<i64>::new())) as ArrayRef)]).unwrap();
        let (message, rows) = Encoder::new(None).unwrap().encode(&batch, 0).unwrap();
        assert_eq!(rows, 0);
        assert!(!message.data_header.is_empty());
    }
}
