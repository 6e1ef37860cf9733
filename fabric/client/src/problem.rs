//! Problem details as the server sends them, and as people read them.

use std::fmt;

use serde::Deserialize;
use serde_json::Value;
use weft_core::FieldError;

/// Longest piece of an answer that is not a problem document to show, in characters.
const EXCERPT_CHARS: usize = 200;

/// A problem document (RFC 9457). Lenient where [`weft_core::Problem`] is closed: the server may be
/// newer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ApiProblem {
    /// One of the codes in the documentation.
    pub code: String,
    /// A sentence that says what happened, where, and what to do.
    pub detail: String,
    /// Everything that is wrong with a job document.
    pub errors: Vec<FieldError>,
    /// The name of the limit that was reached.
    pub limit: Option<String>,
    /// The value of that limit.
    pub value: Option<Value>,
    /// The function at fault.
    pub function: Option<String>,
    /// The document as it came, for `--json`.
    #[serde(skip)]
    pub raw: Value,
}

impl ApiProblem {
    /// Reads an answer with an error status; makes a problem up where the body is none.
    pub(crate) fn from_answer(status: u16, body: &[u8]) -> Self {
        let raw = serde_json::from_slice::<Value>(body).ok();
        let problem = raw.and_then(Self::from_value);
        problem.unwrap_or_else(|| Self::made_up(status, body))
    }

    fn from_value(raw: Value) -> Option<Self> {
        let problem: Self = serde_json::from_value(raw.clone()).ok()?;
        (!problem.code.is_empty()).then_some(Self { raw, ..problem })
    }

    fn made_up(status: u16, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let excerpt: String = text.trim().chars().take(EXCERPT_CHARS).collect();
        let detail = format!("the server answered with status {status}: {excerpt}");
        weft_core::Problem::new(weft_core::ErrorCode::Internal, detail).into()
    }
}

impl From<weft_core::Problem> for ApiProblem {
    fn from(problem: weft_core::Problem) -> Self {
        let raw = serde_json::to_value(&problem).expect("a problem is plain data");
        Self::from_value(raw).expect("a problem has a code")
    }
}

impl fmt::Display for ApiProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.detail, self.code)?;
        for error in &self.errors {
            write!(f, "\n  {}: {}", error.path, error.message)?;
            if let Some(suggestion) = &error.suggestion {
                write!(f, " (did you mean `{suggestion}`?)")?;
            }
        }
        self.fmt_limit(f)
    }
}

impl ApiProblem {
    fn fmt_limit(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(limit) = &self.limit {
            write!(f, "\n  limit: {limit}")?;
        }
        match &self.value {
            None | Some(Value::Null) => {}
            Some(Value::String(value)) => write!(f, "\n  value: {value}")?,
            Some(value) => write!(f, "\n  value: {value}")?,
        }
        match &self.function {
            Some(function) => write!(f, "\n  function: {function}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_listed_with_path_message_and_suggestion() {
        let body = br#"{"type":"about:blank","status":400,"code":"invalid_job","detail":"the job document has 2 errors","errors":[
            {"path":"stage[1].shufle","message":"unknown key `shufle`","suggestion":"shuffle"},
            {"path":"name","message":"is missing"}]}"#;
        assert_eq!(
            ApiProblem::from_answer(400, body).to_string(),
            "the job document has 2 errors [invalid_job]\n  \
             stage[1].shufle: unknown key `shufle` (did you mean `shuffle`?)\n  \
             name: is missing"
        );
    }

    #[test]
    fn limits_and_codes_of_a_newer_server_are_shown() {
        let body = br#"{"code":"brand_new","detail":"no","limit":"memory","value":"256MiB","function":"a/b"}"#;
        assert_eq!(
            ApiProblem::from_answer(422, body).to_string(),
            "no [brand_new]\n  limit: memory\n  value: 256MiB\n  function: a/b"
        );
    }

    #[test]
    fn an_answer_that_is_no_problem_document_is_quoted() {
        let problem = ApiProblem::from_answer(502, b"<html>bad gateway</html>");
        assert_eq!(
            problem.to_string(),
            "the server answered with status 502: <html>bad gateway</html> [internal]"
        );
        assert_eq!(problem.raw["code"], "internal");
    }
}
