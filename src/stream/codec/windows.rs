//! Window functions as bytes, in a format of our own: DataFusion's leaves out `FILTER`, `IGNORE NULLS` and that a function is reversed.
//! Its expressions take these and do not give them back, so the writer tries: what it builds from what it is about to write must be the
//! expression that there is, in every field that it shows.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::{
    common::{
        DFSchema, Result, plan_err,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan, ReversedUDWF, WindowUDF},
    physical_expr::{
        PhysicalExpr, PhysicalSortExpr,
        aggregate::AggregateFunctionExpr,
        window::{SlidingAggregateWindowExpr, StandardWindowFunctionExpr},
    },
    physical_plan::{
        ExecutionPlan, InputOrderMode, WindowExpr,
        windows::{BoundedWindowAggExec, PlainAggregateWindowExpr, StandardWindowExpr, WindowAggExec, WindowUDFExpr, create_udwf_window_expr},
    },
};
use serde::{Deserialize, Serialize};

use super::{
    Reader, Writer, from_json,
    parts::{Call, SortKey, only_input},
};

/// The condition of a window function's `FILTER`.
#[derive(Debug)]
pub struct WindowFilter {
    /// Which rows the function sees.
    pub condition: Arc<dyn PhysicalExpr>,
    /// What the condition looks at.
    pub columns: SchemaRef,
}

/// The conditions of all `FILTER`s of window functions in a query, lowered by `lower` over the columns that each looks at.
///
/// # Errors
///
/// Those of `lower`.
pub fn filters(query: &LogicalPlan, lower: impl Fn(&Expr, &DFSchema) -> Result<Arc<dyn PhysicalExpr>>) -> Result<Vec<WindowFilter>> {
    let mut found = vec![];
    query.apply(|node| {
        if let LogicalPlan::Window(window) = node {
            for expr in &window.window_expr {
                expr.apply(|expr| {
                    if let Expr::WindowFunction(function) = expr
                        && let Some(filter) = &function.params.filter
                    {
                        let columns = window.input.schema();
                        found.push(WindowFilter { condition: lower(filter, columns)?, columns: columns.inner().clone() });
                    }
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(found)
}

/// An operator of window functions.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct WindowFunctions {
    functions: Vec<Function>,
    /// What the functions were told of the columns: the input's, and their own.
    columns: usize,
    order_mode: Option<OrderMode>,
    can_repartition: bool,
}

/// How the rows below lie; only an operator that gives rows before it has seen all of them asks.
#[derive(Debug, Serialize, Deserialize)]
enum OrderMode {
    Linear,
    PartiallySorted(Vec<usize>),
    Sorted,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Function {
    what: What,
    partition: Vec<usize>,
    order: Vec<SortKey>,
    frame: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
enum What {
    Aggregate { call: Call, sliding: bool, filter: Option<usize> },
    Window { function: String, name: String, arguments: Vec<usize>, ignore_nulls: bool, reversed: bool },
}

impl WindowFunctions {
    /// What the operator is called in the bytes.
    pub(super) const NAME: &str = "WindowFunctions";

    /// `None`: the plan is none of window functions.
    pub(super) fn write(plan: &Arc<dyn ExecutionPlan>, filters: &[WindowFilter], parts: &mut Writer) -> Result<Option<Self>> {
        let (exprs, keys, order_mode) = if let Some(windows) = plan.downcast_ref::<WindowAggExec>() {
            (windows.window_expr(), windows.partition_keys(), None)
        } else if let Some(windows) = plan.downcast_ref::<BoundedWindowAggExec>() {
            let mode = match &windows.input_order_mode {
                InputOrderMode::Linear => OrderMode::Linear,
                InputOrderMode::PartiallySorted(columns) => OrderMode::PartiallySorted(columns.clone()),
                InputOrderMode::Sorted => OrderMode::Sorted,
            };
            (windows.window_expr(), windows.partition_keys(), Some(mode))
        } else {
            return Ok(None);
        };
        let functions = exprs.iter().map(|expr| Function::write(expr, &plan.schema(), filters, parts)).collect::<Result<_>>()?;
        Ok(Some(Self { functions, columns: parts.schema(&plan.schema())?, order_mode, can_repartition: !keys.is_empty() }))
    }

    /// The operator that bytes stand for.
    pub(super) fn read(descriptor: &str, inputs: Vec<Arc<dyn ExecutionPlan>>, parts: &Reader) -> Result<Arc<dyn ExecutionPlan>> {
        let Self { functions, columns, order_mode, can_repartition } = from_json(descriptor)?;
        let input = only_input(inputs, Self::NAME)?;
        let columns = parts.schema(columns)?;
        let functions = functions.iter().map(|function| function.read(&columns, parts)).collect::<Result<Vec<_>>>()?;
        Ok(match order_mode {
            None => Arc::new(WindowAggExec::try_new(functions, input, can_repartition)?),
            Some(mode) => {
                let mode = match mode {
                    OrderMode::Linear => InputOrderMode::Linear,
                    OrderMode::PartiallySorted(columns) => InputOrderMode::PartiallySorted(columns),
                    OrderMode::Sorted => InputOrderMode::Sorted,
                };
                Arc::new(BoundedWindowAggExec::try_new(functions, input, mode, can_repartition)?)
            }
        })
    }
}

impl Function {
    fn write(expr: &Arc<dyn WindowExpr>, columns: &SchemaRef, filters: &[WindowFilter], parts: &mut Writer) -> Result<Self> {
        let refused = || plan_err!("the window function {} can't be written as bytes: not all of it is to be had", expr.name());
        let is_it = |built: &dyn WindowExpr| format!("{built:?}") == format!("{expr:?}");
        let what = if let Some(standard) = expr.as_any().downcast_ref::<StandardWindowExpr>() {
            let Some(function) = standard.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>() else { return refused() };
            let built = |ignore_nulls: bool, reversed: bool| -> Result<Option<StandardWindowExpr>> {
                let function = window_function(function.fun(), function.args(), columns, expr.name(), ignore_nulls, reversed)?;
                Ok(function.map(|function| StandardWindowExpr::new(function, expr.partition_by(), expr.order_by(), expr.get_window_frame().clone())))
            };
            let mut settings = [(false, false), (true, false), (false, true), (true, true)].into_iter();
            let found = settings.find(|(ignore_nulls, reversed)| matches!(built(*ignore_nulls, *reversed), Ok(Some(built)) if is_it(&built)));
            let Some((ignore_nulls, reversed)) = found else { return refused() };
            What::Window {
                function: parts.window_function(function.fun())?,
                name: expr.name().into(),
                arguments: parts.expressions(function.args())?,
                ignore_nulls,
                reversed,
            }
        } else {
            let (call, sliding) = if let Some(plain) = expr.as_any().downcast_ref::<PlainAggregateWindowExpr>() {
                (plain.get_aggregate_expr(), false)
            } else if let Some(sliding) = expr.as_any().downcast_ref::<SlidingAggregateWindowExpr>() {
                (sliding.get_aggregate_expr(), true)
            } else {
                return refused();
            };
            let frame = || expr.get_window_frame().clone();
            let written = parts.call(call)?;
            let read = Arc::new(written.build(Arc::new(call.fun().clone()), call.expressions(), call.order_bys().to_vec(), columns)?);
            let candidates = std::iter::once(None).chain(filters.iter().map(|filter| Some(&filter.condition)));
            let built = |filter: Option<&Arc<dyn PhysicalExpr>>| {
                aggregate_function(read.clone(), sliding, expr.partition_by(), expr.order_by(), frame(), filter.cloned())
            };
            let Some(filter) = candidates.into_iter().find(|filter| is_it(built(*filter).as_ref())) else { return refused() };
            What::Aggregate { call: written, sliding, filter: filter.map(|filter| parts.expression(filter)).transpose()? }
        };
        Ok(Self {
            what,
            partition: parts.expressions(expr.partition_by())?,
            order: parts.order(expr.order_by())?,
            frame: parts.frame(expr.get_window_frame())?,
        })
    }

    fn read(&self, columns: &SchemaRef, parts: &Reader) -> Result<Arc<dyn WindowExpr>> {
        let partition = parts.expressions(&self.partition, columns)?;
        let order = parts.order(&self.order, columns)?;
        let frame = Arc::new(parts.frame(self.frame)?);
        Ok(match &self.what {
            What::Aggregate { call, sliding, filter } => {
                let filter = filter.map(|filter| parts.expression(filter, columns)).transpose()?;
                aggregate_function(Arc::new(parts.call(call, columns)?), *sliding, &partition, &order, frame, filter)
            }
            What::Window { function, name, arguments, ignore_nulls, reversed } => {
                let arguments = parts.expressions(arguments, columns)?;
                match window_function(&parts.window_function(function)?, &arguments, columns, name, *ignore_nulls, *reversed)? {
                    Some(function) => Arc::new(StandardWindowExpr::new(function, &partition, &order, frame)),
                    None => return plan_err!("the plan calls the window function {function} from behind, which it can't be here"),
                }
            }
        })
    }
}

/// The call of a window function. One that is `reversed` is another, seen from behind; `None`: it is not to be had so.
fn window_function(
    function: &Arc<WindowUDF>,
    arguments: &[Arc<dyn PhysicalExpr>],
    columns: &SchemaRef,
    name: &str,
    ignore_nulls: bool,
    reversed: bool,
) -> Result<Option<Arc<dyn StandardWindowFunctionExpr>>> {
    let forwards = match (reversed, function.reverse_expr()) {
        (false, _) => function.clone(),
        (true, ReversedUDWF::Reversed(forwards)) => forwards,
        (true, _) => return Ok(None),
    };
    let call = create_udwf_window_expr(&forwards, arguments, columns, name.into(), ignore_nulls)?;
    Ok(if reversed { call.reverse_expr() } else { Some(call) })
}

/// The call of an aggregate function over a frame.
fn aggregate_function(
    call: Arc<AggregateFunctionExpr>,
    sliding: bool,
    partition: &[Arc<dyn PhysicalExpr>],
    order: &[PhysicalSortExpr],
    frame: Arc<datafusion::logical_expr::WindowFrame>,
    filter: Option<Arc<dyn PhysicalExpr>>,
) -> Arc<dyn WindowExpr> {
    match sliding {
        true => Arc::new(SlidingAggregateWindowExpr::new(call, partition, order, frame, filter)),
        false => Arc::new(PlainAggregateWindowExpr::new(call, partition, order, frame, filter)),
    }
}
