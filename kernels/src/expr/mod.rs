//! Expressions over columns: a filter and projections, compiled into one kernel at run time.
//!
//! An [`Expr`] is a tree of typed operations; its constructors refuse what doesn't fit. Its operations are those of SQL as DataFusion
//! computes them, and each says where it differs from what one might think. What isn't here doesn't exist: who translates an expression
//! says so. A [`Program`] is one filter and any number of projections, [`evaluate`] is its reference on the CPU, a row at a time, and
//! [`DeviceProgram`] runs the kernel that is generated of it ([`Program::text`] shows it).
//!
//! Where a row would be an error on the CPU, or where the bits of the result are the CPU's own affair, the whole batch is given back
//! ([`Faults`]): the caller has the CPU do it, which says what the error is. A batch may be given back although the CPU would have
//! skipped the row (both sides of an AND are always looked at, while the branches of a CASE are not unless they are taken); it is never
//! kept where the CPU would fail.

mod batch;
mod device;
mod generate;
mod program;
mod reference;
mod tree;
mod value;

pub use self::{
    batch::{Batch, Buffer, Column, EvaluateError, Evaluated, Faults, Projected, Values},
    device::{DeviceProgram, Evaluating},
    program::Program,
    reference::evaluate,
    tree::{Arithmetic, Comparison, Expr, Misfit, OutOfRange, Unit},
    value::{Type, Value},
};
