//! The join of two streams. Each side keeps its rows; per epoch the rows that came or went on one side meet the rows of the other:
//! ΔL⋈R + L⋈ΔR + ΔL⋈ΔR. Cost follows what changed and what it matches, never the whole state.
//!
//! * `bound`: what a join's conditions say about time, and so when a row can match nothing any more.
//! * `node`: the logical node and its planning.
//! * `spec`: the join with its expressions compiled.
//! * `exec`: the physical operator; `codec`: as bytes.
//! * `delta`: an epoch's rows of one side.
//! * `done`: tells which rows are done with.
//! * `side`: one side's rows between epochs.
//! * `state`: both sides, and what an epoch makes of them.
//! * `output`: what is emitted.

mod bound;
mod codec;
mod delta;
mod done;
mod exec;
mod node;
mod output;
mod side;
mod spec;
mod state;

pub use bound::{Bounds, Clock, Expiry};
pub use exec::StreamJoinExec;
pub use node::{JoinPlanner, StreamJoin};
