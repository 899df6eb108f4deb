//! What views hold in memory, as the allocator counts it: a key of a windowed count, and a join and windows over an hour of events.

#![allow(clippy::unwrap_used)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tidegate::{
    catalog::{Definition, SourceDef},
    source::{RecordsBuilder, Slice},
    sql::{self, Statement},
    stream::{
        pipeline::{EpochCut, Pipeline},
        plan::{plan_view, standalone_state},
        published::Board,
        view::ViewRuntime,
    },
};

/// Bytes that are allocated now.
static LIVE: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: all is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size, Ordering::Relaxed);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test at a time: what another allocates would count.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn source(name: &str) -> Arc<SourceDef> {
    let text = format!(
        "CREATE SOURCE {name} (ts TIMESTAMP, k BIGINT, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
         WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = 'b:1', format = 'json')"
    );
    let Definition::Source(source) = sql::parse_definition(&text).unwrap() else { panic!("no source") };
    source
}

/// A pipeline over topics, and a view.
struct Running {
    board: Arc<Board>,
    pipeline: Pipeline,
    offsets: BTreeMap<String, i64>,
}

impl Running {
    async fn new(sources: &[Arc<SourceDef>], views: &[&str]) -> Self {
        let all: Vec<&SourceDef> = sources.iter().map(Arc::as_ref).collect();
        let (state, board) = (standalone_state(&all).unwrap(), Arc::new(Board::default()));
        let mut pipeline = Pipeline::new(sources.iter().cloned().zip(1..).collect(), board.clone(), 1).unwrap();
        for (at, view) in views.iter().enumerate() {
            let Statement::CreateContinuousView { def, .. } = sql::parse_one(&format!("CREATE CONTINUOUS VIEW v{at} AS {view}")).unwrap() else { panic!() };
            let plan = plan_view(&state, sql::parse_query(&def.query).unwrap(), def.emit, &def.options).await.unwrap();
            pipeline.attach(ViewRuntime::new(Arc::new(def), 10 + at as u64, Arc::new(plan), &all, BTreeMap::new(), 0).unwrap()).unwrap();
        }
        Self { board, pipeline, offsets: BTreeMap::new() }
    }

    /// An epoch of these rows (seconds since the hour, key) of each topic.
    async fn run(&mut self, topics: &[(&str, Vec<(i64, i64)>)]) {
        let mut slices = BTreeMap::new();
        for (topic, rows) in topics {
            let (mut builder, begin) = (RecordsBuilder::new(), self.offsets.get(*topic).copied().unwrap_or_default());
            for (at, (second, key)) in rows.iter().enumerate() {
                let time = chrono::DateTime::from_timestamp(1_700_000_000 + second, 0).unwrap().to_rfc3339();
                builder.push(begin + at as i64, None, None, Some(format!(r#"{{"ts":"{time}","k":{key}}}"#).as_bytes()), vec![]);
            }
            let end = begin + rows.len() as i64;
            self.offsets.insert(topic.to_string(), end);
            slices.insert(topic.to_string(), vec![Slice { partition: 0, begin, end, records: builder.finish() }]);
        }
        let epoch = self.pipeline.epoch() + 1;
        self.pipeline.run(&EpochCut { epoch, now_ms: 1_700_000_000_000 + epoch as i64 * 1000, slices, ..EpochCut::default() }).await.unwrap();
        let published = self.board.current();
        for view in published.views.values() {
            assert!(view.failure.is_none(), "{:?}", view.failure);
        }
    }
}

#[tokio::test]
async fn a_key_of_a_windowed_count_takes_less_than_a_hundred_bytes() {
    const KEYS: i64 = 200_000;
    let _alone = ALONE.lock().await;
    let counted = "SELECT window_start, k, count(*) AS n FROM TUMBLE(events, ts, INTERVAL '1 hour') GROUP BY window_start, k EMIT ON WINDOW CLOSE";
    let mut running = Running::new(&[source("events")], &[counted]).await;
    // What is allocated once for all is there after the first epoch.
    running.run(&[("events", vec![(0, -1)])]).await;
    let before = LIVE.load(Ordering::Relaxed);
    for first in (0..KEYS).step_by(20_000) {
        running.run(&[("events", (first..first + 20_000).map(|key| (1, key * 7919)).collect())]).await;
    }
    let held = LIVE.load(Ordering::Relaxed) - before;
    let view = &running.board.current().views["v0"];
    assert_eq!(view.state_rows as i64, KEYS + 1);
    // A window's start and a BIGINT.
    let key = 16;
    let each = held as f64 / KEYS as f64;
    println!("{each:.1} bytes a key of {key} bytes as the allocator counts, {:.1} as the view says", view.bytes as f64 / KEYS as f64);
    assert!(each < (100 + key) as f64, "{each} bytes a key");
    let told = view.bytes as f64 / held as f64;
    assert!((0.7..1.5).contains(&told), "the view says that it holds {}, the allocator counts {held}", view.bytes);
}

#[tokio::test]
async fn an_hour_of_events_leaves_the_state_flat() {
    let _alone = ALONE.lock().await;
    let joined = "SELECT l.ts, l.k, r.ts AS seen FROM clicks l LEFT JOIN shows r ON l.k = r.k AND r.ts BETWEEN l.ts - INTERVAL '20 seconds' AND l.ts";
    let views = [
        format!("SELECT count(*) AS n, count(seen) AS s FROM ({joined})"),
        "SELECT window_start, window_end, l.k, count(*) AS n FROM TUMBLE(clicks, ts, INTERVAL '1 minute') l GROUP BY window_start, window_end, l.k HAVING count(*) > 1000".into(),
        "SELECT window_start, count(*) AS n, max(k) AS m FROM HOP(shows, ts, INTERVAL '10 seconds', INTERVAL '1 minute') GROUP BY window_start HAVING count(*) > 5000".into(),
    ];
    let mut running = Running::new(&[source("clicks"), source("shows")], &views.each_ref().map(String::as_str)).await;
    let mut seen = vec![];
    for second in 0..3600 {
        let rows = |shift: i64| (0..20).map(|at| (second, (second * 13 + at * 7 + shift) % 500)).collect();
        running.run(&[("clicks", rows(0)), ("shows", rows(3))]).await;
        if second % 300 == 299 {
            let published = running.board.current();
            let keys: usize = published.views.values().map(|view| view.state_rows).sum();
            // Changes are kept for those who may come back: so long, and so many bytes of them, whatever comes.
            let kept: usize = published.views.values().map(|view| view.changes.held_bytes()).sum();
            seen.push((LIVE.load(Ordering::Relaxed).saturating_sub(kept), keys));
        }
    }
    println!("bytes and keys held every five minutes: {seen:?}");
    // By then the rings of the last epochs' figures and snapshots are full.
    let (early, late) = (seen[4], seen[11]);
    assert!(late.0 < early.0 + early.0 / 10, "{early:?} bytes and keys after 25 minutes, {late:?} after an hour");
    assert!(late.1 < early.1 + early.1 / 10, "{early:?} bytes and keys after 25 minutes, {late:?} after an hour");
}
