//! From a query to a plan that runs once an epoch.
//!
//! The optimized logical plan is rewritten: aggregates become [`StreamAggregate`] nodes whose state lives outside the plan,
//! hidden columns (weights, row locators) are passed through projections, and what is not known to be right is refused.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::{
    catalog::TableProvider,
    common::{Column, DFSchema, DFSchemaRef, JoinType, NullEquality, TableReference, tree_node::TreeNode},
    datasource::{provider_as_source, source_as_provider},
    execution::{SessionState, SessionStateBuilder},
    logical_expr::{Expr, Extension, Join, LogicalPlan, Projection, SubqueryAlias, TableScan, TableScanBuilder, Unnest},
    optimizer::Optimizer,
    physical_plan::ExecutionPlan,
    physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner},
    prelude::{SessionConfig, SessionContext},
    sql::{parser::Statement as DataFusionStatement, sqlparser::ast},
};

use tidegate_udfs::window::{Bound, Windows};

use super::{
    aggregate::{AggregatePlanner, Emission, Panes, Sessions, StreamAggregate, StreamAggregateExec, WindowKey},
    clock,
    codec::EpochCodec,
    epoch::{Operator, OperatorId, States},
    expiry::{Expiry, ExpiryExec, ExpiryPlanner},
    gate,
    hidden::{self, NOW, ROW, WEIGHT, gone_field, has, hidden_columns, weight_field},
    join::{Bounds, JoinPlanner, StreamJoin, StreamJoinExec},
    lineage::{self, NotAWindow, WindowColumn, aggregate_below, group_column, upsert_below, upsert_column},
    panes,
    recompute::{RecomputeExec, RecomputePlanner},
    relational, session_windows,
    slice::{SliceExec, StreamTable, Wanted},
    temporal::{Side, TemporalFilter, TemporalFilterExec, TemporalPlanner, described},
    temporal_join::{TemporalJoinExec, TemporalJoinPlanner, VersionsTable},
    time::{Timeline, nanoseconds},
    upsert::{Shape, Upsert, UpsertExec, UpsertPlanner},
    versions,
    view::Tables,
};
use crate::{
    catalog::{Close, Emit, SourceDef, ViewOptions},
    error::{Error, Result},
    sql,
};

/// A view's query, ready to run once an epoch.
#[derive(Debug)]
pub struct ViewPlan {
    /// What runs.
    pub physical: Arc<dyn ExecutionPlan>,
    /// The view's columns, without hidden ones.
    pub schema: SchemaRef,
    /// Whether the plan's last column is [`WEIGHT`]; otherwise every row it gives is new and stays.
    pub changing: bool,
    /// When rows are emitted.
    pub emit: Emit,
    /// The inputs it reads, each with the columns it needs.
    pub inputs: BTreeMap<String, BTreeSet<String>>,
    /// The tables of which it gets all rows when it starts.
    pub tables: BTreeMap<String, Arc<dyn TableProvider>>,
    /// Whether it needs to know where the rows' records stand,
    pub positions: bool,
    /// and when they were read.
    pub times: bool,
    /// Columns that together name a row, if the view has such.
    pub key: Option<Vec<usize>>,
    /// Its stateful operators.
    pub operators: Vec<OperatorInfo>,
    /// The columns that are windows of its sources.
    pub windows: HashMap<String, WindowColumn>,
    /// All rows of a window come in one epoch, when it closes.
    pub whole_windows: bool,
    /// The rewritten logical plan, for EXPLAIN.
    pub logical: LogicalPlan,
}

impl ViewPlan {
    /// All rows of the tables that the view gets when it starts.
    pub async fn table_rows(&self) -> Result<Tables> {
        let context = SessionContext::new();
        let mut tables = HashMap::new();
        for (name, table) in &self.tables {
            tables.insert(name.clone(), context.read_table(table.clone())?.collect().await?);
        }
        Ok(Arc::new(tables))
    }
}

/// One stateful operator, as EXPLAIN shows it.
#[derive(Debug, Clone)]
pub struct OperatorInfo {
    /// Its number within the view.
    pub id: OperatorId,
    /// What it does.
    pub description: String,
    /// What bounds its state.
    pub bound: String,
    /// Whether it holds windows.
    pub windowed: bool,
    /// Whether rows can be late for it.
    pub judges: bool,
}

/// The session state that views are planned with: everything of `base`, on one partition, less what would break between epochs.
pub fn planning_state(base: &SessionState) -> SessionState {
    // This rule turns count(DISTINCT x) into two nested aggregates, the outer one over a changing input.
    let rules = Optimizer::new().rules.into_iter().filter(|rule| rule.name() != "single_distinct_aggregation_to_group_by").collect();
    let mut config: SessionConfig = base
        .config()
        .clone()
        .with_target_partitions(1)
        .with_round_robin_repartition(false)
        // The catalogs are the base's: a fresh default one would hide them.
        .with_create_default_catalog_and_schema(false);
    config.options_mut().optimizer.enable_dynamic_filter_pushdown = false;
    // A scalar subquery becomes a join: only operators that keep a state may look at several inputs.
    config.options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    SessionStateBuilder::new_from_existing(base.clone()).with_config(config).with_optimizer_rules(rules).build()
}

/// A state for planning views over these sources alone, without a catalog or a server: for tests and benchmarks.
pub fn standalone_state(sources: &[&SourceDef]) -> Result<SessionState> {
    let mut context = SessionContext::new();
    tidegate_udfs::register(&mut context)?;
    for source in sources {
        context.register_table(source.name.as_str(), Arc::new(StreamTable::over(source)))?;
        if source.key.is_some() && source.watermark.is_some() {
            context.register_table(TableReference::bare(format!("{}$versions", source.name)), Arc::new(VersionsTable::over(source)))?;
        }
    }
    Ok(planning_state(&context.state()))
}

/// Plans a query (window functions already rewritten). `state` resolves every source to a [`StreamTable`]; see [`planning_state`].
pub async fn plan_view(state: &SessionState, query: ast::Query, emit: Option<Emit>, options: &ViewOptions) -> Result<ViewPlan> {
    let statement = DataFusionStatement::Statement(Box::new(ast::Statement::Query(Box::new(query))));
    let logical = state.statement_to_plan(statement).await?;
    sql::check_plan(&logical)?;
    let logical = clock::rewrite(logical)?;
    gate::check_functions(&logical)?;
    if relational::is_ordered(&logical) {
        return Err(gate::ordered());
    }
    let optimized = state.optimize(&logical)?;
    // Its names are the query's, its types are final: before, the branches of a UNION need not agree.
    let fields = optimized.schema().fields().iter().map(|f| f.as_ref().clone().with_metadata(Default::default()));
    let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    check_names(&schema)?;
    let times = clock::is_asked(&optimized)?;
    // Where the statement does not say, rows are emitted once for all where every part of the query allows that.
    let rewritten = match emit {
        Some(emit) => rewrite(&optimized, emit, options, times),
        None => rewrite(&optimized, Emit::OnWindowClose, options, times).or_else(|_| rewrite(&optimized, Emit::Changes, options, times)),
    };
    let Rewritten { logical, mut operators, positions, emit } = rewritten.map_err(versions::told)?;
    let logical = match options.retention {
        Some(retention) => expiring(logical, retention, "retention", &mut operators)?,
        None => logical,
    };
    let changing = has(logical.schema(), WEIGHT);
    let logical = in_order(logical, &schema)?;
    let planner = DefaultPhysicalPlanner::with_extension_planners(vec![
        Arc::new(AggregatePlanner),
        Arc::new(TemporalPlanner),
        Arc::new(JoinPlanner),
        Arc::new(RecomputePlanner),
        Arc::new(UpsertPlanner),
        Arc::new(ExpiryPlanner),
        Arc::new(TemporalJoinPlanner),
    ]);
    let physical = planner.create_physical_plan(&logical, state).await?;
    gate::check_physical(&physical)?;
    let (mut inputs, mut tables) = (BTreeMap::new(), BTreeMap::new());
    collect_inputs(&physical, &mut inputs, &mut tables);
    if inputs.is_empty() {
        return Err(Error::Invalid("a continuous view reads a source: without one there is nothing to follow".into()));
    }
    // Where assertions are on, what runs has been bytes: so every test shows that nothing of a plan is lost on the way.
    let physical = if cfg!(debug_assertions) { through_bytes(&physical, &tables, state)? } else { physical };
    let key = key_of(&logical, schema.fields().len());
    let window = |(column, field): (usize, &FieldRef)| {
        // Windows of rows that are passed on as they come bound nothing.
        let window =
            lineage::window_of(&logical, column).ok().filter(|window| window.timeline == Timeline::Processing || lineage::tells_late_rows(&logical))?;
        // Rows of a window may change until its view takes none any more.
        let lag = window.lag.saturating_add(nanoseconds(options.lateness));
        Some((field.name().clone(), WindowColumn { lag, ..window }))
    };
    let windows = schema.fields().iter().enumerate().filter_map(window).collect();
    let whole_windows = lineage::gives_whole_windows(&logical);
    Ok(ViewPlan { physical, schema, changing, emit, inputs, tables, positions, times, key, operators, windows, whole_windows, logical })
}

/// Lets the rows of a plan leave so long after they came, as the view's option says.
fn expiring(input: LogicalPlan, ttl: Duration, option: &str, operators: &mut Vec<OperatorInfo>) -> Result<LogicalPlan> {
    let id = operators.len() as OperatorId;
    let after = humantime::format_duration(ttl);
    operators.push(OperatorInfo {
        id,
        description: format!(
            "rows leave {after} after they came ({option}), takes {} rows, gives changing rows",
            if has(input.schema(), WEIGHT) { "changing" } else { "append-only" }
        ),
        bound: format!("a row is dropped {after} after it came"),
        windowed: false,
        judges: false,
    });
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(Expiry::new(id, input, nanoseconds(ttl))?) }))
}

/// What is read from the bytes of a plan.
fn through_bytes(plan: &Arc<dyn ExecutionPlan>, tables: &BTreeMap<String, Arc<dyn TableProvider>>, state: &SessionState) -> Result<Arc<dyn ExecutionPlan>> {
    let codec = EpochCodec::new(tables.clone());
    let read = codec.decode(&codec.encode(plan)?, &state.task_ctx())?;
    #[cfg(test)]
    super::tests::codec::look(plan, &read);
    Ok(read)
}

/// A query after the rewrite.
struct Rewritten {
    logical: LogicalPlan,
    operators: Vec<OperatorInfo>,
    positions: bool,
    emit: Emit,
}

fn rewrite(optimized: &LogicalPlan, emit: Emit, options: &ViewOptions, times: bool) -> Result<Rewritten> {
    let mut rewrite = Rewrite { emit, options, operators: vec![], positions: false, times };
    let logical = rewrite.node(optimized.clone(), Wanted::Rows)?;
    let Rewrite { operators, positions, .. } = rewrite;
    let windowed = operators.iter().any(|operator| operator.windowed);
    let clause = if options.lateness.is_zero() { (options.close != Close::Usual).then_some("CLOSE") } else { Some("ALLOW LATENESS") };
    if let Some(clause) = clause
        && !(windowed || clause == "ALLOW LATENESS" && operators.iter().any(|operator| operator.judges))
    {
        return Err(Error::Invalid(format!(
            "{clause} is about windows, and no aggregate of the view groups by one: leave it out, or group by the window of TUMBLE over the watermark column"
        )));
    }
    if emit == Emit::OnWindowClose && !windowed {
        return Err(Error::Invalid(
            "EMIT ON WINDOW CLOSE needs a windowed aggregate: add TUMBLE in FROM and window_start to GROUP BY, or write EMIT CHANGES".into(),
        ));
    }
    if emit == Emit::OnWindowClose && !lineage::waits_for_closing(&logical) {
        return Err(Error::Invalid(
            "EMIT ON WINDOW CLOSE is not possible: the rows that the view gives are of windows that are still open; aggregate them by window_start, or write EMIT CHANGES"
                .into(),
        ));
    }
    Ok(Rewritten { logical, operators, positions, emit })
}

fn check_names(schema: &SchemaRef) -> Result<()> {
    let mut seen = BTreeSet::new();
    for field in schema.fields() {
        let name = field.name();
        if name.starts_with("__") || matches!(name.as_str(), "_op" | "_epoch") {
            return Err(Error::Invalid(format!("column name {name} is reserved: give the column another one with AS")));
        }
        if !seen.insert(name) {
            return Err(Error::Invalid(format!("two columns of the view are named {name}: rename one with AS")));
        }
    }
    Ok(())
}

/// A physical operator as one that keeps a state, if it is one.
pub fn operator(plan: &Arc<dyn ExecutionPlan>) -> Option<&dyn Operator> {
    fn of<T: ExecutionPlan + Operator>(plan: &Arc<dyn ExecutionPlan>) -> Option<&dyn Operator> {
        plan.downcast_ref::<T>().map(|operator| operator as _)
    }
    of::<StreamAggregateExec>(plan)
        .or_else(|| of::<TemporalFilterExec>(plan))
        .or_else(|| of::<StreamJoinExec>(plan))
        .or_else(|| of::<RecomputeExec>(plan))
        .or_else(|| of::<UpsertExec>(plan))
        .or_else(|| of::<ExpiryExec>(plan))
        .or_else(|| of::<TemporalJoinExec>(plan))
}

/// States that hold nothing yet for all operators of a plan.
pub fn states(plan: &Arc<dyn ExecutionPlan>) -> Result<States> {
    fn insert(plan: &Arc<dyn ExecutionPlan>, states: &mut States) -> Result<()> {
        if let Some(operator) = operator(plan) {
            states.insert(operator.id(), operator.state()?);
        }
        plan.children().into_iter().try_for_each(|child| insert(child, states))
    }
    let mut states = States::default();
    insert(plan, &mut states)?;
    Ok(states)
}

fn collect_inputs(plan: &Arc<dyn ExecutionPlan>, inputs: &mut BTreeMap<String, BTreeSet<String>>, tables: &mut BTreeMap<String, Arc<dyn TableProvider>>) {
    if let Some(slice) = plan.downcast_ref::<SliceExec>() {
        match slice.table() {
            Some(table) => _ = tables.insert(slice.input().to_string(), table.clone()),
            None => {
                let columns = inputs.entry(slice.input().to_string()).or_default();
                columns.extend(slice.columns().filter(|c| !hidden::is_hidden(c)).map(str::to_string));
            }
        }
    }
    plan.children().into_iter().for_each(|child| collect_inputs(child, inputs, tables));
}

/// The view's columns in the user's order, then the hidden ones: the rewrite may have moved columns.
fn in_order(plan: LogicalPlan, schema: &SchemaRef) -> Result<LogicalPlan> {
    let columns = plan.schema().columns();
    let visible: Vec<Expr> = columns.iter().filter(|c| !hidden::is_hidden(&c.name)).cloned().map(Expr::Column).collect();
    if visible.len() != schema.fields().len() {
        return Err(Error::Internal("the rewritten view has other columns than its query".into()));
    }
    let mut exprs: Vec<Expr> = visible
        .into_iter()
        .zip(schema.fields())
        .map(|(e, f)| if matches!(&e, Expr::Column(c) if c.name == *f.name()) { e } else { e.alias(f.name()) })
        .collect();
    exprs.extend(columns.into_iter().filter(|c| c.name == WEIGHT || c.name == hidden::PAIR).map(Expr::Column));
    if exprs.len() == plan.schema().fields().len() && exprs.iter().zip(plan.schema().columns()).all(|(e, c)| *e == Expr::Column(c)) {
        return Ok(plan);
    }
    Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
}

/// Columns that name a row: the primary key of the source below, or all group columns of the aggregate below, where start and end of
/// one window stand for each other.
fn key_of(plan: &LogicalPlan, columns: usize) -> Option<Vec<usize>> {
    if let Some(upsert) = upsert_below(plan) {
        let of_key = |key: Option<usize>| (0..columns).find(|column| key.is_some() && upsert_column(plan, *column) == key);
        return upsert.key().into_iter().map(of_key).collect();
    }
    let aggregate = aggregate_below(plan)?;
    let window = |group: usize| lineage::window_of_expr(&aggregate.group[group], &aggregate.input).ok().map(|w| w.window);
    let mut key = vec![];
    let mut covered = BTreeSet::new();
    for column in 0..columns {
        if let Some(group) = group_column(plan, column) {
            key.push(column);
            covered.insert(group);
        }
    }
    // Windows that cumulate share their start: only the end names one.
    if let Some(Panes { windows: Windows::Cumulate { .. }, columns }) = aggregate.window.as_ref().and_then(|w| w.panes.as_ref())
        && !columns.iter().any(|(group, bound)| *bound == Bound::End && covered.contains(group))
    {
        return None;
    }
    let windows: BTreeSet<String> = covered.iter().filter_map(|g| window(*g)).collect();
    let all = (0..aggregate.group.len()).all(|g| covered.contains(&g) || window(g).is_some_and(|w| windows.contains(&w)));
    all.then_some(key)
}

/// Whether rows of a plan leave again when the clock says so.
fn leaves_by_the_clock(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Extension(x) => x.node.as_any().is::<TemporalFilter>(),
        // What is below an aggregate or a join is theirs.
        LogicalPlan::Aggregate(_) | LogicalPlan::Join(_) => false,
        other => other.inputs().into_iter().any(leaves_by_the_clock),
    }
}

/// Whether two sides give all rows that are equal in this in one epoch: bounds of windows that close by the same watermark.
fn closes_together(left: &Expr, right: &Expr, inputs: &[LogicalPlan; 2]) -> bool {
    let windows = lineage::closing_window(&inputs[0], left).zip(lineage::closing_window(&inputs[1], right));
    windows.is_some_and(|(left, right)| (left.to_end, left.lag) == (right.to_end, right.lag) && left.timeline.same(&right.timeline))
}

/// Whether an aggregate's value depends on the order of its rows.
pub(super) fn depends_on_order(aggregate: &Expr) -> bool {
    let Expr::AggregateFunction(function) = lineage::unaliased(aggregate) else { return false };
    let by_nature = matches!(function.func.name(), "array_agg" | "first_value" | "last_value" | "string_agg" | "nth_value");
    (by_nature && !function.params.distinct) || !function.params.order_by.is_empty()
}

/// Rows that such an aggregate's own order leaves equal stand in the order of their records, whatever epochs they came in.
fn in_total_order(aggregate: Expr) -> Expr {
    if !depends_on_order(&aggregate) {
        return aggregate;
    }
    match aggregate {
        Expr::Alias(mut alias) => {
            alias.expr = Box::new(in_total_order(*alias.expr));
            Expr::Alias(alias)
        }
        Expr::AggregateFunction(mut function) if !function.params.distinct => {
            #[cfg(not(test))]
            let ascending = true;
            #[cfg(test)]
            let ascending = super::tests::mutants::ties_ascend();
            let by = |name: &str| Expr::Column(Column::new_unqualified(name)).sort(ascending, false);
            function.params.order_by.extend([by(hidden::PARTITION), by(hidden::OFFSET), by(ROW)]);
            Expr::AggregateFunction(function)
        }
        other => other,
    }
}

pub(super) struct Rewrite<'a> {
    pub(super) emit: Emit,
    pub(super) options: &'a ViewOptions,
    pub(super) operators: Vec<OperatorInfo>,
    /// An aggregate depends on where the rows' records stand.
    positions: bool,
    /// The query asks when rows were read.
    times: bool,
}

impl Rewrite<'_> {
    /// Rewrites a node and what is below it; `wanted` by the aggregate above.
    pub(super) fn node(&mut self, plan: LogicalPlan, wanted: Wanted) -> Result<LogicalPlan> {
        Ok(match plan {
            LogicalPlan::TableScan(scan) => self.scan(scan, wanted)?,
            LogicalPlan::Projection(projection) => {
                let input = self.node(Arc::unwrap_or_clone(projection.input), wanted)?;
                let mut exprs = self.resolve(projection.expr, input.schema())?;
                exprs.extend(hidden_columns(input.schema()));
                LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?)
            }
            LogicalPlan::Filter(filter) => self.filter(filter, wanted)?,
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.node(Arc::unwrap_or_clone(alias.input), wanted)?;
                LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?)
            }
            LogicalPlan::Unnest(unnest) if unnest.struct_type_columns.is_empty() => {
                let input = self.node(Arc::unwrap_or_clone(unnest.input), wanted)?;
                LogicalPlan::Unnest(Unnest::try_new(Arc::new(input), unnest.exec_columns, unnest.options)?)
            }
            LogicalPlan::Union(union) => self.union(union, wanted)?,
            LogicalPlan::Window(window) => self.window(window, None)?,
            // Rows of a table have no order.
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => self.node(Arc::unwrap_or_clone(sort.input), wanted)?,
            LogicalPlan::Sort(_) | LogicalPlan::Limit(_) => self.first_rows(plan)?,
            LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.iter().any(|e| matches!(e, Expr::GroupingSet(_))) => self.grouping_sets(aggregate)?,
            LogicalPlan::Join(join) => self.join(join)?,
            LogicalPlan::EmptyRelation(empty) => relational::constants(&empty.schema, if empty.produce_one_row { vec![vec![]] } else { vec![] })?,
            LogicalPlan::Values(values) => relational::constants(&values.schema, values.values)?,
            LogicalPlan::Aggregate(aggregate) => {
                let input = Arc::unwrap_or_clone(aggregate.input);
                let (input, sessions) = match session_windows::rewrite(&aggregate.group_expr, &input)? {
                    Some((input, sessions)) => (input, Some(sessions)),
                    None => (input, None),
                };
                let ordered = aggregate.aggr_expr.iter().any(depends_on_order);
                self.positions |= ordered;
                let input = self.node(input, if ordered { Wanted::Positions } else { Wanted::Locators })?;
                let group = self.resolve(aggregate.group_expr, input.schema())?;
                let aggregates = self.resolve(aggregate.aggr_expr, input.schema())?;
                if has(input.schema(), WEIGHT) {
                    if sessions.is_some() {
                        return Err(Error::Unsupported(
                            "SESSION over rows that change is not supported in a continuous view: make the sessions over the source".into(),
                        ));
                    }
                    self.changing_aggregate(group, aggregates, &aggregate.schema, input)?
                } else {
                    let aggregates = match has(input.schema(), hidden::OFFSET) {
                        true => aggregates.into_iter().map(in_total_order).collect(),
                        // Rows that are no records' stand in the order of what they hold.
                        false => {
                            let ties = relational::all_columns(input.schema());
                            aggregates.into_iter().map(|aggregate| relational::in_order_of(aggregate, &ties)).collect()
                        }
                    };
                    self.stateful_aggregate(group, aggregates, &aggregate.schema, input, sessions, false)?
                }
            }
            LogicalPlan::Extension(extension) => match extension.node.as_any().downcast_ref::<TemporalFilter>() {
                Some(filter) => self.temporal_filter(filter)?,
                None => return Err(gate::refusal(&LogicalPlan::Extension(extension))),
            },
            other => return Err(gate::refusal(&other)),
        })
    }

    /// Expressions over an input with its column in the place of what stands for the time of an epoch.
    pub(super) fn resolve(&self, exprs: Vec<Expr>, input: &DFSchema) -> Result<Vec<Expr>> {
        if self.times && !has(input, NOW) && exprs.iter().any(|e| e.exists(|e| Ok(clock::is_epoch_time(e))).unwrap_or(true)) {
            return Err(Error::Unsupported(
                "now() and proctime() tell when a row is read, and above an aggregate, or of a source with PRIMARY KEY, there is no such row: take the time below it, as in max(proctime()), or when reading the view".into(),
            ));
        }
        Ok(exprs.into_iter().map(clock::as_column).collect::<Result<_, _>>()?)
    }

    /// Where the view has a `state_ttl`, and nothing else bounds how many rows there are, they leave when it is over.
    pub(super) fn expiring(&mut self, input: LogicalPlan) -> Result<LogicalPlan> {
        match self.options.state_ttl {
            Some(ttl) if lineage::bounded(&input).is_none() => expiring(input, ttl, "state_ttl", &mut self.operators),
            _ => Ok(input),
        }
    }

    /// What bounds the state of an operator that forgets what is idle, if it does.
    pub(super) fn forgets(&self, what: &str) -> Option<(String, i64)> {
        let ttl = self.options.state_ttl?;
        let after = humantime::format_duration(ttl);
        Some((format!("{what} is forgotten, and what it gave leaves, when no row has come for it for {after} (state_ttl)"), nanoseconds(ttl)))
    }

    /// Refuses an operator whose state nothing bounds, unless the user accepts it.
    pub(super) fn unbounded(&self, what: &str, why: &str) -> Result<()> {
        if self.options.unbounded_state {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "nothing bounds the state of {what}: {why}; put the window of TUMBLE over the watermark column into its keys, give it an end with WITH (state_ttl = '1 hour'), or accept it with WITH (unbounded_state = true)"
        )))
    }

    fn temporal_filter(&mut self, filter: &TemporalFilter) -> Result<LogicalPlan> {
        let input = self.node(filter.input().clone(), Wanted::Rows)?;
        let id = self.operators.len() as OperatorId;
        let (limits, mut told) = (filter.limits(), vec![]);
        for (side, what) in [(Side::From, "comes"), (Side::Until, "goes")] {
            if limits.iter().any(|limit| limit.side == side) {
                told.push(what);
            }
        }
        self.operators.push(OperatorInfo {
            id,
            description: format!("temporal filter [{}], rows come and go with the clock", described(limits)),
            bound: format!("a row is dropped when it {} by the clock", told.pop().unwrap_or("comes")),
            windowed: false,
            judges: false,
        });
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(filter.numbered(id, input)?) }))
    }

    fn join(&mut self, join: Join) -> Result<LogicalPlan> {
        if let Some(asked) = versions::asked(&join) {
            return self.temporal_join(join, asked);
        }
        let (null_equals_null, visible) = (join.null_equality == NullEquality::NullEqualsNull, join.schema.clone());
        if join.null_aware && (join.join_type != JoinType::LeftAnti || join.on.len() != 1 || join.filter.is_some()) {
            return Err(Error::Unsupported(
                "NOT IN over a subquery that looks at the outer row, or over several columns, is not supported in a continuous view: write NOT EXISTS (SELECT … WHERE …)".into(),
            ));
        }
        let asks = |e: &Expr| e.exists(|e| Ok(clock::is_epoch_time(e))).unwrap_or(true);
        if self.times && join.on.iter().flat_map(|(left, right)| [left, right]).chain(&join.filter).any(asks) {
            return Err(Error::Unsupported(
                "now() and proctime() in the condition of a join are not supported in a continuous view: take the time in a subquery below the join, as in SELECT *, proctime() AS p FROM …".into(),
            ));
        }
        let mut side = |input: Arc<LogicalPlan>| {
            let input = Arc::unwrap_or_clone(input);
            // Rows that leave by the clock are never late.
            let wanted = if leaves_by_the_clock(&input) { Wanted::Rows } else { Wanted::Locators };
            self.node(input, wanted)
        };
        let mut inputs = [side(join.left)?, side(join.right)?];
        let mut bounds = Bounds::of(&join.on, join.filter.as_ref(), null_equals_null, [&inputs[0], &inputs[1]]);
        if self.options.state_ttl.is_some() && !join.on.iter().any(|(left, right)| closes_together(left, right, &inputs)) {
            let [left, right] = inputs;
            let left = if bounds.told(0).is_none() { self.expiring(left)? } else { left };
            let right = if bounds.told(1).is_none() { self.expiring(right)? } else { right };
            inputs = [left, right];
            bounds = Bounds::of(&join.on, join.filter.as_ref(), null_equals_null, [&inputs[0], &inputs[1]]);
        }
        let appended = |side: usize| !has(inputs[side].schema(), WEIGHT);
        let complete = appended(0) && appended(1) && join.on.iter().any(|(left, right)| closes_together(left, right, &inputs));
        let changing = match join.join_type {
            _ if complete => false,
            JoinType::Inner | JoinType::LeftSemi | JoinType::RightSemi => !appended(0) || !appended(1),
            _ => true,
        };
        let mut fields: Vec<_> = visible.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        if changing {
            fields.push((None, weight_field()));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let id = self.operators.len() as OperatorId;
        let node = StreamJoin {
            id,
            inputs,
            on: join.on,
            filter: join.filter,
            kind: join.join_type,
            null_equals_null,
            null_aware: join.null_aware,
            bounds,
            lateness: nanoseconds(self.options.lateness),
            complete,
            schema,
        };
        let bound = self.bound_of(&node)?;
        self.operators.push(OperatorInfo {
            id,
            description: node.told(),
            bound,
            windowed: false,
            judges: !complete && node.bounds.clock.iter().any(Option::is_some),
        });
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }

    /// What bounds the state of a join; refuses one that nothing does.
    fn bound_of(&self, join: &StreamJoin) -> Result<String> {
        if join.complete {
            return Ok("nothing is kept: both sides give all rows of a window when it closes".into());
        }
        let late = match self.options.lateness {
            Duration::ZERO => String::new(),
            lateness => format!(", {} later", humantime::format_duration(lateness)),
        };
        let mut told = vec![];
        let mut unbounded = vec![];
        for (side, name) in ["left", "right"].into_iter().enumerate() {
            told.push(match join.bounds.told(side) {
                Some(when) => format!("{name} rows are dropped {when}{late}"),
                None => match lineage::bounded(&join.inputs[side]) {
                    Some(bound) => format!("the {name} side is {bound}"),
                    None => {
                        unbounded.push(name);
                        format!("nothing bounds the {name} side (unbounded_state = true)")
                    }
                },
            });
        }
        if !unbounded.is_empty() && !self.options.unbounded_state {
            let (sides, why) = match unbounded.as_slice() {
                [side] => (
                    format!("the {side} side"),
                    format!("a row of the {} side that is still to come could match a row of any age", if *side == "left" { "right" } else { "left" }),
                ),
                _ => ("both sides".into(), "rows of any age could match".into()),
            };
            return Err(Error::Invalid(format!(
                "nothing bounds the state of {sides} of this join ({}): {why}; add a condition between the watermark columns, as in AND r.ts BETWEEN l.ts - INTERVAL '5 minutes' AND l.ts + INTERVAL '5 minutes', or join windows by their window_start, or let rows leave after a time with WITH (state_ttl = '1 hour'), or accept it with WITH (unbounded_state = true)",
                join.told()
            )));
        }
        Ok(told.join("; "))
    }

    fn scan(&mut self, scan: TableScan, wanted: Wanted) -> Result<LogicalPlan> {
        let provider = source_as_provider(&scan.source)?;
        if provider.is::<VersionsTable>() {
            return Err(versions::refused());
        }
        let Some(table) = provider.downcast_ref::<StreamTable>() else {
            return Err(Error::Unsupported(format!("a continuous view reads sources, and {} is none: join it when reading the view", scan.table_name)));
        };
        if table.table.is_some() {
            return Ok(LogicalPlan::TableScan(scan));
        }
        if !table.key.is_empty() {
            return self.upsert(&scan, table);
        }
        // Only records have places, and times at which they were read.
        let with_hidden = table.with_hidden(if table.records { wanted } else { Wanted::Rows }, self.times && table.records);
        let (visible, all) = (table.schema.fields().len(), with_hidden.schema.fields().len());
        if visible == all {
            return Ok(LogicalPlan::TableScan(scan));
        }
        let mut projection = scan.projection.unwrap_or_else(|| (0..visible).collect());
        projection.extend(visible..all);
        let located = provider_as_source(Arc::new(with_hidden));
        Ok(LogicalPlan::TableScan(TableScanBuilder::new(scan.table_name, located).with_projection(Some(projection)).with_filters(scan.filters).build()?))
    }

    /// The rows of a source with a primary key: the newest of each key.
    fn upsert(&mut self, scan: &TableScan, table: &StreamTable) -> Result<LogicalPlan> {
        let visible = table.schema.fields().len();
        let wanted = scan.projection.clone().unwrap_or_else(|| (0..visible).collect());
        let key = table.key.iter().map(|name| Ok(table.schema.index_of(name)?)).collect::<Result<Vec<usize>>>()?;
        let mut read = wanted.clone();
        read.extend(key.iter().filter(|column| !wanted.contains(column)));
        let shape = Shape { key: key.iter().filter_map(|column| read.iter().position(|read| read == column)).collect(), output: (0..wanted.len()).collect() };
        read.push(visible);
        let mut fields = table.schema.fields().to_vec();
        fields.push(gone_field());
        let leaf = StreamTable { schema: Arc::new(Schema::new(fields)), key: vec![], ..table.clone() };
        let leaf = TableScanBuilder::new(scan.table_name.clone(), provider_as_source(Arc::new(leaf))).with_projection(Some(read)).build()?;
        let id = self.operators.len() as OperatorId;
        self.operators.push(OperatorInfo {
            id,
            description: format!("newest row of {} by [{}], emits changes", table.name, table.key.join(", ")),
            bound: "the topic's keys: one row each, dropped when a record without a payload deletes it".into(),
            windowed: false,
            judges: false,
        });
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(Upsert::new(id, LogicalPlan::TableScan(leaf), shape)?) }))
    }

    /// An aggregate whose groups live from epoch to epoch. `counted`: its first function counts the rows of changing input.
    pub(super) fn stateful_aggregate(
        &mut self,
        group: Vec<Expr>,
        aggregates: Vec<Expr>,
        schema: &DFSchemaRef,
        input: LogicalPlan,
        sessions: Option<Sessions>,
        counted: bool,
    ) -> Result<LogicalPlan> {
        let mut why_not = None;
        let mut window = None;
        for (index, expr) in group.iter().enumerate() {
            let found = match &sessions {
                Some(sessions) if sessions.columns[0].0 != index => continue,
                Some(sessions) => lineage::session_of_expr(expr, &input, sessions.gap),
                None => lineage::bounding_window(expr, &input),
            };
            match found {
                Ok(found) => {
                    window = Some((index, found));
                    break;
                }
                Err(NotAWindow::NoWatermark(reason)) => why_not = Some(reason),
                Err(NotAWindow::Ordinary) => {}
            }
        }
        let emission = match (self.emit, &window) {
            (Emit::Changes | Emit::Every(_), _) => Emission::Changes,
            (Emit::OnWindowClose, Some(_)) if self.options.lateness.is_zero() => Emission::OnClose,
            (Emit::OnWindowClose, Some(_)) => Emission::Corrected,
            (Emit::OnWindowClose, None) => {
                let reason = why_not
                    .clone()
                    .map_or_else(|| "neither window_start nor window_end is in GROUP BY".into(), |r| format!("the window never closes, since {r}"));
                return Err(Error::Invalid(format!("EMIT ON WINDOW CLOSE is not possible: {reason}")));
            }
        };
        let mut bounded = if group.is_empty() { Some("one row".into()) } else { lineage::bounded(&input) };
        let mut input = input;
        let mut idle_after = None;
        if window.is_none() && bounded.is_none() {
            if has(input.schema(), WEIGHT) {
                input = self.expiring(input)?;
                bounded = lineage::bounded(&input);
            } else if let Some((told, ttl)) = self.forgets("a group") {
                (bounded, idle_after) = (Some(told), Some(ttl));
            }
        }
        if window.is_none() && bounded.is_none() && !self.options.unbounded_state {
            let reason = why_not.map_or_else(|| "it groups by no window".into(), |r| format!("its window never closes, since {r}"));
            return Err(Error::Invalid(format!(
                "nothing bounds the state of this aggregate: {reason}; group by the window of TUMBLE over the watermark column, or forget idle groups with WITH (state_ttl = '1 hour'), or accept it with WITH (unbounded_state = true)"
            )));
        }
        let changing = has(input.schema(), WEIGHT);
        let (group, input, panes) =
            match (window.is_some() && sessions.is_none() && !changing).then(|| panes::rewrite(&group, &aggregates, &input)).transpose()?.flatten() {
                Some((group, input, panes)) => (group, input, Some(panes)),
                None => (group, input, None),
            };
        let lateness = self.options.lateness;
        let closes_when_quiet = lineage::closes_when_quiet(&input);
        let id = self.operators.len() as OperatorId;
        let names = |exprs: &[Expr]| exprs.iter().map(|e| e.schema_name().to_string()).collect::<Vec<_>>().join(", ");
        let ties = if aggregates.iter().any(depends_on_order) && has(input.schema(), hidden::OFFSET) {
            ", rows that are equal in order stand as their records do (partition, offset)"
        } else {
            ""
        };
        self.operators.push(OperatorInfo {
            id,
            description: format!(
                "aggregate [{}] by [{}]{ties}{}, takes {} rows, {}",
                schema.fields().iter().skip(group.len()).map(|f| f.name().clone()).collect::<Vec<_>>().join(", "),
                names(&group),
                if panes.is_some() { ", panes shared by windows" } else { "" },
                if changing { "changing" } else { "append-only" },
                match emission {
                    Emission::Changes => "emits changes",
                    Emission::OnClose => "emits on window close",
                    Emission::Corrected => "emits on window close, then corrections",
                }
            ),
            bound: match &window {
                Some((_, w)) => format!(
                    "{} of {} are dropped when {} passes their end{}{}{}",
                    if sessions.is_some() { "sessions with a gap" } else { "windows" },
                    humantime::format_duration(Duration::from_nanos(w.size as u64)),
                    w.timeline,
                    if w.lag == 0 {
                        String::new()
                    } else {
                        format!(" by {} that rows may have waited for each other", humantime::format_duration(Duration::from_nanos(w.lag as u64)))
                    },
                    if lateness.is_zero() { String::new() } else { format!(" by {}", humantime::format_duration(lateness)) },
                    match (&w.timeline, self.options.close.wait()) {
                        (Timeline::Event(_), Some(wait)) if closes_when_quiet => format!(", or nothing has come for {}", humantime::format_duration(wait)),
                        _ => String::new(),
                    },
                ),
                None => bounded.unwrap_or_else(|| "nothing: one row a group for ever (unbounded_state = true)".into()),
            },
            windowed: window.is_some(),
            judges: window.is_some(),
        });
        let window = window.map(|(position, w)| WindowKey {
            // An end names any window, a start not always.
            group: panes.as_ref().and_then(|p| p.columns.iter().find(|(_, bound)| *bound == Bound::End)).map_or(position, |(end, _)| *end),
            // Panes stand in the columns by their ends.
            to_end: if panes.is_some() { 0 } else { w.to_end },
            size: w.size,
            timeline: w.timeline,
            lag: w.lag,
            lateness: nanoseconds(lateness),
            panes,
        });
        let mut fields: Vec<_> = schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        if emission.changing() {
            fields.push((None, weight_field()));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let node = StreamAggregate { id, input, group, aggregates, schema, window, sessions, emission, counted, closes_when_quiet, idle_after };
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }
}
