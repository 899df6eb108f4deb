//! Makes a failing case small: leaves out whatever it fails without (Zeller and Hildebrandt, "Simplifying and Isolating
//! Failure-Inducing Input", 2002, reduced to what a case needs).

use super::case::{Body, Case, Then};

/// So many runs at most: a case that is still large then is printed as it is.
const MOST_RUNS: usize = 3_000;

/// The smallest case found that still fails.
pub fn shrink(case: Case, fails: impl Fn(&Case) -> bool) -> Case {
    let mut shrink = Shrink { case, fails, runs: 0 };
    loop {
        let size = shrink.size();
        shrink.partitions();
        shrink.records();
        shrink.epochs();
        shrink.restarts();
        shrink.settings();
        shrink.fields();
        if shrink.size() == size || shrink.runs >= MOST_RUNS {
            return shrink.case;
        }
    }
}

struct Shrink<F> {
    /// Fails.
    case: Case,
    fails: F,
    runs: usize,
}

impl<F: Fn(&Case) -> bool> Shrink<F> {
    fn size(&self) -> (usize, usize, i32, usize, usize) {
        let restarts = self.case.epochs.iter().filter(|epoch| epoch.then != Then::GoOn).count();
        let bytes = self.case.epochs.iter().flat_map(|epoch| &epoch.records).map(|record| record.payload().len()).sum();
        (self.case.records(), self.case.epochs.len(), self.case.partitions, restarts, bytes)
    }

    /// Goes on with a smaller case if that fails, too.
    fn attempt(&mut self, change: impl FnOnce(&mut Case)) -> bool {
        let mut smaller = self.case.clone();
        change(&mut smaller);
        self.runs += 1;
        let fails = self.runs <= MOST_RUNS && (self.fails)(&smaller);
        if fails {
            self.case = smaller;
        }
        fails
    }

    /// Without a partition and its records.
    fn partitions(&mut self) {
        for partition in (0..self.case.partitions).rev().filter(|_| self.case.partitions > 1).collect::<Vec<_>>() {
            if self.case.partitions == 1 {
                return;
            }
            self.attempt(|case| {
                case.partitions -= 1;
                for epoch in &mut case.epochs {
                    epoch.records.retain(|record| record.partition != partition);
                    epoch.records.iter_mut().filter(|record| record.partition > partition).for_each(|record| record.partition -= 1);
                }
            });
        }
    }

    /// Without stretches of records, halved until they are single ones.
    fn records(&mut self) {
        let mut length = self.case.records();
        while length > 0 {
            let mut at = 0;
            while at < self.case.records() {
                let left_out = self.attempt(|case| {
                    let mut number = 0..;
                    let mut keeps = |_: &_| number.next().is_none_or(|n| !(at..at + length).contains(&n));
                    case.epochs.iter_mut().for_each(|epoch| epoch.records.retain(&mut keeps));
                });
                if !left_out {
                    at += length;
                }
            }
            length /= 2;
        }
    }

    /// Without an epoch, or with its records in the next one.
    fn epochs(&mut self) {
        for at in (0..self.case.epochs.len()).rev() {
            let gone = self.attempt(|case| drop(case.epochs.remove(at)));
            if !gone && at + 1 < self.case.epochs.len() {
                self.attempt(|case| {
                    let mut records = case.epochs.remove(at).records;
                    records.append(&mut case.epochs[at].records);
                    case.epochs[at].records = records;
                });
            }
        }
    }

    fn restarts(&mut self) {
        for at in 0..self.case.epochs.len() {
            for then in [Then::GoOn, Then::Checkpoint, Then::Restart] {
                if self.case.epochs[at].then == Then::GoOn || self.attempt(|case| case.epochs[at].then = then) {
                    break;
                }
            }
        }
    }

    fn settings(&mut self) {
        self.attempt(|case| case.threads = 1);
        self.attempt(|case| case.closes_when_quiet = false);
        self.attempt(|case| case.lateness = 0);
        self.attempt(|case| case.bound = 0);
    }

    /// With NULL for values that don't matter.
    fn fields(&mut self) {
        for epoch in 0..self.case.epochs.len() {
            for record in 0..self.case.epochs[epoch].records.len() {
                for field in 0..4 {
                    let Body::Event(event) = &self.case.epochs[epoch].records[record].body else { continue };
                    let mut event = event.clone();
                    let was_there = match field {
                        0 => event.k.take().is_some(),
                        1 => event.x.take().is_some(),
                        2 => event.f.take().is_some(),
                        _ => event.g.take().is_some(),
                    };
                    if was_there {
                        self.attempt(|case| case.epochs[epoch].records[record].body = Body::Event(event));
                    }
                }
            }
        }
    }
}
