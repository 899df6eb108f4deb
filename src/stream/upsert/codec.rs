//! The operator that keeps the newest row of each key as a descriptor.

use std::sync::Arc;

use datafusion::{common::Result, physical_plan::ExecutionPlan};
use serde::{Deserialize, Serialize};

use super::{exec::UpsertExec, state::Shape};
use crate::stream::{
    codec::{Described, Reader, Writer, only_input},
    epoch::{Operator, OperatorId},
};

/// What an [`UpsertExec`] computes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Descriptor {
    id: OperatorId,
    shape: Shape,
    output: usize,
}

impl Described for UpsertExec {
    type Descriptor = Descriptor;

    fn describe(&self, parts: &mut Writer) -> Result<Descriptor> {
        Ok(Descriptor { id: self.id(), shape: self.shape.clone(), output: parts.schema(&self.output)? })
    }

    fn build(descriptor: Descriptor, inputs: Vec<Arc<dyn ExecutionPlan>>, parts: &Reader) -> Result<Arc<dyn ExecutionPlan>> {
        let Descriptor { id, shape, output } = descriptor;
        Ok(Arc::new(Self::new(id, only_input(inputs, "the newest rows")?, shape, parts.schema(output)?)))
    }
}
