//! Sends records to a source's topic as they come, and does not end before the broker has acknowledged every one.

use std::time::Duration;

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer, ThreadedProducer},
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    encode::Outgoing,
    kafka::{
        Deliveries,
        configure::{configured, not_made},
        reachable,
    },
};
use crate::{
    catalog::KafkaDef,
    error::{Error, Result},
};

/// How long a broker may stay away, at the start and for any one record later, before the send fails.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the sender looks up while it waits for the broker.
const LOOK_UP: Duration = Duration::from_millis(5);
/// How many batches wait for the sender.
const WAITING: usize = 2;

enum Message {
    Records(Vec<Outgoing>),
    End,
}

/// Sends on a thread of its own; whoever gives records waits for the broker.
pub struct RecordProducer {
    records: mpsc::Sender<Message>,
    sender: JoinHandle<Result<u64>>,
}

impl RecordProducer {
    /// Begins to send to a topic. Dropped before it is finished, what was given is still sent, but nobody is told.
    pub fn start(kafka: &KafkaDef) -> Self {
        let (records, waiting) = mpsc::channel(WAITING);
        let kafka = kafka.clone();
        Self { records, sender: tokio::task::spawn_blocking(move || run(&kafka, waiting)) }
    }

    /// Takes records, in order.
    pub async fn send(&mut self, records: Vec<Outgoing>) -> Result<()> {
        match self.records.send(Message::Records(records)).await {
            Ok(()) => Ok(()),
            // The sender has gone: it says why.
            Err(_) => Err(ended(&mut self.sender).await.err().unwrap_or_else(|| Error::Internal("a sender ended early".into()))),
        }
    }

    /// Waits until all records are acknowledged; how many there were.
    pub async fn finish(mut self) -> Result<u64> {
        // One that has gone says why below.
        _ = self.records.send(Message::End).await;
        ended(&mut self.sender).await
    }
}

async fn ended(sender: &mut JoinHandle<Result<u64>>) -> Result<u64> {
    sender.await.map_err(|error| Error::Internal(format!("a sender panicked: {error}")))?
}

fn run(kafka: &KafkaDef, mut waiting: mpsc::Receiver<Message>) -> Result<u64> {
    // A producer would have the broker create a topic that it doesn't know, with who knows how many partitions: ask first.
    reachable(kafka, PATIENCE)?;
    let producer = connect(kafka)?;
    let mut sent = 0u64;
    while let Some(Message::Records(records)) = waiting.blocking_recv() {
        for record in records {
            enqueue(&producer, kafka, &record).map_err(|reason| failed(&producer, kafka, sent + 1, &reason))?;
            sent += 1;
        }
        if let Some(reason) = producer.context().failure() {
            return Err(failed(&producer, kafka, sent, reason));
        }
    }
    while producer.in_flight_count() > 0 && producer.context().failure().is_none() {
        std::thread::sleep(LOOK_UP);
    }
    match producer.context().failure() {
        Some(reason) => Err(failed(&producer, kafka, sent, reason)),
        None => Ok(sent),
    }
}

fn failed(producer: &ThreadedProducer<Deliveries>, kafka: &KafkaDef, sent: u64, reason: &str) -> Error {
    // Those that are on their way may still arrive, or have arrived: what was acknowledged is what is known.
    let acknowledged = producer.context().acknowledged();
    Error::External(format!(
        "topic {} on {} acknowledged {acknowledged} of {sent} records, then failed: {reason}; those {acknowledged} are written, others may be",
        kafka.topic,
        kafka.place()
    ))
}

fn connect(kafka: &KafkaDef) -> Result<ThreadedProducer<Deliveries>> {
    let settings = kafka.settings()?;
    let patience = PATIENCE.as_millis().to_string();
    let usual = [
        // Java's partitioner, so that other producers' records of a key land in the same partition.
        ("partitioner", "murmur2_random"),
        ("linger.ms", "5"),
        // Batches of the default size, a megabyte, would be a fifth of all that a partition of the embedded broker holds.
        ("batch.size", "262144"),
        ("message.timeout.ms", patience.as_str()),
    ];
    // What a count of written rows relies on: a retry neither doubles nor reorders.
    let needed = [("enable.idempotence", "true"), ("acks", "all")];
    let config = configured(&settings, &usual, &needed);
    config.create_with_context(Deliveries::of(&settings)).map_err(|error| not_made(&settings, &error, &format!("topic {}", kafka.topic)))
}

/// Queues one record; while the queue is full, waits for the broker to take some.
fn enqueue(producer: &ThreadedProducer<Deliveries>, kafka: &KafkaDef, record: &Outgoing) -> Result<(), String> {
    let mut outgoing: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&kafka.topic);
    if let Some(key) = &record.key {
        outgoing = outgoing.key(key);
    }
    if let Some(payload) = &record.payload {
        outgoing = outgoing.payload(payload);
    }
    loop {
        match producer.send(outgoing) {
            Ok(()) => return Ok(()),
            // Ends in any case: either the broker takes records, or they time out and make room.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                outgoing = returned;
                std::thread::sleep(LOOK_UP);
            }
            Err((error, _)) => return Err(format!("a record of {} bytes can't be sent: {error}", record.payload.as_ref().map_or(0, Vec::len))),
        }
    }
}
