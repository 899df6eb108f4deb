//! `tidegate demo`.

use std::{
    io::{IsTerminal, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float64Type, Int64Type, TimestampNanosecondType},
};
use futures::TryStreamExt;

use super::{logging, script, send::parse_duration, serve::StopSignals};
use crate::{
    config::{LogConfig, LogFormat},
    console::Console,
    serve::Server,
    session::{Engine, EngineConfig, Outcome, Session},
    source::{
        broker::EmbeddedBroker,
        matches::{DEFAULT_KICK_OFF_MS, SimulateOptions, SimulatedMatches},
        producer::{Rate, SendOptions, Sent, Stop, send},
    },
};

const TOPIC: &str = "statsbomb-events";
const PARTITIONS: i32 = 4;
/// Where the script says that Kafka is; the demo's own broker takes its place.
const SCRIPT_BROKERS: &str = "localhost:9092";
const SCRIPT: &str = include_str!("../../sql/matches.sql");

/// See it work: broker, simulated matches, server and views in one process.
///
/// Nothing to install or configure; nothing is left behind. Runs sql/matches.sql and shows the newest minute of every match. Connect
/// beside it with any Flight SQL client, or with 'tidegate sql'.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tidegate demo --rate 3000 --for 30s")]
pub struct Args {
    /// Events per second
    #[arg(long, default_value = "3000", value_name = "N|max")]
    rate: Rate,
    /// How long; until Ctrl-C if not given
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:50051", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Where to serve metrics and health over HTTP; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    http: SocketAddr,
    /// Matches side by side
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    concurrent: u64,
    /// Everything that happens follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<()> {
    logging::start(&LogConfig { filter: "warn".into(), format: LogFormat::Text });
    let mut signals = StopSignals::listen()?;
    let folder = tempfile::Builder::new().prefix("tidegate-demo-").tempdir()?;
    let broker = EmbeddedBroker::start(&[(TOPIC, PARTITIONS)])?;
    let brokers = broker.bootstrap_servers().to_string();
    let engine = Engine::start(EngineConfig::new(folder.path())).await?;
    let session = engine.session();
    script::run(&session, "sql/matches.sql", &SCRIPT.replace(SCRIPT_BROKERS, &brokers)).await?;
    let server = Server::bind(engine.clone(), args.listen).await?;
    let url = format!("grpc://{}", server.local_addr());
    let console = Console::start(args.http, None).await?;
    console.show(engine.clone(), false)?;
    println!("listening on {url}");
    println!("http on {}", console.url());
    println!("{}", how_to_connect(&url));

    let (stop_server, stopping) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async {
        // Dropped at the end: either way it is time to stop.
        let _ = stopping.await;
    }));
    let stop = Stop::default();
    let options = SimulateOptions { seed: args.seed, matches: None, concurrent: args.concurrent, ..SimulateOptions::default() };
    let pace = Pace::default();
    let sending = {
        let (stop, send_options) = (stop.clone(), SendOptions { rate: args.rate, ..SendOptions::new(brokers, TOPIC) });
        let pace = pace.clone();
        tokio::task::spawn_blocking(move || send(SimulatedMatches::new(&options).map(Ok), &send_options, &stop, |sent| pace.set(sent)))
    };
    let shown = tokio::select! {
        shown = show(&session, &pace) => shown,
        () = signals.next() => Ok(()),
        () = async { tokio::time::sleep(args.duration.unwrap_or(Duration::MAX)).await } => Ok(()),
    };
    stop.stop();
    let sent = sending.await??;
    if let Some(line) = pace.line() {
        println!("{line}");
    }
    println!("sent {} events in {:.1} s ({:.0} a second)", sent.events, sent.elapsed.as_secs_f64(), sent.events_per_second());
    drop(stop_server);
    serving.await??;
    engine.stop().await?;
    drop(broker);
    Ok(shown?)
}

fn how_to_connect(url: &str) -> String {
    let address = url.trim_start_matches("grpc://");
    format!(
        "\nconnect:\n  \
         shell    tidegate sql --url {url} -c 'SELECT * FROM team_minute ORDER BY window_start DESC LIMIT 10'\n  \
         Python   pip install adbc-driver-flightsql adbc-driver-manager pyarrow\n           \
         adbc_driver_flightsql.dbapi.connect('{url}', autocommit=True)\n  \
         DBeaver  driver class org.apache.arrow.driver.jdbc.ArrowFlightJdbcDriver,\n           \
         URL jdbc:arrow-flight-sql://{address}?useEncryption=false\n  \
         follow   SELECT * FROM team_minute EMIT CHANGES\n"
    )
}

/// One line a team: its newest minute, and the match so far.
const NEWEST: &str = "
WITH newest AS (SELECT match_id, max(window_start) AS minute FROM team_minute GROUP BY match_id ORDER BY minute DESC, match_id LIMIT 12),
     so_far AS (SELECT match_id, team, sum(events) AS events, sum(goals) AS goals, sum(shots) AS shots, sum(xg) AS xg FROM team_minute GROUP BY match_id, team)
SELECT n.match_id, n.minute, t.team, coalesce(m.events, 0) AS minute_events, coalesce(m.passes, 0) AS minute_passes, t.events, t.goals, t.shots, t.xg
FROM newest n JOIN so_far t ON t.match_id = n.match_id LEFT JOIN team_minute m ON m.match_id = n.match_id AND m.team = t.team AND m.window_start = n.minute
ORDER BY n.match_id, t.team";

async fn show(session: &Session, pace: &Pace) -> crate::Result<()> {
    let terminal = std::io::stdout().is_terminal();
    let mut drawn = 0;
    loop {
        tokio::time::sleep(if terminal { Duration::from_millis(500) } else { Duration::from_secs(5) }).await;
        let mut rows: Vec<RecordBatch> = vec![];
        if let Outcome::Rows(stream) = session.execute(NEWEST, &[]).await? {
            rows = stream.try_collect().await?;
        }
        let mut lines = lines(&rows);
        lines.extend(pace.line());
        let mut out = std::io::stdout().lock();
        if terminal && drawn > 0 {
            // Back up over the table and draw it anew.
            let _ = write!(out, "\x1b[{drawn}A\x1b[J");
        }
        for line in &lines {
            // A closed pipe is no reason to stop the demo.
            let _ = writeln!(out, "{line}");
        }
        let _ = out.flush();
        drawn = lines.len();
    }
}

/// How fast match time runs, in hundredths of the clock's pace; 0 before it is known.
#[derive(Clone, Default)]
struct Pace(Arc<AtomicI64>);

impl Pace {
    fn set(&self, sent: &Sent) {
        if let Some(newest) = sent.event_time_ms
            && sent.elapsed >= Duration::from_secs(1)
        {
            let times = (newest - DEFAULT_KICK_OFF_MS) as f64 / sent.elapsed.as_millis() as f64;
            self.0.store((times * 100.0) as i64, Ordering::Relaxed);
        }
    }

    fn line(&self) -> Option<String> {
        let times = self.0.load(Ordering::Relaxed);
        (times > 0).then(|| format!("match time runs {:.0} times as fast as the clock", times as f64 / 100.0))
    }
}

fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<11} {:<17} {:<22} {:>7} {:>7} | {:>7} {:>5} {:>5} {:>6}",
        "match", "newest minute", "team", "events", "passes", "events", "goals", "shots", "xG"
    )];
    for batch in batches {
        let whole = |column: usize| batch.column(column).as_primitive::<Int64Type>();
        let minutes = batch.column(1).as_primitive::<TimestampNanosecondType>();
        let xg = batch.column(8).as_primitive::<Float64Type>();
        let team = arrow::util::display::ArrayFormatter::try_new(batch.column(2).as_ref(), &Default::default());
        let Ok(team) = team else { continue };
        for row in 0..batch.num_rows() {
            let minute = minutes.value(row);
            let clock = chrono::DateTime::from_timestamp_nanos(minute).format("%Y-%m-%d %H:%M");
            let xg = if xg.is_null(row) { 0.0 } else { xg.value(row) };
            lines.push(format!(
                "{:<11} {clock:<17} {:<22} {:>7} {:>7} | {:>7} {:>5} {:>5} {xg:>6.2}",
                whole(0).value(row),
                team.value(row).to_string(),
                whole(3).value(row),
                whole(4).value(row),
                whole(5).value(row),
                whole(6).value(row),
                whole(7).value(row)
            ));
        }
    }
    lines
}
