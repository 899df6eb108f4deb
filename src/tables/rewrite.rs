//! Files without some of their rows, and small files made one.

use std::{collections::BTreeMap, fs::File, sync::Arc};

use arrow::{array::BooleanArray, compute::filter_record_batch};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{
    data_file::DataFile,
    store::{Change, Snapshot, TableStore, Turn},
    writer::{FileWriter, Room},
};
use crate::error::{Error, Result};

/// So many files of about one size are made one.
const MANY: usize = 8;
/// Files from this size on stay as they are.
const LARGE: u64 = 32 << 20;
/// Files up to this size are about one size, and those up to eight times as large the next, and so on.
const SMALL: u64 = 16 << 10;

/// Rows of a snapshot, by file and position: one bit a row of each file that has any.
#[derive(Debug, Default)]
pub struct Marks {
    files: BTreeMap<usize, Vec<u64>>,
    count: u64,
}

impl Marks {
    /// Marks a row of the file at this position of the snapshot; whether it was not marked before.
    pub fn add(&mut self, snapshot: &Snapshot, file: usize, row: usize) -> Result<bool> {
        let rows = snapshot.files().get(file).map(|file| file.rows() as usize).unwrap_or_default();
        if row >= rows {
            return Err(Error::Internal(format!("row {row} of file {file} was found in a table that has none there")));
        }
        let bits = self.files.entry(file).or_insert_with(|| vec![0; rows.div_ceil(64)]);
        let (word, bit) = (&mut bits[row / 64], 1 << (row % 64));
        let fresh = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(fresh);
        Ok(fresh)
    }

    /// How many rows are marked.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// The change that takes marked rows out of a snapshot: files that have any are written anew without them. Waits for the disk.
pub fn without(store: &Arc<TableStore>, snapshot: &Snapshot, marks: &Marks, room: &Room) -> Result<Change> {
    let mut writer = FileWriter::new(store.clone(), room);
    let mut remove = vec![];
    for (at, bits) in &marks.files {
        let file = &snapshot.files()[*at];
        remove.push(file.clone());
        let marked: u64 = bits.iter().map(|word| u64::from(word.count_ones())).sum();
        if marked < file.rows() {
            copy(store, file, Some(bits), &mut writer)?;
        }
    }
    Ok(Change { add: writer.finish()?, remove })
}

/// Makes files of about one size one, where there are many. Waits for the disk.
pub fn compact(store: &Arc<TableStore>, turn: &Turn, room: &Room) -> Result<()> {
    // Each round makes fewer files of it.
    while let Some(small) = choose(store.snapshot().files()) {
        let mut writer = FileWriter::new(store.clone(), room);
        for file in &small {
            copy(store, file, None, &mut writer)?;
        }
        store.commit(turn, Change { add: writer.finish()?, remove: small })?;
    }
    Ok(())
}

/// Files that are to be made one.
fn choose(files: &[Arc<DataFile>]) -> Option<Vec<Arc<DataFile>>> {
    let mut sizes: BTreeMap<u32, Vec<Arc<DataFile>>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.bytes() < LARGE) {
        // Eightfold steps: a row is written again only so often as the table grows.
        let size = (file.bytes() / SMALL).checked_ilog2().map_or(0, |twofold| twofold / 3 + 1);
        sizes.entry(size).or_default().push(file.clone());
    }
    sizes.into_values().find(|files| files.len() >= MANY)
}

fn copy(store: &TableStore, file: &DataFile, leave_out: Option<&Vec<u64>>, writer: &mut FileWriter) -> Result<()> {
    let failed = |error: String| Error::External(format!("rows of table {} could not be read from {}: {error}", store.name(), file.path().display()));
    let open = File::open(file.path()).map_err(|error| failed(error.to_string()))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(open).and_then(|builder| builder.build()).map_err(|error| failed(error.to_string()))?;
    let mut row = 0;
    for batch in reader {
        let batch = batch.map_err(|error| failed(error.to_string()))?;
        let batch = match leave_out {
            None => batch,
            Some(bits) => {
                let stays: BooleanArray = (row..row + batch.num_rows()).map(|row| Some(bits[row / 64] & (1 << (row % 64)) == 0)).collect();
                row += batch.num_rows();
                filter_record_batch(&batch, &stays)?
            }
        };
        writer.write(&batch.with_schema(store.schema().clone())?)?;
    }
    Ok(())
}
