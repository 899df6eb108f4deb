//! Subscriptions: results that don't end by themselves. Over a view: its rows at one epoch, then every change (`view`, and `hub` for what several
//! subscribers have in common). Over a source: a pipeline of the subscription's own, from the source's start on (`source`). `_op` and `_epoch`
//! come last (`ops`).

mod hub;
mod limits;
mod ops;
mod query;
mod source;
mod view;

use std::{collections::BTreeSet, sync::Arc};

use arrow::{datatypes::SchemaRef, record_batch::RecordBatch};
use datafusion::{execution::SendableRecordBatchStream, physical_plan::stream::RecordBatchStreamAdapter};
use tidegate_kernels::device::Device;
use tokio::sync::mpsc;

use super::{
    engine::{Engine, object_name},
    names::{Names, Purpose},
    queries::Running,
};
use crate::{
    access::Caller,
    catalog::{Definition, Emit, Object, ViewOptions},
    error::{Error, Result},
    sql::{self, SubscribeOptions, WhenBehind},
    stream::{
        codec::EpochCodec,
        plan::{ViewPlan, plan_view, planning_state},
        view::Tables,
    },
};

pub use hub::Hubs;
pub(super) use query::run_over;

/// So many batches wait for a reader before the subscription waits for it.
const AHEAD: usize = 4;

/// A planned subscription.
#[derive(Debug)]
pub struct Subscription {
    plan: ViewPlan,
    /// The rows of the tables that it reads.
    tables: Tables,
    over: Over,
    emit: Emit,
    options: SubscribeOptions,
    /// The objects that its query names.
    pub reads: BTreeSet<String>,
    /// The result's columns: the query's, `_op`, `_epoch`.
    pub schema: SchemaRef,
}

#[derive(Debug)]
enum Over {
    /// A continuous view's changes.
    View(String),
    /// A source.
    Source,
}

impl Subscription {
    /// Plans a query, without any effect.
    pub async fn plan(engine: &Arc<Engine>, caller: &Caller, query: &str, emit: Emit, options: &SubscribeOptions) -> Result<Self> {
        let state = planning_state(&Names::state(engine.clone(), Purpose::Changes, caller));
        let query = sql::parse_query(query)?;
        // Its state goes with the subscription, so the user need not say that nothing bounds it.
        let view_options = ViewOptions { unbounded_state: true, ..ViewOptions::default() };
        let named = state.resolve_table_references(&sql::query_statement(query.clone()))?;
        let reads = engine.objects_named(named.iter().filter_map(object_name).map(String::from));
        let is_view = |name: &str| matches!(engine.catalog().get(name), Some(Object { definition: Definition::View(_), .. }));
        let reads_view = named.iter().filter_map(object_name).any(is_view);
        let plan = plan_view(&state, query, if reads_view { None } else { Some(emit) }, &view_options).await?;
        let views: Vec<&String> = plan.inputs.keys().filter(|name| is_view(name)).collect();
        let over = match views.as_slice() {
            [] if plan.inputs.is_empty() => return Err(Error::Invalid("a subscription reads a view or a source".into())),
            [] => Over::Source,
            [view] if plan.inputs.len() == 1 => Over::View(view.to_string()),
            _ => return Err(Error::Unsupported("a subscription reads one view, or one source: subscribe to each alone".into())),
        };
        match &over {
            Over::View(name) if !plan.operators.is_empty() || plan.times => {
                return Err(Error::Unsupported(format!(
                    "a subscription over view {name} can filter and compute, but not aggregate or follow the clock (now(), proctime()), yet: do that in a continuous view, or in a plain SELECT"
                )));
            }
            Over::Source if options.after.is_some() || !options.snapshot => {
                return Err(Error::Invalid(
                    "a subscription over a source has epochs of its own and begins where the source does: leave out AS OF EPOCH and snapshot, or say WHERE _timestamp > …".into(),
                ));
            }
            _ => {}
        }
        if let (Over::View(name), Emit::OnWindowClose) = (&over, emit)
            && let Some((board, _)) = engine.board_of(name)
            && board.current().views.get(name).is_some_and(|v| v.plan.emit != Emit::OnWindowClose)
        {
            return Err(Error::Invalid(format!("view {name} emits changes: subscribe to it with EMIT CHANGES")));
        }
        let schema = ops::result_schema(&plan.schema, options.when_behind == WhenBehind::Skip);
        let tables = plan.table_rows().await?;
        Ok(Self { plan, tables, over, emit, options: options.clone(), reads, schema })
    }

    /// Starts it, to work on this device. Dropping the stream stops the work.
    pub fn start(self, engine: &Arc<Engine>, device: Device, running: Running) -> Result<SendableRecordBatchStream> {
        let (output, mut input) = mpsc::channel::<Result<RecordBatch>>(AHEAD);
        let (schema, options) = (self.schema.clone(), self.options.clone());
        match self.over {
            Over::View(ref name) => {
                let name = name.clone();
                let follower = self.follow_view(engine, name, output)?;
                tokio::spawn(async move {
                    follower.run().await;
                    drop(running);
                });
            }
            Over::Source => {
                let ops = source::Ops { schema: schema.clone(), changing: self.plan.changing, key: self.plan.key.clone() };
                let view_options = ViewOptions { unbounded_state: true, device: Some(device), ..ViewOptions::default() };
                let (driver, follower) = engine.start_private("subscription", self.plan, self.tables, view_options)?;
                tokio::spawn(async move {
                    source::follow(&driver, follower, ops, output).await;
                    if let Err(error) = driver.stop(false).await {
                        tracing::warn!("a subscription's pipeline did not stop cleanly: {error}");
                    }
                    drop(running);
                });
            }
        }
        let stream = futures::stream::poll_fn(move |context| input.poll_recv(context).map(|next| next.map(|batch| batch.map_err(Into::into))));
        Ok(limits::bounded(Box::pin(RecordBatchStreamAdapter::new(schema, stream)), &options))
    }

    fn follow_view(self, engine: &Engine, name: String, output: mpsc::Sender<Result<RecordBatch>>) -> Result<view::FollowView> {
        let gone = || Error::NotFound(format!("there is no view {name}"));
        let (board, _) = engine.board_of(&name).ok_or_else(gone)?;
        let published = board.current();
        let standing = published.views.get(&name).ok_or_else(gone)?;
        let key =
            hub::Key { view: standing.id, plan: EpochCodec::default().encode(&self.plan.physical)?, nullable: self.options.when_behind == WhenBehind::Skip };
        let query = Arc::new(query::ViewQuery {
            view: name.clone(),
            board: board.clone(),
            columns: standing.plan.schema.clone(),
            plan: self.plan,
            schema: self.schema,
            runtime: Arc::default(),
        });
        let feed = match self.emit {
            Emit::Every(interval) => view::Feed::Every(interval),
            Emit::Changes | Emit::OnWindowClose => view::Feed::Shared(engine.hubs.of(key, &query, &standing.changes)),
        };
        Ok(view::FollowView { query, changes: standing.changes.clone(), feed, options: self.options, output })
    }
}
