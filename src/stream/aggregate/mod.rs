//! The streaming aggregate. Per epoch each group that was touched is read from the state log, merged with the epoch's partial
//! result, evaluated and appended again: cost follows touched groups, not all groups.
//!
//! * `node`: the logical node and its planning.
//! * `spec`: what is computed, and the partial aggregation of an epoch's rows.
//! * `exec`: the physical operator; `codec`: as bytes.
//! * `progress`: how far time has come.
//! * `state`: the groups between epochs; `sessions`: the same for windows that the rows make themselves.

mod codec;
mod exec;
mod node;
mod progress;
mod sessions;
mod spec;
mod state;

pub use exec::StreamAggregateExec;
pub use node::{AggregatePlanner, Emission, Panes, Sessions, StreamAggregate, WindowKey};
pub use progress::{Advance, Progress};
pub use spec::AggregateSpec;
