//! Memory of expressions: a bound for each of the columns that evaluation makes, the temporary ones included.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CaseExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr,
    Literal, NegativeExpr, NotExpr, TryCastExpr,
};
use datafusion::physical_expr::{PhysicalExpr, ScalarFunctionExpr};
use weft_core::{ErrorCode, Problem};

use super::growth::{self, Growth, MATCHING_BYTES};
use crate::error::planning;
use crate::statement::invalid;

/// Levels of a compiled expression, with the casts that it needs.
const LEVELS_MAX: usize = 100;
/// Nodes of the compiled expressions of a list, as often as each is evaluated.
const NODES_MAX: usize = 10_000;
/// Bytes of a row beside its value: offsets or a view, and validity.
const ROW_BYTES: u64 = 24;
/// Bytes of a column beside its rows.
const COLUMN_BYTES: u64 = 256;

/// Bytes of the values of a column: of all rows, and of the longest value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Extent {
    pub(super) total: u64,
    pub(super) longest: u64,
}

impl Extent {
    /// Measures a column.
    pub(super) fn of(column: &ArrayRef) -> Self {
        match column.data_type() {
            DataType::Utf8 => Self::of_offsets(column.as_string::<i32>().offsets()),
            DataType::Binary => Self::of_offsets(column.as_binary::<i32>().offsets()),
            other => match kind(other) {
                Kind::Fixed(width) => Self::each(width, column.len() as u64),
                Kind::Text | Kind::Nested => {
                    let bytes = column.to_data().get_slice_memory_size();
                    let bytes = bytes.unwrap_or_else(|_| column.get_array_memory_size()) as u64;
                    Self {
                        total: bytes,
                        longest: bytes,
                    }
                }
            },
        }
    }

    fn of_offsets(offsets: &OffsetBuffer<i32>) -> Self {
        let bytes = |length: i32| u64::try_from(length).unwrap_or(0);
        let lengths = offsets.windows(2).map(|pair| pair[1] - pair[0]);
        let ends = offsets.last().zip(offsets.first());
        Self {
            total: ends.map_or(0, |(last, first)| bytes(last - first)),
            longest: bytes(lengths.max().unwrap_or(0)),
        }
    }

    pub(super) fn each(bytes: u64, rows: u64) -> Self {
        Self {
            total: bytes.saturating_mul(rows),
            longest: bytes,
        }
    }

    fn map2(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            total: of(self.total, other.total),
            longest: of(self.longest, other.longest),
        }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        self.map2(other, u64::saturating_add)
    }

    pub(super) fn times(self, factor: u64) -> Self {
        self.map2(self, |bytes, _| bytes.saturating_mul(factor))
    }

    /// `by` is not 0.
    pub(super) fn divided(self, by: u64) -> Self {
        self.map2(self, |bytes, _| bytes / by)
    }

    /// Bytes of a column of this extent.
    fn column(self, rows: u64) -> u64 {
        let beside = rows.saturating_mul(ROW_BYTES);
        self.total
            .saturating_add(beside)
            .saturating_add(COLUMN_BYTES)
    }
}

/// Types by the bytes of their values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed(u64),
    Text,
    /// Lists and structs, which are passed on as they are.
    Nested,
}

impl Kind {
    fn width(self) -> Option<u64> {
        match self {
            Kind::Fixed(width) => Some(width),
            Kind::Text | Kind::Nested => None,
        }
    }
}

fn kind(data_type: &DataType) -> Kind {
    match data_type {
        DataType::Null | DataType::Boolean => Kind::Fixed(1),
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView => Kind::Text,
        other => match other.primitive_width() {
            Some(width) => Kind::Fixed(width as u64),
            None => Kind::Nested,
        },
    }
}

/// Bytes of a value as text, at most.
fn text_bytes(data_type: &DataType) -> u64 {
    match data_type {
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => 96 + u64::from(scale.unsigned_abs()),
        number if number.is_numeric() => 32,
        // Of dates, times and intervals.
        _ => 128,
    }
}

/// Memory of one expression.
#[derive(Debug)]
pub(super) enum Cost {
    /// A column that is read, which is shared.
    Column(usize),
    /// A value of so many bytes, which some functions repeat for each row.
    Literal(u64),
    Call(Box<Call>),
}

/// Memory of an expression that makes a column of others.
#[derive(Debug)]
pub(super) struct Call {
    /// Expressions that bytes of the result come from.
    values: Vec<Cost>,
    /// Other expressions that are evaluated for it.
    others: Vec<Cost>,
    growth: Growth,
    /// It may copy the columns that are read, to go on with some of their rows.
    copies: bool,
    /// Other memory that it works in.
    working_bytes: u64,
    /// It makes texts, in buffers that grow.
    makes_texts: bool,
}

impl Cost {
    /// Finds the bound of an expression over `schema`. Errors: `InvalidJob` if it has none, and is not offered.
    pub(super) fn of(expression: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Self, Problem> {
        let mut compiler = Compiler { schema, n_nodes: 0 };
        compiler.cost(expression, LEVELS_MAX)
    }

    /// Bytes of evaluating it over columns of these extents: its result, and all that is computed on its way.
    pub(super) fn bytes(&self, read: &[Extent], rows: u64) -> u64 {
        let mut held = 0_u64;
        self.extent(read, rows, &mut held);
        held
    }

    fn extent(&self, read: &[Extent], rows: u64, held: &mut u64) -> Extent {
        let mut hold = |bytes: u64| *held = held.saturating_add(bytes);
        let call = match self {
            Cost::Column(position) => return read.get(*position).copied().unwrap_or_default(),
            Cost::Literal(bytes) => {
                let extent = Extent::each(*bytes, rows);
                hold(extent.column(rows));
                return extent;
            }
            Cost::Call(call) => call,
        };
        if call.copies {
            let copied = read.iter().map(|column| column.column(rows));
            let copied = copied.fold(0, u64::saturating_add);
            // One set of rows is copied out of another.
            hold(copied.saturating_mul(2));
        }
        hold(call.working_bytes);
        for other in &call.others {
            other.extent(read, rows, held);
        }
        let values = call.values.iter();
        let values: Vec<Extent> = values.map(|value| value.extent(read, rows, held)).collect();
        let extent = call.growth.apply(&values, rows);
        let mut hold = |bytes: u64| *held = held.saturating_add(bytes);
        hold(extent.column(rows));
        if call.makes_texts {
            // A buffer that is full and the one of twice its size, and the value that is appended.
            hold(extent.total.saturating_mul(2));
            hold(extent.longest);
        }
        hold(call.growth.padding_bytes(&values));
        extent
    }
}

/// Checks how many nodes an expression has, with those before it in its list.
pub(super) fn check_nodes(n_nodes: usize) -> Result<(), Problem> {
    if n_nodes <= NODES_MAX {
        return Ok(());
    }
    Err(Problem::new(
        ErrorCode::TooLarge,
        format!(
            "it has more than {NODES_MAX} parts when it is compiled, with those before it in its list: coalesce, nvl \
             and BETWEEN repeat what they test, and nested ones do so at each level; give one coalesce all values, or \
             evaluate a part of it first"
        ),
    ))
}

struct Compiler<'a> {
    schema: &'a Schema,
    n_nodes: usize,
}

impl Compiler<'_> {
    fn cost(&mut self, expression: &Arc<dyn PhysicalExpr>, levels: usize) -> Result<Cost, Problem> {
        // A part that several others share is evaluated for each of them.
        self.n_nodes += 1;
        check_nodes(self.n_nodes)?;
        let Some(levels) = levels.checked_sub(1) else {
            let detail = format!("it has more than {LEVELS_MAX} levels when it is compiled");
            return Err(Problem::new(ErrorCode::TooLarge, detail));
        };
        if let Some(column) = expression.downcast_ref::<Column>() {
            return Ok(Cost::Column(column.index()));
        }
        let data_type = expression.data_type(self.schema).map_err(planning)?;
        let kind = kind(&data_type);
        if let Some(literal) = expression.downcast_ref::<Literal>() {
            return literal_bytes(literal.value(), kind).map(Cost::Literal);
        }
        let is_field = |call: &ScalarFunctionExpr| call.fun().name() == "get_field";
        let call = expression.downcast_ref::<ScalarFunctionExpr>();
        if kind == Kind::Nested && !call.is_some_and(is_field) {
            let data_type = data_type.to_string();
            return Err(invalid(format!(
                "`{expression}` makes a value of the type {data_type}: lists and structs are passed on as columns alone"
            )));
        }
        let Shape {
            values,
            others,
            growth,
            copies,
            working_bytes,
        } = self.shape(expression, kind)?;
        Ok(Cost::Call(Box::new(Call {
            values: self.costs(&values, levels)?,
            others: self.costs(&others, levels)?,
            growth,
            copies,
            working_bytes,
            makes_texts: kind == Kind::Text,
        })))
    }

    fn costs(
        &mut self,
        expressions: &[Arc<dyn PhysicalExpr>],
        levels: usize,
    ) -> Result<Vec<Cost>, Problem> {
        let costs = expressions.iter().map(|one| self.cost(one, levels));
        costs.collect()
    }

    fn shape(&self, expression: &Arc<dyn PhysicalExpr>, kind: Kind) -> Result<Shape, Problem> {
        if let Some(binary) = expression.downcast_ref::<BinaryExpr>() {
            return of_operator(binary, kind);
        }
        if let Some(cast) = expression.downcast_ref::<CastExpr>() {
            return self.of_cast(cast.expr(), kind);
        }
        if let Some(cast) = expression.downcast_ref::<TryCastExpr>() {
            return self.of_cast(cast.expr(), kind);
        }
        if let Some(case) = expression.downcast_ref::<CaseExpr>() {
            return Ok(of_case(case, kind));
        }
        if let Some(like) = expression.downcast_ref::<LikeExpr>() {
            growth::check_length(pattern(like.pattern())?)?;
            let parts = [like.expr(), like.pattern()];
            return Ok(Shape::matching(&parts, kind));
        }
        if let Some(call) = expression.downcast_ref::<ScalarFunctionExpr>() {
            let (growth, working_bytes) = growth::of_call(call, kind.width())?;
            return Ok(Shape {
                values: call.args().to_vec(),
                growth,
                working_bytes,
                ..Shape::of(&[], kind)
            });
        }
        let is_test = expression.is::<InListExpr>()
            || expression.is::<IsNullExpr>()
            || expression.is::<IsNotNullExpr>()
            || expression.is::<NotExpr>()
            || expression.is::<NegativeExpr>();
        match is_test {
            true => Ok(Shape::of(&expression.children(), kind)),
            false => Err(invalid(format!("`{expression}` is not offered here"))),
        }
    }

    fn of_cast(&self, from: &Arc<dyn PhysicalExpr>, to: Kind) -> Result<Shape, Problem> {
        let data_type = from.data_type(self.schema).map_err(planning)?;
        let growth = match (self::kind(&data_type), to) {
            (Kind::Fixed(_), Kind::Text) => Growth::Each(text_bytes(&data_type)),
            (Kind::Nested, _) => {
                return Err(invalid(format!(
                    "`{from}` is a list or a struct, which has no cast here"
                )));
            }
            _ => return Ok(Shape::of(&[from], to)),
        };
        Ok(Shape {
            growth,
            ..Shape::of(&[from], to)
        })
    }
}

/// An expression and its parts.
struct Shape {
    values: Vec<Arc<dyn PhysicalExpr>>,
    others: Vec<Arc<dyn PhysicalExpr>>,
    growth: Growth,
    copies: bool,
    working_bytes: u64,
}

impl Shape {
    /// The shape of an expression that works in its result alone, which is as long as its parts.
    fn of(parts: &[&Arc<dyn PhysicalExpr>], kind: Kind) -> Self {
        Self {
            values: parts.iter().map(|part| Arc::clone(part)).collect(),
            others: Vec::new(),
            growth: kind.width().map_or(Growth::Sum, Growth::Each),
            copies: false,
            working_bytes: 0,
        }
    }

    /// The shape of one that matches a pattern.
    fn matching(parts: &[&Arc<dyn PhysicalExpr>], kind: Kind) -> Self {
        Self {
            working_bytes: MATCHING_BYTES,
            ..Self::of(parts, kind)
        }
    }
}

fn literal_bytes(value: &ScalarValue, kind: Kind) -> Result<u64, Problem> {
    match (kind, value.try_as_str()) {
        (Kind::Fixed(width), _) => Ok(width),
        (Kind::Text, Some(text)) => Ok(text.map_or(0, |text| text.len() as u64)),
        (Kind::Text, None) => Ok(value.size() as u64),
        (Kind::Nested, _) => Err(invalid(format!(
            "`{value}` is a list or a struct, of which there are no literals here"
        ))),
    }
}

fn of_operator(binary: &BinaryExpr, kind: Kind) -> Result<Shape, Problem> {
    let parts = [binary.left(), binary.right()];
    match binary.op() {
        Operator::RegexMatch
        | Operator::RegexIMatch
        | Operator::RegexNotMatch
        | Operator::RegexNotIMatch => {
            growth::check_pattern(pattern(binary.right())?)?;
            Ok(Shape::matching(&parts, kind))
        }
        Operator::LikeMatch
        | Operator::ILikeMatch
        | Operator::NotLikeMatch
        | Operator::NotILikeMatch => {
            growth::check_length(pattern(binary.right())?)?;
            Ok(Shape::matching(&parts, kind))
        }
        // The other side may be evaluated for some rows alone.
        Operator::And | Operator::Or => Ok(Shape {
            copies: true,
            ..Shape::of(&parts, kind)
        }),
        Operator::Eq
        | Operator::NotEq
        | Operator::Lt
        | Operator::LtEq
        | Operator::Gt
        | Operator::GtEq
        | Operator::IsDistinctFrom
        | Operator::IsNotDistinctFrom
        | Operator::Plus
        | Operator::Minus
        | Operator::Multiply
        | Operator::Divide
        | Operator::Modulo
        | Operator::BitwiseAnd
        | Operator::BitwiseOr
        | Operator::BitwiseXor
        | Operator::BitwiseShiftLeft
        | Operator::BitwiseShiftRight
        | Operator::StringConcat => Ok(Shape::of(&parts, kind)),
        other => Err(invalid(format!(
            "the operator `{other}` is not offered here"
        ))),
    }
}

/// The pattern of a match, which must be a literal: it is compiled once, and its size is known.
fn pattern(expression: &Arc<dyn PhysicalExpr>) -> Result<&str, Problem> {
    growth::constant_text(expression)
        .ok_or_else(|| invalid(format!("the pattern `{expression}` must be a literal")))
}

fn of_case(case: &CaseExpr, kind: Kind) -> Shape {
    let (mut values, mut others) = (Vec::new(), Vec::new());
    others.extend(case.expr().cloned());
    for (when, then) in case.when_then_expr() {
        others.push(Arc::clone(when));
        values.push(Arc::clone(then));
    }
    values.extend(case.else_expr().cloned());
    Shape {
        values,
        others,
        copies: true,
        ..Shape::of(&[], kind)
    }
}
