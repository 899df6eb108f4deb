//! The epoch engine: the clock, watermarks, stateful operators, state and checkpoints, published snapshots.
//! Knows no network protocol.
//!
//! * [`plan`]: a view's query becomes a plan that runs once an epoch ([`gate`] refuses, [`lineage`] follows columns, [`panes`] share what
//!   windows have in common, [`session_windows`] finds sessions, [`clock`] is
//!   `now()`, [`hidden`] are the columns beside the user's, [`slice`](mod@slice) is the leaf, [`aggregate`], [`join`], [`recompute`],
//!   [`temporal`] and [`upsert`] are the stateful operators, `relational` is the rewrite of what relations have beside aggregates and joins).
//!   [`codec`] makes bytes of it.
//! * [`time`] keeps watermarks.
//! * [`epoch`]: what an epoch brings to a plan; [`pipeline`]: sources and views from one epoch to the next.
//! * [`view`]: a running view; [`contents`]: what it holds; [`segments`]: how rows are held, [`row_index`]: how they are found; [`side_rows`]: late and bad ones.
//! * [`replace`]: what of a view outlives its definition.
//! * [`published`]: what readers see; [`changes`]: what followers get; [`outbox`]: what sinks have still to write.
//! * [`checkpoint`] (`s3`: where it is kept elsewhere), [`epoch_log`]: what outlives the process; [`failpoints`]: where a test lets it die.
//! * [`driver`]: the thread that cuts epochs; [`figures`]: what it and the views did, for whoever looks inside.

pub mod aggregate;
pub mod changes;
pub mod checkpoint;
pub mod clock;
pub mod codec;
pub mod contents;
pub mod decoding;
pub mod drift;
pub mod driver;
pub mod epoch;
pub mod epoch_log;
pub mod expiry;
pub mod failpoints;
pub mod figures;
pub mod gate;
pub mod hidden;
mod history;
mod idle_keys;
pub mod join;
mod key_map;
pub mod keyed_rows;
pub mod lineage;
mod lookup;
pub mod outbox;
pub mod panes;
pub mod pipeline;
mod placement;
pub mod plan;
pub mod published;
pub mod recompute;
mod relational;
pub mod replace;
pub mod row_index;
mod s3;
pub mod segments;
pub mod session_windows;
pub mod side_rows;
pub mod slice;
pub mod temporal;
pub mod temporal_join;
pub mod time;
pub mod upsert;
mod versions;
pub mod view;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
