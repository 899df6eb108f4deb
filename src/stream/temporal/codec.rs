//! A temporal filter as a descriptor.

use std::sync::Arc;

use datafusion::{common::Result, physical_plan::ExecutionPlan};
use serde::{Deserialize, Serialize};

use super::{
    exec::{PhysicalLimit, TemporalFilterExec},
    limit::Side,
};
use crate::stream::{
    codec::{Described, Reader, Writer, only_input},
    epoch::{Operator, OperatorId},
};

/// What a [`TemporalFilterExec`] computes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Descriptor {
    id: OperatorId,
    limits: Vec<Limit>,
    description: String,
    output: usize,
}

#[derive(Debug, Serialize, Deserialize)]
struct Limit {
    side: Side,
    at: usize,
    offset: i64,
}

impl Described for TemporalFilterExec {
    type Descriptor = Descriptor;

    fn describe(&self, parts: &mut Writer) -> Result<Descriptor> {
        let limits = self.limits.iter().map(|PhysicalLimit { side, at, offset }| Ok(Limit { side: *side, at: parts.expression(at)?, offset: *offset }));
        Ok(Descriptor { limits: limits.collect::<Result<_>>()?, id: self.id(), description: self.description.clone(), output: parts.schema(&self.output)? })
    }

    fn build(descriptor: Descriptor, inputs: Vec<Arc<dyn ExecutionPlan>>, parts: &Reader) -> Result<Arc<dyn ExecutionPlan>> {
        let Descriptor { id, limits, description, output } = descriptor;
        let input = only_input(inputs, "a temporal filter")?;
        let columns = input.schema();
        let limits = limits.into_iter().map(|Limit { side, at, offset }| Ok(PhysicalLimit { side, at: parts.expression(at, &columns)?, offset }));
        let limits = limits.collect::<Result<_>>()?;
        Ok(Arc::new(Self::new(id, input, limits, description, parts.schema(output)?)))
    }
}
