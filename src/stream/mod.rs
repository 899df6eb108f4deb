//! The epoch engine: the clock, watermarks, stateful operators, state and checkpoints, published snapshots.
//! Knows no network protocol.
