//! Counters of requests to a store, by kind.

use std::sync::atomic::{AtomicU64, Ordering};

/// Kind of a request, as providers price them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// Reads an object, or a range of one.
    Get,
    /// Writes an object, or begins one that is written in parts.
    Put,
    /// Lists objects.
    List,
    /// Asks for an object's size.
    Head,
    /// Removes an object.
    Delete,
}

impl RequestKind {
    /// The right that S3 asks for.
    pub(crate) fn right(self) -> &'static str {
        match self {
            RequestKind::Get | RequestKind::Head => "s3:GetObject",
            RequestKind::Put => "s3:PutObject",
            RequestKind::List => "s3:ListBucket",
            RequestKind::Delete => "s3:DeleteObject",
        }
    }
}

/// Requests so far, of each kind.
#[derive(Debug, Default)]
pub struct Requests([AtomicU64; 5]);

impl Requests {
    /// Counts a request.
    pub fn count(&self, kind: RequestKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Number of requests of a kind.
    pub fn of(&self, kind: RequestKind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// Requests that read: objects, sizes, and lists.
    pub fn reads(&self) -> u64 {
        let kinds = [RequestKind::Get, RequestKind::List, RequestKind::Head];
        kinds.into_iter().map(|kind| self.of(kind)).sum()
    }

    /// Requests that change something.
    pub fn writes(&self) -> u64 {
        self.of(RequestKind::Put) + self.of(RequestKind::Delete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind() {
        let requests = Requests::default();
        for kind in [
            RequestKind::Get,
            RequestKind::Get,
            RequestKind::Head,
            RequestKind::List,
            RequestKind::Put,
            RequestKind::Delete,
        ] {
            requests.count(kind);
        }
        assert_eq!(requests.of(RequestKind::Get), 2);
        assert_eq!((requests.reads(), requests.writes()), (4, 2));
    }
}
