//! `tidegate replay`.

use std::path::PathBuf;

use super::send::{self, End, SendArgs};
use crate::source::matches::{Order, Replay, ReplayOptions, parse_kick_off};

/// Send the matches of a StatsBomb open-data folder to a topic.
///
/// DIR is a download of https://github.com/statsbomb/open-data (its folder `data`), or a part of it: events/MATCH.json,
/// three-sixty/MATCH.json and matches/COMPETITION/SEASON.json, each plain or as .gz. StatsBomb's terms hold for the data.
///
/// A record is one event as it stands in the file, plus `match_id`, `home_team`, `away_team`, `event_time`, and
/// `visible_area` and `freeze_frame` where there is 360 data. Its key is the match id. `event_time` is the kick-off, plus the
/// start of the period (0:00, 1:05, 2:15, 2:35 and 3:00 hours after it), plus the event's `timestamp`. Kick-off is what the match
/// list says, taken as UTC, else 2018-01-01T00:00:00Z.
///
/// Events of one match go out by `index`; matches whose times overlap interleave by event time. Some real matches hold a
/// `Ball Receipt*` that is 46 minutes late: it keeps its place and its time.
///
/// The exit status is 0 when the broker has acknowledged every event. Ended by SIGINT or SIGTERM before that, it is not 0,
/// except with --loop.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  tidegate replay open-data/data --brokers 127.0.0.1:9092 --topic statsbomb-events --rate max\n  tidegate replay open-data/data --brokers 127.0.0.1:9092 --topic statsbomb-events \\\n    --matches 7525,7578 --concurrent 2 --kick-off 2026-06-11T19:00:00Z --rate 500"
)]
pub struct Args {
    /// The folder that holds `events`.
    dir: PathBuf,
    #[command(flatten)]
    send: SendArgs,
    /// Only these matches.
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    matches: Vec<i64>,
    /// Send so many matches side by side, in step with the time since their kick-offs, whatever their dates; the next one
    /// takes the place of one that has ended.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    concurrent: Option<u32>,
    /// Every match kicks off at this time, like 2018-06-14T15:00:00Z; without --concurrent they then all run side by side.
    #[arg(long, value_name = "TIME", value_parser = parse_kick_off)]
    kick_off: Option<i64>,
    /// Start again for ever: with new match ids (7525 becomes 17525, then 27525), and event time moved on by whole days.
    #[arg(long = "loop")]
    endless: bool,
    /// Draw the order of the matches by this seed; without --concurrent it decides only between equal kick-offs.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let options = ReplayOptions {
        matches: args.matches,
        kick_off_ms: args.kick_off,
        order: args.concurrent.map_or(Order::EventTime, |places| Order::SideBySide(places as usize)),
        seed: args.seed,
        endless: args.endless,
    };
    let replay = Replay::open(&args.dir, &options)?;
    let matches = (!args.endless).then_some(replay.match_count());
    send::run(&args.send, replay, matches, if args.endless { End::WhenStopped } else { End::WhenDone }).await
}
