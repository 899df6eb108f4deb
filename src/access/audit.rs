//! One log line for each login, change of what there is or of who may what, and denial.
//!
//! Lines have the target `tidegate::audit` and no secrets in them: who, from where, what, on what, and how it went.

use super::Caller;

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// They may not.
    Denied,
    /// It went wrong for another reason.
    Failed,
}

impl Outcome {
    fn word(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Denied => "denied",
            Outcome::Failed => "failed",
        }
    }
}

/// Logs what somebody did, or tried to.
pub fn audit(caller: &Caller, action: &str, object: &str, outcome: Outcome) {
    let from = caller.from.map(|address| address.to_string()).unwrap_or_default();
    // An object's name comes from outside: as a quoted text it can't forge another line.
    tracing::info!(target: "tidegate::audit", user = ?caller.who.to_string(), from, action, object = ?object, outcome = outcome.word());
}
