//! Keeps the answer of an ordinary query over changing rows, key by key: the rows of the keys that an epoch touches go through the query
//! before and after it, and the difference is given. Right for every query that answers for each key alone: window functions that
//! partition by it, aggregates that group by it, the first rows of an order (where there is one key, the empty one). Costs the rows of the
//! touched keys.
//!
//! * `node`: the logical node and its planning.
//! * `exec`: the physical operator; `codec`: as bytes.
//! * `state`: the rows by key.

mod codec;
mod exec;
mod node;
mod state;

pub use exec::RecomputeExec;
pub use node::{ROWS, Recompute, RecomputePlanner, leaf};
