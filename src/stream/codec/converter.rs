//! DataFusion's format, and ours for what it would lose: of window functions see [`windows`](super::windows); of a cast to a field with its
//! own nullability and metadata, which a union makes of inputs that do not agree, it has the type alone.

use std::sync::Arc;

use arrow::{
    compute::CastOptions,
    datatypes::{DataType, Schema},
};
use datafusion::{
    common::{Result, plan_err},
    physical_expr::{PhysicalExpr, ScalarFunctionExpr, expressions::CastExpr},
    physical_plan::ExecutionPlan,
};
use datafusion_proto::{
    physical_plan::{
        PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalPlanNodeExt, PhysicalProtoConverterExtension,
        to_proto::serialize_physical_expr_with_converter,
    },
    protobuf::{self, physical_expr_node::ExprType, physical_plan_node::PhysicalPlanType},
};
use prost::Message;

use super::{
    parts::Writer,
    to_json,
    windows::{WindowFilter, WindowFunctions},
};

/// Converts plans and expressions.
pub(super) struct Converter<'a> {
    /// See [`filters`](super::filters).
    pub filters: &'a [WindowFilter],
}

/// A [`CastExpr`] to a field; what is cast is the expression's input.
#[derive(Clone, PartialEq, Message)]
struct Cast {
    /// Its only field is the target.
    #[prost(message, optional, tag = "1")]
    target: Option<protobuf::Schema>,
    /// What can't be cast is NULL.
    #[prost(bool, tag = "2")]
    safe: bool,
}

impl Cast {
    /// `None`: DataFusion's own format has all of it.
    fn of(cast: &CastExpr) -> Result<Option<Self>> {
        let CastOptions { safe, format_options } = cast.cast_options();
        if *format_options != usual(cast.expr(), cast.cast_type()).format_options {
            return plan_err!("{cast} can't be written as bytes: it has its own format");
        }
        if !cast.has_explicit_nullability() && !*safe {
            return Ok(None);
        }
        if !cast.has_explicit_nullability() {
            return plan_err!("{cast} can't be written as bytes: it gives NULL for what can't be cast, and names no field");
        }
        let target = Schema::new(vec![cast.target_field().clone()]);
        Ok(Some(Self { target: Some((&target).try_into()?), safe: *safe }))
    }
}

/// The cast that bytes stand for, of an input.
pub(super) fn read_cast(bytes: &[u8], inputs: &[Arc<dyn PhysicalExpr>]) -> Result<Arc<dyn PhysicalExpr>> {
    let Ok(Cast { target: Some(target), safe }) = Cast::decode(bytes) else { return plan_err!("the bytes of a plan are damaged: a cast has no target") };
    let target = Schema::try_from(&target)?;
    let ([input], [field]) = (inputs, target.fields().as_ref()) else {
        return plan_err!("the bytes of a plan are damaged: a cast is of one expression to one field");
    };
    let options = CastOptions { safe, ..usual(input, field.data_type()) };
    Ok(Arc::new(CastExpr::new_with_target_field(input.clone(), field.clone(), Some(options))))
}

/// The options of a cast that names none.
fn usual(of: &Arc<dyn PhysicalExpr>, to: &DataType) -> CastOptions<'static> {
    CastExpr::new(of.clone(), to.clone(), None).cast_options().clone()
}

impl PhysicalProtoConverterExtension for Converter<'_> {
    fn proto_to_execution_plan(&self, proto: &protobuf::PhysicalPlanNode, ctx: &PhysicalPlanDecodeContext<'_>) -> Result<Arc<dyn ExecutionPlan>> {
        self.default_proto_to_execution_plan(proto, ctx)
    }

    fn execution_plan_to_proto(&self, plan: &Arc<dyn ExecutionPlan>, codec: &dyn PhysicalExtensionCodec) -> Result<protobuf::PhysicalPlanNode> {
        let mut parts = Writer::new(codec, self);
        match WindowFunctions::write(plan, self.filters, &mut parts)? {
            Some(windows) => {
                let inputs = plan.children().into_iter().map(|input| self.execution_plan_to_proto(input, codec)).collect::<Result<_>>()?;
                let node = parts.finish(WindowFunctions::NAME, to_json(&windows)?).encode_to_vec();
                Ok(protobuf::PhysicalPlanNode { physical_plan_type: Some(PhysicalPlanType::Extension(protobuf::PhysicalExtensionNode { node, inputs })) })
            }
            None => protobuf::PhysicalPlanNode::try_from_physical_plan_with_converter(plan.clone(), codec, self),
        }
    }

    fn proto_to_physical_expr(
        &self,
        proto: &protobuf::PhysicalExprNode,
        input_schema: &Schema,
        ctx: &PhysicalPlanDecodeContext<'_>,
    ) -> Result<Arc<dyn PhysicalExpr>> {
        self.default_proto_to_physical_expr(proto, input_schema, ctx)
    }

    fn physical_expr_to_proto(&self, expr: &Arc<dyn PhysicalExpr>, codec: &dyn PhysicalExtensionCodec) -> Result<protobuf::PhysicalExprNode> {
        if let Some(cast) = expr.downcast_ref::<CastExpr>()
            && let Some(own) = Cast::of(cast)?
        {
            let inputs = vec![self.physical_expr_to_proto(cast.expr(), codec)?];
            let node = protobuf::PhysicalExtensionExprNode { expr: own.encode_to_vec(), inputs };
            return Ok(protobuf::PhysicalExprNode { expr_id: None, expr_type: Some(ExprType::Extension(node)) });
        }
        if let Some(call) = expr.downcast_ref::<ScalarFunctionExpr>()
            && !call.return_field(&Schema::empty())?.metadata().is_empty()
        {
            return plan_err!("{call} can't be written as bytes: what it gives has metadata");
        }
        serialize_physical_expr_with_converter(expr, codec, self)
    }
}
