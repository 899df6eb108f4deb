//! Looking around on brokers: which topics there are, and what the newest records of one look like.

use std::collections::BTreeMap;

use rdkafka::{Offset, TopicPartitionList, consumer::Consumer, error::RDKafkaErrorCode};

use super::{
    client::{ASK_TIMEOUT, Client, Partitions, consumer_with, metadata, partitions_of, ready, unanswered},
    configure,
    scan::{Pace, ScanRange, scan},
};
use crate::{
    catalog::{ClientSettings, DataLoss, KafkaDef, Link, Startup, Throttle},
    error::Result,
    source::Header,
};

/// A topic as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: usize,
    /// How many offsets lie between the oldest and the newest record of all partitions; `None` where the broker does not tell.
    pub records: Option<i64>,
    /// It is Kafka's own.
    pub internal: bool,
}

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its offset.
    pub offset: i64,
    /// Its time, in milliseconds since 1970.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its payload; `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<Header>,
}

/// What a partition holds, and its newest records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    /// The partition.
    pub partition: i32,
    /// The oldest offset.
    pub low: i64,
    /// One past the newest.
    pub end: i64,
    /// Oldest first.
    pub records: Vec<Sample>,
}

fn looker(settings: &ClientSettings, whose: &str) -> Result<Client> {
    consumer_with(settings, None, whose).map(ready)
}

/// Whether brokers can be reached with these settings, and let us in; `whose` is for messages.
pub fn check_connection(settings: &ClientSettings, whose: &str) -> Result<()> {
    configure::check(settings, whose)?;
    let client = looker(settings, whose)?;
    // One topic that there can't be: a list of all may be long.
    metadata(&client, Some("__tidegate_looks"), ASK_TIMEOUT).map(|_| ()).map_err(|e| unanswered(&client, &settings.brokers, &format!("for {whose}"), &e))
}

/// All topics that we may see, by name.
pub fn topics(settings: &ClientSettings, whose: &str) -> Result<Vec<TopicInfo>> {
    let client = looker(settings, whose)?;
    let failed = |e| unanswered(&client, &settings.brokers, &format!("for {whose}"), &e);
    let known = metadata(&client, None, ASK_TIMEOUT).map_err(failed)?;
    let mut topics: BTreeMap<String, usize> = BTreeMap::new();
    for topic in known.topics() {
        let is_there = topic.error().map(RDKafkaErrorCode::from).is_none();
        if is_there && !topic.partitions().is_empty() {
            topics.insert(topic.name().to_string(), topic.partitions().len());
        }
    }
    let (first, last) = (offsets(&client, &topics, Offset::Beginning), offsets(&client, &topics, Offset::End));
    let records = |name: &str, partitions: usize| {
        (0..partitions as i32).map(|partition| Some(last.get(&(name.to_string(), partition))? - first.get(&(name.to_string(), partition))?)).sum()
    };
    let info = |(name, partitions): (String, usize)| {
        let internal = name.starts_with("__") || name == "_schemas";
        TopicInfo { records: records(&name, partitions), name, partitions, internal }
    };
    Ok(topics.into_iter().map(info).collect())
}

/// One end of all partitions; without those of which the broker does not tell.
fn offsets(client: &Client, topics: &BTreeMap<String, usize>, end: Offset) -> BTreeMap<(String, i32), i64> {
    let mut wanted = TopicPartitionList::new();
    for (name, partitions) in topics {
        for partition in 0..*partitions as i32 {
            // A partition that can't be named is one that is not told of.
            let _ = wanted.add_partition_offset(name, partition, end);
        }
    }
    if wanted.count() == 0 {
        return BTreeMap::new();
    }
    let Ok(found) = client.offsets_for_times(wanted, ASK_TIMEOUT) else { return BTreeMap::new() };
    let told = found.elements().into_iter().filter_map(|element| match (element.error(), element.offset()) {
        (Ok(()), Offset::Offset(offset)) => Some(((element.topic().to_string(), element.partition()), offset)),
        _ => None,
    });
    told.collect()
}

/// A sample holds about so many bytes at most.
const SAMPLE_BYTES: usize = 64 << 20;

/// The partitions of a topic with their newest records, at most so many of each; fewer where they are large.
pub fn sample(settings: &ClientSettings, topic: &str, most: i64) -> Result<Vec<Sampled>> {
    let kafka = KafkaDef {
        topic: topic.into(),
        brokers: settings.brokers.clone(),
        startup: Startup::Earliest,
        on_data_loss: DataLoss::Continue,
        properties: settings.properties.clone(),
        link: Link::default(),
        throttle: Throttle::default(),
    };
    let held: Partitions = partitions_of(&kafka)?;
    let ranges = held.iter().map(|(partition, (low, end))| (*partition, ScanRange { begin: (*low).max(end - most), end: *end }));
    let ranges: BTreeMap<i32, ScanRange> = ranges.filter(|(_, range)| range.begin < range.end).collect();
    let mut sampled: BTreeMap<i32, Sampled> =
        held.into_iter().map(|(partition, (low, end))| (partition, Sampled { partition, low, end, records: vec![] })).collect();
    let mut bytes = 0;
    scan(&kafka, &ranges, &Pace { records: usize::MAX, wanted: &|| true }, |slice| {
        bytes += slice.records.byte_len();
        if let Some(sampled) = sampled.get_mut(&slice.partition) {
            let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            sampled.records.extend(slice.records.iter().map(|record| Sample {
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
                key: owned(record.key),
                value: owned(record.value),
                headers: record.headers.to_vec(),
            }));
        }
        bytes < SAMPLE_BYTES
    })?;
    Ok(sampled.into_values().collect())
}
