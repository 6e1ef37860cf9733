//! Ids as they stand in logs, paths and JSON: plain strings, checked once where they come in.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An id that does not have the form its kind asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not a {kind}")]
pub struct InvalidId {
    kind: &'static str,
    value: String,
}

macro_rules! string_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&value) { Ok(Self(value)) } else { Err(InvalidId { kind: $kind, value }) }
            }
        }
        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(value: &str) -> Result<Self, InvalidId> {
                Self::try_from(value.to_owned())
            }
        }
    };
}

string_id!(
    /// Who owns components, jobs and usage: `[a-z0-9-]{1,63}`.
    TenantId,
    "tenant id",
    |text| is_slug(text, 63)
);
string_id!(
    /// A job: `job-` and 26 characters that sort by the time of submission.
    JobId,
    "job id",
    |text| text.len() == 30 && text.starts_with("job-") && is_slug(text, 30)
);
string_id!(
    /// A node of a cluster: `[a-z0-9-]{1,63}`.
    NodeId,
    "node id",
    |text| is_slug(text, 63)
);
string_id!(
    /// The SHA-256 of some bytes, as `sha256:` and 64 hex digits.
    Digest,
    "digest",
    |text| text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
);

fn is_slug(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// True for a component's name: `[a-z][a-z0-9-]{0,62}`.
pub fn is_component_name(text: &str) -> bool {
    is_slug(text, 63) && text.as_bytes()[0].is_ascii_lowercase()
}

/// True for a semantic version of at most 64 characters.
pub fn is_semver(text: &str) -> bool {
    text.len() <= 64 && semver::Version::parse(text).is_ok()
}

impl TenantId {
    /// The one tenant of a `weft up` without tenants.
    pub fn default_tenant() -> Self {
        Self("default".into())
    }
}

impl NodeId {
    /// The one node of `weft up`.
    pub fn local() -> Self {
        Self("local".into())
    }
}

/// Random name of one life of a process: 32 hex digits. A process that starts again has another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(u128);

impl Incarnation {
    /// From 16 random bytes.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> String {
        incarnation.to_string()
    }
}

impl TryFrom<String> for Incarnation {
    type Error = InvalidId;

    fn try_from(value: String) -> Result<Self, InvalidId> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_name = value.len() == 32 && value.bytes().all(is_digit);
        let number = u128::from_str_radix(&value, 16).ok().filter(|_| is_name);
        number.map(Self).ok_or(InvalidId {
            kind: "incarnation",
            value,
        })
    }
}

impl std::str::FromStr for Incarnation {
    type Err = InvalidId;

    fn from_str(value: &str) -> Result<Self, InvalidId> {
        Self::try_from(value.to_owned())
    }
}

impl Digest {
    /// From the 32 bytes of a SHA-256.
    pub fn from_sha256(bytes: &[u8; 32]) -> Self {
        Self(format!(
            "sha256:{}",
            bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()
        ))
    }

    /// The 64 hex digits, for names of objects.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }
}

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl JobId {
    /// A new id that sorts by `unix_ms`; `random` keeps ids of one millisecond apart.
    pub fn new(unix_ms: u64, random: u128) -> Self {
        let value = (u128::from(unix_ms & ((1 << 48) - 1)) << 80) | (random & ((1 << 80) - 1));
        let digits = (0..26)
            .rev()
            .map(|position| char::from(CROCKFORD[(value >> (5 * position)) as usize & 31]));
        Self(format!("job-{}", digits.collect::<String>()))
    }
}

/// A lease number: what was granted under an older one can never commit.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One attempt of a task, unique in the life of a group: executors' epochs come from the replicated
/// state, sequences under an epoch from the agent of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// Lease of the executor.
    pub epoch: Epoch,
    /// Counted from 1 under the epoch.
    pub sequence: u64,
}

/// One task of a job: the stage's position in the plan and the task's position in the stage.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The job.
    pub job: JobId,
    /// Position of the stage in the job's plan.
    pub stage: u32,
    /// Position of the task in the stage.
    pub task: u32,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.job, self.stage, self.task)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_sort_by_time() {
        let (a, b) = (JobId::new(1_000, u128::MAX), JobId::new(1_001, 0));
        assert!(a < b, "{a} {b}");
        assert_eq!(a.as_str().parse::<JobId>(), Ok(a));
    }

    #[test]
    fn incarnations_are_32_digits() {
        let one = Incarnation::from_random([0xab; 16]);
        let text = one.to_string();
        assert_eq!(text, "ab".repeat(16));
        assert_eq!(text.parse::<Incarnation>(), Ok(one));
        for bad in [
            "",
            "ab",
            &"AB".repeat(16),
            &"+b".repeat(16),
            &"ab".repeat(17),
        ] {
            assert!(bad.parse::<Incarnation>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_versions() {
        for good in ["0.1.0", "1.2.3-dev", "10.0.0-rc.1+b7"] {
            assert!(is_semver(good), "{good}");
        }
        for bad in ["1", "1.2", "01.2.3", "1.2.3-", "v1.2.3", "1.2.3/../x"] {
            assert!(!is_semver(bad), "{bad}");
        }
        assert!(is_component_name("weblog") && is_component_name("a-1"));
        assert!(
            !is_component_name("")
                && !is_component_name("1a")
                && !is_component_name("../x")
                && !is_component_name("A")
        );
    }
}
