//! Functions are bound to the columns of their input.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use weft_core::job::StageSpec;
use weft_core::{ErrorCode, FunctionUsage, Meters, PinnedFunction, Problem};
use weft_sandbox::{Guest, GuestMeters, thread_cpu_ns};

use super::Planner;
use crate::carrier::inherit;
use crate::describe;
use crate::plan::FunctionPlan;

impl<'a> Planner<'a> {
    /// The function that a job file names.
    pub(super) fn pinned(&self, reference: &str) -> Result<&'a PinnedFunction, Problem> {
        let found = self
            .request
            .functions
            .iter()
            .find(|function| function.reference == reference);
        found.ok_or_else(|| {
            Problem::new(ErrorCode::Internal, format!("`{reference}` is not pinned"))
        })
    }

    /// Binds a function to its input; what it answers is the schema of its output.
    pub(super) async fn bind(
        &mut self,
        stage: &StageSpec,
        reference: &str,
        input: &SchemaRef,
    ) -> Result<FunctionPlan, Problem> {
        let pinned = self.pinned(reference)?;
        let label = pinned.label();
        let params = self.request.spec.params_of(stage);
        let (bound, meters) = self.enter(stage, pinned, input, &params).await?;
        let billed = Meters {
            guest_cpu_ns: meters.cpu_ns,
            guest_calls: meters.calls,
            memory_byte_ns: meters.memory_byte_ns,
            memory_peak_bytes: meters.memory_peak_bytes,
            ..Meters::default()
        };
        self.usage.push(FunctionUsage {
            stage: stage.name.clone(),
            function: label.clone(),
            billed,
            ..FunctionUsage::default()
        });
        let output = bound.map_err(|fault| {
            let mut problem = describe::of_plan(fault, &stage.limits).problem(&label);
            problem.detail = format!("stage `{}`: {}", stage.name, problem.detail);
            problem
        })?;
        let output = inherit(output, input);
        if output.fields().is_empty() {
            return Err(Problem::new(
                ErrorCode::SchemaMismatch,
                format!(
                    "stage `{}`: `{label}` was bound to an output without columns",
                    stage.name
                ),
            )
            .of_function(label));
        }
        Ok(FunctionPlan {
            stage: stage.name.clone(),
            label,
            digest: pinned.digest.clone(),
            function: pinned.function.name.clone(),
            params,
            limits: stage.limits.clone(),
            output,
        })
    }

    /// Enters `bind` of a function, and returns its answer and what it used.
    async fn enter(
        &self,
        stage: &StageSpec,
        pinned: &PinnedFunction,
        input: &SchemaRef,
        params: &[(String, String)],
    ) -> Result<(weft_sandbox::Result<SchemaRef>, GuestMeters), Problem> {
        let label = pinned.label();
        let component = self
            .components
            .get(&pinned.digest)
            .ok_or_else(|| Problem::new(ErrorCode::Internal, format!("`{label}` is not loaded")))?;
        let settings = describe::settings(
            &label,
            &stage.limits,
            self.cancel.clone(),
            self.request.spec.seed,
            self.request.started_ms,
        );
        if self.cancel.is_cancelled() {
            let given_up = "planning was given up: the job has ended";
            return Err(Problem::new(ErrorCode::Internal, given_up));
        }
        let began = thread_cpu_ns();
        Ok(match Guest::start(component, settings).await {
            Ok(mut guest) => {
                let bound = guest.bind(&pinned.function.name, input, params).await;
                (bound, guest.meters())
            }
            // What a start that fails used is the guest's, too.
            Err(fault) => {
                let meters = GuestMeters {
                    cpu_ns: thread_cpu_ns() - began,
                    ..GuestMeters::default()
                };
                (Err(fault), meters)
            }
        })
    }

    /// Binds a combiner, whose output goes on in the place of its input.
    pub(super) async fn bind_combine(
        &mut self,
        stage: &StageSpec,
        function: &str,
        input: &SchemaRef,
    ) -> Result<FunctionPlan, Problem> {
        let plan = self.bind(stage, function, input).await?;
        let same = plan.output.fields().len() == input.fields().len()
            && plan
                .output
                .fields()
                .iter()
                .zip(input.fields())
                .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        if !same {
            let detail = format!(
                "stage `{}`: `{}` is a combiner and must answer `bind` with the fields that it was given",
                stage.name, plan.label
            );
            return Err(Problem::new(ErrorCode::SchemaMismatch, detail).of_function(plan.label));
        }
        Ok(FunctionPlan {
            output: Arc::clone(input),
            ..plan
        })
    }
}
