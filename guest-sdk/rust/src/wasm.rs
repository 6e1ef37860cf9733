//! The host's side in a component: what it imports. The names are those of `native.rs`.

use std::rc::Rc;

use crate::batch::Batch;
use crate::bindings::weft::fabric::{data, log as host_log, meter as host_meter, output};
use crate::bits::Bits;
use crate::column::Column;
use crate::fields;
use crate::log::Level;
use crate::meter::Usage;
use crate::schema::{Field, Schema};
use crate::{Error, Result, wire};

#[derive(Debug)]
pub(crate) struct Handle(pub(crate) data::Batch);

impl Handle {
    pub(crate) fn create(schema: &Schema, columns: Vec<Column>) -> Result<Handle> {
        let parts: Vec<_> = columns.iter().map(Parts::of).collect();
        let columns: Vec<_> = parts.iter().map(Parts::column).collect();
        wrap(data::Batch::create(
            &fields::params(schema.fields()),
            &columns,
        ))
    }

    pub(crate) fn rows(&self) -> usize {
        self.0.rows() as usize
    }

    pub(crate) fn schema(&self) -> Schema {
        fields::schema(self.0.fields())
    }

    pub(crate) fn column(&self, index: usize, field: &Field) -> Result<Rc<Column>> {
        let column = self.0.column(index as u32)?;
        let mut nodes = column.nodes.iter().map(|node| (node.rows, node.nulls));
        Ok(Rc::new(wire::read(
            &field.data_type,
            &mut nodes,
            &mut column.buffers.into_iter(),
        )?))
    }

    pub(crate) fn project(&self, indices: &[u32]) -> Result<Handle> {
        wrap(self.0.project(indices))
    }

    pub(crate) fn with_column(&self, field: &Field, column: Column) -> Result<Handle> {
        let fields = fields::params(std::slice::from_ref(field));
        wrap(self.0.with_column(&fields, Parts::of(&column).column()))
    }

    pub(crate) fn filter(&self, keep: &Bits) -> Result<Handle> {
        wrap(self.0.filter(keep.as_bytes()))
    }

    pub(crate) fn take(&self, rows: &[u32]) -> Result<Handle> {
        wrap(self.0.take(rows))
    }

    pub(crate) fn eval(&self, expressions: &[&str]) -> Result<Handle> {
        wrap(self.0.eval(expressions))
    }
}

fn wrap(batch: Result<data::Batch, String>) -> Result<Handle> {
    batch.map(Handle).map_err(Error::new)
}

/// A column taken apart, its buffers where they are.
struct Parts<'a> {
    nodes: Vec<data::Node>,
    buffers: Vec<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn of(column: &'a Column) -> Parts<'a> {
        let (mut nodes, mut buffers) = (vec![], vec![]);
        wire::write(column, &mut nodes, &mut buffers);
        let nodes = nodes
            .into_iter()
            .map(|(rows, nulls)| data::Node { rows, nulls })
            .collect();
        Parts { nodes, buffers }
    }

    fn column(&self) -> data::ColumnParam<'_> {
        data::ColumnParam {
            nodes: &self.nodes,
            buffers: &self.buffers,
        }
    }
}

/// A column for an export's answer.
pub(crate) fn owned(column: &Column) -> data::ColumnResult {
    let Parts { nodes, buffers } = Parts::of(column);
    data::ColumnResult {
        nodes,
        buffers: buffers.into_iter().map(<[u8]>::to_vec).collect(),
    }
}

#[derive(Debug, Default)]
pub(crate) struct Sink;

impl Sink {
    pub(crate) fn emit(&mut self, batch: Batch) -> Result<()> {
        output::emit(batch.into_handle().0).map_err(Error::new)
    }
}

pub(crate) fn log(level: Level, message: &str) {
    let level = match level {
        Level::Error => host_log::Level::Error,
        Level::Warn => host_log::Level::Warn,
        Level::Info => host_log::Level::Info,
        Level::Debug => host_log::Level::Debug,
    };
    host_log::write(level, message);
}

pub(crate) fn spent() -> Usage {
    usage(host_meter::spent())
}

pub(crate) fn remaining() -> Usage {
    usage(host_meter::remaining())
}

fn usage(usage: host_meter::Usage) -> Usage {
    let host_meter::Usage {
        cpu_ns,
        memory_bytes,
        output_bytes,
    } = usage;
    Usage {
        cpu_ns,
        memory_bytes,
        output_bytes,
    }
}
