//! Which files a pattern matches, by looking at no more than a bounded number of names.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// Names that the patterns of one input may look at, and folders that they may read.
pub(super) const NAMES_MAX: usize = 1_000_000;
/// Files of one input.
pub(super) const FILES_MAX: usize = 100_000;

/// Stars match no hidden files, nor what lies in hidden folders: jobs that run stage their files there.
pub(super) const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{0}")]
    Pattern(#[from] glob::PatternError),
    #[error("`{}`: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "looked at {NAMES_MAX} names and was not done: name a folder further down, or keep fewer files in one folder"
    )]
    TooManyNames,
    #[error("matches more files than the {FILES_MAX} that an input may have")]
    TooManyFiles,
}

/// One part of a pattern, between slashes.
enum Part {
    Name(String),
    Pattern(Pattern),
    /// `**`: any number of folders, none of which is a link: a link may lead up again.
    Folders,
}

/// Walks through what there is, for patterns.
#[derive(Default)]
pub(super) struct Walk {
    n_names: usize,
}

impl Walk {
    /// What a pattern matches, of what is `wanted`, in order; a path without `*`, `?` and `[` matches itself, if it is there.
    /// One that ends in `/` matches folders.
    ///
    /// Errors: what cannot be looked at. It may hold files that belong to the input.
    pub(super) fn matches(
        &mut self,
        pattern: &str,
        wanted: impl Fn(&Path, &Metadata) -> bool,
    ) -> Result<BTreeMap<PathBuf, Metadata>, Error> {
        let parts = parts(pattern)?;
        let mut found = BTreeMap::new();
        // Of `todo`, and not of the stack: how deep folders lie is not for us to say.
        let mut todo = vec![(PathBuf::from("/"), 0)];
        while let Some((at, position)) = todo.pop() {
            match parts.get(position) {
                None => {
                    let metadata = there(&at)?;
                    let fits = |metadata: &Metadata| {
                        (metadata.is_dir() || !pattern.ends_with('/')) && wanted(&at, metadata)
                    };
                    if let Some(metadata) = metadata.filter(fits) {
                        found.insert(at, metadata);
                    }
                    if found.len() > FILES_MAX {
                        return Err(Error::TooManyFiles);
                    }
                }
                Some(Part::Name(name)) => {
                    let path = at.join(name);
                    if there(&path)?.is_some() {
                        todo.push((path, position + 1));
                    }
                }
                Some(Part::Pattern(pattern)) => self.each_name(&at, |entry| {
                    // A name that is not UTF-8 is found all the same: it is refused, not passed over.
                    let name = entry.file_name();
                    if pattern.matches_with(&name.to_string_lossy(), OPTIONS) {
                        todo.push((entry.path(), position + 1));
                    }
                    Ok(())
                })?,
                Some(Part::Folders) => {
                    self.each_name(&at, |entry| {
                        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                        if !is_hidden && entry.file_type()?.is_dir() {
                            todo.push((entry.path(), position));
                        }
                        Ok(())
                    })?;
                    todo.push((at, position + 1));
                }
            }
        }
        Ok(found)
    }

    /// Calls `look` with all that lies in a folder; there is nothing in what is none.
    fn each_name(
        &mut self,
        folder: &Path,
        mut look: impl FnMut(&DirEntry) -> io::Result<()>,
    ) -> Result<(), Error> {
        let failed = |error| Error::Io {
            path: folder.to_owned(),
            error,
        };
        self.count()?;
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            self.count()?;
            entry.and_then(|entry| look(&entry)).map_err(failed)?;
        }
        Ok(())
    }

    fn count(&mut self) -> Result<(), Error> {
        self.n_names += 1;
        match self.n_names > NAMES_MAX {
            true => Err(Error::TooManyNames),
            false => Ok(()),
        }
    }
}

fn parts(pattern: &str) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    for text in pattern.split('/').filter(|part| !part.is_empty()) {
        let part = match text {
            // A second one matches nothing that the first does not.
            "**" if matches!(parts.last(), Some(Part::Folders)) => continue,
            "**" => Part::Folders,
            text => match literal(text) {
                Some(name) => Part::Name(name),
                None => Part::Pattern(Pattern::new(text)?),
            },
        };
        parts.push(part);
    }
    Ok(parts)
}

/// The text that a pattern matches where it is one alone: `[[]`, `[*]` and `[?]` stand for a character.
pub(super) fn literal(pattern: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(character) = rest.chars().next() {
        let escaped = ["[[]", "[*]", "[?]"]
            .into_iter()
            .find(|escape| rest.starts_with(escape));
        match (character, escaped) {
            (_, Some(escape)) => {
                text += &escape[1..2];
                rest = &rest[escape.len()..];
            }
            ('*' | '?' | '[', None) => return None,
            (plain, None) => {
                text.push(plain);
                rest = &rest[plain.len_utf8()..];
            }
        }
    }
    Some(text)
}

/// The pattern that matches a text alone.
pub(super) fn escape(text: &str) -> String {
    let escaped = text.chars().map(|character| match character {
        '*' | '?' | '[' => format!("[{character}]"),
        plain => plain.to_string(),
    });
    escaped.collect()
}

/// The pattern of the names that files of a format have, compressed ones too.
pub(super) fn in_folder(format: &str) -> String {
    match format {
        "parquet" | "arrow" => format!("*.{format}"),
        "text" => "*.txt*".to_owned(),
        _ => format!("*.{format}*"),
    }
}

/// The text that a pattern stands for alone: what [`escape`] was given. Nothing if the pattern may stand for several.
pub(super) fn unescape(pattern: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = pattern.chars();
    while let Some(character) = rest.next() {
        match character {
            '[' => {
                text.push(rest.next()?);
                rest.next().filter(|end| *end == ']')?;
            }
            '*' | '?' => return None,
            plain => text.push(plain),
        }
    }
    Some(text)
}

/// What is at `path`, behind links. Errors: a link that leads nowhere, and what cannot be looked at.
fn there(path: &Path) -> Result<Option<Metadata>, Error> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata)),
        Err(error) if is_absent(&error) && fs::symlink_metadata(path).is_err() => Ok(None),
        Err(error) => Err(Error::Io {
            path: path.to_owned(),
            error,
        }),
    }
}

/// True where nothing can lie: below a file, or behind a link that leads to itself.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(walk: &mut Walk, folder: &Path, pattern: &str) -> Result<Vec<String>, Error> {
        let pattern = format!("{}/{pattern}", folder.display());
        let paths = walk.matches(&pattern, |_, _| true)?;
        let inside = |path: PathBuf| {
            let path = path.strip_prefix(folder).expect("it is in the folder");
            path.to_str().expect("text").to_owned()
        };
        Ok(paths.into_keys().map(inside).collect())
    }

    fn make(folder: &Path, files: &[&str]) {
        for file in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
            fs::write(path, "").expect("it writes");
        }
    }

    fn link(to: &Path, path: PathBuf) {
        std::os::unix::fs::symlink(to, path).expect("it links");
    }

    #[test]
    fn patterns_match_by_parts_of_the_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let files = [
            "a.csv",
            "b.csv",
            "b[1].csv",
            ".c.csv",
            "d.txt",
            "x/a.csv",
            "x/y/a.csv",
            ".h/a.csv",
            "x/.h/a.csv",
        ];
        make(folder, &files);
        link(folder, folder.join("x/up"));
        link(&folder.join("loop"), folder.join("loop"));
        let check = |pattern: &str, expected: &[&str]| {
            let found = found(&mut Walk::default(), folder, pattern).expect("it walks");
            assert_eq!(found, expected, "{pattern}");
        };
        check("*.csv", &["a.csv", "b.csv", "b[1].csv"]);
        check("?.csv", &["a.csv", "b.csv"]);
        check("[b-z].csv", &["b.csv"]);
        check("b[[]1].csv", &["b[1].csv"]);
        check("b[[]?].csv", &["b[1].csv"]);
        check(".*.csv", &[".c.csv"]);
        check("*/a.csv", &["x/a.csv"]);
        check("**/a.csv", &["a.csv", "x/a.csv", "x/y/a.csv"]);
        check("**/**/x/**/**/a.csv", &["x/a.csv", "x/y/a.csv"]);
        check("x/**/*.csv", &["x/a.csv", "x/y/a.csv"]);
        check(".h/a.csv", &[".h/a.csv"]);
        check("x/up/a.csv", &["x/up/a.csv"]);
        check("x/", &["x"]);
        check("a.csv/", &[]);
        check("*.csv/", &[]);
        check("none/*.csv", &[]);
        check("a.csv/*", &[]);
        check("l*/*", &[]);
        check("e.csv", &[]);
        check(&"**/".repeat(100_000), &["", "x", "x/y"]);
        let wrong = found(&mut Walk::default(), folder, "[a.csv");
        assert!(matches!(wrong, Err(Error::Pattern(_))), "{wrong:?}");
    }

    #[test]
    fn a_link_that_leads_nowhere_is_not_passed_over() {
        let folder = tempfile::tempdir().expect("a folder");
        make(folder.path(), &["1/part.csv", "2/other.csv"]);
        link(Path::new("/nowhere"), folder.path().join("2/part.csv"));
        for pattern in ["*/part.csv", "2/part.csv", "2/p*"] {
            let found = found(&mut Walk::default(), folder.path(), pattern);
            assert!(
                matches!(found, Err(Error::Io { .. })),
                "{pattern}: {found:?}"
            );
        }
        let others = found(&mut Walk::default(), folder.path(), "*/other.csv");
        assert_eq!(others.expect("it walks"), ["2/other.csv"]);
    }

    #[test]
    fn a_walk_ends_after_so_many_names() {
        let folder = tempfile::tempdir().expect("a folder");
        make(folder.path(), &["a.csv", "b.csv"]);
        let mut walk = Walk {
            n_names: NAMES_MAX - 3,
        };
        let all = found(&mut walk, folder.path(), "*.csv").expect("a folder and two names");
        assert_eq!(all, ["a.csv", "b.csv"]);
        let more = found(&mut walk, folder.path(), "*.csv");
        assert!(matches!(more, Err(Error::TooManyNames)), "{more:?}");
    }
}
