//! Reads flags of verbs, as `--name value` or `--name=value`.

use std::error::Error;
use std::str::FromStr;

use anyhow::{Context, Result};

/// A flag and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flag<'a> {
    pub(crate) name: &'a str,
    /// Empty for a switch.
    pub(crate) value: &'a str,
}

impl Flag<'_> {
    /// Parses the value. Errors: it is no `T`.
    pub(crate) fn parse<T: FromStr<Err: Error + Send + Sync + 'static>>(&self) -> Result<T> {
        self.value.parse().with_context(|| self.wrong())
    }

    /// Says that the value is none of this flag.
    pub(crate) fn wrong(&self) -> String {
        format!("`{}` is no value of `{}`", self.value, self.name)
    }
}

/// Reads flags in their order. `switches` take no value. Errors: a flag lacks its value.
pub(crate) fn read<'a>(flags: &'a [String], switches: &[&str]) -> Result<Vec<Flag<'a>>> {
    let mut words = flags.iter().flat_map(|flag| match flag.split_once('=') {
        Some((name, value)) if name.starts_with("--") => vec![name, value],
        _ => vec![flag.as_str()],
    });
    let mut found = Vec::new();
    while let Some(name) = words.next() {
        let value = match switches.contains(&name) {
            true => "",
            false => words
                .next()
                .with_context(|| format!("`{name}` needs a value"))?,
        };
        found.push(Flag { name, value });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_names_in_either_way() {
        let words = ["--all", "--runs", "2", "--only=a=b"].map(str::to_owned);
        let flags = read(&words, &["--all"]).expect("reads");
        let flags: Vec<_> = flags.iter().map(|flag| (flag.name, flag.value)).collect();
        assert_eq!(flags, [("--all", ""), ("--runs", "2"), ("--only", "a=b")]);
        let refused = read(&words[..2], &["--all"]).expect_err("no value");
        assert_eq!(refused.to_string(), "`--runs` needs a value");
    }
}
