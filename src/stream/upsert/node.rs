//! The logical node that keeps the newest row of each key, and how it becomes a physical operator.

use std::{collections::HashSet, fmt, sync::Arc};

use async_trait::async_trait;
use datafusion::{
    catalog::Session,
    common::{DFSchema, DFSchemaRef, Result, internal_err},
    logical_expr::{Expr, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, physical_planning_context::PhysicalPlanningContext},
    physical_plan::ExecutionPlan,
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};

use super::{exec::UpsertExec, state::Shape};
use crate::stream::{epoch::OperatorId, hidden::weight_field};

/// Records as changes of the rows that they name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Upsert {
    id: OperatorId,
    input: LogicalPlan,
    shape: Shape,
    schema: DFSchemaRef,
}

impl Upsert {
    /// The operator over a leaf, which gives its columns `output` and the weight.
    pub fn new(id: OperatorId, input: LogicalPlan, shape: Shape) -> Result<Self> {
        let columns: Vec<_> = input.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        let mut fields: Vec<_> = shape.output.iter().map(|&column| columns[column].clone()).collect();
        fields.push((None, weight_field()));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { id, input, shape, schema })
    }

    /// Where the columns of the key stand in its output; `None` for one that nobody above needs.
    pub fn key(&self) -> Vec<Option<usize>> {
        self.shape.key.iter().map(|column| self.shape.output.iter().position(|output| output == column)).collect()
    }
}

impl PartialOrd for Upsert {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for Upsert {
    fn name(&self) -> &str {
        "Upsert"
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

    fn prevent_predicate_push_down_columns(&self) -> HashSet<String> {
        // A row that is not wanted must still take the place of one that was.
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let columns = self.input.schema().columns();
        let key: Vec<&str> = self.shape.key.iter().map(|&column| columns[column].name.as_str()).collect();
        write!(f, "Upsert: newest row by [{}]", key.join(", "))
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        Self::new(self.id, inputs.swap_remove(0), self.shape.clone())
    }
}

/// Plans [`Upsert`] nodes.
#[derive(Debug)]
pub struct UpsertPlanner;

#[async_trait]
impl ExtensionPlanner for UpsertPlanner {
    async fn plan_extension(
        &self,
        _: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _: &dyn Session,
        _: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<Upsert>() else { return Ok(None) };
        let [input] = inputs else { return internal_err!("the newest rows are those of one input") };
        Ok(Some(Arc::new(UpsertExec::new(node.id, input.clone(), node.shape.clone(), node.schema.inner().clone()))))
    }
}
