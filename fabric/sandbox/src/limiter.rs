//! Growth of memories and tables, charged to the task before it happens.

use std::sync::Arc;

use wasmtime::ResourceLimiter;

use crate::account::MemoryAccount;

/// Elements of all tables of a store together.
const TABLE_ELEMENTS_MAX: usize = 200_000;

pub(crate) struct Limiter {
    account: Arc<MemoryAccount>,
    charged_bytes: u64,
    table_elements: usize,
    /// Set when growth was refused, so that the trap or error that follows can name the limit.
    pub(crate) refused: bool,
}

impl Limiter {
    pub(crate) fn new(account: Arc<MemoryAccount>) -> Self {
        Self {
            account,
            charged_bytes: 0,
            table_elements: 0,
            refused: false,
        }
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.account.shrink(self.charged_bytes);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let bytes = (desired - current) as u64;
        if maximum.is_some_and(|maximum| desired > maximum) || !self.account.try_grow(bytes) {
            self.refused = true;
            return Ok(false);
        }
        self.charged_bytes += bytes;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = self.table_elements + (desired - current);
        if maximum.is_some_and(|maximum| desired > maximum) || elements > TABLE_ELEMENTS_MAX {
            self.refused = true;
            return Ok(false);
        }
        self.table_elements = elements;
        Ok(true)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}
