//! `tidegate bench state`: what a large state costs when it is checkpointed and when the server starts again.

mod view;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use self::view::{Checkpoint, Parts, StateBench, open};
use super::report::{Figure, Report, ReportArgs, Unit, progress, quantile};
use crate::stream::published::Board;

/// What many keys are compared with.
const FEW: usize = 1000;
/// Records of an epoch while the keys are loaded.
const LOAD_ROWS: usize = 65_536;

/// A large state from memory: epochs that touch it, checkpoints beside running epochs, and a restart.
///
/// One view keeps a few aggregates for each key. Epochs of random keys run one after the other: alone, and while a full and then
/// incremental checkpoints are written. For each number of keys it prints
///
/// 'load': keys a second while they are loaded; 'epoch': what an epoch takes (the median), beside one of as many records of a thousand keys, so that a ratio of 0.2 says that it takes
/// five times as long; 'held': how long epochs wait until a full checkpoint is taken; 'write': how long it is written beside them; 'held-incremental', 'write-incremental': the same of
/// checkpoints of what has changed, the longest of them; 'longest-epoch': the longest epoch beside any checkpoint; 'restart': from opening the checkpoint to readers seeing the view.
///
/// Targets at a million keys: restart below 3 s, held and the longest epoch below 50 ms, and an epoch's ratio at a thousand records above 0.2.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How many keys; several numbers are measured one after the other. Ten million need some gigabytes of memory
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 10_000, 100_000, 1_000_000], value_parser = parse_keys)]
    keys: Vec<usize>,
    /// Records an epoch while it is measured
    #[arg(long, default_value_t = 1000)]
    epoch_rows: usize,
    /// Epochs to measure before each checkpoint
    #[arg(long, default_value_t = 500)]
    epochs: usize,
    /// Incremental checkpoints to take
    #[arg(long, default_value_t = 3)]
    checkpoints: usize,
    #[command(flatten)]
    report: ReportArgs,
}

fn parse_keys(text: &str) -> Result<usize, String> {
    text.replace('_', "").parse().ok().filter(|keys| *keys > 0).ok_or_else(|| format!("'{text}' is no number of keys"))
}

/// Runs the benchmark.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::new("state", &args.report);
    measure(&args, &mut report).await?;
    report.finish();
    Ok(())
}

async fn measure(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let parts = Parts::plan().await?;
    for &keys in &args.keys {
        of_keys(keys, &parts, args, report).await?;
    }
    Ok(())
}

/// Measures a view of so many keys.
async fn of_keys(keys: usize, parts: &Parts, args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mut bench = StateBench::over(keys, parts, folder.path()).await?;
    let bar = progress(keys as u64, &format!("loading {keys} keys"));
    let loading = Instant::now();
    for first in (0..keys).step_by(LOAD_ROWS) {
        let cut = bench.records.next(first..(first + LOAD_ROWS).min(keys), bench.pipeline.epoch() + 1);
        bench.pipeline.run(&cut).await?;
        bar.set_position(first as u64);
    }
    let load = loading.elapsed();
    bar.finish_and_clear();
    let alone = bench.epochs(args, None).await?;
    let few = if keys == FEW { None } else { Some(few(parts, args).await?) };
    let full = bench.checkpoint(args).await?;
    let (mut incremental, mut beside) = (vec![], full.beside.clone());
    for _ in 0..args.checkpoints {
        bench.epochs(args, None).await?;
        let taken = bench.checkpoint(args).await?;
        beside.extend(&taken.beside);
        incremental.push(taken);
    }
    let (rows, bytes) = bench.board.current().views.values().map(|view| (view.contents.rows(), view.bytes)).next().unwrap_or_default();
    anyhow::ensure!(rows == keys, "the view holds {rows} rows for {keys} keys: the figures are worth nothing");
    let epoch = bench.pipeline.epoch();
    drop(bench);
    let restart = restart(keys, epoch, parts, folder.path()).await?;

    let figure = |name: &str, took: f64, unit: Unit| Figure::new("state", format!("{keys}-{name}"), took, unit).more("keys", keys);
    let time = |name: &str, took: Duration| figure(name, ms(took), Unit::MILLISECONDS);
    report.add(figure("load", keys as f64 / load.as_secs_f64(), Unit::rate("keys/s")).more("state_bytes", bytes))?;
    let touch = time("epoch", at(&alone, 0.5)).more("p99_ms", ms(at(&alone, 0.99))).more("records", args.epoch_rows);
    report.add(match &few {
        Some(few) => touch.against("a thousand keys", ms(at(few, 0.5))),
        None => touch,
    })?;
    report.add(time("held", full.held))?;
    report.add(time("write", full.write).more("bytes", full.bytes))?;
    let longest = |of: fn(&Checkpoint) -> Duration| incremental.iter().map(of).max();
    if let (Some(held), Some(write)) = (longest(|taken| taken.held), longest(|taken| taken.write)) {
        report.add(time("held-incremental", held))?;
        report.add(time("write-incremental", write).more("bytes", incremental.iter().map(|taken| taken.bytes).max()))?;
    }
    if !beside.is_empty() {
        report.add(time("longest-epoch", at(&beside, 1.0)).more("p50_ms", ms(at(&beside, 0.5))).more("epochs", beside.len()))?;
    }
    report.add(time("restart", restart.whole).more("read_ms", ms(restart.read)))
}

/// How long a restart took.
struct Restart {
    /// Until readers see the view,
    whole: Duration,
    /// of that until the checkpoint was read.
    read: Duration,
}

async fn restart(keys: usize, epoch: u64, parts: &Parts, folder: &Path) -> anyhow::Result<Restart> {
    let began = Instant::now();
    let board: Arc<Board> = Arc::default();
    let mut pipeline = parts.blank(board.clone())?;
    let mut restored = open(folder).await?.newest().await?.ok_or_else(|| anyhow::anyhow!("there is no checkpoint"))?;
    let read = began.elapsed();
    pipeline.restore(&mut restored)?;
    let mut view = parts.runtime()?;
    anyhow::ensure!(view.restore(&mut restored)?, "the checkpoint does not know the view");
    pipeline.attach(view)?;
    let whole = began.elapsed();
    let found = board.current().views.values().map(|view| view.contents.rows()).sum::<usize>();
    anyhow::ensure!(found == keys && pipeline.epoch() <= epoch, "{found} rows came back for {keys} keys");
    Ok(Restart { whole, read })
}

/// The times of epochs that touch a few keys.
async fn few(parts: &Parts, args: &Args) -> anyhow::Result<Vec<Duration>> {
    let folder = tempfile::tempdir()?;
    let mut bench = StateBench::over(FEW, parts, folder.path()).await?;
    let cut = bench.records.next(0..FEW, 1);
    bench.pipeline.run(&cut).await?;
    bench.epochs(args, None).await
}

/// The time at a share of several.
fn at(times: &[Duration], share: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    quantile(&times, share).unwrap_or_default()
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_small_one_runs() {
        let args = Args { keys: vec![FEW, 3 * FEW], epoch_rows: 100, epochs: 5, checkpoints: 1, report: ReportArgs::default() };
        let mut report = Report::new("state", &args.report);
        measure(&args, &mut report).await.unwrap();
        let lines = report.lines();
        let found = |case: &str| lines.iter().find(|line| line["case"] == case).unwrap_or_else(|| panic!("{case} is missing"));
        for name in ["load", "epoch", "held", "write", "held-incremental", "write-incremental", "restart"] {
            for keys in &args.keys {
                assert!(found(&format!("{keys}-{name}"))["ours"].as_f64() > Some(0.0), "{keys} {name}");
            }
        }
        assert!(found("1000-epoch").get("ratio").is_none() && found("3000-epoch")["ratio"].as_f64() > Some(0.0));
    }

    #[test]
    fn numbers_of_keys_may_be_grouped() {
        assert_eq!(parse_keys("1_000_000"), Ok(1_000_000));
        assert!(parse_keys("0").is_err() && parse_keys("many").is_err());
    }
}
