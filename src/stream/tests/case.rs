//! A run as plain data: a view and its settings, the records, where epochs are cut, where the process dies. Made from a seed, printed
//! in full when it fails, and small enough in its parts that some can be left out (`shrink.rs`).

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::views::{SECOND, VIEWS, View, Windows};
use crate::{
    catalog::{Definition, Emit, SourceDef, ViewDef},
    sql::{self, Statement},
};

/// How far a record may run ahead of its own timestamp, in nanoseconds.
const MAX_SKEW: i64 = 3_600 * SECOND;

#[derive(Debug, Clone)]
pub struct Case {
    /// What it was made from.
    pub seed: u64,
    pub view: &'static View,
    pub emit: Emit,
    /// Seconds.
    pub lateness: u64,
    /// Whether the view closes its windows when its source is quiet.
    pub closes_when_quiet: bool,
    /// Seconds that the watermark trails.
    pub bound: i64,
    pub partitions: i32,
    pub threads: usize,
    pub epochs: Vec<Epoch>,
}

/// What one epoch reads, and what follows it.
#[derive(Debug, Clone)]
pub struct Epoch {
    /// The wall clock, in milliseconds since 1970.
    pub now_ms: i64,
    /// Whether everything that the broker has was read.
    pub caught_up: bool,
    pub records: Vec<Record>,
    pub then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    GoOn,
    Checkpoint,
    /// The process dies: what was read after the last checkpoint is read again with the next epoch.
    Restart,
    CheckpointAndRestart,
}

#[derive(Debug, Clone)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Its own timestamp, in milliseconds since 1970.
    pub sent_ms: i64,
    pub body: Body,
}

#[derive(Debug, Clone)]
pub enum Body {
    Event(Event),
    /// What no decoder takes.
    Bad(&'static [u8]),
}

#[derive(Debug, Clone)]
pub struct Event {
    pub id: i64,
    pub ts: i64,
    pub k: Option<&'static str>,
    pub x: Option<i64>,
    /// Quarters: their sums are exact in any order.
    pub f: Option<f64>,
    /// Any double at all.
    pub g: Option<f64>,
}

const KEYS: [Option<&str>; 4] = [None, Some("a"), Some("b"), Some("a key that is longer than a view holds inline")];

const DOUBLES: [f64; 12] = [0.0, -0.0, 0.1, -1.0 / 3.0, 5e-324, -2.3e-308, f64::MAX, f64::MIN, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];

/// When the first epoch is cut: at the end of the type, so that a record's time is judged by its own timestamp alone.
const NOW_MS: i64 = i64::MAX / 1_000_000;

/// No JSON, no text for a BIGINT, no event time, no UTF-8, and times beyond the type.
const BAD: [&[u8]; 6] = [
    b"{\"id\": 1",
    b"{\"ts\": \"2024-01-01T00:00:00Z\", \"x\": \"7\"}",
    b"{\"id\": 5}",
    b"\xff\xfe",
    b"{\"id\": 6, \"ts\": \"2262-04-11T23:47:16.854775808Z\"}",
    b"{\"id\": 7, \"ts\": \"1677-09-21T00:12:43.145224191Z\"}",
];

/// From 1677 to 2262: both ends of the type, around 1970, and some in between.
const STRAYS: [i64; 10] =
    [i64::MIN, i64::MIN + 1, i64::MIN + 20 * SECOND, -9_214_560_000 * SECOND, -1, 0, 1, 9_180_000_000 * SECOND, i64::MAX - 20 * SECOND, i64::MAX];

impl Event {
    fn random(rng: &mut ChaCha8Rng, id: i64, ts: i64) -> Self {
        Self {
            id,
            ts,
            k: KEYS[rng.random_range(0..KEYS.len())],
            x: (!rng.random_bool(0.2)).then(|| rng.random_range(-3..12)),
            f: (!rng.random_bool(0.2)).then(|| rng.random_range(-40..40) as f64 / 4.0),
            g: (!rng.random_bool(0.2)).then(|| DOUBLES[rng.random_range(0..DOUBLES.len())]),
        }
    }

    fn json(&self) -> String {
        let time = chrono::DateTime::from_timestamp_nanos(self.ts).to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
        let mut value = serde_json::json!({ "id": self.id, "ts": time, "noise": {"deep": [1, {"x": "}\"]"}]} });
        // An absent field and a null are the same.
        if let Some(k) = &self.k {
            value["k"] = serde_json::json!({ "name": k });
        }
        if self.x.is_some() || self.id % 2 == 0 {
            value["x"] = self.x.into();
        }
        if let Some(f) = self.f {
            value["f"] = f.into();
        }
        match self.g {
            Some(g) if g.is_finite() => value["g"] = g.into(),
            Some(g) => value["h"] = g.to_string().into(),
            None => {}
        }
        value.to_string()
    }
}

impl Record {
    pub fn payload(&self) -> Vec<u8> {
        match &self.body {
            Body::Event(event) => event.json().into_bytes(),
            Body::Bad(bytes) => bytes.to_vec(),
        }
    }

    /// What it holds, unless it is one for `$errors`.
    pub fn event(&self) -> Option<&Event> {
        match &self.body {
            Body::Event(event) => (i128::from(event.ts) - i128::from(self.sent_ms) * 1_000_000 <= i128::from(MAX_SKEW)).then_some(event),
            Body::Bad(_) => None,
        }
    }
}

/// What a seed decides beside the data, so that seeds in a row go through all views, emissions and lateness settings.
struct Settings {
    view: &'static View,
    emission: u64,
    lateness: u64,
}

impl Settings {
    const EACH: u64 = 3;

    fn of(seed: u64) -> Self {
        let views = VIEWS.len() as u64;
        Self { view: &VIEWS[(seed % views) as usize], emission: seed / views % Self::EACH, lateness: seed / views / Self::EACH % Self::EACH }
    }
}

impl Case {
    /// So many seeds in a row have all settings of all views.
    pub const ALL_SETTINGS: u64 = VIEWS.len() as u64 * Settings::EACH * Settings::EACH;

    /// Anything may happen.
    pub fn random(seed: u64) -> Self {
        Self::make(seed, false)
    }

    /// No record is late, wherever epochs are cut: disorder stays below the bound, and no window closes by the wall clock.
    pub fn punctual(seed: u64) -> Self {
        Self::make(seed, true)
    }

    /// Few records, all of them near the ends of what a timestamp holds or near 1970; half of the seeds have them in order of time.
    pub fn at_the_ends(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut times: Vec<i64> = (0..24)
            .map(|_| {
                let jitter = rng.random_range(-2 * SECOND..2 * SECOND) * i64::from(rng.random_bool(0.8));
                STRAYS[rng.random_range(0..STRAYS.len())].saturating_add(jitter)
            })
            .collect();
        if rng.random_bool(0.5) {
            times.sort_unstable();
        }
        let mut case = Self { partitions: 1, epochs: vec![], ..Self::random(seed) };
        let (mut next, mut now_ms) = (0, NOW_MS);
        for times in times.chunks(4) {
            now_ms += rng.random_range(10..100_000);
            let record = |(offset, ts): (i64, &i64)| Record { partition: 0, offset, sent_ms: NOW_MS, body: Body::Event(Event::random(&mut rng, offset, *ts)) };
            let records = (next..).zip(times).map(record).collect();
            next += times.len() as i64;
            case.epochs.push(Epoch { now_ms, caught_up: true, records, then: Then::random(&mut rng) });
        }
        case.epochs.push(Epoch { now_ms: now_ms + 100_000, caught_up: true, records: vec![], then: Then::GoOn });
        case
    }

    fn make(seed: u64, punctual: bool) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let Settings { view, emission, lateness } = Settings::of(seed);
        let windowed = !matches!(view.windows, Windows::None);
        let every = Emit::Every(Duration::from_secs(rng.random_range(1..20)));
        let emit = match emission {
            0 => Emit::Changes,
            1 if windowed => Emit::OnWindowClose,
            _ => every,
        };
        let lateness = match lateness {
            1 if windowed => rng.random_range(1..5),
            2 if windowed => rng.random_range(5..40),
            _ => 0,
        };
        let mut case = Self {
            seed,
            view,
            emit,
            lateness,
            closes_when_quiet: windowed && !punctual && rng.random_bool(0.4),
            bound: rng.random_range(0..8),
            partitions: if rng.random_bool(0.3) { 1 } else { rng.random_range(2..=8) },
            threads: rng.random_range(1..=2),
            epochs: vec![],
        };
        let mut log = Log::new(&mut rng, &case, punctual);
        let epochs = if rng.random_bool(0.15) { 40 } else { rng.random_range(3..14) };
        let mut now_ms = NOW_MS;
        for _ in 0..epochs {
            let silent = rng.random_bool(0.12);
            now_ms += if silent { rng.random_range(1_000..100_000) } else { rng.random_range(10..4_000) };
            let mut records = vec![];
            if !silent {
                (0..case.partitions).for_each(|partition| log.some(&mut rng, partition, &mut records));
            }
            // A session may end between two rows that lie apart.
            if rng.random_bool(0.2) {
                log.clock = log.clock.saturating_add(rng.random_range(0..20) * SECOND);
            }
            case.epochs.push(Epoch { now_ms, caught_up: rng.random_bool(0.8), records, then: Then::random(&mut rng) });
        }
        case
    }

    /// The same records in other epochs, and other restarts. It ends with time enough for everything that is emitted now and then.
    pub fn recut(&self, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut left: BTreeMap<i32, Vec<Record>> = BTreeMap::new();
        for record in self.epochs.iter().flat_map(|epoch| &epoch.records) {
            left.entry(record.partition).or_default().push(record.clone());
        }
        let most = rng.random_range(2..60);
        let mut now_ms = NOW_MS;
        let mut epochs = vec![];
        while left.values().any(|records| !records.is_empty()) {
            now_ms += rng.random_range(10..4_000);
            let mut records = vec![];
            for of_partition in left.values_mut() {
                let count = rng.random_range(0..most).min(of_partition.len());
                records.extend(of_partition.drain(..count));
            }
            epochs.push(Epoch { now_ms, caught_up: rng.random_bool(0.8), records, then: Then::random(&mut rng) });
        }
        for _ in 0..2 {
            now_ms += 100_000;
            epochs.push(Epoch { now_ms, caught_up: true, records: vec![], then: Then::GoOn });
        }
        Self { threads: rng.random_range(1..=2), epochs, ..self.clone() }
    }

    pub fn records(&self) -> usize {
        self.epochs.iter().map(|epoch| epoch.records.len()).sum()
    }

    fn source_sql(&self) -> String {
        format!(
            "CREATE SOURCE events (id BIGINT, ts TIMESTAMP, k TEXT PATH '$.k.name', x BIGINT, f DOUBLE, g DOUBLE, h TEXT,
  part INT METADATA FROM 'partition', off BIGINT METADATA FROM 'offset', WATERMARK FOR ts AS ts - INTERVAL '{} seconds')
WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json', 'max.future.skew' = '{} seconds')",
            self.bound,
            MAX_SKEW / SECOND
        )
    }

    fn view_sql(&self) -> String {
        let unbounded = if matches!(self.view.windows, Windows::None) { " WITH (unbounded_state = true)" } else { "" };
        let emit = match self.emit {
            Emit::Changes => "CHANGES".to_string(),
            Emit::OnWindowClose => "ON WINDOW CLOSE".into(),
            Emit::Every(interval) => format!("EVERY INTERVAL '{} seconds'", interval.as_secs()),
        };
        let lateness = if self.lateness > 0 { format!(" ALLOW LATENESS INTERVAL '{} seconds'", self.lateness) } else { String::new() };
        let close = match (self.view.windows, self.closes_when_quiet) {
            (Windows::None, _) => "",
            (_, true) => " CLOSE AFTER INTERVAL '60 seconds'",
            (_, false) => " CLOSE NEVER",
        };
        format!("CREATE CONTINUOUS VIEW v{unbounded} AS\n{}\nEMIT {emit}{lateness}{close}", self.view.sql)
    }

    pub fn source(&self) -> Arc<SourceDef> {
        match sql::parse_definition(&self.source_sql()).unwrap() {
            Definition::Source(source) => source,
            other => panic!("no source: {other:?}"),
        }
    }

    pub fn view(&self) -> Arc<ViewDef> {
        match sql::parse_one(&self.view_sql()).unwrap() {
            Statement::CreateContinuousView { def, .. } => Arc::new(def),
            other => panic!("no view: {other:?}"),
        }
    }
}

impl Then {
    fn random(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..100) {
            0..10 => Then::Checkpoint,
            10..17 => Then::Restart,
            17..27 => Then::CheckpointAndRestart,
            _ => Then::GoOn,
        }
    }

    pub fn checkpoints(self) -> bool {
        matches!(self, Then::Checkpoint | Then::CheckpointAndRestart)
    }

    pub fn restarts(self) -> bool {
        matches!(self, Then::Restart | Then::CheckpointAndRestart)
    }
}

/// What the partitions hold so far.
struct Log {
    punctual: bool,
    /// Nanoseconds that records may be in disorder, if they are punctual.
    bound: i64,
    /// Most records of one partition and epoch.
    most: i32,
    partitions: i32,
    /// Event time, but for disorder.
    clock: i64,
    offsets: Vec<i64>,
    events: Vec<Event>,
}

impl Log {
    fn new(rng: &mut ChaCha8Rng, case: &Case, punctual: bool) -> Self {
        // Mostly in 1970, some of it before; and at either end of the type, running into it.
        let clock = match rng.random_range(0..10) {
            0 => -10 * SECOND,
            1 => i64::MIN + rng.random_range(0..20 * SECOND),
            2 => i64::MAX - rng.random_range(0..120 * SECOND),
            _ => 1_000 * SECOND,
        };
        let most = 2 + 40 / case.partitions;
        Self { punctual, bound: case.bound * SECOND, most, partitions: case.partitions, clock, offsets: vec![0; case.partitions as usize], events: vec![] }
    }

    /// What one epoch finds in a partition.
    fn some(&mut self, rng: &mut ChaCha8Rng, partition: i32, records: &mut Vec<Record>) {
        let count = match rng.random_range(0..4) {
            0 => 0,
            1 => rng.random_range(1..4),
            _ => rng.random_range(1..self.most),
        };
        for _ in 0..count {
            self.clock = self.clock.saturating_add(rng.random_range(0..SECOND / 4));
            let body = self.body(rng);
            self.push(partition, body, records, rng);
            // The producer sends again what it does not know to have arrived.
            if rng.random_bool(0.04)
                && let Some(event) = self.again(rng)
            {
                let partition = if rng.random_bool(0.5) { partition } else { rng.random_range(0..self.partitions) };
                self.push(partition, Body::Event(event), records, rng);
            }
        }
    }

    fn push(&mut self, partition: i32, body: Body, records: &mut Vec<Record>, rng: &mut ChaCha8Rng) {
        let next = &mut self.offsets[partition as usize];
        // Gaps in offsets are normal.
        let offset = *next + if rng.random_bool(0.1) { 2 } else { 0 };
        *next = offset + 1;
        records.push(Record { partition, offset, sent_ms: self.clock.div_euclid(1_000_000), body });
    }

    fn body(&mut self, rng: &mut ChaCha8Rng) -> Body {
        if rng.random_bool(0.03) {
            return Body::Bad(BAD[rng.random_range(0..BAD.len())]);
        }
        let id = self.events.len() as i64;
        if rng.random_bool(0.02) {
            // Just within what is allowed, just beyond, and anywhere.
            let allowed = self.clock.div_euclid(1_000_000).saturating_mul(1_000_000).saturating_add(MAX_SKEW);
            let stray = match rng.random_range(0..12) {
                0 if !self.punctual => allowed,
                0 | 1 => allowed.saturating_add(1),
                _ => STRAYS[rng.random_range(0..STRAYS.len())],
            };
            // Punctual ones only go astray where they end in $errors.
            if !self.punctual || i128::from(stray) > i128::from(allowed) {
                return Body::Event(Event::random(rng, id, stray));
            }
        }
        let disorder = match self.punctual {
            true => rng.random_range(0..self.bound.max(1)),
            false if rng.random_bool(0.1) => rng.random_range(0..40 * SECOND),
            false => rng.random_range(0..3 * SECOND),
        };
        let event = Event::random(rng, id, self.clock.saturating_sub(disorder));
        self.events.push(event.clone());
        Body::Event(event)
    }

    /// One of the last events, if it still is in time.
    fn again(&self, rng: &mut ChaCha8Rng) -> Option<Event> {
        let event = self.events[self.events.len().saturating_sub(50)..].choose(rng)?;
        (!self.punctual || event.ts > self.clock.saturating_sub(self.bound.max(1))).then(|| event.clone())
    }
}

/// As much as it takes to run it again by hand.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {} partitions, {} threads\n{};\n{};", self.seed, self.partitions, self.threads, self.source_sql(), self.view_sql())?;
        for (number, epoch) in self.epochs.iter().enumerate() {
            let caught_up = if epoch.caught_up { ", caught up" } else { "" };
            writeln!(f, "epoch {} at {} ms{caught_up}, then {:?}", number + 1, epoch.now_ms, epoch.then)?;
            for record in &epoch.records {
                let payload = record.payload();
                writeln!(f, "  {}/{} sent at {} ms: {}", record.partition, record.offset, record.sent_ms, String::from_utf8_lossy(&payload))?;
            }
        }
        Ok(())
    }
}
