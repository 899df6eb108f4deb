//! Prepared queries for one key of a large view.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::array::{Int64Array, RecordBatch};
use futures::TryStreamExt;
use rand::{RngExt, SeedableRng};

use super::{Args, Served, connect};
use crate::cli::bench::report::{Figure, Report, Unit, quantile};

const BY_KEY: &str = "SELECT * FROM by_key WHERE k = ?";
/// The same rows; that they have this key can't be told from the column alone.
const BY_SCAN: &str = "SELECT * FROM by_key WHERE k + 0 = ?";

pub(super) async fn run(args: &Args, report: &mut Report) -> anyhow::Result<()> {
    let query = "SELECT k, count(*) AS n, sum(x) AS s FROM events GROUP BY k";
    let payload = |key| format!("{{\"k\":{key},\"x\":{}}}", key % 7);
    let (_broker, served) = Served::with_view("by_key", query, "k BIGINT, x BIGINT", args.keys, payload).await?;
    let by_scan = ask(&served.url, BY_SCAN, args, Duration::from_secs(args.seconds.min(3))).await?;
    let by_key = ask(&served.url, BY_KEY, args, Duration::from_secs(args.seconds)).await?;
    served.end().await?;
    let ms = |share: f64| quantile(&by_key.took, share).unwrap_or(f64::NAN);
    report.add(
        Figure::new("serve", "points", by_key.rate, Unit::rate("queries/s"))
            .against("a scan of the view", by_scan.rate)
            .more("p50_ms", ms(0.5))
            .more("p99_ms", ms(0.99))
            .more("keys", args.keys)
            .more("clients", args.clients),
    )
}

struct Asked {
    rate: f64,
    /// Milliseconds, in order.
    took: Vec<f64>,
}

async fn ask(url: &str, query: &'static str, args: &Args, time: Duration) -> anyhow::Result<Asked> {
    let barrier = Arc::new(tokio::sync::Barrier::new(args.clients));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..args.clients {
        let (url, keys, barrier) = (url.to_string(), args.keys as i64, barrier.clone());
        clients.spawn(async move {
            let mut client = connect(&url).await?;
            let mut prepared = client.prepare(query.into(), None).await?;
            let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(number as u64);
            let mut took = vec![];
            barrier.wait().await;
            let until = Instant::now() + time;
            while Instant::now() < until {
                let key = random.random_range(0..keys);
                let started = Instant::now();
                prepared.set_parameters(RecordBatch::try_from_iter([("0", Arc::new(Int64Array::from(vec![key])) as _)])?)?;
                let info = prepared.execute().await?;
                let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket);
                let rows: Vec<RecordBatch> = client.do_get(ticket.ok_or_else(|| anyhow::anyhow!("the result has no ticket"))?).await?.try_collect().await?;
                took.push(started.elapsed().as_secs_f64() * 1000.0);
                anyhow::ensure!(rows.iter().map(RecordBatch::num_rows).sum::<usize>() == 1, "key {key} was not found once");
            }
            Ok(took)
        });
    }
    let mut took: Vec<f64> = vec![];
    while let Some(of_client) = clients.join_next().await {
        took.extend(of_client??);
    }
    took.sort_unstable_by(f64::total_cmp);
    anyhow::ensure!(!took.is_empty(), "no query was answered in time");
    Ok(Asked { rate: took.len() as f64 / time.as_secs_f64(), took })
}
