//! Facts about the rows of a leaf that the nodes above it were planned on.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    AcrossPartitions, ConstExpr, EquivalenceProperties, PhysicalExpr, PhysicalSortExpr,
};
use prost::Message;

/// Constant columns, equal columns and orders, as far as they speak of columns.
///
/// A plan derives its properties again when it is decoded, and some nodes check them: without its facts a window by a
/// constant key fails.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Facts {
    #[prost(uint32, repeated, tag = "1")]
    constant: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    equal: Vec<Columns>,
    /// Each column as `column * 4 + descending * 2 + nulls first`.
    #[prost(message, repeated, tag = "3")]
    orders: Vec<Columns>,
}

#[derive(Clone, PartialEq, Message)]
struct Columns {
    #[prost(uint32, repeated, tag = "1")]
    columns: Vec<u32>,
}

impl Facts {
    pub(crate) fn of(properties: &EquivalenceProperties) -> Self {
        let constants = properties.constants();
        let constant = constants
            .iter()
            .filter_map(|constant| column(&constant.expr));
        let equal = properties.eq_group().iter().map(|class| Columns {
            columns: class.iter().filter_map(column).collect(),
        });
        let orders = properties.oeq_class().iter().map(|order| Columns {
            columns: order.iter().map_while(packed).collect(),
        });
        Self {
            constant: constant.collect(),
            equal: equal.collect(),
            orders: orders.collect(),
        }
    }

    /// Properties of rows with `schema` that these facts hold of.
    pub(crate) fn properties(&self, schema: SchemaRef) -> Result<EquivalenceProperties> {
        let expression = |position: u32| -> Arc<dyn PhysicalExpr> {
            let position = position as usize;
            Arc::new(Column::new(schema.field(position).name(), position))
        };
        let mut properties = EquivalenceProperties::new(Arc::clone(&schema));
        for pair in self.equal.iter().flat_map(|class| class.columns.windows(2)) {
            properties.add_equal_conditions(expression(pair[0]), expression(pair[1]))?;
        }
        let constant =
            |position: &u32| ConstExpr::new(expression(*position), AcrossPartitions::Heterogeneous);
        properties.add_constants(self.constant.iter().map(constant))?;
        let sort = |packed: &u32| PhysicalSortExpr {
            expr: expression(packed / 4),
            options: SortOptions {
                descending: packed & 2 != 0,
                nulls_first: packed & 1 != 0,
            },
        };
        let orders = self
            .orders
            .iter()
            .map(|order| order.columns.iter().map(sort).collect::<Vec<_>>());
        properties.add_orderings(orders);
        Ok(properties)
    }

    /// Returns whether the rows are in some order.
    pub(crate) fn has_order(&self) -> bool {
        !self.orders.is_empty()
    }

    /// Returns whether `schema` has all of the columns.
    pub(crate) fn fit(&self, schema: &SchemaRef) -> bool {
        let equal = self.equal.iter().flat_map(|class| &class.columns);
        let sorted = self.orders.iter().flat_map(|order| &order.columns);
        let columns = self.constant.iter().chain(equal).copied();
        let mut columns = columns.chain(sorted.map(|packed| packed / 4));
        columns.all(|column| (column as usize) < schema.fields().len())
    }
}

fn column(expression: &Arc<dyn PhysicalExpr>) -> Option<u32> {
    let column = expression.downcast_ref::<Column>()?;
    u32::try_from(column.index()).ok()
}

fn packed(sort: &PhysicalSortExpr) -> Option<u32> {
    let options = u32::from(sort.options.descending) * 2 + u32::from(sort.options.nulls_first);
    Some(column(&sort.expr)? * 4 + options)
}
