//! Time as the documentation tells it, worked out a second time and in another way: which windows are closed and which rows are late.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    case::{Case, Event},
    views::{SECOND, Windows},
};

/// An event where it was read.
#[derive(Debug, Clone)]
pub struct Row {
    pub partition: i32,
    pub offset: i64,
    pub event: Event,
}

/// Late rows: partition, offset, and the end of the window that had closed.
pub type Late = BTreeSet<(i32, i64, i64)>;

#[derive(Debug, Clone)]
pub struct Model {
    pub windows: Windows,
    partitions: usize,
    bound: i64,
    lateness: i64,
    /// For each partition the greatest event time seen.
    greatest: BTreeMap<i32, i64>,
    watermark: i64,
    /// Windows up to it have been answered, up to `closed` for good.
    pub passed: i64,
    pub closed: i64,
    pub rows: Vec<Row>,
    pub late: Late,
}

impl Model {
    pub fn new(case: &Case) -> Self {
        Self {
            windows: case.view.windows,
            partitions: case.partitions as usize,
            bound: case.bound * SECOND,
            lateness: case.lateness as i64 * SECOND,
            greatest: BTreeMap::new(),
            watermark: i64::MIN,
            passed: i64::MIN,
            closed: i64::MIN,
            rows: vec![],
            late: Late::new(),
        }
    }

    fn key(&self, row: &Row) -> Option<&'static str> {
        match self.windows {
            Windows::Session(_, true) => row.event.k,
            _ => None,
        }
    }

    /// Sessions of a row's key over the rows that were not late: the first row's time, and the end, which may lie beyond 64 bits.
    fn sessions(&self, key: Option<&str>) -> Vec<(i64, i128)> {
        let Windows::Session(gap, _) = self.windows else { return vec![] };
        let mut times: Vec<i64> = self.rows.iter().filter(|r| self.key(r) == key && !self.is_late(r)).map(|r| r.event.ts).collect();
        times.sort_unstable();
        let mut sessions: Vec<(i64, i128)> = vec![];
        for time in times {
            let ends = i128::from(time) + i128::from(gap * SECOND);
            match sessions.last_mut() {
                Some((_, end)) if i128::from(time) < *end => *end = ends,
                _ => sessions.push((time, ends)),
            }
        }
        sessions
    }

    pub fn is_late(&self, row: &Row) -> bool {
        self.late.range((row.partition, row.offset, i64::MIN)..=(row.partition, row.offset, i64::MAX)).next().is_some()
    }

    /// Takes an epoch's rows in, in the order in which they were read. `quiet` says that open windows close by the wall clock.
    pub fn step(&mut self, rows: Vec<Row>, quiet: bool) {
        let mut late = vec![];
        for row in &rows {
            let ts = row.event.ts;
            if let Windows::Session(gap, _) = self.windows {
                let holds = |(first, end): (i64, i128)| end > i128::from(self.closed) && first <= ts && i128::from(ts) < end;
                if ts < self.closed && !self.sessions(self.key(row)).into_iter().any(holds) {
                    late.push((row.partition, row.offset, ts.saturating_add(gap * SECOND)));
                }
            }
            late.extend(self.windows.ends(ts).into_iter().filter(|end| *end <= self.closed).map(|end| (row.partition, row.offset, end)));
        }
        self.late.extend(late);
        for row in &rows {
            let greatest = self.greatest.entry(row.partition).or_insert(row.event.ts);
            *greatest = row.event.ts.max(*greatest);
        }
        self.rows.extend(rows);
        if self.greatest.len() == self.partitions {
            let slowest = self.greatest.values().map(|time| time.saturating_sub(self.bound)).min();
            self.watermark = self.watermark.max(slowest.unwrap_or(i64::MIN));
        }
        self.passed = self.passed.max(self.watermark);
        self.closed = self.closed.max(self.watermark.saturating_sub(self.lateness));
        if quiet {
            let last = match self.windows {
                Windows::Session(..) => {
                    let keys: BTreeSet<Option<&str>> = self.rows.iter().map(|r| self.key(r)).collect();
                    keys.into_iter().flat_map(|key| self.sessions(key)).filter_map(|(_, end)| i64::try_from(end).ok()).max()
                }
                windows => {
                    let ends = |r: &Row| windows.ends(r.event.ts).into_iter().filter(|end| !self.late.contains(&(r.partition, r.offset, *end))).max();
                    self.rows.iter().filter_map(ends).max()
                }
            };
            self.passed = self.passed.max(last.unwrap_or(i64::MIN));
            self.closed = self.closed.max(last.unwrap_or(i64::MIN));
        }
    }
}
