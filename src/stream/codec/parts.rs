//! What a descriptor names by number: expressions, schemas and plans, which DataFusion has a format for.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    compute::SortOptions,
    datatypes::{Schema, SchemaRef},
};
use datafusion::{
    catalog::TableProvider,
    common::{Result, plan_err},
    logical_expr::{AggregateUDF, WindowFrame, WindowUDF},
    physical_expr::{
        PhysicalExpr, PhysicalSortExpr,
        aggregate::{AggregateExprBuilder, AggregateFunctionExpr},
    },
    physical_plan::ExecutionPlan,
};
use datafusion_proto::{
    physical_plan::{PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension},
    protobuf,
};
use serde::{Deserialize, Serialize};

use super::{converter::Converter, windows::WindowFilter};

/// One of our operators, in an extension node.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Node {
    /// Its name.
    #[prost(string, tag = "1")]
    pub operator: String,
    /// What it computes, as JSON.
    #[prost(string, tag = "2")]
    pub descriptor: String,
    #[prost(message, repeated, tag = "3")]
    expressions: Vec<protobuf::PhysicalExprNode>,
    #[prost(message, repeated, tag = "4")]
    schemas: Vec<protobuf::Schema>,
    #[prost(message, repeated, tag = "5")]
    frames: Vec<protobuf::WindowFrame>,
    #[prost(message, repeated, tag = "6")]
    plans: Vec<protobuf::PhysicalPlanNode>,
}

/// The call of an aggregate function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    function: String,
    name: String,
    arguments: Vec<usize>,
    order: Vec<SortKey>,
    distinct: bool,
    ignore_nulls: bool,
    reversed: bool,
    display: Option<String>,
    display_alias: Option<String>,
}

impl Call {
    /// The call of a function.
    pub(super) fn build(
        &self,
        function: Arc<AggregateUDF>,
        arguments: Vec<Arc<dyn PhysicalExpr>>,
        order: Vec<PhysicalSortExpr>,
        columns: &SchemaRef,
    ) -> Result<AggregateFunctionExpr> {
        let Self { function: _, name, arguments: _, order: _, distinct, ignore_nulls, reversed, display, display_alias } = self;
        let mut builder = AggregateExprBuilder::new(function, arguments)
            .schema(columns.clone())
            .alias(name)
            .order_by(order)
            .with_distinct(*distinct)
            .with_ignore_nulls(*ignore_nulls)
            .with_reversed(*reversed);
        if let Some(display) = display {
            builder = builder.human_display(display);
        }
        if let Some(alias) = display_alias {
            builder = builder.human_display_alias(alias);
        }
        builder.build()
    }
}

/// An expression that rows are sorted by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SortKey {
    expression: usize,
    descending: bool,
    nulls_first: bool,
}

/// Takes the parts of an operator that is written.
pub struct Writer<'a> {
    codec: &'a dyn PhysicalExtensionCodec,
    converter: &'a dyn PhysicalProtoConverterExtension,
    node: Node,
}

impl<'a> Writer<'a> {
    pub(super) fn new(codec: &'a dyn PhysicalExtensionCodec, converter: &'a dyn PhysicalProtoConverterExtension) -> Self {
        Self { codec, converter, node: Node::default() }
    }

    pub(super) fn finish(self, operator: &str, descriptor: String) -> Node {
        Node { operator: operator.into(), descriptor, ..self.node }
    }

    /// The number of an expression.
    pub fn expression(&mut self, expression: &Arc<dyn PhysicalExpr>) -> Result<usize> {
        self.node.expressions.push(self.converter.physical_expr_to_proto(expression, self.codec)?);
        Ok(self.node.expressions.len() - 1)
    }

    /// The numbers of expressions.
    pub fn expressions<'e>(&mut self, expressions: impl IntoIterator<Item = &'e Arc<dyn PhysicalExpr>>) -> Result<Vec<usize>> {
        expressions.into_iter().map(|expression| self.expression(expression)).collect()
    }

    /// The number of a schema.
    pub fn schema(&mut self, schema: &Schema) -> Result<usize> {
        self.node.schemas.push(schema.try_into()?);
        Ok(self.node.schemas.len() - 1)
    }

    /// The number of a plan inside the operator. `filters` are the conditions of its window functions' `FILTER`, see [`filters`](super::filters).
    pub fn plan(&mut self, plan: &Arc<dyn ExecutionPlan>, filters: &[WindowFilter]) -> Result<usize> {
        self.node.plans.push(Converter { filters }.execution_plan_to_proto(plan, self.codec)?);
        Ok(self.node.plans.len() - 1)
    }

    /// The number of a window function's frame.
    pub(super) fn frame(&mut self, frame: &WindowFrame) -> Result<usize> {
        self.node.frames.push(frame.try_into().or_else(|e| plan_err!("the frame {frame} of a window function can't be written as bytes: {e}"))?);
        Ok(self.node.frames.len() - 1)
    }

    /// An order.
    pub fn order<'e>(&mut self, order: impl IntoIterator<Item = &'e PhysicalSortExpr>) -> Result<Vec<SortKey>> {
        let key = |sort: &PhysicalSortExpr| {
            let SortOptions { descending, nulls_first } = sort.options;
            Ok(SortKey { expression: self.expression(&sort.expr)?, descending, nulls_first })
        };
        order.into_iter().map(key).collect()
    }

    /// The call of an aggregate function.
    pub fn call(&mut self, call: &AggregateFunctionExpr) -> Result<Call> {
        self.function(call.fun().name(), |codec, payload| codec.try_encode_udaf(call.fun(), payload))?;
        Ok(Call {
            function: call.fun().name().into(),
            name: call.name().into(),
            arguments: self.expressions(&call.expressions())?,
            order: self.order(call.order_bys())?,
            distinct: call.is_distinct(),
            ignore_nulls: call.ignore_nulls(),
            reversed: call.is_reversed(),
            display: call.human_display().map(Into::into),
            display_alias: call.human_display_alias().map(Into::into),
        })
    }

    /// The name of a window function.
    pub(super) fn window_function(&mut self, function: &WindowUDF) -> Result<String> {
        self.function(function.name(), |codec, payload| codec.try_encode_udwf(function, payload))?;
        Ok(function.name().into())
    }

    /// Functions go by name.
    fn function(&self, name: &str, encode: impl FnOnce(&dyn PhysicalExtensionCodec, &mut Vec<u8>) -> Result<()>) -> Result<()> {
        let mut payload = vec![];
        encode(self.codec, &mut payload)?;
        if !payload.is_empty() {
            return plan_err!("the function {name} can't be written as bytes: it is more than its name");
        }
        Ok(())
    }
}

/// Gives the parts of an operator that is read.
pub struct Reader<'a> {
    pub(super) node: &'a Node,
    pub(super) context: PhysicalPlanDecodeContext<'a>,
    pub(super) converter: &'a dyn PhysicalProtoConverterExtension,
    pub(super) tables: &'a BTreeMap<String, Arc<dyn TableProvider>>,
}

impl Reader<'_> {
    /// An expression over columns.
    pub fn expression(&self, number: usize, columns: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
        self.converter.proto_to_physical_expr(part(&self.node.expressions, number)?, columns, &self.context)
    }

    /// Expressions over columns.
    pub fn expressions(&self, numbers: &[usize], columns: &Schema) -> Result<Vec<Arc<dyn PhysicalExpr>>> {
        numbers.iter().map(|number| self.expression(*number, columns)).collect()
    }

    /// A schema.
    pub fn schema(&self, number: usize) -> Result<SchemaRef> {
        Ok(Arc::new(part(&self.node.schemas, number)?.try_into()?))
    }

    /// A plan inside the operator.
    pub fn plan(&self, number: usize) -> Result<Arc<dyn ExecutionPlan>> {
        self.converter.proto_to_execution_plan(part(&self.node.plans, number)?, &self.context)
    }

    /// A window function's frame.
    pub(super) fn frame(&self, number: usize) -> Result<WindowFrame> {
        part(&self.node.frames, number)?.clone().try_into().or_else(|e| plan_err!("the bytes of a plan hold a frame that is none: {e}"))
    }

    /// An order over columns.
    pub fn order(&self, order: &[SortKey], columns: &Schema) -> Result<Vec<PhysicalSortExpr>> {
        let sort = |key: &SortKey| {
            let SortKey { expression, descending, nulls_first } = *key;
            Ok(PhysicalSortExpr { expr: self.expression(expression, columns)?, options: SortOptions { descending, nulls_first } })
        };
        order.iter().map(sort).collect()
    }

    /// The call of an aggregate function over columns.
    pub fn call(&self, call: &Call, columns: &SchemaRef) -> Result<AggregateFunctionExpr> {
        let function = self.aggregate_function(&call.function)?;
        call.build(function, self.expressions(&call.arguments, columns)?, self.order(&call.order, columns)?, columns)
    }

    fn aggregate_function(&self, name: &str) -> Result<Arc<AggregateUDF>> {
        self.context.task_ctx().aggregate_functions().get(name).cloned().map_or_else(|| unknown(name), Ok)
    }

    /// A window function by its name.
    pub(super) fn window_function(&self, name: &str) -> Result<Arc<WindowUDF>> {
        self.context.task_ctx().window_functions().get(name).cloned().map_or_else(|| unknown(name), Ok)
    }

    /// A table by its name.
    pub fn table(&self, name: &str) -> Result<Arc<dyn TableProvider>> {
        match self.tables.get(name) {
            Some(table) => Ok(table.clone()),
            None => plan_err!("the plan reads the table {name}, which is not known here"),
        }
    }
}

/// The only input of an operator that has one.
pub(in crate::stream) fn only_input(mut inputs: Vec<Arc<dyn ExecutionPlan>>, operator: &str) -> Result<Arc<dyn ExecutionPlan>> {
    match (inputs.pop(), inputs.is_empty()) {
        (Some(input), true) => Ok(input),
        _ => plan_err!("the bytes of a plan give {operator} another number of inputs than one"),
    }
}

fn part<T>(parts: &[T], number: usize) -> Result<&T> {
    match parts.get(number) {
        Some(part) => Ok(part),
        None => plan_err!("the bytes of a plan are damaged: part {number} of an operator is missing"),
    }
}

fn unknown<T>(function: &str) -> Result<T> {
    plan_err!("the plan calls the function {function}, which is not known here")
}
