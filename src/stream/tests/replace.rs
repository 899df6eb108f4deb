//! Another definition takes a view's place while epochs go on: at each epoch the view is the batch answer of the definition that holds by then,
//! also for those who add up what they follow, and for views that read it.

use std::{collections::BTreeMap, sync::Arc};

use futures::FutureExt;
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    batch::{Bag, bag, same},
    check::{open, snapshot},
    follow::Followed,
    oracle::each_seed,
    relations::{self, DAY, Late, NEVER, Planner, Read, Row, SOURCES, Step, WorldView, pipeline, source, steps, view_def as view},
};
use crate::{
    catalog::ViewDef,
    source::{RecordsBuilder, Slice},
    stream::{
        decoding::Ahead,
        pipeline::{EpochCut, Pipeline},
        plan::ViewPlan,
        published::Board,
        replace::{Kept, compare, fingerprint, same_columns},
        view::ViewRuntime,
    },
};

/// Pairs of definitions, and how much must be kept between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    Whole,
    Part,
    Nothing,
}
use Must::{Nothing, Part, Whole};

const GROUPS: &str = "SELECT k, count(*) AS n, sum(x) AS s, max(f) AS m FROM a GROUP BY k";

/// What the operators below make of it, by hand: see each pair.
const PAIRS: &[(Must, &str, &str)] = &[
    // Names of the view's own columns.
    (Whole, GROUPS, "SELECT k AS kk, count(*) AS n, sum(x) AS t, max(f) AS m FROM a GROUP BY k"),
    // A projection, HAVING, and operators above what is there.
    (Part, GROUPS, "SELECT k, count(*) AS n, sum(x) + 1 AS s, max(f) AS m FROM a GROUP BY k"),
    (Part, GROUPS, "SELECT k, count(*) AS n, sum(x) AS s, max(f) AS m FROM a GROUP BY k HAVING count(*) > 1"),
    (
        Part,
        "SELECT k, count(*) AS n, sum(x) AS s FROM a GROUP BY k HAVING sum(x) > 3",
        "SELECT k, count(*) AS n, sum(x) AS s FROM a GROUP BY k HAVING sum(x) < 9",
    ),
    (Part, "SELECT k, count(*) AS n FROM a GROUP BY k", "SELECT n, count(*) AS c, max(k) AS k FROM (SELECT k, count(*) AS n FROM a GROUP BY k) GROUP BY n"),
    (Part, "SELECT k, sum(x) AS s FROM a GROUP BY k", "SELECT sum(s) AS s, count(*) AS c FROM (SELECT k, sum(x) AS s FROM a GROUP BY k)"),
    (Part, "SELECT k, sum(x) AS s FROM a GROUP BY k", "SELECT k, s, row_number() OVER (ORDER BY s, k) AS r FROM (SELECT k, sum(x) AS s FROM a GROUP BY k)"),
    (Part, "SELECT count(*) AS n, sum(x) AS s FROM a", "SELECT count(*) * 2 AS n, sum(x) AS s FROM a"),
    // What a join has given is in the view.
    (
        Part,
        "SELECT a.id AS id, b.id AS other, a.x AS x, b.x AS y FROM a JOIN b ON a.g = b.g",
        "SELECT id, other, x + y AS z FROM (SELECT a.id AS id, b.id AS other, a.x AS x, b.x AS y FROM a JOIN b ON a.g = b.g)",
    ),
    // Below a filter that goes is the operator that has all of it.
    (
        Part,
        "SELECT k, count(*) AS n, sum(x) AS s FROM a GROUP BY k HAVING count(*) > 0",
        "SELECT s, sum(n) AS c FROM (SELECT k, count(*) AS n, sum(x) AS s FROM a GROUP BY k) GROUP BY s",
    ),
    // Other aggregates, filters, keys, sources.
    (Nothing, GROUPS, "SELECT k, count(*) AS n, sum(x) AS s, min(f) AS m FROM a GROUP BY k"),
    (Nothing, GROUPS, "SELECT k, count(*) AS n, sum(x) AS s, max(f) AS m FROM a WHERE x > 2 GROUP BY k"),
    (Nothing, GROUPS, "SELECT k, count(*) AS n, sum(x) AS s, max(f) AS m FROM b GROUP BY k"),
    (Nothing, "SELECT g, sum(x) AS s FROM a WHERE x > 1 GROUP BY g", "SELECT g, sum(x) AS s FROM a WHERE x > 2 GROUP BY g"),
    (Nothing, "SELECT g, sum(x) AS s FROM a WHERE k = 'a' GROUP BY g", "SELECT g, sum(x) AS s FROM a WHERE k = 'b' GROUP BY g"),
    (Nothing, "SELECT id, x FROM a WHERE x > 1", "SELECT id, x FROM a WHERE x > 2"),
    // The state is there once and is needed twice.
    (
        Nothing,
        "SELECT k, count(*) AS n FROM a GROUP BY k HAVING count(*) > 1",
        "SELECT l.k AS k, r.n AS n FROM (SELECT k, count(*) AS n FROM a GROUP BY k) l JOIN (SELECT k, count(*) AS n FROM a GROUP BY k) r ON l.n = r.n",
    ),
];

fn defs(query: &str, emit: &str) -> Arc<ViewDef> {
    view(&format!("CREATE CONTINUOUS VIEW v WITH (unbounded_state = true) AS {query} EMIT {emit}"))
}

async fn planned(def: &ViewDef) -> Arc<ViewPlan> {
    Planner::new(NEVER).plan(def).await.unwrap()
}

fn must(kept: &Kept) -> Must {
    match kept {
        Kept::Whole => Whole,
        Kept::Part => Part,
        Kept::Nothing(_) => Nothing,
    }
}

#[tokio::test]
async fn what_is_kept_is_what_is_the_same() {
    let mut wrong = vec![];
    for (wanted, old, new) in PAIRS {
        let (before, after) = (planned(&defs(old, "CHANGES")).await, planned(&defs(new, "CHANGES")).await);
        let kept = compare(&before, &after).unwrap();
        if must(&kept) != *wanted {
            wrong.push(format!("{wanted:?} and not {kept:?}:\n{old}\n{new}"));
        }
        if let Kept::Nothing(reason) = &kept {
            assert!(
                reason.contains("it holds nothing for this operator: ") || reason.contains("it does not hold these rows of ") || reason.contains("twice"),
                "{reason}"
            );
        }
        // Planned again, it is the same again.
        assert_eq!(compare(&before, &*planned(&defs(old, "CHANGES")).await).unwrap(), Kept::Whole, "{old}");
        assert_eq!(compare(&before, &*planned(&defs(old, "EVERY INTERVAL '1 second'")).await).unwrap(), Kept::Whole, "{old}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Windows that have closed are in the view, and not in its operators.
#[tokio::test]
async fn closed_windows_are_kept_where_the_view_has_all_of_them() {
    let all = "SELECT window_start, k, count(*) AS n, sum(x) AS s FROM TUMBLE(a, ts, INTERVAL '10 seconds') GROUP BY window_start, k";
    let some = format!("{all} HAVING count(*) > 1");
    // The end is not in the view, and nobody asks for it.
    let start = all.replace("GROUP BY window_start,", "GROUP BY window_start, window_end,");
    let long = start.replace("sum(x) AS s", "sum(x) + 1 AS s, upper(k) AS u");
    let asked = start.replace("SELECT ", "SELECT window_end, ");
    let less = "SELECT window_start, k, count(*) AS n FROM TUMBLE(a, ts, INTERVAL '10 seconds') GROUP BY window_start, k";
    let longer = all.replace("10 seconds", "20 seconds");
    for emit in ["CHANGES", "ON WINDOW CLOSE"] {
        let plan = |query: &str| {
            let def = defs(query, emit);
            async move { planned(&def).await }
        };
        let compared = |old: Arc<ViewPlan>, new: Arc<ViewPlan>| must(&compare(&old, &new).unwrap());
        assert_eq!(compared(plan(all).await, plan(&some).await), Part, "{emit}");
        assert_eq!(compared(plan(&some).await, plan(all).await), Nothing, "{emit}");
        assert_eq!(compared(plan(&some).await, plan(&some).await), Whole, "{emit}");
        assert_eq!(compared(plan(&start).await, plan(&format!("{start} HAVING count(*) > 1")).await), Part, "{emit}");
        assert_eq!(compared(plan(&start).await, plan(&long).await), Part, "{emit}");
        assert_eq!(compared(plan(&long).await, plan(&start).await), Nothing, "{emit}");
        assert_eq!(compared(plan(&start).await, plan(&asked).await), Nothing, "{emit}");
        assert_eq!(compared(plan(&asked).await, plan(&start).await), Part, "{emit}");
        assert_eq!(compared(plan(all).await, plan(less).await), Nothing, "{emit}");
        assert_eq!(compared(plan(all).await, plan(&longer).await), Nothing, "{emit}");
    }
    // When windows close, and for how long they take rows, is part of what they are.
    let late = view(&format!("CREATE CONTINUOUS VIEW v AS {all} EMIT CHANGES ALLOW LATENESS INTERVAL '5 seconds'"));
    let close = defs(all, "ON WINDOW CLOSE");
    let changes = planned(&defs(all, "CHANGES")).await;
    assert_eq!(must(&compare(&changes, &*planned(&late).await).unwrap()), Nothing);
    assert_eq!(must(&compare(&changes, &*planned(&close).await).unwrap()), Nothing);
}

#[tokio::test]
async fn fingerprints_do_not_depend_on_what_was_planned_before() {
    // Common expressions and subqueries get numbered names.
    for query in [
        "SELECT g, sum((x + 1) * (x + 1)) AS s, count(*) FILTER (WHERE (x + 1) * (x + 1) > 4) AS n FROM a GROUP BY g",
        "SELECT id FROM a WHERE x > (SELECT max(x) FROM b)",
        "SELECT id FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.g = a.g)",
    ] {
        let planner = Planner::new(NEVER);
        let mut seen: Vec<String> = vec![];
        for name in ["v", "w", "z"] {
            let def = view(&format!("CREATE CONTINUOUS VIEW {name} WITH (unbounded_state = true) AS {query}"));
            seen.push(fingerprint(&planner.plan(&def).await.unwrap().physical).unwrap());
        }
        assert!(seen.iter().all(|text| *text == seen[0]), "{query}\n{seen:#?}");
    }
}

/// Each view's query as a batch over the sources' rows.
async fn batch(defs: &[Arc<ViewDef>], rows: &BTreeMap<&'static str, Vec<Row>>) -> Result<Vec<Bag>, String> {
    let views: Vec<WorldView> = defs.iter().map(|def| WorldView { text: def.text.clone(), batch: Some(def.query.clone()), on_close: false }).collect();
    let read = Read { rows: rows.clone(), ..Read::default() };
    Ok(relations::batch(&views, defs, &read, &vec![Late::new(); defs.len()]).await?.into_iter().flatten().collect())
}

/// A view that is replaced over and over, one that reads it, and one who follows it.
struct World {
    board: Arc<Board>,
    pipeline: Pipeline,
    rows: BTreeMap<&'static str, Vec<Row>>,
    def: Arc<ViewDef>,
    /// Its number.
    id: u64,
    followed: Followed,
    seen: BTreeMap<&'static str, usize>,
}

const ABOVE: &str = "CREATE CONTINUOUS VIEW above WITH (unbounded_state = true) AS SELECT n, count(*) AS c, sum(s) AS s FROM v GROUP BY n";

/// Definitions with the same columns, so that what reads the view goes on.
const SAME: &[&str] = &[
    "SELECT k, count(*) AS n, sum(x) AS s FROM a GROUP BY k",
    "SELECT k, count(*) AS n, sum(x) AS s FROM a GROUP BY k HAVING count(*) > 2",
    "SELECT k, count(*) AS n, sum(x) AS s FROM a GROUP BY k HAVING sum(x) > 3 AND k <> 'b'",
    "SELECT k, count(*) AS n, sum(x) AS s FROM b GROUP BY k",
    "SELECT k, count(*) AS n, sum(x) AS s FROM a WHERE x > 2 GROUP BY k",
    "SELECT max(k) AS k, n, sum(s) AS s FROM (SELECT k, count(*) AS n, sum(x) AS s FROM a GROUP BY k) GROUP BY n",
    "SELECT l.k AS k, l.n AS n, r.s AS s FROM (SELECT k, count(*) AS n, sum(x) AS s FROM a GROUP BY k) l
       LEFT JOIN (SELECT k, count(*) AS n, sum(x) AS s FROM b GROUP BY k) r ON l.k = r.k",
];

fn runtime(def: &Arc<ViewDef>, id: u64, plan: &Arc<ViewPlan>) -> ViewRuntime {
    let sources: Vec<_> = plan.inputs.keys().filter(|input| SOURCES.contains(&input.as_str())).map(|name| source(name, NEVER)).collect();
    let own: Vec<_> = sources.iter().map(Arc::as_ref).collect();
    ViewRuntime::new(def.clone(), id, plan.clone(), &own, BTreeMap::new(), 0).unwrap()
}

/// An epoch that brings rows behind those that were read.
fn cut(epoch: u64, rows: &BTreeMap<&'static str, Vec<Row>>, read: &mut BTreeMap<&'static str, Vec<Row>>) -> EpochCut {
    let mut slices = BTreeMap::new();
    for name in SOURCES {
        let (rows, read) = (rows.get(name).cloned().unwrap_or_default(), read.entry(name).or_default());
        let (begin, end) = (read.len() as i64, (read.len() + rows.len()) as i64);
        let mut builder = RecordsBuilder::new();
        rows.iter().zip(begin..).for_each(|(row, offset)| builder.push(offset, Some(DAY / 1_000_000), None, Some(&row.payload()), vec![]));
        if !rows.is_empty() {
            slices.insert(name.to_string(), vec![Slice { partition: 0, begin, end, records: builder.finish() }]);
        }
        read.extend(rows);
    }
    EpochCut { epoch, now_ms: DAY / 1_000_000 + epoch as i64 * 100, slices, ..EpochCut::default() }
}

async fn above(below: &ViewDef) -> ViewRuntime {
    let (planner, def) = (Planner::new(NEVER), view(ABOVE));
    planner.plan(below).await.unwrap();
    runtime(&def, 1000, &planner.plan(&def).await.unwrap())
}

impl World {
    async fn start(def: Arc<ViewDef>) -> Self {
        let board = Arc::new(Board::default());
        let mut pipeline = pipeline(&board, NEVER);
        pipeline.attach(runtime(&def, 1, &planned(&def).await)).unwrap();
        pipeline.attach(above(&def).await).unwrap();
        let followed = Followed::from(&board.current().views["v"], 0, &Bag::new());
        Self { board, pipeline, rows: BTreeMap::new(), def, id: 1, followed, seen: BTreeMap::new() }
    }

    /// Decodes what a step brings, before it is known what will have changed until then.
    fn ahead(&self, step: &Step) -> Ahead {
        self.pipeline.decode_ahead(&cut(self.pipeline.epoch() + 1, &step.rows, &mut self.rows.clone())).unwrap()
    }

    async fn step(&mut self, step: &Step, ahead: Option<Ahead>) -> Result<(), String> {
        let cut = cut(self.pipeline.epoch() + 1, &step.rows, &mut self.rows);
        self.pipeline.run_decoded(&cut, ahead).await.map_err(|e| e.to_string())?;
        let published = self.board.current();
        let defs = [self.def.clone(), view(ABOVE)];
        let wanted = batch(&defs, &self.rows).await?;
        for (def, wanted) in defs.iter().zip(&wanted) {
            let view = &published.views[&def.name];
            if let Some(failure) = &view.failure {
                return Err(format!("{} failed: {}", def.name, failure.reason));
            }
            same(&bag(snapshot(&view.contents)), wanted, [&def.name, "the batch answer"])?;
        }
        if published.views["v"].id != self.id {
            return Err("the swap was not made".into());
        }
        self.followed.take()?;
        same(&self.followed.rows(), &wanted[0], ["the follower", "the batch answer"])
    }

    /// Lets another definition take the view's place with the next epoch, by what is there or by what a pipeline of its own has read.
    async fn replace(&mut self, def: Arc<ViewDef>) -> Result<(), String> {
        let before = bag(snapshot(&self.board.current().views["v"].contents));
        let plan = planned(&def).await;
        self.id += 1;
        let kept = compare(&self.pipeline.views()["v"].plan, &plan).unwrap();
        let what = match must(&kept) {
            Whole => "whole",
            Part => "part",
            Nothing => "nothing",
        };
        *self.seen.entry(what).or_default() += 1;
        if what == "nothing" {
            let mut private = pipeline(&Arc::default(), NEVER);
            private.attach(runtime(&def, self.id, &plan)).unwrap();
            private.run(&cut(1, &self.rows, &mut BTreeMap::new())).await.map_err(|e| e.to_string())?;
            let view = private.take_view("v").unwrap();
            self.pipeline.follow_on(&private);
            self.pipeline.replace(view, false).map_err(|e| e.to_string())?;
        } else {
            self.pipeline.replace_keeping(runtime(&def, self.id, &plan), &kept).await.map_err(|e| e.to_string())?;
        }
        // Nobody sees anything of it before the next epoch, nor does a checkpoint.
        self.pipeline.publish();
        same(&bag(snapshot(&self.board.current().views["v"].contents)), &before, ["the view that is about to go", "what it was"])?;
        if self.pipeline.image().unwrap().meta["views"][self.id.to_string()].is_object() {
            return Err("a checkpoint before the swap holds the new view".into());
        }
        self.def = def;
        Ok(())
    }

    /// A new process that finds the last epoch.
    async fn restart(&mut self) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        open(folder.path()).await.write(self.pipeline.image().unwrap()).await.unwrap();
        let mut restored = open(folder.path()).await.newest().await.unwrap().unwrap();
        self.pipeline = pipeline(&self.board, NEVER);
        self.pipeline.restore(&mut restored).map_err(|e| e.to_string())?;
        for mut view in [runtime(&self.def, self.id, &planned(&self.def).await), above(&self.def).await] {
            if !view.restore(&mut restored).map_err(|e| e.to_string())? {
                return Err(format!("the checkpoint does not know {}", view.def.name));
            }
            self.pipeline.attach(view).map_err(|e| e.to_string())?;
        }
        let view = &self.board.current().views["v"];
        self.followed = Followed::from(view, self.pipeline.epoch(), &bag(snapshot(&view.contents)));
        Ok(())
    }
}

async fn replaced_at_random(seed: u64) -> Result<BTreeMap<&'static str, usize>, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let any = |rng: &mut ChaCha8Rng| defs(SAME.choose(rng).unwrap(), "CHANGES");
    let mut world = World::start(any(&mut rng)).await;
    for step in steps(&mut rng, 9) {
        let ahead = rng.random_bool(0.5).then(|| world.ahead(&step));
        if rng.random_bool(0.5) {
            let def = any(&mut rng);
            world.replace(def.clone()).await.map_err(|e| format!("{}: {e}", def.query))?;
        }
        let query = world.def.query.clone();
        world.step(&step, ahead).await.map_err(|e| format!("epoch {}, {query}: {e}", world.pipeline.epoch()))?;
        if step.restart {
            world.restart().await.map_err(|e| format!("restart, {query}: {e}"))?;
        }
    }
    Ok(world.seen)
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_view_that_is_replaced_is_at_each_epoch_what_its_definition_says() {
    let seen = Mutex::new(BTreeMap::<&str, usize>::new());
    let seeds = each_seed(300, |seed| {
        let ways = wait(replaced_at_random(seed)).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        ways.into_iter().for_each(|(way, times)| *seen.lock().entry(way).or_default() += times);
    });
    let seen = seen.into_inner();
    println!("{seeds} worlds; how much was kept: {seen:?}");
    if seeds >= 300 {
        assert!(["whole", "part", "nothing"].iter().all(|way| seen.get(way).is_some_and(|times| *times > 30)), "{seen:?}");
    }
}

/// Each pair once, also those with other columns, over random rows before and after.
#[test]
fn what_is_kept_goes_on_as_if_it_had_been_read() {
    for (wanted, old, new) in PAIRS {
        for seed in 0..6 {
            let outcome = wait(async {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                let board = Arc::new(Board::default());
                let mut pipeline = pipeline(&board, NEVER);
                let (before, after) = (defs(old, "CHANGES"), defs(new, "CHANGES"));
                let (old_plan, new_plan) = (planned(&before).await, planned(&after).await);
                pipeline.attach(runtime(&before, 1, &old_plan)).unwrap();
                let mut follower = board.current().views["v"].changes.follow();
                let mut rows = BTreeMap::new();
                let all = steps(&mut rng, 8);
                for (at, step) in all.iter().enumerate() {
                    if at == all.len() / 2 {
                        match compare(&old_plan, &new_plan).unwrap() {
                            Kept::Nothing(_) => return Ok(()),
                            kept => pipeline.replace_keeping(runtime(&after, 2, &new_plan), &kept).await.map_err(|e| e.to_string())?,
                        }
                    }
                    pipeline.run(&cut(pipeline.epoch() + 1, &step.rows, &mut rows)).await.map_err(|e| e.to_string())?;
                    let def = if at < all.len() / 2 { &before } else { &after };
                    let view = &board.current().views["v"];
                    same(&bag(snapshot(&view.contents)), &batch(std::slice::from_ref(def), &rows).await?[0], ["the view", "the batch answer"])?;
                }
                // Whoever followed goes on, or is told why not.
                let ended = loop {
                    match follower.next(pipeline.epoch()).now_or_never() {
                        Some(Err(error)) => break Some(error.to_string()),
                        Some(Ok(_)) => {}
                        None => break None,
                    }
                };
                match (ended, same_columns(&old_plan.schema, &new_plan.schema)) {
                    (None, true) => Ok(()),
                    (Some(reason), false) if reason.contains("has other columns now: subscribe again") => Ok(()),
                    (ended, _) => Err(format!("followers were told {ended:?}")),
                }
            });
            outcome.unwrap_or_else(|e: String| panic!("{wanted:?}, seed {seed}: {old}\n{new}\n{e}"));
        }
    }
}

/// A definition that fails in its first epoch takes nobody's place.
#[test]
fn one_that_fails_leaves_the_old_one() {
    wait(async {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut world = World::start(defs(SAME[0], "CHANGES")).await;
        let row = |x: i64| Row { x: Some(x), k: Some("a"), ..Row::random(&mut rng.clone(), 1) };
        let step = |rows: Vec<Row>| Step { rows: BTreeMap::from([("a", rows)]), ..Step::default() };
        world.step(&step(vec![row(1), row(2)]), None).await.unwrap();
        // Fails where it is computed from what is there.
        let over_nothing = defs("SELECT k, count(*) AS n, sum(x) / (count(*) - 2) AS s FROM a GROUP BY k", "CHANGES");
        let (def, id) = (world.def.clone(), world.id);
        assert!(world.replace(over_nothing).await.unwrap_err().contains("ivide by zero"));
        (world.def, world.id) = (def.clone(), id);
        world.step(&step(vec![]), None).await.unwrap();
        // Fails with what its first epoch brings.
        let later = defs("SELECT k, count(*) AS n, sum(x) / (count(*) - 3) AS s FROM a GROUP BY k", "CHANGES");
        world.replace(later).await.unwrap();
        let refused = world.id;
        (world.def, world.id) = (def, id);
        world.step(&step(vec![row(4)]), None).await.unwrap();
        assert!(world.pipeline.take_refusal(refused).unwrap().contains("ivide by zero"));
        assert_eq!(world.pipeline.take_refusal(refused), None);
        world.step(&step(vec![row(5)]), None).await.unwrap();
        // And it can be replaced after that.
        world.replace(defs(SAME[2], "CHANGES")).await.unwrap();
        world.step(&step(vec![row(6), row(7)]), None).await.unwrap();
        let _ = rng.random_bool(0.5);
    });
}

/// What `EMIT EVERY` has not told yet is told with the swap.
#[test]
fn emit_every_tells_what_was_pending() {
    wait(async {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        for (old, new, emit) in [(SAME[0], SAME[0], "CHANGES"), (SAME[0], SAME[1], "CHANGES"), (SAME[0], SAME[1], "EVERY INTERVAL '2 hours'")] {
            let board = Arc::new(Board::default());
            let mut pipeline = pipeline(&board, NEVER);
            let (before, after) = (defs(old, "EVERY INTERVAL '1 hour'"), defs(new, emit));
            let (old_plan, new_plan) = (planned(&before).await, planned(&after).await);
            pipeline.attach(runtime(&before, 1, &old_plan)).unwrap();
            let mut followed = Followed::from(&board.current().views["v"], 0, &Bag::new());
            let mut rows = BTreeMap::new();
            for (at, step) in steps(&mut rng, 9).into_iter().take(3).enumerate() {
                if at == 2 {
                    let shown = bag(snapshot(&board.current().views["v"].contents));
                    followed.take().unwrap();
                    same(&followed.rows(), &shown, ["the follower", "the view"]).unwrap();
                    let kept = compare(&old_plan, &new_plan).unwrap();
                    pipeline.replace_keeping(runtime(&after, 2, &new_plan), &kept).await.unwrap();
                }
                pipeline.run(&cut(pipeline.epoch() + 1, &step.rows, &mut rows)).await.unwrap();
            }
            followed.take().unwrap();
            let wanted = &batch(&[after], &rows).await.unwrap()[0];
            same(&bag(snapshot(&board.current().views["v"].contents)), wanted, ["the view", "the batch answer"]).unwrap();
            same(&followed.rows(), wanted, ["the follower", "the batch answer"]).unwrap();
        }
    });
}
