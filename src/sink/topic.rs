//! Writes records to a topic: at least once, or in transactions that hold the sink's cursor too.
//!
//! A transaction writes the records of some pieces and, under the sink's own consumer group, the number behind its last row. Either both are
//! committed or neither is. Whoever begins first takes the transactional id, which ends what a predecessor has left open and keeps it from
//! writing, and then reads the cursor. So what Kafka holds decides where the sink goes on.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ThreadedProducer},
};

use super::records::Numbered;
use crate::{
    catalog::{ClientSettings, Delivery, KafkaSink},
    error::{Error, Result},
    source::kafka::{
        Deliveries, Told,
        configure::{configured, not_made},
        reachable,
    },
};

/// How long a broker may stay away before a try is given up; it is made again.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is looked whether records have been acknowledged.
const LOOK_UP: Duration = Duration::from_millis(2);
/// What a request of a transaction may take.
const ASK: Duration = Duration::from_secs(20);
/// What giving one up may take: less than a sink that stops is waited for.
const ABORT: Duration = Duration::from_secs(3);

/// Who writes.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The sink's name.
    pub sink: String,
    /// What it reads, for headers: the name of the header, and that of the view or source.
    pub reads: (&'static str, String),
    /// What no other sink of any server has: the id of its transactions.
    pub transactional_id: String,
    /// The consumer group that holds its cursor.
    pub group: String,
}

/// A connection that writes.
pub struct TopicWriter {
    sink: KafkaSink,
    identity: Identity,
    producer: ThreadedProducer<Deliveries>,
    /// Knows the consumer group; only in transactions.
    group: Option<BaseConsumer<Told>>,
    committed: Instant,
}

/// The records of pieces, some at a time, as they are made.
pub type Made<'a> = dyn Iterator<Item = std::result::Result<Vec<Numbered>, Failed>> + 'a;

/// What has been written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Written {
    /// Records.
    pub records: u64,
    /// Bytes of their keys and payloads.
    pub bytes: u64,
}

/// What writing came to.
#[derive(Debug)]
pub enum Failed {
    /// It is tried again.
    Later(Error),
    /// A record can't be made, and it would come to the same again.
    Unmade(Error),
    /// Nobody wants it any more.
    Stopped,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Later(error)
    }
}

/// How the producer of a sink is configured.
pub fn producer_config(sink: &KafkaSink, identity: &Identity, settings: &ClientSettings) -> ClientConfig {
    let (client, patience) = (client_id(identity), PATIENCE.as_millis().to_string());
    let usual = [
        ("client.id", client.as_str()),
        // Java's partitioner, so that other producers' records of a key land in the same partition.
        ("partitioner", "murmur2_random"),
        ("linger.ms", "5"),
        ("message.timeout.ms", &patience),
    ];
    // What the order of a key's records relies on: a retry neither doubles nor reorders.
    let mut needed = vec![("enable.idempotence", "true"), ("acks", "all")];
    let (timeout, short) = (sink.transaction_timeout.as_millis().to_string(), sink.transaction_timeout.min(PATIENCE).as_millis().to_string());
    if sink.delivery == Delivery::ExactlyOnce {
        needed.extend([("transactional.id", identity.transactional_id.as_str()), ("transaction.timeout.ms", &timeout), ("message.timeout.ms", &short)]);
    }
    configured(settings, &usual, &needed)
}

fn client_id(identity: &Identity) -> String {
    format!("tidegate-sink-{}", identity.sink)
}

impl TopicWriter {
    /// Connects, and tells where Kafka says that the sink is, in transactions.
    pub fn connect(sink: &KafkaSink, identity: &Identity) -> Result<(Self, Option<u64>)> {
        // A producer would have the broker create a topic that it doesn't know, with who knows how many partitions: ask first.
        reachable(&sink.kafka, PATIENCE)?;
        let settings = sink.kafka.settings()?;
        let made = |error: KafkaError| not_made(&settings, &error, &format!("sink {}", identity.sink));
        let producer: ThreadedProducer<Deliveries> = producer_config(sink, identity, &settings).create_with_context(Deliveries::of(&settings)).map_err(made)?;
        let mut writer = Self { sink: sink.clone(), identity: identity.clone(), producer, group: None, committed: Instant::now() };
        if sink.delivery == Delivery::AtLeastOnce {
            return Ok((writer, None));
        }
        writer.producer.init_transactions(ASK).map_err(|e| writer.trouble("transactions can't be begun", &e))?;
        let needed = [
            ("group.id", identity.group.as_str()),
            // Only what is committed, and not before it is.
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
        ];
        let config = configured(&settings, &[("client.id", &client_id(identity))], &needed);
        let group: BaseConsumer<Told> = config.create_with_context(Told::of(&settings)).map_err(made)?;
        if group.context().needs_polls() {
            // A token, without which nothing is answered, comes with a poll.
            while group.poll(Duration::from_millis(20)).is_some() {}
        }
        let mut asked = TopicPartitionList::new();
        asked.add_partition(&sink.kafka.topic, 0);
        let committed = group.committed_offsets(asked, ASK).map_err(|e| writer.trouble("its cursor can't be read", &e))?;
        let element = committed.find_partition(&sink.kafka.topic, 0);
        if let Some(error) = element.as_ref().and_then(|element| element.error().err()) {
            return Err(writer.trouble("its cursor can't be read", &error));
        }
        let cursor = match element.map(|element| element.offset()) {
            Some(Offset::Offset(cursor)) => Some(cursor as u64),
            _ => None,
        };
        writer.group = Some(group);
        Ok((writer, cursor))
    }

    /// Writes the records of pieces whose last row is of this epoch and has the number before `cursor`; they are acknowledged, and
    /// committed if they are to be, when this returns.
    pub fn write(&mut self, records: &mut Made<'_>, epoch: u64, cursor: u64, stopped: &dyn Fn() -> bool) -> std::result::Result<Written, Failed> {
        match self.sink.delivery {
            Delivery::AtLeastOnce => self.send(records, stopped),
            Delivery::ExactlyOnce => {
                self.producer.begin_transaction().map_err(|e| self.trouble("a transaction can't be begun", &e))?;
                let written = self.transaction(records, epoch, cursor, stopped);
                match written {
                    Ok(_) => self.committed = Instant::now(),
                    // Else readers of what is committed would wait until it times out. If it was committed after all, Kafka says so next time.
                    Err(_) => _ = self.producer.abort_transaction(ABORT),
                }
                written
            }
        }
    }

    /// What a transaction does, between its begin and the commit at the end of this.
    fn transaction(&self, records: &mut Made<'_>, epoch: u64, cursor: u64, stopped: &dyn Fn() -> bool) -> std::result::Result<Written, Failed> {
        let written = self.send(records, stopped)?;
        let offsets = self.cursor(epoch, cursor)?;
        let group = self.group.as_ref().and_then(Consumer::group_metadata);
        let group = group.ok_or_else(|| Error::Internal(format!("sink {} has no consumer group", self.identity.sink)))?;
        self.producer.send_offsets_to_transaction(&offsets, &group, ASK).map_err(|e| self.trouble("its cursor can't be written", &e))?;
        self.producer.commit_transaction(ASK).map_err(|e| self.trouble("a transaction can't be committed", &e))?;
        Ok(written)
    }

    /// Since when nothing has been committed.
    pub fn quiet_since(&self) -> Instant {
        self.committed
    }

    fn cursor(&self, epoch: u64, cursor: u64) -> Result<TopicPartitionList> {
        let mut offsets = TopicPartitionList::new();
        let added = offsets.add_partition_offset(&self.sink.kafka.topic, 0, Offset::Offset(cursor as i64));
        added.map_err(|e| self.trouble("its cursor can't be written", &e))?;
        if let Some(mut element) = offsets.find_partition(&self.sink.kafka.topic, 0) {
            element.set_metadata(format!("epoch {epoch}"));
        }
        Ok(offsets)
    }

    /// Sends records and waits until all are acknowledged; how many there were.
    fn send(&self, records: &mut Made<'_>, stopped: &dyn Fn() -> bool) -> std::result::Result<Written, Failed> {
        let mut written = Written::default();
        for made in records {
            for record in made? {
                written.records += 1;
                written.bytes += record.payload.as_ref().map_or(0, Vec::len) as u64 + record.key.as_ref().map_or(0, Vec::len) as u64;
                self.enqueue(&record, stopped)?;
            }
        }
        while self.producer.in_flight_count() > 0 && self.failure().is_none() {
            if stopped() {
                return Err(Failed::Stopped);
            }
            std::thread::sleep(LOOK_UP);
        }
        match self.failure() {
            Some(reason) => Err(Failed::Later(self.refused(reason))),
            None => Ok(written),
        }
    }

    fn enqueue(&self, record: &Numbered, stopped: &dyn Fn() -> bool) -> std::result::Result<(), Failed> {
        let (mut epoch, mut sequence) = (itoa::Buffer::new(), itoa::Buffer::new());
        let mut headers = OwnedHeaders::new_with_capacity(3 + record.headers.len())
            .insert(Header { key: self.identity.reads.0, value: Some(self.identity.reads.1.as_bytes()) })
            .insert(Header { key: "tidegate-epoch", value: Some(epoch.format(record.epoch).as_bytes()) })
            .insert(Header { key: "tidegate-sequence", value: Some(sequence.format(record.sequence).as_bytes()) });
        for (key, value) in &record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut outgoing: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.sink.kafka.topic).headers(headers);
        if let Some(key) = &record.key {
            outgoing = outgoing.key(key);
        }
        if let Some(payload) = &record.payload {
            outgoing = outgoing.payload(payload);
        }
        loop {
            match self.producer.send(outgoing) {
                Ok(()) => return Ok(()),
                // Ends in any case: either the broker takes records, or they time out and make room.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    if stopped() {
                        return Err(Failed::Stopped);
                    }
                    outgoing = returned;
                    std::thread::sleep(LOOK_UP);
                }
                Err((error, _)) => {
                    let size = record.payload.as_ref().map_or(0, Vec::len);
                    return Err(Failed::Later(self.refused(&format!("a record of {size} bytes can't be sent: {error}"))));
                }
            }
        }
    }

    fn failure(&self) -> Option<&str> {
        self.producer.context().failure()
    }

    fn refused(&self, reason: &str) -> Error {
        let kafka = &self.sink.kafka;
        Error::External(format!("topic {} on {} does not take records: {reason}", kafka.topic, kafka.place()))
    }

    fn trouble(&self, what: &str, error: &KafkaError) -> Error {
        let kafka = &self.sink.kafka;
        let why = self.producer.context().why(error);
        Error::External(format!("{what} at Kafka {} for topic {}: {why}", kafka.place(), kafka.topic))
    }
}
