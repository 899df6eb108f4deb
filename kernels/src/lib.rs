//! The GPU side of Tidegate. It knows Arrow-free, plan-free things only: devices, kernels, and each kernel's CPU reference.
//!
//! In the order a caller meets them:
//!
//! * [`device`]: is there a GPU, what is it, and which device does a session's setting mean.
//!
//! Nothing of CUDA is needed to build this crate, and nothing of CUDA to run it: the driver is looked for at run time, and a machine
//! without one is told so in a sentence. Invariant: no call into this crate panics or ends the process for what a driver does or lacks.

pub mod device;
