//! How a consumer is configured, and what a topic looks like.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};

use crate::{
    catalog::{KafkaDef, Startup},
    error::{Error, Result},
};

/// What librdkafka says on its own goes to the log at a level that fits: the end of a partition is no error, and a lost connection
/// is told by the reader's state.
#[derive(Debug)]
pub struct Told;

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => tracing::error!(target: "librdkafka", facility, "{message}"),
            _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
    }
}

impl ConsumerContext for Told {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        // Nothing depends on it: where to read is decided by checkpoints alone.
        if let Err(error) = result {
            tracing::warn!("offsets could not be shown to the consumer group, the next checkpoint tries again: {error}");
        }
    }
}

/// A consumer that assigns partitions itself.
pub type Client = BaseConsumer<Told>;

/// How long a question to the broker may take before it counts as unreachable.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A topic's partitions with the offsets they hold: oldest retained, one past the newest.
pub type Partitions = BTreeMap<i32, (i64, i64)>;

/// The consumer group under which offsets are shown to Kafka's own tools.
pub fn group_of(source: &str, kafka: &KafkaDef) -> String {
    kafka.properties.get("group.id").cloned().unwrap_or_else(|| format!("tidegate-{source}"))
}

/// A consumer for this topic; nothing is read yet.
pub(super) fn consumer(kafka: &KafkaDef, group: &str) -> Result<Client> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &kafka.brokers)
        .set("client.id", "tidegate")
        // An empty fetch returns after this long: latency where a broker does not wake waiting fetches, as the embedded one.
        .set("fetch.wait.max.ms", "15")
        .set("fetch.error.backoff.ms", "100")
        .set("queued.max.messages.kbytes", "65536")
        .set("reconnect.backoff.max.ms", "2000")
        .set("allow.auto.create.topics", "false")
        .set("log_level", "3");
    for (key, value) in &kafka.properties {
        config.set(key, value);
    }
    // What the engine relies on comes last.
    config
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error");
    config.create_with_context(Told).map_err(|e| {
        let why = kafka.without_secrets(&e.to_string());
        Error::Invalid(format!("the Kafka client for topic {} can't be made: {why}; check the 'properties.…' of the source", kafka.topic))
    })
}

/// The topic's partitions and the offsets they hold now.
pub fn partitions_of(kafka: &KafkaDef) -> Result<Partitions> {
    let consumer = consumer(kafka, "tidegate-look")?;
    let mut partitions = Partitions::new();
    for partition in partition_numbers(&consumer, kafka)? {
        partitions.insert(partition, watermarks(&consumer, kafka, partition)?);
    }
    Ok(partitions)
}

/// Whether the topic can be reached within a time.
pub fn reachable(kafka: &KafkaDef, within: Duration) -> Result<()> {
    numbers_within(&consumer(kafka, "tidegate-look")?, kafka, within).map(|_| ())
}

pub(super) fn partition_numbers(consumer: &Client, kafka: &KafkaDef) -> Result<Vec<i32>> {
    numbers_within(consumer, kafka, ASK_TIMEOUT)
}

pub(super) fn numbers_within(consumer: &Client, kafka: &KafkaDef, within: Duration) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(&kafka.topic), within).map_err(|e| unreachable_broker(kafka, &e))?;
    let unknown = || Error::NotFound(format!("topic {} does not exist on {}: create it, or check the names of topic and brokers", kafka.topic, kafka.brokers));
    let topic = metadata.topics().iter().find(|t| t.name() == kafka.topic).ok_or_else(unknown)?;
    if let Some(error) = topic.error() {
        return Err(match RDKafkaErrorCode::from(error) {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => unknown(),
            code => Error::External(format!("topic {} on {} can't be read: {code}", kafka.topic, kafka.brokers)),
        });
    }
    let mut numbers: Vec<i32> = topic.partitions().iter().map(|p| p.id()).collect();
    if numbers.is_empty() {
        return Err(unknown());
    }
    numbers.sort_unstable();
    Ok(numbers)
}

pub(super) fn watermarks(consumer: &Client, kafka: &KafkaDef, partition: i32) -> Result<(i64, i64)> {
    consumer.fetch_watermarks(&kafka.topic, partition, ASK_TIMEOUT).map_err(|e| unreachable_broker(kafka, &e))
}

/// One past the newest record of each of these partitions: one question a broker, which waits for nothing that is cached.
pub(super) fn ends(consumer: &Client, kafka: &KafkaDef, partitions: &[i32], within: Duration) -> Result<BTreeMap<i32, i64>> {
    let wanted = partitions.iter().map(|partition| (*partition, Offset::End)).collect();
    look_up(consumer, kafka, &wanted, within)?
        .into_iter()
        .map(|(partition, offset)| match offset {
            Offset::Offset(offset) => Ok((partition, offset)),
            other => {
                Err(Error::External(format!("Kafka at {} does not say where partition {partition} of topic {} ends: {other:?}", kafka.brokers, kafka.topic)))
            }
        })
        .collect()
}

/// Where the records of a time begin in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// At this offset; all before it are older, or have no time.
    At(i64),
    /// Nothing is that new.
    Nothing,
    /// The broker can't look offsets up by time, as the embedded one.
    Unknown,
}

/// For each partition the first record whose timestamp is not before so many milliseconds since 1970.
pub(super) fn since(consumer: &Client, kafka: &KafkaDef, times: &BTreeMap<i32, i64>) -> Result<BTreeMap<i32, Since>> {
    let ask =
        |times: &BTreeMap<i32, i64>| look_up(consumer, kafka, &times.iter().map(|(p, millis)| (*p, Offset::Offset((*millis).max(0)))).collect(), ASK_TIMEOUT);
    let mut found = BTreeMap::new();
    for (partition, offset) in ask(times)? {
        found.insert(partition, if let Offset::Offset(offset) = offset { Since::At(offset) } else { Since::Nothing });
    }
    // "Nothing" is also what a broker says that can't look up by time, and one whose records have none: it says so of 1970 too.
    let nothing: BTreeMap<i32, i64> = found.iter().filter(|(_, since)| **since == Since::Nothing).map(|(partition, _)| (*partition, 0)).collect();
    if !nothing.is_empty() {
        for (partition, offset) in ask(&nothing)? {
            if !matches!(offset, Offset::Offset(_)) {
                found.insert(partition, Since::Unknown);
            }
        }
    }
    Ok(found)
}

fn look_up(consumer: &Client, kafka: &KafkaDef, wanted: &BTreeMap<i32, Offset>, within: Duration) -> Result<BTreeMap<i32, Offset>> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut list = TopicPartitionList::new();
    for (partition, offset) in wanted {
        list.add_partition_offset(&kafka.topic, *partition, *offset).map_err(|e| unreachable_broker(kafka, &e))?;
    }
    let found = consumer.offsets_for_times(list, within).map_err(|e| unreachable_broker(kafka, &e))?;
    let answers = found.elements();
    answers
        .iter()
        .map(|element| {
            element.error().map_err(|e| unreachable_broker(kafka, &e))?;
            Ok((element.partition(), element.offset()))
        })
        .collect()
}

fn unreachable_broker(kafka: &KafkaDef, error: &KafkaError) -> Error {
    let code = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
    Error::External(format!("no answer from Kafka at {} about topic {}: {code}; check that the broker runs and can be reached", kafka.brokers, kafka.topic))
}

/// Offsets at which a reader without a checkpoint starts; empty for [`Startup::Earliest`], which needs no question.
/// `Latest` and `Timestamp` are answered once, when the source is created, and recorded.
pub fn resolve_start(kafka: &KafkaDef) -> Result<BTreeMap<i32, i64>> {
    match &kafka.startup {
        Startup::Earliest => Ok(BTreeMap::new()),
        Startup::Offsets(offsets) => Ok(offsets.clone()),
        Startup::Latest => Ok(partitions_of(kafka)?.into_iter().map(|(partition, (_, end))| (partition, end)).collect()),
        Startup::Timestamp(millis) => {
            let consumer = consumer(kafka, "tidegate-look")?;
            let times = partition_numbers(&consumer, kafka)?.into_iter().map(|partition| (partition, *millis)).collect();
            let mut offsets = BTreeMap::new();
            for (partition, since) in since(&consumer, kafka, &times)? {
                let (low, end) = watermarks(&consumer, kafka, partition)?;
                let offset = match since {
                    Since::At(offset) => offset,
                    Since::Unknown if low < end => {
                        return Err(Error::Unsupported(format!(
                            "Kafka at {} can't look up offsets of topic {} by time: write 'scan.startup.mode' = 'offsets' or 'earliest'",
                            kafka.brokers, kafka.topic
                        )));
                    }
                    // Nothing is that new: start at the end.
                    Since::Nothing | Since::Unknown => end,
                };
                offsets.insert(partition, offset);
            }
            Ok(offsets)
        }
    }
}
