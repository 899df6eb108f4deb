//! The rewrite of what relations have beside filters, projections and plain aggregates: changing inputs, window functions, first rows of
//! an order, grouping sets, unions of unlike inputs. See [`super::plan`].

use std::{collections::BTreeSet, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, RecordBatch, new_empty_array},
    datatypes::{DataType, Field, Schema},
};
use datafusion::{
    common::{Column, DFSchema, DFSchemaRef, ScalarValue, TableReference},
    datasource::{MemTable, provider_as_source},
    functions_aggregate::expr_fn::sum,
    logical_expr::{
        Aggregate, Case, Cast, EmptyRelation, Expr, ExprSchemable, Extension, Filter, GroupingSet, Limit, LogicalPlan, LogicalPlanBuilder, Operator,
        Projection, Sort, SortExpr, SubqueryAlias, TableScanBuilder, Union, Window, WindowFrameUnits, WindowFunctionDefinition, expr::WindowFunction, lit,
        utils::grouping_set_to_exprlist, when,
    },
};

use super::{
    aggregate::WindowKey,
    epoch::OperatorId,
    hidden::{self, PAIR, WEIGHT, has, weight_field},
    lineage,
    plan::{OperatorInfo, Rewrite},
    recompute::{Recompute, leaf},
    slice::{StreamTable, Wanted},
    time::{nanoseconds, told},
};
use crate::{
    catalog::Emit,
    error::{Error, Result},
};

/// Column that says, while grouping sets are taken apart, which set a row stands for.
const SET: &str = "__set";

/// Each row stands once for each set, and a cube of so many columns has 1,024.
const CUBE: usize = 10;

/// Column that marks the row that stands for no rows at all.
const PHANTOM: &str = "__phantom";

/// A query over the rows of an operator's input that is answered anew for each key that an epoch touches.
struct Query {
    /// What is asked, over [`leaf`].
    plan: LogicalPlan,
    /// What it answers for alone.
    keys: Vec<Expr>,
    /// See [`Recompute`].
    shrinks: bool,
    /// See [`Recompute`].
    over_nothing: bool,
    /// What it is, for EXPLAIN.
    what: String,
    /// What bounds the rows held, if the query itself does.
    bound: Option<String>,
}

impl Rewrite<'_> {
    /// `UNION ALL`: all branches carry the same hidden columns, and a weight if any of them changes.
    pub(super) fn union(&mut self, union: Union, wanted: Wanted) -> Result<LogicalPlan> {
        let inputs = union.inputs.into_iter().map(|input| self.node(Arc::unwrap_or_clone(input), wanted)).collect::<Result<Vec<_>>>()?;
        let changing = inputs.iter().any(|input| has(input.schema(), WEIGHT));
        let hidden_of = |input: &LogicalPlan| -> Vec<String> {
            input.schema().fields().iter().map(|f| f.name().clone()).filter(|name| hidden::is_hidden(name) && name != PAIR).collect()
        };
        let mut common = hidden_of(&inputs[0]);
        common.retain(|name| name != WEIGHT && inputs.iter().all(|input| has(input.schema(), name)));
        let same = inputs.iter().all(|input| hidden_of(input).into_iter().filter(|name| name != WEIGHT).eq(common.iter().cloned()));
        let visible: Vec<_> = union.schema.iter().filter(|(_, field)| !hidden::is_hidden(field.name())).map(|(q, f)| (q.cloned(), f.clone())).collect();
        let united = |inputs: Vec<Arc<LogicalPlan>>| -> Result<LogicalPlan> {
            let mut fields = visible.clone();
            fields.extend(inputs[0].schema().fields().iter().filter(|f| hidden::is_hidden(f.name())).map(|f| (None, f.clone())));
            let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
            Ok(LogicalPlan::Union(Union { inputs, schema }))
        };
        if same && inputs.iter().all(|input| has(input.schema(), WEIGHT) == changing) {
            return united(inputs.into_iter().map(Arc::new).collect());
        }
        let branch = |input: LogicalPlan| -> Result<Arc<LogicalPlan>> {
            let columns = input.schema().columns();
            let mut exprs: Vec<Expr> = columns.iter().filter(|c| !hidden::is_hidden(&c.name)).cloned().map(Expr::Column).collect();
            exprs.extend(common.iter().map(|name| Expr::Column(Column::new_unqualified(name))));
            if has(input.schema(), WEIGHT) {
                exprs.push(Expr::Column(Column::new_unqualified(WEIGHT)));
            } else if changing {
                exprs.push(lit(1i64).alias(WEIGHT));
            }
            Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?)))
        };
        united(inputs.into_iter().map(branch).collect::<Result<_>>()?)
    }

    /// `GROUPING SETS`, `CUBE`, `ROLLUP`: each row once for each set, NULL where the set does not have the column.
    pub(super) fn grouping_sets(&mut self, aggregate: Aggregate) -> Result<LogicalPlan> {
        let [Expr::GroupingSet(grouping)] = aggregate.group_expr.as_slice() else {
            return Err(Error::Unsupported("GROUPING SETS beside other columns of GROUP BY are not supported here: write the columns into each set".into()));
        };
        let sets: Vec<Vec<&Expr>> = match grouping {
            GroupingSet::GroupingSets(sets) => sets.iter().map(|set| set.iter().collect()).collect(),
            GroupingSet::Rollup(exprs) => (0..=exprs.len()).rev().map(|n| exprs[..n].iter().collect()).collect(),
            GroupingSet::Cube(exprs) if exprs.len() > CUBE => {
                return Err(Error::Unsupported(format!("a continuous view takes CUBE of {CUBE} columns at most: name the GROUPING SETS that are wanted")));
            }
            GroupingSet::Cube(exprs) => {
                (0..1usize << exprs.len()).rev().map(|bits| exprs.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, e)| e).collect()).collect()
            }
        };
        let columns: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
        let id_type = aggregate.schema.field(columns.len()).data_type().clone();
        let number = |set: usize| lit(set as i64);
        let is = |set: usize| Expr::Column(Column::new_unqualified(SET)).eq(number(set));
        // A set that stands several times counts its occurrences above the bits of its columns.
        let mut seen: Vec<Vec<bool>> = vec![];
        let mut ids = vec![];
        for set in &sets {
            let missing: Vec<bool> = columns.iter().map(|column| !set.contains(&column)).collect();
            let ordinal = seen.iter().filter(|other| **other == missing).count() as u64;
            ids.push(missing.iter().fold(0u64, |id, missing| id << 1 | u64::from(*missing)) | ordinal << columns.len());
            seen.push(missing);
        }
        let mut input = Arc::unwrap_or_clone(aggregate.input);
        let below: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
        // The set of no columns has a row over nothing: one that counts nowhere else stands for it.
        let of_nothing: Vec<usize> = (0..sets.len()).filter(|set| sets[*set].is_empty()).collect();
        let mut aggr_expr = aggregate.aggr_expr;
        if !of_nothing.is_empty() {
            input = with_phantom(input)?;
            aggr_expr = aggr_expr.into_iter().map(without_phantom).collect();
        }
        let list = ScalarValue::List(ScalarValue::new_list_nullable(
            &(0..sets.len()).map(|n| ScalarValue::Int64(Some(n as i64))).collect::<Vec<_>>(),
            &DataType::Int64,
        ));
        let mut exprs = below.clone();
        exprs.push(lit(list).alias(SET));
        if !of_nothing.is_empty() {
            exprs.push(Expr::Column(Column::new_unqualified(PHANTOM)));
        }
        let repeated = LogicalPlanBuilder::from(input).project(exprs)?.unnest_column(Column::new_unqualified(SET))?;
        let repeated = match of_nothing.iter().map(|set| is(*set)).reduce(Expr::or) {
            Some(of_nothing) => repeated.filter(Expr::Not(Box::new(Expr::Column(Column::new_unqualified(PHANTOM)))).or(of_nothing))?,
            None => repeated,
        };
        let repeated = repeated.build()?;
        let mut exprs = below;
        if !of_nothing.is_empty() {
            exprs.push(Expr::Column(Column::new_unqualified(PHANTOM)));
        }
        let mut group = vec![];
        for (at, column) in columns.iter().enumerate() {
            let (qualifier, field) = aggregate.schema.qualified_field(at);
            let name = format!("__group_{at}");
            let value = if seen.iter().all(|missing| !missing[at]) {
                column.clone()
            } else {
                let null = lit(ScalarValue::try_new_null(field.data_type())?);
                let whens = seen.iter().enumerate().filter(|(_, missing)| !missing[at]).map(|(set, _)| (Box::new(is(set)), Box::new(column.clone())));
                Expr::Case(Case { expr: None, when_then_expr: whens.collect(), else_expr: Some(Box::new(null)) })
            };
            exprs.push(value.alias(&name));
            group.push(Expr::Column(Column::new_unqualified(&name)).alias_qualified(qualifier.cloned(), field.name()));
        }
        let id = |id: u64| -> Result<Expr> { Ok(lit(ScalarValue::UInt64(Some(id)).cast_to(&id_type)?)) };
        let whens = ids.iter().enumerate().map(|(set, number)| Ok((Box::new(is(set)), Box::new(id(*number)?)))).collect::<Result<Vec<_>>>()?;
        exprs.push(Expr::Case(Case { expr: None, when_then_expr: whens, else_expr: Some(Box::new(id(0)?)) }).alias("__id"));
        group.push(Expr::Column(Column::new_unqualified("__id")).alias(Aggregate::INTERNAL_GROUPING_ID));
        let expanded = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(repeated))?);
        // The id is nullable in what is given, as all that is computed.
        let plain = Aggregate::try_new(Arc::new(expanded), group, aggr_expr)?;
        let plan = self.node(LogicalPlan::Aggregate(plain), Wanted::Rows)?;
        // Under the names and types that the plan above knows.
        let mut out: Vec<Expr> = vec![];
        for (at, (qualifier, field)) in aggregate.schema.iter().enumerate() {
            let (own_qualifier, own) = plan.schema().qualified_field(at);
            let column = Expr::Column(Column::new(own_qualifier.cloned(), own.name()));
            out.push(column.alias_qualified(qualifier.cloned(), field.name()));
        }
        out.extend(hidden::hidden_columns(plan.schema()));
        Ok(LogicalPlan::Projection(Projection::try_new(out, Arc::new(plan))?))
    }

    /// An aggregate over rows that come and go.
    pub(super) fn changing_aggregate(&mut self, group: Vec<Expr>, aggregates: Vec<Expr>, schema: &DFSchemaRef, input: LogicalPlan) -> Result<LogicalPlan> {
        if let Some(sums) = Sums::of(&aggregates, &input)? {
            return self.sums(group, sums, schema, input);
        }
        let rows = leaf(&input)?;
        let ties = all_columns(rows.schema());
        let ordered = aggregates.into_iter().map(|aggregate| in_order_of(aggregate, &ties)).collect::<Vec<_>>();
        let names = ordered.iter().map(|e| e.schema_name().to_string()).collect::<Vec<_>>().join(", ");
        let over_nothing = group.is_empty();
        let plan = LogicalPlan::Aggregate(Aggregate::try_new_with_schema(Arc::new(rows), group.clone(), ordered, schema.clone())?);
        let query = Query { plan, keys: group, shrinks: false, over_nothing, what: format!("aggregate [{names}]"), bound: None };
        self.recompute(input, query, schema)
    }

    /// An aggregate of which each part is a sum, so that rows can be taken away again.
    fn sums(&mut self, group: Vec<Expr>, sums: Sums, schema: &DFSchemaRef, input: LogicalPlan) -> Result<LogicalPlan> {
        let mut fields: Vec<_> = (0..group.len()).map(|at| schema.qualified_field(at)).map(|(q, f)| (q.cloned(), f.clone())).collect();
        for part in &sums.parts {
            fields.push((None, part.to_field(input.schema())?.1));
        }
        let parts = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let plan = self.stateful_aggregate(group, sums.parts, &parts, input, None, true)?;
        let mut exprs: Vec<Expr> = vec![];
        for (at, (qualifier, field)) in schema.iter().enumerate() {
            exprs.push(match at.checked_sub(schema.fields().len() - sums.values.len()) {
                None => Expr::Column(Column::new(qualifier.cloned(), field.name())),
                Some(value) => sums.values[value].clone().alias_qualified(qualifier.cloned(), field.name()),
            });
        }
        exprs.extend(hidden::hidden_columns(plan.schema()));
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?))
    }

    /// A filter; where it lets only the first rows of each partition through, the others need not be held.
    pub(super) fn filter(&mut self, filter: Filter, wanted: Wanted) -> Result<LogicalPlan> {
        let input = match Arc::unwrap_or_clone(filter.input) {
            LogicalPlan::Window(window) => {
                let most = first_ranks(&filter.predicate, &window);
                self.window(window, most)?
            }
            // The optimizer leaves out what only the order needs.
            LogicalPlan::Projection(projection)
                if matches!(projection.input.as_ref(), LogicalPlan::Window(_)) && projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_))) =>
            {
                let LogicalPlan::Window(window) = Arc::unwrap_or_clone(projection.input) else {
                    return Err(Error::Internal("a window became something else".into()));
                };
                let most = first_ranks(&filter.predicate, &window);
                let input = self.window(window, most)?;
                let mut exprs = projection.expr;
                exprs.extend(hidden::hidden_columns(input.schema()));
                LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?)
            }
            other => self.node(other, wanted)?,
        };
        let mut predicate = self.resolve(vec![filter.predicate], input.schema())?;
        Ok(LogicalPlan::Filter(Filter::try_new(predicate.swap_remove(0), Arc::new(input))?))
    }

    /// `OVER`. `most`: what the plan above keeps of the rows, if those are the first ones of each partition.
    pub(super) fn window(&mut self, window: Window, most: Option<Expr>) -> Result<LogicalPlan> {
        let input = self.node(Arc::unwrap_or_clone(window.input), Wanted::Locators)?;
        let mut partitions: Option<Vec<Expr>> = None;
        for expr in &window.window_expr {
            let Some(function) = window_function(expr) else { return Err(Error::Internal("a window without a function".into())) };
            let own = &function.params.partition_by;
            partitions = Some(match partitions {
                None => own.clone(),
                Some(common) => common.into_iter().filter(|key| own.contains(key)).collect(),
            });
        }
        let rows = leaf(&input)?;
        let ties = all_columns(rows.schema());
        let (by_row, by_peers): (Vec<Expr>, Vec<Expr>) = window.window_expr.iter().cloned().partition(depends_on_ties);
        let mut plan = rows;
        for (exprs, tied) in [(by_peers, false), (by_row, true)] {
            if exprs.is_empty() {
                continue;
            }
            let exprs = exprs.into_iter().map(|expr| if tied { in_total_order(expr, &ties) } else { expr }).collect();
            plan = LogicalPlan::Window(Window::try_new(exprs, Arc::new(plan))?);
        }
        let visible = DFSchema::new_with_metadata(
            window.schema.iter().filter(|(_, field)| !hidden::is_hidden(field.name())).map(|(q, f)| (q.cloned(), f.clone())).collect(),
            Default::default(),
        )?;
        let in_order = visible.columns().into_iter().map(Expr::Column).collect::<Vec<_>>();
        if plan.schema().columns() != visible.columns() {
            plan = LogicalPlan::Projection(Projection::try_new(in_order, Arc::new(plan))?);
        }
        let shrinks = most.is_some() && !has(input.schema(), WEIGHT);
        let names = window.window_expr.iter().map(|e| e.schema_name().to_string()).collect::<Vec<_>>().join(", ");
        let what = match &most {
            Some(most) => format!("first rows [{names}] where {most}"),
            None => format!("window functions [{names}]"),
        };
        if let Some(most) = most {
            plan = LogicalPlan::Filter(Filter::try_new(most, Arc::new(plan))?);
        }
        self.recompute(input, Query { plan, keys: partitions.unwrap_or_default(), shrinks, over_nothing: false, what, bound: None }, &Arc::new(visible))
    }

    /// `ORDER BY … LIMIT n`.
    pub(super) fn first_rows(&mut self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let what = match &plan {
            LogicalPlan::Limit(limit) => {
                let number = |e: &Option<Box<Expr>>| e.as_ref().map(|e| e.to_string());
                match (number(&limit.skip), number(&limit.fetch)) {
                    (None, Some(fetch)) => format!("first {fetch} rows"),
                    (Some(skip), Some(fetch)) => format!("{fetch} rows after the first {skip}"),
                    (skip, None) => format!("rows after the first {}", skip.unwrap_or_default()),
                }
            }
            LogicalPlan::Sort(Sort { fetch, .. }) => format!("first {} rows", fetch.unwrap_or_default()),
            _ => String::new(),
        };
        let schema = plan.schema().clone();
        let mut found = None;
        let query = over_sorted(plan, &mut |input| {
            let input = self.node(input, Wanted::Rows)?;
            let rows = leaf(&input)?;
            found = Some(input);
            Ok(rows)
        })?;
        let input = found.ok_or_else(|| Error::Internal("LIMIT has lost its input".into()))?;
        // The first n of more rows are among the first n of fewer.
        let direct = matches!(&query, LogicalPlan::Sort(sort) if sort.fetch.is_some());
        let shrinks = direct && !has(input.schema(), WEIGHT);
        let bound = shrinks.then(|| format!("{what} of the order"));
        self.recompute(input, Query { plan: query, keys: vec![], shrinks, over_nothing: false, what, bound }, &schema)
    }

    /// An operator that answers a query anew for the keys that an epoch touches.
    fn recompute(&mut self, input: LogicalPlan, query: Query, schema: &DFSchemaRef) -> Result<LogicalPlan> {
        let Query { plan, keys, shrinks, over_nothing, what, bound } = query;
        let window = keys.iter().enumerate().find_map(|(at, key)| Some((at, lineage::bounding_window(key, &input).ok()?)));
        let gives_whole = lineage::gives_whole_windows(&input);
        let whole = gives_whole && window.is_some();
        if gives_whole && !whole && self.emit == Emit::OnWindowClose {
            return Err(Error::Invalid(format!(
                "EMIT ON WINDOW CLOSE is not possible: {what} looks beyond one window; add window_start to its PARTITION BY or GROUP BY, or write EMIT CHANGES"
            )));
        }
        let (mut input, mut shrinks, mut bound, mut idle_after) = (input, shrinks, bound, None);
        if window.is_none() && !whole && bound.is_none() && lineage::bounded(&input).is_none() {
            match self.forgets("a key") {
                // So few rows of each key are held that they go together.
                Some((told, ttl)) if shrinks && !keys.is_empty() => (bound, idle_after) = (Some(told), Some(ttl)),
                _ => input = self.expiring(input)?,
            }
        }
        let changing = has(input.schema(), WEIGHT);
        shrinks &= !changing;
        let bound = match (&window, bound) {
            _ if whole => "nothing is held: each window comes whole".to_string(),
            (Some((_, window)), _) => format!("rows of windows of {} are dropped when {} passes their end", told(window.size), window.timeline),
            (None, Some(bound)) => bound,
            (None, None) => match lineage::bounded(&input) {
                Some(bound) => bound,
                None => {
                    self.unbounded(&what, if shrinks { "a key's first rows are held for ever" } else { "it holds all rows of its input" })?;
                    (if shrinks { "nothing: the first rows of each key for ever" } else { "nothing: all rows of its input for ever" }).to_string()
                        + " (unbounded_state = true)"
                }
            },
        };
        let id = self.operators.len() as OperatorId;
        let names = keys.iter().map(|e| e.schema_name().to_string()).collect::<Vec<_>>().join(", ");
        let takes = if changing { "changing" } else { "append-only" };
        let gives = if whole { "append-only" } else { "changing" };
        self.operators.push(OperatorInfo {
            id,
            description: format!("{what} by [{names}], answered anew for touched keys; takes {takes}, gives {gives} rows"),
            bound,
            windowed: whole || window.is_some(),
            judges: false,
        });
        let window = window.map(|(group, w)| WindowKey {
            group,
            to_end: w.to_end,
            size: w.size,
            timeline: w.timeline,
            lag: w.lag,
            lateness: nanoseconds(self.options.lateness),
            panes: None,
        });
        let mut fields: Vec<_> = schema.iter().map(|(qualifier, field)| (qualifier.cloned(), field.clone())).collect();
        if !whole {
            fields.push((None, weight_field()));
        }
        let schema = Arc::new(DFSchema::new_with_metadata(fields, Default::default())?);
        let closes_when_quiet = lineage::closes_when_quiet(&input);
        let node = Recompute { id, input, keys, query: plan, schema, window, whole, shrinks, over_nothing, closes_when_quiet, idle_after, what };
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
    }
}

/// Rows that are written in the query, as a table.
pub(super) fn constants(schema: &DFSchemaRef, rows: Vec<Vec<Expr>>) -> Result<LogicalPlan> {
    let names: Vec<String> = (0..schema.fields().len()).map(|at| format!("c{at}")).collect();
    let mut columns: Vec<(String, ArrayRef)> = vec![("__one".into(), Arc::new(BooleanArray::from(vec![true; rows.len()])))];
    for (at, (name, field)) in names.iter().zip(schema.fields()).enumerate() {
        let values = rows.iter().map(|row| match row.get(at) {
            Some(Expr::Literal(value, _)) => Ok(value.cast_to(field.data_type())?),
            _ => Err(Error::Unsupported("VALUES of a continuous view are literals".into())),
        });
        let values = values.collect::<Result<Vec<_>>>()?;
        let column = if values.is_empty() { new_empty_array(field.data_type()) } else { ScalarValue::iter_to_array(values)? };
        columns.push((name.clone(), column));
    }
    // Equal rows may stand in several places of one query: one table does for them.
    let told: Vec<String> = rows.iter().map(|row| row.iter().map(|e| e.to_string()).collect::<Vec<_>>().join(", ")).collect();
    let name = format!("__constants ({}) of {}", told.join("), ("), rows.len());
    let fields: Vec<Field> = columns.iter().map(|(name, column)| Field::new(name, column.data_type().clone(), true)).collect();
    let shape = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(shape.clone(), columns.into_iter().map(|(_, column)| column).collect())?;
    let table = StreamTable::over_table(&name, Arc::new(MemTable::try_new(shape, vec![vec![batch]])?));
    let reference = TableReference::bare(name.as_str());
    let scan = LogicalPlan::TableScan(TableScanBuilder::new(reference.clone(), provider_as_source(Arc::new(table))).build()?);
    let column = |at: usize| Expr::Column(Column::new(Some(reference.clone()), format!("c{at}")));
    let exprs = schema.iter().enumerate().map(|(at, (qualifier, field))| column(at).alias_qualified(qualifier.cloned(), field.name()));
    Ok(LogicalPlan::Projection(Projection::try_new(exprs.collect(), Arc::new(scan))?))
}

/// Rows, and one of NULLs that is marked.
fn with_phantom(input: LogicalPlan) -> Result<LogicalPlan> {
    let mut exprs: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    exprs.push(lit(false).alias(PHANTOM));
    let mut nulls = vec![];
    for (qualifier, field) in input.schema().iter() {
        nulls.push(lit(ScalarValue::try_new_null(field.data_type())?).alias_qualified(qualifier.cloned(), field.name()));
    }
    nulls.push(lit(true).alias(PHANTOM));
    let one = LogicalPlan::EmptyRelation(EmptyRelation { produce_one_row: true, schema: Arc::new(DFSchema::empty()) });
    let phantom = LogicalPlan::Projection(Projection::try_new(nulls, Arc::new(one))?);
    let marked = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?);
    // What is NULL in the marked row may be so in all; names and qualifiers are the first one's.
    let fields = marked.schema().iter().map(|(qualifier, field)| (qualifier.cloned(), Arc::new(field.as_ref().clone().with_nullable(true))));
    let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), Default::default())?);
    Ok(LogicalPlan::Union(Union { inputs: vec![Arc::new(marked), Arc::new(phantom)], schema }))
}

/// An aggregate that does not look at the marked row.
fn without_phantom(aggregate: Expr) -> Expr {
    let name = aggregate.schema_name().to_string();
    match lineage::unaliased(&aggregate).clone() {
        Expr::AggregateFunction(mut function) => {
            let real = Expr::Not(Box::new(Expr::Column(Column::new_unqualified(PHANTOM))));
            function.params.filter = Some(Box::new(match function.params.filter {
                Some(filter) => real.and(*filter),
                None => real,
            }));
            Expr::AggregateFunction(function).alias(name)
        }
        _ => aggregate,
    }
}

/// An aggregate over changing rows as sums of weights and weighed values.
struct Sums {
    /// The sums; the first one counts rows.
    parts: Vec<Expr>,
    /// The aggregates' values, over the sums.
    values: Vec<Expr>,
}

impl Sums {
    /// `None` where an aggregate is none that sums can tell: it needs the rows.
    fn of(aggregates: &[Expr], input: &LogicalPlan) -> Result<Option<Self>> {
        let weight = || Expr::Column(Column::new_unqualified(WEIGHT));
        let mut sums = Self { parts: vec![], values: vec![] };
        sums.part(sum(weight()));
        for aggregate in aggregates {
            let Expr::AggregateFunction(function) = lineage::unaliased(aggregate) else { return Ok(None) };
            let (name, params) = (function.func.name(), &function.params);
            let [argument] = params.args.as_slice() else { return Ok(None) };
            if params.distinct || !params.order_by.is_empty() || params.null_treatment.is_some() {
                return Ok(None);
            }
            let some = match argument {
                Expr::Literal(value, _) if !value.is_null() => None,
                argument => Some(argument.clone().is_not_null()),
            };
            let counted = match (params.filter.as_deref().cloned(), some) {
                (Some(filter), Some(some)) => Some(filter.and(some)),
                (filter, some) => filter.or(some),
            };
            let number = match &counted {
                None => sums.part(sum(weight())),
                Some(condition) => sums.part(sum(when(condition.clone(), weight()).otherwise(lit(0i64))?)),
            };
            let weighed = |value: Expr| -> Result<Expr> {
                let signed = when(weight().lt(lit(0i64)), Expr::Negative(Box::new(value.clone()))).otherwise(value)?;
                Ok(match &params.filter {
                    Some(filter) => when(filter.as_ref().clone(), signed).end()?,
                    None => signed,
                })
            };
            let some_rows = |value: Expr| -> Result<Expr> { Ok(when(number.clone().gt(lit(0i64)), value).end()?) };
            let argument_type = argument.get_type(input.schema())?;
            let value = match (name, &argument_type) {
                ("count", _) => when(number.clone().is_not_null(), number.clone()).otherwise(lit(0i64))?,
                ("sum", DataType::Int64 | DataType::Decimal128(..)) => {
                    let total = sums.part(sum(weighed(argument.clone())?));
                    some_rows(total)?
                }
                ("avg", DataType::Float64) => {
                    // The average of whole numbers is that of their exact sum.
                    let Expr::Cast(Cast { expr, .. }) = argument else { return Ok(None) };
                    if !expr.get_type(input.schema())?.is_integer() {
                        return Ok(None);
                    }
                    let exact = Expr::Cast(Cast::new(expr.clone(), DataType::Decimal128(20, 0)));
                    let total = sums.part(sum(weighed(exact)?));
                    let double = |e: Expr| Expr::Cast(Cast::new(Box::new(e), DataType::Float64));
                    some_rows(Expr::BinaryExpr(datafusion::logical_expr::BinaryExpr::new(
                        Box::new(double(total)),
                        Operator::Divide,
                        Box::new(double(number.clone())),
                    )))?
                }
                _ => return Ok(None),
            };
            sums.values.push(value);
        }
        Ok(Some(sums))
    }

    /// A sum, as a column of what the operator gives; one that is there already is not summed twice.
    fn part(&mut self, sum: Expr) -> Expr {
        let at = match self.parts.iter().position(|part| *lineage::unaliased(part) == sum) {
            Some(at) => at,
            None => {
                self.parts.push(sum.alias(format!("__sum_{}", self.parts.len())));
                self.parts.len() - 1
            }
        };
        Expr::Column(Column::new_unqualified(format!("__sum_{at}")))
    }
}

pub(super) fn all_columns(schema: &DFSchema) -> Vec<SortExpr> {
    let orders = |data_type: &DataType| !data_type.is_nested();
    let columns = schema.columns().into_iter().zip(schema.fields()).filter(|(_, field)| orders(field.data_type()));
    #[cfg(not(test))]
    let ascending = true;
    #[cfg(test)]
    let ascending = super::tests::mutants::ties_ascend();
    columns.map(|(column, _)| Expr::Column(column).sort(ascending, false)).collect()
}

/// Lets columns decide that an order does not name yet.
fn decide_ties(order: &mut Vec<SortExpr>, ties: &[SortExpr]) {
    let known: BTreeSet<String> = order.iter().map(|sort| sort.expr.to_string()).collect();
    order.extend(ties.iter().filter(|sort| !known.contains(&sort.expr.to_string())).cloned());
}

/// An aggregate that depends on its rows' order, with ties decided by all columns.
pub(super) fn in_order_of(aggregate: Expr, ties: &[SortExpr]) -> Expr {
    if !super::plan::depends_on_order(&aggregate) {
        return aggregate;
    }
    let name = aggregate.schema_name().to_string();
    match lineage::unaliased(&aggregate).clone() {
        Expr::AggregateFunction(mut function) if !function.params.distinct => {
            decide_ties(&mut function.params.order_by, ties);
            Expr::AggregateFunction(function).alias(name)
        }
        _ => aggregate,
    }
}

fn window_function(expr: &Expr) -> Option<&WindowFunction> {
    match lineage::unaliased(expr) {
        Expr::WindowFunction(function) => Some(function),
        _ => None,
    }
}

/// Whether a window function tells rows apart that its order leaves equal.
fn depends_on_ties(expr: &Expr) -> bool {
    let Some(function) = window_function(expr) else { return false };
    match &function.fun {
        WindowFunctionDefinition::WindowUDF(udf) => match udf.name() {
            "rank" | "dense_rank" | "percent_rank" | "cume_dist" => false,
            "row_number" | "ntile" | "lead" | "lag" => true,
            // Values at a place of the frame.
            _ => function.params.window_frame.units == WindowFrameUnits::Rows,
        },
        WindowFunctionDefinition::AggregateUDF(_) => function.params.window_frame.units == WindowFrameUnits::Rows,
    }
}

fn in_total_order(expr: Expr, ties: &[SortExpr]) -> Expr {
    let name = expr.schema_name().to_string();
    match lineage::unaliased(&expr).clone() {
        Expr::WindowFunction(mut function) => {
            decide_ties(&mut function.params.order_by, ties);
            Expr::WindowFunction(function).alias(name)
        }
        _ => expr,
    }
}

/// A condition on ranks, implied by the predicate, that keeps the first rows of each partition and so never lets a row back in that it
/// has left out: what `row_number() <= 3` is, and `rank() = 5` implies.
fn first_ranks(predicate: &Expr, window: &Window) -> Option<Expr> {
    let ranks: Vec<String> = window
        .window_expr
        .iter()
        .map(|expr| match &window_function(expr)?.fun {
            WindowFunctionDefinition::WindowUDF(udf) if matches!(udf.name(), "row_number" | "rank" | "dense_rank") => Some(expr.schema_name().to_string()),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let is_rank = |expr: &Expr| matches!(expr, Expr::Column(column) if ranks.contains(&column.name));
    datafusion::logical_expr::utils::split_conjunction(predicate).into_iter().find_map(|condition| {
        let Expr::BinaryExpr(binary) = condition else { return None };
        let (rank, op, limit) = match (is_rank(&binary.left), is_rank(&binary.right)) {
            (true, false) => (&binary.left, binary.op, &binary.right),
            (false, true) => (&binary.right, binary.op.swap()?, &binary.left),
            _ => return None,
        };
        let Expr::Literal(..) = limit.as_ref() else { return None };
        let limit = limit.as_ref().clone();
        let rank = rank.as_ref().clone();
        match op {
            Operator::Lt => Some(rank.lt(limit)),
            Operator::LtEq | Operator::Eq => Some(rank.lt_eq(limit)),
            _ => None,
        }
    })
}

/// The nodes from a limit down to its order, over what `below` makes of the input.
fn over_sorted(plan: LogicalPlan, below: &mut dyn FnMut(LogicalPlan) -> Result<LogicalPlan>) -> Result<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Limit(limit) => {
            let literal = |e: &Option<Box<Expr>>| e.as_ref().is_none_or(|e| matches!(e.as_ref(), Expr::Literal(..)));
            if !literal(&limit.skip) || !literal(&limit.fetch) {
                return Err(Error::Unsupported("LIMIT and OFFSET of a continuous view are numbers".into()));
            }
            LogicalPlan::Limit(Limit { input: Arc::new(over_sorted(Arc::unwrap_or_clone(limit.input), below)?), ..limit })
        }
        LogicalPlan::Projection(projection) => {
            let input = over_sorted(Arc::unwrap_or_clone(projection.input), below)?;
            LogicalPlan::Projection(Projection::try_new(projection.expr, Arc::new(input))?)
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let input = over_sorted(Arc::unwrap_or_clone(alias.input), below)?;
            LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?)
        }
        LogicalPlan::Sort(sort) => {
            let input = below(Arc::unwrap_or_clone(sort.input))?;
            // Rows that the order leaves equal stand in the order of all their columns.
            let mut expr = sort.expr;
            decide_ties(&mut expr, &all_columns(input.schema()));
            LogicalPlan::Sort(Sort { expr, input: Arc::new(input), fetch: sort.fetch })
        }
        _ => {
            return Err(Error::Unsupported(
                "LIMIT without ORDER BY is not supported in a continuous view, since any rows would do: add ORDER BY, or limit the rows when reading the view"
                    .into(),
            ));
        }
    })
}

/// Whether a plan has a sort that its user wrote at the top, with nothing to limit.
pub(super) fn is_ordered(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Sort(sort) => sort.fetch.is_none(),
        LogicalPlan::SubqueryAlias(alias) => is_ordered(&alias.input),
        LogicalPlan::Projection(projection) => is_ordered(&projection.input),
        _ => false,
    }
}
