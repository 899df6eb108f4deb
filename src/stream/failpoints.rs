//! Named points where a test lets the process die, to see that nothing is lost or doubled whatever the moment.
//!
//! They are compiled in always, so that what is tested is what is shipped, and cost one load where none is armed. `TIDEGATE_FAILPOINT`
//! in the environment of `tidegate serve` arms one: `NAME` dies at the first pass, `NAME:N` at the N-th.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use crate::error::{Error, Result};

/// The variable that arms a point.
pub const VARIABLE: &str = "TIDEGATE_FAILPOINT";

/// Where a process can be made to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// An epoch is in the log, but has not run.
    LogAppended,
    /// Half of a checkpoint's pack of segments is in its file.
    StatePart,
    /// A checkpoint's segments are there, its manifest is not.
    BeforeManifest,
    /// A checkpoint counts, but nobody has been told.
    AfterManifest,
    /// An epoch is part of the state, but no reader sees it.
    BeforePublication,
    /// Readers see an epoch.
    AfterPublication,
    /// The catalog notes what is to take a view's place.
    ReplacementNoted,
    /// Readers see a view in another one's place, and nothing durable holds it.
    Replaced,
    /// A checkpoint holds a view in another one's place, and the catalog still has the other one.
    ReplacedDurably,
    /// A data file of a table has its rows, and is not durable.
    TableRows,
    /// A table's new data files are durable, their manifest is not there.
    TableFiles,
    /// A table's new manifest is durable under a name that does not count.
    TableManifest,
    /// It has its name, which is not durable.
    TableRenamed,
    /// A change of a table counts, but nobody has been told.
    TableCommitted,
    /// A new table's rows are durable, and the catalog does not have it.
    TableUndeclared,
}

/// Every point with its name.
pub const POINTS: [(&str, Point); 15] = [
    ("log-appended", Point::LogAppended),
    ("state-part", Point::StatePart),
    ("before-manifest", Point::BeforeManifest),
    ("after-manifest", Point::AfterManifest),
    ("before-publication", Point::BeforePublication),
    ("after-publication", Point::AfterPublication),
    ("replacement-noted", Point::ReplacementNoted),
    ("replaced", Point::Replaced),
    ("replaced-durably", Point::ReplacedDurably),
    ("table-rows", Point::TableRows),
    ("table-files", Point::TableFiles),
    ("table-manifest", Point::TableManifest),
    ("table-renamed", Point::TableRenamed),
    ("table-committed", Point::TableCommitted),
    ("table-undeclared", Point::TableUndeclared),
];

#[derive(Debug)]
struct Armed {
    point: Point,
    /// Passes until it dies.
    left: AtomicU64,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

fn parse(text: &str) -> Result<Armed> {
    let (name, passes) = text.split_once(':').unwrap_or((text, "1"));
    let names = || POINTS.map(|(name, _)| name).join(", ");
    let (_, point) =
        POINTS.iter().find(|(known, _)| *known == name).ok_or_else(|| Error::Invalid(format!("{VARIABLE} names no point '{name}': there are {}", names())))?;
    let passes: u64 =
        passes.parse().ok().filter(|n| *n > 0).ok_or_else(|| Error::Invalid(format!("{VARIABLE} is '{text}': write NAME or NAME:N, N from 1")))?;
    Ok(Armed { point: *point, left: AtomicU64::new(passes) })
}

/// Arms the point that the environment names, if it names one.
pub fn arm() -> Result<()> {
    let Ok(text) = std::env::var(VARIABLE) else { return Ok(()) };
    let armed = parse(&text)?;
    tracing::warn!("{VARIABLE} is set: the process will die at {text}");
    // Armed once: the environment does not change.
    let _ = ARMED.set(armed);
    Ok(())
}

/// Whether this pass is the one to die in. For a caller that has something to leave half done first.
pub fn due(point: Point) -> bool {
    match ARMED.get() {
        Some(armed) if armed.point == point => armed.left.fetch_sub(1, Ordering::Relaxed) == 1,
        _ => false,
    }
}

/// Dies here if this pass is the one.
pub fn pass(point: Point) {
    if due(point) {
        die();
    }
}

/// Ends the process at once: nothing is flushed, dropped or said, as with `kill -9`.
pub fn die() -> ! {
    std::process::abort()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passes_are_read() {
        for (name, point) in POINTS {
            assert_eq!(parse(name).unwrap().point, point);
            assert_eq!(parse(&format!("{name}:7")).unwrap().left.into_inner(), 7);
        }
        for wrong in ["", "nowhere", "state-part:", "state-part:0", "state-part:x"] {
            assert!(parse(wrong).unwrap_err().to_string().contains(VARIABLE), "{wrong}");
        }
    }
}
