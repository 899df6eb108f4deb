//! What `replay` and `simulate` share: the flags for where and how fast, the progress shown, the closing line.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use crate::source::matches::MatchEvent;
use crate::source::producer::{Rate, SendOptions, Sent, Stop, send};

/// Without a terminal, a line of progress this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Where to send and how fast.
#[derive(Debug, clap::Args)]
pub struct SendArgs {
    /// The Kafka brokers, as host:port, several with commas between.
    #[arg(long, value_name = "HOST:PORT,…", default_value = "127.0.0.1:9092", env = "TIDEGATE_BROKERS")]
    brokers: String,
    /// The topic. It must exist: its partitions are the user's choice.
    #[arg(long, value_name = "NAME", default_value = "statsbomb-events")]
    topic: String,
    /// Events per second, evenly spaced, or `max` for as fast as the broker takes them.
    #[arg(long, value_name = "N|max", default_value = "3000")]
    rate: Rate,
    /// Give up when the broker can't be reached, or doesn't acknowledge a record, for so long.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_duration)]
    reach_within: Duration,
    /// A further librdkafka property, may be repeated: -X security.protocol=ssl
    #[arg(short = 'X', long = "property", value_name = "NAME=VALUE", value_parser = parse_property)]
    properties: Vec<(String, String)>,
}

/// When a send is meant to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// When there are no more events: ended earlier by a signal, it has failed.
    WhenDone,
    /// By a signal.
    WhenStopped,
    /// After so long, or when there are no more events.
    After(Duration),
}

/// Sends the events, showing progress on stderr and a closing line on stdout. `matches`: how many there are, if they end.
pub async fn run<I>(args: &SendArgs, events: I, matches: Option<u64>, end: End) -> anyhow::Result<()>
where
    I: Iterator<Item = crate::Result<MatchEvent>> + Send + 'static,
{
    let options = SendOptions {
        brokers: args.brokers.clone(),
        topic: args.topic.clone(),
        rate: args.rate,
        reach_within: args.reach_within,
        properties: args.properties.clone(),
    };
    let stop = Stop::default();
    let sender = tokio::task::spawn_blocking({
        let stop = stop.clone();
        move || {
            let mut progress = Progress::new(matches);
            let result = send(events, &options, &stop, |sent| {
                // The time is counted from the first event, not from the first attempt to reach the broker.
                if matches!(end, End::After(time) if sent.elapsed >= time) {
                    stop.stop();
                }
                progress.show(sent);
            });
            progress.finish();
            result
        }
    });
    let interrupted = tokio::select! {
        signal = stop_signal() => {
            signal?;
            stop.stop();
            true
        }
        // A sender that ends by itself is awaited below; this branch only waits for it.
        () = async { while !sender.is_finished() { tokio::time::sleep(Duration::from_millis(20)).await } } => false,
    };
    let sent = sender.await.context("the sender broke off")??;
    println!("{}", closing_line(&sent, &args.topic));
    anyhow::ensure!(!(interrupted && sent.stopped && end == End::WhenDone), "stopped by a signal before all events were sent");
    Ok(())
}

/// Waits for SIGINT or SIGTERM.
pub async fn stop_signal() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).context("can't listen for SIGTERM")?;
    tokio::select! {
        interrupt = tokio::signal::ctrl_c() => interrupt.context("can't listen for SIGINT"),
        _ = terminate.recv() => Ok(()),
    }
}

fn closing_line(sent: &Sent, topic: &str) -> String {
    format!(
        "sent {} events ({:.1} MB) of {} finished matches to topic '{topic}' in {:.1} s: {:.0} events/s",
        sent.events,
        sent.bytes as f64 / 1e6,
        sent.matches,
        sent.elapsed.as_secs_f64(),
        sent.events_per_second()
    )
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    matches: Option<u64>,
    last_line: Instant,
}

impl Progress {
    fn new(matches: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let (bar, template) = match matches {
                Some(matches) => (ProgressBar::new(matches), "{elapsed:>4} {wide_bar} {pos}/{len} matches, {msg}"),
                None => (ProgressBar::new_spinner(), "{elapsed:>4} {spinner} {pos} matches, {msg}"),
            };
            bar.with_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, matches, last_line: Instant::now() }
    }

    fn show(&mut self, sent: &Sent) {
        // A bar redraws 20 times a second at most by itself, but the text for it need not be made a thousand times.
        let due = self.last_line.elapsed() >= if self.bar.is_some() { Duration::from_millis(100) } else { LINE_EVERY };
        if !due {
            return;
        }
        self.last_line = Instant::now();
        let clock = sent.event_time_ms.map(crate::source::matches::event::format_time).unwrap_or_default();
        let text = format!("{} events, {:.0}/s, at {clock}", sent.events, sent.events_per_second());
        match (&self.bar, self.matches) {
            (Some(bar), _) => {
                bar.set_position(sent.matches);
                bar.set_message(text);
            }
            (None, Some(matches)) => eprintln!("{} of {matches} matches, {text}", sent.matches),
            (None, None) => eprintln!("{} matches, {text}", sent.matches),
        }
    }

    fn finish(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

/// Reads a duration: a number and `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no duration; write a number and a unit, like 500ms, 30s, 5m or 1h");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(wrong()),
    };
    let duration = number.parse::<f64>().ok().and_then(|n| Duration::try_from_secs_f64(n * seconds).ok());
    duration.filter(|d| !d.is_zero() && *d < Duration::from_secs(366 * 86_400)).ok_or_else(wrong)
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is no property; write NAME=VALUE, like security.protocol=ssl"))?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "30", "s", "0s", "-1s", "1d", "1..2s", "99999999h"] {
            assert!(parse_duration(wrong).unwrap_err().contains("is no duration"), "{wrong}");
        }
    }
}
