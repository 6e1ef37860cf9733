//! Functions of components that a statement calls: bound to the types of their arguments while it is planned.
//!
//! DataFusion asks for types again and again, so each answer of a guest is kept. A function has one guest for the whole
//! statement, with the limits of `bind`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use weft_core::job::StageSpec;
use weft_core::{
    ErrorCode, FunctionKind, FunctionUsage, Limits, Meters, PinnedFunction, Problem, lock,
};
use weft_sandbox::{
    BoundScalar, Component, Fault, Guest, GuestMeters, GuestSettings, at_once, guest_type,
    thread_cpu_ns,
};
use weft_sql::{Binder, Bound, Function, Session, Statement};

use super::Planner;
use crate::describe;
use crate::plan::FunctionPlan;
use crate::schema;

/// The functions of one statement, by their positions in it.
#[derive(Debug, Default)]
pub(super) struct SqlFunctions(Arc<Vec<SqlFunction>>);

struct SqlFunction {
    reference: String,
    is_deterministic: bool,
    plan: FunctionPlan,
    component: Arc<Component>,
    state: Mutex<State>,
}

impl fmt::Debug for SqlFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plan.label)
    }
}

/// Arguments as a statement gives them: types, and whether they may be null.
type Arguments = Vec<(DataType, bool)>;

struct State {
    /// For the guest, until it is started.
    settings: Option<GuestSettings>,
    guest: Option<Guest>,
    /// CPU time of a start that failed.
    start_cpu_ns: u64,
    bound: HashMap<Arguments, Result<Bound, Problem>>,
}

impl Planner<'_> {
    /// Finds the functions that a statement calls among those of the job.
    ///
    /// Errors: `UnknownFunction` if one is not there, `Internal` if its component is not loaded.
    pub(super) fn sql_functions(
        &self,
        stage: &StageSpec,
        statement: &Statement,
    ) -> Result<SqlFunctions, Problem> {
        let references = statement.functions().iter();
        let functions = references.map(|reference| self.sql_function(stage, reference));
        let functions = functions.collect::<Result<Vec<_>, _>>()?;
        Ok(SqlFunctions(Arc::new(functions)))
    }

    fn sql_function(&self, stage: &StageSpec, reference: &str) -> Result<SqlFunction, Problem> {
        let is_it = |one: &&PinnedFunction| {
            one.reference == reference && one.function.kind == FunctionKind::Scalar
        };
        let mut functions = self.request.functions.iter();
        let pinned = functions.find(is_it).ok_or_else(|| {
            let detail = format!(
                "the statement calls `{reference}`, which was not found in it when the job was accepted: write its name \
                 as `component.function(..)`, without a comment in it"
            );
            Problem::new(ErrorCode::UnknownFunction, detail).of_function(reference)
        })?;
        let label = pinned.label();
        let component = self.components.get(&pinned.digest);
        let component = component
            .ok_or_else(|| Problem::new(ErrorCode::Internal, format!("`{label}` is not loaded")))?;
        let settings = describe::settings(
            &label,
            &stage.limits,
            self.cancel.clone(),
            self.request.spec.seed,
            self.request.started_ms,
        );
        Ok(SqlFunction {
            reference: reference.to_owned(),
            is_deterministic: pinned.function.deterministic,
            component: Arc::clone(component),
            state: Mutex::new(State {
                settings: Some(settings),
                guest: None,
                start_cpu_ns: 0,
                bound: HashMap::new(),
            }),
            plan: FunctionPlan {
                stage: stage.name.clone(),
                label,
                digest: pinned.digest.clone(),
                function: pinned.function.name.clone(),
                params: Vec::new(),
                limits: stage.limits.clone(),
                // What comes out depends on the call, whose plan says it.
                output: schema::empty(),
            },
        })
    }
}

impl SqlFunctions {
    /// The session in which the statement is planned.
    pub(super) fn session(&self, session: &Session) -> Result<Session, Problem> {
        if self.0.is_empty() {
            return Ok(session.clone());
        }
        let functions = self.0.iter().map(|function| Function {
            reference: function.reference.clone(),
            is_deterministic: function.is_deterministic,
        });
        let binder = StatementBinder(Arc::clone(&self.0));
        session.with_functions(&functions.collect::<Vec<_>>(), Arc::new(binder))
    }

    /// Plans of the functions that a stage calls.
    pub(super) fn plans(&self, called: &BTreeSet<u32>) -> BTreeMap<u32, FunctionPlan> {
        let plan = |(number, function): (u32, &SqlFunction)| (number, function.plan.clone());
        self.of(called).map(plan).collect()
    }

    /// Whether all functions that a stage calls are deterministic.
    pub(super) fn are_deterministic(&self, called: &BTreeSet<u32>) -> bool {
        self.of(called)
            .all(|(_, function)| function.is_deterministic)
    }

    fn of<'a>(&'a self, called: &'a BTreeSet<u32>) -> impl Iterator<Item = (u32, &'a SqlFunction)> {
        let numbered = (0..).zip(self.0.iter());
        numbered.filter(move |(number, _)| called.contains(number))
    }

    /// Returns the usage of binding, for each function that started a guest.
    pub(super) fn usage(&self) -> Vec<FunctionUsage> {
        self.0.iter().filter_map(SqlFunction::usage).collect()
    }
}

/// The binder of functions in a session.
#[derive(Debug)]
struct StatementBinder(Arc<Vec<SqlFunction>>);

impl Binder for StatementBinder {
    fn bind(&self, function: u32, arguments: &[FieldRef]) -> Result<Bound, Problem> {
        match self.0.get(function as usize) {
            Some(function) => function.bind(arguments),
            None => {
                let detail = format!("the statement has no function {function}");
                Err(Problem::new(ErrorCode::Internal, detail))
            }
        }
    }
}

impl SqlFunction {
    fn bind(&self, arguments: &[FieldRef]) -> Result<Bound, Problem> {
        let given = arguments.iter();
        let given: Arguments = given
            .map(|field| (field.data_type().clone(), field.is_nullable()))
            .collect();
        let mut state = lock(&self.state);
        if let Some(bound) = state.bound.get(&given) {
            return bound.clone();
        }
        let seen = arguments.iter().map(seen).collect::<Vec<_>>();
        let bound = state.bind(self, &Schema::new(seen));
        let bound = bound.map(|bound| in_types_given(bound, &given));
        let bound = bound.map_err(|fault| self.problem(fault));
        state.bound.insert(given, bound.clone());
        bound
    }

    fn limits(&self) -> &Limits {
        &self.plan.limits
    }

    fn problem(&self, fault: Fault) -> Problem {
        describe::of_plan(fault, self.limits()).problem(&self.plan.label)
    }

    /// Returns the usage of binding, if a guest was started.
    fn usage(&self) -> Option<FunctionUsage> {
        let state = lock(&self.state);
        let meters = match &state.guest {
            Some(guest) => guest.meters(),
            None if state.start_cpu_ns > 0 => GuestMeters {
                cpu_ns: state.start_cpu_ns,
                ..GuestMeters::default()
            },
            None => return None,
        };
        let billed = Meters {
            guest_cpu_ns: meters.cpu_ns,
            guest_calls: meters.calls,
            memory_byte_ns: meters.memory_byte_ns,
            memory_peak_bytes: meters.memory_peak_bytes,
            ..Meters::default()
        };
        Some(FunctionUsage {
            stage: self.plan.stage.clone(),
            function: self.plan.label.clone(),
            billed,
            ..FunctionUsage::default()
        })
    }
}

impl State {
    fn bind(&mut self, of: &SqlFunction, arguments: &Schema) -> Result<BoundScalar, Fault> {
        if let Some(settings) = self.settings.take() {
            let began = thread_cpu_ns();
            // What a start that fails used is the guest's, too.
            let started = at_once(Guest::start(&of.component, settings));
            self.start_cpu_ns = thread_cpu_ns() - began;
            self.guest = Some(started?);
        }
        let Some(guest) = &mut self.guest else {
            return Err(Fault::Host("its guest did not start".into()));
        };
        at_once(guest.bind_scalar(&of.plan.function, arguments))
    }
}

/// The field as a guest sees it. The type of `NULL` is none that guests know.
fn seen(field: &FieldRef) -> FieldRef {
    match field.data_type() {
        DataType::Null => Arc::new(Field::new(field.name(), DataType::Utf8, true)),
        _ => Arc::clone(field),
    }
}

/// An argument that the guest takes in the type in which it sees it stays what it is.
fn in_types_given(bound: BoundScalar, given: &[(DataType, bool)]) -> Bound {
    let pairs = bound.arguments.into_iter().zip(given);
    let arguments = pairs.map(|(taken, (given, _))| match guest_type(given) == taken {
        true => given.clone(),
        false => taken,
    });
    Bound {
        arguments: arguments.collect(),
        returns: bound.returns,
    }
}
