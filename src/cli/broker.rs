//! `tidegate broker`.

use std::io::Write;

use anyhow::Context;

use super::send::stop_signal;
use crate::source::broker::EmbeddedBroker;

/// Run the embedded Kafka broker as a process of its own.
///
/// For trying things out where no Kafka is at hand: it listens on a loopback
/// port of its own choosing, prints `bootstrap.servers=127.0.0.1:PORT`, and runs
/// until SIGINT or SIGTERM. Any Kafka client on this machine can produce to it
/// and consume from it.
///
/// What it is not: a place to keep data. It is librdkafka's mock cluster with
/// one broker, and it
///
///   * keeps about the newest 5 MiB, or 100,000 records, of each partition, in
///     memory, and drops older ones without a word (5 MiB are some 7,000 match
///     events; sent in batches, it is the batches that count to 100,000, and
///     compressed ones count as they were sent);
///   * keeps nothing after it exits;
///   * answers no look-up of offsets by time: that needs a real Kafka;
///   * knows no isolation: readers also see what open and aborted transactions
///     have written;
///   * has no administration: topics are those named here. One that some
///     producer asks for beside these springs into being with 4 partitions;
///     tidegate's own commands ask first, and refuse.
#[derive(Debug, clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "Example, in three terminals:\n  tidegate broker --topic statsbomb-events:4\n  tidegate simulate --brokers 127.0.0.1:PORT --topic statsbomb-events --rate 3000 --loop\n  tidegate serve"
)]
pub struct Args {
    /// A topic and its number of partitions; may be repeated.
    #[arg(long = "topic", value_name = "NAME:PARTITIONS", required = true, value_parser = parse_topic)]
    topics: Vec<(String, i32)>,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let broker = EmbeddedBroker::start(&args.topics)?;
    // Whoever started this process waits for the line, so it must not stay in a buffer.
    let mut stdout = std::io::stdout();
    writeln!(stdout, "bootstrap.servers={}", broker.bootstrap_servers()).and_then(|()| stdout.flush()).context("can't write to stdout")?;
    stop_signal().await
}

fn parse_topic(text: &str) -> Result<(String, i32), String> {
    let topic = text.rsplit_once(':').and_then(|(name, partitions)| Some((name.to_owned(), partitions.parse().ok()?)));
    topic.ok_or_else(|| format!("'{text}' is no topic with its partitions; write NAME:PARTITIONS, like statsbomb-events:4"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_comes_with_its_partitions() {
        assert_eq!(parse_topic("a.b-c:8").unwrap(), ("a.b-c".to_owned(), 8));
        for wrong in ["a", "a:", "a:x", ""] {
            assert!(parse_topic(wrong).unwrap_err().contains("NAME:PARTITIONS"), "{wrong}");
        }
    }
}
