//! How far time has come for the windows of one aggregate.

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    stream::time::{BEGINNING, WatermarkStep},
};

use super::WindowKey;

#[cfg(test)]
use crate::stream::tests::mutants::Mutant;

/// What windows have been passed and closed, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Windows that end at or before it have been answered.
    pub passed: i64,
    /// Windows that end at or before it are closed for good; trails `passed` by the allowed lateness.
    pub closed: i64,
}

/// How far time comes with an epoch.
#[derive(Debug, Clone, Copy)]
pub struct Advance {
    /// Rows of windows that end at or before it are late.
    pub judged: i64,
    /// Where the epoch leads.
    pub to: Progress,
    /// All open windows close: nothing has come for long.
    pub quiet: bool,
}

impl Progress {
    /// Before any time.
    pub const NONE: Self = Self { passed: BEGINNING, closed: BEGINNING };

    /// How an epoch moves it on: `step` is how far the window's timeline has come.
    pub fn advance(self, window: Option<(&WindowKey, WatermarkStep)>, quiet: bool) -> Advance {
        let Some((WindowKey { lateness, .. }, step)) = window else { return Advance { judged: self.closed, to: self, quiet: false } };
        // What the logged watermark had closed before the epoch, and not what this epoch's rows say.
        let judged = step.before.saturating_sub(*lateness).max(self.closed);
        #[cfg(test)]
        let judged = if Mutant::LateAccepted.is_on() { BEGINNING } else { judged };
        let to = Self { passed: step.after.max(self.passed), closed: step.after.saturating_sub(*lateness).max(judged) };
        Advance { judged, to, quiet }
    }

    /// As a checkpoint holds it.
    pub fn meta(self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// From a checkpoint.
    pub fn restore(meta: &serde_json::Value) -> Result<Self> {
        Self::deserialize(meta).map_err(|e| Error::Internal(format!("a checkpoint's aggregate lacks its closing time: {e}")))
    }
}

impl Advance {
    /// Closes everything up to the last open window where nothing has come for long.
    pub fn closing(mut self, last: Option<i64>) -> Self {
        if let (true, Some(last)) = (self.quiet, last) {
            self.to = Progress { passed: self.to.passed.max(last), closed: self.to.closed.max(last) };
        }
        self
    }
}
