//! Batch equivalence of what views make of windows that close: random queries over the windows of two sources whose watermarks move, over
//! rows that come out of order. Late rows are those that a view says are late, and then they are missing in all that it holds. Where a row
//! may be late for one of its windows only, none is. One view may read another.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    grammar::{Grammar, Kind, Relation, Style},
    oracle::each_seed,
    relations::{Row, SOURCES, Step, Tally, World, relation_of, statement, windows},
};

/// Seconds that rows are behind those before them, at most.
const DISORDER: i64 = 15;

/// Rows whose time moves on.
fn steps(rng: &mut ChaCha8Rng) -> Vec<Step> {
    let mut id = 0;
    let mut now = [20, 20];
    (0..rng.random_range(4..=10))
        .map(|_| {
            let mut step = Step { checkpoint: rng.random_bool(0.3), restart: rng.random_bool(0.15), ..Step::default() };
            for (source, now) in SOURCES.into_iter().zip(&mut now) {
                // A source may be ahead of the other for a while.
                *now += if rng.random_bool(0.15) { 20 } else { 0 };
                let rows = (0..rng.random_range(0..7)).map(|_| {
                    *now += rng.random_range(0..4);
                    id += 1;
                    let behind = if rng.random_bool(0.3) { rng.random_range(0..DISORDER) } else { 0 };
                    Row { ts: *now - behind, ..Row::random(rng, id) }
                });
                let rows: Vec<Row> = rows.collect();
                step.rows.insert(source, rows);
            }
            step
        })
        .collect()
}

/// A world of one or two views, the last one of which is of this kind, over windows of this kind.
fn random(seed: u64, kind: Kind, of: Kind) -> (World, BTreeSet<Kind>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let punctual = matches!(of, Kind::Hop | Kind::Cumulate) || rng.random_bool(0.2);
    let bound = if punctual { DISORDER } else { rng.random_range(0..6) };
    let closes = kind != Kind::Limit && rng.random_bool(0.5);
    let style = if closes || rng.random_bool(0.5) { Style::PerWindow } else { Style::Once };
    let mut relations: Vec<Relation> = SOURCES.map(|source| windows(source, of, &mut rng)).into();
    // Windows of one kind and size meet.
    if rng.random_bool(0.7) {
        relations[1].name = relations[0].name.replace("(a", "(b").replace(":a:", ":b:");
    }
    let (mut views, mut kinds) = (vec![], BTreeSet::new());
    let count = rng.random_range(1..=2);
    for at in 0..count {
        // Above rows of two inputs, of which one decides when they come, some operators wait for both.
        let below = |kind: &&Kind| !closes || !kind.reads_two() && **kind != Kind::Limit;
        let kind = if at + 1 == count { kind } else { *Kind::ALL.iter().filter(below).collect::<Vec<_>>().choose(&mut rng).copied().unwrap() };
        let depth = rng.random_range(0..3);
        let query = Grammar { rng: &mut rng, relations: &relations, style, closes }.query(kind, depth);
        kinds.extend(&query.kinds);
        // A view over one that corrects closed windows may wait for that or pass corrections on: which of them depends on its aggregates.
        let last = at + 1 == count;
        let lateness = if style == Style::PerWindow && (last || !closes) && rng.random_bool(0.4) { rng.random_range(1..8) } else { 0 };
        let emit = format!(
            "{}{}",
            if closes { "EMIT ON WINDOW CLOSE" } else { "EMIT CHANGES" },
            if lateness > 0 { format!(" ALLOW LATENESS INTERVAL '{lateness} seconds'") } else { String::new() }
        );
        let name = format!("v{at}");
        views.push(statement(&name, &query, &emit));
        relations.push(relation_of(&name, &query, if closes && lateness == 0 { 0 } else { query.lag + lateness }));
    }
    let come = vec![0; views.len()];
    let steps = steps(&mut rng);
    (World { views, come, steps, bound }, kinds)
}

/// So many worlds for each kind of operator.
const WORLDS: u64 = 40;

#[test]
fn views_of_windows_equal_the_batch_answer() {
    let tally = Mutex::new(Tally::default());
    let all = WORLDS * Kind::ALL.len() as u64;
    let seeds = each_seed(all, |seed| {
        let kind = Kind::ALL[(seed % Kind::ALL.len() as u64) as usize];
        let of = Kind::WINDOWS[(seed / Kind::ALL.len() as u64 % Kind::WINDOWS.len() as u64) as usize];
        let (world, kinds) = random(seed, kind, of);
        Tally::take(&tally, seed, &world, &kinds);
    });
    let ran = tally.into_inner().check(seeds, &[Kind::ALL.as_slice(), &Kind::WINDOWS].concat(), 20, seeds >= all);
    assert!(seeds < all || ran.late > 100 && ran.restarts > 50, "there was too little in it to show anything: {ran:?}");
}
