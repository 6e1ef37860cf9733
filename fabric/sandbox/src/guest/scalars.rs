//! Scalar functions: bound to the types of their arguments, and evaluated batch by batch.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, FieldRef, Schema};
use weft_core::{FunctionKind, FunctionRecord};

use super::{CALL_WALL_MAX, Guest, START_WALL_MAX, wait};
use crate::account::Reservation;
use crate::component::Exports;
use crate::fault::{Fault, Result};
use crate::fields;

/// Runs a call of a guest to its end on this thread, for callers that cannot wait.
///
/// Epochs never make a guest yield, they let it go on or end it. So a call that is pending waits for something that
/// the guest asked WASI for, such as a pause. Errors: `Waited` then; the guest must not be called again.
pub fn at_once<T>(call: impl Future<Output = Result<T>>) -> Result<T> {
    // A thread that has done much is made to yield by Tokio, which is no reason of the guest's.
    let call = pin!(tokio::task::coop::unconstrained(call));
    match call.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => Err(Fault::Waited),
    }
}

/// Types with which a scalar function is evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundScalar {
    /// Types of the arguments. Those that are given may have others.
    pub arguments: Vec<DataType>,
    /// Type of the column that it returns.
    pub returns: FieldRef,
}

/// The column that a scalar function returned, and the memory that is reserved for it.
#[derive(Debug)]
pub struct ScalarColumn {
    /// A value for each row.
    pub column: ArrayRef,
    /// Given back when it is dropped.
    pub reserved: Reservation,
}

/// A component's scalar functions out of either set of bindings.
macro_rules! scalars {
    ($found:expr) => {
        $found
            .into_iter()
            .map(|scalar| FunctionRecord {
                name: scalar.name,
                kind: FunctionKind::Scalar,
                summary: scalar.summary,
                deterministic: scalar.deterministic,
            })
            .collect()
    };
}

impl Guest {
    /// Asks the component for its scalar functions, if it may have any. Their names are not checked.
    pub(super) async fn describe_scalars(&mut self) -> Result<Vec<FunctionRecord>> {
        describe!(self, scalars, scalars)
    }

    /// Asks a scalar function for the types that it takes and returns, given those of its arguments.
    pub async fn bind_scalar(&mut self, function: &str, arguments: &Schema) -> Result<BoundScalar> {
        let n_arguments = arguments.fields().len();
        let given = fields::to_guest(arguments).map_err(Fault::schema)?;
        let bound = call!(
            @within START_WALL_MAX,
            self,
            scalars,
            "scalars",
            call_bind(function, &given)
        )?;
        let (arguments, returns) = bound.map_err(|message| self.failed(message))?;
        let wrong =
            |message: String| Fault::schema(format!("`bind` answered with wrong types: {message}"));
        let arguments = fields::from_guest(&arguments).map_err(wrong)?;
        let returns = fields::from_guest(&returns).map_err(wrong)?;
        if arguments.fields().len() != n_arguments {
            let n = arguments.fields().len();
            return Err(wrong(format!(
                "{n} arguments, where {n_arguments} are given"
            )));
        }
        let [returns] = &returns.fields()[..] else {
            let n = returns.fields().len();
            return Err(wrong(format!("{n} columns, where a function returns one")));
        };
        let arguments = arguments.fields().iter();
        Ok(BoundScalar {
            arguments: arguments.map(|field| field.data_type().clone()).collect(),
            returns: Arc::clone(returns),
        })
    }

    /// Evaluates a scalar function on a batch of arguments. `returns`: the column that it is bound to return.
    ///
    /// Errors: `Schema` if what it returns is not that, or has not a value for each row.
    pub async fn evaluate_scalar(
        &mut self,
        function: &str,
        arguments: RecordBatch,
        returns: &FieldRef,
    ) -> Result<ScalarColumn> {
        let rows = arguments.num_rows();
        let arguments = self.take_in(arguments)?;
        let column = call!(self, scalars, "scalars", call_evaluate(function, arguments))?
            .map_err(|message| self.failed(message))?;
        let host = self.store.data_mut();
        let returned = host.take_column(column, returns, rows);
        if returned.is_err() {
            // Nothing may run in it after that, as after any other fault.
            self.callable = false;
        }
        returned
    }
}
