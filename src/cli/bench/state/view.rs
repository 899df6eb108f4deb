//! A view of a few aggregates for each key: its epochs and its checkpoints.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};

use super::Args;
use crate::{
    catalog::{SourceDef, ViewDef},
    cli::bench::{definitions, machine::cores, memory::Topic},
    sql,
    stream::{
        checkpoint::{CheckpointRoot, CheckpointStore, Written},
        driver::now_ms,
        epoch_log::EpochLog,
        pipeline::{EpochCut, Pipeline},
        plan::{ViewPlan, plan_view, standalone_state},
        published::Board,
        view::ViewRuntime,
    },
};

const SOURCE: &str =
    "CREATE SOURCE readings (k BIGINT, v DOUBLE) WITH (connector = 'kafka', topic = 'memory', 'bootstrap.servers' = 'memory:0', format = 'json')";
const VIEW: &str = "CREATE CONTINUOUS VIEW by_key WITH (unbounded_state = true) AS
  SELECT k, count(*) AS readings, sum(v) AS total, min(v) AS least, max(v) AS most FROM readings GROUP BY k EMIT CHANGES";
const PARTITIONS: usize = 4;

/// What a view is made of.
pub(super) struct Parts {
    source: Arc<SourceDef>,
    view: Arc<ViewDef>,
    plan: Arc<ViewPlan>,
}

impl Parts {
    /// Plans the view.
    pub(super) async fn plan() -> anyhow::Result<Self> {
        let (source, def) = (definitions::source(SOURCE)?, definitions::view(VIEW)?);
        let plan = plan_view(&standalone_state(&[&source])?, sql::parse_query(&def.query)?, def.emit, &def.options).await?;
        Ok(Self { source, view: Arc::new(def), plan: Arc::new(plan) })
    }

    /// A pipeline without the view.
    pub(super) fn blank(&self, board: Arc<Board>) -> anyhow::Result<Pipeline> {
        Ok(Pipeline::new(vec![(self.source.clone(), 1)], board, cores())?)
    }

    /// The view, still without rows.
    pub(super) fn runtime(&self) -> anyhow::Result<ViewRuntime> {
        Ok(ViewRuntime::new(self.view.clone(), 2, self.plan.clone(), &[&self.source], BTreeMap::new(), 0)?)
    }
}

/// The checkpoints of a folder.
pub(super) async fn open(folder: &Path) -> anyhow::Result<CheckpointStore> {
    Ok(CheckpointStore::new(Arc::new(CheckpointRoot::local(folder.join("pipelines")).await?), "1")?)
}

/// A checkpoint that is being written; the store comes back with what became of it and how long it took.
type Writing = tokio::task::JoinHandle<crate::Result<(CheckpointStore, Written, Duration)>>;

/// A view with the records that go into it and the store that its checkpoints go to.
pub(super) struct StateBench {
    pub(super) board: Arc<Board>,
    pub(super) pipeline: Pipeline,
    pub(super) records: Records,
    store: CheckpointStore,
    log: EpochLog,
}

/// A checkpoint that was taken.
pub(super) struct Checkpoint {
    /// How long epochs waited for it,
    pub(super) held: Duration,
    /// and how long it was written beside them.
    pub(super) write: Duration,
    pub(super) bytes: u64,
    /// The times of the epochs meanwhile.
    pub(super) beside: Vec<Duration>,
}

impl StateBench {
    /// A view over so many keys, still without rows, whose checkpoints go to this folder.
    pub(super) async fn over(keys: usize, parts: &Parts, folder: &Path) -> anyhow::Result<Self> {
        let board: Arc<Board> = Arc::default();
        let mut pipeline = parts.blank(board.clone())?;
        pipeline.attach(parts.runtime()?)?;
        let records = Records { random: rand_chacha::ChaCha8Rng::seed_from_u64(7), topic: Topic::new(PARTITIONS), keys };
        Ok(Self { board, pipeline, store: open(folder).await?, log: EpochLog::open(folder.join("epochs"), None)?.0, records })
    }

    /// Runs epochs, as many as are to be measured or until what is written beside them is done; their times.
    pub(super) async fn epochs(&mut self, args: &Args, beside: Option<&Writing>) -> anyhow::Result<Vec<Duration>> {
        let mut times = vec![];
        while beside.map_or(times.len() < args.epochs, |task| !task.is_finished()) {
            let picked: Vec<usize> = (0..args.epoch_rows).map(|_| self.records.random.random_range(0..self.records.keys)).collect();
            let cut = self.records.next(picked, self.pipeline.epoch() + 1);
            let started = Instant::now();
            self.pipeline.run(&cut).await?;
            times.push(started.elapsed());
        }
        Ok(times)
    }

    /// Takes a checkpoint as a running pipeline does.
    pub(super) async fn checkpoint(&mut self, args: &Args) -> anyhow::Result<Checkpoint> {
        let started = Instant::now();
        let before = self.log.rotate(self.pipeline.epoch() + 1)?;
        let image = self.pipeline.image()?;
        let held = started.elapsed();
        drop(before);
        let elsewhere = tempfile::tempdir()?;
        let mut store = std::mem::replace(&mut self.store, open(elsewhere.path()).await?);
        let task: Writing = tokio::spawn(async move {
            let started = Instant::now();
            let written = store.write(image).await?;
            Ok((store, written, started.elapsed()))
        });
        let beside = self.epochs(args, Some(&task)).await?;
        let (store, written, write) = task.await??;
        self.store = store;
        let Written::Done { bytes, .. } = written else { anyhow::bail!("the checkpoint was not written: {written:?}") };
        Ok(Checkpoint { held, write, bytes, beside })
    }
}

/// Makes the input of epochs.
pub(super) struct Records {
    random: rand_chacha::ChaCha8Rng,
    topic: Topic,
    keys: usize,
}

impl Records {
    /// The next epoch: a record for each of these keys.
    pub(super) fn next(&mut self, keys: impl IntoIterator<Item = usize>, epoch: u64) -> EpochCut {
        for key in keys {
            let payload = format!(r#"{{"k":{key},"v":{}}}"#, self.random.random_range(0..100_000) as f64 / 8.0);
            self.topic.push(key * PARTITIONS / self.keys.max(1), None, None, payload.as_bytes());
        }
        EpochCut { epoch, now_ms: now_ms(), slices: BTreeMap::from([("readings".into(), self.topic.cut())]), ..EpochCut::default() }
    }
}
