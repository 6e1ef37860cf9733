//! `${name}` in the paths of a job document stands for a param of the job.

use super::document::nearest;

/// Bytes of a path with its params.
const MAX_EXPANDED_BYTES: usize = 64 << 10;

/// Puts params where a path names them. In a pattern (`is_pattern`) their characters stand for themselves.
///
/// Errors: a name that no param has, or one that is not closed, and which param may have been meant.
pub fn expand<'a>(
    path: &str,
    is_pattern: bool,
    params: impl IntoIterator<Item = (&'a String, &'a String)> + Clone,
) -> Result<String, (String, Option<String>)> {
    let mut expanded = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, after)) = after.split_once('}') else {
            return Err(("a `${` is not closed by `}`".to_owned(), None));
        };
        let mut named = params.clone().into_iter();
        let Some((_, value)) = named.find(|(param, _)| *param == name) else {
            let what = format!("`${{{}}}` names no param of the job", name.escape_debug());
            let names = params.into_iter().map(|(param, _)| param.as_str());
            return Err((what, nearest(name, names)));
        };
        if value.is_empty() {
            return Err((format!("the param `{name}` is empty"), None));
        }
        expanded += before;
        match is_pattern {
            true => expanded.extend(value.chars().map(escaped)),
            false => expanded += value,
        }
        if expanded.len() > MAX_EXPANDED_BYTES {
            let what = format!("is longer than {MAX_EXPANDED_BYTES} bytes with its params");
            return Err((what, None));
        }
        rest = after;
    }
    expanded += rest;
    Ok(expanded)
}

fn escaped(character: char) -> String {
    match character {
        '*' | '?' | '[' => format!("[{character}]"),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn paths_name_params() {
        let params = BTreeMap::from([
            ("date".to_owned(), "2026-11-29".to_owned()),
            ("dir".to_owned(), "/data".to_owned()),
            ("star".to_owned(), "a*".to_owned()),
            ("none".to_owned(), String::new()),
        ]);
        let check = |path: &str, expected: Result<&str, &str>| {
            let found = expand(path, true, &params);
            match expected {
                Ok(expected) => assert_eq!(found.as_deref(), Ok(expected), "{path}"),
                Err(expected) => {
                    let (what, _) = found.expect_err(path);
                    assert!(what.contains(expected), "{path}: {what}");
                }
            }
        };
        check("${dir}/day=${date}/*.csv", Ok("/data/day=2026-11-29/*.csv"));
        check("/a/${star}", Ok("/a/a[*]"));
        check("/a/${none}", Err("`none` is empty"));
        check("/a/$x/{date}", Ok("/a/$x/{date}"));
        check("/a/${dat}", Err("`${dat}` names no param"));
        check("/a/${", Err("not closed"));
        let long = BTreeMap::from([("a".to_owned(), "x".repeat(60_000))]);
        let (what, _) = expand(&"${a}".repeat(100_000), false, &long).expect_err("it is bounded");
        assert!(what.contains("longer than 65536 bytes"), "{what}");
        let (_, meant) = expand("${dat}", false, &params).expect_err("unknown");
        assert_eq!(meant.as_deref(), Some("date"));
    }
}
