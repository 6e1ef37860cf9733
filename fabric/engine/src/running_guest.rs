//! Guests in their places among the operators of a task, and the rows that they emit.

use std::sync::Arc;

use arrow::array::RecordBatch;
use weft_core::Problem;
use weft_sandbox::{Fault, Guest, Reservation};

use crate::environment::TaskEnvironment;
use crate::grouping::Chunk;
use crate::plan::FunctionPlan;
use crate::task_results::Place;

/// What a guest emitted, and the memory that is reserved for it until it has gone on its way.
#[derive(Default)]
pub(crate) struct Emitted {
    pub(crate) batches: Vec<RecordBatch>,
    pub(crate) reserved: Vec<Arc<Reservation>>,
}

impl Emitted {
    /// Adds what was emitted later.
    pub(crate) fn add(&mut self, more: Emitted) {
        self.batches.extend(more.batches);
        self.reserved.extend(more.reserved);
    }
}

/// A guest in its place.
pub(crate) struct RunningGuest {
    pub(crate) function: FunctionPlan,
    guest: Guest,
    rows_in: u64,
}

impl RunningGuest {
    pub(crate) async fn mapper(
        environment: &TaskEnvironment,
        function: &FunctionPlan,
    ) -> Result<Self, Problem> {
        let mut guest = environment.guest(function).await?;
        let opened = guest
            .open_mapper(
                &function.function,
                &function.params,
                Arc::clone(&function.output),
            )
            .await;
        Self::opened(environment, function, guest, opened)
    }

    pub(crate) async fn reducer(
        environment: &TaskEnvironment,
        function: &FunctionPlan,
    ) -> Result<Self, Problem> {
        let mut guest = environment.guest(function).await?;
        let opened = guest
            .open_reducer(
                &function.function,
                &function.params,
                Arc::clone(&function.output),
            )
            .await;
        Self::opened(environment, function, guest, opened)
    }

    fn opened(
        environment: &TaskEnvironment,
        function: &FunctionPlan,
        guest: Guest,
        opened: Result<(), Fault>,
    ) -> Result<Self, Problem> {
        let running = Self {
            function: function.clone(),
            guest,
            rows_in: 0,
        };
        running.check(environment, opened)?;
        Ok(running)
    }

    /// A guest that failed is billed for what it used, and never called again.
    fn check<T>(
        &self,
        environment: &TaskEnvironment,
        result: Result<T, Fault>,
    ) -> Result<T, Problem> {
        result.map_err(|fault| {
            environment.retire(&self.function, &self.guest, self.rows_in);
            fault.problem(&self.function.label)
        })
    }

    fn emitted(&mut self) -> Emitted {
        let (batches, reserved) = self.guest.take_output();
        Emitted {
            batches,
            reserved: reserved.map(Arc::new).into_iter().collect(),
        }
    }

    pub(crate) async fn push(
        &mut self,
        environment: &TaskEnvironment,
        batch: RecordBatch,
    ) -> Result<Emitted, Problem> {
        self.rows_in += batch.num_rows() as u64;
        let pushed = self.guest.push_mapper(batch).await;
        self.check(environment, pushed)?;
        Ok(self.emitted())
    }

    pub(crate) async fn push_chunk(
        &mut self,
        environment: &TaskEnvironment,
        chunk: Chunk,
    ) -> Result<Emitted, Problem> {
        self.rows_in += chunk.batch.num_rows() as u64;
        let pushed = self
            .guest
            .push_reducer(chunk.batch, &chunk.ends, chunk.continues)
            .await;
        self.check(environment, pushed)?;
        Ok(self.emitted())
    }

    pub(crate) async fn finish_mapper(
        mut self,
        environment: &TaskEnvironment,
    ) -> Result<Emitted, Problem> {
        let finished = self.guest.finish_mapper().await;
        self.finished(environment, finished)
    }

    pub(crate) async fn finish_reducer(
        mut self,
        environment: &TaskEnvironment,
    ) -> Result<Emitted, Problem> {
        let finished = self.guest.finish_reducer().await;
        self.finished(environment, finished)
    }

    fn finished(
        mut self,
        environment: &TaskEnvironment,
        finished: Result<(), Fault>,
    ) -> Result<Emitted, Problem> {
        self.check(environment, finished)?;
        let output = self.emitted();
        environment.retire(&self.function, &self.guest, self.rows_in);
        Ok(output)
    }

    /// Runs a task function to its end, and returns its result.
    pub(crate) async fn run(
        mut self,
        environment: &TaskEnvironment,
        index: u32,
        input: &[u8],
    ) -> Result<Vec<u8>, Problem> {
        let (name, params) = (&self.function.function, &self.function.params);
        let ran = self.guest.run_task(name, params, index, input).await;
        let result = self.check(environment, ran)?;
        environment.retire(&self.function, &self.guest, self.rows_in);
        Ok(result)
    }

    pub(crate) async fn task(
        environment: &TaskEnvironment,
        function: &FunctionPlan,
    ) -> Result<Self, Problem> {
        Ok(Self {
            function: function.clone(),
            guest: environment.guest(function).await?,
            rows_in: 0,
        })
    }

    /// A guest for one call of a task function, whose input is `rows_in` rows.
    pub(crate) async fn of_call(
        environment: &TaskEnvironment,
        function: &FunctionPlan,
        place: Place,
        rows_in: u64,
    ) -> Result<Self, Problem> {
        let seed = environment.plan.call_seed(place);
        Ok(Self {
            function: function.clone(),
            guest: environment.guest_of_call(function, seed).await?,
            rows_in,
        })
    }
}
