//! The list of a component's functions, as [`component!`](crate::component) makes it.

use crate::Result;
use crate::actor::{Actor, Context, State};
use crate::batch::Batch;
use crate::column::Column;
use crate::functions::{Map, Output, Params, Reduce, Task};
use crate::groups::Groups;
use crate::scalar::{Scalar, Signature};
use crate::schema::Schema;

/// Lists the functions of a component: once, at the root of the crate.
///
/// The component takes its name and version from the crate's `Cargo.toml`. Each function has a name in quotes, which is
/// how job files call it, and what it is made of: a type that implements [`Map`](crate::Map) for a `map`, one that
/// implements [`Reduce`](crate::Reduce) for a `reduce` or a `combine`, a `fn(Task) -> Result<Vec<u8>>` for a `task`, a
/// function in [`scalar!`](crate::scalar), or a type that implements [`Scalar`](crate::Scalar), for a `scalar`, and a
/// type that implements [`Actor`](crate::Actor) for an `actor`. A comment of three slashes becomes its summary.
///
/// Functions must give equal outputs for equal inputs, so that the host may run one twice and keep either result. One
/// that does not, because it looks at a clock for example, says `nondeterministic` in front. Actors need not: each of
/// their turns takes effect once.
///
/// ```
/// use weft::prelude::*;
///
/// fn echo(task: Task) -> Result<Vec<u8>> {
///     Ok(task.input)
/// }
///
/// weft::component! {
///     /// Answers with its input.
///     task "echo" = echo;
/// }
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! component {
    ($( $(#[doc = $summary:literal])* $($word:ident)+ $name:literal = $target:path; )+) => {
        const _: () = {
            const COMPONENT: $crate::__component::Component = $crate::__component::Component::new(
                ::core::env!("CARGO_PKG_NAME"),
                ::core::env!("CARGO_PKG_VERSION"),
                &[$( $crate::__component::Function {
                    name: $name,
                    summary: &[$($summary),*],
                    deterministic: $crate::__deterministic!($($word)+),
                    body: $crate::__body!($target; $($word)+),
                } ),+],
            );
            $crate::__export_component!(COMPONENT);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __deterministic {
    (nondeterministic $kind:ident) => {
        false
    };
    ($kind:ident) => {
        true
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __body {
    ($target:path; nondeterministic actor) => {
        ::core::compile_error!("an actor is not `nondeterministic`: each of its turns takes effect once")
    };
    ($target:path; nondeterministic $kind:ident) => { $crate::__body!($target; $kind) };
    ($target:path; map) => { $crate::__component::Body::map::<$target>() };
    ($target:path; reduce) => { $crate::__component::Body::reduce::<$target>() };
    ($target:path; combine) => { $crate::__component::Body::combine::<$target>() };
    ($target:path; task) => { $crate::__component::Body::Task($target) };
    ($target:path; scalar) => { $crate::__component::Body::scalar::<$target>() };
    ($target:path; actor) => { $crate::__component::Body::actor::<$target>() };
}

pub struct Component {
    pub name: &'static str,
    pub version: &'static str,
    pub functions: &'static [Function],
}

pub struct Function {
    pub name: &'static str,
    pub summary: &'static [&'static str],
    pub deterministic: bool,
    pub body: Body,
}

pub enum Body {
    Map {
        bind: Bind,
        open: fn(&Params) -> Result<Box<dyn MapTask>>,
    },
    Reduce {
        bind: Bind,
        open: fn(&Params) -> Result<Box<dyn ReduceTask>>,
        combine: bool,
    },
    Task(fn(Task) -> Result<Vec<u8>>),
    Scalar {
        bind: fn(&Schema) -> Result<Signature>,
        open: fn() -> Result<Box<dyn ScalarTask>>,
    },
    Actor {
        wake: fn(&str, &State) -> Result<Box<dyn ActorInstance>>,
    },
}

pub type Bind = fn(&Schema, &Params) -> Result<Schema>;

pub trait MapTask {
    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()>;
    fn finish(&mut self, out: &mut Output) -> Result<()>;
}

pub trait ReduceTask {
    fn push(&mut self, input: Batch, ends: &[u32], continues: bool, out: &mut Output)
    -> Result<()>;
    fn finish(&mut self, out: &mut Output) -> Result<()>;
}

pub trait ScalarTask {
    fn evaluate(&mut self, arguments: &Batch) -> Result<Column>;
}

pub trait ActorInstance {
    fn invoke(&mut self, method: &str, input: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>>;
    fn alarm(&mut self, cx: &mut Context) -> Result<()>;
}

impl<A: Actor> ActorInstance for A {
    fn invoke(&mut self, method: &str, input: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>> {
        Actor::invoke(self, method, input, cx)
    }
    fn alarm(&mut self, cx: &mut Context) -> Result<()> {
        Actor::alarm(self, cx)
    }
}

impl<S: Scalar> ScalarTask for S {
    fn evaluate(&mut self, arguments: &Batch) -> Result<Column> {
        Scalar::evaluate(self, arguments)
    }
}

impl<M: Map> MapTask for M {
    fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
        Map::push(self, input, out)
    }
    fn finish(&mut self, out: &mut Output) -> Result<()> {
        Map::finish(self, out)
    }
}

impl<R: Reduce> ReduceTask for Groups<R> {
    fn push(
        &mut self,
        input: Batch,
        ends: &[u32],
        continues: bool,
        out: &mut Output,
    ) -> Result<()> {
        Groups::push(self, input, ends, continues, out)
    }
    fn finish(&mut self, out: &mut Output) -> Result<()> {
        Groups::finish(self, out)
    }
}

impl Body {
    pub const fn map<M: Map + 'static>() -> Body {
        Body::Map {
            bind: M::bind,
            open: |params| Ok(Box::new(M::open(params)?)),
        }
    }

    pub const fn reduce<R: Reduce + 'static>() -> Body {
        Body::Reduce {
            bind: R::bind,
            open: |params| Ok(Box::new(Groups::new(R::open(params)?))),
            combine: false,
        }
    }

    pub const fn combine<R: Reduce + 'static>() -> Body {
        Body::Reduce {
            bind: bind_combine::<R>,
            open: |params| Ok(Box::new(Groups::new(R::open(params)?))),
            combine: true,
        }
    }

    pub const fn scalar<S: Scalar + 'static>() -> Body {
        Body::Scalar {
            bind: S::bind,
            open: || Ok(Box::new(S::open()?)),
        }
    }

    pub const fn actor<A: Actor + 'static>() -> Body {
        Body::Actor {
            wake: |key, state| Ok(Box::new(A::wake(key, state)?)),
        }
    }
}

fn bind_combine<R: Reduce>(input: &Schema, params: &Params) -> Result<Schema> {
    let output = R::bind(input, params)?;
    if output == *input {
        Ok(output)
    } else {
        Err("a combine must answer with the columns of its input".into())
    }
}

impl Component {
    /// Checks names while the crate is compiled.
    pub const fn new(
        name: &'static str,
        version: &'static str,
        functions: &'static [Function],
    ) -> Component {
        assert!(
            is_name(name),
            "the crate's name must be one for components: a-z, then a-z, 0-9 and -, 63 at most"
        );
        let mut i = 0;
        while i < functions.len() {
            assert!(
                is_name(functions[i].name),
                "names of functions are a-z, then a-z, 0-9 and -, 63 at most"
            );
            let mut k = 0;
            while k < i {
                assert!(
                    !equal(functions[i].name, functions[k].name),
                    "two functions have the same name"
                );
                k += 1;
            }
            i += 1;
        }
        Component {
            name,
            version,
            functions,
        }
    }
}

const fn is_name(name: &str) -> bool {
    let name = name.as_bytes();
    let mut i = 0;
    while i < name.len() {
        if !(name[i].is_ascii_lowercase() || i > 0 && (name[i].is_ascii_digit() || name[i] == b'-'))
        {
            return false;
        }
        i += 1;
    }
    !name.is_empty() && name.len() <= 63
}

const fn equal(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}
