//! Requests that object_store signs, but has no method for, and their answers in XML.

use object_store::client::{HttpClient, HttpError, HttpRequest};
use object_store::{Error, Result};

/// Sends a request that is signed, and returns the text of the answer.
///
/// Errors: in the words of object_store's own, so that their reason is found in the same way.
pub(crate) async fn answer(client: &HttpClient, request: HttpRequest) -> Result<String> {
    let failed = |error: HttpError| Error::Generic {
        store: "S3",
        source: Box::new(error),
    };
    let response = client.execute(request).await.map_err(failed)?;
    let status = response.status();
    let body = response.into_body().bytes().await.map_err(failed)?;
    let text = String::from_utf8_lossy(&body).into_owned();
    match status.is_success() {
        true => Ok(text),
        false => Err(generic(&format!(
            "Server returned non-2xx status code: {status}: {text}"
        ))),
    }
}

/// An error of S3 with these words.
pub(crate) fn generic(what: &str) -> Error {
    Error::Generic {
        store: "S3",
        source: what.into(),
    }
}

/// Contents of the first element of a name.
pub(crate) fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (contents, _) = rest.split_once(&format!("</{name}>"))?;
    Some(contents)
}

/// The text that XML escapes stand for: those of its five letters, by name or as some servers write them by number.
pub(crate) fn unescaped(text: &str) -> String {
    let escapes = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&#34;", "\""),
        ("&#38;", "&amp;"),
    ];
    let escapes = escapes.iter();
    escapes
        .fold(text.to_owned(), |text, (escape, letter)| {
            text.replace(escape, letter)
        })
        .replace("&amp;", "&")
}

/// A value as a part of a query.
pub(crate) fn escaped(value: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    value.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_and_values_are_escaped() {
        let text = "<List><NextKeyMarker>out/b</NextKeyMarker></List>";
        assert_eq!(element(text, "NextKeyMarker"), Some("out/b"));
        assert_eq!(element(text, "Key"), None);
        assert_eq!(escaped("out/day=1/"), "out%2Fday%3D1%2F");
        assert_eq!(unescaped("a&amp;lt;&lt;&#39;&#38;"), "a&lt;<'&");
    }
}
