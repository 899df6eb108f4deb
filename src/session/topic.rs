//! A topic as a table of an ordinary query: it sees the records that were there when it started, and ends.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow::{
    datatypes::{Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Result as DataFusionResult, internal_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableType},
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchReceiverStreamBuilder,
    },
};

use super::{engine::blocking, names::Pins};
use crate::{
    catalog::SourceDef,
    decode::Decoder,
    error::Result,
    source::{
        Slice,
        kafka::{ScanRange, resolve_ranges, scan},
    },
    stream::{
        driver::now_ms,
        side_rows::{error_rows, error_schema},
    },
};

/// What of a topic is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The good rows.
    Rows,
    /// The bad records.
    Errors,
}

/// A topic as a table.
#[derive(Debug)]
pub struct TopicTable {
    source: Arc<SourceDef>,
    start: BTreeMap<i32, i64>,
    pins: Arc<Pins>,
    read: Read,
    schema: SchemaRef,
}

impl TopicTable {
    /// The topic of a source from its start offsets on, up to the epoch that the statement pins, or else to its end.
    pub fn new(source: Arc<SourceDef>, start: BTreeMap<i32, i64>, pins: Arc<Pins>, read: Read) -> Self {
        let schema = match read {
            Read::Rows => source.schema(),
            Read::Errors => error_schema(),
        };
        Self { source, start, pins, read, schema }
    }
}

#[async_trait]
impl TableProvider for TopicTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(&self, session: &dyn Session, projection: Option<&Vec<usize>>, _: &[Expr], _: Option<usize>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let columns: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let upto = self.pins.get(&self.source.name).map(|published| published.sources.get(&self.source.name).map(|s| s.offsets.clone()).unwrap_or_default());
        let (kafka, start) = (self.source.kafka.clone(), self.start.clone());
        let ranges = self.pins.ranges(&self.source.name, async move { blocking(move || resolve_ranges(&kafka, &start, upto.as_ref())).await? }).await?;
        // One reader a thread, the partitions dealt out to them.
        let readers = session.config().target_partitions().clamp(1, ranges.len().max(1));
        let mut groups: Vec<BTreeMap<i32, ScanRange>> = vec![BTreeMap::new(); readers];
        for (at, (partition, range)) in ranges.into_iter().enumerate() {
            groups[at % readers].insert(partition, range);
        }
        Ok(Arc::new(TopicExec::new(self.source.clone(), self.read, columns, groups, &self.schema)?))
    }
}

/// Reads ranges of a topic.
#[derive(Debug)]
struct TopicExec {
    source: Arc<SourceDef>,
    read: Read,
    /// Positions in the table's schema, in the order of the output.
    columns: Vec<usize>,
    groups: Vec<BTreeMap<i32, ScanRange>>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl TopicExec {
    fn new(source: Arc<SourceDef>, read: Read, columns: Vec<usize>, groups: Vec<BTreeMap<i32, ScanRange>>, table: &Schema) -> DataFusionResult<Self> {
        let schema: SchemaRef = Arc::new(table.project(&columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(groups.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { source, read, columns, groups, schema, properties: Arc::new(properties) })
    }
}

impl DisplayAs for TopicExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let ranges: Vec<String> = self.groups.iter().flatten().map(|(p, r)| format!("{p}:{}..{}", r.begin, r.end)).collect();
        let columns: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        write!(f, "TopicExec: {} [{}], offsets [{}]", self.source.name, columns.join(", "), ranges.join(", "))
    }
}

impl ExecutionPlan for TopicExec {
    fn name(&self) -> &str {
        "TopicExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(&self, _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>, _: ReplaceChildrenOptions) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let Some(ranges) = self.groups.get(partition).cloned() else { return internal_err!("topic reader {partition} does not exist") };
        let (source, read, columns, schema) = (self.source.clone(), self.read, self.columns.clone(), self.schema.clone());
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema.clone(), 2);
        let output = builder.tx();
        builder.spawn_blocking(move || {
            let mut reader = SliceReader::new(&source, read, &columns, schema)?;
            let mut failure = None;
            scan(&source.kafka, &ranges, |slice| match reader.read(&slice) {
                // A send fails when nobody reads any more: the scan stops.
                Ok(batch) if batch.num_rows() == 0 => !output.is_closed(),
                Ok(batch) => output.blocking_send(Ok(batch)).is_ok(),
                Err(error) => {
                    failure = Some(error);
                    false
                }
            })?;
            failure.map_or(Ok(()), |error| Err(error.into()))
        });
        Ok(builder.build())
    }
}

/// Turns slices into the output's columns.
struct SliceReader {
    source: Arc<SourceDef>,
    read: Read,
    decoder: Decoder,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl SliceReader {
    fn new(source: &Arc<SourceDef>, read: Read, columns: &[usize], schema: SchemaRef) -> Result<Self> {
        let mut needed: Vec<usize> = if read == Read::Rows { columns.to_vec() } else { vec![] };
        needed.sort_unstable();
        needed.dedup();
        let decoder = Decoder::new(source, &needed)?;
        // Where each output column stands in what is decoded.
        let columns = if read == Read::Rows { columns.iter().map(|c| needed.partition_point(|n| n < c)).collect() } else { columns.to_vec() };
        Ok(Self { source: source.clone(), read, decoder, columns, schema })
    }

    fn read(&mut self, slice: &Slice) -> Result<RecordBatch> {
        let decoded = self.decoder.decode(slice.partition, &slice.records, now_ms())?;
        let batch = match self.read {
            Read::Rows => decoded.batch,
            Read::Errors => error_rows(&self.source.kafka.topic, slice, &decoded.errors)?,
        };
        let columns = self.columns.iter().map(|c| batch.column(*c).clone()).collect();
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(batch.num_rows())))?)
    }
}
