//! Interfaces that this component has no functions for.

use crate::bindings::exports::weft::fabric::{mapper, reducer, scalars};
use crate::bindings::weft::fabric::data::{Batch, Column, Field};
use crate::{Keeper, Params};

fn none<T>(function: &str) -> Result<T, String> {
    Err(format!("no function `{function}`"))
}

impl mapper::Guest for Keeper {
    fn open(function: String, _: Params) -> Result<(), String> {
        none(&function)
    }

    fn push(_: Batch) -> Result<(), String> {
        none("")
    }

    fn finish() -> Result<(), String> {
        none("")
    }
}

impl reducer::Guest for Keeper {
    fn open(function: String, _: Params) -> Result<(), String> {
        none(&function)
    }

    fn push(_: Batch, _: Vec<u32>, _: bool) -> Result<(), String> {
        none("")
    }

    fn finish() -> Result<(), String> {
        none("")
    }
}

impl scalars::Guest for Keeper {
    fn describe() -> Vec<scalars::Scalar> {
        vec![]
    }

    fn bind(function: String, _: Vec<Field>) -> Result<(Vec<Field>, Vec<Field>), String> {
        none(&function)
    }

    fn evaluate(function: String, _: Batch) -> Result<Column, String> {
        none(&function)
    }
}
