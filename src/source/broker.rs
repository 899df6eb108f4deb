//! The embedded broker: librdkafka's mock cluster with one broker on a loopback port of its own choosing.
//! For demos, tests and trying things out: it speaks enough of Kafka's protocol for producers, consumers and group
//! offsets, keeps the newest 5 MiB or 100,000 batches of each partition in memory, and forgets everything when dropped.
//!
//! What it can't do follows from librdkafka's source (`rdkafka_mock.c`, `rdkafka_mock_handlers.c`, 2.12): both limits are
//! constants, `ListOffsets` answers -1 to any look-up by time, and fetching ignores the isolation level. A topic that
//! a client with `allow.auto.create.topics` (every producer) asks for springs into being with four partitions.

use std::collections::HashSet;
use std::sync::mpsc;
use std::thread;

use rdkafka::mocking::MockCluster;

use crate::{Error, Result};

/// More than anybody needs on one machine; keeps a slip of the finger from taking all memory.
const MOST_PARTITIONS: i32 = 1024;

/// A running broker. Dropping it ends it, and its records are gone.
#[derive(Debug)]
pub struct EmbeddedBroker {
    bootstrap_servers: String,
    /// Closing this channel tells the cluster's thread to end.
    stop: Option<mpsc::Sender<()>>,
    /// The cluster's handle isn't `Send`, so it lives on a thread of its own from beginning to end.
    thread: Option<thread::JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Starts a broker that has these topics, given as name and number of partitions.
    pub fn start<T: AsRef<str>>(topics: &[(T, i32)]) -> Result<Self> {
        let topics = topics.iter().map(|(name, partitions)| check(name.as_ref(), *partitions)).collect::<Result<Vec<_>>>()?;
        let mut names = HashSet::new();
        if let Some((twice, _)) = topics.iter().find(|(name, _)| !names.insert(name.as_str())) {
            return Err(Error::Invalid(format!("topic '{twice}' is given twice; name each topic once")));
        }

        let (stop, stopped) = mpsc::channel();
        let (report, started) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("embedded-broker".into())
            .spawn(move || match start_cluster(&topics) {
                Ok(cluster) => {
                    // Nobody listening means that the starter is gone: then there is nothing to wait for either.
                    if report.send(Ok(cluster.bootstrap_servers())).is_ok() {
                        let _ = stopped.recv();
                    }
                }
                Err(error) => drop(report.send(Err(error))),
            })
            .map_err(|e| Error::External(format!("the embedded broker's thread does not start: {e}")))?;
        let bootstrap_servers = started.recv().map_err(|_| Error::External("the embedded broker's thread ended before the broker had started".into()))??;
        Ok(Self { bootstrap_servers, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens, as `127.0.0.1:PORT`.
    pub fn bootstrap_servers(&self) -> &str {
        &self.bootstrap_servers
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread runs only librdkafka's calls; had one panicked, the message is on stderr already.
            let _ = thread.join();
        }
    }
}

fn start_cluster(topics: &[(String, i32)]) -> Result<MockCluster<'static, rdkafka::producer::DefaultProducerContext>> {
    let cluster = MockCluster::new(1).map_err(|e| Error::External(format!("the embedded broker does not start: {e}")))?;
    for (name, partitions) in topics {
        cluster
            .create_topic(name, *partitions, 1)
            .map_err(|e| Error::External(format!("the embedded broker can't create topic '{name}' with {partitions} partitions: {e}")))?;
    }
    Ok(cluster)
}

/// Kafka's own rules for a topic's name; librdkafka's mock cluster takes anything.
fn check(name: &str, partitions: i32) -> Result<(String, i32)> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(legal) {
        return Err(Error::Invalid(format!("'{name}' can't be a topic's name; use 1 to 249 letters, digits, dots, underscores and dashes")));
    }
    if !(1..=MOST_PARTITIONS).contains(&partitions) {
        return Err(Error::Invalid(format!("topic '{name}' can't have {partitions} partitions; give it between 1 and {MOST_PARTITIONS}")));
    }
    Ok((name.to_owned(), partitions))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn listens_on_loopback_and_ends_when_dropped() {
        let broker = EmbeddedBroker::start(&[("one", 1), ("two", 8)]).unwrap();
        let address = broker.bootstrap_servers().to_owned();
        assert!(address.starts_with("127.0.0.1:"), "{address}");
        std::net::TcpStream::connect(&address).unwrap();
        drop(broker);
        assert!(std::net::TcpStream::connect(&address).is_err());
    }

    #[test]
    fn refuses_names_and_numbers_that_kafka_refuses() {
        let refusal = |topics: &[(&str, i32)]| EmbeddedBroker::start(topics).unwrap_err().to_string();
        assert!(refusal(&[("a b", 1)]).contains("'a b'"));
        assert!(refusal(&[("", 1)]).contains("can't be a topic's name"));
        assert!(refusal(&[("..", 1)]).contains("'..'"));
        assert!(refusal(&[("a", 0)]).contains("between 1 and"));
        assert!(refusal(&[("a", 1), ("a", 2)]).contains("twice"));
    }
}
