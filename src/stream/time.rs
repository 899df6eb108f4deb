//! Event time: how far each partition of a source has come, and the watermark that follows from it. Pure: no clock in here.
//!
//! A partition's own watermark is the greatest event time seen in it less the source's bound. The source's watermark is the
//! smallest of its partitions' that are not idle; a partition without any record holds it back until it is idle. Where all are
//! idle nothing holds back any more, and the furthest one counts: the answer does not depend on the order in which they fell idle.
//! A watermark never steps back.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::tests::mutants::Mutant;

/// Before any time.
pub const BEGINNING: i64 = i64::MIN;

/// Nanoseconds as people read them.
pub fn told(nanoseconds: i64) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_nanos(nanoseconds.unsigned_abs()))
}

/// A stretch of time as event time counts; at most what its type holds.
pub fn nanoseconds(duration: Duration) -> i64 {
    duration.as_nanos().min(i64::MAX as u128) as i64
}

/// A source's watermark, or the clock, before and after one epoch, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatermarkStep {
    /// Rows of windows that end at or before it are late.
    pub before: i64,
    /// Windows that end at or before it are closed by this epoch.
    pub after: i64,
}

/// What moves windows along.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Timeline {
    /// Event time: the slowest watermark of these sources.
    Event(Vec<String>),
    /// The logged time of the epochs: a row stands where it was read.
    Processing,
}

impl Timeline {
    /// Whether both move together, always.
    pub fn same(&self, other: &Timeline) -> bool {
        self == other || self.clone().and(other.clone()).is_some_and(|both| both == *self && both == *other)
    }

    /// One that both move along, if there is such.
    pub fn and(self, other: Timeline) -> Option<Timeline> {
        match (self, other) {
            (Timeline::Event(mut sources), Timeline::Event(others)) => {
                sources.extend(others);
                sources.sort_unstable();
                sources.dedup();
                Some(Timeline::Event(sources))
            }
            (Timeline::Processing, Timeline::Processing) => Some(Timeline::Processing),
            _ => None,
        }
    }
}

impl std::fmt::Display for Timeline {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Timeline::Event(sources) => write!(f, "the watermark of {}", sources.join(" and ")),
            Timeline::Processing => f.write_str("the clock"),
        }
    }
}

/// How far one partition has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionClock {
    /// Greatest event time seen, in nanoseconds since 1970.
    pub greatest: Option<i64>,
    /// Whether it is left out of the minimum.
    pub idle: bool,
}

/// The clock of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceClock {
    /// Nanoseconds that a partition's watermark trails its greatest event time.
    bound: i64,
    partitions: BTreeMap<i32, PartitionClock>,
    watermark: i64,
}

impl SourceClock {
    /// A clock that has seen nothing.
    pub fn new(bound: i64) -> Self {
        Self { bound, partitions: BTreeMap::new(), watermark: BEGINNING }
    }

    /// The watermark in force.
    pub fn watermark(&self) -> i64 {
        self.watermark
    }

    /// How far a partition has come.
    pub fn partition(&self, partition: i32) -> PartitionClock {
        self.partitions.get(&partition).copied().unwrap_or_default()
    }

    /// A partition's own watermark, if it has seen anything.
    pub fn partition_watermark(&self, partition: i32) -> Option<i64> {
        self.partition(partition).greatest.map(|t| t.saturating_sub(self.bound))
    }

    /// The partitions that count.
    pub fn partitions(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    /// A partition exists: it counts from now on.
    pub fn assign(&mut self, partition: i32) {
        self.partitions.entry(partition).or_default();
    }

    /// Records of a partition were read, the latest of them at this event time.
    pub fn observe(&mut self, partition: i32, event_time: i64) {
        let clock = self.partitions.entry(partition).or_default();
        clock.greatest = Some(clock.greatest.map_or(event_time, |t| t.max(event_time)));
    }

    /// Decides whether a partition is left out of the minimum.
    pub fn set_idle(&mut self, partition: i32, idle: bool) {
        self.partitions.entry(partition).or_default().idle = idle;
    }

    /// Moves the watermark to where the partitions allow.
    pub fn advance(&mut self) -> WatermarkStep {
        let before = self.watermark;
        let own = |clock: &PartitionClock| clock.greatest.map_or(BEGINNING, |t| t.saturating_sub(self.bound));
        let slowest = self.partitions.values().filter(|c| !c.idle).map(own).min();
        #[cfg(test)]
        let slowest = if Mutant::FastestPartition.is_on() { self.partitions.values().map(own).max() } else { slowest };
        let candidate = slowest.or_else(|| self.partitions.values().map(own).max()).unwrap_or(BEGINNING);
        self.watermark = before.max(candidate);
        WatermarkStep { before, after: self.watermark }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_partition_that_is_not_idle_decides() {
        let mut clock = SourceClock::new(5);
        clock.assign(0);
        clock.assign(1);
        clock.observe(0, 100);
        assert_eq!(clock.advance().after, BEGINNING, "partition 1 has said nothing yet");
        clock.observe(1, 50);
        assert_eq!(clock.advance(), WatermarkStep { before: BEGINNING, after: 45 });
        clock.set_idle(1, true);
        assert_eq!(clock.advance(), WatermarkStep { before: 45, after: 95 });
        clock.set_idle(1, false);
        assert_eq!(clock.advance().after, 95, "a watermark never steps back");
        clock.observe(0, 20);
        assert_eq!(clock.partition_watermark(0), Some(95), "disorder does not move a partition back");
    }

    #[test]
    fn when_all_are_idle_the_furthest_counts_in_whatever_order_they_fell_idle() {
        for order in [[0, 1], [1, 0]] {
            let mut clock = SourceClock::new(0);
            clock.observe(0, 10);
            clock.observe(1, 30);
            clock.advance();
            for partition in order {
                clock.set_idle(partition, true);
                clock.advance();
            }
            assert_eq!(clock.watermark(), 30);
        }
    }

    #[test]
    fn extreme_times_saturate() {
        let mut clock = SourceClock::new(i64::MAX);
        clock.observe(0, i64::MIN + 1);
        assert_eq!(clock.advance().after, i64::MIN);
    }
}
