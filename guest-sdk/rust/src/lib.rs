//! Write functions for Weft in Rust: maps, reduces, combines, tasks, scalar functions of SQL, and actors, which run as
//! Wasm components next to the data.
//!
//! A component is a crate of type `cdylib`. This one has a map that doubles a column, and a task:
//!
//! ```
//! use weft::prelude::*;
//!
//! struct Double;
//!
//! impl Map for Double {
//!     fn bind(input: &Schema, _: &Params) -> Result<Schema> {
//!         input.require("n", DataType::Int64)?;
//!         Ok(input.clone().i64("double"))
//!     }
//!
//!     fn open(_: &Params) -> Result<Double> {
//!         Ok(Double)
//!     }
//!
//!     fn push(&mut self, input: Batch, out: &mut Output) -> Result<()> {
//!         let doubles: Vec<i64> = input.i64("n")?.as_slice()?.iter().map(|n| n * 2).collect();
//!         out.emit(input.with_column(Field::new("double", DataType::Int64), doubles)?)
//!     }
//! }
//!
//! fn echo(task: Task) -> Result<Vec<u8>> {
//!     Ok(task.input)
//! }
//!
//! weft::component! {
//!     /// Adds a column with twice the number.
//!     map "double" = Double;
//!     /// Answers with its input.
//!     task "echo" = echo;
//! }
//!
//! // In `cargo test`, functions run without Wasm and without a host.
//! # fn main() {
//! let input = Batch::new(&Schema::new().i64("n"), [Column::from(vec![1i64, 2])]).unwrap();
//! let run = weft::testing::run_map::<Double>(&Params::default(), vec![input]).unwrap();
//! assert_eq!(run.rows(), ["1 | 2", "2 | 4"]);
//! # }
//! ```
//!
//! Columns are read as slices and by row ([`Columns`]), and made of vectors and builders ([`Column`]). A [`Batch`] stays
//! with the host, and only the columns that a function asks for are copied in. A [`Reduce`] gets each group piece by piece.
//! A [`Scalar`] is called in SQL statements; [`scalar!`] makes one of a plain function. A task spawns others by
//! [`tasks`]. Everything that can fail answers with [`Result`], to which errors and strings convert.
//!
//! An [`Actor`] is an instance for each key, with state that lasts, an alarm, and messages to other actors:
//!
//! ```
//! use weft::prelude::*;
//!
//! struct Inbox {
//!     n: usize,
//! }
//!
//! impl Actor for Inbox {
//!     fn wake(_: &str, state: &State) -> Result<Inbox> {
//!         let n = state.scan_prefix("mail/", 1000)?.len();
//!         Ok(Inbox { n })
//!     }
//!
//!     fn invoke(&mut self, method: &str, input: Vec<u8>, cx: &mut Context) -> Result<Vec<u8>> {
//!         match method {
//!             "receive" => {
//!                 cx.state().put(format!("mail/{:06}", self.n), input)?;
//!                 self.n += 1;
//!             }
//!             "forward" => cx.tell("inbox", "archive", "receive", input)?,
//!             _ => return Err(format!("no method `{method}`").into()),
//!         }
//!         Ok(self.n.to_string().into_bytes())
//!     }
//! }
//!
//! weft::component! {
//!     /// Keeps mail.
//!     actor "inbox" = Inbox;
//! }
//!
//! # fn main() {
//! let mut inbox = weft::testing::TestActor::<Inbox>::new("ada");
//! assert_eq!(inbox.invoke("receive", "hello").unwrap(), b"1");
//! inbox.invoke("forward", "hello").unwrap();
//! assert_eq!(inbox.take_told()[0].key, "archive");
//! # }
//! ```

mod actor;
mod batch;
mod bits;
mod buffer;
mod builder;
mod column;
#[expect(missing_docs, unreachable_pub, reason = "public for the macros only")]
mod component;
mod error;
mod functions;
mod groups;
pub mod log;
pub mod meter;
mod scalar;
mod schema;
pub mod tasks;
mod view;
#[cfg(any(test, target_arch = "wasm32"))]
mod wire;

#[cfg(not(target_arch = "wasm32"))]
mod gather;
#[cfg(not(target_arch = "wasm32"))]
#[path = "native.rs"]
mod host;
#[cfg(not(target_arch = "wasm32"))]
#[path = "native_outside.rs"]
mod outside;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

#[cfg(target_arch = "wasm32")]
#[expect(missing_docs, reason = "public for the macros only")]
mod exports;
#[cfg(target_arch = "wasm32")]
mod fields;
#[cfg(target_arch = "wasm32")]
#[path = "wasm.rs"]
mod host;
#[cfg(target_arch = "wasm32")]
#[path = "wasm_outside.rs"]
mod outside;

pub use actor::{Actor, Context, State};
pub use batch::{BATCH_ROWS, Batch};
pub use bits::Bits;
pub use builder::{BinaryBuilder, Utf8Builder};
pub use column::Column;
pub use error::{Error, Result};
pub use functions::{Map, Output, Params, Reduce, Task};
pub use groups::Rows;
pub use scalar::{Argument, Returned, Scalar, Signature};
pub use schema::{DataType, Field, Schema};
pub use view::{Binaries, Booleans, Columns, Lists, Texts, Values, View};

/// All that most components need: `use weft::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Actor, Batch, BinaryBuilder, Bits, Column, Columns, Context, DataType, Error, Field, Map,
        Output, Params, Reduce, Result, Rows, Scalar, Schema, Signature, State, Task, Utf8Builder,
    };
}

/// The contract as generated code.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "component",
        ownership: Borrowing { duplicate_if_necessary: true },
        default_bindings_module: "weft::bindings",
        pub_export_macro: true,
    });
}

/// What the code that [`component!`] writes needs.
#[doc(hidden)]
pub mod __component {
    pub use crate::component::{Body, Component, Function};
    #[cfg(target_arch = "wasm32")]
    pub use crate::exports::Exports;
}

/// Items that the code of [`scalar!`] needs.
#[doc(hidden)]
pub mod __scalar {
    pub use crate::scalar::{Arguments, Collects, Plain, bind, collect, takes};
}

#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
#[macro_export]
macro_rules! __export_component {
    ($component:ident) => {
        struct Exports;
        impl $crate::__component::Exports for Exports {
            const COMPONENT: $crate::__component::Component = $component;
        }
        $crate::bindings::export!(Exports with_types_in $crate::bindings);
    };
}

/// In native builds the functions only have to compile.
#[doc(hidden)]
#[cfg(not(target_arch = "wasm32"))]
#[macro_export]
macro_rules! __export_component {
    ($component:ident) => {
        const _: $crate::__component::Component = $component;
    };
}
