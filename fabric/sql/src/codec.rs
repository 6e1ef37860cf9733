//! Plans as bytes: DataFusion's own encoding, with a leaf of ours, and what a task needs beside the plan.
//!
//! A leaf is encoded without its rows. In a task the codec holds the task's sources and asks them.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Result, internal_datafusion_err, internal_err};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion_proto::physical_plan::{
    AsExecutionPlan, DefaultPhysicalProtoConverter, PhysicalExtensionCodec,
    PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use prost::{DecodeError, Message};
use weft_core::{ErrorCode, Problem};

use crate::Plan;
use crate::error::too_deep;
use crate::facts::Facts;
use crate::leaf::Leaf;
use crate::order::SortKeys;
use crate::stop::stoppable;
use crate::task::Sources;

/// An encoded plan. The plan is bytes within the message, so that its nesting is its own.
#[derive(Clone, PartialEq, Message)]
struct TaskPlan {
    #[prost(bytes = "vec", tag = "1")]
    plan: Vec<u8>,
    /// Schema of the stage, which the rows of every branch get.
    #[prost(message, optional, tag = "2")]
    schema: Option<protobuf::Schema>,
    /// Expressions that place rows, none where they are not placed by hash.
    #[prost(message, repeated, tag = "3")]
    keys: Vec<protobuf::PhysicalExprNode>,
    /// The order of rows that are read in ranges, nothing of others.
    #[prost(message, repeated, tag = "4")]
    order: Vec<SortKey>,
}

/// An expression of an order.
#[derive(Clone, PartialEq, Message)]
struct SortKey {
    #[prost(message, optional, tag = "1")]
    expression: Option<protobuf::PhysicalExprNode>,
    #[prost(bool, tag = "2")]
    descending: bool,
    #[prost(bool, tag = "3")]
    nulls_first: bool,
}

#[derive(Clone, PartialEq, Message)]
struct LeafNode {
    #[prost(uint32, tag = "1")]
    leaf: u32,
    #[prost(message, optional, tag = "2")]
    schema: Option<protobuf::Schema>,
    #[prost(message, optional, tag = "3")]
    facts: Option<Facts>,
    /// The order by which tasks share the rows, nothing if each reads a partition or all.
    #[prost(message, repeated, tag = "4")]
    keys: Vec<SortKey>,
}

/// A decoded plan.
pub(crate) struct Decoded {
    pub(crate) plan: Plan,
    pub(crate) schema: SchemaRef,
    pub(crate) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) order: Option<SortKeys>,
}

/// Encodes a branch of a stage, whose leaves are numbered.
pub(crate) fn encode(
    plan: Plan,
    schema: &SchemaRef,
    keys: &[Arc<dyn PhysicalExpr>],
    order: Option<&SortKeys>,
) -> Result<Vec<u8>> {
    let codec = Codec { sources: None };
    let converter = DefaultPhysicalProtoConverter {};
    let keys = keys
        .iter()
        .map(|key| converter.physical_expr_to_proto(key, &codec))
        .collect::<Result<Vec<_>>>()?;
    let plan = protobuf::PhysicalPlanNode::try_from_physical_plan(plan, &codec)?;
    let plan = TaskPlan {
        plan: plan.encode_to_vec(),
        schema: Some(protobuf::Schema::try_from(&**schema)?),
        keys,
        order: encoded_order(order, &codec, &converter)?,
    };
    Ok(plan.encode_to_vec())
}

/// Decodes a plan. Without sources its leaves hold no rows.
pub(crate) fn decode(
    bytes: &[u8],
    context: &TaskContext,
    sources: Option<Arc<dyn Sources>>,
) -> Result<Decoded> {
    let unreadable =
        |error: DecodeError| internal_datafusion_err!("a plan cannot be decoded: {error}");
    let decoded = TaskPlan::decode(bytes).map_err(unreadable)?;
    let node = protobuf::PhysicalPlanNode::decode(decoded.plan.as_slice()).map_err(unreadable)?;
    let codec = Codec { sources };
    let mut plan = node.try_into_physical_plan(context, &codec)?;
    if let Some(sources) = &codec.sources {
        plan = stoppable(plan, sources)?;
    }
    let schema = schema_of(decoded.schema.as_ref())?;
    let within = PhysicalPlanDecodeContext::new(context, &codec);
    let converter = DefaultPhysicalProtoConverter {};
    let keys = decoded
        .keys
        .iter()
        .map(|key| converter.proto_to_physical_expr(key, &schema, &within))
        .collect::<Result<Vec<_>>>()?;
    let order = decoded_order(&decoded.order, &schema, &within, &converter)?;
    Ok(Decoded {
        plan: merged_in_order(plan)?,
        schema,
        keys,
        order,
    })
}

fn encoded_order(
    order: Option<&SortKeys>,
    codec: &Codec,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Vec<SortKey>> {
    let encoded = |one: &PhysicalSortExpr| {
        Ok(SortKey {
            expression: Some(converter.physical_expr_to_proto(&one.expr, codec)?),
            descending: one.options.descending,
            nulls_first: one.options.nulls_first,
        })
    };
    let expressions = order.map(SortKeys::expressions).unwrap_or_default();
    expressions.iter().map(encoded).collect()
}

fn decoded_order(
    order: &[SortKey],
    schema: &Schema,
    within: &PhysicalPlanDecodeContext<'_>,
    converter: &dyn PhysicalProtoConverterExtension,
) -> Result<Option<SortKeys>> {
    if order.is_empty() {
        return Ok(None);
    }
    let decoded = |key: &SortKey| {
        let Some(expression) = &key.expression else {
            return internal_err!("an encoded order lacks an expression");
        };
        let options = SortOptions {
            descending: key.descending,
            nulls_first: key.nulls_first,
        };
        let expr = converter.proto_to_physical_expr(expression, schema, within)?;
        Ok(PhysicalSortExpr { expr, options })
    };
    let expressions = order.iter().map(decoded).collect::<Result<Vec<_>>>()?;
    SortKeys::new(expressions, schema).map(Some)
}

/// Checks that an encoded plan is not too deep to be decoded: prost refuses messages within more than 100 others.
pub(crate) fn check_depth(bytes: &[u8]) -> Result<(), Problem> {
    let check = || -> Result<(), DecodeError> {
        let decoded = TaskPlan::decode(bytes)?;
        protobuf::PhysicalPlanNode::decode(decoded.plan.as_slice()).map(drop)
    };
    check().map_err(|error| match error.to_string() {
        text if text.contains("recursion limit") => too_deep(),
        text => Problem::new(ErrorCode::Internal, text),
    })
}

fn schema_of(schema: Option<&protobuf::Schema>) -> Result<SchemaRef> {
    match schema {
        Some(schema) => Ok(Arc::new(Schema::try_from(schema)?)),
        None => internal_err!("an encoded plan lacks a schema"),
    }
}

/// Lets merges deal out ties by writer and then in order. Encoding loses that choice, and the default takes turns.
fn merged_in_order(plan: Plan) -> Result<Plan> {
    let ordered = plan.transform_up(|node| {
        let Some(merge) = node.downcast_ref::<SortPreservingMergeExec>() else {
            return Ok(Transformed::no(node));
        };
        let merge: Plan = Arc::new(merge.clone().with_round_robin_repartition(false));
        Ok(Transformed::yes(merge))
    })?;
    Ok(ordered.data)
}

/// Encodes leaves, and decodes them with the sources of a task.
#[derive(Debug)]
struct Codec {
    sources: Option<Arc<dyn Sources>>,
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        buf: &[u8],
        _inputs: &[Plan],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Plan> {
        let node = LeafNode::decode(buf)
            .map_err(|error| internal_datafusion_err!("a leaf cannot be decoded: {error}"))?;
        let schema = schema_of(node.schema.as_ref())?;
        let facts = node.facts.unwrap_or_default();
        let within = PhysicalPlanDecodeContext::new(context, self);
        let keys = decoded_order(&node.keys, &schema, &within, converter)?;
        Leaf::decoded(node.leaf, self.sources.clone(), schema, facts, keys)
    }

    fn try_encode(
        &self,
        node: Plan,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let leaf = node.downcast_ref::<Leaf>();
        let Some((leaf, number)) = leaf.and_then(|leaf| Some((leaf, leaf.number()?))) else {
            return internal_err!("{} cannot be encoded", node.name());
        };
        let encoded = LeafNode {
            leaf: number,
            schema: Some(protobuf::Schema::try_from(&*leaf.schema())?),
            facts: Some(leaf.facts().clone()),
            keys: encoded_order(leaf.keys(), self, converter)?,
        };
        buf.extend(encoded.encode_to_vec());
        Ok(())
    }
}
