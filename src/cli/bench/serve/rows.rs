//! A large result through one stream.

use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow_flight::{Ticket, decode::FlightRecordBatchStream};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use super::{Args, Served, bare, connect, rounded};
use crate::session::Outcome;

pub(super) async fn run(args: &Args) -> anyhow::Result<serde_json::Value> {
    let served = Served::start().await?;
    let query = format!("SELECT value AS id, value % 1000 AS team, value * 0.5 AS xg FROM generate_series(1, {})", args.rows);
    let Outcome::Rows(rows) = served.engine.session().execute(&query, &[]).await? else { anyhow::bail!("the query gave no rows") };
    let batches: Vec<RecordBatch> = rows.try_collect().await?;
    let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
    let (bare_url, bare_serving) = bare::serve(batches).await?;
    let (mut ours, mut theirs) = (Duration::MAX, Duration::MAX);
    let mut client = connect(&served.url).await?;
    let mut bare_client = connect(&bare_url).await?;
    for _ in 0..args.runs {
        let started = Instant::now();
        let info = client.execute(query.clone(), None).await?;
        let ticket = info.endpoint.into_iter().next().and_then(|endpoint| endpoint.ticket).ok_or_else(|| anyhow::anyhow!("the result has no ticket"))?;
        count(client.do_get(ticket).await?, args.rows).await?;
        ours = ours.min(started.elapsed());
        let started = Instant::now();
        count(bare_client.do_get(Ticket::new("")).await?, args.rows).await?;
        theirs = theirs.min(started.elapsed());
    }
    bare_serving.abort();
    served.end().await?;
    let rate = |took: Duration| (args.rows as f64 / took.as_secs_f64()).round();
    Ok(json!({ "bench": "serve", "part": "rows", "rows": args.rows, "bytes": bytes, "rows_per_second": rate(ours),
               "gigabytes_per_second": rounded(bytes as f64 / ours.as_secs_f64() / 1e9), "baseline": "arrow-flight from memory",
               "baseline_rows_per_second": rate(theirs), "of_baseline": rounded(theirs.as_secs_f64() / ours.as_secs_f64()), "runs": args.runs }))
}

async fn count(mut rows: FlightRecordBatchStream, want: u64) -> anyhow::Result<()> {
    let mut got = 0;
    while let Some(batch) = rows.next().await {
        got += batch?.num_rows() as u64;
    }
    anyhow::ensure!(got == want, "{got} rows came instead of {want}");
    Ok(())
}
