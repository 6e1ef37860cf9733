//! Reasons why a remote store fails, as its answers tell them.

use object_store::client::{HttpError, HttpErrorKind};

use crate::credentials::NotRenewed;
use crate::signed::element;

/// Bytes of a store's own words in an error.
const CAUSE_BYTES_MAX: usize = 400;

/// Reason why a store failed, with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// There is no such bucket.
    NoBucket,
    /// The credentials do not allow the request.
    NoPermission,
    /// The bucket lies in another region than the settings say.
    WrongRegion,
    /// This machine's clock and the store's differ.
    ClockSkew,
    /// The store does not know the credentials, or the secret does not fit.
    WrongCredentials,
    /// The credentials have expired.
    Expired,
    /// There are no credentials.
    NoCredentials,
    /// Whatever answers does not speak the store's protocol.
    NotAStore,
    /// The certificate of the store is not trusted.
    NotTrusted,
    /// Nobody answers at the address, or the connection broke.
    Unreachable,
    /// No answer in time.
    Slow,
    /// The store asks for fewer requests, or has a failure of its own.
    Overloaded,
}

impl Fault {
    /// Finds the reason for an error. Nothing if it is none of these: a missing object, or a conflict.
    pub fn of(error: &object_store::Error) -> Option<Self> {
        use object_store::Error;
        if is_not_renewed(error) {
            return Some(Self::Expired);
        }
        let text = words(error);
        if let Some(fault) = code(&text).and_then(Self::by_code) {
            return Some(fault.as_told(&text));
        }
        match error {
            Error::NotFound { .. } if text.contains("<html") => return Some(Self::NotAStore),
            Error::NotFound { .. }
            | Error::AlreadyExists { .. }
            | Error::Precondition { .. }
            | Error::NotModified { .. }
            | Error::InvalidPath { .. } => return None,
            // A service of the machine's that does not answer now may do so in a moment.
            _ if asks_for_credentials(&text) => {
                return by_transport(error).or(Some(Self::NoCredentials));
            }
            Error::PermissionDenied { .. } => return Some(Self::NoPermission),
            Error::Unauthenticated { .. } => return Some(Self::WrongCredentials),
            _ => {}
        }
        by_transport(error).or_else(|| Self::by_words(&text))
    }

    /// The reason that a code of S3, Google or Azure stands for.
    fn by_code(code: &str) -> Option<Self> {
        Some(match code {
            "NoSuchBucket" | "ContainerNotFound" | "ContainerBeingDeleted" => Self::NoBucket,
            "AccessDenied"
            | "AllAccessDisabled"
            | "AuthorizationFailure"
            | "AuthorizationPermissionMismatch"
            | "InsufficientAccountPermissions"
            | "PublicAccessNotPermitted" => Self::NoPermission,
            "PermanentRedirect"
            | "TemporaryRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => Self::WrongRegion,
            "RequestTimeTooSkewed" | "RequestExpired" => Self::ClockSkew,
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "AuthenticationFailed"
            | "InvalidAuthenticationInfo"
            | "InvalidToken"
            | "NoAuthenticationInformation" => Self::WrongCredentials,
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => Self::Expired,
            "SlowDown"
            | "ServerBusy"
            | "RequestLimitExceeded"
            | "ThrottlingException"
            | "ServiceUnavailable"
            | "InternalError"
            | "OperationTimedOut" => Self::Overloaded,
            _ => return None,
        })
    }

    /// The reason among those that share a code on Azure, as the rest of the answer tells it.
    fn as_told(self, answer: &str) -> Self {
        match self {
            Self::WrongCredentials if answer.contains("date header too old") => Self::ClockSkew,
            Self::NoPermission if answer.contains("failed to authenticate") => {
                Self::WrongCredentials
            }
            fault => fault,
        }
    }

    fn by_words(text: &str) -> Option<Self> {
        let has = |part: &str| text.contains(part);
        if has("incorrectly configured region") {
            return Some(Self::WrongRegion);
        }
        let status = status(text);
        // Before the page: a balancer in front of a store answers in HTML while the store is away.
        if let Some(429 | 500..600) = status {
            return Some(Self::Overloaded);
        }
        let is_foreign = [
            "Got invalid list response",
            "Got invalid multipart response",
            "Unable to extract metadata from headers",
            "Header missing from response",
            "non-partial response",
            "Content-Range header",
            "<html",
            "<!DOCTYPE html",
        ];
        if is_foreign.into_iter().any(has) {
            return Some(Self::NotAStore);
        }
        match status? {
            // Without a word of XML, nobody of a store's kind answers.
            400 | 403..=405 if !has("<?xml") && !has("<Error") => Some(Self::NotAStore),
            _ => None,
        }
    }

    /// Returns whether the same request may succeed later, without anybody changing anything. Credentials that expire
    /// are those of a role, mostly, and are renewed.
    pub fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Expired | Self::Unreachable | Self::Slow | Self::Overloaded
        )
    }

    /// The reason, and what to do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::NoBucket => "there is no such bucket: create it, or correct its name in the URL",
            Self::NoPermission => {
                "the credentials do not allow this: give them the right to list, read, write and delete here, or \
                 set others for the store"
            }
            Self::WrongRegion => {
                "the bucket lies in another region: set `region` of the store to the bucket's"
            }
            Self::ClockSkew => {
                "the clock of this machine is wrong: requests are signed with the time; set the clock, such as by NTP"
            }
            Self::WrongCredentials => {
                "the store does not accept the credentials: correct `access_key_id` and `secret_access_key` (or \
                 their like) of the store"
            }
            Self::Expired => {
                "the credentials have expired: those of a role are renewed, and it is tried again; if they stand in \
                 settings or the environment, set others, or let servers use the instance's role"
            }
            Self::NoCredentials => {
                "there are no credentials: set them in the server's settings or environment, or give the instance \
                 a role"
            }
            Self::NotAStore => {
                "whatever answers does not speak the store's protocol: correct `endpoint` of the store, and its port"
            }
            Self::NotTrusted => {
                "the store's certificate is not trusted: install its authority on this machine, or name its file \
                 in SSL_CERT_FILE"
            }
            Self::Unreachable => {
                "nobody answers there, or the connection broke: check `endpoint` and the network"
            }
            Self::Slow => "no answer in time: check the network, and the load of the store",
            Self::Overloaded => {
                "the store asks for fewer requests or fails inside: try again later"
            }
        }
    }
}

/// The store's own words, cut.
pub(crate) fn cause(error: &object_store::Error) -> String {
    let text = spoken(&words(error));
    let mut cut = text.as_str();
    if cut.len() > CAUSE_BYTES_MAX {
        cut = &cut[..cut.floor_char_boundary(CAUSE_BYTES_MAX)];
    }
    let cut = cut.replace('\n', " ");
    match asks_for_credentials(&text) {
        true => format!("{cut}; it was asked for credentials, as the store's settings have none"),
        false => cut,
    }
}

/// An error with its sources, each once.
fn words(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        let more = source.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = source.source();
    }
    text
}

/// A text with no more of a store's answer than its code and message: the rest may hold ids of keys, and tokens.
pub(crate) fn spoken(text: &str) -> String {
    let begins = ["<?xml", "<Error"].map(|tag| text.find(tag));
    let Some(begin) = begins.into_iter().flatten().min() else {
        return text.to_owned();
    };
    let (before, answer) = text.split_at(begin);
    let said = ["Code", "Message"].map(|name| element(answer, name));
    let said: Vec<&str> = said.into_iter().flatten().collect();
    format!("{before}{}", said.join(": "))
}

/// `X` of `<Code>X</Code>`.
fn code(text: &str) -> Option<&str> {
    element(text, "Code").map(str::trim)
}

/// The status of an answer, as object_store's errors name it.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// True where the request was one for credentials of the machine, which has none.
fn asks_for_credentials(text: &str) -> bool {
    [
        "169.254.169.254",
        "169.254.170.2",
        "metadata.google.internal",
    ]
    .into_iter()
    .any(|host| text.contains(host))
}

/// True where a request had no credentials that are valid, and was not sent.
fn is_not_renewed(error: &object_store::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<NotRenewed>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// The reason where no answer came.
fn by_transport(error: &object_store::Error) -> Option<Fault> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            let text = format!("{http:?}");
            return match http.kind() {
                _ if text.contains("InvalidCertificate") => Some(Fault::NotTrusted),
                // Plain text where TLS was meant, or the other way round.
                _ if text.contains("InvalidContentType") || text.contains("Parse(") => {
                    Some(Fault::NotAStore)
                }
                HttpErrorKind::Timeout => Some(Fault::Slow),
                _ => Some(Fault::Unreachable),
            };
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        }
    }

    #[test]
    fn answers_have_names() {
        let answer = |status: u16, code: &str| {
            let text = format!(
                "Server returned non-2xx status code: {status} No: <?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>"
            );
            Fault::of(&generic(&text))
        };
        for (status, code, expected) in [
            (404, "NoSuchBucket", Some(Fault::NoBucket)),
            (403, "AccessDenied", Some(Fault::NoPermission)),
            (301, "PermanentRedirect", Some(Fault::WrongRegion)),
            (403, "RequestTimeTooSkewed", Some(Fault::ClockSkew)),
            (403, "SignatureDoesNotMatch", Some(Fault::WrongCredentials)),
            (400, "ExpiredToken", Some(Fault::Expired)),
            (503, "SlowDown", Some(Fault::Overloaded)),
            (502, "Unheard", Some(Fault::Overloaded)),
            (400, "EntityTooSmall", None),
        ] {
            assert_eq!(answer(status, code), expected, "{code}");
        }
    }

    #[test]
    fn reasons_that_share_a_code_are_told_apart() {
        for (code, rest, expected) in [
            (
                "AuthenticationFailed",
                "<AuthenticationErrorDetail>Request date header too old: 'Tue'</AuthenticationErrorDetail>",
                Fault::ClockSkew,
            ),
            (
                "AuthenticationFailed",
                "<AuthenticationErrorDetail>The MAC signature did not match</AuthenticationErrorDetail>",
                Fault::WrongCredentials,
            ),
            (
                "AuthorizationFailure",
                "<Message>Server failed to authenticate the request.</Message>",
                Fault::WrongCredentials,
            ),
            (
                "AuthorizationFailure",
                "<Message>This request is not authorized.</Message>",
                Fault::NoPermission,
            ),
        ] {
            let text =
                format!("status code: 403 Forbidden: <Error><Code>{code}</Code>{rest}</Error>");
            assert_eq!(Fault::of(&generic(&text)), Some(expected), "{text}");
        }
    }

    #[test]
    fn other_servers_are_told_from_stores() {
        for text in [
            "Server returned non-2xx status code: 404 Not Found: <html><body>nginx",
            "Server returned non-2xx status code: 405 Method Not Allowed: ",
            "Got invalid list response: unexpected end",
            "Unable to extract metadata from headers: Last-Modified Header missing from response",
        ] {
            assert_eq!(Fault::of(&generic(text)), Some(Fault::NotAStore), "{text}");
        }
    }

    #[test]
    fn a_page_of_a_balancer_says_that_the_store_is_away() {
        for status in ["502 Bad Gateway", "503 Service Unavailable"] {
            let page = "<html><head><title>503</title></head></html>";
            let text = format!("Server returned non-2xx status code: {status}: {page}");
            let fault = Fault::of(&generic(&text));
            assert_eq!(fault, Some(Fault::Overloaded), "{text}");
        }
    }

    #[test]
    fn missing_objects_and_conflicts_are_no_faults() {
        let missing = object_store::Error::NotFound {
            path: "a".into(),
            source: "status code: 404 Not Found: ".into(),
        };
        assert_eq!(Fault::of(&missing), None);
        let nowhere = object_store::Error::NotFound {
            path: "a".into(),
            source: "status code: 404: <Error><Code>NoSuchBucket</Code></Error>".into(),
        };
        assert_eq!(Fault::of(&nowhere), Some(Fault::NoBucket));
    }

    #[test]
    fn credentials_that_the_machine_lacks_are_named() {
        let text = "Error performing GET http://169.254.169.254/latest/meta-data/ in 5ms - Server returned non-2xx status code: 404 Not Found: ";
        assert_eq!(Fault::of(&generic(text)), Some(Fault::NoCredentials));
        assert!(!Fault::NoCredentials.is_retryable());
        assert!(Fault::Overloaded.is_retryable());
        assert!(Fault::Expired.is_retryable(), "a role's are renewed");
    }

    /// A service of the machine's that cannot be reached now.
    #[derive(Debug, thiserror::Error)]
    #[error("Error performing PUT http://169.254.169.254/latest/api/token in 5s")]
    struct Unanswered(#[source] HttpError);

    #[test]
    fn a_service_of_credentials_that_does_not_answer_may_do_so_later() {
        let broken = std::io::Error::other("connection reset");
        let unanswered = object_store::Error::Generic {
            store: "S3",
            source: Box::new(Unanswered(HttpError::new(HttpErrorKind::Connect, broken))),
        };
        let fault = Fault::of(&unanswered).expect("it has a name");
        assert_eq!(fault, Fault::Unreachable);
        assert!(fault.is_retryable());
        let said = cause(&unanswered);
        assert!(said.ends_with("settings have none"), "{said}");
    }

    #[test]
    fn of_an_answer_the_code_and_message_are_shown_alone() {
        let text = "status code: 403 Forbidden: <?xml version=\"1.0\"?><Error><Code>InvalidAccessKeyId</Code>\
                    <Message>It does not exist.</Message><AWSAccessKeyId>AKIDEXAMPLE</AWSAccessKeyId></Error>";
        let shown = cause(&generic(text));
        assert!(
            shown.ends_with("403 Forbidden: InvalidAccessKeyId: It does not exist."),
            "{shown}"
        );
        let text = "status code: 400: <Error><Code>Unheard</Code><Token>SECRET</Token></Error>";
        let error = crate::Error::of_store("s3://lake/a", generic(text));
        let detail = error.problem().detail;
        assert!(
            detail.contains("Unheard") && !detail.contains("SECRET"),
            "{detail}"
        );
    }
}
