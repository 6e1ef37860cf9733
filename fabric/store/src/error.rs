//! Errors of stored bytes, by what the caller does next.

use weft_core::{ErrorCode, Location, Problem};

use crate::fault::{self, Fault};

/// First words of errors about limits of outputs on object stores, which encoders wrap in errors of their own.
pub const OVER_LIMIT: &str = "a limit of outputs on object stores is passed";

/// A failure of the object store, of a file system, or of an output.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error("the store failed at `{key}`")]
    Store {
        /// The key that was asked for.
        key: String,
        /// The store's own error.
        #[source]
        source: object_store::Error,
    },
    /// A remote store failed for a reason that has a name.
    #[error("`{uri}`: {} ({cause})", .fault.advice())]
    Refused {
        /// The object or prefix that was asked for.
        uri: String,
        /// The reason.
        fault: Fault,
        /// The store's own words, cut.
        cause: String,
    },
    /// Executors get no credentials of the role that settings name for them.
    #[error("the role `{role}` is not given by `{endpoint}`: {} ({cause})", advice_of_role(.fault))]
    NotAssumed {
        /// The role.
        role: String,
        /// The service that was asked.
        endpoint: String,
        /// The reason, if it has a name.
        fault: Option<Fault>,
        /// The service's own words, cut.
        cause: String,
    },
    /// The settings of a store are wrong.
    #[error("the store `{url}`: {what}")]
    Settings {
        /// The store's URL.
        url: String,
        /// The mistake.
        what: String,
    },
    /// A job asks for a location that is in no root of a store.
    #[error("`{location}` is not in a store that jobs may use: {known}")]
    NotAllowed {
        /// The location.
        location: String,
        /// Roots that jobs may use, and what to do.
        known: String,
    },
    /// The store belongs to another cluster, whose objects would be swept.
    #[error(
        "`{uri}` says that the store belongs to the cluster `{owner}`, and this is `{cluster}`: choose another prefix, or \
         remove all that is there once the other cluster is gone for good"
    )]
    Owned {
        /// The mark.
        uri: String,
        /// The cluster that it names.
        owner: String,
        /// This cluster.
        cluster: String,
    },
    /// The store holds something, and nobody's mark says whose it is.
    #[error(
        "`{uri}` holds `{found}` and has no `owner`: choose an empty folder or prefix for the store, as what others keep \
         there would be removed; if all of it is this cluster's, from an earlier version, write `{cluster}` to `owner` there"
    )]
    Occupied {
        /// The beginning of the store.
        uri: String,
        /// A name in it.
        found: String,
        /// This cluster.
        cluster: String,
    },
    /// The credentials of a store that jobs may use lack a right in the folder of an output.
    #[error(
        "`{uri}`: the store's credentials lack the right `{right}` there: ask whoever runs the servers for it, or choose \
         another folder ({cause})"
    )]
    Forbidden {
        /// The object or prefix that was asked for.
        uri: String,
        /// The missing right, as S3 calls it.
        right: &'static str,
        /// The store's own words, cut.
        cause: String,
    },
    /// The store created an object that was there.
    #[error(
        "`{0}` was created although it was there: the store does not heed `If-None-Match`, and two clusters or jobs would \
         overwrite each other's objects; use another store, or a newer version of it"
    )]
    Unconditional(String),
    /// The store has no folder.
    #[error("`{key}` has no path: the store `{url}` is a bucket, and objects are fetched from it")]
    NoFolder {
        /// The key that was asked for.
        key: String,
        /// The store's URL.
        url: String,
    },
    /// The file system failed.
    #[error("`{path}`: {source}")]
    File {
        /// The file or folder.
        path: String,
        /// The system's own error.
        source: std::io::Error,
    },
    /// A file that was staged is neither there nor published.
    #[error(
        "the staged file `{0}` is gone, and it is not published either: run the job again, and let nothing remove files or \
         abort uploads of jobs that run, such as a rule of the bucket"
    )]
    StagedFileLost(String),
    /// Somebody else's file has the name of one of ours.
    #[error(
        "`{0}` appeared while the job ran, perhaps because another one writes to this folder: run the job again, or choose another folder"
    )]
    OutputExists(String),
    /// The job has ended, and somebody has taken its files back: a publisher that was paused meanwhile stops here.
    #[error("the job has ended, and what it had written to `{0}` was taken back")]
    Withdrawn(String),
    /// The kind of store has no way to publish an output as a whole.
    #[error(
        "outputs cannot be written to `{0}`: this version publishes to `s3://` and to folders alone"
    )]
    Unpublishable(String),
    /// Files would join others that are not like them.
    #[error(
        "the output `{output}` would be added to `{folder}`, whose files have {theirs}: choose another folder"
    )]
    AppendMismatch {
        /// The output.
        output: String,
        /// The folder that it goes to.
        folder: String,
        /// The property in which the files that are there differ.
        theirs: &'static str,
    },
    /// A manifest is none of ours, or is damaged.
    #[error("`{uri}` is not a manifest that can be read: {what}")]
    ForeignManifest {
        /// The manifest.
        uri: String,
        /// The mistake.
        what: String,
    },
    /// An output has more, or longer names, than an object store or its manifest takes.
    #[error("{OVER_LIMIT}: {what}")]
    OverLimit {
        /// The limit, and what to do.
        what: String,
    },
    /// A manifest could not be encoded or decoded, or a blocking task did not end well.
    #[error("encoding of batches failed: {0}")]
    Encoding(String),
}

/// The next step of a caller that meets an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Try again later.
    Unavailable,
    /// Give up: the data is wrong.
    Damaged,
    /// Tell the user.
    Conflict,
    /// The rows are not like those that they would join; tell the user.
    Mismatch,
    /// The path is not one to write to; tell the user.
    NoPlace,
    /// The disk is full; tell the user.
    Exhausted,
    /// The store refuses until its settings, or the job, change; tell the user.
    Refused,
    /// A limit is passed, and would be again; tell the user.
    OverLimit,
    /// Our bug.
    Internal,
}

/// Result of the functions of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A failure of the file system at `path`.
    pub fn file(path: &std::path::Path, source: std::io::Error) -> Self {
        Error::File {
            path: path.display().to_string(),
            source,
        }
    }

    /// Wrong settings of a store.
    pub fn settings(url: &str, what: impl Into<String>) -> Self {
        Error::Settings {
            url: Location::shown(url),
            what: what.into(),
        }
    }

    /// A failure of a store at `key`, by its name if it has one.
    pub fn of_store(key: impl Into<String>, source: object_store::Error) -> Self {
        match Fault::of(&source) {
            Some(fault) => Error::Refused {
                uri: key.into(),
                fault,
                cause: fault::cause(&source),
            },
            None => Error::Store {
                key: key.into(),
                source,
            },
        }
    }

    /// The same error as that of a folder of an output, whose key lacks `right`. Others than a missing right stay.
    pub(crate) fn of_output(self, right: &'static str) -> Self {
        match self {
            Error::Refused {
                uri,
                fault: Fault::NoPermission,
                cause,
            } => Error::Forbidden { uri, right, cause },
            other => other,
        }
    }

    /// Returns whether the object that was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Error::Store {
                source: object_store::Error::NotFound { .. },
                ..
            }
        )
    }

    /// The next step of the caller.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Refused { fault, .. } if !fault.is_retryable() => ErrorKind::Refused,
            Error::Settings { .. }
            | Error::NotAllowed { .. }
            | Error::Owned { .. }
            | Error::Occupied { .. }
            | Error::Forbidden { .. }
            | Error::Unconditional(_) => ErrorKind::Refused,
            Error::NotAssumed { fault, .. } if !fault.is_some_and(Fault::is_retryable) => {
                ErrorKind::Refused
            }
            Error::Refused { .. } | Error::NotAssumed { .. } => ErrorKind::Unavailable,
            Error::Store { source, .. } if is_full(source) => ErrorKind::Exhausted,
            Error::File { source, .. } if is_full(source) => ErrorKind::Exhausted,
            Error::File { source, .. } if is_no_place(source) => ErrorKind::NoPlace,
            Error::Store { .. } | Error::File { .. } => ErrorKind::Unavailable,
            Error::StagedFileLost(_) => ErrorKind::Damaged,
            Error::OutputExists(_) | Error::Withdrawn(_) => ErrorKind::Conflict,
            Error::Unpublishable(_) | Error::ForeignManifest { .. } => ErrorKind::NoPlace,
            Error::AppendMismatch { .. } => ErrorKind::Mismatch,
            Error::OverLimit { .. } => ErrorKind::OverLimit,
            Error::NoFolder { .. } | Error::Encoding(_) => ErrorKind::Internal,
        }
    }

    /// The error as users see it.
    pub fn problem(&self) -> Problem {
        self.into()
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let mut detail = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            let text = fault::spoken(&cause.to_string());
            if !detail.contains(&text) {
                detail = format!("{detail}: {text}");
            }
            source = cause.source();
        }
        match error.kind() {
            // The cluster's own store, mostly: nothing that a job can change.
            ErrorKind::Unavailable | ErrorKind::Refused => {
                let code = match error {
                    // Only the user, or whoever gives rights to them, can change it.
                    Error::NotAllowed { .. } | Error::Forbidden { .. } => ErrorCode::InvalidJob,
                    _ => ErrorCode::StoreUnavailable,
                };
                Problem::new(code, detail)
            }
            ErrorKind::NoPlace => Problem::new(
                ErrorCode::InvalidJob,
                format!("{detail}; choose another folder for the output"),
            ),
            ErrorKind::Exhausted => Problem::new(
                ErrorCode::StoreUnavailable,
                format!("{detail}: the disk is full; free some space and run the job again"),
            ),
            ErrorKind::Conflict => Problem::new(ErrorCode::OutputExists, detail),
            ErrorKind::Mismatch => Problem::new(ErrorCode::SchemaMismatch, detail),
            ErrorKind::OverLimit => Problem::new(ErrorCode::TooLarge, detail),
            ErrorKind::Damaged | ErrorKind::Internal => Problem::new(ErrorCode::Internal, detail),
        }
    }
}

/// Says what to do about a role whose credentials are not given.
fn advice_of_role(fault: &Option<Fault>) -> &'static str {
    match fault {
        Some(Fault::NoPermission) => {
            "let the credentials of the node do `sts:AssumeRole` with it, and let the role trust them"
        }
        Some(Fault::NotAStore) | None => "correct `executor_role` and `sts_endpoint` of the store",
        Some(fault) => fault.advice(),
    }
}

/// Returns whether the path itself is wrong: under a file, without permission, in a file system
/// that takes no files.
fn is_no_place(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::NotADirectory
            | ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidFilename
    )
}

/// Looks for a full disk among the sources of an error; stores wrap the system's errors several
/// times over.
fn is_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        next = error.source();
        if let Some(system) = error.downcast_ref::<std::io::Error>() {
            if system.kind() == std::io::ErrorKind::StorageFull {
                return true;
            }
            if let Some(wrapped) = system.get_ref() {
                next = Some(wrapped);
            }
        }
    }
    false
}
