//! Readers and scans against librdkafka's mock cluster, with the faults that it can inject.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
    types::{RDKafkaApiKey, RDKafkaRespErr as Code},
};
use tokio::sync::Notify;

use super::*;
use crate::{
    catalog::{DataLoss, Format, KafkaDef, Link, SourceDef, Startup, Throttle},
    source::{Feed, FeedState, Start},
};

const TOPIC: &str = "t";
const PATIENCE: Duration = Duration::from_secs(30);

struct Broker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    sent: BTreeMap<i32, i64>,
}

impl Broker {
    fn start(partitions: i32) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, partitions, 1).unwrap();
        let producer = ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).set("linger.ms", "0").create().unwrap();
        Self { cluster, producer, sent: BTreeMap::new() }
    }

    fn send(&mut self, partition: i32, count: usize, size: usize) {
        let payload = vec![b'x'; size];
        for _ in 0..count {
            while self.producer.send(BaseRecord::<(), _>::to(TOPIC).partition(partition).payload(&payload)).is_err() {
                self.producer.poll(Duration::from_millis(10));
            }
        }
        self.producer.flush(PATIENCE).unwrap();
        *self.sent.entry(partition).or_default() += count as i64;
    }

    /// More than the broker keeps of a partition; the oldest offset that it still has.
    fn overflow(&mut self, partition: i32) -> i64 {
        (0..24).for_each(|_| self.send(partition, 1, 400_000));
        let (oldest, end) = partitions_of(&self.kafka()).unwrap()[&partition];
        assert!(oldest > 0 && end == self.sent[&partition], "{oldest} {end}");
        oldest
    }

    fn kafka(&self) -> KafkaDef {
        KafkaDef {
            topic: TOPIC.into(),
            brokers: self.cluster.bootstrap_servers(),
            startup: Startup::Earliest,
            on_data_loss: DataLoss::Fail,
            properties: BTreeMap::from([("topic.metadata.refresh.interval.ms".into(), "200".into())]),
            link: Link::default(),
            throttle: Throttle::default(),
        }
    }

    fn source(&self, idle_timeout: Duration, on_data_loss: DataLoss) -> SourceDef {
        SourceDef {
            name: "s".into(),
            columns: vec![],
            watermark: None,
            kafka: KafkaDef { on_data_loss, ..self.kafka() },
            format: Format::Json,
            header_filter: None,
            key: None,
            idle_timeout,
            max_future_skew: Duration::from_secs(1),
            max_drift: Duration::from_secs(3_600),
            error_rows: 0,
            text: String::new(),
        }
    }

    fn read(&self, on_data_loss: DataLoss, start: Start) -> KafkaReader {
        KafkaReader::start(&self.source(Duration::from_millis(300), on_data_loss), start, Arc::new(Notify::new())).unwrap()
    }
}

/// From a checkpoint at this offset of partition 0.
fn checkpoint(offset: i64) -> Start {
    Start { offsets: BTreeMap::from([(0, offset)]), fresh: BTreeSet::new(), topic: None }
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The offsets that a reader gives, by partition, until it has given so many.
fn take(reader: &KafkaReader, count: usize) -> BTreeMap<i32, Vec<i64>> {
    let mut taken: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    wait("the records do not come", || {
        for slice in reader.take(usize::MAX, usize::MAX) {
            taken.entry(slice.partition).or_default().extend(slice.records.iter().map(|r| r.offset));
        }
        taken.values().map(Vec::len).sum::<usize>() >= count
    });
    taken
}

/// How many offsets were lost of all partitions.
fn lost(reader: &KafkaReader) -> u64 {
    reader.status().partitions.values().map(|partition| partition.lost).sum()
}

fn all(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

#[test]
fn what_retention_deleted_stops_the_source() {
    let mut broker = Broker::start(2);
    let oldest = broker.overflow(0);
    broker.send(1, 5, 10);
    let reader = broker.read(DataLoss::Fail, checkpoint(1));
    wait("it does not fail", || matches!(reader.status().state, FeedState::Failed(_)));
    let FeedState::Failed(sentence) = reader.status().state else { panic!() };
    for part in ["partition 0", "offset 1 comes next", &format!("there is {oldest}"), "on.data.loss", "topic t"] {
        assert!(sentence.contains(part), "{part}: {sentence}");
    }
    reader.take(usize::MAX, usize::MAX);
    broker.send(1, 5, 10);
    std::thread::sleep(Duration::from_millis(500));
    assert!(!reader.has_input(), "nothing is read any more");
    assert_eq!(lost(&reader), 0);
}

#[test]
fn what_retention_emptied_is_where_reading_goes_on() {
    let mut broker = Broker::start(1);
    let oldest = broker.overflow(0);
    // Nobody has read it yet, or much of it: either way the first thing taken says where the partition begins by now.
    for (start, lost_then) in [(Start::default(), 0), (checkpoint(1), oldest - 1)] {
        let reader = broker.read(DataLoss::Continue, start);
        wait("nothing comes", || reader.has_input());
        let first = reader.take(1, 1).into_iter().next().unwrap();
        assert_eq!(first.begin, oldest);
        assert_eq!(lost(&reader), lost_then as u64);
    }
}

#[test]
fn what_retention_deleted_is_counted_where_reading_goes_on() {
    let mut broker = Broker::start(2);
    let oldest = broker.overflow(0);
    broker.send(1, 5, 10);
    let reader = broker.read(DataLoss::Continue, checkpoint(1));
    let left = broker.sent[&0] - oldest;
    let taken = take(&reader, left as usize + 5);
    assert_eq!(taken, BTreeMap::from([(0, all(oldest..broker.sent[&0])), (1, all(0..5))]));
    let status = reader.status();
    assert_eq!((status.state, lost(&reader)), (FeedState::Running, (oldest - 1) as u64));
    assert!(status.last_loss.unwrap().contains("offset 1 comes next"));
}

#[test]
fn a_fresh_reader_loses_nothing() {
    let mut broker = Broker::start(1);
    let oldest = broker.overflow(0);
    // The source's declaration names an offset that has gone: that is where the topic begins by now.
    let start = Start { offsets: BTreeMap::from([(0, 1)]), fresh: BTreeSet::from([0]), topic: None };
    for start in [start, Start::default()] {
        let reader = broker.read(DataLoss::Fail, start);
        assert_eq!(take(&reader, (broker.sent[&0] - oldest) as usize)[&0], all(oldest..broker.sent[&0]));
        assert_eq!(lost(&reader), 0);
    }
}

#[test]
fn a_topic_made_anew_is_told_by_its_lower_end() {
    let mut broker = Broker::start(1);
    broker.send(0, 10, 10);
    let reader = broker.read(DataLoss::Fail, checkpoint(50));
    wait("it does not fail", || matches!(reader.status().state, FeedState::Failed(_)));
    let FeedState::Failed(sentence) = reader.status().state else { panic!() };
    assert!(sentence.contains("offset 50 comes next, but it ends at 10, so the topic was made anew"), "{sentence}");
    let reader = broker.read(DataLoss::Continue, checkpoint(50));
    assert_eq!(take(&reader, 10)[&0], all(0..10));
    assert!(reader.status().last_loss.unwrap().contains("made anew"));
    // A partition that the topic no longer has.
    let start = Start { offsets: BTreeMap::from([(0, 10), (7, 3)]), fresh: BTreeSet::new(), topic: None };
    let reader = broker.read(DataLoss::Fail, start);
    wait("it does not fail", || matches!(&reader.status().state, FeedState::Failed(s) if s.contains("partition 7")));
}

#[test]
fn errors_on_fetch_lose_and_repeat_nothing() {
    let mut broker = Broker::start(3);
    let reader = broker.read(DataLoss::Fail, Start::default());
    let mut taken: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    let errors = [
        Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART,
        Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
        Code::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        Code::RD_KAFKA_RESP_ERR__TRANSPORT,
        Code::RD_KAFKA_RESP_ERR_UNKNOWN,
        Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE,
    ];
    for error in errors {
        broker.cluster.request_errors(RDKafkaApiKey::Fetch, &[error]);
        (0..3).for_each(|partition| broker.send(partition, 20, 10));
        for (partition, offsets) in take(&reader, 60) {
            taken.entry(partition).or_default().extend(offsets);
        }
    }
    for partition in 0..3 {
        assert_eq!(taken[&partition], all(0..broker.sent[&partition]), "partition {partition}");
    }
    wait("it does not recover", || reader.status().state == FeedState::Running);
    assert_eq!(lost(&reader), 0);
}

#[test]
fn errors_on_commit_and_metadata_disturb_nobody() {
    let mut broker = Broker::start(1);
    let reader = broker.read(DataLoss::Fail, Start::default());
    for round in 0..5 {
        broker.cluster.request_errors(RDKafkaApiKey::OffsetCommit, &[Code::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, Code::RD_KAFKA_RESP_ERR_UNKNOWN]);
        broker.cluster.request_errors(RDKafkaApiKey::Metadata, &[Code::RD_KAFKA_RESP_ERR__TRANSPORT]);
        reader.commit(BTreeMap::from([(0, round * 10)]));
        broker.send(0, 10, 10);
        assert_eq!(take(&reader, 10)[&0], all(round * 10..round * 10 + 10));
    }
}

#[test]
fn a_broker_that_is_away_at_the_start_and_later() {
    let mut broker = Broker::start(1);
    broker.send(0, 10, 10);
    broker.cluster.broker_down(1).unwrap();
    let reader = broker.read(DataLoss::Fail, Start::default());
    wait("it does not tell", || matches!(reader.status().state, FeedState::Connecting(s) if s.contains("topic t")));
    broker.cluster.broker_up(1).unwrap();
    assert_eq!(take(&reader, 10)[&0], all(0..10));
    wait("it is not at the end", || reader.status().partitions[&0].at_end_since.is_some());
    broker.cluster.broker_down(1).unwrap();
    wait("it does not tell", || matches!(reader.status().state, FeedState::Connecting(_)));
    broker.cluster.broker_up(1).unwrap();
    broker.send(0, 10, 10);
    assert_eq!(take(&reader, 10)[&0], all(10..20));
    wait("it does not recover", || reader.status().state == FeedState::Running);
}

#[test]
fn a_broker_that_hangs_makes_no_partition_idle() {
    let mut broker = Broker::start(1);
    broker.send(0, 1, 10);
    let reader = broker.read(DataLoss::Fail, Start::default());
    take(&reader, 1);
    wait("it is not at the end", || reader.status().partitions[&0].at_end_since.is_some());
    // Longer than any answer is waited for, while the connection stays open.
    broker.cluster.broker_round_trip_time(1, Duration::from_secs(6)).unwrap();
    // A restart of the silence: what was confirmed before counts no more.
    let restarted = broker.source(Duration::from_millis(1500), DataLoss::Fail);
    drop(reader);
    broker.cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let reader = KafkaReader::start(&restarted, checkpoint(1), Arc::new(Notify::new())).unwrap();
    wait("it is not at the end", || reader.status().partitions.get(&0).is_some_and(|p| p.at_end_since.is_some()));
    broker.cluster.broker_round_trip_time(1, Duration::from_secs(6)).unwrap();
    let hung = Instant::now();
    while hung.elapsed() < Duration::from_secs(4) {
        let since = reader.status().partitions[&0].at_end_since;
        // For the timeout it may say that it is silent; but never for as long as would make it idle.
        assert!(since.is_none_or(|since| since.elapsed() <= Duration::from_millis(2500)), "idle after {:?}", since.unwrap().elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    broker.cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    let idle = || reader.status().partitions[&0].at_end_since.is_some_and(|since| since.elapsed() > Duration::from_millis(2500));
    wait("it does not become idle when the broker answers again", idle);
}

#[test]
fn a_slow_broker_is_read_to_its_end() {
    let mut broker = Broker::start(2);
    (0..2).for_each(|partition| broker.send(partition, 100, 10));
    broker.cluster.broker_round_trip_time(1, Duration::from_millis(200)).unwrap();
    let reader = broker.read(DataLoss::Fail, Start::default());
    let taken = take(&reader, 200);
    assert_eq!(taken, BTreeMap::from([(0, all(0..100)), (1, all(0..100))]));
    let end = |p| reader.status().partitions[&p].at_end_since.is_some_and(|since| since.elapsed() > Duration::from_millis(300));
    wait("its partitions do not fall idle", || end(0) && end(1));
}

fn scanned(broker: &Broker, records: usize, most: usize) -> (Vec<i64>, Vec<Loss>) {
    let ranges = resolve_ranges(&broker.kafka(), &BTreeMap::new(), None).unwrap();
    let mut offsets = vec![];
    let losses = scan(&broker.kafka(), &ranges, &Pace { records, wanted: &|| true }, |slice| {
        assert!(slice.records.len() <= records);
        offsets.extend(slice.records.iter().map(|r| r.offset));
        offsets.len() < most
    })
    .unwrap();
    (offsets, losses)
}

#[test]
fn a_scan_stops_when_it_has_enough() {
    let mut broker = Broker::start(1);
    broker.send(0, 1000, 10);
    assert_eq!(scanned(&broker, usize::MAX, usize::MAX), (all(0..1000), vec![]));
    assert_eq!(scanned(&broker, 10, 10).0, all(0..10));
    // Nobody wants it any more, and nothing arrives.
    broker.cluster.broker_round_trip_time(1, Duration::from_secs(3)).unwrap();
    let begun = Instant::now();
    let ranges = BTreeMap::from([(0, ScanRange { begin: 0, end: 1000 })]);
    scan(&broker.kafka(), &ranges, &Pace { records: 10, wanted: &|| begun.elapsed() < Duration::from_millis(300) }, |_| true).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[test]
fn a_scan_passes_errors_on_fetch() {
    let mut broker = Broker::start(1);
    broker.send(0, 100, 10);
    for error in [Code::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, Code::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR, Code::RD_KAFKA_RESP_ERR__TRANSPORT] {
        broker.cluster.request_errors(RDKafkaApiKey::Fetch, &[error]);
        assert_eq!(scanned(&broker, usize::MAX, usize::MAX), (all(0..100), vec![]), "{error:?}");
    }
    // The first fetch is refused, though the offset is there: nothing is lost or doubled.
    broker.cluster.request_errors(RDKafkaApiKey::Fetch, &[Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
    assert_eq!(scanned(&broker, usize::MAX, usize::MAX), (all(0..100), vec![]));
}

#[test]
fn a_scan_tells_what_retention_took() {
    let mut broker = Broker::start(1);
    let oldest = broker.overflow(0);
    let ranges = BTreeMap::from([(0, ScanRange { begin: 0, end: broker.sent[&0] })]);
    let mut offsets = vec![];
    let losses = scan(&broker.kafka(), &ranges, &Pace { records: usize::MAX, wanted: &|| true }, |slice| {
        offsets.extend(slice.records.iter().map(|r| r.offset));
        true
    });
    assert_eq!(losses.unwrap(), [Loss { partition: 0, expected: 0, oldest, end: broker.sent[&0], anew: false }]);
    assert_eq!(offsets, all(oldest..broker.sent[&0]));
}

#[test]
fn a_broker_that_knows_no_times_says_so() {
    let mut broker = Broker::start(1);
    broker.send(0, 3, 10);
    assert_eq!(records_since(&broker.kafka(), &BTreeMap::from([(0, 1)])).unwrap(), BTreeMap::from([(0, Since::Unknown)]));
    let kafka = KafkaDef { startup: Startup::Timestamp(1), ..broker.kafka() };
    assert!(resolve_start(&kafka).unwrap_err().to_string().contains("can't look up offsets of topic t by time"));
}
