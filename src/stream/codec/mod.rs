//! Plans as bytes. A view's plan holds neither data nor state, so that what it computes can be written down and read elsewhere: the
//! operators of DataFusion in its own protobuf format, ours as extension nodes of it.
//!
//! An operator of ours is its name, a descriptor (plain data, as JSON) and, beside that, what DataFusion has a format for: expressions,
//! schemas, plans. The descriptor names those by number. The operator that is read back finds its state by its own number in the task's
//! context, as the one that was written does. Functions go by name and are those of the reader's registry. What can't be written is an
//! error; nothing is left out.
//!
//! * `parts`: what a descriptor names by number, written and read.
//! * `converter`: where DataFusion's own format would lose something.
//! * `windows`: window functions, of which it loses `FILTER` and `IGNORE NULLS`.
//!
//! Each operator's descriptor stands beside it (`aggregate/codec.rs` and so on).

mod converter;
mod parts;
mod windows;

use std::{any::type_name, collections::BTreeMap, sync::Arc};

use datafusion::{
    catalog::TableProvider,
    common::{Result, internal_err, plan_err},
    execution::TaskContext,
    physical_expr::PhysicalExpr,
    physical_expr_common::physical_expr::proto_decode::PhysicalExprDecodeCtx,
    physical_plan::ExecutionPlan,
};
use datafusion_proto::{
    bytes::{physical_plan_from_bytes_with_proto_converter, physical_plan_to_bytes_with_proto_converter},
    physical_plan::{PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension},
};
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};

pub(super) use parts::only_input;
pub use parts::{Call, Reader, Writer};
pub use windows::{WindowFilter, filters};

use converter::Converter;
use parts::Node;
use windows::WindowFunctions;

use super::{
    aggregate::StreamAggregateExec, expiry::ExpiryExec, join::StreamJoinExec, recompute::RecomputeExec, slice::SliceExec, temporal::TemporalFilterExec,
    temporal_join::TemporalJoinExec, upsert::UpsertExec,
};

/// An operator that is a descriptor, parts and inputs.
pub trait Described: ExecutionPlan + Sized {
    /// All that it computes, as plain data.
    type Descriptor: Serialize + DeserializeOwned;

    /// Tells what it computes.
    ///
    /// # Errors
    ///
    /// Something has no form as bytes.
    fn describe(&self, parts: &mut Writer) -> Result<Self::Descriptor>;

    /// The operator that computes this over inputs, in the order of its children.
    ///
    /// # Errors
    ///
    /// The bytes are not of such an operator.
    fn build(descriptor: Self::Descriptor, inputs: Vec<Arc<dyn ExecutionPlan>>, parts: &Reader) -> Result<Arc<dyn ExecutionPlan>>;
}

/// What an operator reads, in the order of its children.
type Inputs = Vec<Arc<dyn ExecutionPlan>>;

/// How one type of operators is written and read.
struct Arm {
    /// [`ExecutionPlan::name`], which is its name in the bytes.
    name: &'static str,
    write: fn(&dyn ExecutionPlan, &mut Writer) -> Result<String>,
    read: fn(&str, Inputs, &Reader) -> Result<Arc<dyn ExecutionPlan>>,
}

impl Arm {
    const fn of<T: Described>(name: &'static str) -> Self {
        Self {
            name,
            write: |plan, parts| match plan.downcast_ref::<T>() {
                Some(operator) => to_json(&operator.describe(parts)?),
                None => internal_err!("{} goes by the name of {}", plan.name(), type_name::<T>()),
            },
            read: |descriptor, inputs, parts| T::build(from_json(descriptor)?, inputs, parts),
        }
    }
}

/// Every physical operator of the epoch engine.
const OPERATORS: &[Arm] = &[
    Arm::of::<SliceExec>("SliceExec"),
    Arm::of::<StreamAggregateExec>("StreamAggregateExec"),
    Arm::of::<StreamJoinExec>("StreamJoinExec"),
    Arm::of::<RecomputeExec>("RecomputeExec"),
    Arm::of::<TemporalFilterExec>("TemporalFilterExec"),
    Arm::of::<UpsertExec>("UpsertExec"),
    Arm::of::<ExpiryExec>("ExpiryExec"),
    Arm::of::<TemporalJoinExec>("TemporalJoinExec"),
    // DataFusion's own, in a format that loses nothing.
    Arm { name: WindowFunctions::NAME, write: |_, _| internal_err!("window functions are written by their converter"), read: WindowFunctions::read },
];

fn to_json(descriptor: &impl Serialize) -> Result<String> {
    serde_json::to_string(descriptor).or_else(|e| internal_err!("a plan's operator can't be written: {e}"))
}

fn from_json<T: DeserializeOwned>(descriptor: &str) -> Result<T> {
    serde_json::from_str(descriptor).or_else(|e| plan_err!("the bytes of a plan hold an operator that this version does not know: {e}"))
}

/// Writes and reads the plans of continuous views.
#[derive(Debug, Default)]
pub struct EpochCodec {
    /// The tables whose rows a view is given when it starts. They stay where they are: a plan names them.
    tables: BTreeMap<String, Arc<dyn TableProvider>>,
}

impl EpochCodec {
    /// A codec that knows these tables by name, as a plan's leaves name them.
    pub fn new(tables: BTreeMap<String, Arc<dyn TableProvider>>) -> Self {
        Self { tables }
    }

    /// A plan as bytes.
    ///
    /// # Errors
    ///
    /// An operator or expression that has no form as bytes, told in a sentence.
    pub fn encode(&self, plan: &Arc<dyn ExecutionPlan>) -> Result<Vec<u8>> {
        Ok(physical_plan_to_bytes_with_proto_converter(plan.clone(), self, &Converter { filters: &[] })?.to_vec())
    }

    /// The plan that bytes stand for. Functions are those of `context`.
    ///
    /// # Errors
    ///
    /// The bytes are no plan, or it names a function or table that is not known here.
    pub fn decode(&self, bytes: &[u8], context: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
        physical_plan_from_bytes_with_proto_converter(bytes, context, self, &Converter { filters: &[] })
    }
}

impl PhysicalExtensionCodec for EpochCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        ctx: &TaskContext,
        proto_converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let node = Node::decode(buf).or_else(|e| plan_err!("the bytes of a plan are damaged: {e}"))?;
        let Some(arm) = OPERATORS.iter().find(|arm| arm.name == node.operator) else {
            return plan_err!("the bytes of a plan hold {:?}, an operator that this version does not know", node.operator);
        };
        let parts = Reader { node: &node, context: PhysicalPlanDecodeContext::new(ctx, self), converter: proto_converter, tables: &self.tables };
        (arm.read)(&node.descriptor, inputs.to_vec(), &parts)
    }

    fn try_encode(&self, node: Arc<dyn ExecutionPlan>, buf: &mut Vec<u8>, _: &dyn PhysicalProtoConverterExtension) -> Result<()> {
        let Some(arm) = OPERATORS.iter().find(|arm| arm.name == node.name()) else {
            return plan_err!("{} can't be written as bytes: it is none of the operators that continuous views are made of", node.name());
        };
        let mut parts = Writer::new(self, &Converter { filters: &[] });
        let descriptor = (arm.write)(node.as_ref(), &mut parts)?;
        parts.finish(arm.name, descriptor).encode(buf).or_else(|e| internal_err!("a plan's operator can't be written: {e}"))
    }

    fn try_decode_expr(&self, buf: &[u8], inputs: &[Arc<dyn PhysicalExpr>], _: &PhysicalExprDecodeCtx<'_>) -> Result<Arc<dyn PhysicalExpr>> {
        converter::read_cast(buf, inputs)
    }
}

/// The names of the operators that there is a form for.
#[cfg(test)]
pub(super) fn operators() -> impl Iterator<Item = &'static str> {
    OPERATORS.iter().map(|arm| arm.name)
}
