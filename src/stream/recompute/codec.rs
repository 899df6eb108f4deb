//! An operator that recomputes as a descriptor.

use std::sync::Arc;

use datafusion::{common::Result, physical_plan::ExecutionPlan};
use serde::{Deserialize, Serialize};

use super::exec::{RecomputeExec, RecomputeSpec};
use crate::stream::{
    aggregate::WindowKey,
    codec::{Described, Reader, WindowFilter, Writer, only_input},
    epoch::{Operator, OperatorId},
};

/// What a [`RecomputeExec`] computes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Descriptor {
    id: OperatorId,
    keys: Vec<usize>,
    query: usize,
    filters: Vec<Filter>,
    visible: Vec<usize>,
    changing: bool,
    rows: usize,
    output: usize,
    window: Option<WindowKey>,
    whole: bool,
    shrinks: bool,
    over_nothing: bool,
    closes_when_quiet: bool,
    idle_after: Option<i64>,
    what: String,
}

/// A condition over columns.
#[derive(Debug, Serialize, Deserialize)]
struct Filter {
    condition: usize,
    columns: usize,
}

impl Described for RecomputeExec {
    type Descriptor = Descriptor;

    fn describe(&self, parts: &mut Writer) -> Result<Descriptor> {
        let RecomputeSpec { keys, query, filters, visible, changing, rows, output, window, whole, shrinks, over_nothing, closes_when_quiet, idle_after, what } =
            self.spec().as_ref();
        Ok(Descriptor {
            id: self.id(),
            keys: parts.expressions(keys)?,
            query: parts.plan(query, filters)?,
            filters: filters
                .iter()
                .map(|WindowFilter { condition, columns }| Ok(Filter { condition: parts.expression(condition)?, columns: parts.schema(columns)? }))
                .collect::<Result<_>>()?,
            visible: visible.clone(),
            changing: *changing,
            rows: parts.schema(rows)?,
            output: parts.schema(output)?,
            window: window.clone(),
            whole: *whole,
            shrinks: *shrinks,
            over_nothing: *over_nothing,
            closes_when_quiet: *closes_when_quiet,
            idle_after: *idle_after,
            what: what.clone(),
        })
    }

    fn build(descriptor: Descriptor, inputs: Vec<Arc<dyn ExecutionPlan>>, parts: &Reader) -> Result<Arc<dyn ExecutionPlan>> {
        let Descriptor { id, keys, query, filters, visible, changing, rows, output, window, whole, shrinks, over_nothing, closes_when_quiet, idle_after, what } =
            descriptor;
        let rows = parts.schema(rows)?;
        let spec = RecomputeSpec {
            keys: parts.expressions(&keys, &rows)?,
            query: parts.plan(query)?,
            filters: filters
                .into_iter()
                .map(|Filter { condition, columns }| {
                    let columns = parts.schema(columns)?;
                    Ok(WindowFilter { condition: parts.expression(condition, &columns)?, columns })
                })
                .collect::<Result<_>>()?,
            visible,
            changing,
            rows,
            output: parts.schema(output)?,
            window,
            whole,
            shrinks,
            over_nothing,
            closes_when_quiet,
            idle_after,
            what,
        };
        Ok(Arc::new(Self::new(id, only_input(inputs, "an operator that recomputes")?, Arc::new(spec))))
    }
}
