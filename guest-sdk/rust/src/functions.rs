use std::str::FromStr;

use crate::batch::Batch;
use crate::groups::Rows;
use crate::host::Sink;
use crate::schema::Schema;
use crate::{Error, Result};

/// A map: batches in, batches out. A value of the type lives for one task, between `open` and `finish`.
pub trait Map: Sized {
    /// The columns of the output, given those of the input. Called when a job is planned; an error refuses the job.
    fn bind(input: &Schema, params: &Params) -> Result<Schema>;

    /// Starts a task.
    fn open(params: &Params) -> Result<Self>;

    /// Takes a batch. What comes out of it goes to `out` now or later.
    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()>;

    /// Ends a task: the last chance for output.
    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let _ = out;
        Ok(())
    }
}

/// A reduce or a combine: groups of rows with equal keys in, batches out. A value of the type lives for one task, which
/// sees many groups, one after the other.
///
/// A group comes in pieces, because it may be larger than a batch: each piece is given to `push`, and after the last one
/// `end` is called. A combine has the same columns on both sides, and may be run any number of times, also never.
pub trait Reduce: Sized {
    /// The columns of the output, given those of the input. Called when a job is planned; an error refuses the job.
    fn bind(input: &Schema, params: &Params) -> Result<Schema>;

    /// Starts a task.
    fn open(params: &Params) -> Result<Self>;

    /// Takes one or more rows of the current group.
    fn push(&mut self, rows: &Rows<'_>, out: &mut Output) -> Result<()>;

    /// Ends the current group. `last` are the rows of its last `push`, to read the key from.
    fn end(&mut self, last: &Rows<'_>, out: &mut Output) -> Result<()>;

    /// Ends a task: the last chance for output.
    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let _ = out;
        Ok(())
    }
}

/// What a task function is called with: bytes in, and it answers with bytes.
///
/// ```
/// use weft::prelude::*;
/// fn shout(task: Task) -> Result<Vec<u8>> {
///     Ok(task.input.to_ascii_uppercase())
/// }
/// assert_eq!(shout(Task::new(*b"hey")).unwrap(), b"HEY");
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Task {
    /// The parameters of the stage or the call.
    pub params: Params,
    /// The position in a set of tasks, or the number of the row in its partition; 0 outside a set.
    pub index: u32,
    /// The bytes of the call, of the set of tasks, or of a row as JSON.
    pub input: Vec<u8>,
}

impl Task {
    /// A call with this input, for tests.
    pub fn new(input: impl Into<Vec<u8>>) -> Task {
        Task {
            input: input.into(),
            ..Task::default()
        }
    }
}

/// The parameters of a job and its stage, text by name.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// The parameter of this name, if it is set.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The parameter of this name as a value of another type, `default` if it is not set, an error if it does not parse.
    pub fn parse<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.get(name) {
            None => Ok(default),
            Some(value) => value
                .parse()
                .map_err(|_| Error::new(format!("parameter `{name}` cannot be `{value}`"))),
        }
    }
}

impl From<Vec<(String, String)>> for Params {
    fn from(params: Vec<(String, String)>) -> Params {
        Params(params)
    }
}

impl<const N: usize> From<[(&str, &str); N]> for Params {
    fn from(params: [(&str, &str); N]) -> Params {
        Params(
            params
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        )
    }
}

/// Where results go.
#[derive(Debug)]
pub struct Output {
    pub(crate) sink: Sink,
}

impl Output {
    pub(crate) fn new() -> Output {
        Output {
            sink: Sink::default(),
        }
    }

    /// Hands a batch over. Fails if its columns are not those that `bind` answered with, or if the task's output limit is
    /// reached. A batch without rows is let go.
    pub fn emit(&mut self, batch: Batch) -> Result<()> {
        if batch.rows() == 0 {
            Ok(())
        } else {
            self.sink.emit(batch)
        }
    }
}
