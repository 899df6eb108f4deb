//! The logical node, what stands for the table below it, and how it becomes a physical operator.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DFSchema, DFSchemaRef, Result, internal_err},
    logical_expr::{Expr, LogicalPlan, TableType, UserDefinedLogicalNode, UserDefinedLogicalNodeCore, physical_planning_context::PhysicalPlanningContext},
    physical_plan::ExecutionPlan,
    physical_planner::{ExtensionPlanner, PhysicalPlanner},
};

use super::exec::{TemporalJoinExec, TemporalJoinSpec};
use crate::{
    catalog::SourceDef,
    stream::{
        epoch::OperatorId,
        hidden::{is_hidden, weight_field},
        slice::StreamTable,
        time::Timeline,
    },
};

/// The columns that versions have beside those of their source: whether there is no row from then on, from when, and until when it is
/// valid, NULL for the last one.
pub fn version_columns() -> [FieldRef; 3] {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    [
        Arc::new(Field::new("_deleted", DataType::Boolean, false)),
        Arc::new(Field::new("_valid_from", time.clone(), false)),
        Arc::new(Field::new("_valid_to", time, true)),
    ]
}

/// All versions of the rows of a source with a primary key, as a streaming plan sees them: only a temporal join can read them.
#[derive(Debug)]
pub struct VersionsTable {
    /// The source's records.
    pub records: StreamTable,
    schema: SchemaRef,
}

impl VersionsTable {
    /// The versions of a source's rows.
    pub fn over(source: &SourceDef) -> Self {
        let records = StreamTable::over(source);
        let fields: Vec<FieldRef> = records.schema.fields().iter().cloned().chain(version_columns()).collect();
        Self { records, schema: Arc::new(Schema::new(fields)) }
    }
}

#[async_trait]
impl TableProvider for VersionsTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(&self, _: &dyn Session, _: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        internal_err!("versions are read by a temporal join")
    }
}

/// Rows of a stream, each with the version of a table's row that was valid at its time.
#[derive(Debug, Clone)]
pub struct TemporalJoin {
    /// Its number within the view.
    pub id: OperatorId,
    /// The append-only rows, and the versions.
    pub inputs: [LogicalPlan; 2],
    /// What is equal: an expression of each side.
    pub on: Vec<(Expr, Expr)>,
    /// When a left row asks.
    pub time: Expr,
    /// What else must hold.
    pub residual: Option<Expr>,
    /// A left row that matches nothing is shown all the same.
    pub outer: bool,
    /// What moves the left side's time along, and nanoseconds that its rows may trail it by.
    pub left_clock: Option<(Timeline, i64)>,
    /// What moves the versions' time along.
    pub right_clock: Timeline,
    /// Nanoseconds for which rows are taken after the watermark has passed them.
    pub lateness: i64,
    /// The visible columns of both sides, and the weight.
    schema: DFSchemaRef,
}

/// What a temporal join is made of, beside its inputs.
pub struct Parts {
    /// See [`TemporalJoin`].
    pub on: Vec<(Expr, Expr)>,
    /// See [`TemporalJoin`].
    pub time: Expr,
    /// See [`TemporalJoin`].
    pub residual: Option<Expr>,
    /// See [`TemporalJoin`].
    pub outer: bool,
    /// See [`TemporalJoin`].
    pub left_clock: Option<(Timeline, i64)>,
    /// See [`TemporalJoin`].
    pub right_clock: Timeline,
    /// See [`TemporalJoin`].
    pub lateness: i64,
}

impl TemporalJoin {
    /// A join of these inputs.
    pub fn new(id: OperatorId, inputs: [LogicalPlan; 2], parts: Parts) -> Result<Self> {
        let Parts { on, time, residual, outer, left_clock, right_clock, lateness } = parts;
        let mut fields = vec![];
        for (side, input) in inputs.iter().enumerate() {
            let visible = input.schema().iter().filter(|(_, field)| !is_hidden(field.name()));
            // In the state a row may stand without its partner.
            fields.extend(visible.map(|(qualifier, field)| match side {
                0 => (qualifier.cloned(), field.clone()),
                _ => (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))),
            }));
        }
        fields.push((None, weight_field()));
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        Ok(Self { id, inputs, on, time, residual, outer, left_clock, right_clock, lateness, schema })
    }

    /// The left column that an output column is, if it is one.
    pub fn left_below(&self, column: usize) -> Option<usize> {
        let fields = self.inputs[0].schema().fields().iter().enumerate();
        fields.filter(|(_, field)| !is_hidden(field.name())).map(|(at, _)| at).nth(column)
    }

    /// What moves the times of its rows along: both sides. `None` where the left side's time is not followed.
    pub fn timeline(&self) -> Option<(Timeline, i64)> {
        let (left, lag) = self.left_clock.clone()?;
        Some((left.and(self.right_clock.clone())?, lag))
    }

    /// What it does, told.
    pub fn told(&self) -> String {
        let on: Vec<String> = self.on.iter().map(|(left, right)| format!("{} = {}", left.human_display(), right.human_display())).collect();
        let residual = self.residual.iter().map(|e| format!(" AND {}", e.human_display())).collect::<String>();
        format!(
            "{} temporal join on [{}{residual}] as of {}, takes append-only rows and versions, gives changing rows",
            if self.outer { "left" } else { "inner" },
            on.join(" AND "),
            self.time.human_display()
        )
    }
}

impl PartialEq for TemporalJoin {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.on == other.on && self.time == other.time && self.residual == other.residual && self.inputs == other.inputs
    }
}

impl Eq for TemporalJoin {}

impl Hash for TemporalJoin {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
        self.on.hash(state);
        self.time.hash(state);
    }
}

impl PartialOrd for TemporalJoin {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (self == other).then_some(std::cmp::Ordering::Equal)
    }
}

impl UserDefinedLogicalNodeCore for TemporalJoin {
    fn name(&self) -> &str {
        "TemporalJoin"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        // Planned by the operator itself: nothing may be pushed through.
        vec![]
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TemporalJoin: {}", self.told())
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        match <[_; 2]>::try_from(inputs) {
            Ok(inputs) => Ok(Self { inputs, ..self.clone() }),
            Err(_) => internal_err!("a temporal join has two inputs"),
        }
    }
}

/// Plans [`TemporalJoin`] nodes.
#[derive(Debug)]
pub struct TemporalJoinPlanner;

#[async_trait]
impl ExtensionPlanner for TemporalJoinPlanner {
    async fn plan_extension(
        &self,
        planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<TemporalJoin>() else { return Ok(None) };
        let [left, right] = inputs else { return internal_err!("a temporal join has two inputs") };
        let visible = |side: usize| -> Vec<usize> {
            let fields = node.inputs[side].schema().fields().iter().enumerate();
            fields.filter(|(_, field)| !is_hidden(field.name())).map(|(at, _)| at).collect()
        };
        let side = |side: usize| -> Result<(DFSchema, SchemaRef)> {
            let of_plan = node.inputs[side].schema();
            let fields = visible(side).into_iter().map(|column| of_plan.qualified_field(column)).map(|(q, f)| (q.cloned(), f.clone())).collect();
            let logical = DFSchema::new_with_metadata(fields, Default::default())?;
            let physical = logical.inner().clone();
            Ok((logical, physical))
        };
        let ((left_schema, left_rows), (right_schema, right_rows)) = (side(0)?, side(1)?);
        let pairs = DFSchema::new_with_metadata(
            node.schema.iter().take(node.schema.fields().len() - 1).map(|(q, f)| (q.cloned(), f.clone())).collect(),
            Default::default(),
        )?;
        let of_right = |name: &str| right_rows.index_of(name);
        let spec = TemporalJoinSpec {
            on: node
                .on
                .iter()
                .map(|(left, right)| {
                    Ok((
                        planner.create_physical_expr(left, &left_schema, session, context)?,
                        planner.create_physical_expr(right, &right_schema, session, context)?,
                    ))
                })
                .collect::<Result<_>>()?,
            time: planner.create_physical_expr(&node.time, &left_schema, session, context)?,
            residual: node.residual.as_ref().map(|e| planner.create_physical_expr(e, &pairs, session, context)).transpose()?,
            gone: of_right("_deleted")?,
            from: of_right("_valid_from")?,
            left: left_rows,
            right: right_rows.clone(),
            visible: [visible(0), visible(1)],
            pairs: pairs.inner().clone(),
            outer: node.outer,
            left_clock: node.left_clock.clone(),
            right_clock: node.right_clock.clone(),
            lateness: node.lateness,
            output: node.schema.inner().clone(),
            what: node.told(),
        };
        Ok(Some(Arc::new(TemporalJoinExec::new(node.id, [left.clone(), right.clone()], Arc::new(spec)))))
    }
}
