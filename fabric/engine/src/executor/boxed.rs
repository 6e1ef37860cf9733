//! Requests to an executor as boxed futures: their code is made once, in this crate, and not again in the crate that
//! polls them.

use std::future::Future;
use std::pin::Pin;

use weft_core::{Digest, Problem};
use weft_protocol::{
    DescribeReply, InvokeReply, InvokeRequest, PlanReply, PlanRequest, PublishRequest,
    PublishedOutput, RowsRequest, TaskReply, TaskRequest,
};
use weft_sandbox::Futures;

use crate::executor::Executor;
use crate::stream::Outbox;

/// An answer to come. The thread that asks for it polls it.
type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

impl Executor {
    /// Lists the functions of a component, in a sandbox of its own.
    pub fn describe<'a>(
        &'a self,
        request: u64,
        digest: &'a Digest,
        artefact: &'a Digest,
    ) -> Answer<'a, DescribeReply> {
        Box::pin(self.describe_function(request, digest, artefact))
    }

    /// Runs an invocation; its output comes beside the reply. `futures`: those that it may spawn.
    pub fn invoke<'a>(
        &'a self,
        request: &'a InvokeRequest,
        input: &'a [u8],
        futures: Option<Box<dyn Futures>>,
    ) -> Answer<'a, (InvokeReply, Vec<u8>)> {
        Box::pin(self.invoke_function(request, input, futures))
    }

    /// Runs an invocation that streams, on a thread of its own, which may wait.
    pub fn stream<'a>(
        &'a self,
        request: &'a InvokeRequest,
        outbox: Outbox,
    ) -> Answer<'a, InvokeReply> {
        Box::pin(self.stream_function(request, outbox))
    }

    /// Sends rows of an output, on a thread of its own, which may wait for the client.
    pub fn rows<'a>(
        &'a self,
        request: &'a RowsRequest,
        outbox: Outbox,
    ) -> Answer<'a, Result<(), Problem>> {
        Box::pin(self.send_rows(request, outbox))
    }

    /// Plans a job.
    pub fn plan<'a>(&'a self, request: &'a PlanRequest) -> Answer<'a, PlanReply> {
        Box::pin(self.plan_job(request))
    }

    /// Runs one attempt on the calling thread.
    pub fn run(&self, request: TaskRequest) -> Answer<'_, TaskReply> {
        Box::pin(self.run_task(request))
    }

    /// Publishes the outputs of a job that has committed.
    pub fn publish(
        &self,
        request: PublishRequest,
    ) -> Answer<'_, Result<Vec<PublishedOutput>, Problem>> {
        Box::pin(self.publish_outputs(request))
    }
}
