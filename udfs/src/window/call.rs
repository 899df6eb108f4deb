//! Calls of the window functions, as a planner finds them in a plan.

use std::any::Any;

use datafusion::{
    common::plan_err,
    logical_expr::{Expr, WindowFunctionDefinition},
};

use super::{Bound, Windows, function::WindowFunction, interval_ns, session::SessionBound};

/// What a window function gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// The start of the one window that holds its argument, a time.
    Start,
    /// The end of the one window that holds its argument, a time.
    End,
    /// A list of the ends of all windows that hold its argument, a time.
    Ends,
    /// The start of the window that ends at its argument.
    StartOfEnd,
}

/// A call of a scalar window function.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowCall<'a> {
    /// What it gives.
    pub role: Role,
    /// The time, or for [`Role::StartOfEnd`] the window's end.
    pub argument: &'a Expr,
    /// The windows.
    pub windows: Windows,
}

impl<'a> WindowCall<'a> {
    /// Reads an expression that is such a call; an alias around it doesn't matter, anything else does.
    pub fn of(expr: &'a Expr) -> Option<Self> {
        let Expr::ScalarFunction(call) = unaliased(expr) else { return None };
        let implementation: &dyn Any = call.func.inner().as_ref();
        let function = implementation.downcast_ref::<WindowFunction>()?;
        let (argument, lengths) = call.args.split_first()?;
        let length = |_: &str, position: usize| match lengths.get(position).and_then(constant) {
            Some(ns) => Ok(ns),
            None => plan_err!("no constant"),
        };
        Some(Self { role: function.role, argument, windows: function.shape.windows(lengths.len(), length).ok()? })
    }
}

/// A call of `__session_start` or `__session_end` with its OVER clause.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionCall<'a> {
    /// Which end it gives.
    pub bound: Bound,
    /// The time.
    pub time: &'a Expr,
    /// How long nothing happens until a session is over, in nanoseconds; positive.
    pub gap_ns: i64,
    /// Each combination of these has sessions of its own.
    pub partition_by: &'a [Expr],
}

impl<'a> SessionCall<'a> {
    /// Reads an expression that is such a call; an alias around it doesn't matter, anything else does.
    pub fn of(expr: &'a Expr) -> Option<Self> {
        let Expr::WindowFunction(call) = unaliased(expr) else { return None };
        let WindowFunctionDefinition::WindowUDF(function) = &call.fun else { return None };
        let implementation: &dyn Any = function.inner().as_ref();
        let bound = implementation.downcast_ref::<SessionBound>()?.bound;
        let [time, gap] = call.params.args.as_slice() else { return None };
        let gap_ns = constant(gap).filter(|gap| *gap > 0)?;
        Some(Self { bound, time, gap_ns, partition_by: &call.params.partition_by })
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        other => other,
    }
}

fn constant(expr: &Expr) -> Option<i64> {
    match unaliased(expr) {
        Expr::Literal(value, _) => interval_ns(value),
        _ => None,
    }
}
