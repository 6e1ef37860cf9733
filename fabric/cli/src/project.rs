//! Projects of functions: `weft new` creates one, `weft build` makes a component of it.
//!
//! ```text
//!   new ──────▶ templates, and the SDK that is embedded in the binary (sdk)
//!   build ─┬──▶ toolchain: cargo, for Wasm ──▶ component
//!          └──▶ build_python ─┬▶ component_cache: nothing has changed ──▶ the component of the last build
//!                            └▶ componentize: componentize-py ──▶ component
//! ```
//!
//! The languages' own tools do the work, each in the environment of guests (`guest_environment`).

mod build;
mod build_python;
mod component_cache;
mod componentize;
mod guest_environment;
mod new;
mod python_run;
mod sdk;
pub(crate) mod toolchain;

pub(crate) use build::build;
pub(crate) use new::new;
