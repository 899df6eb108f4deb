//! A backend on a plain DataFusion session, with a few statements of its own that tests need.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use datafusion::{
    common::ParamValues,
    logical_expr::{LogicalPlan, WriteOp},
    physical_plan::stream::RecordBatchStreamAdapter,
    prelude::{SessionConfig, SessionContext},
    scalar::ScalarValue,
};
use futures::StreamExt;

use crate::{
    access::{Access, AccessConfig, Caller},
    error::{Error, Result},
    serve::{Backend, Frontend},
    session::{Clients, Delivery, Outcome, Prepared, TableInfo, Upload},
};

/// The backend; all its sessions share the tables.
pub struct Double {
    context: SessionContext,
    /// How many statements that are no query were executed.
    pub executed: Arc<AtomicUsize>,
    /// How many `SLOW` statements came to their end.
    pub finished: Arc<AtomicUsize>,
    /// How many unbounded streams are alive.
    pub alive: Arc<AtomicUsize>,
    /// Who is let in.
    pub access: Arc<Access>,
    /// How results travel.
    pub delivery: parking_lot::Mutex<Delivery>,
    /// What clients have taken.
    pub clients: Arc<Clients>,
    /// How many sessions were made.
    pub sessions: AtomicUsize,
}

impl Double {
    pub fn new() -> Arc<Self> {
        let context = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true).with_default_catalog_and_schema("tidegate", "public"));
        Arc::new(Self {
            context,
            executed: Arc::default(),
            finished: Arc::default(),
            alive: Arc::default(),
            access: Access::fleeting(AccessConfig::default()).unwrap(),
            delivery: parking_lot::Mutex::default(),
            clients: Arc::default(),
            sessions: AtomicUsize::new(0),
        })
    }
}

impl Backend for Double {
    fn access(&self) -> Arc<Access> {
        self.access.clone()
    }

    fn clients(&self) -> Arc<Clients> {
        self.clients.clone()
    }

    fn session(self: Arc<Self>, _: Caller) -> Arc<dyn Frontend> {
        self.sessions.fetch_add(1, Ordering::SeqCst);
        Arc::new(DoubleSession(self))
    }
}

struct DoubleSession(Arc<Double>);

/// Counts a stream while it lives.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The schema of `SUBSCRIBE n`.
fn ticks() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]))
}

impl DoubleSession {
    async fn plan(&self, sql: &str) -> Result<LogicalPlan> {
        // The engine numbers question marks; so does this.
        let mut numbered = String::new();
        let mut count = 0;
        for character in sql.chars() {
            if character == '?' {
                count += 1;
                numbered.push_str(&format!("${count}"));
            } else {
                numbered.push(character);
            }
        }
        Ok(self.0.context.state().create_logical_plan(&numbered).await?)
    }

    /// `SUBSCRIBE n` sends n rows, one a batch, and then is silent for ever.
    fn subscription(sql: &str) -> Option<i64> {
        sql.strip_prefix("SUBSCRIBE ")?.parse().ok()
    }
}

fn is_query(plan: &LogicalPlan) -> bool {
    !matches!(plan, LogicalPlan::Ddl(_) | LogicalPlan::Statement(_))
        && !matches!(plan, LogicalPlan::Dml(dml) if matches!(dml.op, WriteOp::Insert(_) | WriteOp::Delete | WriteOp::Update))
}

#[async_trait::async_trait]
impl Frontend for DoubleSession {
    async fn prepare(&self, sql: &str) -> Result<Prepared> {
        if Self::subscription(sql).is_some() {
            return Ok(Prepared {
                sql: sql.into(),
                schema: ticks(),
                parameters: Arc::new(Schema::empty()),
                is_query: true,
                is_unbounded: true,
                is_divisible: false,
            });
        }
        match sql {
            "SLOW" => {
                let empty = Arc::new(Schema::empty());
                return Ok(Prepared { sql: sql.into(), schema: empty.clone(), parameters: empty, is_query: false, is_unbounded: false, is_divisible: false });
            }
            "FAIL invalid" => return Err(Error::Invalid("no such thing".into())),
            "FAIL missing" => return Err(Error::NotFound("view 'x' does not exist".into())),
            "FAIL external" => return Err(Error::External("broker down".into())),
            "FAIL long" => return Err(Error::Invalid("é".repeat(100_000))),
            "FAIL later" | "PANIC later" => {
                let schema = ticks();
                return Ok(Prepared {
                    sql: sql.into(),
                    schema,
                    parameters: Arc::new(Schema::empty()),
                    is_query: true,
                    is_unbounded: false,
                    is_divisible: false,
                });
            }
            _ => {}
        }
        let plan = self.plan(sql).await?;
        let mut types: Vec<(usize, DataType)> =
            plan.get_parameter_types()?.into_iter().map(|(name, data_type)| (name[1..].parse().unwrap(), data_type.unwrap_or(DataType::Null))).collect();
        types.sort_by_key(|(number, _)| *number);
        let parameters = types.into_iter().map(|(number, data_type)| Field::new(format!("${number}"), data_type, true)).collect::<Vec<_>>();
        let is_query = is_query(&plan);
        let schema = if is_query { Arc::new(plan.schema().as_arrow().clone()) } else { Arc::new(Schema::empty()) };
        Ok(Prepared { sql: sql.into(), schema, parameters: Arc::new(Schema::new(parameters)), is_query, is_unbounded: false, is_divisible: true })
    }

    async fn execute(&self, sql: &str, parameters: &[ScalarValue]) -> Result<Outcome> {
        if let Some(count) = Self::subscription(sql) {
            self.0.alive.fetch_add(1, Ordering::SeqCst);
            let alive = Alive(self.0.alive.clone());
            let rows = futures::stream::iter(0..count).map(|n| {
                let column = Arc::new(Int64Array::from(vec![n])) as ArrayRef;
                Ok(RecordBatch::try_new(ticks(), vec![column]).unwrap())
            });
            let stream = rows.chain(futures::stream::pending()).inspect(move |_| {
                let _ = &alive;
            });
            return Ok(Outcome::Rows(Box::pin(RecordBatchStreamAdapter::new(ticks(), stream))));
        }
        if sql == "SLOW" {
            self.0.executed.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(300)).await;
            self.0.finished.fetch_add(1, Ordering::SeqCst);
            return Ok(Outcome::Done(None));
        }
        if sql == "FAIL later" {
            let failure = Err(Error::Cancelled("view v was dropped".into()).into());
            return Ok(Outcome::Rows(Box::pin(RecordBatchStreamAdapter::new(ticks(), futures::stream::iter([failure])))));
        }
        if sql == "PANIC later" {
            let stream = futures::stream::once(async { panic!("a bug in an operator") });
            return Ok(Outcome::Rows(Box::pin(RecordBatchStreamAdapter::new(ticks(), stream))));
        }
        let plan = self.plan(sql).await?;
        let is_query = is_query(&plan);
        let mut frame = self.0.context.execute_logical_plan(plan).await?;
        if !parameters.is_empty() {
            frame = frame.with_param_values(ParamValues::from(parameters.to_vec()))?;
        }
        if is_query {
            return Ok(Outcome::Rows(frame.execute_stream().await?));
        }
        self.0.executed.fetch_add(1, Ordering::SeqCst);
        let batches = frame.collect().await?;
        let counted = batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| ScalarValue::try_from_array(batch.column(0), 0));
        Ok(Outcome::Done(match counted {
            Some(Ok(ScalarValue::UInt64(count))) => count,
            _ => None,
        }))
    }

    async fn execute_many(&self, sql: &str, parameters: &[Vec<ScalarValue>]) -> Result<u64> {
        let mut touched = 0;
        for parameters in parameters {
            if let Outcome::Done(rows) = self.execute(sql, parameters).await? {
                touched += rows.unwrap_or(0);
            }
        }
        Ok(touched)
    }

    async fn ingest(&self, _: Upload) -> Result<u64> {
        Err(Error::Unsupported("the double takes no uploads".into()))
    }

    fn delivery(&self) -> Delivery {
        *self.0.delivery.lock()
    }

    async fn tables(&self) -> Result<Vec<TableInfo>> {
        let catalog = self.0.context.catalog("tidegate").unwrap();
        let schema = catalog.schema("public").unwrap();
        let mut tables = vec![];
        for name in schema.table_names() {
            let table = schema.table(&name).await?.unwrap();
            tables.push(TableInfo { catalog: "tidegate".into(), schema: "public".into(), name, kind: "BASE TABLE", columns: table.schema() });
        }
        Ok(tables)
    }
}
