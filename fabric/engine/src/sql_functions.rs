//! Functions of components in the plan of a SQL stage's task: a guest for each, started by its first call.
//!
//! DataFusion evaluates expressions while it is polled and does not wait for them, so guests are called
//! [`at_once`]. They share the task's memory, log and limits with its other functions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::FieldRef;
use weft_core::{ErrorCode, Problem, lock};
use weft_sandbox::{Component, Guest, GuestSettings, Reservation, at_once};
use weft_sql::Functions;

use crate::environment::{TaskClock, TaskEnvironment};
use crate::plan::{FunctionPlan, Source};

/// The functions of a task's plan, by their positions in the statement. None if its stage is not one of SQL.
#[derive(Default)]
pub(crate) struct SqlFunctions(BTreeMap<u32, SqlFunction>);

struct SqlFunction {
    plan: FunctionPlan,
    state: Mutex<State>,
}

enum State {
    /// Nothing has called it.
    Waiting(Box<Start>),
    Running(Box<Running>),
    /// The guest could not be started, or the task has ended.
    Ended,
}

/// All that starts a guest.
struct Start {
    component: Arc<Component>,
    settings: GuestSettings,
    clock: TaskClock,
}

struct Running {
    guest: Guest,
    began_ns: u64,
    rows_in: u64,
    /// Memory of the last column that it returned: operators hold one for each batch that they work on.
    reserved: Option<Reservation>,
}

impl fmt::Debug for SqlFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels = self.0.values().map(|function| &function.plan.label);
        f.debug_list().entries(labels).finish()
    }
}

impl SqlFunctions {
    /// Prepares the functions of a task. Errors: `Internal` if a component is not loaded.
    pub(crate) fn new(environment: &TaskEnvironment) -> Result<Arc<Self>, Problem> {
        let Source::Sql(sql) = &environment.plan.source else {
            return Ok(Arc::default());
        };
        let one = |(number, plan): (&u32, &FunctionPlan)| -> Result<(u32, SqlFunction), Problem> {
            let start = Start {
                component: Arc::clone(environment.component(plan)?),
                settings: environment.settings(plan),
                clock: environment.clock(),
            };
            let function = SqlFunction {
                plan: plan.clone(),
                state: Mutex::new(State::Waiting(Box::new(start))),
            };
            Ok((*number, function))
        };
        let functions = sql.functions.iter().map(one);
        Ok(Arc::new(Self(functions.collect::<Result<_, _>>()?)))
    }

    /// Ends the guests, and records what they used.
    pub(crate) fn retire(&self, environment: &TaskEnvironment) {
        for function in self.0.values() {
            let state = std::mem::replace(&mut *lock(&function.state), State::Ended);
            if let State::Running(running) = state {
                environment.guest_began(&function.plan.label, running.began_ns);
                environment.retire(&function.plan, &running.guest, running.rows_in);
            }
        }
    }
}

impl Functions for SqlFunctions {
    fn evaluate(
        &self,
        function: u32,
        arguments: RecordBatch,
        returns: &FieldRef,
    ) -> Result<ArrayRef, Problem> {
        let function = self.0.get(&function).ok_or_else(|| {
            let detail = format!("the plan of the stage has no function {function}");
            Problem::new(ErrorCode::Internal, detail)
        })?;
        function.evaluate(arguments, returns)
    }
}

impl SqlFunction {
    fn evaluate(&self, arguments: RecordBatch, returns: &FieldRef) -> Result<ArrayRef, Problem> {
        let mut state = lock(&self.state);
        let running = self.running(&mut state)?;
        running.rows_in += arguments.num_rows() as u64;
        let name = &self.plan.function;
        let evaluated = at_once(running.guest.evaluate_scalar(name, arguments, returns));
        let returned = evaluated.map_err(|fault| fault.problem(&self.plan.label))?;
        running.reserved = Some(returned.reserved);
        Ok(returned.column)
    }

    /// The guest, which is started if nothing has called it.
    fn running<'a>(&self, state: &'a mut State) -> Result<&'a mut Running, Problem> {
        if matches!(state, State::Waiting(_)) {
            // What cannot be started is not started again.
            let waiting = std::mem::replace(state, State::Ended);
            if let State::Waiting(start) = waiting {
                *state = State::Running(Box::new(self.start(*start)?));
            }
        }
        match state {
            State::Running(running) => Ok(running.as_mut()),
            State::Waiting(_) | State::Ended => {
                let detail = format!("`{}` is called after its end", self.plan.label);
                Err(Problem::new(ErrorCode::Internal, detail))
            }
        }
    }

    fn start(&self, start: Start) -> Result<Running, Problem> {
        let began_ns = start.clock.unix_ns();
        let started = at_once(Guest::start(&start.component, start.settings));
        Ok(Running {
            guest: started.map_err(|fault| fault.problem(&self.plan.label))?,
            began_ns,
            rows_in: 0,
            reserved: None,
        })
    }
}
