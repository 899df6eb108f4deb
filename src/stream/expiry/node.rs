//! The logical node, and how it becomes a physical operator.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{DFSchema, DFSchemaRef, Result},
    logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, physical_planning_context::PhysicalPlanningContext},
    physical_plan::ExecutionPlan,
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};

use super::exec::ExpiryExec;
use crate::stream::{
    epoch::OperatorId,
    hidden::{is_hidden, weight_field},
    time::told,
};

/// Rows that leave so long after they came.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expiry {
    /// Its number within the view.
    pub id: OperatorId,
    /// What it reads.
    pub input: LogicalPlan,
    /// Nanoseconds that a row stays.
    pub ttl: i64,
    /// The input's visible columns and the weight.
    schema: DFSchemaRef,
}

impl Expiry {
    /// An operator over an input whose rows may go again.
    pub fn new(id: OperatorId, input: LogicalPlan, ttl: i64) -> Result<Self> {
        let visible = input.schema().iter().filter(|(_, field)| !is_hidden(field.name()));
        let mut fields: Vec<_> = visible.map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        fields.push((None, weight_field()));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { id, input, ttl, schema })
    }

    /// The column of the input that an output column is.
    pub fn below(&self, column: usize) -> Option<usize> {
        let fields = self.input.schema().fields().iter().enumerate();
        fields.filter(|(_, field)| !is_hidden(field.name())).map(|(at, _)| at).nth(column)
    }
}

impl PartialOrd for Expiry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Expiry {
    fn name(&self) -> &str {
        "Expiry"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Expiry: {} after it came", told(self.ttl))
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        Self::new(self.id, inputs.swap_remove(0), self.ttl)
    }
}

/// Plans [`Expiry`] nodes.
#[derive(Debug)]
pub struct ExpiryPlanner;

#[async_trait]
impl ExtensionPlanner for ExpiryPlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<Expiry>() else { return Ok(None) };
        Ok(Some(Arc::new(ExpiryExec::new(node.id, inputs[0].clone(), node.ttl, node.schema.inner().clone()))))
    }
}
