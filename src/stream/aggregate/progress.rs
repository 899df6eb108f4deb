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
    /// All open windows close, since nothing has come for long, up to the last one of the view at least: what the view's aggregates give of one
    /// window comes together.
    pub quiet: Option<i64>,
}

impl Progress {
    /// Before any time.
    pub const NONE: Self = Self { passed: BEGINNING, closed: BEGINNING };

    /// How an epoch moves it on: `step` is how far the window's timeline has come; see [`Advance::quiet`].
    pub fn advance(self, window: Option<(&WindowKey, WatermarkStep)>, quiet: Option<i64>) -> Advance {
        let Some((WindowKey { lag, lateness, .. }, step)) = window else { return Advance { judged: self.closed, to: self, quiet: None } };
        let step = WatermarkStep { before: step.before.saturating_sub(*lag), after: step.after.saturating_sub(*lag) };
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
        if let Some(of_all) = self.quiet {
            let last = last.map_or(of_all, |last| last.max(of_all));
            self.to = Progress { passed: self.to.passed.max(last), closed: self.to.closed.max(last) };
        }
        self
    }
}
