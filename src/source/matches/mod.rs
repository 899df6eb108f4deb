//! Football matches as a stream: a folder of StatsBomb's open data replayed, or matches made up by seed.
//!
//! Both are iterators of [`MatchEvent`] that know nothing of Kafka: `crate::source::producer` sends them, a benchmark reads
//! them from memory. [`event`] says what a record holds, `interleave` in what order matches that overlap go out.

pub mod event;
mod folder;
mod interleave;
mod raw;
pub mod replay;
pub mod simulate;

pub use event::{DEFAULT_KICK_OFF_MS, MatchEvent, parse_kick_off};
pub use interleave::Order;
pub use replay::{Replay, ReplayOptions};
pub use simulate::{SimulateOptions, SimulatedMatches};
