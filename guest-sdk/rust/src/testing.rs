//! Running functions in plain `cargo test`, without Wasm and without a host. Only there in native builds.
//!
//! ```
//! use weft::prelude::*;
//!
//! struct Evens;
//!
//! impl Map for Evens {
//!     fn bind(input: &Schema, _: &Params) -> Result<Schema> {
//!         Ok(input.clone())
//!     }
//!     fn open(_: &Params) -> Result<Evens> {
//!         Ok(Evens)
//!     }
//!     fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
//!         let keep = input.i64("n")?.iter().map(|n| n.is_some_and(|n| n % 2 == 0)).collect();
//!         out.emit(input.filter(&keep)?)
//!     }
//! }
//!
//! let input = Batch::new(&Schema::new().i64("n"), [Column::from(vec![1i64, 2, 3, 4])]).unwrap();
//! let run = weft::testing::run_map::<Evens>(&Params::default(), vec![input]).unwrap();
//! assert_eq!(run.rows(), ["2", "4"]);
//! ```

mod actors;

use std::cmp::Ordering;

use crate::batch::Batch;
use crate::column::Column;
use crate::functions::{Map, Output, Params, Reduce, Task};
use crate::groups::Groups;
use crate::host::{self, Handle};
use crate::log::Level;
use crate::outside;
use crate::scalar::Scalar;
use crate::schema::{DataType, Field, Schema};
use crate::view::{Columns, View};
use crate::{Error, Result};

pub use actors::{Message, TestActor, on_invoke};

/// What came out of one task.
#[derive(Debug)]
pub struct Run {
    /// What was emitted, in order.
    pub batches: Vec<Batch>,
    /// What was logged, in order.
    pub log: Vec<(Level, String)>,
}

impl Run {
    /// The rows of all batches, as [`rows`] writes them.
    pub fn rows(&self) -> Vec<String> {
        rows(&self.batches)
    }
}

/// Has `evaluate` stand in for the host in [`Batch::eval`], on this thread from now on.
///
/// Native builds have no SQL: a test says what its expressions give.
pub fn on_eval(evaluate: impl Fn(&Batch, &[&str]) -> Result<Batch> + 'static) {
    host::set_evaluate(std::rc::Rc::new(evaluate));
}

/// Has `run` stand in for the host in [`tasks::spawn`](crate::tasks::spawn), on this thread from now on: it gets the
/// name
/// of the task and its input. Each task runs to its end when it is spawned.
pub fn on_spawn(run: impl Fn(&str, Task) -> Result<Vec<u8>> + 'static) {
    outside::set_run(std::rc::Rc::new(run));
}

/// Runs one task of a map over the batches. Fails if the map does, or if its output is not what `bind` said.
pub fn run_map<M: Map>(params: &Params, input: Vec<Batch>) -> Result<Run> {
    let bound = input
        .first()
        .map(|batch| M::bind(batch.schema(), params))
        .transpose()?;
    run(bound, |out| {
        let mut map = M::open(params)?;
        input
            .into_iter()
            .try_for_each(|batch| map.push(batch, out))?;
        map.finish(out)
    })
}

/// Runs one task of a reduce or a combine: sorts the rows of all batches by their keys, as a shuffle does, and pushes them
/// at most `rows_per_push` at a time, wherever groups end. Fails if the function does, or if its output is not what `bind`
/// said.
pub fn run_reduce<R: Reduce>(
    params: &Params,
    keys: &[&str],
    input: Vec<Batch>,
    rows_per_push: usize,
) -> Result<Run> {
    let input = Handle::concat(
        &input
            .into_iter()
            .map(Batch::into_handle)
            .collect::<Vec<_>>(),
    );
    let input = input
        .map(|handle| sorted(Batch::from_handle(handle), keys))
        .transpose()?;
    let bound = input
        .as_ref()
        .map(|batch| R::bind(batch.schema(), params))
        .transpose()?;
    run(bound, |out| {
        let mut groups = Groups::new(R::open(params)?);
        if let Some(input) = input {
            push_pieces(&mut groups, &input, keys, rows_per_push.max(1), out)?;
        }
        groups.finish(out)
    })
}

/// Evaluates a scalar function on columns of these types, and gives its results as text, as [`rows`] writes values.
/// Fails if the function does, if it takes other types, or if its results are not what `bind` said.
///
/// ```
/// use weft::prelude::*;
///
/// weft::scalar! {
///     fn double(n: i64) -> i64 {
///         n * 2
///     }
/// }
///
/// # fn main() {
/// let numbers = Column::from(vec![Some(2i64), None]);
/// let run = weft::testing::run_scalar::<double>([(DataType::Int64, numbers)]);
/// assert_eq!(run.unwrap(), ["4", "null"]);
/// # }
/// ```
pub fn run_scalar<S: Scalar>(
    arguments: impl IntoIterator<Item = (DataType, Column)>,
) -> Result<Vec<String>> {
    let (mut schema, mut columns) = (Schema::new(), vec![]);
    for (position, (data_type, column)) in arguments.into_iter().enumerate() {
        schema = schema.with(Field::nullable(format!("arg{position}"), data_type));
        columns.push(column);
    }
    let signature = S::bind(&schema)?;
    let given = schema.fields().iter().map(|field| &field.data_type);
    if !given.eq(&signature.arguments) {
        let taken = &signature.arguments;
        return Err(Error::new(format!("the function takes `{taken:?}`")));
    }
    // As on a host, there is one row if there are no columns.
    let input = match columns.is_empty() {
        true => one_row()?.project(&[])?,
        false => Batch::new(&schema, columns)?,
    };
    let column = S::open()?.evaluate(&input)?;
    if column.rows() != input.rows() {
        let (found, rows) = (column.rows(), input.rows());
        return Err(Error::new(format!("`{found}` results for `{rows}` rows")));
    }
    let returns = Schema::new().with(signature.field());
    Ok(rows(&[Batch::new(&returns, [column])?]))
}

fn one_row() -> Result<Batch> {
    Batch::new(&Schema::new().boolean("row"), [Column::from(vec![true])])
}

/// The rows of the batches as text, one string a row, values between ` | `: to compare with in tests.
pub fn rows(batches: &[Batch]) -> Vec<String> {
    let rows = |batch: &Batch| {
        let views = views(
            batch,
            batch
                .schema()
                .fields()
                .iter()
                .map(|field| field.name.as_str()),
        )
        .expect("its own columns");
        let row = |row| {
            views
                .iter()
                .map(|view| text(view, row))
                .collect::<Vec<_>>()
                .join(" | ")
        };
        (0..batch.rows()).map(row).collect::<Vec<_>>()
    };
    batches.iter().flat_map(rows).collect()
}

fn run(bound: Option<Schema>, task: impl FnOnce(&mut Output) -> Result<()>) -> Result<Run> {
    host::take_log();
    let mut out = Output::new();
    task(&mut out)?;
    let batches = out.sink.into_batches();
    for batch in &batches {
        if bound.as_ref().is_some_and(|bound| bound != batch.schema()) {
            return Err(Error::new(format!(
                "output has columns `{:?}`, `bind` said `{bound:?}`",
                batch.schema()
            )));
        }
    }
    Ok(Run {
        batches,
        log: host::take_log(),
    })
}

fn push_pieces<R: Reduce>(
    groups: &mut Groups<R>,
    input: &Batch,
    keys: &[&str],
    rows: usize,
    out: &mut Output,
) -> Result<()> {
    let keys = views(input, keys.iter().copied())?;
    let starts_group = |row: usize| compare(&keys, row - 1, row).is_ne();
    for start in (0..input.rows()).step_by(rows) {
        let end = input.rows().min(start + rows);
        let piece: Vec<u32> = (start as u32..end as u32).collect();
        let inner = (start + 1..end).filter(|row| starts_group(*row));
        let ends: Vec<u32> = inner.chain([end]).map(|row| (row - start) as u32).collect();
        let continues = end < input.rows() && !starts_group(end);
        groups.push(input.take(&piece)?, &ends, continues, out)?;
    }
    Ok(())
}

fn sorted(batch: Batch, keys: &[&str]) -> Result<Batch> {
    let mut order: Vec<u32> = (0..batch.rows() as u32).collect();
    let keys = views(&batch, keys.iter().copied())?;
    order.sort_by(|a, b| compare(&keys, *a as usize, *b as usize));
    batch.take(&order)
}

fn views<'a>(batch: &'a Batch, names: impl Iterator<Item = &'a str>) -> Result<Vec<View<'a>>> {
    names.map(|name| batch.column(name)).collect()
}

fn compare(keys: &[View<'_>], a: usize, b: usize) -> Ordering {
    let compare = |view: &View<'_>| {
        key(view, a)
            .partial_cmp(&key(view, b))
            .unwrap_or(Ordering::Equal)
    };
    keys.iter()
        .map(compare)
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

/// A value that can be compared; nulls come first.
#[derive(PartialEq, PartialOrd)]
enum Key<'a> {
    Null,
    Int(i128),
    Float(f64),
    Bytes(&'a [u8]),
    Nested(String),
}

fn key<'a>(view: &View<'a>, row: usize) -> Key<'a> {
    if view.is_null(row) {
        return Key::Null;
    }
    if let Ok(bytes) = view.binary() {
        return Key::Bytes(bytes.value(row));
    }
    let text = text(view, row);
    match &view.field().data_type {
        DataType::Boolean => Key::Int(i128::from(text == "true")),
        DataType::ArrayOf(_) | DataType::StructOf(_) => Key::Nested(text),
        _ => text
            .parse()
            .map(Key::Int)
            .or(text.parse().map(Key::Float))
            .unwrap_or(Key::Nested(text)),
    }
}

fn text(view: &View<'_>, row: usize) -> String {
    macro_rules! value {
        ($method:ident) => {
            view.$method().map(|values| values.value(row).to_string())
        };
    }
    if view.is_null(row) {
        return "null".into();
    }
    let text = match &view.field().data_type {
        DataType::Boolean => value!(boolean),
        DataType::Int8 => value!(i8),
        DataType::Int16 => value!(i16),
        DataType::Int32 => value!(i32),
        DataType::Int64 => value!(i64),
        DataType::Uint8 => value!(u8),
        DataType::Uint16 => value!(u16),
        DataType::Uint32 => value!(u32),
        DataType::Uint64 => value!(u64),
        DataType::Float32 => value!(f32),
        DataType::Float64 => value!(f64),
        DataType::Date32 => value!(date32),
        DataType::TimestampUs => value!(timestamp_us),
        DataType::Decimal128 { .. } => value!(decimal128),
        DataType::Utf8 => value!(utf8),
        DataType::Binary => view
            .binary()
            .map(|values| values.value(row).escape_ascii().to_string()),
        DataType::ArrayOf(_) => view.array_of().map(|lists| list_text(&lists.value(row))),
        DataType::StructOf(members) => Ok(struct_text(
            view,
            members.iter().map(|field| field.name.as_str()),
            row,
        )),
    };
    text.expect("the type that was just looked at")
}

fn list_text(items: &View<'_>) -> String {
    let items: Vec<_> = (0..items.len()).map(|item| text(items, item)).collect();
    format!("[{}]", items.join(", "))
}

fn struct_text<'a>(view: &View<'_>, members: impl Iterator<Item = &'a str>, row: usize) -> String {
    let members: Vec<_> = members
        .map(|name| text(&view.member(name).expect("its own member"), row))
        .collect();
    format!("{{{}}}", members.join(", "))
}
