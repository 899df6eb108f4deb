//! How much of a topic may be taken by now: a bucket that fills with time, and what was taken beyond it is owed. The clock is a parameter.

use std::time::Instant;

use crate::catalog::Throttle;

/// What was not taken for a while adds up to no more than so many seconds' worth.
const BURST: f64 = 0.1;

/// What may be taken.
#[derive(Debug)]
pub(super) struct Bucket {
    records: Level,
    bytes: Level,
}

#[derive(Debug)]
struct Level {
    /// A second; `None`: as much as there is.
    rate: Option<f64>,
    /// What may be taken; below zero where more was.
    level: f64,
    at: Instant,
}

impl Level {
    fn new(rate: Option<u64>, now: Instant) -> Self {
        Self { rate: rate.map(|rate| rate as f64), level: 1.0, at: now }
    }

    /// How much may be taken now.
    fn now(&mut self, now: Instant) -> usize {
        let Some(rate) = self.rate else { return usize::MAX };
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level + rate * passed).min((rate * BURST).max(1.0));
        if self.level < 1.0 { 0 } else { self.level as usize }
    }

    fn spend(&mut self, amount: usize) {
        if self.rate.is_some() {
            self.level -= amount as f64;
        }
    }
}

impl Bucket {
    pub fn new(throttle: Throttle, now: Instant) -> Self {
        Self { records: Level::new(throttle.records, now), bytes: Level::new(throttle.bytes, now) }
    }

    /// Whether there is a limit at all.
    pub fn limits(&self) -> bool {
        self.records.rate.is_some() || self.bytes.rate.is_some()
    }

    /// How many bytes and records may be taken; neither of them zero, or both. A record that is larger than what may be taken passes, and
    /// is owed.
    pub fn allowed(&mut self, now: Instant) -> (usize, usize) {
        match (self.bytes.now(now), self.records.now(now)) {
            (0, _) | (_, 0) => (0, 0),
            allowed => allowed,
        }
    }

    pub fn spend(&mut self, bytes: usize, records: usize) {
        self.bytes.spend(bytes);
        self.records.spend(records);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// How much is taken of an endless topic in ten seconds that somebody asks often.
    fn taken(throttle: Throttle, size: usize) -> usize {
        let begun = Instant::now();
        let mut bucket = Bucket::new(throttle, begun);
        let mut all = 0;
        for step in 0..2_000 {
            let (bytes, records) = bucket.allowed(begun + Duration::from_millis(5 * step));
            // As the reader: at least one record.
            let count = if records == 0 { 0 } else { records.min(bytes / size).clamp(1, 1_000_000) };
            bucket.spend(count * size, count);
            all += count;
        }
        all
    }

    #[test]
    fn the_rate_is_kept() {
        for (records, bytes, size, wanted) in [
            (Some(1_000), None, 10, 10_000),
            (Some(3), None, 10, 30),
            (None, Some(10_000), 10, 10_000),
            (None, Some(1_000), 50_000, 1),
            (Some(50), Some(1_000), 10, 500),
        ] {
            let count = taken(Throttle { records, bytes }, size) as f64;
            let wanted = f64::from(wanted);
            assert!(count <= wanted * 1.05 + 2.0 && count >= wanted * 0.95 - 1.0, "{count} of {wanted}");
        }
        let mut free = Bucket::new(Throttle::default(), Instant::now());
        assert_eq!((free.limits(), free.allowed(Instant::now())), (false, (usize::MAX, usize::MAX)));
    }

    #[test]
    fn a_long_silence_is_no_flood() {
        let begun = Instant::now();
        let mut bucket = Bucket::new(Throttle { records: Some(100), bytes: None }, begun);
        assert_eq!(bucket.allowed(begun + Duration::from_secs(3_600)).1, 10);
    }
}
