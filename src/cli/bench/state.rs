//! `tidegate bench state`: what a large state costs when it is checkpointed and when the server starts again.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::{
    catalog::{Definition, SourceDef, ViewDef},
    source::{RecordsBuilder, Slice},
    sql::{self, Statement},
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
/// What many keys are compared with.
const FEW: usize = 1000;
/// Records of an epoch while the keys are loaded.
const LOAD_ROWS: usize = 65_536;

/// A large state from memory: checkpoints beside running epochs, and a restart.
///
/// One view keeps a few aggregates for each key. Epochs of random keys run one after the other: alone, and while a full and then
/// incremental checkpoints are written. 'held_ms' is how long epochs wait for a checkpoint to be taken, 'write_ms' how long it is written
/// beside them; 'epochs_ms' are the times of epochs alone and while one is written. 'restart' is from opening the checkpoint to readers
/// seeing the view. 'touch' compares epochs of as many records of a thousand keys and of all keys. Targets at a million keys: restart below
/// 3 s, held, and the longest epoch beside a checkpoint, below 50 ms, and the touch ratio at a thousand records an epoch below 5.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many keys
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Records an epoch while it is measured
    #[arg(long, default_value_t = 1000)]
    epoch_rows: usize,
    /// Epochs to measure before each checkpoint
    #[arg(long, default_value_t = 500)]
    epochs: usize,
    /// Incremental checkpoints to take
    #[arg(long, default_value_t = 3)]
    checkpoints: usize,
}

/// Runs the benchmark; prints one JSON object.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Definition::Source(source) = sql::parse_definition(SOURCE)? else { anyhow::bail!("the benchmark's source is none") };
    let Statement::CreateContinuousView { def, .. } = sql::parse_one(VIEW)? else { anyhow::bail!("the benchmark's view is none") };
    let plan = plan_view(&standalone_state(&[&source])?, sql::parse_query(&def.query)?, def.emit, &def.options).await?;
    let parts = Parts { source, view: Arc::new(def), plan: Arc::new(plan) };
    let folder = tempfile::tempdir()?;
    let mut bench = StateBench {
        board: Arc::default(),
        pipeline: parts.blank(Arc::default())?,
        store: open(folder.path()).await?,
        log: EpochLog::open(folder.path().join("epochs"), None)?.0,
        records: Records { random: rand_chacha::ChaCha8Rng::seed_from_u64(7), offsets: [0; PARTITIONS], keys: args.keys },
    };
    bench.attach(&parts)?;
    let loading = Instant::now();
    for first in (0..args.keys).step_by(LOAD_ROWS) {
        let cut = bench.records.next(first..(first + LOAD_ROWS).min(args.keys), bench.pipeline.epoch() + 1);
        bench.pipeline.run(&cut).await?;
    }
    let load = loading.elapsed();
    let mut alone = bench.epochs(&args, None).await?;
    let touch = few(&parts, &args).await?;
    let touch = json!({ "rows": args.epoch_rows, "keys": [FEW, args.keys], "ms": [median(&touch), median(&alone)], "ratio": median(&alone) / median(&touch) });
    let (full, beside_full) = bench.checkpoint(&args).await?;
    let (mut incremental, mut beside_incremental) = (vec![], vec![]);
    for _ in 0..args.checkpoints {
        alone.extend(bench.epochs(&args, None).await?);
        let (taken, beside) = bench.checkpoint(&args).await?;
        incremental.push(taken);
        beside_incremental.extend(beside);
    }
    let (rows, bytes) = bench.board.current().views.values().map(|view| (view.contents.rows(), view.bytes)).next().unwrap_or_default();
    anyhow::ensure!(rows == args.keys, "the view holds {rows} rows for {} keys: the figures are worth nothing", args.keys);
    let epoch = bench.pipeline.epoch();
    drop(bench);

    let restarting = Instant::now();
    let board: Arc<Board> = Arc::default();
    let mut pipeline = parts.blank(board.clone())?;
    let mut restored = open(folder.path()).await?.newest().await?.ok_or_else(|| anyhow::anyhow!("there is no checkpoint"))?;
    let read = restarting.elapsed();
    pipeline.restore(&mut restored)?;
    let mut view = parts.runtime()?;
    anyhow::ensure!(view.restore(&mut restored)?, "the checkpoint does not know the view");
    pipeline.attach(view)?;
    let restart = restarting.elapsed();
    let found = board.current().views.values().map(|view| view.contents.rows()).sum::<usize>();
    anyhow::ensure!(found == args.keys && pipeline.epoch() <= epoch, "{found} rows came back for {} keys", args.keys);
    println!(
        "{}",
        json!({
            "bench": "state", "keys": args.keys, "state_bytes": bytes, "load_ms": ms(load), "epoch_rows": args.epoch_rows,
            "touch": touch, "restart": { "ms": ms(restart), "read_ms": ms(read), "rebuild_ms": ms(restart - read) },
            "full": full, "incremental": incremental,
            "epochs_ms": { "alone": figures(alone), "beside_full": figures(beside_full), "beside_incremental": figures(beside_incremental) },
        })
    );
    Ok(())
}

/// The times of epochs that touch a few keys.
async fn few(parts: &Parts, args: &Args) -> anyhow::Result<Vec<Duration>> {
    let folder = tempfile::tempdir()?;
    let mut bench = StateBench {
        board: Arc::default(),
        pipeline: parts.blank(Arc::default())?,
        store: open(folder.path()).await?,
        log: EpochLog::open(folder.path().join("epochs"), None)?.0,
        records: Records { random: rand_chacha::ChaCha8Rng::seed_from_u64(7), offsets: [0; PARTITIONS], keys: FEW },
    };
    bench.attach(parts)?;
    let cut = bench.records.next(0..FEW, 1);
    bench.pipeline.run(&cut).await?;
    bench.epochs(args, None).await
}

struct Parts {
    source: Arc<SourceDef>,
    view: Arc<ViewDef>,
    plan: Arc<ViewPlan>,
}

impl Parts {
    fn blank(&self, board: Arc<Board>) -> anyhow::Result<Pipeline> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        Ok(Pipeline::new(vec![(self.source.clone(), 1)], board, threads)?)
    }

    fn runtime(&self) -> anyhow::Result<ViewRuntime> {
        Ok(ViewRuntime::new(self.view.clone(), 2, self.plan.clone(), &[&self.source], BTreeMap::new(), 0)?)
    }
}

async fn open(folder: &Path) -> anyhow::Result<CheckpointStore> {
    Ok(CheckpointStore::new(Arc::new(CheckpointRoot::local(folder.join("pipelines")).await?), "1")?)
}

/// A checkpoint that is being written; the store comes back with what became of it and how long it took.
type Writing = tokio::task::JoinHandle<crate::Result<(CheckpointStore, Written, Duration)>>;

struct StateBench {
    board: Arc<Board>,
    pipeline: Pipeline,
    store: CheckpointStore,
    log: EpochLog,
    records: Records,
}

impl StateBench {
    fn attach(&mut self, parts: &Parts) -> anyhow::Result<()> {
        self.board = self.pipeline.board().clone();
        Ok(self.pipeline.attach(parts.runtime()?)?)
    }

    /// Runs epochs, as many as are to be measured or until what is written beside them is done; their times.
    async fn epochs(&mut self, args: &Args, beside: Option<&Writing>) -> anyhow::Result<Vec<Duration>> {
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

    /// Takes a checkpoint as a running pipeline does; figures of it, and the times of the epochs beside it.
    async fn checkpoint(&mut self, args: &Args) -> anyhow::Result<(serde_json::Value, Vec<Duration>)> {
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
        let epochs = self.epochs(args, Some(&task)).await?;
        let (store, written, took) = task.await??;
        self.store = store;
        let Written::Done { bytes, .. } = written else { anyhow::bail!("the checkpoint was not written: {written:?}") };
        Ok((json!({ "held_ms": ms(held), "write_ms": ms(took), "bytes": bytes }), epochs))
    }
}

/// Makes the input of epochs.
struct Records {
    random: rand_chacha::ChaCha8Rng,
    offsets: [i64; PARTITIONS],
    keys: usize,
}

impl Records {
    fn next(&mut self, keys: impl IntoIterator<Item = usize>, epoch: u64) -> EpochCut {
        let begins = self.offsets;
        let mut builders: Vec<RecordsBuilder> = (0..PARTITIONS).map(|_| RecordsBuilder::new()).collect();
        for key in keys {
            let partition = key * PARTITIONS / self.keys.max(1);
            let payload = format!(r#"{{"k":{key},"v":{}}}"#, self.random.random_range(0..100_000) as f64 / 8.0);
            builders[partition].push(self.offsets[partition], None, None, Some(payload.as_bytes()), vec![]);
            self.offsets[partition] += 1;
        }
        let slices = builders
            .into_iter()
            .enumerate()
            .filter(|(_, b)| !b.is_empty())
            .map(|(p, b)| Slice { partition: p as i32, begin: begins[p], end: self.offsets[p], records: b.finish() })
            .collect();
        EpochCut { epoch, now_ms: now_ms(), slices: BTreeMap::from([("readings".into(), slices)]), ..EpochCut::default() }
    }
}

fn figures(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort_unstable();
    let at = |share: f64| times.get(((times.len() as f64 - 1.0) * share) as usize).copied().map(ms);
    json!({ "epochs": times.len(), "p50": at(0.5), "p99": at(0.99), "max": at(1.0) })
}

/// In milliseconds.
fn median(times: &[Duration]) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().map_or(f64::NAN, ms)
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e5).round() / 100.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_one_runs() {
        run(Args { keys: 3 * FEW, epoch_rows: 100, epochs: 5, checkpoints: 1 }).await.unwrap();
    }
}
