//! How a consumer is configured, and what a topic looks like.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers, Message},
    metadata::Metadata,
};

use super::{
    configure::{configured, is_denied, not_made},
    refusal::refusal,
    told::Told,
};
use crate::{
    catalog::{ClientSettings, KafkaDef, Startup},
    error::{Error, Result},
    source::Header,
};

/// A consumer that assigns partitions itself.
pub type Client = BaseConsumer<Told>;

/// How long a question to the broker may take before it counts as unreachable.
pub const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// So long a consumer is heard out.
const HEAR: Duration = Duration::from_millis(20);
/// A broker answers a fetch as soon as there is something to send, or after so long.
pub(super) const WAIT: Duration = Duration::from_millis(100);
/// The embedded one does not look again before that time is over, so that it is asked more often.
pub(super) const SHORT_WAIT: Duration = Duration::from_millis(3);
/// So many messages are taken at once, at most. They stay in memory until all of them have been looked at.
pub(super) const TOGETHER: usize = 8192;
/// After this long it is looked whether the broker has refused the client.
const FIRST_TRY: Duration = Duration::from_secs(2);

/// A topic's partitions with the offsets they hold: oldest retained, one past the newest.
pub type Partitions = BTreeMap<i32, (i64, i64)>;

/// The consumer group under which offsets are shown to Kafka's own tools.
pub fn group_of(source: &str, kafka: &KafkaDef) -> String {
    kafka.properties.get("group.id").cloned().unwrap_or_else(|| format!("tidegate-{source}"))
}

/// A consumer for this topic in a group; nothing is read yet.
pub(super) fn consumer(kafka: &KafkaDef, group: &str) -> Result<Client> {
    consumer_with(&kafka.settings()?, Some(group), &format!("topic {}", kafka.topic)).map(ready)
}

/// A consumer that only looks. It is in no group, for which it would need a right.
pub(super) fn looker(kafka: &KafkaDef) -> Result<Client> {
    consumer_with(&kafka.settings()?, None, &format!("topic {}", kafka.topic)).map(ready)
}

/// A consumer with these settings; `whose` is for messages.
pub(super) fn consumer_with(settings: &ClientSettings, group: Option<&str>, whose: &str) -> Result<Client> {
    consumer_that_waits(settings, group, whose, WAIT)
}

/// A consumer whose fetches wait at most so long for records.
pub(super) fn consumer_that_waits(settings: &ClientSettings, group: Option<&str>, whose: &str, wait: Duration) -> Result<Client> {
    let wait = wait.as_millis().to_string();
    let usual = [
        ("fetch.wait.max.ms", wait.as_str()),
        ("fetch.error.backoff.ms", "100"),
        // Where more lies untaken than the next line allows, it is looked again after so long, and not after a second, in which all of it is taken.
        ("fetch.queue.backoff.ms", "5"),
        ("queued.max.messages.kbytes", "65536"),
        ("reconnect.backoff.max.ms", "2000"),
        ("allow.auto.create.topics", "false"),
    ];
    // What the engine relies on.
    let needed = [("enable.auto.commit", "false"), ("enable.auto.offset.store", "false"), ("enable.partition.eof", "true"), ("auto.offset.reset", "error")];
    let mut config = configured(settings, &usual, &needed);
    match group {
        Some(group) => config.set("group.id", group),
        None => config.remove("group.id"),
    };
    config.create_with_context(Told::of(settings)).map_err(|error| not_made(settings, &error, whose))
}

/// Lets a client that needs a token get one, before its first question: nobody polls while that is waited for. This may take a while.
pub(super) fn ready(client: Client) -> Client {
    if client.context().needs_polls() {
        hear(&client);
    }
    client
}

/// Whether it is connected to an embedded broker. Nothing is sent: whoever has had an answer knows.
pub(super) fn is_embedded(client: &Client) -> bool {
    client.client().fetch_cluster_id(Duration::ZERO).is_some_and(|id| id.starts_with("mockCluster"))
}

/// The topic's partitions and the offsets they hold now.
pub fn partitions_of(kafka: &KafkaDef) -> Result<Partitions> {
    let consumer = looker(kafka)?;
    let mut partitions = Partitions::new();
    for partition in partition_numbers(&consumer, kafka)? {
        partitions.insert(partition, watermarks(&consumer, kafka, partition)?);
    }
    Ok(partitions)
}

/// Whether the topic can be reached within a time.
pub fn reachable(kafka: &KafkaDef, within: Duration) -> Result<()> {
    numbers_within(&looker(kafka)?, kafka, within).map(|_| ())
}

pub(super) fn partition_numbers(consumer: &Client, kafka: &KafkaDef) -> Result<Vec<i32>> {
    numbers_within(consumer, kafka, ASK_TIMEOUT)
}

pub(super) fn numbers_within(consumer: &Client, kafka: &KafkaDef, within: Duration) -> Result<Vec<i32>> {
    let metadata = metadata(consumer, Some(&kafka.topic), within).map_err(|e| unreachable_broker(consumer, kafka, &e))?;
    let place = || kafka.place();
    let unknown = || Error::NotFound(format!("topic {} does not exist on {}: create it, or check the names of topic and brokers", kafka.topic, place()));
    let topic = metadata.topics().iter().find(|t| t.name() == kafka.topic).ok_or_else(unknown)?;
    if let Some(error) = topic.error() {
        return Err(match RDKafkaErrorCode::from(error) {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => unknown(),
            code => not_read(kafka, code),
        });
    }
    let mut numbers: Vec<i32> = topic.partitions().iter().map(|p| p.id()).collect();
    if numbers.is_empty() {
        return Err(unknown());
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// What the broker knows of a topic, or of all. A client that is refused is not tried for the whole time.
pub(super) fn metadata(consumer: &Client, topic: Option<&str>, within: Duration) -> Result<Metadata, KafkaError> {
    let first = within.min(FIRST_TRY);
    let failed = match consumer.fetch_metadata(topic, first) {
        Ok(metadata) => {
            consumer.context().forget();
            return Ok(metadata);
        }
        Err(failed) => failed,
    };
    hear(consumer);
    match consumer.context().refused() {
        None if first < within => consumer.fetch_metadata(topic, within - first),
        _ => Err(failed),
    }
}

/// Lets a consumer that reads nothing yet say what it has heard; of one that reads the reader hears it.
fn hear(consumer: &Client) {
    // One that is in no group has no assignment to tell of.
    if consumer.assignment().map_or(true, |assigned| assigned.count() == 0) {
        for _ in 0..100 {
            // Without any time a poll ends with the first line for the log.
            if consumer.poll(HEAR).is_none() {
                break;
            }
        }
    }
}

/// What a consumer has been sent, in its order, and at most so many; waits so long if nothing has come. Whatever else a reader does is done once for many
/// messages.
pub(super) fn messages(client: &Client, wait: Duration, most: usize) -> Vec<KafkaResult<BorrowedMessage<'_>>> {
    let next = |wait: Duration| client.poll(wait);
    let mut came: Vec<_> = next(wait).into_iter().collect();
    while !came.is_empty()
        && came.len() < most
        && let Some(message) = next(Duration::ZERO)
    {
        came.push(message);
    }
    came
}

/// The headers of a message.
pub(super) fn headers_of(message: &BorrowedMessage<'_>) -> Vec<Header> {
    match message.headers() {
        Some(headers) => headers.iter().map(|h| Header { key: h.key.to_string(), value: h.value.map(<[u8]>::to_vec) }).collect(),
        None => vec![],
    }
}

/// A topic that the broker knows and does not give.
fn not_read(kafka: &KafkaDef, code: RDKafkaErrorCode) -> Error {
    let (topic, place) = (&kafka.topic, kafka.place());
    match refusal(code, "") {
        Some(refusal) => Error::Invalid(format!("topic {topic} on {place} can't be read: {refusal}")),
        None => Error::External(format!("topic {topic} on {place} can't be read: {code}")),
    }
}

pub(super) fn watermarks(consumer: &Client, kafka: &KafkaDef, partition: i32) -> Result<(i64, i64)> {
    consumer.fetch_watermarks(&kafka.topic, partition, ASK_TIMEOUT).map_err(|e| unreachable_broker(consumer, kafka, &e))
}

/// One past the newest record of each of these partitions: one question a broker, which waits for nothing that is cached.
pub(super) fn ends(consumer: &Client, kafka: &KafkaDef, partitions: &[i32], within: Duration) -> Result<BTreeMap<i32, i64>> {
    let wanted = partitions.iter().map(|partition| (*partition, Offset::End)).collect();
    look_up(consumer, kafka, &wanted, within)?
        .into_iter()
        .map(|(partition, offset)| match offset {
            Offset::Offset(offset) => Ok((partition, offset)),
            other => {
                Err(Error::External(format!("Kafka at {} does not say where partition {partition} of topic {} ends: {other:?}", kafka.place(), kafka.topic)))
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
        list.add_partition_offset(&kafka.topic, *partition, *offset).map_err(|e| unreachable_broker(consumer, kafka, &e))?;
    }
    let found = consumer.offsets_for_times(list, within).map_err(|e| unreachable_broker(consumer, kafka, &e))?;
    let answers = found.elements();
    answers
        .iter()
        .map(|element| {
            element.error().map_err(|e| unreachable_broker(consumer, kafka, &e))?;
            Ok((element.partition(), element.offset()))
        })
        .collect()
}

fn unreachable_broker(consumer: &Client, kafka: &KafkaDef, error: &KafkaError) -> Error {
    match error.rdkafka_error_code() {
        Some(code) if is_denied(code) => not_read(kafka, code),
        _ => unanswered(consumer, &kafka.place(), &format!("about topic {}", kafka.topic), error),
    }
}

/// Why brokers have not answered, as far as their client knows it.
pub(super) fn unanswered(consumer: &Client, place: &str, about: &str, error: &KafkaError) -> Error {
    if let Some(refusal) = consumer.context().refused() {
        return Error::Invalid(format!("Kafka at {place} can't be asked {about}: {refusal}"));
    }
    let code = error.rdkafka_error_code().map_or_else(|| error.to_string(), |code| code.to_string());
    Error::External(format!("no answer from Kafka at {place} {about}: {code}; check that the broker runs and can be reached"))
}

/// Offsets at which a reader without a checkpoint starts; empty for [`Startup::Earliest`], which needs no question.
/// `Latest` and `Timestamp` are answered once, when the source is created, and recorded.
pub fn resolve_start(kafka: &KafkaDef) -> Result<BTreeMap<i32, i64>> {
    match &kafka.startup {
        Startup::Earliest => Ok(BTreeMap::new()),
        Startup::Offsets(offsets) => Ok(offsets.clone()),
        Startup::Latest => Ok(partitions_of(kafka)?.into_iter().map(|(partition, (_, end))| (partition, end)).collect()),
        Startup::Timestamp(millis) => {
            let consumer = looker(kafka)?;
            let times = partition_numbers(&consumer, kafka)?.into_iter().map(|partition| (partition, *millis)).collect();
            let mut offsets = BTreeMap::new();
            for (partition, since) in since(&consumer, kafka, &times)? {
                let (low, end) = watermarks(&consumer, kafka, partition)?;
                let offset = match since {
                    Since::At(offset) => offset,
                    Since::Unknown if low < end => {
                        return Err(Error::Unsupported(format!(
                            "Kafka at {} can't look up offsets of topic {} by time: write 'scan.startup.mode' = 'offsets' or 'earliest'",
                            kafka.place(),
                            kafka.topic
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
