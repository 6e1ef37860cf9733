//! Expressions that guests evaluate over their batches, compiled and evaluated by DataFusion.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use weft_sandbox::{Expressions, PreparedExpressions, guest_type};
use weft_sql::Session;

use crate::untrusted::evaluated;

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
        // A planner that panics is the text's fault, and no reason to end the process.
        let compiled = evaluated(|| self.0.expressions(texts, schema, guest_type))?;
        let compiled = compiled.map_err(|problem| problem.detail)?;
        Ok(Arc::new(Compiled(compiled)))
    }
}

struct Compiled(weft_sql::Expressions);

impl PreparedExpressions for Compiled {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.0.schema())
    }

    fn held_bytes(&self) -> u64 {
        self.0.held_bytes()
    }

    fn bytes_max(&self, batch: &RecordBatch) -> u64 {
        self.0.bytes_max(batch)
    }

    fn evaluate(
        &self,
        batch: &RecordBatch,
        goes_on: &mut dyn FnMut() -> bool,
    ) -> Result<RecordBatch, String> {
        let evaluated = evaluated(|| self.0.evaluate(batch, goes_on))?;
        evaluated.map_err(|problem| problem.detail)
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn what_is_computed_has_types_that_guests_see() {
        let columns: [(&str, ArrayRef); 2] = [
            ("n", Arc::new(Int64Array::from(vec![1, 2]))),
            ("word", Arc::new(StringArray::from(vec!["one", "two"]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).expect("of one length");
        let expressions = NativeExpressions::shared(&Session::new());
        let texts = [
            "substr(word, 1, 1) AS start",
            "to_timestamp(n) AS moment",
            "CAST(n AS DECIMAL(9, 2)) AS price",
            "regexp_replace(word, 'o', '0') AS zeros",
        ];
        let texts = texts.map(str::to_owned);
        let prepared = expressions.prepare(&texts, &batch.schema());
        let prepared = prepared.expect("it compiles");
        for field in prepared.schema().fields() {
            let data_type = field.data_type();
            assert_eq!(guest_type(data_type), *data_type, "{field}");
        }
        let evaluated = prepared
            .evaluate(&batch, &mut || true)
            .expect("it evaluates");
        assert_eq!(evaluated.schema(), prepared.schema());
        let most = prepared.bytes_max(&batch);
        assert!(weft_sandbox::batch_bytes(&evaluated) <= most, "{most}");
        let refused = expressions.prepare(&["sum(n)".to_owned()], &batch.schema());
        let message = refused.err().expect("an aggregate");
        assert!(message.contains("`sum` is an aggregate"), "{message}");
    }
}
