//! One client's session: a statement in, a result out.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::{execution::SendableRecordBatchStream, scalar::ScalarValue};

use crate::error::{Error, Result};

/// The server's core: the catalog, the running pipelines, and what sessions share. One per process and data directory.
#[derive(Debug)]
pub struct Engine {}

/// How an engine is started.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where the catalog, checkpoints and tables live; locked by one process.
    pub data_dir: std::path::PathBuf,
    /// Folders that SQL may read files below; none by default.
    pub allowed_paths: Vec<std::path::PathBuf>,
    /// The shortest time between two epochs that have input.
    pub min_epoch_interval: std::time::Duration,
    /// An epoch takes at most this many payload bytes (a larger record is an epoch of its own).
    pub max_epoch_bytes: usize,
    /// An epoch takes at most this many records.
    pub max_epoch_rows: usize,
    /// How often state is checkpointed.
    pub checkpoint_interval: std::time::Duration,
    /// Threads that decode and execute.
    pub threads: usize,
}

impl EngineConfig {
    /// The defaults, over a data directory.
    pub fn new(data_dir: impl Into<std::path::PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            allowed_paths: vec![],
            min_epoch_interval: std::time::Duration::from_millis(5),
            max_epoch_bytes: 64 << 20,
            max_epoch_rows: 1 << 20,
            checkpoint_interval: std::time::Duration::from_secs(10),
            threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
        }
    }
}

impl Engine {
    /// Opens the data directory, restores every view from its newest checkpoint and starts the pipelines.
    pub async fn start(_config: EngineConfig) -> Result<Arc<Self>> {
        Err(Error::Internal("not built yet".into()))
    }

    /// A new session for one client.
    pub fn session(self: &Arc<Self>) -> Session {
        Session { engine: self.clone() }
    }

    /// Takes a last checkpoint of every pipeline and stops them.
    pub async fn stop(&self) -> Result<()> {
        Ok(())
    }
}

/// One client's session.
#[derive(Debug, Clone)]
pub struct Session {
    engine: Arc<Engine>,
}

/// What a statement is, known without running it.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The statement's text.
    pub sql: String,
    /// Columns of the result, as the session will deliver them; empty for a statement that is not a query.
    pub schema: SchemaRef,
    /// Types of its parameters (`?` or `$n`) in order, all nullable; empty if there are none.
    pub parameters: Arc<Schema>,
    /// A query gives rows; anything else is executed for its effect.
    pub is_query: bool,
    /// The result never ends by itself (`EMIT CHANGES`).
    pub is_unbounded: bool,
}

/// What running a statement gave.
pub enum Outcome {
    /// A query's rows; dropping the stream stops the work. A batch without rows in an unbounded result is a heartbeat.
    Rows(SendableRecordBatchStream),
    /// The statement has taken effect, on this many rows if that is known.
    Done(Option<u64>),
}

impl Session {
    /// Parses and plans one statement without any effect.
    pub async fn prepare(&self, _sql: &str) -> Result<Prepared> {
        let _ = &self.engine;
        Err(Error::Internal("not built yet".into()))
    }

    /// Runs one statement. Rows have exactly the schema that [`Self::prepare`] told.
    pub async fn execute(&self, _sql: &str, _parameters: &[ScalarValue]) -> Result<Outcome> {
        Err(Error::Internal("not built yet".into()))
    }

    /// The tables this session sees: for catalog calls of a client.
    pub async fn tables(&self) -> Result<Vec<TableInfo>> {
        Err(Error::Internal("not built yet".into()))
    }
}

/// One table as a client's catalog tree shows it.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Always `tidegate`.
    pub catalog: String,
    /// `public`, `system` or `information_schema`.
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// `BASE TABLE`, `VIEW` or `SYSTEM TABLE`.
    pub kind: &'static str,
    /// Its columns, as the session delivers them.
    pub columns: SchemaRef,
}
