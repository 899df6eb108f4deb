//! Plans as bytes. Every plan that a test makes goes through them (`plan.rs`), so that the comparisons with batches are made of plans that
//! have been read; here is that such plans show the same in every field, that no operator is left out, and what can't be written or read.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::{
    common::tree_node::{Transformed, TreeNode},
    execution::{SessionState, TaskContext},
    physical_expr::expressions::Column,
    physical_plan::{ExecutionPlan, displayable, empty::EmptyExec, sorts::partial_sort::PartialSortExec, union::UnionExec},
};

use crate::{
    catalog::{Definition, SourceDef, ViewDef},
    sql::{self, Statement},
    stream::{
        codec::{EpochCodec, operators},
        epoch_log::EpochEntry,
        plan::{ViewPlan, plan_view, standalone_state},
    },
};

/// Looks at a plan that was read. To write all fields of all plans of the random worlds down would take longer than to run them: some do.
pub fn look(written: &Arc<dyn ExecutionPlan>, read: &Arc<dyn ExecutionPlan>) {
    static PLANS: AtomicU64 = AtomicU64::new(0);
    if LOOK_AT_ALL.get() || PLANS.fetch_add(1, Ordering::Relaxed).is_multiple_of(8) {
        assert_same(written, read);
    }
}

thread_local! {
    static LOOK_AT_ALL: Cell<bool> = const { Cell::new(false) };
}

/// A plan that was read is the one that was written, in every field that it shows.
fn assert_same(written: &Arc<dyn ExecutionPlan>, read: &Arc<dyn ExecutionPlan>) {
    // A union that is made anew sees to it that its inputs agree on which columns may be NULL; the optimizer may have taken that out.
    let anew = |plan: Arc<dyn ExecutionPlan>| match plan.is::<UnionExec>() {
        true => Ok(Transformed::yes(UnionExec::try_new(plan.children().into_iter().cloned().collect())?)),
        false => Ok(Transformed::no(plan)),
    };
    let written = written.clone().transform_up(anew).unwrap().data;
    // Says nothing where there is nothing to partition by, and is not to be had there.
    let [written, read] = [&written, read].map(|plan| format!("{plan:#?}").replace("can_repartition: true", "can_repartition: false"));
    // Sets and maps have no order.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_string()).collect();
        lines.sort_unstable();
        lines
    };
    if written != read && sorted(&written) != sorted(&read) {
        let differ = written.lines().zip(read.lines()).enumerate().find(|(_, (written, read))| written != read);
        let at = differ.map_or(0, |(line, _)| line);
        let around = |text: &str| text.lines().skip(at.saturating_sub(30)).take(45).collect::<Vec<_>>().join("\n");
        panic!("a plan is another one when it has been bytes, written:\n{}\n\nread:\n{}", around(&written), around(&read));
    }
}

fn sources() -> [Arc<SourceDef>; 3] {
    let source = |name: &str, key: &str| {
        let text = format!(
            "CREATE SOURCE {name} (id BIGINT, ts TIMESTAMP, k TEXT, x BIGINT, f DOUBLE, l BIGINT ARRAY{key}, WATERMARK FOR ts AS ts - INTERVAL '5 seconds')
             WITH (connector = 'kafka', topic = '{name}', 'bootstrap.servers' = 'b:1', format = 'json')"
        );
        match sql::parse_definition(&text).unwrap() {
            Definition::Source(def) => def,
            other => panic!("no source: {other:?}"),
        }
    };
    [source("a", ""), source("b", ""), source("t", ", PRIMARY KEY (id)")]
}

fn state() -> SessionState {
    standalone_state(&sources().each_ref().map(Arc::as_ref)).unwrap()
}

async fn plan(text: &str) -> ViewPlan {
    let options = if text.starts_with("WITH (") { "" } else { "WITH (unbounded_state = true) AS" };
    let text = format!("CREATE CONTINUOUS VIEW v {options} {text}");
    let def: ViewDef = match sql::parse_one(&text).unwrap_or_else(|e| panic!("{text}: {e}")) {
        Statement::CreateContinuousView { def, .. } => def,
        other => panic!("no view: {other:?}"),
    };
    plan_view(&state(), sql::parse_query(&def.query).unwrap(), def.emit, &def.options).await.unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// What the operators can be told, each in some query.
const QUERIES: &[&str] = &[
    "SELECT id, k, x * 2 AS y FROM a WHERE x % 3 = 0 OR k IS NULL EMIT CHANGES",
    "SELECT id, unnest(l) AS e FROM a EMIT CHANGES",
    "SELECT id FROM a WHERE k LIKE 'p%' AND x IN (1, 2, 3) AND CASE WHEN f > 0.5 THEN k ELSE upper(k) END <> 'Q' UNION ALL SELECT id FROM b EMIT CHANGES",
    "SELECT k, count(*) AS c, sum(x) FILTER (WHERE f > 0) AS s, count(DISTINCT x) AS d, min(f) AS mn, max(k) AS mx,
       first_value(id ORDER BY x DESC NULLS LAST) AS fv, array_agg(x) AS xs, string_agg(k, '-' ORDER BY k) AS sa, approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY f) AS p,
       first_value(x) IGNORE NULLS AS fx FROM a GROUP BY k EMIT CHANGES",
    "SELECT count(*) AS c, avg(f) AS a FROM a EMIT CHANGES",
    "SELECT window_start, k, count(*) AS c FROM TUMBLE(a, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, k EMIT ON WINDOW CLOSE ALLOW LATENESS INTERVAL '3 seconds'",
    "SELECT window_end, count(*) AS c FROM HOP(a, ts, INTERVAL '4 seconds', INTERVAL '10 seconds') GROUP BY window_end EMIT ON WINDOW CLOSE CLOSE NEVER",
    "SELECT window_start, window_end, sum(x) AS s FROM CUMULATE(a, ts, INTERVAL '5 seconds', INTERVAL '20 seconds') GROUP BY window_start, window_end EMIT CHANGES",
    "SELECT window_start, window_end, k, count(*) AS c FROM SESSION(a PARTITION BY k, ts, INTERVAL '3 seconds') GROUP BY window_start, window_end, k EMIT ON WINDOW CLOSE",
    "SELECT k, x, count(*) AS c, grouping(k) AS g FROM a GROUP BY GROUPING SETS ((k, x), (k), ()) EMIT CHANGES",
    "SELECT c, max(k) AS k, sum(c) AS s FROM (SELECT k, count(*) AS c FROM a GROUP BY k) GROUP BY c EMIT CHANGES",
    "SELECT l.id, r.k FROM a AS l JOIN b AS r ON l.k = r.k AND l.x < r.x AND r.ts BETWEEN l.ts - INTERVAL '4 seconds' AND l.ts + INTERVAL '6 seconds' EMIT CHANGES",
    "SELECT l.id, r.id AS rid FROM a AS l FULL JOIN b AS r ON l.x = r.f AND l.ts = r.ts EMIT CHANGES ALLOW LATENESS INTERVAL '3 seconds'",
    "SELECT id FROM a WHERE k NOT IN (SELECT k FROM b) EMIT CHANGES",
    "SELECT id FROM a WHERE x > 3 OR EXISTS (SELECT 1 FROM b WHERE b.k = a.k) EMIT CHANGES",
    "SELECT k, x FROM a INTERSECT SELECT k, x FROM b EMIT CHANGES",
    "SELECT l.window_start, l.c, r.c AS rc FROM (SELECT window_start, count(*) AS c FROM TUMBLE(a, ts, INTERVAL '10 seconds') GROUP BY window_start) AS l
       JOIN (SELECT window_start, count(*) AS c FROM TUMBLE(a, ts, INTERVAL '10 seconds') GROUP BY window_start) AS r ON l.window_start = r.window_start EMIT ON WINDOW CLOSE",
    "SELECT a.id, v.n FROM a JOIN (VALUES ('p', 1), ('q', 2)) AS v (k, n) ON a.k = v.k EMIT CHANGES",
    "SELECT id, ts FROM a WHERE ts > now() - INTERVAL '5 minutes' AND ts <= now() + INTERVAL '1 second' EMIT CHANGES",
    "SELECT k, count(*) AS c FROM t GROUP BY k EMIT CHANGES",
    "SELECT id, proctime() AS p FROM a EMIT CHANGES",
    "SELECT * FROM (SELECT DISTINCT ON (k) k, id, x FROM a ORDER BY k, x DESC, id) EMIT CHANGES",
    "SELECT * FROM (SELECT id, x FROM a ORDER BY x DESC NULLS LAST, id LIMIT 3 OFFSET 1) EMIT CHANGES",
    "SELECT * FROM (SELECT k, id, row_number() OVER (PARTITION BY k ORDER BY x DESC, id) AS r FROM a) WHERE r <= 2 EMIT CHANGES",
    "SELECT id, rank() OVER w AS r, dense_rank() OVER w AS d, ntile(3) OVER w AS n, percent_rank() OVER w AS p, cume_dist() OVER w AS c FROM a WINDOW w AS (PARTITION BY k ORDER BY x, id) EMIT CHANGES",
    "SELECT id, lag(x, 2, -1) OVER w AS l, lead(x) IGNORE NULLS OVER w AS n, nth_value(x, 2) OVER w AS v, first_value(x) IGNORE NULLS OVER w AS f, last_value(x) OVER w AS la
       FROM a WINDOW w AS (PARTITION BY k ORDER BY ts DESC, id) EMIT CHANGES",
    "SELECT id, lag(x) OVER (PARTITION BY k ORDER BY id) AS l, lag(x) OVER (PARTITION BY k ORDER BY id DESC) AS m, first_value(x) OVER (PARTITION BY k ORDER BY id DESC ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS f
       FROM a EMIT CHANGES",
    "SELECT id, count(*) FILTER (WHERE x > 2) OVER (PARTITION BY k ORDER BY id) AS c, sum(x) FILTER (WHERE f > 0) OVER (PARTITION BY k ORDER BY id ROWS BETWEEN 2 PRECEDING AND 1 FOLLOWING) AS s,
       max(f) OVER (PARTITION BY k) AS m, avg(x) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '5 seconds' PRECEDING AND CURRENT ROW) AS a,
       count(x) OVER (PARTITION BY k ORDER BY x GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW) AS g, sum(x) OVER (PARTITION BY k ORDER BY id ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS rest
       FROM a EMIT CHANGES",
    "SELECT window_start, id, rank() OVER (PARTITION BY window_start ORDER BY x DESC) AS r FROM TUMBLE(a, ts, INTERVAL '10 seconds') EMIT CHANGES",
    "SELECT k, c, max(c) OVER () AS m FROM (SELECT k, count(*) AS c FROM a GROUP BY k) EMIT CHANGES",
    "WITH (state_ttl = '1 hour', retention = '1 day') AS SELECT k, count(*) AS c FROM a GROUP BY k EMIT CHANGES",
    "WITH (state_ttl = '1 hour') AS SELECT DISTINCT ON (k) k, id FROM a ORDER BY k, id EMIT CHANGES",
    "WITH (state_ttl = '1 hour') AS SELECT l.id, r.k FROM a AS l JOIN b AS r ON l.k = r.k EMIT CHANGES",
    "SELECT a.id, r.x FROM a LEFT JOIN t FOR SYSTEM_TIME AS OF a.ts AS r ON a.id = r.id AND r.x > a.x EMIT CHANGES ALLOW LATENESS INTERVAL '2 seconds'",
];

fn names(plan: &Arc<dyn ExecutionPlan>, into: &mut BTreeSet<String>) {
    into.insert(plan.name().to_string());
    plan.children().into_iter().for_each(|child| names(child, into));
}

#[tokio::test]
async fn every_operator_comes_back() {
    let mut seen = BTreeSet::new();
    LOOK_AT_ALL.set(true);
    for query in QUERIES {
        let plan = plan(query).await;
        let codec = EpochCodec::new(plan.tables.clone());
        let bytes = codec.encode(&plan.physical).unwrap();
        let read = codec.decode(&bytes, &state().task_ctx()).unwrap_or_else(|e| panic!("{query}: {e}"));
        let shown = |plan: &Arc<dyn ExecutionPlan>| displayable(plan.as_ref()).indent(true).to_string();
        assert_eq!(shown(&read), shown(&plan.physical), "{query}");
        assert_eq!(codec.encode(&read).unwrap(), bytes, "{query}");
        assert_same(&plan.physical, &read);
        names(&plan.physical, &mut seen);
        seen.extend(["WindowFunctions".to_string()].into_iter().filter(|name| String::from_utf8_lossy(&bytes).contains(name)));
    }
    for operator in operators() {
        assert!(seen.contains(operator), "no query has a {operator}");
    }
}

/// Whoever adds an operator gives it a form.
#[test]
fn every_operator_of_the_sources_has_a_form() {
    fn rust_files(folder: &Path, into: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                rust_files(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                into.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut files = vec![];
    rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/stream"), &mut files);
    let implemented = concat!("impl ExecutionPlan", " for ");
    let found: BTreeSet<&str> = files
        .iter()
        .flat_map(|text| text.split(implemented).skip(1))
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default())
        .collect();
    assert!(found.contains("SliceExec"), "the sources were not found: {found:?}");
    // Window functions are DataFusion's operators.
    let have: BTreeSet<&str> = operators().filter(|name| *name != "WindowFunctions").collect();
    assert_eq!(found, have, "operators of the sources, and those that codec::OPERATORS has a form for");
}

#[tokio::test]
async fn what_can_not_be_read_is_told() {
    let plan =
        plan("SELECT a.id, a.window_start FROM TUMBLE(a, ts, INTERVAL '1 minute') AS a JOIN (VALUES ('p', 1)) AS v (k, n) ON a.k = v.k EMIT CHANGES").await;
    let codec = EpochCodec::new(plan.tables.clone());
    let bytes = codec.encode(&plan.physical).unwrap();
    let state = state();
    let told = |codec: &EpochCodec, bytes: &[u8], context: &TaskContext| codec.decode(bytes, context).unwrap_err().to_string();
    assert!(told(&EpochCodec::default(), &bytes, &state.task_ctx()).contains("which is not known here"), "the table is missing");
    assert!(told(&codec, &bytes, &TaskContext::default()).contains("__window_start"), "the function is missing");
    for cut in [1, bytes.len() / 3, bytes.len() - 1] {
        assert!(codec.decode(&bytes[..cut], &state.task_ctx()).is_err(), "{cut} of {} bytes were a plan", bytes.len());
    }
    let place = bytes.windows(9).position(|bytes| bytes == b"SliceExec").unwrap();
    let mut other = bytes.clone();
    other[place..place + 9].copy_from_slice(b"SpliceExe");
    assert!(told(&codec, &other, &state.task_ctx()).contains("an operator that this version does not know"));
}

#[test]
fn what_can_not_be_written_is_told() {
    let schema = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let order = [Arc::new(Column::new("x", 0)) as Arc<dyn datafusion::physical_expr::PhysicalExpr>]
        .map(|expr| datafusion::physical_expr::PhysicalSortExpr { expr, options: Default::default() });
    let plan: Arc<dyn ExecutionPlan> = Arc::new(PartialSortExec::new(order.into(), Arc::new(EmptyExec::new(schema)), 1));
    let told = EpochCodec::default().encode(&plan).unwrap_err().to_string();
    assert!(told.contains("PartialSortExec can't be written as bytes"), "{told}");
}

/// What an epoch reads is plain data, too: its ranges, watermarks and clock.
#[test]
fn an_epoch_comes_back() {
    let entry = EpochEntry {
        epoch: 7,
        now_ms: 1_700_000_000_000,
        ranges: BTreeMap::from([("a".into(), BTreeMap::from([(0, (5, 9)), (3, (0, 0))])), ("b".into(), BTreeMap::new())]),
        idle: BTreeMap::from([("a".into(), vec![1, 2])]),
        caught_up: vec!["b".into()],
        watermarks: BTreeMap::from([("a".into(), i64::MIN), ("b".into(), 12)]),
    };
    assert_eq!(serde_json::from_str::<EpochEntry>(&serde_json::to_string(&entry).unwrap()).unwrap(), entry);
}
