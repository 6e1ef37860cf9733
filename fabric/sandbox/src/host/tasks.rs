//! Futures of the invocation.

use super::{Host, HostResult};
use crate::bindings::tasks;

fn no_futures<T>() -> HostResult<T> {
    Ok(Err("futures are spawned by invoked tasks, not here".into()))
}

impl tasks::Host for Host {
    async fn spawn(&mut self, function: String, input: Vec<u8>) -> HostResult<u64> {
        let Some(futures) = self.futures.as_deref_mut() else {
            return no_futures();
        };
        let asked = self.cpu.wait(futures.spawn(&function, input)).await;
        self.asked(asked)
    }

    async fn join(&mut self, future: u64) -> HostResult<Vec<u8>> {
        let Some(futures) = self.futures.as_deref_mut() else {
            return no_futures();
        };
        let asked = self.cpu.wait(futures.join(future)).await;
        self.asked(asked)
    }

    async fn select(&mut self, among: Vec<u64>) -> HostResult<u32> {
        let Some(futures) = self.futures.as_deref_mut() else {
            return no_futures();
        };
        let asked = self.cpu.wait(futures.select(&among)).await;
        self.asked(asked)
    }

    fn cancel(&mut self, future: u64) -> wasmtime::Result<()> {
        if let Some(futures) = self.futures.as_deref_mut() {
            futures.cancel(future);
        }
        Ok(())
    }
}
