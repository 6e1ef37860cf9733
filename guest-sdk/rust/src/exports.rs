//! What a component exports: its list of functions behind the interfaces of the contract.

mod actor;

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;

use crate::batch::Batch;
use crate::bindings::exports::weft::fabric::{functions, mapper, reducer, scalars, task};
use crate::bindings::weft::fabric::data;
use crate::component::{Body, Component, Function, MapTask, ReduceTask, ScalarTask};
use crate::functions::{Output, Params, Task};
use crate::host::{self, Handle};
use crate::log::Level;
use crate::schema::{Field, Schema};
use crate::{Error, Result, fields};

/// Implemented by [`component!`](crate::component), on a type of the component's own crate.
pub trait Exports {
    const COMPONENT: Component;
}

type Pairs = Vec<(String, String)>;

/// A function between `open` and `finish`.
struct Opened<T: ?Sized> {
    task: Box<T>,
    /// That of all batches which are pushed: asking for it takes as long as copying a column.
    schema: OnceCell<Rc<Schema>>,
}

impl<T: ?Sized> Opened<T> {
    fn new(task: Box<T>) -> Self {
        let schema = OnceCell::new();
        Opened { task, schema }
    }

    fn batch(&self, input: data::Batch) -> Batch {
        let handle = Handle(input);
        let schema = self.schema.get_or_init(|| Rc::new(handle.schema()));
        Batch::from_handle(handle).with_schema(Rc::clone(schema))
    }
}

thread_local! {
    static MAP: RefCell<Option<Opened<dyn MapTask>>> = const { RefCell::new(None) };
    static REDUCE: RefCell<Option<Opened<dyn ReduceTask>>> = const { RefCell::new(None) };
    /// The scalar functions that were evaluated, by name.
    static SCALARS: RefCell<Vec<(String, Box<dyn ScalarTask>)>> = const { RefCell::new(Vec::new()) };
}

impl<E: Exports> functions::Guest for E {
    fn describe() -> functions::Description {
        log_panics();
        let Component {
            name,
            version,
            functions,
        } = E::COMPONENT;
        let functions = functions.iter().filter_map(describe).collect();
        functions::Description {
            name: name.into(),
            version: version.into(),
            functions,
        }
    }

    fn bind(
        function: String,
        input: Vec<data::FieldResult>,
        params: Pairs,
    ) -> Result<Vec<data::FieldResult>, String> {
        log_panics();
        let bind = match find::<E>(&function).map(|function| &function.body) {
            Some(Body::Map { bind, .. } | Body::Reduce { bind, .. }) => bind,
            Some(Body::Task(_)) => return Ok(vec![]),
            Some(Body::Scalar { .. } | Body::Actor { .. }) | None => {
                return Err(missing("", &function));
            }
        };
        let bound = text(bind(&fields::schema(input), &params.into()))?;
        Ok(fields::results(&bound))
    }
}

impl<E: Exports> mapper::Guest for E {
    fn open(function: String, params: Pairs) -> Result<(), String> {
        log_panics();
        let Some(Body::Map { open, .. }) = find::<E>(&function).map(|function| &function.body)
        else {
            return Err(missing("map ", &function));
        };
        let map = text(open(&params.into()))?;
        MAP.set(Some(Opened::new(map)));
        Ok(())
    }

    fn push(input: data::Batch) -> Result<(), String> {
        MAP.with_borrow_mut(|map| {
            let map = map.as_mut().ok_or_else(not_open)?;
            let input = map.batch(input);
            text(map.task.push(input, &mut Output::new()))
        })
    }

    fn finish() -> Result<(), String> {
        let mut map = MAP.take().ok_or_else(not_open)?;
        text(map.task.finish(&mut Output::new()))
    }
}

impl<E: Exports> reducer::Guest for E {
    fn open(function: String, params: Pairs) -> Result<(), String> {
        log_panics();
        let Some(Body::Reduce { open, .. }) = find::<E>(&function).map(|function| &function.body)
        else {
            return Err(missing("reduce or combine ", &function));
        };
        let reduce = text(open(&params.into()))?;
        REDUCE.set(Some(Opened::new(reduce)));
        Ok(())
    }

    fn push(input: data::Batch, ends: Vec<u32>, continues: bool) -> Result<(), String> {
        REDUCE.with_borrow_mut(|reduce| {
            let reduce = reduce.as_mut().ok_or_else(not_open)?;
            let input = reduce.batch(input);
            let out = &mut Output::new();
            text(reduce.task.push(input, &ends, continues, out))
        })
    }

    fn finish() -> Result<(), String> {
        let mut reduce = REDUCE.take().ok_or_else(not_open)?;
        text(reduce.task.finish(&mut Output::new()))
    }
}

impl<E: Exports> task::Guest for E {
    fn run(function: String, params: Pairs, index: u32, input: Vec<u8>) -> Result<Vec<u8>, String> {
        log_panics();
        let Some(Body::Task(run)) = find::<E>(&function).map(|function| &function.body) else {
            return Err(missing("task ", &function));
        };
        text(run(Task {
            params: Params::from(params),
            index,
            input,
        }))
    }
}

impl<E: Exports> scalars::Guest for E {
    fn describe() -> Vec<scalars::Scalar> {
        log_panics();
        let functions = E::COMPONENT.functions.iter();
        let functions = functions.filter(|function| matches!(function.body, Body::Scalar { .. }));
        functions
            .map(|function| scalars::Scalar {
                name: function.name.into(),
                summary: summary(function),
                deterministic: function.deterministic,
            })
            .collect()
    }

    fn bind(
        function: String,
        arguments: Vec<data::FieldResult>,
    ) -> Result<(Vec<data::FieldResult>, Vec<data::FieldResult>), String> {
        log_panics();
        let Some(Body::Scalar { bind, .. }) = find::<E>(&function).map(|function| &function.body)
        else {
            return Err(missing("scalar ", &function));
        };
        let given = fields::schema(arguments);
        let signature = text(bind(&given))?;
        let returns = fields::results(&Schema::from(vec![signature.field()]));
        let taken = given.fields().iter().zip(signature.arguments);
        let taken: Vec<_> = taken
            .map(|(given, data_type)| Field {
                data_type,
                ..given.clone()
            })
            .collect();
        Ok((fields::results(&taken.into()), returns))
    }

    fn evaluate(function: String, arguments: data::Batch) -> Result<data::ColumnResult, String> {
        log_panics();
        let arguments = Batch::from_handle(Handle(arguments));
        SCALARS.with_borrow_mut(|opened| {
            let scalar = text(scalar::<E>(opened, &function))?;
            let column = text(scalar.evaluate(&arguments))?;
            Ok(host::owned(&column))
        })
    }
}

/// The scalar function of this name, which is opened once.
fn scalar<'a, E: Exports>(
    opened: &'a mut Vec<(String, Box<dyn ScalarTask>)>,
    name: &str,
) -> Result<&'a mut (dyn ScalarTask + 'static)> {
    let position = match opened.iter().position(|(one, _)| one == name) {
        Some(position) => position,
        None => {
            let body = find::<E>(name).map(|function| &function.body);
            let Some(Body::Scalar { open, .. }) = body else {
                return Err(Error::new(missing("scalar ", name)));
            };
            opened.push((name.into(), open()?));
            opened.len() - 1
        }
    };
    Ok(&mut *opened[position].1)
}

fn summary(function: &Function) -> String {
    let lines: Vec<_> = function.summary.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

/// A function as `functions` lists it. Nothing of one that `scalars` or `actor` lists.
fn describe(function: &Function) -> Option<functions::Function> {
    let kind = match function.body {
        Body::Map { .. } => functions::Kind::MapBatches,
        Body::Reduce { combine: false, .. } => functions::Kind::ReduceGroups,
        Body::Reduce { combine: true, .. } => functions::Kind::CombineGroups,
        Body::Task(_) => functions::Kind::Task,
        Body::Scalar { .. } | Body::Actor { .. } => return None,
    };
    let Function {
        name,
        deterministic,
        ..
    } = *function;
    Some(functions::Function {
        name: name.into(),
        kind,
        summary: summary(function),
        deterministic,
    })
}

fn find<E: Exports>(name: &str) -> Option<&'static Function> {
    E::COMPONENT
        .functions
        .iter()
        .find(|function| function.name == name)
}

fn missing(kind: &str, function: &str) -> String {
    format!("no {kind}function `{function}`")
}

fn not_open() -> String {
    "the function is not open".into()
}

fn text<T>(result: Result<T>) -> Result<T, String> {
    result.map_err(|error: Error| error.to_string())
}

/// Lets the log say what panicked and where; else there is only a trap.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        crate::log::write(Level::Error, &panic.to_string())
    }));
}
