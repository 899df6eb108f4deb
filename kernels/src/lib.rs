//! The GPU side of Tidegate. It knows plan-free things only: devices, kernels, and each kernel's CPU reference. What comes out is laid out
//! as Arrow lays it out, and depends on no version of it.
//!
//! In the order a caller meets them:
//!
//! * [`device`]: is there a GPU, what is it, which device does a session's setting mean, and how is work done on one.
//! * [`json`]: JSON objects into columns.
//! * [`aggregate`]: rows into groups by key and time window.
//! * [`score`]: rows into scores, with a forest, boosted trees or a linear model.
//! * [`expr`]: a filter and projections, compiled at run time.
//!
//! Nothing of CUDA is needed to build this crate, and nothing of CUDA to run it: the driver is looked for at run time, and a machine
//! without one is told so in a sentence. Invariants: no call into this crate panics or ends the process for what a driver does or lacks;
//! a kernel gives what its reference gives, to the bit, or says that it gives nothing.

pub mod aggregate;
pub mod device;
pub mod expr;
pub mod json;
mod plain;
pub mod score;
