use std::cell::OnceCell;
use std::ops::Range;
use std::rc::Rc;

use crate::bits::Bits;
use crate::column::Column;
use crate::host::Handle;
use crate::schema::{Field, Schema};
use crate::view::{Columns, View};
use crate::{Error, Result};

/// How many rows a function that collects its own output should put into one batch, more or less.
pub const BATCH_ROWS: usize = 64 * 1024;

/// Rows of Arrow data, which stay on the host's side. A column is copied in when it is first asked for, once; what is
/// never asked for never enters the sandbox, and [`project`](Batch::project), [`with_column`](Batch::with_column),
/// [`filter`](Batch::filter), [`take`](Batch::take) and [`eval`](Batch::eval) are done by the host.
///
/// In native builds, which are for tests, a batch is a plain value in memory that behaves the same.
///
/// ```
/// use weft::prelude::*;
/// let schema = Schema::new().utf8("day").i64("hits");
/// let batch = Batch::new(&schema, [Column::from_iter(["mon", "tue"]), Column::from(vec![3i64, 5])]).unwrap();
/// let hits = batch.i64("hits").unwrap();
/// assert_eq!(hits.as_slice().unwrap().iter().sum::<i64>(), 8);
/// assert_eq!(batch.utf8("day").unwrap().value(1), "tue");
/// ```
#[derive(Debug)]
pub struct Batch {
    handle: Handle,
    rows: usize,
    schema: OnceCell<Rc<Schema>>,
    columns: OnceCell<Box<[OnceCell<Rc<Column>>]>>,
}

impl Batch {
    /// Makes a batch of one column for each field of the schema. Fails if they do not fit together.
    pub fn new(schema: &Schema, columns: impl Into<Vec<Column>>) -> Result<Batch> {
        let columns = columns.into();
        let (n_fields, n_columns) = (schema.fields().len(), columns.len());
        if n_fields != n_columns {
            return Err(Error::new(format!(
                "`{n_columns}` columns for a schema of `{n_fields}`"
            )));
        }
        let rows = columns.first().map_or(0, Column::rows);
        for (field, column) in schema.fields().iter().zip(&columns) {
            check(field, column, rows)?;
        }
        let batch = Batch::of_rows(rows, Handle::create(schema, columns)?);
        Ok(batch.with_schema(Rc::new(schema.clone())))
    }

    pub(crate) fn from_handle(handle: Handle) -> Batch {
        Batch::of_rows(handle.rows(), handle)
    }

    fn of_rows(rows: usize, handle: Handle) -> Batch {
        Batch {
            handle,
            rows,
            schema: OnceCell::new(),
            columns: OnceCell::new(),
        }
    }

    pub(crate) fn into_handle(self) -> Handle {
        self.handle
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Names and types of the columns.
    pub fn schema(&self) -> &Schema {
        self.schema.get_or_init(|| Rc::new(self.handle.schema()))
    }

    /// The named columns only, in this order.
    pub fn project(&self, names: &[&str]) -> Result<Batch> {
        let indices = names
            .iter()
            .map(|name| Ok(self.schema().index_of(name)? as u32))
            .collect::<Result<Vec<_>>>()?;
        let batch = Batch::of_rows(self.rows, self.handle.project(&indices)?);
        Ok(batch.with_schema(Rc::new(self.schema().select(names)?)))
    }

    /// The same batch with one more column behind the others.
    pub fn with_column(&self, field: Field, column: impl Into<Column>) -> Result<Batch> {
        let column = column.into();
        check(&field, &column, self.rows)?;
        let handle = self.handle.with_column(&field, column)?;
        Ok(Batch::of_rows(self.rows, handle))
    }

    /// The rows whose bit is set. Fails unless there is one bit for each row.
    pub fn filter(&self, keep: &Bits) -> Result<Batch> {
        if keep.len() != self.rows {
            return Err(Error::new(format!(
                "`{}` bits for `{}` rows",
                keep.len(),
                self.rows
            )));
        }
        Ok(self.like(self.handle.filter(keep)?))
    }

    /// Rows by position, in this order; a position may come more than once. Fails for a position past the end.
    pub fn take(&self, rows: &[u32]) -> Result<Batch> {
        if let Some(row) = rows.iter().find(|row| **row as usize >= self.rows) {
            return Err(Error::new(format!("no row `{row}` among `{}`", self.rows)));
        }
        Ok(self.like(self.handle.take(rows)?))
    }

    /// Evaluates expressions of SQL over the columns: a batch of one column for each, and of the same rows.
    ///
    /// The host computes them natively, and no column enters the sandbox. `AS name` names a column; otherwise its name
    /// is that of the column, or the text. Names of columns are read in lower case unless they are quoted. Each list is
    /// compiled once, so give the same texts for each batch.
    ///
    /// Fails for aggregates, windows, subqueries, functions of components, functions such as `random()`, what has no
    /// bound of memory, and values that cannot be computed, such as a division by zero. In native builds
    /// `weft::testing::on_eval` stands in for the host.
    ///
    /// ```no_run
    /// # fn of(rides: weft::Batch) -> weft::Result<()> {
    /// let priced = rides.eval(&["zone", "fare * 1.2 AS total", "upper(zone) AS label"])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn eval(&self, expressions: &[&str]) -> Result<Batch> {
        let batch = Batch::from_handle(self.handle.eval(expressions)?);
        if batch.rows != self.rows {
            let (n, rows) = (batch.rows, self.rows);
            return Err(Error::new(format!(
                "expressions over `{rows}` rows gave `{n}`"
            )));
        }
        Ok(batch)
    }

    /// Some rows of the column at this position.
    pub(crate) fn view(&self, index: usize, rows: Range<usize>) -> Result<View<'_>> {
        let field = &self.schema().fields()[index];
        let cell = &self.columns.get_or_init(|| {
            self.schema()
                .fields()
                .iter()
                .map(|_| OnceCell::new())
                .collect()
        })[index];
        if let Some(column) = cell.get() {
            return Ok(View::new(field, column, rows));
        }
        let column = self.handle.column(index, field)?;
        if column.rows() != self.rows {
            return Err(Error::new(format!(
                "column `{}` came with `{}` rows of `{}`",
                field.name,
                column.rows(),
                self.rows
            )));
        }
        Ok(View::new(field, cell.get_or_init(|| column), rows))
    }

    fn like(&self, handle: Handle) -> Batch {
        let batch = Batch::from_handle(handle);
        match self.schema.get() {
            Some(schema) => batch.with_schema(Rc::clone(schema)),
            None => batch,
        }
    }

    /// The same batch, whose schema need not be asked for.
    pub(crate) fn with_schema(self, schema: Rc<Schema>) -> Batch {
        Batch {
            schema: OnceCell::from(schema),
            ..self
        }
    }
}

impl Columns for Batch {
    fn column(&self, name: &str) -> Result<View<'_>> {
        self.view(self.schema().index_of(name)?, 0..self.rows)
    }
}

fn check(field: &Field, column: &Column, rows: usize) -> Result<()> {
    let Field {
        name,
        data_type,
        nullable,
    } = field;
    if column.rows() != rows {
        return Err(Error::new(format!(
            "column `{name}` has `{}` rows, not `{rows}`",
            column.rows()
        )));
    }
    if !column.is_of(data_type) {
        return Err(Error::new(format!(
            "column `{name}` is to be of type `{data_type}`, and holds `{}`",
            column.kind.name()
        )));
    }
    if !nullable && column.nulls() > 0 {
        return Err(Error::new(format!(
            "column `{name}` has `{}` nulls, and its field is not nullable",
            column.nulls()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rows;

    fn batch() -> Batch {
        let schema = Schema::new()
            .utf8("name")
            .nullable()
            .i32("n")
            .boolean("even");
        let names = Column::from_iter([Some("a"), None, Some("c"), Some("d")]);
        let even: Vec<bool> = [1, 2, 3, 4].iter().map(|n| n % 2 == 0).collect();
        Batch::new(&schema, [names, vec![1i32, 2, 3, 4].into(), even.into()]).expect("fits")
    }

    #[test]
    fn a_slice_hides_no_nulls() {
        let column = Column::from(vec![Some(1i64), None, Some(3)]);
        let batch = Batch::new(&Schema::new().i64("n").nullable(), [column]).expect("one column");
        let numbers = batch.i64("n").expect("numbers");
        let error = numbers.as_slice().expect_err("a null");
        let expected =
            "row 1 of column `n` is null, which a slice of numbers cannot show: use `iter`";
        assert_eq!(error.to_string(), expected);
        assert_eq!(numbers.as_slice_with_nulls().len(), 3);
        assert_eq!(numbers.iter().flatten().sum::<i64>(), 4);
        let kept = batch.take(&[2, 0]).expect("rows");
        let kept = kept.i64("n").expect("numbers").as_slice();
        assert_eq!(kept.expect("no null"), [3, 1]);
    }

    #[test]
    fn rows_can_be_picked() {
        let keep = [true, false, false, true].into_iter().collect();
        assert_eq!(
            rows(&[batch().filter(&keep).expect("four bits")]),
            ["a | 1 | false", "d | 4 | true"]
        );
        let taken = batch().take(&[3, 1, 1]).expect("in range");
        assert_eq!(
            rows(&[taken]),
            ["d | 4 | true", "null | 2 | true", "null | 2 | true"]
        );
        assert!(batch().take(&[4]).is_err() && batch().filter(&Bits::new()).is_err());
    }

    #[test]
    fn columns_can_be_picked_and_added() {
        let more = batch()
            .project(&["n"])
            .expect("there")
            .with_column(Field::new("x", crate::DataType::Float64), vec![0.5; 4]);
        assert_eq!(rows(&[more.expect("fits")])[0], "1 | 0.5");
    }

    #[test]
    fn a_test_stands_in_for_the_host_that_evaluates() {
        let refused = batch().eval(&["n * 2 AS twice"]);
        let error = refused.expect_err("nothing stands in").to_string();
        assert!(error.contains("on_eval"), "{error}");
        crate::testing::on_eval(|batch, expressions| {
            assert_eq!(expressions, ["n * 2 AS twice"]);
            let twice: Vec<i32> = batch.i32("n")?.as_slice()?.iter().map(|n| n * 2).collect();
            Batch::new(&Schema::new().i32("twice"), [Column::from(twice)])
        });
        let evaluated = batch().eval(&["n * 2 AS twice"]).expect("the stand-in");
        assert_eq!(rows(&[evaluated]), ["2", "4", "6", "8"]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let error = |schema: Schema, column: Column| {
            Batch::new(&schema, [column])
                .expect_err("must not fit")
                .to_string()
        };
        assert_eq!(
            error(Schema::new().i64("n"), vec![1i32].into()),
            "column `n` is to be of type `int64`, and holds `int32`"
        );
        assert_eq!(
            error(Schema::new().i64("n"), vec![Some(1i64), None].into()),
            "column `n` has `1` nulls, and its field is not nullable"
        );
        assert_eq!(
            error(Schema::new(), vec![1i32].into()),
            "`1` columns for a schema of `0`"
        );
        assert_eq!(
            batch().i64("n").expect_err("i32").to_string(),
            "column `n` is of type `int32`, not `int64`"
        );
        assert_eq!(
            batch().i64("m").expect_err("none").to_string(),
            "no column `m` among `name`, `n`, `even`"
        );
    }
}
