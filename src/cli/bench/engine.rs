//! An engine over an empty data directory, and what benchmarks ask of it.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::Int64Type,
};
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;

use crate::session::{Engine, EngineConfig, Outcome};

/// How often it is looked how far a view is.
const LOOK: Duration = Duration::from_millis(5);

/// An engine whose data directory ends with it.
pub(super) struct FreshEngine {
    pub(super) engine: Arc<Engine>,
    _folder: tempfile::TempDir,
}

impl FreshEngine {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        Ok(Self { engine: Engine::start(EngineConfig::new(folder.path())).await?, _folder: folder })
    }

    /// Runs a statement for what it does.
    pub(super) async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        self.engine.session().execute(sql, &[]).await?;
        Ok(())
    }

    /// An answer as it comes.
    pub(super) async fn stream(&self, sql: &str) -> anyhow::Result<SendableRecordBatchStream> {
        match self.engine.session().execute(sql, &[]).await? {
            Outcome::Rows(rows) => Ok(rows),
            Outcome::Done(_) => anyhow::bail!("{sql} gave no rows"),
        }
    }

    /// A whole answer.
    pub(super) async fn rows(&self, sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
        Ok(self.stream(sql).await?.try_collect().await?)
    }

    /// Waits until the number that a query gives is at least this.
    pub(super) async fn wait_for(&self, sql: &str, least: i64) -> anyhow::Result<()> {
        loop {
            let rows = self.rows(sql).await?;
            let mut numbers = rows.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>()).flatten();
            if numbers.any(|number| number >= least) {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    pub(super) async fn stop(self) -> anyhow::Result<()> {
        Ok(self.engine.stop().await?)
    }
}
