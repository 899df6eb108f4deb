//! A streaming aggregate as a descriptor.

use std::sync::Arc;

use datafusion::{common::Result, physical_plan::ExecutionPlan};
use serde::{Deserialize, Serialize};

use super::{
    exec::StreamAggregateExec,
    node::{Emission, Sessions, WindowKey},
    spec::{AggregateSpec, Computed},
};
use crate::stream::{
    codec::{Call, Described, Reader, Writer, only_input},
    epoch::{Operator, OperatorId},
};

/// What a [`StreamAggregateExec`] computes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Descriptor {
    id: OperatorId,
    groups: Vec<usize>,
    aggregates: Vec<Call>,
    filters: Vec<Option<usize>>,
    /// The aggregate looks at its input's columns under these names.
    input: usize,
    output: usize,
    window: Option<WindowKey>,
    sessions: Option<Sessions>,
    emission: Emission,
    counted: bool,
    closes_when_quiet: bool,
    idle_after: Option<i64>,
}

impl Described for StreamAggregateExec {
    type Descriptor = Descriptor;

    fn describe(&self, parts: &mut Writer) -> Result<Descriptor> {
        let AggregateSpec {
            groups,
            aggregates,
            filters,
            input,
            output,
            window,
            sessions,
            emission,
            counted,
            closes_when_quiet,
            idle_after,
            // These follow from the others.
            state_widths: _,
            key: _,
            partial: _,
            stored: _,
            kept: _,
        } = self.spec().as_ref();
        Ok(Descriptor {
            id: self.id(),
            groups: parts.expressions(groups)?,
            aggregates: aggregates.iter().map(|call| parts.call(call)).collect::<Result<_>>()?,
            filters: filters.iter().map(|filter| filter.as_ref().map(|filter| parts.expression(filter)).transpose()).collect::<Result<_>>()?,
            input: parts.schema(input)?,
            output: parts.schema(output)?,
            window: window.clone(),
            sessions: sessions.clone(),
            emission: *emission,
            counted: *counted,
            closes_when_quiet: *closes_when_quiet,
            idle_after: *idle_after,
        })
    }

    fn build(descriptor: Descriptor, inputs: Vec<Arc<dyn ExecutionPlan>>, parts: &Reader) -> Result<Arc<dyn ExecutionPlan>> {
        let Descriptor { id, groups, aggregates, filters, input, output, window, sessions, emission, counted, closes_when_quiet, idle_after } = descriptor;
        let columns = parts.schema(input)?;
        let spec = AggregateSpec::new(Computed {
            groups: parts.expressions(&groups, &columns)?,
            aggregates: aggregates.iter().map(|call| Ok(Arc::new(parts.call(call, &columns)?))).collect::<Result<_>>()?,
            filters: filters.into_iter().map(|filter| filter.map(|filter| parts.expression(filter, &columns)).transpose()).collect::<Result<_>>()?,
            output: parts.schema(output)?,
            input: columns,
            window,
            sessions,
            emission,
            counted,
            closes_when_quiet,
            idle_after,
        })?;
        Ok(Arc::new(Self::new(id, only_input(inputs, "a streaming aggregate")?, Arc::new(spec))))
    }
}
