//! `tidegate simulate`.

use std::time::Duration;

use super::send::{self, End, SendArgs, parse_duration};
use crate::source::matches::{SimulateOptions, SimulatedMatches, parse_kick_off};

/// Send simulated football matches to a topic.
///
/// Matches of made-up teams and players in the schema of StatsBomb's events, about 3,500 events each: lineups, possessions of
/// passes, carries and duels under pressure, shots with expected goals and freeze frames, goals drawn by them, fouls, cards,
/// substitutions, some events with 360 data. Records look as `tidegate replay` sends them: key, `match_id`, `home_team`, `away_team`,
/// `event_time`.
///
/// The same --seed gives the same matches, byte for byte, on every machine. As in real data, some matches have a
/// `Ball Receipt*` at the end of the first half that carries the time of its beginning, so it is late by three quarters
/// of an hour; --no-late-receipts leaves that out.
///
/// The exit status is 0 when the broker has acknowledged every event. Ended by SIGINT or SIGTERM before that, it is not 0,
/// except with --loop or --for.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate simulate --brokers 127.0.0.1:9092 --topic statsbomb-events --matches 20 --concurrent 10 --rate max\n  tidegate simulate --brokers 127.0.0.1:9092 --topic statsbomb-events --loop --rate 3000 --for 30s --seed 7"
)]
pub struct Args {
    #[command(flatten)]
    send: SendArgs,
    /// How many matches.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    matches: u64,
    /// How many kick off together; the next ones follow three hours of match time later.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    concurrent: u64,
    /// When the first of them kick off.
    #[arg(long, value_name = "TIME", value_parser = parse_kick_off, default_value = "2018-01-01T00:00:00Z")]
    kick_off: i64,
    /// Go on with new matches for ever: --matches is then without meaning.
    #[arg(long = "loop")]
    endless: bool,
    /// Everything about the matches follows from it. It also gives their ids: 101000001 and on for seed 1.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// End after so long.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    time: Option<Duration>,
    /// The share of events that have 360 data, from 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = parse_share)]
    three_sixty: f64,
    /// Leave out the receipts that come late.
    #[arg(long)]
    no_late_receipts: bool,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let matches = (!args.endless).then_some(args.matches);
    let options = SimulateOptions {
        seed: args.seed,
        matches,
        concurrent: args.concurrent,
        kick_off_ms: args.kick_off,
        three_sixty: args.three_sixty,
        late_receipts: !args.no_late_receipts,
    };
    let end = match args.time {
        Some(time) => End::After(time),
        None if args.endless => End::WhenStopped,
        None => End::WhenDone,
    };
    send::run(&args.send, SimulatedMatches::new(&options).map(Ok), matches, end).await
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("'{text}' is no share; write a number from 0 to 1"))
}
