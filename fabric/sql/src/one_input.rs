//! Methods that the nodes of ours share: each stands on one input, and has no expressions.

/// Methods of an [`ExecutionPlan`](datafusion::physical_plan::ExecutionPlan) with a field `input`. The node has a
/// method `over`, which gives the same node on another input.
macro_rules! on_one_input {
    ($name:literal) => {
        fn name(&self) -> &str {
            $name
        }

        fn children(&self) -> Vec<&$crate::Plan> {
            vec![&self.input]
        }

        fn apply_expressions(
            &self,
            _f: &mut dyn FnMut(
                &std::sync::Arc<dyn datafusion::physical_expr::PhysicalExpr>,
            ) -> datafusion::common::Result<
                datafusion::common::tree_node::TreeNodeRecursion,
            >,
        ) -> datafusion::common::Result<datafusion::common::tree_node::TreeNodeRecursion> {
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        }

        fn with_new_children(
            self: std::sync::Arc<Self>,
            mut children: Vec<$crate::Plan>,
        ) -> datafusion::common::Result<$crate::Plan> {
            match children.pop() {
                Some(input) if children.is_empty() => Ok(self.over(input)),
                _ => datafusion::common::internal_err!("{} has one input", $name),
            }
        }
    };
}

pub(crate) use on_one_input;
