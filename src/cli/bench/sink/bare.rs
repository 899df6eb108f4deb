//! A producer that sends records from memory and does nothing else: what librdkafka itself can do.

use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer, ThreadedProducer},
};

use crate::{
    catalog::{Delivery, KafkaSink},
    sink::topic::{Identity, producer_config},
    source::{self, Record, kafka::Deliveries},
};

/// A record that a sink has written.
pub(super) struct Sent {
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<source::Header>,
}

/// A producer, and what it sends.
pub(super) struct Bare {
    producer: ThreadedProducer<Deliveries>,
    topic: String,
    /// So many records are one transaction, if there are any.
    transaction: Option<usize>,
    records: Vec<Sent>,
}

/// A sink commits so many records together.
const TRANSACTION: usize = 65_536;
/// What any request may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether there is room, or everything acknowledged, as a sink does.
const LOOK_UP: Duration = Duration::from_millis(2);

impl Sent {
    /// A record of a topic, with its number; `None`: no sink has written it.
    pub(super) fn of(record: &Record<'_>) -> Option<(u64, Self)> {
        let sequence = record.headers.iter().find(|header| header.key == "tidegate-sequence")?.value.as_deref()?;
        let sequence = std::str::from_utf8(sequence).ok()?.parse().ok()?;
        let sent = Self { key: record.key.map(<[u8]>::to_vec), payload: record.value.map(<[u8]>::to_vec), headers: record.headers.to_vec() };
        Some((sequence, sent))
    }

    pub(super) fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.payload) + self.headers.iter().map(|header| header.key.len() + length(&header.value)).sum::<usize>()
    }
}

impl Bare {
    /// Connects with the settings of a sink.
    pub(super) fn new(sink: &KafkaSink, topic: &str, records: Vec<Sent>) -> anyhow::Result<Self> {
        let settings = sink.kafka.settings()?;
        let identity =
            Identity { sink: "bare".into(), reads: ("", String::new()), transactional_id: format!("tidegate-bench-{topic}"), group: "tidegate-bench".into() };
        let producer: ThreadedProducer<Deliveries> = producer_config(sink, &identity, &settings).create_with_context(Deliveries::of(&settings))?;
        let transaction = (sink.delivery == Delivery::ExactlyOnce).then_some(TRANSACTION);
        let bare = Self { producer, topic: topic.into(), transaction, records };
        if transaction.is_some() {
            bare.producer.init_transactions(PATIENCE)?;
        }
        // A first record, so that it is connected.
        bare.send_all(&bare.records[..1])?;
        Ok(bare)
    }

    /// Sends everything; records a second.
    pub(super) fn send(&self) -> anyhow::Result<f64> {
        let before = self.producer.context().acknowledged();
        let started = Instant::now();
        self.send_all(&self.records)?;
        let took = started.elapsed();
        let acknowledged = self.producer.context().acknowledged() - before;
        anyhow::ensure!(acknowledged == self.records.len() as u64, "the broker has acknowledged {acknowledged} of {} records", self.records.len());
        Ok(self.records.len() as f64 / took.as_secs_f64())
    }

    fn send_all(&self, records: &[Sent]) -> anyhow::Result<()> {
        for together in records.chunks(self.transaction.unwrap_or(records.len())) {
            if self.transaction.is_some() {
                self.producer.begin_transaction()?;
            }
            for record in together {
                self.enqueue(record)?;
            }
            // Not by a flush, which would poll beside the producer's own thread, and wait for what that has been told.
            while self.producer.in_flight_count() > 0 {
                std::thread::sleep(LOOK_UP);
            }
            if self.transaction.is_some() {
                self.producer.commit_transaction(PATIENCE)?;
            }
        }
        match self.producer.context().failure() {
            Some(reason) => anyhow::bail!("the broker does not take records: {reason}"),
            None => Ok(()),
        }
    }

    fn enqueue(&self, record: &Sent) -> anyhow::Result<()> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for header in &record.headers {
            headers = headers.insert(Header { key: &header.key, value: header.value.as_ref() });
        }
        let mut outgoing: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic).headers(headers);
        if let Some(key) = &record.key {
            outgoing = outgoing.key(key);
        }
        if let Some(payload) = &record.payload {
            outgoing = outgoing.payload(payload);
        }
        loop {
            match self.producer.send(outgoing) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    outgoing = returned;
                    std::thread::sleep(LOOK_UP);
                }
                Err((error, _)) => return Err(error).context("a record can't be sent"),
            }
        }
    }
}
