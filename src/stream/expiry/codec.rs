//! The operator that lets rows expire as a descriptor.

use std::sync::Arc;

use datafusion::{common::Result, physical_plan::ExecutionPlan};
use serde::{Deserialize, Serialize};

use super::exec::ExpiryExec;
use crate::stream::{
    codec::{Described, Reader, Writer, only_input},
    epoch::{Operator, OperatorId},
};

/// What an [`ExpiryExec`] computes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Descriptor {
    id: OperatorId,
    ttl: i64,
    output: usize,
}

impl Described for ExpiryExec {
    type Descriptor = Descriptor;

    fn describe(&self, parts: &mut Writer) -> Result<Descriptor> {
        Ok(Descriptor { id: self.id(), ttl: self.ttl(), output: parts.schema(&self.schema())? })
    }

    fn build(descriptor: Descriptor, inputs: Vec<Arc<dyn ExecutionPlan>>, parts: &Reader) -> Result<Arc<dyn ExecutionPlan>> {
        let Descriptor { id, ttl, output } = descriptor;
        Ok(Arc::new(Self::new(id, only_input(inputs, "rows that expire")?, ttl, parts.schema(output)?)))
    }
}
