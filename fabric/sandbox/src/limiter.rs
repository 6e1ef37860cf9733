//! Growth of memories and tables, charged to the task before it happens.

use std::sync::Arc;

use wasmtime::ResourceLimiter;
use weft_core::LimitKind;

use crate::account::MemoryAccount;
use crate::fault::Fault;

/// Core instances of one component.
pub(crate) const CORE_INSTANCES_MAX: usize = 64;
/// Memories of one component.
pub(crate) const MEMORIES_MAX: usize = 8;
/// Tables of one component.
pub(crate) const TABLES_MAX: usize = 32;
/// Elements of one table.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Elements of all tables of a store together.
const ELEMENTS_MAX: usize = 200_000;

pub(crate) struct Limiter {
    account: Arc<MemoryAccount>,
    charged_bytes: u64,
    table_elements: usize,
    /// Set while the latest growth was refused, so that the trap or error that follows can name the limit.
    pub(crate) refused: Option<Fault>,
}

impl Limiter {
    pub(crate) fn new(account: Arc<MemoryAccount>) -> Self {
        Self {
            account,
            charged_bytes: 0,
            table_elements: 0,
            refused: None,
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
        // What the guest itself says that it will not need is not our limit.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let bytes = desired.saturating_sub(current) as u64;
        if !self.account.try_grow(bytes) {
            self.refused = Some(Fault::memory(&self.account));
            return Ok(false);
        }
        self.charged_bytes += bytes;
        self.refused = None;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // A guest may ask for any size; what wasmtime makes of it has not been checked yet.
        let more = desired.saturating_sub(current);
        let elements = self.table_elements.saturating_add(more);
        if desired > TABLE_ELEMENTS_MAX || elements > ELEMENTS_MAX {
            let value = format!("{TABLE_ELEMENTS_MAX} elements of a table, {ELEMENTS_MAX} of all");
            self.refused = Some(Fault::limit(LimitKind::Tables, value));
            return Ok(false);
        }
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.table_elements = elements;
        self.refused = None;
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}
