//! Expressions that guests evaluate over their batches, compiled and evaluated by DataFusion.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use weft_sandbox::{Expressions, PreparedExpressions, guest_type};
use weft_sql::Session;

/// Compiles expressions with the functions of a session.
pub(crate) struct NativeExpressions(Session);

impl NativeExpressions {
    pub(crate) fn shared(session: &Session) -> Arc<dyn Expressions> {
        Arc::new(Self(session.clone()))
    }
}

impl Expressions for NativeExpressions {
    fn prepare(
        &self,
        texts: &[String],
        schema: &SchemaRef,
    ) -> Result<Arc<dyn PreparedExpressions>, String> {
        let compiled = self.0.expressions(texts, schema, guest_type);
        let compiled = compiled.map_err(|problem| problem.detail)?;
        Ok(Arc::new(Compiled(compiled)))
    }
}

struct Compiled(weft_sql::Expressions);

impl PreparedExpressions for Compiled {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.0.schema())
    }

    fn bytes_max(&self, batch: &RecordBatch) -> u64 {
        self.0.bytes_max(batch)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<RecordBatch, String> {
        self.0.evaluate(batch).map_err(|problem| problem.detail)
    }
}
