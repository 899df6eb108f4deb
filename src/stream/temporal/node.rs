//! The logical node of a temporal filter, and how it becomes a physical operator.

use std::{collections::HashSet, fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{DFSchema, DFSchemaRef, Result, internal_err},
    logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, physical_planning_context::PhysicalPlanningContext},
    physical_plan::ExecutionPlan,
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};

use super::{
    exec::{PhysicalLimit, TemporalFilterExec},
    limit::Limit,
};
use crate::stream::{
    epoch::OperatorId,
    hidden::{WEIGHT, has, weight_field},
};

/// Rows that are there while the clock stands between two limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TemporalFilter {
    /// Its number within the view, once it has one: from then on its output's last column is the weight.
    id: Option<OperatorId>,
    input: LogicalPlan,
    limits: Vec<Limit>,
    schema: DFSchemaRef,
}

impl TemporalFilter {
    /// The filter as it is found in a query.
    pub fn found(input: LogicalPlan, limits: Vec<Limit>) -> Self {
        Self { id: None, schema: input.schema().clone(), input, limits }
    }

    /// The filter as an operator of a view, over an input that may be a changing one.
    pub fn numbered(&self, id: OperatorId, input: LogicalPlan) -> Result<Self> {
        let schema = match has(input.schema(), WEIGHT) {
            true => input.schema().clone(),
            false => {
                let mut fields: Vec<_> = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
                fields.push((None, weight_field()));
                Arc::new(DFSchema::new_with_metadata(fields, Default::default())?)
            }
        };
        Ok(Self { id: Some(id), schema, input, limits: self.limits.clone() })
    }

    /// What it reads.
    pub fn input(&self) -> &LogicalPlan {
        &self.input
    }

    /// When a row is there.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }
}

impl PartialOrd for TemporalFilter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for TemporalFilter {
    fn name(&self) -> &str {
        "TemporalFilter"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        self.limits.iter().map(|limit| limit.at.clone()).collect()
    }

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        // What can be told of a row alone is better told before it waits here.
        HashSet::new()
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        Some(vec![output_columns.to_vec()])
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TemporalFilter: {}", described(&self.limits))
    }

    fn with_exprs_and_inputs(&self, exprs: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        let limits = self.limits.iter().zip(exprs).map(|(limit, at)| Limit { at, ..limit.clone() }).collect();
        let filter = Self::found(inputs.swap_remove(0), limits);
        match self.id {
            None => Ok(filter),
            Some(id) => filter.numbered(id, filter.input.clone()),
        }
    }
}

/// The limits, told.
pub fn described(limits: &[Limit]) -> String {
    limits.iter().map(ToString::to_string).collect::<Vec<_>>().join(" AND ")
}

/// Plans [`TemporalFilter`] nodes.
#[derive(Debug)]
pub struct TemporalPlanner;

#[async_trait]
impl ExtensionPlanner for TemporalPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<TemporalFilter>() else { return Ok(None) };
        let Some(id) = node.id else { return internal_err!("a temporal filter was planned without a number") };
        let schema = node.input.schema();
        let limits = node
            .limits
            .iter()
            .map(|limit| Ok(PhysicalLimit { side: limit.side, at: planner.create_physical_expr(&limit.at, schema, session, context)?, offset: limit.offset }))
            .collect::<Result<Vec<_>>>()?;
        Ok(Some(Arc::new(TemporalFilterExec::new(id, inputs[0].clone(), limits, described(&node.limits), node.schema.inner().clone()))))
    }
}
