//! Rows to files, in bounded memory: row groups are closed by their size, and so are files.

use std::sync::Arc;

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{
    execution::memory_pool::{MemoryConsumer, MemoryPool, MemoryReservation},
    parquet::{
        arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
        file::properties::{EnabledStatistics, WriterProperties},
    },
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{data_file::DataFile, disk::WatchedFile, store::TableStore};
use crate::error::{Error, Result};

/// A row group is closed when it holds so many bytes.
const GROUP_BYTES: usize = 16 << 20;
/// A file is closed when it has so many bytes: a DELETE rewrites files.
const FILE_BYTES: usize = 128 << 20;
/// How many batches wait for the writer.
const WAITING: usize = 2;

/// What a writer takes memory from.
pub type Room = Arc<dyn MemoryPool>;

/// Writes rows into new files of a table. What it has written goes with the files, unless they become part of the table.
pub(super) struct FileWriter {
    store: Arc<TableStore>,
    properties: WriterProperties,
    open: Option<Open>,
    done: Vec<Arc<DataFile>>,
    room: MemoryReservation,
}

struct Open {
    writer: ArrowWriter<WatchedFile>,
    /// Removes the file if it is not finished.
    guard: Arc<DataFile>,
    rows: u64,
}

impl FileWriter {
    pub(super) fn new(store: Arc<TableStore>, room: &Room) -> Self {
        let properties = WriterProperties::builder()
            .set_created_by(format!("tidegate {}", env!("CARGO_PKG_VERSION")))
            .set_statistics_enabled(EnabledStatistics::Page)
            .build();
        let room = MemoryConsumer::new(format!("writer of table {}", store.name())).register(room);
        Self { store, properties, open: None, done: vec![], room }
    }

    /// Writes rows of the table's schema.
    pub(super) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        // One that fails is dropped with its file.
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.fresh()?,
        };
        open.writer.write(batch).map_err(|error| failed(&self.store, error))?;
        open.rows += batch.num_rows() as u64;
        if open.writer.in_progress_size() >= GROUP_BYTES {
            open.writer.flush().map_err(|error| failed(&self.store, error))?;
        }
        self.room.try_resize(open.writer.memory_size())?;
        let full = open.writer.bytes_written() >= FILE_BYTES;
        self.open = Some(open);
        if full { self.close() } else { Ok(()) }
    }

    /// Makes all that was written durable.
    pub(super) fn finish(mut self) -> Result<Vec<Arc<DataFile>>> {
        self.close()?;
        Ok(std::mem::take(&mut self.done))
    }

    fn fresh(&self) -> Result<Open> {
        let name = format!("{}.parquet", uuid::Uuid::new_v4().simple());
        let guard = DataFile::new(name, 0, 0, self.store.folder().clone(), false);
        let file = self.store.disk().create(&guard.path()).map_err(|error| failed(&self.store, error))?;
        let options = ArrowWriterOptions::new().with_properties(self.properties.clone());
        let writer = ArrowWriter::try_new_with_options(file, self.store.schema().clone(), options).map_err(|error| failed(&self.store, error))?;
        Ok(Open { writer, guard, rows: 0 })
    }

    fn close(&mut self) -> Result<()> {
        let Some(Open { writer, guard, rows }) = self.open.take() else { return Ok(()) };
        let file = writer.into_inner().map_err(|error| failed(&self.store, error))?;
        let bytes = file.sync().map_err(|error| failed(&self.store, error))?;
        // The finished file takes over from the guard of the unfinished one.
        let finished = DataFile::new(guard.name().into(), rows, bytes, self.store.folder().clone(), false);
        guard.set_belongs(true);
        self.done.push(finished);
        self.room.free();
        Ok(())
    }
}

fn failed(store: &TableStore, error: impl std::fmt::Display) -> Error {
    Error::External(format!("rows of table {} could not be written below {}: {error}; nothing was changed", store.name(), store.folder().path().display()))
}

enum Message {
    Rows(RecordBatch),
    End,
}

/// The same on a thread of its own, with few batches waiting: whoever writes waits for the disk.
pub struct RowWriter {
    rows: mpsc::Sender<Message>,
    files: JoinHandle<Result<Vec<Arc<DataFile>>>>,
    schema: SchemaRef,
    count: u64,
}

impl RowWriter {
    /// Begins to write rows of a table. Dropped before it is finished, nothing stays of it.
    pub fn start(store: Arc<TableStore>, room: &Room) -> Self {
        let (rows, mut waiting) = mpsc::channel(WAITING);
        let schema = store.schema().clone();
        let mut writer = FileWriter::new(store, room);
        let files = tokio::task::spawn_blocking(move || {
            loop {
                match waiting.blocking_recv() {
                    Some(Message::Rows(batch)) => writer.write(&batch)?,
                    Some(Message::End) => return writer.finish(),
                    None => return Ok(vec![]),
                }
            }
        });
        Self { rows, files, schema, count: 0 }
    }

    /// Takes rows of the table's schema.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.schema_ref() != &self.schema {
            return Err(Error::Internal(format!("rows of {} were to be written as {}", batch.schema_ref(), self.schema)));
        }
        self.count += batch.num_rows() as u64;
        match self.rows.send(Message::Rows(batch)).await {
            Ok(()) => Ok(()),
            // The writer has gone: it says why.
            Err(_) => Err(ended(&mut self.files).await.err().unwrap_or_else(|| Error::Internal("a writer ended early".into()))),
        }
    }

    /// Makes all rows durable in files that are not part of the table yet; how many rows they have.
    pub async fn finish(mut self) -> Result<(Vec<Arc<DataFile>>, u64)> {
        // One that has gone says why below.
        _ = self.rows.send(Message::End).await;
        Ok((ended(&mut self.files).await?, self.count))
    }
}

async fn ended(files: &mut JoinHandle<Result<Vec<Arc<DataFile>>>>) -> Result<Vec<Arc<DataFile>>> {
    files.await.map_err(|error| Error::Internal(format!("a writer panicked: {error}")))?
}
