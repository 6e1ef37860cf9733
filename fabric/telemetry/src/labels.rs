//! Label sets of metrics.
//!
//! Every label takes its values from a closed list, or from a list with a bound, so that the number
//! of series is bounded whatever clients send.

use prometheus_client::encoding::EncodeLabelSet;
use weft_core::ErrorCode;

/// Requests by route, method and status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The pattern, not the path.
    pub route: String,
    /// The method, or `other`.
    pub method: String,
    /// The status of the answer.
    pub status: u16,
}

/// Requests by route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// The pattern, not the path.
    pub route: String,
}

/// Invocations by function.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FunctionLabels {
    /// `component/function`, without the version, or `other`.
    pub function: String,
}

/// Jobs by status.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabels {
    /// The status, as the API names it.
    pub status: &'static str,
}

/// Jobs and tasks by outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// The outcome.
    pub outcome: &'static str,
}

/// Failures by code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabels {
    /// `code` of the closed list of problems, or `none`.
    pub code: String,
}

impl From<Option<ErrorCode>> for CodeLabels {
    fn from(code: Option<ErrorCode>) -> Self {
        let text = code.and_then(|code| serde_json::to_value(code).ok());
        let code = text.and_then(|text| text.as_str().map(str::to_owned));
        Self {
            code: code.unwrap_or_else(|| "none".into()),
        }
    }
}

/// Stops at a limit, by limit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabels {
    /// The limit, or `other`.
    pub limit: String,
}

/// Usage by who bears it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AccountLabels {
    /// `billed` or `platform`.
    pub account: &'static str,
}

/// Requests to stores by their kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    /// `get`, `put`, `list`, `head` or `delete`.
    pub kind: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_named_as_in_problems() {
        let of = |code: Option<ErrorCode>| CodeLabels::from(code).code;
        assert_eq!(of(Some(ErrorCode::LimitExceeded)), "limit_exceeded");
        assert_eq!(of(None), "none");
    }
}
