//! A reader follows a topic for ever: a thread of its own polls Kafka and gathers records per partition; whoever cuts epochs takes
//! them from there. A broker that is down is asked again and again, partitions that are added are found, and records that were gone
//! before they were read are reported as lost: the state says so.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    message::BorrowedMessage,
    types::RDKafkaRespErr,
};
use tokio::sync::Notify;

use super::{
    client::{
        Client, SHORT_WAIT, TOGETHER, WAIT, consumer_that_waits, consumer_with, ends, group_of, headers_of, is_embedded, messages, numbers_within,
        partition_numbers, ready, watermarks,
    },
    identity::{Question, ask, topic_id},
    loss::{Loss, describe},
    pending::{Arrived, Partition, Pending},
    refusal::refusal,
    throttle::Bucket,
};
use crate::{
    catalog::{ClientSettings, DataLoss, KafkaDef, SourceDef},
    error::{Error, Result},
    source::{Feed, FeedState, FeedStatus, Slice, Start, registry::Needs},
};

/// The reader waits when this many payload bytes lie untaken.
const PENDING_BYTES: usize = 128 << 20;
/// Partitions that are held back are read no further when this many payload bytes lie untaken.
const HELD_BYTES: usize = PENDING_BYTES / 2;
/// So many records are gathered before others may take some.
const AT_ONCE: usize = 256;
/// How often new partitions are looked for, unless `properties.topic.metadata.refresh.interval.ms` says something else.
const REFRESH: Duration = Duration::from_secs(5);
/// How long a question beside the reading may hold the reading up.
const BESIDE: Duration = Duration::from_secs(2);
/// How often the same question is asked.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// How often it is looked whether a connection or secret has been altered.
const LOOK_AT_SETTINGS: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Shared {
    state: Mutex<Pending>,
    /// How much may be taken by now.
    bucket: Mutex<Bucket>,
    room: Condvar,
    stop: AtomicBool,
    /// Told when there is something to take, or a partition may be idle.
    input: Arc<Notify>,
}

impl Shared {
    /// Whether the source's limits let anything be taken now.
    fn may_be_taken(&self) -> bool {
        self.bucket.lock().allowed(Instant::now()).1 > 0
    }

    /// What was held up by the source's limits may be taken by now.
    fn tell_what_waits(&self) {
        if self.bucket.lock().limits() && self.may_be_taken() {
            self.input.notify_one();
        }
    }
}

/// Follows one topic.
#[derive(Debug)]
pub struct KafkaReader {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaReader {
    /// Starts to follow the source's topic. Partitions that `from` does not name start at the oldest record; one that is added while
    /// the reader runs starts at its first.
    /// `input` is told when there is something to take.
    pub fn start(source: &SourceDef, from: Start, input: Arc<Notify>) -> Result<Self> {
        let (name, kafka) = (&source.name, source.kafka.clone());
        let bucket = Mutex::new(Bucket::new(kafka.throttle, Instant::now()));
        let shared =
            Arc::new(Shared { state: Mutex::new(Pending::new(source.idle_timeout)), room: Condvar::new(), bucket, stop: AtomicBool::new(false), input });
        let settings = kafka.settings()?;
        let group = group_of(name, &kafka);
        let client = consumer_with(&settings, Some(&group), &format!("topic {}", kafka.topic))?;
        let refresh = refresh_interval(&kafka);
        let follower = Follower {
            asking: None,
            client,
            wait: WAIT,
            settings,
            group,
            looked_at_settings: Instant::now(),
            kafka,
            needs: Needs::of(source)?,
            from,
            refresh,
            shared: shared.clone(),
            looked: Instant::now(),
            asked: None,
            resting: BTreeSet::new(),
            troubled_since: None,
            adrift: false,
        };
        let thread = std::thread::Builder::new()
            .name(format!("read {name}"))
            .spawn(move || follower.follow())
            .map_err(|e| Error::External(format!("no thread for reading source {name}: {e}")))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Feed for KafkaReader {
    fn take(&self, max_bytes: usize, max_records: usize) -> Vec<Slice> {
        let (bytes, records) = self.shared.bucket.lock().allowed(Instant::now());
        if records == 0 {
            return vec![];
        }
        let slices = self.shared.state.lock().take(max_bytes.min(bytes), max_records.min(records));
        let taken = |part: fn(&Slice) -> usize| slices.iter().map(part).sum();
        self.shared.bucket.lock().spend(taken(|slice| slice.records.byte_len()), taken(|slice| slice.records.len()));
        self.shared.room.notify_all();
        slices
    }

    fn has_input(&self) -> bool {
        self.shared.may_be_taken() && self.shared.state.lock().has_input()
    }

    fn hold_back(&self, partitions: BTreeSet<i32>) {
        if self.shared.state.lock().hold_back(partitions) {
            self.shared.room.notify_all();
        }
    }

    fn status(&self) -> FeedStatus {
        self.shared.state.lock().status(Instant::now())
    }

    fn commit(&self, offsets: BTreeMap<i32, i64>) {
        self.shared.state.lock().commit = Some(offsets);
    }
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.room.notify_all();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a reader's thread had panicked");
        }
    }
}

/// How often new partitions are looked for; `None`: never, as librdkafka reads a negative interval.
fn refresh_interval(kafka: &KafkaDef) -> Option<Duration> {
    match kafka.properties.get("topic.metadata.refresh.interval.ms").and_then(|text| text.trim().parse::<i64>().ok()) {
        None => Some(REFRESH),
        Some(millis) => u64::try_from(millis).ok().map(|millis| Duration::from_millis(millis.max(10))),
    }
}

/// The thread's work: find the partitions, assign them, gather for ever.
struct Follower {
    /// Asked which topic it is; goes before the client.
    asking: Option<Question>,
    client: Client,
    /// How long its fetches wait for records.
    wait: Duration,
    /// What the client was made with.
    settings: ClientSettings,
    group: String,
    looked_at_settings: Instant,
    kafka: KafkaDef,
    /// The schemas that records must not go on without.
    needs: Needs,
    from: Start,
    refresh: Option<Duration>,
    shared: Arc<Shared>,
    /// When the partitions were last looked for.
    looked: Instant,
    /// When the broker was last asked for ends.
    asked: Option<Instant>,
    /// Since when the broker does not answer as it should.
    troubled_since: Option<Instant>,
    /// Partitions that are not read any further while they are held back.
    resting: BTreeSet<i32>,
    /// The broker has refused an offset: where to go on must be found out.
    adrift: bool,
}

impl Follower {
    fn follow(mut self) {
        // Here, on a thread that may wait.
        self.client = ready(self.client);
        self.begin();
        while !self.stopped() {
            self.commit();
            self.keep_up_with_settings();
            self.shared.tell_what_waits();
            if self.failed() {
                // Nothing is assigned any more; what was committed is still acknowledged.
                let _ = self.client.poll(Duration::from_millis(50));
                continue;
            }
            if self.adrift {
                self.find_place();
            }
            self.hear_of_topic();
            self.look_for_partitions();
            self.let_rest();
            self.confirm_ends();
            self.poll();
        }
    }

    fn stopped(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    fn failed(&self) -> bool {
        matches!(self.shared.state.lock().reader, FeedState::Failed(_))
    }

    /// Assigns the partitions; goes on trying until the broker answers.
    fn begin(&mut self) {
        let mut backoff = Duration::from_millis(100);
        while !self.stopped() {
            let Err(error) = self.assign() else { return };
            let state = FeedState::Connecting(error.to_string());
            let before = std::mem::replace(&mut self.shared.state.lock().reader, state.clone());
            // Once is enough to say the same.
            if before != state {
                tracing::warn!(topic = self.kafka.topic, "{error}");
            }
            self.rest(backoff);
            if self.keep_up_with_settings() {
                backoff = Duration::from_millis(100);
            }
            backoff = (backoff * 2).min(Duration::from_secs(5));
        }
    }

    /// A connection or secret may have been altered: then a client with what they say now goes on where this one is. Whether that is so.
    fn keep_up_with_settings(&mut self) -> bool {
        if self.looked_at_settings.elapsed() < LOOK_AT_SETTINGS {
            return false;
        }
        self.looked_at_settings = Instant::now();
        self.shared.state.lock().note = self.client.context().group_refused().map(|refusal| refusal.to_string());
        if self.kafka.link.is_empty() {
            return false;
        }
        let Ok(settings) = self.kafka.settings() else { return false };
        if settings == self.settings {
            return false;
        }
        match self.another_client(&settings) {
            Ok(client) => {
                tracing::info!(topic = self.kafka.topic, "its connection or a secret was altered: it is read on with that");
                self.asking = None;
                (self.client, self.settings) = (client, settings);
                self.resting.clear();
                self.troubled_since = None;
                // Each partition is found again at its place; before there are any they are looked for anyway.
                self.adrift = !self.failed() && !self.shared.state.lock().partitions.is_empty();
                true
            }
            Err(error) => {
                self.settings = settings;
                self.trouble(error.to_string());
                false
            }
        }
    }

    fn another_client(&self, settings: &ClientSettings) -> Result<Client> {
        consumer_that_waits(settings, Some(&self.group), &format!("topic {}", self.kafka.topic), self.wait).map(ready)
    }

    fn rest(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.stopped() {
            std::thread::sleep(time.min(Duration::from_millis(50)));
            let settings_changed = !self.kafka.link.is_empty() && self.kafka.settings().is_ok_and(|settings| settings != self.settings);
            if settings_changed {
                break;
            }
        }
    }

    fn assign(&mut self) -> Result<()> {
        let numbers = partition_numbers(&self.client, &self.kafka)?;
        if self.wait != SHORT_WAIT && is_embedded(&self.client) {
            self.wait = SHORT_WAIT;
            self.client = self.another_client(&self.settings)?;
        }
        let topic = self.topic_now(self.from.topic.as_ref());
        let anew = is_another(self.from.topic.as_ref(), topic.as_ref());
        let mut assignment = TopicPartitionList::new();
        let mut partitions = BTreeMap::new();
        let mut losses = vec![];
        for number in &numbers {
            // Where the start lies before the oldest record, the oldest is where a fresh reader starts. A checkpoint's offset is never
            // moved: records between it and the oldest one would be lost without a word.
            let (low, end) = watermarks(&self.client, &self.kafka, *number)?;
            let (wanted, start, offset) = match self.from.offsets.get(number) {
                Some(offset) if self.from.fresh.contains(number) => (*offset, (*offset).max(low), Offset::Offset((*offset).max(low))),
                Some(offset) if anew => {
                    losses.push(Loss { partition: *number, expected: *offset, oldest: low, end, anew });
                    (low, low, Offset::Offset(low))
                }
                Some(offset) => (*offset, *offset, Offset::Offset(*offset)),
                None => (0, low, Offset::Beginning),
            };
            self.place(&mut assignment, *number, offset)?;
            let mut partition = Partition::at(start);
            if start > wanted {
                partition.start_at(start);
            }
            partitions.insert(*number, partition);
        }
        // A topic that was made anew with fewer partitions.
        let read = self.from.offsets.iter().filter(|(number, _)| !self.from.fresh.contains(number) && !numbers.contains(number));
        losses.extend(read.filter_map(|(number, offset)| Loss::check(*number, *offset, (0, 0))));
        self.give(&assignment)?;
        let mut state = self.shared.state.lock();
        state.partitions = partitions;
        state.reader = FeedState::Running;
        state.topic = self.from.topic.clone();
        drop(state);
        if topic.is_none() {
            self.asking = ask(&self.client, &self.kafka.topic, BESIDE);
        }
        if !losses.is_empty() && self.lose(&losses) && anew {
            self.shared.state.lock().topic = topic;
        }
        self.shared.input.notify_one();
        Ok(())
    }

    fn place(&self, assignment: &mut TopicPartitionList, number: i32, offset: Offset) -> Result<()> {
        assignment
            .add_partition_offset(&self.kafka.topic, number, offset)
            .map_err(|e| Error::External(format!("partition {number} of topic {}: {e}", self.kafka.topic)))
    }

    fn give(&self, assignment: &TopicPartitionList) -> Result<()> {
        self.client.assign(assignment).map_err(|e| Error::External(format!("topic {} can't be assigned: {e}", self.kafka.topic)))
    }

    fn poll(&mut self) {
        // A record that waits for its schema keeps none up that came before it.
        let most = if self.needs.is_nothing() { TOGETHER } else { 1 };
        let batch = messages(&self.client, Duration::from_millis(50), most);
        if batch.is_empty() {
            // On a silent topic nothing else tells that the broker is back.
            let long = self.troubled_since.is_some_and(|since| since.elapsed() > Duration::from_secs(2));
            if long {
                match numbers_within(&self.client, &self.kafka, BESIDE) {
                    Ok(_) => {
                        self.troubled_since = None;
                        self.shared.state.lock().recovered();
                    }
                    Err(error) => {
                        self.trouble(error.to_string());
                        self.troubled_since = Some(Instant::now());
                    }
                }
            }
            return;
        }
        if !self.needs.is_nothing() && !batch.iter().flatten().all(|message| self.know_schemas(message)) {
            return;
        }
        let Gathered { answered, troubles } = self.gather(batch);
        if answered {
            self.troubled_since = None;
        }
        troubles.iter().for_each(|error| self.hear_error(error));
    }

    fn hear_error(&mut self, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => self.adrift = true,
            // Nothing is read by the group, so what it may do is no trouble of the reading.
            Some(code @ RDKafkaErrorCode::GroupAuthorizationFailed) => self.client.context().refuse_group(code),
            // librdkafka goes on trying by itself.
            code => {
                let refused = code.and_then(|code| refusal(code, "")).filter(|_| matches!(error, KafkaError::MessageConsumption(_)));
                let sentence = match refused.or_else(|| self.client.context().refused()) {
                    Some(refusal) => format!("topic {} on {} can't be read: {refusal}", self.kafka.topic, self.kafka.place()),
                    None => format!("Kafka at {}: {error}", self.kafka.place()),
                };
                self.trouble(sentence);
            }
        }
    }

    /// Copies records to where they are taken from, and waits for room there.
    fn gather(&self, batch: Vec<KafkaResult<BorrowedMessage<'_>>>) -> Gathered {
        let mut gathered = Gathered::default();
        let mut ends: BTreeMap<i32, Option<i64>> = BTreeMap::new();
        let mut end_of = |number: i32| *ends.entry(number).or_insert_with(|| cached_end(&self.client, &self.kafka.topic, number));
        let mut batch = batch.into_iter().peekable();
        while batch.peek().is_some() {
            // Whoever takes records waits for no more than a few.
            self.gather_few(batch.by_ref().take(AT_ONCE), &mut end_of, &mut gathered);
            self.shared.input.notify_one();
        }
        gathered
    }

    fn gather_few<'a>(
        &self,
        messages: impl Iterator<Item = KafkaResult<BorrowedMessage<'a>>>,
        mut end_of: impl FnMut(i32) -> Option<i64>,
        gathered: &mut Gathered,
    ) {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        for message in messages {
            if matches!(message, Ok(_) | Err(KafkaError::PartitionEOF(_))) && !std::mem::replace(&mut gathered.answered, true) {
                self.client.context().forget();
                state.recovered();
            }
            match message {
                Ok(message) => {
                    while state.bytes > PENDING_BYTES && state.bytes_to_take() > PENDING_BYTES && !shared.stop.load(Ordering::Relaxed) {
                        shared.input.notify_one();
                        shared.room.wait_for(&mut state, Duration::from_millis(100));
                        shared.tell_what_waits();
                    }
                    let record = Arrived {
                        offset: message.offset(),
                        timestamp_ms: message.timestamp().to_millis(),
                        key: message.key(),
                        value: message.payload(),
                        headers: headers_of(&message),
                    };
                    state.gather(message.partition(), record, end_of(message.partition()));
                }
                Err(KafkaError::PartitionEOF(number)) => state.ended(number, end_of(number)),
                Err(error) => gathered.troubles.push(error),
            }
        }
    }

    /// Waits until the registry has answered for the schemas that a record was written with; `false`: the reader is to end. Meanwhile nothing
    /// more is read, since a record without its schema can't be told from a bad one.
    fn know_schemas(&self, message: &BorrowedMessage<'_>) -> bool {
        let mut backoff = Duration::from_millis(100);
        let mut was_away = false;
        while !self.stopped() {
            match self.needs.fetch_for(message.key(), message.payload()) {
                Ok(()) => {
                    if was_away {
                        tracing::info!(topic = self.kafka.topic, "the schema registry answers again");
                        self.shared.state.lock().recovered();
                    }
                    return true;
                }
                Err(error) => {
                    let sentence = error.to_string();
                    if !std::mem::replace(&mut was_away, true) {
                        tracing::warn!(topic = self.kafka.topic, "{sentence}; it is asked again");
                    }
                    self.shared.state.lock().reader = FeedState::Connecting(sentence);
                    self.commit();
                    // What a connection or secret says of the registry is looked at with each try.
                    let until = Instant::now() + backoff;
                    while Instant::now() < until && !self.stopped() {
                        std::thread::sleep(backoff.min(Duration::from_millis(50)));
                    }
                    backoff = (backoff * 2).min(Duration::from_secs(5));
                }
            }
        }
        false
    }

    /// Something does not answer as it should; it is tried again.
    fn trouble(&mut self, sentence: String) {
        self.troubled_since = Some(self.troubled_since.unwrap_or_else(Instant::now));
        let mut state = self.shared.state.lock();
        if matches!(state.reader, FeedState::Failed(_)) {
            return;
        }
        if state.reader != FeedState::Connecting(sentence.clone()) {
            tracing::warn!(topic = self.kafka.topic, "{sentence}");
        }
        state.reader = FeedState::Connecting(sentence);
    }

    /// Which topic it is now, where it is known which it was: for a broker that has told no id nobody waits.
    fn topic_now(&self, known: Option<&String>) -> Option<String> {
        known.and_then(|_| topic_id(&self.client, &self.kafka.topic, BESIDE))
    }

    /// The answer to which topic it is, if it has come: another one than before must be read anew.
    fn hear_of_topic(&mut self) {
        let Some(topic) = self.asking.as_ref().and_then(|question| question.answer(Duration::ZERO)) else { return };
        self.asking = None;
        let mut state = self.shared.state.lock();
        self.adrift |= is_another(state.topic.as_ref(), topic.as_ref());
        state.topic = state.topic.take().or(topic);
    }

    /// Partitions that were added since are read from their first record on, whatever the source says of its start: records that
    /// came between their making and their discovery belong to it.
    fn look_for_partitions(&mut self) {
        let Some(refresh) = self.refresh else { return };
        if self.troubled_since.is_some() || self.looked.elapsed() < refresh {
            return;
        }
        let numbers = numbers_within(&self.client, &self.kafka, BESIDE);
        self.looked = Instant::now();
        let numbers = match numbers {
            Ok(numbers) => numbers,
            Err(error) => return self.trouble(error.to_string()),
        };
        if self.asking.is_none() {
            self.asking = ask(&self.client, &self.kafka.topic, BESIDE);
        }
        let new: Vec<i32> = {
            let state = self.shared.state.lock();
            numbers.into_iter().filter(|number| !state.partitions.contains_key(number)).collect()
        };
        if new.is_empty() {
            return;
        }
        let mut assignment = TopicPartitionList::new();
        let placed: Result<()> = new.iter().try_for_each(|number| self.place(&mut assignment, *number, Offset::Offset(0)));
        let added = placed.and_then(|()| {
            let failed = |e| Error::External(format!("new partitions of topic {} can't be assigned: {e}", self.kafka.topic));
            self.client.incremental_assign(&assignment).map_err(failed)
        });
        if let Err(error) = added {
            return self.trouble(error.to_string());
        }
        tracing::info!(topic = self.kafka.topic, partitions = ?new, "new partitions are read");
        // Known from here on, so that none is found twice, and each holds the watermark back until it has said something or is idle.
        self.shared.state.lock().partitions.extend(new.into_iter().map(|number| (number, Partition::new_at_its_first_record())));
        self.shared.input.notify_one();
    }

    /// What is held back may not fill the memory that the others need: from some point on it is not read any further.
    fn let_rest(&mut self) {
        let rest = {
            let state = self.shared.state.lock();
            if state.bytes > HELD_BYTES { state.held().clone() } else { self.resting.intersection(state.held()).copied().collect() }
        };
        if rest == self.resting {
            return;
        }
        let list = |numbers: &mut dyn Iterator<Item = &i32>| {
            let mut list = TopicPartitionList::new();
            numbers.for_each(|number| {
                list.add_partition(&self.kafka.topic, *number);
            });
            list
        };
        let (paused, resumed) = (list(&mut rest.difference(&self.resting)), list(&mut self.resting.difference(&rest)));
        match self.client.pause(&paused).and_then(|()| self.client.resume(&resumed)) {
            Ok(()) => self.resting = rest,
            Err(error) => tracing::warn!(topic = self.kafka.topic, "partitions that are held back are read all the same: {error}"),
        }
    }

    /// A partition that was at its end some time ago may hold more by now: before it counts as idle the broker is asked once more.
    fn confirm_ends(&mut self) {
        if self.troubled_since.is_some() || self.asked.is_some_and(|at| at.elapsed() < ASK_AGAIN) {
            return;
        }
        let asked = Instant::now();
        let due = self.shared.state.lock().unconfirmed(asked);
        if due.is_empty() {
            return;
        }
        let answer = ends(&self.client, &self.kafka, &due, BESIDE);
        self.asked = Some(Instant::now());
        match answer {
            Ok(ends) => {
                self.shared.state.lock().confirm(asked, &ends);
                self.shared.input.notify_one();
            }
            Err(error) => self.trouble(error.to_string()),
        }
    }

    /// The broker has refused an offset and does not say of which partition, or the topic was made anew: where each partition stands is
    /// looked up. Those that nobody has read yet start at what is the oldest record by now; of others records are lost.
    fn find_place(&mut self) {
        let known = self.shared.state.lock().topic.clone();
        let topic = self.topic_now(known.as_ref());
        let anew = is_another(known.as_ref(), topic.as_ref());
        match self.places(anew) {
            Ok((assignment, losses)) => {
                if !losses.is_empty() && !self.lose(&losses) {
                    return;
                }
                match self.give(&assignment) {
                    Ok(()) => {
                        self.adrift = false;
                        let mut state = self.shared.state.lock();
                        state.topic = topic.or(state.topic.take());
                    }
                    Err(error) => self.trouble(error.to_string()),
                }
            }
            Err(error) => self.trouble(error.to_string()),
        }
        // A broker that refuses an offset which it says it holds is not asked in a frenzy.
        self.rest(ASK_AGAIN);
    }

    /// Where each partition goes on, and what is lost.
    fn places(&self, anew: bool) -> Result<(TopicPartitionList, Vec<Loss>)> {
        let standing: Vec<(i32, i64, bool)> = {
            let state = self.shared.state.lock();
            let unread = |number: &i32, p: &Partition| !p.delivered && (self.from.fresh.contains(number) || !self.from.offsets.contains_key(number));
            state.partitions.iter().map(|(number, p)| (*number, p.position, unread(number, p))).collect()
        };
        let there = partition_numbers(&self.client, &self.kafka)?;
        let (mut assignment, mut losses) = (TopicPartitionList::new(), vec![]);
        for (number, position, unread) in standing {
            if !there.contains(&number) {
                losses.extend(Loss::check(number, position, (0, 0)));
                continue;
            }
            let held @ (low, end) = watermarks(&self.client, &self.kafka, number)?;
            let loss = if anew { Some(Loss { partition: number, expected: position, oldest: low, end, anew }) } else { Loss::check(number, position, held) };
            let loss = loss.filter(|loss| !unread || (loss.offsets().is_none() && !anew));
            losses.extend(loss);
            let elsewhere = unread && (anew || low > position);
            let at = if loss.is_some() || elsewhere { low } else { position };
            if elsewhere && let Some(partition) = self.shared.state.lock().partitions.get_mut(&number) {
                partition.start_at(low);
            }
            self.place(&mut assignment, number, Offset::Offset(at))?;
        }
        Ok((assignment, losses))
    }

    /// Records are lost: the source's policy decides. Whether reading goes on.
    fn lose(&self, losses: &[Loss]) -> bool {
        let what = describe(&self.kafka, losses);
        let mut state = self.shared.state.lock();
        match self.kafka.on_data_loss {
            DataLoss::Continue => {
                let sentence = format!("{what}; reading went on at the oldest that was there, as 'on.data.loss' = 'continue' says");
                tracing::error!("{sentence}");
                losses.iter().for_each(|loss| state.skip(loss, &sentence));
                true
            }
            DataLoss::Fail => {
                let sentence = format!(
                    "{what}; the source is not read any further: drop its views and create them again to start at what is there, or declare the source with 'on.data.loss' = 'continue'"
                );
                tracing::error!("{sentence}");
                state.reader = FeedState::Failed(sentence);
                drop(state);
                if let Err(error) = self.client.unassign() {
                    tracing::warn!(topic = self.kafka.topic, "the partitions could not be given up: {error}");
                }
                self.shared.input.notify_one();
                false
            }
        }
    }

    fn commit(&self) {
        let Some(offsets) = self.shared.state.lock().commit.take() else { return };
        let topic = &self.kafka.topic;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            if let Err(error) = list.add_partition_offset(topic, partition, Offset::Offset(offset)) {
                tracing::warn!(topic, partition, "an offset to show could not be given to the client: {error}");
            }
        }
        if let Err(error) = self.client.commit(&list, CommitMode::Async) {
            tracing::warn!(topic, "offsets could not be shown to the group: {error}");
        }
    }
}

/// What became of messages.
#[derive(Default)]
struct Gathered {
    /// The broker has sent a record, or the end of a partition.
    answered: bool,
    /// What was wrong beside those.
    troubles: Vec<KafkaError>,
}

/// Whether a name means another topic by now, as far as both ids are known.
fn is_another(was: Option<&String>, is: Option<&String>) -> bool {
    was.zip(is).is_some_and(|(was, is)| was != is)
}

/// One past the newest record, as librdkafka last heard it; no question is sent.
fn cached_end(client: &Client, topic: &str, partition: i32) -> Option<i64> {
    let name = std::ffi::CString::new(topic).ok()?;
    let (mut low, mut high) = (-1i64, -1i64);
    // SAFETY: the client outlives the call, `name` is a C string that lives until it returns, both out-pointers are valid.
    let code = unsafe { rdkafka::bindings::rd_kafka_get_watermark_offsets(client.client().native_ptr(), name.as_ptr(), partition, &mut low, &mut high) };
    (code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
}
