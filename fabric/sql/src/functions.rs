//! Functions of components: stand-ins for them while a statement is planned, and calls of them in tasks.
//!
//! A stand-in has types and no values: evaluating it fails, so that no constant is computed by a planner. Its types
//! come from a [`Binder`]; values come from a task's [`Functions`].

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_empty_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::{Result, ScalarValue, exec_err, internal_err};
use datafusion::logical_expr::type_coercion::binary::binary_numeric_coercion;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use weft_core::{ErrorCode, Problem, lock};

use crate::calls::planned_name;
use crate::error::carried;

/// A function of a component that statements may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// As [`Statement::functions`](crate::Statement::functions) has it.
    pub reference: String,
    /// Equal arguments give equal results. Any other function is evaluated once for each row.
    pub is_deterministic: bool,
}

/// Types with which a function is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Type of each argument as the function takes it: the one that is given if it is taken as it is.
    pub arguments: Vec<DataType>,
    /// Column that the function returns. Its name means nothing.
    pub returns: FieldRef,
}

/// Types of functions, while a statement is planned.
pub trait Binder: fmt::Debug + Send + Sync {
    /// Binds a function, by its position, to arguments that are called `arg0`, `arg1` and so on. Called again and
    /// again with the same ones.
    fn bind(&self, function: u32, arguments: &[FieldRef]) -> Result<Bound, Problem>;
}

/// Functions of components, in a task.
pub trait Functions: fmt::Debug + Send + Sync {
    /// Evaluates a function, by its position when the statement was planned, on a batch of its arguments.
    ///
    /// The column has the type of `returns`, and a value for each row of the batch, which may have no columns.
    fn evaluate(
        &self,
        function: u32,
        arguments: RecordBatch,
        returns: &FieldRef,
    ) -> Result<ArrayRef, Problem>;
}

/// The binder of one statement.
#[derive(Debug)]
pub(crate) struct Binding {
    binder: Arc<dyn Binder>,
    /// The first problem of a function: DataFusion makes texts of some errors.
    problem: Mutex<Option<Problem>>,
}

impl Binding {
    pub(crate) fn new(binder: Arc<dyn Binder>) -> Arc<Self> {
        Arc::new(Self {
            binder,
            problem: Mutex::default(),
        })
    }

    /// The first problem of a function.
    pub(crate) fn problem(&self) -> Option<Problem> {
        lock(&self.problem).clone()
    }

    fn checked<T>(&self, result: Result<T, Problem>) -> Result<T> {
        result.map_err(|problem| {
            lock(&self.problem).get_or_insert_with(|| problem.clone());
            carried(problem)
        })
    }
}

#[derive(Debug)]
enum Role {
    /// Stands in for the function while a statement is planned.
    Planned(Arc<Binding>),
    /// Calls the function of a task.
    Task(Arc<dyn Functions>),
    /// Part of a plan that only shows that it can be decoded.
    Decoded,
}

/// A function of a component as DataFusion knows it.
#[derive(Debug)]
pub(crate) struct ComponentFunction {
    name: String,
    /// Position among the functions of the statement.
    number: u32,
    signature: Signature,
    role: Role,
}

impl ComponentFunction {
    pub(crate) fn planned(function: &Function, number: u32, binding: &Arc<Binding>) -> ScalarUDF {
        ScalarUDF::from(Self {
            name: planned_name(&function.reference),
            number,
            signature: signature(function.is_deterministic),
            role: Role::Planned(Arc::clone(binding)),
        })
    }

    /// The function of a decoded plan. Without a task's functions it cannot be evaluated.
    pub(crate) fn decoded(
        name: &str,
        number: u32,
        is_deterministic: bool,
        functions: Option<Arc<dyn Functions>>,
    ) -> ScalarUDF {
        ScalarUDF::from(Self {
            name: name.to_owned(),
            number,
            signature: signature(is_deterministic),
            role: functions.map_or(Role::Decoded, Role::Task),
        })
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn is_deterministic(&self) -> bool {
        self.signature.volatility != Volatility::Volatile
    }

    fn bind(&self, arguments: impl Iterator<Item = (DataType, bool)>) -> Result<Bound> {
        let Role::Planned(binding) = &self.role else {
            return internal_err!("`{}` is bound in a task", self.name);
        };
        let arguments: Vec<FieldRef> = fields(arguments).collect();
        let bound = binding.binder.bind(self.number, &arguments);
        let bound = bound.and_then(|bound| self.taken(bound, &arguments));
        binding.checked(bound)
    }

    /// Fails if an argument can only become what the function takes by a cast that the statement does not have.
    fn taken(&self, bound: Bound, given: &[FieldRef]) -> Result<Bound, Problem> {
        if bound.arguments.len() != given.len() {
            let (n, n_given) = (bound.arguments.len(), given.len());
            let detail = format!("`{}` binds {n} arguments of {n_given}", self.name);
            return Err(Problem::new(ErrorCode::Internal, detail));
        }
        let pairs = given.iter().map(|field| field.data_type());
        for (position, (given, taken)) in (1..).zip(pairs.zip(&bound.arguments)) {
            if given != taken && !is_implicit(given, taken) {
                let detail = format!(
                    "argument {position} of `{}` is {}, and the function takes {}: CAST it",
                    self.name,
                    lower_case(given),
                    lower_case(taken)
                );
                return Err(Problem::new(ErrorCode::InvalidJob, detail));
            }
        }
        Ok(bound)
    }
}

fn signature(is_deterministic: bool) -> Signature {
    Signature::user_defined(match is_deterministic {
        true => Volatility::Immutable,
        // Neither computed once for several calls nor moved to where it sees other rows.
        false => Volatility::Volatile,
    })
}

fn lower_case(data_type: &DataType) -> String {
    data_type.to_string().to_lowercase()
}

/// Arguments of these types, by position.
fn fields(types: impl Iterator<Item = (DataType, bool)>) -> impl Iterator<Item = FieldRef> {
    (0..)
        .zip(types)
        .map(|(position, (data_type, is_nullable))| {
            let name = format!("arg{position}");
            Arc::new(Field::new(name, data_type, is_nullable))
        })
}

/// Whether values of a type become those of another without a CAST.
fn is_implicit(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        (DataType::Null, _) => true,
        (DataType::Dictionary(_, values), _) => **values == *to || is_implicit(values, to),
        (number, DataType::Float64) if number.is_numeric() => true,
        (
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View,
            DataType::Utf8 | DataType::Binary,
        )
        | (DataType::Date32, DataType::Timestamp(_, None)) => true,
        _ => binary_numeric_coercion(from, to).as_ref() == Some(to),
    }
}

impl PartialEq for ComponentFunction {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, self.number) == (&other.name, other.number)
    }
}

impl Eq for ComponentFunction {}

impl Hash for ComponentFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.name, self.number).hash(state);
    }
}

impl ScalarUDFImpl for ComponentFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        internal_err!("`{}` is bound to fields", self.name)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let given = args.arg_fields.iter();
        let given = given.map(|field| (field.data_type().clone(), field.is_nullable()));
        Ok(self.bind(given)?.returns)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let given = arguments.iter().map(|data_type| (data_type.clone(), true));
        Ok(self.bind(given)?.arguments)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let Role::Task(functions) = &self.role else {
            return exec_err!("`{}` is evaluated in tasks alone", self.name);
        };
        let is_scalar = |value: &ColumnarValue| matches!(value, ColumnarValue::Scalar(_));
        let is_constant = self.is_deterministic() && args.args.iter().all(is_scalar);
        let n_rows = match is_constant {
            true => args.number_rows.min(1),
            false => args.number_rows,
        };
        if n_rows == 0 {
            return Ok(ColumnarValue::Array(new_empty_array(args.return_type())));
        }
        let columns = args.args.iter().map(|value| value.to_array(n_rows));
        let columns = columns.collect::<Result<Vec<ArrayRef>>>()?;
        let types = columns
            .iter()
            .map(|column| (column.data_type().clone(), true));
        let schema = Arc::new(Schema::new(fields(types).collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(n_rows));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        let evaluated = functions.evaluate(self.number, batch, &args.return_field);
        let column = evaluated.map_err(carried)?;
        Ok(match is_constant {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&column, 0)?),
            false => ColumnarValue::Array(column),
        })
    }
}
