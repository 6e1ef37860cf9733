//! How a guest's work can end badly. Faults of guests are results, not host errors: the user is told, and billed.

use weft_core::{ErrorCode, LimitKind, Problem};

use crate::account::MemoryAccount;
use crate::log::TaskLog;

/// Bytes of a message that quotes what a guest says: it may say anything, at any length.
const MESSAGE_BYTES_MAX: usize = 2048;

/// Words of Rust's standard library about what a sandbox lacks, and about a variable that is not set.
const LACKS: [&str; 5] = [
    "time not implemented on this platform",
    "operation not supported on this platform",
    "can't sleep",
    "kind: Unsupported",
    "`Err` value: NotPresent",
];
/// Follows an error that has such words.
const ADVICE_ON_LACKS: &str = "; the sandbox has no clock, environment, network or threads: params give what a function must know";

/// The advice that follows what a guest says, if it missed something that sandboxes lack.
pub(crate) fn advice_on(said: &str) -> &'static str {
    match LACKS.iter().any(|words| said.contains(words)) {
        true => ADVICE_ON_LACKS,
        false => "",
    }
}

/// What ended a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The guest trapped or panicked.
    #[error("the guest trapped: {0}")]
    Trapped(String),
    /// The function answered with an error.
    #[error("the function failed: {0}")]
    Failed(String),
    /// A limit was reached.
    #[error("the `{kind}` limit of {value} was reached{advice}")]
    Limit {
        /// Which.
        kind: LimitKind,
        /// The limit, with its unit.
        value: String,
        /// What to do, as a clause that follows.
        advice: &'static str,
    },
    /// What the guest handed over is not what it was bound to.
    #[error("{0}")]
    Schema(String),
    /// The component does not export what is asked of it.
    #[error("the component does not export `weft:fabric/{0}`")]
    NotExported(&'static str),
    /// The function waited where it must not.
    #[error("the function waited, which functions in SQL cannot; it must not sleep")]
    Waited,
    /// The job was cancelled.
    #[error("the task was cancelled")]
    Cancelled,
    /// The platform failed a call of the guest, which ended it: the problem is the answer.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The host's fault.
    #[error("the sandbox failed: {0}")]
    Host(String),
}

/// What calls into guests answer with.
pub type Result<T> = std::result::Result<T, Fault>;

/// The text, cut off where it is too long to be handed on.
pub(crate) fn bounded(mut text: String) -> String {
    if text.len() > MESSAGE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(MESSAGE_BYTES_MAX));
        text.push('…');
    }
    text
}

impl Fault {
    pub(crate) fn trapped(message: String) -> Self {
        Fault::Trapped(bounded(message))
    }

    pub(crate) fn failed(message: String) -> Self {
        let advice = advice_on(&message);
        Fault::Failed(bounded(message) + advice)
    }

    pub(crate) fn schema(message: String) -> Self {
        Fault::Schema(bounded(message))
    }

    pub(crate) fn memory(account: &MemoryAccount) -> Self {
        Fault::limit(
            LimitKind::Memory,
            format!("{} MiB", account.limit_bytes() >> 20),
        )
    }

    /// The task logged, or printed, without end.
    pub(crate) fn flood() -> Self {
        Fault::limit(LimitKind::Log, TaskLog::limit_text())
    }

    /// A limit that was reached, with the advice that goes with it. `value`: the limit, with its unit.
    pub fn limit(kind: LimitKind, value: String) -> Self {
        Fault::Limit {
            kind,
            value,
            advice: Self::advice(kind),
        }
    }

    fn advice(kind: LimitKind) -> &'static str {
        match kind {
            LimitKind::Memory => "; raise `limits.memory` or hold less at a time",
            LimitKind::Cpu => "; raise `limits.cpu` or give each task less to do",
            LimitKind::Wall => "; raise `limits.wall`",
            LimitKind::Output => "; raise `limits.output` or emit less",
            LimitKind::Log => "; log less",
            LimitKind::Handles => "; drop batches and streams when you are done with them",
            LimitKind::Tables => "; tables may not be larger",
            LimitKind::Stack => "; recurse less deeply",
            LimitKind::Files => "; write fewer files",
            LimitKind::KeptOutput => "; name a `uri` for the output",
            LimitKind::State => "; write less in one turn",
            LimitKind::Outbox => "; send fewer messages until these are delivered",
            LimitKind::Futures => "; join futures before you spawn more, and nest them less deeply",
        }
    }

    /// The same where nobody can raise the limit: a call's, or that of `bind`.
    #[must_use]
    pub fn of_fixed_limit(self) -> Self {
        match self {
            Fault::Limit { kind, value, .. } => Fault::Limit {
                advice: match kind {
                    LimitKind::Memory => ", which is fixed; hold less at a time",
                    LimitKind::Cpu => ", which is fixed; do less at a time",
                    LimitKind::Output => ", which is fixed; emit less, or run a job",
                    kind => Self::advice(kind),
                },
                kind,
                value,
            },
            other => other,
        }
    }

    /// The fault as a problem of `function` (`component@version/function`).
    pub fn problem(&self, function: &str) -> Problem {
        let code = match self {
            Fault::Refused(problem) => return (**problem).clone(),
            Fault::Trapped(_) => ErrorCode::GuestTrap,
            Fault::Failed(_) | Fault::Waited => ErrorCode::GuestError,
            Fault::Limit { .. } => ErrorCode::LimitExceeded,
            Fault::Schema(_) => ErrorCode::SchemaMismatch,
            Fault::NotExported(_) => ErrorCode::UnknownFunction,
            Fault::Cancelled | Fault::Host(_) => ErrorCode::Internal,
        };
        let problem = Problem::new(code, format!("`{function}`: {self}")).of_function(function);
        match self {
            Fault::Limit { kind, value, .. } => problem.of_limit(*kind, value.as_str()),
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sandbox_lacks_comes_with_advice() {
        for said in [
            "panicked at library/std/src/sys/time/unsupported.rs:13:9: time not implemented on this platform",
            "panicked at library/std/src/sys/thread/unsupported.rs:36:9: can't sleep",
            "called `Result::unwrap()` on an `Err` value: Error { kind: Unsupported, message: \"no threads\" }",
            "operation not supported on this platform",
            "panicked at src/lib.rs:7:5: called `Result::unwrap()` on an `Err` value: NotPresent",
        ] {
            assert_eq!(advice_on(said), ADVICE_ON_LACKS, "{said}");
        }
        assert_eq!(advice_on("the currency `x` is unsupported"), "");
    }

    #[test]
    fn advice_follows_a_message_that_is_cut() {
        let message = format!("can't sleep {}", "x".repeat(2 * MESSAGE_BYTES_MAX));
        let fault = Fault::failed(message).to_string();
        assert!(fault.ends_with(ADVICE_ON_LACKS), "{fault}");
        assert!(fault.len() < MESSAGE_BYTES_MAX + 200, "{}", fault.len());
    }
}
