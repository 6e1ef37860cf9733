//! Addresses of servers, and paths of the API.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

use crate::error::Error;

/// The address of a server: `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    authority: String,
}

impl Endpoint {
    /// The address of `path` on this server; `path` is one that [`path`] made, and maybe a query.
    pub(crate) fn uri(&self, path: &str) -> Uri {
        let text = format!("http://{}{path}", self.authority);
        text.parse()
            .expect("an authority that was parsed and an encoded path")
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let uri: Option<Uri> = text.parse().ok();
        let scheme = uri.as_ref().and_then(Uri::scheme_str);
        if scheme == Some("https") {
            return Err(Error::Invalid(format!(
                "`{text}`: `https://` is not offered by this version; use `http://`, through a tunnel where the network is not yours"
            )));
        }
        let bare = |uri: &Uri| uri.path() == "/" && uri.query().is_none();
        let authority = uri
            .as_ref()
            .filter(|uri| bare(uri))
            .and_then(Uri::authority);
        match authority.filter(|authority| !authority.as_str().contains('@')) {
            Some(authority) if scheme == Some("http") => Ok(Self {
                authority: authority.to_string(),
            }),
            _ => Err(Error::Invalid(format!(
                "`{text}` is not an endpoint such as `http://127.0.0.1:7070`"
            ))),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.authority)
    }
}

/// Makes a path of the API: `/v1` and the segments, each one encoded, so that what a user typed
/// stays one segment.
pub fn path(segments: &[&str]) -> String {
    let encoded = segments
        .iter()
        .map(|segment| format!("/{}", encode(segment)));
    format!("/v1{}", encoded.collect::<String>())
}

/// Percent-encodes everything but unreserved characters (RFC 3986, section 2.3). A segment of dots
/// alone, which would be taken for a way up, is encoded whole.
pub(crate) fn encode(text: &str) -> String {
    let dots = text.bytes().all(|byte| byte == b'.');
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'.' if dots => encoded.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_plain_http_without_a_path() {
        for good in [
            "http://127.0.0.1:7070",
            "http://localhost:1/",
            "http://[::1]:7070",
        ] {
            assert!(good.parse::<Endpoint>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "localhost",
            "localhost:7070",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "ftp://a",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
        let failure = "https://a".parse::<Endpoint>().expect_err("not offered");
        assert!(failure.to_string().contains("not offered"), "{failure}");
        assert!(matches!(failure, Error::Invalid(_)));
    }

    #[test]
    fn what_users_type_stays_one_segment() {
        assert_eq!(path(&["jobs", "../x?y"]), "/v1/jobs/..%2Fx%3Fy");
        assert_eq!(path(&["jobs", ".."]), "/v1/jobs/%2E%2E");
        assert_eq!(
            path(&["components", "a", "1.0.0+b"]),
            "/v1/components/a/1.0.0%2Bb"
        );
        let endpoint: Endpoint = "http://h:1".parse().expect("good");
        assert_eq!(endpoint.uri("/v1/jobs").to_string(), "http://h:1/v1/jobs");
    }
}
