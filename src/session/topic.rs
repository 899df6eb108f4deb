//! A topic as a table of an ordinary query: it sees the records that were there when it started, and ends. Of a source with a primary key
//! it is the newest row of each key.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray},
    datatypes::{Schema, SchemaRef},
    record_batch::{RecordBatch, RecordBatchOptions},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{Result as DataFusionResult, internal_err, tree_node::TreeNodeRecursion},
    execution::{SendableRecordBatchStream, TaskContext},
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_expr::expressions::Column as PhysicalColumn,
    physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr},
    physical_plan::projection::ProjectionExec,
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        execution_plan::{Boundedness, EmissionType},
        stream::RecordBatchReceiverStreamBuilder,
    },
};

use tidegate_kernels::device::Device;

use super::{engine::blocking, names::Pins, newest::NewestExec, seek, settings::Settings};
use crate::{
    catalog::{ColumnDef, Metadata, Origin, SourceDef},
    error::{Error, Result},
    source::{
        Slice,
        kafka::{Pace, ScanRange, Since, records_since, resolve_ranges, scan},
        registry::Needs,
    },
    stream::{
        decoding::{SourceDecoding, Wanted},
        driver::now_ms,
        hidden::gone_field,
        side_rows::{error_rows, error_schema},
        temporal_join::version_columns,
        upsert::Shape,
    },
};

/// For a limit up to this one reader is enough: more would each read as much, and be stopped.
const FEW_ROWS: usize = 10_000;

/// What of a topic is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The good rows.
    Rows,
    /// All good records of a source with a primary key, and whether each deletes its row.
    Versions,
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
    /// The topic of a source from its start offsets on, up to the epoch that the statement pins, or else to its end. `named` are
    /// columns that it has without declaring them, behind the declared ones.
    pub fn new(source: Arc<SourceDef>, named: &[ColumnDef], start: BTreeMap<i32, i64>, pins: Arc<Pins>, read: Read) -> Self {
        let undeclared: Vec<ColumnDef> = named.iter().filter(|column| source.column_index(&column.name).is_none()).cloned().collect();
        let source = match undeclared.is_empty() {
            true => source,
            false => Arc::new(SourceDef { columns: source.columns.iter().cloned().chain(undeclared).collect(), ..(*source).clone() }),
        };
        let schema = match read {
            Read::Rows => source.schema(),
            Read::Versions => {
                let fields = source.schema().fields().iter().cloned().chain(version_columns().into_iter().take(1)).collect::<Vec<_>>();
                Arc::new(Schema::new(fields))
            }
            Read::Errors => error_schema(),
        };
        Self { source, start, pins, read, schema }
    }

    /// The source whose rows it is; `None`: of its versions or errors.
    pub fn rows_of(&self) -> Option<&Arc<SourceDef>> {
        (self.read == Read::Rows).then_some(&self.source)
    }

    /// Whether its rows are the newest ones of their keys.
    fn is_keyed(&self) -> bool {
        self.read == Read::Rows && self.source.key.is_some()
    }

    /// Which metadata a column is.
    fn metadata(&self, column: &str) -> Option<Metadata> {
        match self.read {
            Read::Rows | Read::Versions => match &self.source.columns[self.source.column_index(column)?].origin {
                Origin::Metadata(metadata) => Some(*metadata),
                Origin::Payload { .. } | Origin::Header(_) | Origin::Unknown => None,
            },
            Read::Errors => match column {
                "partition" => Some(Metadata::Partition),
                "offset" => Some(Metadata::Offset),
                "timestamp" => Some(Metadata::Timestamp),
                _ => None,
            },
        }
    }

    /// What of the ranges can satisfy the filters.
    async fn sought(&self, ranges: BTreeMap<i32, ScanRange>, filters: &[Expr]) -> Result<BTreeMap<i32, ScanRange>> {
        let mut sought = BTreeMap::new();
        let mut times = BTreeMap::new();
        for (partition, range) in ranges {
            let Some(bounds) = seek::bounds(filters, &|column| self.metadata(column), partition) else { continue };
            let range = ScanRange { begin: range.begin.max(bounds.begin), end: range.end.min(bounds.end) };
            if range.begin < range.end {
                sought.insert(partition, range);
                // Before 1970 there is nothing.
                if bounds.since > 0 {
                    times.insert(partition, bounds.since);
                }
            }
        }
        if !times.is_empty() {
            let kafka = self.source.kafka.clone();
            for (partition, since) in blocking(move || records_since(&kafka, &times)).await?? {
                match since {
                    Since::At(offset) => {
                        if let Some(range) = sought.get_mut(&partition) {
                            range.begin = range.begin.max(offset);
                        }
                    }
                    Since::Nothing => drop(sought.remove(&partition)),
                    // Read and filtered.
                    Since::Unknown => {}
                }
            }
        }
        sought.retain(|_, range| range.begin < range.end);
        Ok(sought)
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

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DataFusionResult<Vec<TableProviderFilterPushDown>> {
        if self.is_keyed() {
            // A record that does not match takes the place of one that did.
            return Ok(vec![TableProviderFilterPushDown::Unsupported; filters.len()]);
        }
        let about_metadata = |filter: &&Expr| filter.column_refs().iter().any(|column| self.metadata(&column.name).is_some());
        // A seek only leaves out what can't match: the rows are filtered all the same.
        let answer = |seeks| if seeks { TableProviderFilterPushDown::Inexact } else { TableProviderFilterPushDown::Unsupported };
        Ok(filters.iter().map(|filter| answer(about_metadata(filter))).collect())
    }

    async fn scan(
        &self,
        session: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let mut columns: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let wanted = columns.clone();
        if self.read == Read::Versions {
            // It comes last, whatever else is read.
            columns.retain(|column| *column < self.source.columns.len());
        }
        // The number of rows is known only when all have been read.
        let limit = limit.filter(|_| !self.is_keyed());
        let shape = self.source.key.as_ref().filter(|_| self.is_keyed()).map(|key| {
            let output = (0..columns.len()).collect();
            let missing: Vec<usize> = key.columns.iter().copied().filter(|column| !columns.contains(column)).collect();
            columns.extend(missing);
            Shape { key: key.columns.iter().filter_map(|key| columns.iter().position(|column| column == key)).collect(), output }
        });
        let upto = self.pins.get(&self.source.name).map(|published| published.sources.get(&self.source.name).map(|s| s.offsets.clone()).unwrap_or_default());
        let (kafka, start) = (self.source.kafka.clone(), self.start.clone());
        let ranges = self.pins.ranges(&self.source.name, async move { blocking(move || resolve_ranges(&kafka, &start, upto.as_ref())).await? }).await?;
        let ranges = self.sought(ranges, filters).await?;
        // One reader a thread, the partitions dealt out to them.
        let most = if limit.is_some_and(|limit| limit <= FEW_ROWS) { 1 } else { session.config().target_partitions().max(1) };
        let readers = most.min(ranges.len().max(1));
        let mut groups: Vec<BTreeMap<i32, ScanRange>> = vec![BTreeMap::new(); readers];
        for (at, (partition, range)) in ranges.into_iter().enumerate() {
            groups[at % readers].insert(partition, range);
        }
        let columns_read = columns.clone();
        let topic = Arc::new(TopicExec::new(self.source.clone(), self.read, columns, groups, limit, &self.schema)?);
        match shape {
            None if self.read == Read::Versions => {
                let place = |column: &usize| columns_read.iter().position(|read| read == column).unwrap_or(columns_read.len());
                let exprs = wanted.iter().map(|column| {
                    let name = self.schema.field(*column).name();
                    (Arc::new(PhysicalColumn::new(name, place(column))) as Arc<dyn PhysicalExpr>, name.clone())
                });
                Ok(Arc::new(ProjectionExec::try_new(exprs.collect::<Vec<_>>(), topic)?))
            }
            None => Ok(topic),
            Some(shape) => Ok(Arc::new(NewestExec::new(topic, shape)?)),
        }
    }
}

/// Reads ranges of a topic. Where the source has a primary key, the last column of its rows tells which of them are gone.
#[derive(Debug)]
struct TopicExec {
    source: Arc<SourceDef>,
    read: Read,
    /// Positions in the table's schema, in the order of the output.
    columns: Vec<usize>,
    groups: Vec<BTreeMap<i32, ScanRange>>,
    /// So many rows are enough.
    limit: Option<usize>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl TopicExec {
    fn new(
        source: Arc<SourceDef>,
        read: Read,
        columns: Vec<usize>,
        groups: Vec<BTreeMap<i32, ScanRange>>,
        limit: Option<usize>,
        table: &Schema,
    ) -> DataFusionResult<Self> {
        let mut fields = table.project(&columns)?.fields().to_vec();
        match read {
            Read::Rows if source.key.is_some() => fields.push(gone_field()),
            Read::Versions => fields.extend(version_columns().into_iter().take(1)),
            Read::Rows | Read::Errors => {}
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema.clone()),
            Partitioning::UnknownPartitioning(groups.len()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { source, read, columns, groups, limit, schema, properties: Arc::new(properties) })
    }
}

impl DisplayAs for TopicExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let ranges: Vec<String> = self.groups.iter().flatten().map(|(p, r)| format!("{p}:{}..{}", r.begin, r.end)).collect();
        let columns: Vec<&str> = self.schema.fields().iter().map(|f| f.name().as_str()).collect();
        write!(f, "TopicExec: {} [{}], offsets [{}]", self.source.name, columns.join(", "), ranges.join(", "))?;
        self.limit.map_or(Ok(()), |limit| write!(f, ", limit {limit}"))
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

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let Some(ranges) = self.groups.get(partition).cloned() else { return internal_err!("topic reader {partition} does not exist") };
        let (source, read, columns, schema) = (self.source.clone(), self.read, self.columns.clone(), self.schema.clone());
        let wish = context.session_config().get_extension::<Settings>().map_or(Device::Cpu, |settings| settings.device);
        // A query's slices come one by one: too little for a GPU to be faster.
        let device = if wish == Device::Gpu { Device::Gpu } else { Device::Cpu };
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut builder = RecordBatchReceiverStreamBuilder::new(self.schema.clone(), 2);
        let output = builder.tx();
        builder.spawn_blocking(move || {
            let mut reader = SliceReader::new(&source, read, &columns, schema, device)?;
            let mut failure = None;
            // Nobody reads any more: the scan stops, and with it its consumer.
            let wanted = || !output.is_closed();
            let pace = Pace { records: left, wanted: &wanted };
            let losses = scan(&source.kafka, &ranges, &pace, |slice| match reader.read(&slice) {
                Ok(batch) if batch.num_rows() == 0 => wanted(),
                Ok(batch) => {
                    let batch = batch.slice(0, batch.num_rows().min(left));
                    left -= batch.num_rows();
                    output.blocking_send(Ok(batch)).is_ok() && left > 0
                }
                Err(error) => {
                    failure = Some(error);
                    false
                }
            })?;
            if let Some(error) = failure {
                return Err(error.into());
            }
            match losses.iter().find(|loss| loss.offsets().is_none()) {
                Some(loss) => {
                    Err(Error::External(format!("topic {} was made anew while it was read ({loss}): run the statement again", source.kafka.topic)).into())
                }
                None => {
                    losses.iter().for_each(|loss| tracing::warn!(source = source.name, "retention was faster than a query: {loss}"));
                    Ok(())
                }
            }
        });
        Ok(builder.build())
    }
}

/// Turns slices into the output's columns.
struct SliceReader {
    source: Arc<SourceDef>,
    read: Read,
    decoding: SourceDecoding,
    /// The schemas that the decoder looks up.
    needs: Needs,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl SliceReader {
    fn new(source: &Arc<SourceDef>, read: Read, columns: &[usize], schema: SchemaRef, device: Device) -> Result<Self> {
        let mut needed: Vec<usize> = if read == Read::Errors { vec![] } else { columns.to_vec() };
        needed.sort_unstable();
        needed.dedup();
        let decoding = SourceDecoding::new(Wanted { def: source.clone(), needed: needed.clone(), device })?;
        // Where each output column stands in what is decoded.
        let columns = if read == Read::Errors { columns.to_vec() } else { columns.iter().map(|c| needed.partition_point(|n| n < c)).collect() };
        Ok(Self { source: source.clone(), read, decoding, needs: Needs::of(source)?, columns, schema })
    }

    fn read(&mut self, slice: &Slice) -> Result<RecordBatch> {
        self.needs.fetch_for_all(&slice.records)?;
        let decoded = self.decoding.decode(std::slice::from_ref(slice), now_ms(), 1)?;
        let Some(decoded) = decoded.into_iter().next() else { return Err(Error::Internal("a slice of a topic was not decoded".into())) };
        let batch = match self.read {
            Read::Rows | Read::Versions => decoded.batch,
            Read::Errors => error_rows(&self.source.kafka.topic, slice, &decoded.errors)?,
        };
        let mut columns: Vec<ArrayRef> = self.columns.iter().map(|c| batch.column(*c).clone()).collect();
        if self.read != Read::Errors && self.source.key.is_some() {
            columns.push(Arc::new(BooleanArray::from(decoded.gone)));
        }
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(batch.num_rows())))?)
    }
}
