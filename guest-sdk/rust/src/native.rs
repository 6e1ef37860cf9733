//! The host's side for native builds: batches in memory, output and log kept for tests to look at.

use std::cell::RefCell;
use std::rc::Rc;

use crate::batch::Batch;
use crate::bits::Bits;
use crate::column::Column;
use crate::gather::gather;
use crate::log::Level;
use crate::meter::Usage;
use crate::schema::{Field, Schema};
use crate::{Error, Result};

/// Evaluates expressions instead of the host.
pub(crate) type Evaluate = dyn Fn(&Batch, &[&str]) -> Result<Batch>;

thread_local! {
    static LOG: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
    static EVALUATE: RefCell<Option<Rc<Evaluate>>> = const { RefCell::new(None) };
}

#[derive(Clone, Debug)]
pub(crate) struct Handle {
    schema: Schema,
    rows: usize,
    columns: Vec<Rc<Column>>,
}

impl Handle {
    pub(crate) fn create(schema: &Schema, columns: Vec<Column>) -> Result<Handle> {
        let rows = columns.first().map_or(0, Column::rows);
        Ok(Handle {
            schema: schema.clone(),
            rows,
            columns: columns.into_iter().map(Rc::new).collect(),
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn schema(&self) -> Schema {
        self.schema.clone()
    }

    pub(crate) fn column(&self, index: usize, _field: &Field) -> Result<Rc<Column>> {
        Ok(self.columns[index].clone())
    }

    pub(crate) fn project(&self, indices: &[u32]) -> Result<Handle> {
        let fields: Vec<_> = indices
            .iter()
            .map(|index| self.schema.fields()[*index as usize].clone())
            .collect();
        let columns = indices
            .iter()
            .map(|index| self.columns[*index as usize].clone())
            .collect();
        Ok(Handle {
            schema: fields.into(),
            rows: self.rows,
            columns,
        })
    }

    pub(crate) fn with_column(&self, field: &Field, column: Column) -> Result<Handle> {
        let mut handle = self.clone();
        handle.schema = handle.schema.with(field.clone());
        handle.columns.push(column.into());
        Ok(handle)
    }

    pub(crate) fn filter(&self, keep: &Bits) -> Result<Handle> {
        let rows: Vec<_> = (0..)
            .zip(keep.iter())
            .filter(|(_, keep)| *keep)
            .map(|(row, _)| row)
            .collect();
        self.take(&rows)
    }

    pub(crate) fn take(&self, rows: &[u32]) -> Result<Handle> {
        let picks: Vec<_> = rows.iter().map(|row| (0, *row as usize)).collect();
        let columns = self
            .columns
            .iter()
            .map(|column| gather(&[column], &picks).into())
            .collect();
        Ok(Handle {
            schema: self.schema.clone(),
            rows: rows.len(),
            columns,
        })
    }

    pub(crate) fn eval(&self, expressions: &[&str]) -> Result<Handle> {
        // Not borrowed while it runs: it may evaluate, too.
        let evaluate = EVALUATE.with_borrow(Clone::clone);
        let Some(evaluate) = evaluate else {
            return Err(Error::new(
                "expressions are evaluated by the host; in tests, `weft::testing::on_eval` stands in for it",
            ));
        };
        let batch = evaluate(&Batch::from_handle(self.clone()), expressions)?;
        Ok(batch.into_handle())
    }

    /// All rows of batches that have the same columns.
    pub(crate) fn concat(handles: &[Handle]) -> Option<Handle> {
        let schema = handles.first()?.schema.clone();
        let picks: Vec<_> = (0..)
            .zip(handles)
            .flat_map(|(part, h)| (0..h.rows).map(move |row| (part, row)))
            .collect();
        let column = |i: usize| {
            gather(
                &handles
                    .iter()
                    .map(|handle| &*handle.columns[i])
                    .collect::<Vec<_>>(),
                &picks,
            )
            .into()
        };
        let columns = (0..schema.fields().len()).map(column).collect();
        Some(Handle {
            schema,
            rows: picks.len(),
            columns,
        })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Sink(Vec<Batch>);

impl Sink {
    pub(crate) fn emit(&mut self, batch: Batch) -> Result<()> {
        self.0.push(batch);
        Ok(())
    }

    pub(crate) fn into_batches(self) -> Vec<Batch> {
        self.0
    }
}

pub(crate) fn log(level: Level, message: &str) {
    LOG.with_borrow_mut(|log| log.push((level, message.into())));
}

/// Sets what evaluates expressions on this thread.
pub(crate) fn set_evaluate(evaluate: Rc<Evaluate>) {
    EVALUATE.set(Some(evaluate));
}

/// The lines since the last call.
pub(crate) fn take_log() -> Vec<(Level, String)> {
    LOG.take()
}

pub(crate) fn spent() -> Usage {
    Usage::default()
}

pub(crate) fn remaining() -> Usage {
    Usage {
        cpu_ns: u64::MAX,
        memory_bytes: u64::MAX,
        output_bytes: u64::MAX,
    }
}
