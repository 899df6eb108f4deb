//! The leaf of every streaming plan: a table whose scan reads this epoch's rows out of the task context.

use std::{collections::HashMap, fmt, sync::Arc};

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Result, internal_err, plan_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableType},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        memory::MemoryStream,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    codec::{Described, Reader, Writer},
    epoch::{EpochInput, select},
    hidden::{now_field, position_fields, row_field, weight_field},
    lineage::WindowColumn,
    plan::ViewPlan,
};
use crate::catalog::{Emit, SourceDef};

/// What is wanted of the rows that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The rows alone.
    Rows,
    /// Which rows of the epoch's input they are, too.
    Locators,
    /// And where their records stand, for aggregates that depend on the rows' order.
    Positions,
}

/// A source, or another view's changes, as a streaming plan sees it.
#[derive(Debug, Clone)]
pub struct StreamTable {
    /// Under which name the epoch carries its rows.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Columns beside them that every plan carries: the weight and pair of a changing input.
    pub hidden: Vec<FieldRef>,
    /// Columns that name a row of a source that is a table: a newer row takes the place of an older one. None for any other.
    pub key: Vec<String>,
    /// The column that the watermark follows.
    pub event_time: Option<String>,
    /// Columns of a view that are windows of its sources.
    pub windows: HashMap<String, WindowColumn>,
    /// All rows of a window come in one epoch, when it closes.
    pub whole_windows: bool,
    /// A view that gives nothing of a window before it closes.
    pub on_close: bool,
    /// Its rows are records: the epoch tells where they stand, and when they were read.
    pub records: bool,
    /// Not a stream: all rows are there.
    pub bounded: bool,
    /// A table of which a view gets all rows when it starts, and none afterwards.
    pub table: Option<Arc<dyn TableProvider>>,
}

impl StreamTable {
    /// A source's rows.
    pub fn over(source: &SourceDef) -> Self {
        Self {
            name: source.name.clone(),
            schema: source.schema(),
            hidden: vec![],
            records: true,
            key: source.key_names(),
            event_time: source.watermark.as_ref().map(|w| w.column.clone()),
            windows: HashMap::new(),
            whole_windows: false,
            on_close: false,
            bounded: false,
            table: None,
        }
    }

    /// What a view gives.
    pub fn over_view(name: &str, plan: &ViewPlan) -> Self {
        Self {
            name: name.into(),
            schema: plan.schema.clone(),
            hidden: if plan.changing { vec![weight_field()] } else { vec![] },
            records: false,
            key: vec![],
            event_time: None,
            windows: plan.windows.clone(),
            whole_windows: plan.whole_windows,
            on_close: plan.emit == Emit::OnWindowClose,
            bounded: false,
            table: None,
        }
    }

    /// A table that does not change.
    pub fn over_table(name: &str, table: Arc<dyn TableProvider>) -> Self {
        Self {
            name: name.into(),
            schema: table.schema(),
            hidden: vec![],
            records: false,
            key: vec![],
            event_time: None,
            windows: HashMap::new(),
            whole_windows: false,
            on_close: false,
            bounded: false,
            table: Some(table),
        }
    }

    /// The same table with its hidden columns, and what an aggregate above wants to know of the rows, among its columns; with `now` the
    /// time of the epoch, too.
    pub fn with_hidden(&self, wanted: Wanted, now: bool) -> Self {
        let mut fields = self.schema.fields().to_vec();
        fields.extend(self.hidden.iter().cloned());
        if wanted != Wanted::Rows {
            fields.push(row_field());
        }
        if wanted == Wanted::Positions {
            fields.extend(position_fields());
        }
        if now {
            fields.push(now_field());
        }
        Self { schema: Arc::new(Schema::new(fields)), hidden: vec![], ..self.clone() }
    }
}

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(&self, _: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => self.schema.clone(),
        };
        Ok(Arc::new(SliceExec::new(self.name.clone(), schema, self.bounded, self.table.clone())))
    }
}

/// Reads this epoch's rows of one input.
#[derive(Debug)]
pub struct SliceExec {
    name: String,
    schema: SchemaRef,
    bounded: bool,
    table: Option<Arc<dyn TableProvider>>,
    properties: Arc<PlanProperties>,
}

impl SliceExec {
    fn new(name: String, schema: SchemaRef, bounded: bool, table: Option<Arc<dyn TableProvider>>) -> Self {
        // Unbounded is an extra net only: it makes DataFusion refuse some plans that would break between epochs. The gate is ours.
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            if bounded { Boundedness::Bounded } else { Boundedness::Unbounded { requires_infinite_memory: false } },
        );
        Self { name, schema, bounded, table, properties: Arc::new(properties) }
    }

    /// Which input it reads.
    pub fn input(&self) -> &str {
        &self.name
    }

    /// The table whose rows it gives when the view starts, if it is no stream.
    pub fn table(&self) -> Option<&Arc<dyn TableProvider>> {
        self.table.as_ref()
    }

    /// Which columns it needs.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.schema.fields().iter().map(|f| f.name().as_str())
    }
}

/// What a [`SliceExec`] reads. The rows themselves travel with the epoch.
#[derive(Debug, Serialize, Deserialize)]
pub struct Descriptor {
    name: String,
    schema: usize,
    bounded: bool,
    /// The rows are those of a table of this name, which the reader has, too.
    of_table: bool,
}

impl Described for SliceExec {
    type Descriptor = Descriptor;

    fn describe(&self, parts: &mut Writer) -> Result<Descriptor> {
        Ok(Descriptor { name: self.name.clone(), schema: parts.schema(&self.schema)?, bounded: self.bounded, of_table: self.table.is_some() })
    }

    fn build(descriptor: Descriptor, inputs: Vec<Arc<dyn ExecutionPlan>>, parts: &Reader) -> Result<Arc<dyn ExecutionPlan>> {
        let Descriptor { name, schema, bounded, of_table } = descriptor;
        if !inputs.is_empty() {
            return plan_err!("the bytes of a plan give the rows of {name} an input");
        }
        let table = of_table.then(|| parts.table(&name)).transpose()?;
        Ok(Arc::new(Self::new(name, parts.schema(schema)?, bounded, table)))
    }
}

impl DisplayAs for SliceExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "SliceExec: {} [{}]", self.name, self.columns().collect::<Vec<_>>().join(", "))
    }
}

impl ExecutionPlan for SliceExec {
    fn name(&self) -> &str {
        "SliceExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>, _: ReplaceChildrenOptions) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("an epoch's rows are one partition");
        }
        let epoch = EpochInput::of(&context)?;
        let rows = epoch.rows.get(&self.name).map(|batches| batches.as_slice()).unwrap_or_default();
        let batches = rows.iter().filter(|b| b.num_rows() > 0).map(|batch| select(batch, &self.schema)).collect::<Result<Vec<_>>>()?;
        Ok(Box::pin(MemoryStream::try_new(batches, self.schema.clone(), None)?))
    }
}
