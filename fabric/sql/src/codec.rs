//! Plans as bytes: DataFusion's own encoding, with a leaf of ours, and what a task needs beside the plan.
//!
//! A leaf is encoded without its rows, a recursion without its counter, and a function of a component as its position.
//! In a task the codec holds the task's sources and asks them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use arrow::compute::SortOptions;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, internal_datafusion_err, internal_err, not_impl_err};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::ScalarUDF;
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::recursive_query::RecursiveQueryExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, displayable};
use datafusion_proto::physical_plan::{
    AsExecutionPlan, DefaultPhysicalProtoConverter, PhysicalExtensionCodec,
    PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf;
use prost::{DecodeError, Message};
use weft_core::{ErrorCode, Problem, lock};

use crate::Plan;
use crate::error::{problem, too_deep};
use crate::facts::Facts;
use crate::functions::ComponentFunction;
use crate::leaf::Leaf;
use crate::order::SortKeys;
use crate::recursion::{self, RecursionNode};
use crate::stop::stoppable;
use crate::task::Sources;
use crate::windows::{Lost, lost, restored};

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
    /// Properties of window functions that the plan lacks.
    #[prost(message, repeated, tag = "5")]
    windows: Vec<Lost>,
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

/// A node that DataFusion's encoding does not know.
#[derive(Clone, PartialEq, Message)]
struct OwnNode {
    #[prost(message, optional, tag = "1")]
    leaf: Option<LeafNode>,
    #[prost(message, optional, tag = "2")]
    recursion: Option<RecursionNode>,
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

#[derive(Clone, PartialEq, Message)]
struct FunctionNode {
    /// Position of the function, from 1 on: an empty message would be none.
    #[prost(uint32, tag = "1")]
    position: u32,
    #[prost(bool, tag = "2")]
    is_deterministic: bool,
}

/// A decoded plan.
pub(crate) struct Decoded {
    pub(crate) plan: Plan,
    pub(crate) schema: SchemaRef,
    pub(crate) keys: Vec<Arc<dyn PhysicalExpr>>,
    pub(crate) order: Option<SortKeys>,
}

/// Encodes a branch of a stage, whose leaves are numbered. Adds the functions of components that it calls to `called`.
pub(crate) fn encode(
    plan: Plan,
    schema: &SchemaRef,
    keys: &[Arc<dyn PhysicalExpr>],
    order: Option<&SortKeys>,
    called: &mut BTreeSet<u32>,
) -> Result<Vec<u8>> {
    check_kept(&plan)?;
    let codec = Codec::default();
    let converter = DefaultPhysicalProtoConverter {};
    let keys = keys
        .iter()
        .map(|key| converter.physical_expr_to_proto(key, &codec))
        .collect::<Result<Vec<_>>>()?;
    let windows = lost(&plan)?;
    let plan = protobuf::PhysicalPlanNode::try_from_physical_plan(plan, &codec)?;
    let plan = TaskPlan {
        plan: plan.encode_to_vec(),
        schema: Some(protobuf::Schema::try_from(&**schema)?),
        keys,
        order: encoded_order(order, &codec, &converter)?,
        windows,
    };
    called.append(&mut lock(&codec.called));
    Ok(plan.encode_to_vec())
}

/// Refuses what encoding would lose without a word.
fn check_kept(plan: &Plan) -> Result<()> {
    plan.apply(|node| {
        let aggregate = node.downcast_ref::<AggregateExec>();
        let groups = aggregate.map(AggregateExec::group_expr);
        if groups.is_some_and(|groups| groups.is_empty() && groups.has_grouping_set()) {
            return not_impl_err!("GROUPING SETS that are all empty; leave GROUP BY out");
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
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
    let codec = Codec {
        sources,
        ..Codec::default()
    };
    let plan = node.try_into_physical_plan(context, &codec)?;
    let mut plan = restored(plan, &decoded.windows)?;
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

/// Checks that a decoded plan shows the operators and expressions that were encoded: DataFusion's encoding has lost
/// properties without a word, and rows would be wrong.
///
/// Recursions are left out: their steps are counted and their columns cast anew when they are decoded.
///
/// Errors: `internal`, as no statement can help it.
pub(crate) fn check_same(encoded: &Plan, decoded: &Plan) -> Result<(), Problem> {
    let is_recursive = encoded.exists(|node| Ok(node.is::<RecursiveQueryExec>()));
    if is_recursive.map_err(problem)? {
        return Ok(());
    }
    let [before, after] = [encoded, decoded].map(shown);
    let differs = |(one, other): &(&str, &str)| one != other;
    let changed = match before.lines().zip(after.lines()).find(differs) {
        Some((one, other)) => {
            format!("`{}` becomes `{}`", one.trim_start(), other.trim_start())
        }
        None if before.len() != after.len() => "operators are lost".to_owned(),
        None => return Ok(()),
    };
    let detail = format!("a plan changes by encoding, report this: {changed}");
    Err(Problem::new(ErrorCode::Internal, detail))
}

fn shown(plan: &Plan) -> String {
    displayable(plan.as_ref()).indent(true).to_string()
}

pub(crate) fn schema_of(schema: Option<&protobuf::Schema>) -> Result<SchemaRef> {
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

/// Encodes leaves, recursions and functions of components, and decodes them with the sources of a task.
#[derive(Debug, Default)]
struct Codec {
    sources: Option<Arc<dyn Sources>>,
    /// Functions that were encoded.
    called: Mutex<BTreeSet<u32>>,
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Plan],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Plan> {
        let node = OwnNode::decode(buf)
            .map_err(|error| internal_datafusion_err!("a node cannot be decoded: {error}"))?;
        if let Some(recursion) = &node.recursion {
            return recursion::decoded(recursion, inputs);
        }
        let Some(node) = node.leaf else {
            return internal_err!("a node is neither a leaf nor a recursion");
        };
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
        if let Some(recursion) = recursion::encoded(&node)? {
            let encoded = OwnNode {
                leaf: None,
                recursion: Some(recursion),
            };
            buf.extend(encoded.encode_to_vec());
            return Ok(());
        }
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
        let encoded = OwnNode {
            leaf: Some(encoded),
            recursion: None,
        };
        buf.extend(encoded.encode_to_vec());
        Ok(())
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        let node = FunctionNode::decode(buf)
            .map_err(|error| internal_datafusion_err!("a function cannot be decoded: {error}"))?;
        let Some(number) = node.position.checked_sub(1) else {
            return internal_err!("there is no function `{name}`");
        };
        let functions = self
            .sources
            .as_ref()
            .and_then(|sources| sources.functions());
        let function = ComponentFunction::decoded(name, number, node.is_deterministic, functions);
        Ok(Arc::new(function))
    }

    fn try_encode_udf(&self, node: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        // Functions of DataFusion itself are known by their names.
        if let Some(function) = node.inner().downcast_ref::<ComponentFunction>() {
            let encoded = FunctionNode {
                position: function.number() + 1,
                is_deterministic: function.is_deterministic(),
            };
            buf.extend(encoded.encode_to_vec());
            lock(&self.called).insert(function.number());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::physical_plan::empty::EmptyExec;
    use datafusion::physical_plan::placeholder_row::PlaceholderRowExec;

    use super::*;

    #[test]
    fn a_plan_that_changes_by_encoding_is_our_bug() {
        let schema = Arc::new(Schema::empty());
        let row: Plan = Arc::new(PlaceholderRowExec::new(Arc::clone(&schema)));
        let none: Plan = Arc::new(EmptyExec::new(schema));
        check_same(&row, &row).expect("it is the same");
        let changed = check_same(&row, &none).expect_err("it is another");
        assert_eq!(changed.code, ErrorCode::Internal);
        let words = "`PlaceholderRowExec` becomes `EmptyExec`";
        assert!(changed.detail.contains(words), "{}", changed.detail);
    }
}
