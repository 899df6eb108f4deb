//! Which windows hold an instant: arithmetic on whole numbers, without Arrow and without a plan.

use std::fmt;

use datafusion::common::DataFusionError;
use serde::{Deserialize, Serialize};

/// How many windows may hold one row. A row is repeated once a window, so a slide of a second in a size of a month is a mistake.
pub const MOST_WINDOWS: i64 = 10_000;

/// Windows of a fixed size, in nanoseconds since 1970.
///
/// A window is half-open, `[start, end)`. Start and end both fit 64 bits: what doesn't is no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Windows {
    /// One window after the other: each instant lies in one.
    Tumble {
        /// Length of a window; positive.
        size_ns: i64,
        /// Where the windows are aligned: start of the first one at or after 1970, in `0..size_ns`.
        offset_ns: i64,
    },
    /// A window begins every `slide_ns`. They overlap where that is less than the size; where it is more, some instants lie in none.
    Hop {
        /// Length of a window; positive.
        size_ns: i64,
        /// From the start of a window to the start of the next; positive.
        slide_ns: i64,
        /// Start of the first window at or after 1970, in `0..slide_ns`.
        offset_ns: i64,
    },
    /// Tumbling windows that are also shown while they grow: of each there is one that ends after one step, one after two, up to the size.
    Cumulate {
        /// Length of the longest window; a multiple of `step_ns`.
        size_ns: i64,
        /// By how much a window is longer than the one before; positive.
        step_ns: i64,
        /// Start of the first window at or after 1970, in `0..size_ns`.
        offset_ns: i64,
    },
}

/// Why numbers make no windows, as a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidWindows(String);

impl fmt::Display for InvalidWindows {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidWindows {}

impl From<InvalidWindows> for DataFusionError {
    fn from(invalid: InvalidWindows) -> Self {
        Self::Plan(invalid.0)
    }
}

impl Windows {
    /// Tumbling windows; any offset will do, it is taken modulo the size.
    pub fn tumble(size_ns: i64, offset_ns: i64) -> Result<Self, InvalidWindows> {
        positive("a window's size", size_ns)?;
        Ok(Self::Tumble { size_ns, offset_ns: offset_ns.rem_euclid(size_ns) })
    }

    /// Hopping windows; any offset will do, it is taken modulo the slide.
    pub fn hop(size_ns: i64, slide_ns: i64, offset_ns: i64) -> Result<Self, InvalidWindows> {
        positive("a window's size", size_ns)?;
        positive("a window's slide", slide_ns)?;
        not_too_many("slide", 1 + (size_ns - 1) / slide_ns)?;
        Ok(Self::Hop { size_ns, slide_ns, offset_ns: offset_ns.rem_euclid(slide_ns) })
    }

    /// Cumulating windows; any offset will do, it is taken modulo the size.
    pub fn cumulate(size_ns: i64, step_ns: i64, offset_ns: i64) -> Result<Self, InvalidWindows> {
        positive("a window's size", size_ns)?;
        positive("a window's step", step_ns)?;
        if size_ns % step_ns != 0 {
            return Err(InvalidWindows("a window's size must be a whole number of steps, as 1 hour is of 10 minutes".into()));
        }
        not_too_many("step", size_ns / step_ns)?;
        Ok(Self::Cumulate { size_ns, step_ns, offset_ns: offset_ns.rem_euclid(size_ns) })
    }

    /// Length of a window; of cumulating ones, of the longest.
    pub fn size_ns(&self) -> i64 {
        match *self {
            Self::Tumble { size_ns, .. } | Self::Hop { size_ns, .. } | Self::Cumulate { size_ns, .. } => size_ns,
        }
    }

    /// Length of a pane: the longest span that no window's start or end cuts, so that rows can be gathered by pane first and each
    /// window be put together from whole panes.
    pub fn pane_ns(&self) -> i64 {
        match *self {
            Self::Tumble { size_ns, .. } => size_ns,
            Self::Hop { size_ns, slide_ns, .. } => greatest_common_divisor(size_ns, slide_ns),
            Self::Cumulate { step_ns, .. } => step_ns,
        }
    }

    /// The panes as tumbling windows. All instants of a pane lie in the same windows.
    pub fn panes(&self) -> Self {
        let (Self::Tumble { offset_ns, .. } | Self::Hop { offset_ns, .. } | Self::Cumulate { offset_ns, .. }) = *self;
        let size_ns = self.pane_ns();
        Self::Tumble { size_ns, offset_ns: offset_ns.rem_euclid(size_ns) }
    }

    /// The ends of all windows that hold an instant, ascending; windows that don't fit 64 bits are left out.
    pub fn ends_of(&self, ns: i64) -> Ends {
        self.ends_within(ns, i64::MIN, i64::MAX)
    }

    /// The latest end of a window that holds an instant.
    pub fn last_end_of(&self, ns: i64) -> Option<i64> {
        let ends = self.ends_of(ns);
        (ends.left > 0).then(|| ends.next + (ends.left - 1) * ends.step)
    }

    /// The start of the window that ends there; `None` if none does, or if its start doesn't fit 64 bits.
    pub fn start_of(&self, end_ns: i64) -> Option<i64> {
        match *self {
            Self::Tumble { size_ns, offset_ns } => Self::Hop { size_ns, slide_ns: size_ns, offset_ns }.start_of(end_ns),
            Self::Hop { size_ns, slide_ns, offset_ns } => {
                let start = end_ns.checked_sub(size_ns)?;
                (since_aligned(start, slide_ns, offset_ns) == 0).then_some(start)
            }
            Self::Cumulate { size_ns, step_ns, offset_ns } => {
                let last_instant = end_ns.checked_sub(1)?;
                let into = since_aligned(last_instant, size_ns, offset_ns);
                ((into + 1) % step_ns == 0).then(|| last_instant.checked_sub(into)).flatten()
            }
        }
    }

    /// The same windows counted in another unit of so many nanoseconds; `None` if a length is no whole number of it.
    pub(super) fn in_unit(self, unit_ns: i64) -> Option<Self> {
        let whole = |ns: i64| (ns % unit_ns == 0).then(|| ns / unit_ns);
        Some(match self {
            Self::Tumble { size_ns, offset_ns } => Self::Tumble { size_ns: whole(size_ns)?, offset_ns: whole(offset_ns)? },
            Self::Hop { size_ns, slide_ns, offset_ns } => Self::Hop { size_ns: whole(size_ns)?, slide_ns: whole(slide_ns)?, offset_ns: whole(offset_ns)? },
            Self::Cumulate { size_ns, step_ns, offset_ns } => {
                Self::Cumulate { size_ns: whole(size_ns)?, step_ns: whole(step_ns)?, offset_ns: whole(offset_ns)? }
            }
        })
    }

    /// The ends of all windows that hold `t`, begin at or after `low` and end at or before `high`.
    pub(super) fn ends_within(&self, t: i64, low: i64, high: i64) -> Ends {
        match *self {
            Self::Tumble { size_ns, offset_ns } => hopping(t, size_ns, size_ns, offset_ns, low, high),
            Self::Hop { size_ns, slide_ns, offset_ns } => hopping(t, size_ns, slide_ns, offset_ns, low, high),
            Self::Cumulate { size_ns, step_ns, offset_ns } => cumulating(t, size_ns, step_ns, offset_ns, low, high),
        }
    }
}

/// Ends of windows, ascending; made by [`Windows::ends_of`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ends {
    next: i64,
    left: i64,
    step: i64,
}

impl Ends {
    const NONE: Self = Self { next: 0, left: 0, step: 0 };
}

impl Iterator for Ends {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        if self.left == 0 {
            return None;
        }
        let end = self.next;
        self.left -= 1;
        if self.left > 0 {
            self.next += self.step;
        }
        Some(end)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Ends {}

fn hopping(t: i64, size: i64, slide: i64, offset: i64, low: i64, high: i64) -> Ends {
    let into = since_aligned(t, slide, offset);
    if into >= size {
        return Ends::NONE;
    }
    let earlier = (size - into - 1) / slide;
    let last_start = i128::from(t) - i128::from(into);
    let starts = |from: i128, to: i128| ends(from + i128::from(size), to + i128::from(size), slide);
    let first_start = last_start - i128::from(earlier) * i128::from(slide);
    let (low, latest) = (i128::from(low), i128::from(high) - i128::from(size));
    if first_start >= low && last_start <= latest {
        return starts(first_start, last_start);
    }
    // Near the ends of the range of 64 bits.
    starts(first_start + whole_steps(low - first_start, slide), last_start - whole_steps(last_start - latest, slide))
}

fn cumulating(t: i64, size: i64, step: i64, offset: i64, low: i64, high: i64) -> Ends {
    let into = since_aligned(t, size, offset);
    let start = i128::from(t) - i128::from(into);
    if start < i128::from(low) {
        return Ends::NONE;
    }
    let first = start + i128::from(into / step + 1) * i128::from(step);
    let last = start + i128::from(size);
    ends(first, last - whole_steps(last - i128::from(high), step), step)
}

/// The least multiple of a step that is not below `distance`, nor below 0.
fn whole_steps(distance: i128, step: i64) -> i128 {
    let step = i128::from(step);
    (distance.max(0) + step - 1) / step * step
}

/// The ends from the first to the last; both fit if there are any.
fn ends(first: i128, last: i128, step: i64) -> Ends {
    let count = if first > last { 0 } else { (last - first) / i128::from(step) + 1 };
    match (i64::try_from(first), i64::try_from(count)) {
        (Ok(next), Ok(left)) if left > 0 => Ends { next, left, step },
        _ => Ends::NONE,
    }
}

/// How far an instant lies behind the last aligned one at or before it: in `0..period`. `offset` lies there too.
pub(super) fn since_aligned(t: i64, period: i64, offset: i64) -> i64 {
    // `t.rem_euclid(period)` and `offset` both lie in 0..period, so this can't overflow where `t - offset` could.
    let into = t.rem_euclid(period) - offset;
    if into < 0 { into + period } else { into }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn positive(what: &str, length: i64) -> Result<(), InvalidWindows> {
    match length > 0 {
        true => Ok(()),
        false => Err(InvalidWindows(format!("{what} must be positive"))),
    }
}

fn not_too_many(what: &str, windows: i64) -> Result<(), InvalidWindows> {
    match windows <= MOST_WINDOWS {
        true => Ok(()),
        false => Err(InvalidWindows(format!("a row would lie in {windows} windows, at most {MOST_WINDOWS} are allowed: write a longer {what}"))),
    }
}
