//! Sends match events to a topic at a steady pace, and doesn't return before the broker has acknowledged every one.
//! Knows nothing of where the events come from.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::kafka::{
    Deliveries, Told,
    configure::{configured, not_made},
    refusal,
};
use super::matches::MatchEvent;
use crate::catalog::ClientSettings;
use crate::{Error, Result};

/// How long a send that fell behind may hurry to catch up. Longer stalls are forgiven, so that no burst follows them.
const MOST_CATCH_UP: Duration = Duration::from_millis(100);
/// The step of the pace: at 3,000 events/s three events a step.
const STEP: Duration = Duration::from_millis(1);
/// How often the sender looks up from a queue that is full or from waiting for the last acknowledgements.
const LOOK_UP: Duration = Duration::from_millis(20);
/// Without a pause, this many events are queued between two looks at what the broker says.
const EVENTS_PER_POLL: u64 = 256;

/// Events per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// As fast as the broker takes them.
    Max,
    /// So many a second, evenly spaced.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.eq_ignore_ascii_case("max") {
            return Ok(Rate::Max);
        }
        match text.parse::<f64>() {
            Ok(rate) if rate.is_finite() && (0.001..=1e9).contains(&rate) => Ok(Rate::PerSecond(rate)),
            _ => Err(Error::Invalid(format!("'{text}' is no rate; give events per second, like 3000 (0.001 at least), or 'max'"))),
        }
    }
}

/// Where and how to send.
#[derive(Debug, Clone)]
pub struct SendOptions {
    /// Kafka's `bootstrap.servers`.
    pub brokers: String,
    /// The topic; it must exist.
    pub topic: String,
    /// How fast.
    pub rate: Rate,
    /// How long the broker may stay unreachable, at the start and for any one record later, before the send fails.
    pub reach_within: Duration,
    /// Further librdkafka properties, say for TLS and a password. They win over the sender's own.
    pub properties: Vec<(String, String)>,
}

impl SendOptions {
    /// Sends to a topic as fast as the broker takes it.
    pub fn new(brokers: impl Into<String>, topic: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), topic: topic.into(), rate: Rate::Max, reach_within: Duration::from_secs(20), properties: vec![] }
    }
}

/// Tells a send to end early, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends the send: what is queued is still delivered.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the send was told to end.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How far a send has come.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sent {
    /// Events handed over; at the end every one of them is acknowledged.
    pub events: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Matches whose last event is among them.
    pub matches: u64,
    /// The time of the newest event sent, in milliseconds since 1970.
    pub event_time_ms: Option<i64>,
    /// Time since sending began.
    pub elapsed: Duration,
    /// Whether it ended since it was told to, not since there were no more events.
    pub stopped: bool,
}

impl Sent {
    /// Events per second so far.
    pub fn events_per_second(&self) -> f64 {
        self.events as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Sends these events and waits until the broker has acknowledged all of them. Blocks: run it on a thread of its own.
///
/// `progress` is called after every step, many times a second. An error in the events ends the send; those before it are
/// delivered first.
pub fn send(events: impl Iterator<Item = Result<MatchEvent>>, options: &SendOptions, stop: &Stop, mut progress: impl FnMut(&Sent)) -> Result<Sent> {
    check_topic(options)?;
    let producer = connect(options)?;
    // The first event may take a while to come: files are read for it. The clock starts when it is there.
    let mut events = events.peekable();
    events.peek();
    let mut pace = Pace::new(options.rate, Instant::now());
    let mut sent = Sent::default();
    let mut key = String::new();
    let mut outcome = Ok(());
    for event in events {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        };
        while let Some(pause) = pace.pause(sent.events, Instant::now()) {
            if stop.is_stopped() {
                break;
            }
            sent.elapsed = pace.elapsed();
            progress(&sent);
            producer.poll(Duration::ZERO);
            thread::sleep(pause);
        }
        if sent.events % EVENTS_PER_POLL == 0 {
            producer.poll(Duration::ZERO);
            sent.elapsed = pace.elapsed();
            progress(&sent);
        }
        sent.stopped = stop.is_stopped();
        if sent.stopped || producer.context().failure().is_some() {
            break;
        }
        use std::fmt::Write;
        key.clear();
        let _ = write!(key, "{}", event.match_id);
        outcome = enqueue(&producer, options, &key, &event);
        if outcome.is_err() {
            break;
        }
        sent.events += 1;
        sent.bytes += event.payload.len() as u64;
        sent.matches += u64::from(event.last);
        sent.event_time_ms = Some(event.event_time_ms);
    }
    while producer.in_flight_count() > 0 && producer.context().failure().is_none() {
        producer.poll(LOOK_UP);
        sent.elapsed = pace.elapsed();
        progress(&sent);
    }
    sent.elapsed = pace.elapsed();
    progress(&sent);
    if let Some(reason) = producer.context().failure() {
        let acknowledged = producer.context().acknowledged();
        let (topic, brokers, events) = (&options.topic, &options.brokers, sent.events);
        return Err(Error::External(format!("topic '{topic}' at {brokers} acknowledged {acknowledged} of {events} events, then failed: {reason}")));
    }
    outcome.map(|()| sent)
}

/// A producer would have the broker create a topic that it doesn't know, with who knows how many partitions: ask first.
fn check_topic(options: &SendOptions) -> Result<()> {
    let SendOptions { brokers, topic, reach_within, .. } = options;
    let settings = settings(options);
    let config = configured(&settings, &[("allow.auto.create.topics", "false")], &[]);
    let consumer: BaseConsumer<Told> = config.create_with_context(Told::of(&settings)).map_err(|e| not_made(&settings, &e, "the send"))?;
    // A token, if it needs one, comes with a poll.
    while consumer.poll(LOOK_UP).is_some() {}
    let unreachable = |e: KafkaError| {
        // What it has heard meanwhile comes with a poll.
        while consumer.poll(LOOK_UP).is_some() {}
        let seconds = reach_within.as_secs_f64();
        match consumer.context().refused() {
            Some(refusal) => Error::Invalid(format!("the broker at {brokers} can't be asked about topic '{topic}': {refusal}")),
            None => Error::External(format!("no Kafka broker answers at {brokers} within {seconds} s ({e}); check the address, and that the broker runs")),
        }
    };
    let metadata = consumer.client().fetch_metadata(Some(topic), *reach_within).map_err(unreachable)?;
    let found = metadata.topics().iter().find(|t| t.name() == topic);
    match found.and_then(|t| t.error()).map(RDKafkaErrorCode::from) {
        None if found.is_some_and(|t| !t.partitions().is_empty()) => Ok(()),
        None | Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Err(Error::NotFound(format!(
            "the broker at {brokers} has no topic '{topic}'; create it there first (the embedded broker: tidegate broker --topic {topic}:4)"
        ))),
        Some(code) => match refusal(code, "") {
            Some(refusal) => Err(Error::Invalid(format!("the broker at {brokers} can't tell about topic '{topic}': {refusal}"))),
            None => Err(Error::External(format!("the broker at {brokers} can't tell about topic '{topic}': {code}"))),
        },
    }
}

fn settings(options: &SendOptions) -> ClientSettings {
    ClientSettings { brokers: options.brokers.clone(), properties: options.properties.iter().cloned().collect(), hidden: Default::default() }
}

fn connect(options: &SendOptions) -> Result<BaseProducer<Deliveries>> {
    let patience = options.reach_within.as_millis().max(1).to_string();
    let usual = [
        // Idempotence means acks=all, and that a retry never doubles or reorders.
        ("enable.idempotence", "true"),
        ("acks", "all"),
        // How long a record may wait for a broker.
        ("message.timeout.ms", patience.as_str()),
        // Java's partitioner, so that other producers' records of a match land in the same partition.
        ("partitioner", "murmur2_random"),
        ("linger.ms", if options.rate == Rate::Max { "5" } else { "1" }),
        // Batches of the default size, a megabyte, would be a fifth of all that a partition of the embedded broker holds.
        ("batch.size", "262144"),
    ];
    let settings = settings(options);
    configured(&settings, &usual, &[]).create_with_context(Deliveries::of(&settings)).map_err(|e| not_made(&settings, &e, "the send"))
}

/// Queues one event; while the queue is full, waits for the broker to take some.
fn enqueue(producer: &BaseProducer<Deliveries>, options: &SendOptions, key: &str, event: &MatchEvent) -> Result<()> {
    let mut record = BaseRecord::to(&options.topic).key(key).payload(&event.payload);
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            // Ends in any case: either the broker takes records, or they time out and make room.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                record = returned;
                producer.poll(LOOK_UP);
            }
            Err((error, _)) => {
                let (topic, size) = (&options.topic, event.payload.len());
                return Err(Error::External(format!("an event of match {key} ({size} bytes) can't be sent to topic '{topic}': {error}")));
            }
        }
    }
}

/// When the next event is due.
#[derive(Debug)]
struct Pace {
    rate: Rate,
    began: Instant,
    /// Where the schedule counts from; moves on when the sender has been held up.
    anchor: Instant,
    /// Events sent when the anchor was set.
    anchored: u64,
}

impl Pace {
    fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, began: now, anchor: now, anchored: 0 }
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long to wait before the next event, after so many; `None` when it is due.
    fn pause(&mut self, sent: u64, now: Instant) -> Option<Duration> {
        let Rate::PerSecond(rate) = self.rate else { return None };
        let due = self.anchor + Duration::from_secs_f64((sent - self.anchored) as f64 / rate);
        match due.checked_duration_since(now) {
            Some(early) if !early.is_zero() => Some(early.clamp(STEP, LOOK_UP)),
            _ => {
                if now - due > MOST_CATCH_UP {
                    (self.anchor, self.anchored) = (now - MOST_CATCH_UP, sent);
                }
                None
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use parking_lot::Mutex;
    use rdkafka::{ClientConfig, Message, TopicPartitionList};

    use super::*;
    use crate::source::broker::EmbeddedBroker;
    use crate::source::matches::{SimulateOptions, SimulatedMatches};

    fn some_events(count: usize) -> impl Iterator<Item = Result<MatchEvent>> {
        let options = SimulateOptions { matches: Some(6), concurrent: 6, ..SimulateOptions::default() };
        SimulatedMatches::new(&options).take(count).map(Ok)
    }

    #[test]
    fn what_is_sent_can_be_read_back_in_order_by_match() {
        let broker = EmbeddedBroker::start(&[("events", 4)]).unwrap();
        let options = SendOptions::new(broker.bootstrap_servers(), "events");
        let sent = send(some_events(800), &options, &Stop::default(), |_| {}).unwrap();
        assert_eq!((sent.events, sent.stopped), (800, false));

        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", broker.bootstrap_servers()).set("group.id", "reader").create().unwrap();
        let mut all = TopicPartitionList::new();
        for partition in 0..4 {
            all.add_partition_offset("events", partition, rdkafka::Offset::Beginning).unwrap();
        }
        consumer.assign(&all).unwrap();
        let mut by_match: HashMap<String, (i32, Vec<Vec<u8>>)> = HashMap::new();
        for _ in 0..800 {
            let message = consumer.poll(Duration::from_secs(10)).unwrap().unwrap();
            let key = String::from_utf8(message.key().unwrap().to_vec()).unwrap();
            let (partition, payloads) = by_match.entry(key).or_insert((message.partition(), vec![]));
            assert_eq!(*partition, message.partition(), "a match stays in one partition");
            payloads.push(message.payload().unwrap().to_vec());
        }
        let mut want: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
        for event in some_events(800).map(Result::unwrap) {
            want.entry(event.key()).or_default().push(event.payload);
        }
        assert_eq!(by_match.into_iter().map(|(key, (_, payloads))| (key, payloads)).collect::<HashMap<_, _>>(), want);
    }

    #[test]
    fn an_unknown_topic_is_refused_and_not_created() {
        let broker = EmbeddedBroker::start(&[("events", 4)]).unwrap();
        let options = SendOptions::new(broker.bootstrap_servers(), "evnts");
        for _ in 0..2 {
            let error = send(some_events(1), &options, &Stop::default(), |_| {}).unwrap_err().to_string();
            assert!(error.contains("has no topic 'evnts'"), "{error}");
        }
    }

    #[test]
    fn a_broker_that_does_not_answer_is_named() {
        let options = SendOptions { reach_within: Duration::from_millis(300), ..SendOptions::new("127.0.0.1:1", "events") };
        let error = send(some_events(1), &options, &Stop::default(), |_| {}).unwrap_err().to_string();
        assert!(error.contains("127.0.0.1:1 within 0.3 s"), "{error}");
    }

    #[test]
    fn a_broker_that_goes_away_fails_the_send() {
        let broker = Mutex::new(Some(EmbeddedBroker::start(&[("events", 1)]).unwrap()));
        let address = broker.lock().as_ref().unwrap().bootstrap_servers().to_owned();
        let options = SendOptions { reach_within: Duration::from_millis(1500), rate: Rate::PerSecond(200.0), ..SendOptions::new(address, "events") };
        let error = send(some_events(20_000), &options, &Stop::default(), |sent| {
            if sent.events > 20 {
                broker.lock().take();
            }
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("acknowledged") && error.contains("then failed"), "{error}");
    }

    #[test]
    fn an_error_among_the_events_ends_the_send_after_those_before_it() {
        let broker = EmbeddedBroker::start(&[("events", 1)]).unwrap();
        let options = SendOptions::new(broker.bootstrap_servers(), "events");
        let events = some_events(5).chain([Err(Error::Invalid("file x is broken".into()))]);
        let mut seen = 0;
        let error = send(events, &options, &Stop::default(), |sent| seen = sent.events).unwrap_err();
        assert_eq!((error.to_string().as_str(), seen), ("file x is broken", 5));
    }

    #[test]
    fn stops_when_told() {
        let broker = EmbeddedBroker::start(&[("events", 1)]).unwrap();
        let options = SendOptions { rate: Rate::PerSecond(500.0), ..SendOptions::new(broker.bootstrap_servers(), "events") };
        let stop = Stop::default();
        let sent = send(some_events(20_000), &options, &stop, |sent| {
            if sent.events >= 50 {
                stop.stop();
            }
        });
        let sent = sent.unwrap();
        assert!(sent.stopped && (50..100).contains(&sent.events), "{sent:?}");
    }

    #[test]
    fn the_pace_is_even_and_forgives_a_stall() {
        let start = Instant::now();
        let mut pace = Pace::new(Rate::PerSecond(1000.0), start);
        let due_by = |pace: &mut Pace, sent: &mut u64, now: Instant| {
            let before = *sent;
            while pace.pause(*sent, now).is_none() {
                *sent += 1;
            }
            *sent - before
        };
        let mut sent = 0;
        for step in 0..1000u64 {
            let burst = due_by(&mut pace, &mut sent, start + Duration::from_millis(step * 2));
            assert!(burst <= 3, "{burst} events at once in step {step}");
        }
        assert!((1998..=2000).contains(&sent), "{sent}");
        let after_a_stall = due_by(&mut pace, &mut sent, start + Duration::from_secs(12));
        assert!((100..=102).contains(&after_a_stall), "{after_a_stall}");
    }

    #[test]
    fn rates_are_numbers_or_max() {
        assert_eq!("max".parse::<Rate>().unwrap(), Rate::Max);
        assert_eq!("2500".parse::<Rate>().unwrap(), Rate::PerSecond(2500.0));
        for wrong in ["0", "-1", "fast", "inf", "NaN", ""] {
            assert!(wrong.parse::<Rate>().unwrap_err().to_string().contains("is no rate"), "{wrong}");
        }
    }
}
