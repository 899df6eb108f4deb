//! Which of a side's rows are done with, by time.

use crate::stream::segments::RowId;

/// Rows by the instant before which they can still match something.
///
/// Rows come roughly in the order of their time, and leave so. They stand in sorted runs, the next run at most half as long as the one before:
/// taking one in costs some moves of 16 bytes that lie beside each other, and no look-up.
#[derive(Debug, Default)]
pub struct DoneAt {
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    /// In order of the instants.
    rows: Vec<(i64, RowId)>,
    /// How many of them have been forgotten.
    over: usize,
}

impl Run {
    fn left(&self) -> &[(i64, RowId)] {
        &self.rows[self.over..]
    }
}

impl DoneAt {
    /// Rows are there, each until its instant.
    pub fn add(&mut self, mut rows: Vec<(i64, RowId)>) {
        if rows.is_empty() {
            return;
        }
        rows.sort_unstable();
        let mut rows = Run { rows, over: 0 };
        while let Some(mut last) = self.runs.pop() {
            if last.left().last() <= rows.left().first() {
                last.rows.extend_from_slice(rows.left());
                rows = last;
            } else if last.left().len() < rows.left().len() * 2 {
                rows = Run { rows: merged(last.left(), rows.left()), over: 0 };
            } else {
                self.runs.push(last);
                break;
            }
        }
        self.runs.push(rows);
    }

    /// The rows whose instant lies before another one.
    pub fn before(&self, instant: i64) -> impl Iterator<Item = (i64, RowId)> + '_ {
        self.runs.iter().flat_map(move |run| run.left().iter().copied().take_while(move |(at, _)| *at < instant))
    }

    /// Forgets the first rows as long as this holds for them.
    pub fn forget_while(&mut self, is_over: impl Fn(i64, RowId) -> bool) {
        for run in &mut self.runs {
            run.over += run.left().iter().take_while(|(at, row)| is_over(*at, *row)).count();
            if run.over > run.rows.len() / 2 {
                run.rows.drain(..run.over);
                run.over = 0;
                run.rows.shrink_to(run.rows.len() * 4);
            }
        }
        self.runs.retain(|run| !run.left().is_empty());
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.rows.capacity() * size_of::<(i64, RowId)>()).sum()
    }
}

fn merged(a: &[(i64, RowId)], b: &[(i64, RowId)]) -> Vec<(i64, RowId)> {
    // The sort finds two runs and merges them.
    let mut rows = [a, b].concat();
    rows.sort();
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt, SeedableRng};

    use super::*;

    #[test]
    fn rows_are_done_with_in_order_of_time() {
        for seed in 0..50 {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let (mut done, mut model) = (DoneAt::default(), BTreeSet::new());
            let (mut next, mut time) = (0, 0);
            let disorder = [0, 5, 1_000][seed as usize % 3];
            for _ in 0..200 {
                let rows: Vec<(i64, RowId)> = (0..rng.random_range(0..30))
                    .map(|_| {
                        next += 1;
                        time += rng.random_range(0..3);
                        (time - rng.random_range(0..=disorder), next)
                    })
                    .collect();
                model.extend(rows.iter().copied());
                done.add(rows);
                let before = time - rng.random_range(0..100);
                let over: BTreeSet<_> = done.before(before).collect();
                assert_eq!(over, model.range(..(before, 0)).copied().collect());
                model = model.split_off(&(before, 0));
                done.forget_while(|at, _| at < before);
                assert!(done.runs.len() < 14, "{} runs of {} rows", done.runs.len(), model.len());
                assert!(done.bytes() <= model.len() * 16 * 8 + 4096, "{} bytes for {} rows", done.bytes(), model.len());
            }
        }
    }
}
