//! Records that were gone before they were read: retention deleted them, or the topic was made anew. Gaps by compaction and
//! transaction markers are none: only what the broker refuses as out of range is looked at here.

use std::fmt;

use crate::catalog::KafkaDef;

/// A partition that can't be read on at the offset that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// The partition.
    pub partition: i32,
    /// The offset that comes next.
    pub expected: i64,
    /// The oldest offset that is there: where reading can go on.
    pub oldest: i64,
    /// One past the newest offset that is there.
    pub end: i64,
    /// The name means another topic by now: its offsets are not those that were read.
    pub anew: bool,
}

impl Loss {
    /// Whether a reader that is to go on at `expected` has lost something, where the partition holds the offsets `held`.
    pub fn check(partition: i32, expected: i64, held: (i64, i64)) -> Option<Self> {
        let (oldest, end) = held;
        (expected < oldest || expected > end).then_some(Self { partition, expected, oldest, end, anew: false })
    }

    /// How many offsets were deleted before they were read; `None` where the topic was made anew and nobody knows.
    pub fn offsets(&self) -> Option<i64> {
        (self.expected < self.oldest && !self.anew).then(|| self.oldest - self.expected)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, expected, oldest, end, anew } = self;
        match self.offsets() {
            Some(lost) => {
                write!(f, "partition {partition}: offset {expected} comes next, but the oldest that is there is {oldest}, so {lost} were deleted unread")
            }
            None if *anew => {
                write!(f, "partition {partition}: offset {expected} comes next, but the topic was made anew, and holds offsets {oldest} to {end} now")
            }
            None => write!(f, "partition {partition}: offset {expected} comes next, but it ends at {end}, so the topic was made anew or lost its end"),
        }
    }
}

/// What was lost of a topic, as a sentence.
pub fn describe(kafka: &KafkaDef, losses: &[Loss]) -> String {
    let each: Vec<String> = losses.iter().map(Loss::to_string).collect();
    format!("records of topic {} are lost ({})", kafka.topic, each.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_outside_is_lost() {
        for inside in [10, 15, 20] {
            assert_eq!(Loss::check(0, inside, (10, 20)), None, "{inside}");
        }
        let deleted = Loss::check(3, 4, (10, 20));
        assert_eq!(deleted.and_then(|l| l.offsets()), Some(6));
        let anew = Loss::check(3, 21, (0, 20));
        assert_eq!(anew, Some(Loss { partition: 3, expected: 21, oldest: 0, end: 20, anew: false }));
        assert_eq!(anew.and_then(|l| l.offsets()), None);
        let refilled = Loss { partition: 3, expected: 5, oldest: 9, end: 20, anew: true };
        assert_eq!(refilled.offsets(), None, "nobody knows what the old topic still held");
        assert!(refilled.to_string().contains("made anew"), "{refilled}");
    }
}
