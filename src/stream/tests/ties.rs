//! Rows that an order leaves equal. Any of them would do for a batch; a view takes the same ones wherever its epochs are cut and whenever
//! the process dies. What does not depend on the choice equals the batch answer, which is asked for those columns alone.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    batch::same,
    mutants::Mutant,
    oracle::each_seed,
    relations::{NEVER, Row, SOURCES, Step, World, WorldView, ends},
};

/// Queries whose order leaves rows equal.
const QUERIES: &[&str] = &[
    "SELECT k, g, id, x FROM (SELECT k, g, id, x, row_number() OVER (PARTITION BY k ORDER BY g) AS r FROM a) WHERE r <= 2",
    "SELECT * FROM (SELECT DISTINCT ON (k) k, g, id, x FROM a ORDER BY k, g DESC)",
    "SELECT * FROM (SELECT id, g, x FROM a ORDER BY g DESC NULLS LAST LIMIT 3)",
    "SELECT * FROM (SELECT id, g, x FROM a ORDER BY g LIMIT 2 OFFSET 2)",
    "SELECT k, first_value(id ORDER BY g) AS f, last_value(id ORDER BY g) AS l, array_agg(id ORDER BY g) AS a FROM a GROUP BY k",
    "SELECT id, lag(id) OVER (PARTITION BY k ORDER BY g) AS l, ntile(2) OVER (ORDER BY g) AS n, sum(x) OVER (ORDER BY g ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s FROM a",
    "SELECT k, g, c, r FROM (SELECT k, g, c, row_number() OVER (PARTITION BY k ORDER BY c DESC) AS r FROM (SELECT k, g, count(*) AS c FROM a GROUP BY k, g)) WHERE r = 1",
    "SELECT * FROM (SELECT DISTINCT ON (c) c, k, g FROM (SELECT k, g, count(*) AS c FROM a GROUP BY k, g) ORDER BY c, k)",
    "SELECT k, x, n FROM (SELECT l.k, r.x, count(*) AS n, row_number() OVER (PARTITION BY l.k ORDER BY count(*)) AS p FROM a AS l LEFT JOIN b AS r ON l.g = r.g GROUP BY l.k, r.x) WHERE p <= 2",
    "SELECT window_start, id, g FROM (SELECT window_start, id, g, row_number() OVER (PARTITION BY window_start ORDER BY g) AS r FROM TUMBLE(a, ts, INTERVAL '20 seconds')) WHERE r <= 2",
];

/// What of each answer does not depend on how ties are broken.
const DECIDED: &[&str] = &["k, g", "k, g", "g", "g", "k, array_length(a)", "id", "k, c, r", "c, k", "k, n", "window_start, g"];

fn rows(rng: &mut ChaCha8Rng) -> Vec<(&'static str, Row)> {
    (0..rng.random_range(8..40))
        .map(|id| (SOURCES[usize::from(rng.random_bool(0.3))], Row { g: Some(rng.random_range(0..3)), ..Row::random(rng, id) }))
        .collect()
}

/// The rows in epochs that end anywhere.
fn cut(rows: &[(&'static str, Row)], rng: &mut ChaCha8Rng) -> Vec<Step> {
    let mut steps = vec![];
    let mut left = rows;
    while !left.is_empty() {
        let (now, later) = left.split_at(rng.random_range(1..=left.len().min(9)));
        let mut step = Step { checkpoint: rng.random_bool(0.5), restart: rng.random_bool(0.4), ..Step::default() };
        for (source, row) in now {
            step.rows.entry(*source).or_default().push(row.clone());
        }
        steps.push(step);
        left = later;
    }
    // What a restart reads again is read.
    steps.push(Step::default());
    steps
}

/// Runs a query over the same rows twice; a difference is a sentence.
fn twice(seed: u64) -> Result<usize, String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let query = QUERIES[seed as usize % QUERIES.len()];
    let decided = DECIDED[seed as usize % QUERIES.len()];
    let rows = rows(&mut rng);
    let view = |name: &str, sql: &str| WorldView {
        text: format!("CREATE CONTINUOUS VIEW {name} WITH (unbounded_state = true) AS {sql} EMIT CHANGES"),
        batch: Some(sql.into()),
        on_close: false,
    };
    let mut restarts = 0;
    let mut run = |seed: u64| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let steps = cut(&rows, &mut rng);
        // Compared with the batch is what is decided; the rest is what the first view holds.
        let views = vec![WorldView { batch: None, ..view("v0", query) }, view("v1", &format!("SELECT {decided} FROM ({query}) AS q"))];
        let world = World { views, come: vec![0; 2], steps, bound: NEVER };
        let (ran, held) = ends(&world)?;
        restarts += ran.restarts;
        Ok::<_, String>(held)
    };
    let [one, other] = [run(2 * seed)?, run(2 * seed + 1)?];
    for (one, other) in one.iter().zip(&other) {
        same(one, other, ["the first run", "the second"]).map_err(|e| format!("{query}\n{e}"))?;
    }
    Ok(restarts)
}

#[test]
fn ties_are_broken_the_same_way() {
    let restarts = std::sync::atomic::AtomicUsize::new(0);
    let all = 6 * QUERIES.len() as u64;
    let seeds = each_seed(all, |seed| {
        let here = twice(seed).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        restarts.fetch_add(here, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(seeds < all || restarts.into_inner() > 40, "there were too few restarts to show anything");
}

/// A tie that is broken the other way by the next process is found.
#[test]
fn ties_that_flip_are_found() {
    let _on = Mutant::TiesFlip.on();
    let found = (0..5 * QUERIES.len() as u64).filter(|seed| twice(*seed).is_err()).map(|seed| seed as usize % QUERIES.len());
    let found: std::collections::BTreeSet<usize> = found.collect();
    assert!(found.len() >= QUERIES.len() / 2, "found in {found:?}");
}
