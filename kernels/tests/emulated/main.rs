//! Every kernel against its CPU reference, to the bit, on random inputs: the `.cu` files as they are, compiled for the CPU, behind a
//! stand-in driver, so that the whole way of a batch through the device's thread and slots is the real one.

#![allow(clippy::unwrap_used)]

#[path = "../common/emulator.rs"]
mod emulator;
#[path = "../common/random.rs"]
mod random;

#[path = "../common/expressions.rs"]
mod expressions;

mod aggregate;
mod expr;
mod json;
mod score;
