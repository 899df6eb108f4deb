//! The temporal filter: rows are there while the clock stands between two times that are worked out from the row itself, as in
//! `WHERE ts > now() - INTERVAL '5 minutes'`. A row comes in when the clock reaches the first and goes when it reaches the second, with
//! or without input.
//!
//! * `limit`: a comparison with `now()` as a limit on the clock.
//! * `node`: the logical node and its planning.
//! * `exec`: the physical operator; `codec`: as bytes.
//! * `state`: the rows that time will still move.

mod codec;
mod exec;
mod limit;
mod node;
mod state;

pub use exec::TemporalFilterExec;
pub use limit::{Limit, Side};
pub use node::{TemporalFilter, TemporalPlanner, described};
pub use state::TemporalState;
