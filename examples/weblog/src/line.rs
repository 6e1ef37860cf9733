use memchr::{memchr, memchr3};

/// What a line of the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) address: &'a str,
    /// As in the log: `10/Jul/2025`.
    pub(crate) date: &'a [u8; 11],
    /// The path without the query.
    pub(crate) page: &'a str,
}

/// Reads a line of the combined log format, `None` if it is malformed: what this regular expression finds, over bytes.
///
/// ```text
/// ^(\S+) \S+ \S+ \[(\d\d/[A-Z][a-z][a-z]/\d\d\d\d):[^\]]+\] "[A-Z]+ ([^ "?]+)[^"]*" \d\d\d
/// ```
///
/// (and a space at its end). It never has to go back: each repeated class excludes the character that must follow, except
/// that `[^"]*` may begin with what the page ends with, which changes nothing about where the quote is.
///
/// `\d` and `\S` are those of ASCII, so a byte above 127 is no space and no digit; an engine with Unicode classes differs
/// where a line has such spaces or digits. An address or a page that is not UTF-8 is malformed.
pub(crate) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let (address, rest) = word(line)?;
    let (_, rest) = word(rest)?;
    let (_, rest) = word(rest)?;
    let (date, rest) = date(rest)?;
    let (_, rest) = split(rest, memchr(b']', rest)?)?;
    let rest = rest.strip_prefix(b"] \"")?;
    let (_, rest) = until(rest, |byte| !byte.is_ascii_uppercase())?;
    let rest = rest.strip_prefix(b" ")?;
    let (page, rest) = split(rest, memchr3(b' ', b'"', b'?', rest)?)?;
    let quote = memchr(b'"', rest)?;
    let [b'"', b' ', b'0'..=b'9', b'0'..=b'9', b'0'..=b'9', b' ', ..] = rest[quote..] else {
        return None;
    };
    Some(Line {
        address: str::from_utf8(address).ok()?,
        date,
        page: str::from_utf8(page).ok()?,
    })
}

/// The day of a log as `YYYY-MM-DD`, `None` if there is no such month. Days are not looked up in a calendar.
pub(crate) fn iso_day(date: &[u8; 11]) -> Option<String> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let date = str::from_utf8(date).ok()?;
    let month = MONTHS.iter().position(|month| *month == &date[3..6])? + 1;
    Some(format!("{}-{month:02}-{}", &date[7..], &date[..2]))
}

/// `(\S+) `: what is in front of the space, and what follows it.
fn word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (word, rest) = until(line, |byte| {
        byte <= b' ' && matches!(byte, b' ' | b'\t'..=b'\r')
    })?;
    Some((word, rest.strip_prefix(b" ")?))
}

/// `\[(\d\d/[A-Z][a-z][a-z]/\d\d\d\d):`
fn date(line: &[u8]) -> Option<(&[u8; 11], &[u8])> {
    let (date, rest) = line.strip_prefix(b"[")?.split_first_chunk()?;
    let [d1, d2, b'/', m1, m2, m3, b'/', y1, y2, y3, y4] = date else {
        return None;
    };
    let digits = [d1, d2, y1, y2, y3, y4]
        .iter()
        .all(|byte| byte.is_ascii_digit());
    let letters = m1.is_ascii_uppercase() && m2.is_ascii_lowercase() && m3.is_ascii_lowercase();
    Some((date, rest.strip_prefix(b":")?)).filter(|_| digits && letters)
}

/// Splits in front of the first byte that is an end: there must be one, and something before it.
#[inline(always)]
fn until(line: &[u8], is_end: impl Fn(u8) -> bool) -> Option<(&[u8], &[u8])> {
    split(line, line.iter().position(|byte| is_end(*byte))?)
}

#[inline(always)]
fn split(line: &[u8], end: usize) -> Option<(&[u8], &[u8])> {
    if end == 0 {
        None
    } else {
        line.split_at_checked(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"10.1.2.3 - bob [10/Jul/2025:13:55:36 +0000] "GET /a/b.html?x=1 HTTP/1.1" 200 512 "http://x/" "Mozilla/5.0 (X11)""#;

    fn check(line: impl AsRef<[u8]>, expected: Option<(&str, &str)>) {
        let line = line.as_ref();
        let found = parse(line).map(|line| (line.address, line.page));
        assert_eq!(found, expected, "{}", line.escape_ascii());
    }

    #[test]
    fn a_line_is_taken_apart() {
        let line = parse(LINE.as_bytes()).expect("well-formed");
        assert_eq!(
            line,
            Line {
                address: "10.1.2.3",
                date: b"10/Jul/2025",
                page: "/a/b.html"
            }
        );
        assert_eq!(iso_day(line.date).as_deref(), Some("2025-07-10"));
        assert_eq!(iso_day(b"10/Jux/2025"), None);
        assert_eq!(iso_day(b"99/Dec/0000").as_deref(), Some("0000-12-99"));
    }

    /// Each change to the line, and the page that is found then; `None` for malformed lines.
    #[test]
    fn lines_are_what_the_expression_says() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            // the page
            ("/a/b.html?x=1", "/a", Some("/a")),
            ("/a/b.html?x=1", "*", Some("*")),
            ("/a/b.html?x=1", "/a?b?c", Some("/a")),
            ("/a/b.html?x=1 HTTP/1.1", "/a", Some("/a")),
            ("/a/b.html?x=1 HTTP/1.1", "/a ", Some("/a")),
            ("/a/b.html?x=1 HTTP/1.1", "/a b c d", Some("/a")),
            ("/a/b.html?x=1", "/ü", Some("/ü")),
            ("/a/b.html?x=1", "/a\tb\nc", Some("/a\tb\nc")),
            ("/a/b.html?x=1", "?x=1", None),
            ("/a/b.html?x=1", " /a", None),
            ("/a/b.html?x=1 HTTP/1.1", "", None),
            ("/a/b.html?x=1", "/a\" 200 \"", Some("/a")),
            ("/a/b.html?x=1", "/a\"b", None),
            // the method
            ("GET", "G", Some("/a/b.html")),
            ("GET", "get", None),
            ("GET", "GET1", None),
            ("GET ", "", None),
            ("GET ", "GET", None),
            ("GET ", "GET  ", None),
            // the status
            ("200 ", "999 ", Some("/a/b.html")),
            ("200 ", "20 ", None),
            ("200 ", "2000 ", None),
            ("200 ", "2x0 ", None),
            ("200 ", "200\t", None),
            (" 200", "  200", None),
            // the date and the time
            ("10/Jul", "99/Abc", Some("/a/b.html")),
            ("10/Jul", "1/Jul", None),
            ("10/Jul", "10/JUL", None),
            ("10/Jul", "10/July", None),
            ("/2025:", "/25:", None),
            ("/2025:", "/2025 ", None),
            ("13:55:36 +0000", "x", Some("/a/b.html")),
            ("13:55:36 +0000", "x \"y [z", Some("/a/b.html")),
            ("13:55:36 +0000", "", None),
            ("13:55:36 +0000", "x]", None),
            ("] \"", "]  \"", None),
            ("] \"", "]\"", None),
            // the first three words
            ("10.1.2.3", "::1", Some("/a/b.html")),
            ("10.1.2.3", "", None),
            (" - ", " - - ", None),
            (" - ", "  ", None),
            (" - ", " -\t", None),
            (" - ", "\x0b- ", None),
            (" - ", " -\x1c- ", Some("/a/b.html")),
            ("bob", "b[o]b", Some("/a/b.html")),
            ("bob ", "", None),
        ];
        for (from, to, page) in cases {
            let line = LINE.replacen(from, to, 1);
            let address = line.split(' ').next().unwrap_or_default();
            check(&line, page.map(|page| (address, page)));
        }
    }

    #[test]
    fn a_line_that_is_cut_off_is_malformed() {
        let status = LINE.find("200 ").expect("a status") + 4;
        for end in 0..status {
            check(&LINE[..end], None);
        }
        check(&LINE[..status], Some(("10.1.2.3", "/a/b.html")));
    }

    #[test]
    fn only_what_is_kept_must_be_utf8() {
        let with = |from: &str, byte: u8| {
            let at = LINE.find(from).expect("there");
            let mut line = LINE.as_bytes().to_vec();
            line[at] = byte;
            line
        };
        check(with("1.2.3", 0xff), None);
        check(with("b.html", 0xff), None);
        check(with("bob", 0xff), Some(("10.1.2.3", "/a/b.html")));
        check(with("x=1", 0xff), Some(("10.1.2.3", "/a/b.html")));
        check(with("Mozilla", 0xff), Some(("10.1.2.3", "/a/b.html")));
    }
}
