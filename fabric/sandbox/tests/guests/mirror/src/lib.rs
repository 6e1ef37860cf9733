//! Hands back what it gets: value by value, untouched, or in another order. And a map that has something to compute.

use std::cell::Cell;

use weft::prelude::*;
use weft::{DataType as Type, View};

weft::component! {
    /// Takes every column in, and makes it anew from its values.
    map "copy" = Copy;
    /// Emits what comes in.
    map "pass" = Pass;
    /// Emits the rows of each batch in reverse.
    map "reverse" = Reverse;
    /// Emits the rows of each batch at even positions.
    map "halve" = Halve;
    /// Adds the greatest common divisor of `a` and `b`.
    map "gcd" = Gcd;
    /// Answers with the number of calls before it in this sandbox.
    task "count" = count;
    /// Answers with its input.
    task "echo" = echo;
    /// Evaluates the expressions that are the lines of its input, over `rows` rows of `n` and `word`, `times` times.
    /// Answers with the start of each column.
    task "eval" = eval;
}

fn column(view: View<'_>) -> Result<Column> {
    let validity: Bits = (0..view.len()).map(|row| !view.is_null(row)).collect();
    let column = match &view.field().data_type {
        Type::Boolean => {
            let values = view.boolean()?;
            Column::boolean((0..values.len()).map(|row| values.value(row)).collect())
        }
        Type::Int8 => view.i8()?.as_slice_with_nulls().to_vec().into(),
        Type::Int16 => view.i16()?.as_slice_with_nulls().to_vec().into(),
        Type::Int32 => view.i32()?.as_slice_with_nulls().to_vec().into(),
        Type::Int64 => view.i64()?.as_slice_with_nulls().to_vec().into(),
        Type::Uint8 => view.u8()?.as_slice_with_nulls().to_vec().into(),
        Type::Uint16 => view.u16()?.as_slice_with_nulls().to_vec().into(),
        Type::Uint32 => view.u32()?.as_slice_with_nulls().to_vec().into(),
        Type::Uint64 => view.u64()?.as_slice_with_nulls().to_vec().into(),
        Type::Float32 => view.f32()?.as_slice_with_nulls().to_vec().into(),
        Type::Float64 => view.f64()?.as_slice_with_nulls().to_vec().into(),
        Type::Date32 => Column::date32(view.date32()?.as_slice_with_nulls().to_vec()),
        Type::TimestampUs => {
            Column::timestamp_us(view.timestamp_us()?.as_slice_with_nulls().to_vec())
        }
        Type::Decimal128 { .. } => {
            Column::decimal128(view.decimal128()?.as_slice_with_nulls().to_vec())
        }
        Type::Utf8 => {
            let values = view.utf8()?;
            (0..values.len()).map(|row| values.value(row)).collect()
        }
        Type::Binary => {
            let values = view.binary()?;
            (0..values.len()).map(|row| values.value(row)).collect()
        }
        Type::ArrayOf(_) => {
            let lists = view.array_of()?;
            let mut offsets = vec![0i32];
            for row in 0..lists.len() {
                offsets.push(offsets[row] + lists.value(row).len() as i32);
            }
            Column::array_of(offsets, column(lists.items())?)?
        }
        Type::StructOf(members) => {
            let members = members
                .iter()
                .map(|member| column(view.member(&member.name)?));
            Column::struct_of(members.collect::<Result<_>>()?)?
        }
    };
    Ok(column.with_validity(validity))
}

struct Copy;

impl Map for Copy {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        Ok(input.clone())
    }

    fn open(_: &Params) -> Result<Copy> {
        Ok(Copy)
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let names = input.schema().fields().iter().map(|field| &field.name);
        let columns = names.map(|name| column(input.column(name)?));
        let columns = columns.collect::<Result<Vec<_>>>()?;
        out.emit(Batch::new(input.schema(), columns)?)
    }
}

struct Pass;

impl Map for Pass {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        Ok(input.clone())
    }

    fn open(_: &Params) -> Result<Pass> {
        Ok(Pass)
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        out.emit(input)
    }
}

struct Reverse;

impl Map for Reverse {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        Ok(input.clone())
    }

    fn open(_: &Params) -> Result<Reverse> {
        Ok(Reverse)
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let rows: Vec<u32> = (0..input.rows() as u32).rev().collect();
        out.emit(input.take(&rows)?)
    }
}

struct Halve;

impl Map for Halve {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        Ok(input.clone())
    }

    fn open(_: &Params) -> Result<Halve> {
        Ok(Halve)
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let keep: Bits = (0..input.rows()).map(|row| row % 2 == 0).collect();
        out.emit(input.filter(&keep)?)
    }
}

/// On `int32` or on `int64`, whichever `a` is.
struct Gcd;

fn gcd_32(mut a: i32, mut b: i32) -> i32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn gcd_64(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Map for Gcd {
    fn bind(input: &Schema, _: &Params) -> Result<Schema> {
        let data_type = input.field("a")?.data_type.clone();
        input.require("b", data_type.clone())?;
        match data_type {
            Type::Int32 | Type::Int64 => Ok(input.clone().with(Field::new("gcd", data_type))),
            other => Err(Error::new(format!("no divisors of `{other}`"))),
        }
    }

    fn open(_: &Params) -> Result<Gcd> {
        Ok(Gcd)
    }

    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        let a = input.column("a")?;
        let data_type = a.field().data_type.clone();
        let divisors: Column = match &data_type {
            Type::Int32 => {
                let (a, b) = (a.i32()?.as_slice()?, input.i32("b")?.as_slice()?);
                a.iter().zip(b).map(|(a, b)| gcd_32(*a, *b)).collect()
            }
            _ => {
                let (a, b) = (a.i64()?.as_slice()?, input.i64("b")?.as_slice()?);
                a.iter().zip(b).map(|(a, b)| gcd_64(*a, *b)).collect()
            }
        };
        out.emit(input.with_column(Field::new("gcd", data_type), divisors)?)
    }
}

thread_local! {
    static CALLS: Cell<u8> = const { Cell::new(0) };
}

fn count(_: Task) -> Result<Vec<u8>> {
    let before = CALLS.get();
    CALLS.set(before + 1);
    Ok(vec![before])
}

fn echo(task: Task) -> Result<Vec<u8>> {
    Ok(task.input)
}

fn eval(task: Task) -> Result<Vec<u8>> {
    let rows: i64 = task.params.parse("rows", 3)?;
    let times: u32 = task.params.parse("times", 1)?;
    let texts = String::from_utf8(task.input)?;
    let texts: Vec<&str> = texts.lines().collect();
    let mut words = Utf8Builder::new();
    (0..rows).for_each(|n| words.push(&format!("word {n}")));
    let numbers: Vec<i64> = (0..rows).collect();
    let schema = Schema::new().i64("n").utf8("word");
    let batch = Batch::new(&schema, [Column::from(numbers), words.into()])?;
    let mut answer = String::new();
    for _ in 0..times {
        let evaluated = batch.eval(&texts)?;
        answer.clear();
        for field in evaluated.schema().fields() {
            let values = start(evaluated.column(&field.name)?)?.join(", ");
            answer += &format!("{} {}: {values}\n", field.name, field.data_type);
        }
        answer += &format!("{} rows\n", evaluated.rows());
    }
    Ok(answer.into_bytes())
}

/// The first values of a column, as texts.
fn start(view: View<'_>) -> Result<Vec<String>> {
    let rows = 0..view.len().min(3);
    let texts = match &view.field().data_type {
        Type::Int64 => {
            let values = view.i64()?;
            rows.map(|row| values.value(row).to_string()).collect()
        }
        Type::Float64 => {
            let values = view.f64()?;
            rows.map(|row| values.value(row).to_string()).collect()
        }
        Type::Utf8 => {
            let values = view.utf8()?;
            rows.map(|row| values.value(row).to_owned()).collect()
        }
        _ => rows.map(|_| "?".to_owned()).collect(),
    };
    Ok(texts)
}
