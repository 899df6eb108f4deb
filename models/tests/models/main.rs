//! The models crate through its front door. One program, since each test program links all of Arrow.

#![allow(clippy::unwrap_used)]

mod common;
mod forest;
mod linfa;
mod train;
