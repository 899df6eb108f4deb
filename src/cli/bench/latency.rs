//! `tidegate bench latency`: from produce to visible in a view, at a steady rate, and what that costs.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use arrow::{array::AsArray, datatypes::TimestampNanosecondType};
use futures::StreamExt;
use serde_json::json;

use crate::{
    session::{Engine, EngineConfig, Outcome},
    stream::driver::now_ms,
};

/// From produce to visible, at a steady rate.
///
/// Broker and sender run as processes of their own, so that the CPU time printed is the server's alone. A record counts as produced at its
/// Kafka timestamp, and as visible when a follower of a view has it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Events per second
    #[arg(long, default_value_t = 3000)]
    pub(super) rate: u32,
    /// Seconds to measure
    #[arg(long, default_value_t = 10)]
    pub(super) seconds: u64,
}

/// Runs the benchmark; prints one JSON object.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let program = std::env::current_exe()?;
    let mut broker = Command::new(&program).args(["broker", "--topic", "events:4"]).stdout(Stdio::piped()).spawn()?;
    let brokers = {
        use std::io::BufRead;
        let out = broker.stdout.take().ok_or_else(|| anyhow::anyhow!("the broker has no output"))?;
        let line = std::io::BufReader::new(out).lines().next().ok_or_else(|| anyhow::anyhow!("the broker said nothing"))??;
        line.trim_start_matches("bootstrap.servers=").to_string()
    };
    let result = measure(&args, &program, &brokers).await;
    broker.kill()?;
    broker.wait()?;
    println!("{}", result?);
    Ok(())
}

async fn measure(args: &Args, program: &std::path::Path, brokers: &str) -> anyhow::Result<serde_json::Value> {
    let folder = tempfile::tempdir()?;
    let engine = Engine::start(EngineConfig::new(folder.path())).await?;
    let session = engine.session();
    session
        .execute(
            &format!(
                "CREATE SOURCE match_events (match_id BIGINT, team TEXT PATH '$.team.name', type_name TEXT PATH '$.type.name', xg DOUBLE PATH '$.shot.statsbomb_xg',
                 event_time TIMESTAMP, sent_at TIMESTAMP METADATA FROM 'timestamp', WATERMARK FOR event_time AS event_time - INTERVAL '5 seconds')
                 WITH (connector = 'kafka', topic = 'events', 'bootstrap.servers' = '{brokers}', format = 'json')"
            ),
            &[],
        )
        .await?;
    let view =
        "CREATE CONTINUOUS VIEW team_minute AS SELECT window_start, match_id, team, count(*) AS events, count(*) FILTER (WHERE type_name = 'Pass') AS passes,
        count(*) FILTER (WHERE type_name = 'Shot') AS shots, sum(xg) AS xg, max(sent_at) AS newest
        FROM TUMBLE(match_events, event_time, INTERVAL '1 minute') GROUP BY window_start, window_end, match_id, team EMIT CHANGES";
    session.execute(view, &[]).await?;
    let seconds = (args.seconds + 2).to_string();
    let mut sender = Command::new(program)
        .args([
            "simulate",
            "--brokers",
            brokers,
            "--topic",
            "events",
            "--rate",
            &args.rate.to_string(),
            "--matches",
            "100000",
            "--concurrent",
            "60",
            "--for",
            &format!("{seconds}s"),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let Outcome::Rows(mut changes) = session.execute("SELECT newest FROM team_minute EMIT CHANGES", &[]).await? else {
        anyhow::bail!("a subscription gave no rows")
    };
    // The first second warms up.
    let warm = Instant::now() + Duration::from_secs(1);
    let mut latencies: Vec<i64> = vec![];
    let mut cpu = None;
    let deadline = warm + Duration::from_secs(args.seconds);
    while let Ok(Some(batch)) = tokio::time::timeout_at(deadline.into(), changes.next()).await {
        let batch = batch?;
        let now = now_ms();
        if Instant::now() < warm {
            continue;
        }
        cpu.get_or_insert_with(|| (cpu_time(), Instant::now()));
        let ops = batch.column(1).as_string_view();
        for (row, sent) in batch.column(0).as_primitive::<TimestampNanosecondType>().iter().enumerate() {
            if ops.value(row) != "update_before"
                && let Some(sent) = sent
            {
                latencies.push(now - sent / 1_000_000);
            }
        }
    }
    let cores = cpu.map(|(before, at)| (cpu_time() - before).as_secs_f64() / at.elapsed().as_secs_f64());
    sender.kill()?;
    sender.wait()?;
    drop(changes);
    engine.stop().await?;
    anyhow::ensure!(!latencies.is_empty(), "no change became visible");
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Ok(
        json!({ "bench": "latency", "rate": args.rate, "seconds": args.seconds, "rows": latencies.len(), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0),
               "server_cores": cores.map(|c| (c * 1000.0).round() / 1000.0) }),
    )
}

/// CPU time that this process has used.
pub(super) fn cpu_time() -> Duration {
    // Fields 14 and 15 of /proc/self/stat, in ticks of 10 ms; the name before them may hold spaces but ends with a parenthesis.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<u64> = after.split_whitespace().skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
    Duration::from_millis(fields.iter().sum::<u64>() * 10)
}
