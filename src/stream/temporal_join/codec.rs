//! A temporal join as a descriptor.

use std::sync::Arc;

use datafusion::{common::Result, physical_plan::ExecutionPlan};
use serde::{Deserialize, Serialize};

use super::exec::{TemporalJoinExec, TemporalJoinSpec};
use crate::stream::{
    codec::{Described, Reader, Writer},
    epoch::{Operator, OperatorId},
    time::Timeline,
};

/// What a [`TemporalJoinExec`] computes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Descriptor {
    id: OperatorId,
    left: usize,
    right: usize,
    visible: [Vec<usize>; 2],
    on: Vec<(usize, usize)>,
    time: usize,
    from: usize,
    gone: usize,
    residual: Option<usize>,
    pairs: usize,
    outer: bool,
    left_clock: Option<(Timeline, i64)>,
    right_clock: Timeline,
    lateness: i64,
    output: usize,
    what: String,
}

impl Described for TemporalJoinExec {
    type Descriptor = Descriptor;

    fn describe(&self, parts: &mut Writer) -> Result<Descriptor> {
        let TemporalJoinSpec { left, right, visible, on, time, from, gone, residual, pairs, outer, left_clock, right_clock, lateness, output, what } =
            self.spec().as_ref();
        Ok(Descriptor {
            id: self.id(),
            left: parts.schema(left)?,
            right: parts.schema(right)?,
            visible: visible.clone(),
            on: on.iter().map(|(left, right)| Ok((parts.expression(left)?, parts.expression(right)?))).collect::<Result<_>>()?,
            time: parts.expression(time)?,
            from: *from,
            gone: *gone,
            residual: residual.as_ref().map(|residual| parts.expression(residual)).transpose()?,
            pairs: parts.schema(pairs)?,
            outer: *outer,
            left_clock: left_clock.clone(),
            right_clock: right_clock.clone(),
            lateness: *lateness,
            output: parts.schema(output)?,
            what: what.clone(),
        })
    }

    fn build(descriptor: Descriptor, inputs: Vec<Arc<dyn ExecutionPlan>>, parts: &Reader) -> Result<Arc<dyn ExecutionPlan>> {
        let Descriptor { id, left, right, visible, on, time, from, gone, residual, pairs, outer, left_clock, right_clock, lateness, output, what } = descriptor;
        let (left, right, pairs) = (parts.schema(left)?, parts.schema(right)?, parts.schema(pairs)?);
        let Ok(inputs) = <[_; 2]>::try_from(inputs) else {
            return datafusion::common::plan_err!("the bytes of a plan give a temporal join another number of inputs than two");
        };
        let spec = TemporalJoinSpec {
            on: on.into_iter().map(|(l, r)| Ok((parts.expression(l, &left)?, parts.expression(r, &right)?))).collect::<Result<_>>()?,
            time: parts.expression(time, &left)?,
            residual: residual.map(|residual| parts.expression(residual, &pairs)).transpose()?,
            output: parts.schema(output)?,
            left,
            right,
            visible,
            from,
            gone,
            pairs,
            outer,
            left_clock,
            right_clock,
            lateness,
            what,
        };
        Ok(Arc::new(Self::new(id, inputs, Arc::new(spec))))
    }
}
