//! Batch equivalence: at every epoch each view equals the same query run as a batch over the records read so far, less the late and
//! the bad ones; one that emits on window close equals that answer restricted to windows that the watermark has passed. Data,
//! disorder, duplicates, partitions, cuts, lateness, quiet times, restarts are random. A failure is made small and printed in full.
//!
//! `TIDEGATE_SEEDS` says how many seeds each test takes, `TIDEGATE_FIRST_SEED` where it begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::{array::AsArray, datatypes::Int64Type};
use parking_lot::Mutex;

use super::{
    batch::same,
    case::Case,
    check::{Seen, outcome, snapshot},
    mutants::Mutant,
    shrink::shrink,
    views::VIEWS,
};
use crate::{
    catalog::{Definition, Emit},
    source::{RecordsBuilder, Slice},
    sql::{self, Statement},
    stream::{
        pipeline::{EpochCut, Pipeline},
        plan::{plan_view, standalone_state},
        published::Board,
        view::ViewRuntime,
    },
};

/// Runs something for each seed, on as many threads as the machine has.
pub fn each_seed(default: u64, run: impl Fn(u64) + Sync) -> u64 {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    let (first, seeds) = (number("TIDEGATE_FIRST_SEED").unwrap_or(0), number("TIDEGATE_SEEDS").unwrap_or(default));
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let seed = next.fetch_add(1, Ordering::Relaxed)
                    && seed < first + seeds
                {
                    run(seed);
                }
            });
        }
    });
    seeds
}

/// Runs a case. If it fails, it is made small and printed.
fn passes(case: Case) -> Seen {
    outcome(&case).unwrap_or_else(|first| {
        let seed = case.seed;
        let small = shrink(case, |case| outcome(case).is_err());
        panic!("seed {seed} fails: {first}\n\nsmaller, it fails with: {}\n{small}", outcome(&small).err().unwrap_or_default())
    })
}

/// Windows, emission, lateness: what a default run must have had all of.
fn setting(case: &Case) -> (&'static str, &'static str, &'static str) {
    let emission = match case.emit {
        Emit::Changes => "CHANGES",
        Emit::OnWindowClose => "ON WINDOW CLOSE",
        Emit::Every(_) => "EVERY",
    };
    let lateness = match case.lateness {
        0 => "no lateness",
        1..5 => "below 5 s",
        _ => "5 s or more",
    };
    (case.view.windows.kind(), emission, lateness)
}

fn all_settings() -> BTreeSet<(&'static str, &'static str, &'static str)> {
    let mut all = BTreeSet::from([("none", "CHANGES", "no lateness"), ("none", "EVERY", "no lateness")]);
    for windows in ["TUMBLE", "HOP", "CUMULATE", "SESSION"] {
        for emission in ["CHANGES", "ON WINDOW CLOSE", "EVERY"] {
            all.extend(["no lateness", "below 5 s", "5 s or more"].map(|lateness| (windows, emission, lateness)));
        }
    }
    all
}

#[derive(Default)]
struct Totals {
    epochs: usize,
    late: usize,
    bad: usize,
    quiet: usize,
    restarts: usize,
    settings: BTreeMap<(&'static str, &'static str, &'static str), usize>,
}

#[test]
fn every_epoch_equals_the_batch_answer() {
    let totals = Mutex::new(Totals::default());
    let seeds = each_seed(Case::ALL_SETTINGS, |seed| {
        let case = Case::random(seed);
        let setting = setting(&case);
        let seen = passes(case);
        let mut totals = totals.lock();
        totals.epochs += seen.epochs;
        totals.late += seen.late.len();
        totals.bad += seen.bad.len();
        totals.quiet += seen.quiet;
        totals.restarts += seen.restarts;
        *totals.settings.entry(setting).or_default() += 1;
    });
    let Totals { epochs, late, bad, quiet, restarts, settings } = totals.into_inner();
    println!("{epochs} epochs of {seeds} seeds equal the batch answer; {late} late rows, {bad} bad records, {quiet} quiet times, {restarts} restarts");
    settings.iter().for_each(|((windows, emission, lateness), cases)| println!("{windows:>10} {emission:>16} {lateness:>12} {cases:>5} cases"));
    if seeds >= Case::ALL_SETTINGS {
        assert!(late > 100 && bad > 100 && quiet > 5 && restarts > 20, "the data had too little in it to show anything");
        assert_eq!(settings.into_keys().collect::<BTreeSet<_>>(), all_settings());
    }
}

/// Windows at both ends of what a timestamp holds, and those that lie beyond: no panic, and no row is lost.
#[test]
fn windows_at_the_ends_of_time_equal_the_batch_answer() {
    let beyond = AtomicU64::new(0);
    let seeds = each_seed(Case::ALL_SETTINGS, |seed| {
        let seen = passes(Case::at_the_ends(seed));
        // A NULL stands first where the view's first column is a bound.
        beyond.fetch_add(seen.contents.keys().filter(|row| row.starts_with('∅')).count() as u64, Ordering::Relaxed);
    });
    assert!(seeds < 100 || beyond.into_inner() > 20, "too few rows lay beyond the last window");
}

/// Where no record is late, it does not matter where epochs are cut and when the process dies.
#[test]
fn other_cuts_end_with_the_same() {
    let restarts = AtomicU64::new(0);
    let seeds = each_seed(2 * VIEWS.len() as u64, |seed| {
        let case = Case::punctual(seed);
        let (one, other) = (case.recut(2 * seed), case.recut(2 * seed + 1));
        let ends = [passes(one.clone()), passes(other.clone())];
        let [a, b] = &ends;
        let whose = ["the first", "the second"];
        let differ = same(&a.contents, &b.contents, whose).and_then(|_| same(&a.followed, &b.followed, whose)).err();
        assert!(differ.is_none() && a.bad == b.bad && a.late.is_empty() && b.late.is_empty(), "{differ:?}, {:?}, {:?}\n{one}\n{other}", a.late, b.late);
        restarts.fetch_add((a.restarts + b.restarts) as u64, Ordering::Relaxed);
    });
    assert!(seeds < 20 || restarts.into_inner() > 20, "there were too few restarts to show anything");
}

/// The suite finds what it is there to find: with each of these faults in the engine some seed fails, and is made small.
#[test]
fn every_mutant_is_found_and_made_small() {
    for mutant in Mutant::ALL {
        let _on = mutant.on();
        let Some(case) = (0..Case::ALL_SETTINGS).map(Case::random).find(|case| outcome(case).is_err()) else { panic!("{mutant:?} was not found") };
        let seed = case.seed;
        let before = case.records();
        let small = shrink(case, |case| outcome(case).is_err());
        println!("{mutant:?}: seed {seed}, {before} records, fails with: {}\n{small}", outcome(&small).err().unwrap_or_default());
        assert!(small.records() <= 4 && small.epochs.len() <= 4 && small.partitions <= 2, "{mutant:?} stayed large:\n{small}");
    }
}

/// A view that fails stands still at its last epoch; its neighbours go on.
#[tokio::test]
async fn a_failing_view_rolls_back_and_leaves_its_neighbours_alone() {
    let Definition::Source(source) = sql::parse_definition(
        "CREATE SOURCE events (id BIGINT, ts TIMESTAMP, x BIGINT, WATERMARK FOR ts AS ts) WITH (connector = 'kafka', topic = 't', 'bootstrap.servers' = 'b:1', format = 'json')",
    )
    .unwrap() else {
        panic!("no source")
    };
    let board = Arc::new(Board::default());
    let mut pipeline = Pipeline::new(vec![(source.clone(), 1)], board.clone(), 1).unwrap();
    for (id, (name, expression)) in [("good", "sum(x)"), ("bad", "10 / sum(x)")].into_iter().enumerate() {
        let text = format!(
            "CREATE CONTINUOUS VIEW {name} AS SELECT window_start, {expression} AS v FROM TUMBLE(events, ts, INTERVAL '10 seconds') GROUP BY window_start EMIT CHANGES"
        );
        let Statement::CreateContinuousView { def, .. } = sql::parse_one(&text).unwrap() else { panic!("no view") };
        let state = standalone_state(&[&source]).unwrap();
        let plan = plan_view(&state, sql::parse_query(&def.query).unwrap(), def.emit, &def.options).await.unwrap();
        pipeline.attach(ViewRuntime::new(Arc::new(def), id as u64, Arc::new(plan), &[&source], BTreeMap::new(), 0).unwrap()).unwrap();
    }
    for (epoch, x) in [5, -5, 7].into_iter().enumerate() {
        let mut builder = RecordsBuilder::new();
        builder.push(epoch as i64, Some(0), None, Some(format!("{{\"id\":1,\"ts\":\"1970-01-01T00:00:01Z\",\"x\":{x}}}").as_bytes()), vec![]);
        let slice = Slice { partition: 0, begin: epoch as i64, end: epoch as i64 + 1, records: builder.finish() };
        let cut = EpochCut { epoch: epoch as u64 + 1, now_ms: 0, slices: BTreeMap::from([("events".into(), vec![slice])]), ..EpochCut::default() };
        pipeline.run(&cut).await.unwrap();
    }
    let published = board.current();
    let value = |name: &str| {
        snapshot(&published.views[name].contents).iter().flat_map(|b| b.column(1).as_primitive::<Int64Type>().values().to_vec()).collect::<Vec<_>>()
    };
    assert_eq!(value("good"), [7]);
    assert_eq!(value("bad"), [2], "the failed view stands at epoch 1");
    let failure = published.views["bad"].failure.clone().unwrap();
    assert_eq!(failure.epoch, 2);
    assert!(failure.reason.to_lowercase().contains("divide by zero"), "{}", failure.reason);
}
