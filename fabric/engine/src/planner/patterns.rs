//! Which paths a pattern matches, by looking at no more than a bounded number of names.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

/// Names that the patterns of one input may look at.
const NAMES_MAX: usize = 1_000_000;
/// Files of one input.
pub(super) const FILES_MAX: usize = 100_000;

/// Stars match no hidden files, nor what lies in hidden folders: jobs that run stage their files there.
const OPTIONS: MatchOptions = MatchOptions {
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
        "looked at {NAMES_MAX} names and was not done: say more of the path before the first `*`"
    )]
    TooManyNames,
    #[error("matches more files than the {FILES_MAX} that an input may have")]
    TooManyFiles,
}

/// One part of a pattern, between slashes.
enum Part {
    Name(String),
    Pattern(Pattern),
    /// `**`: any number of folders, none of which is a link.
    Folders,
}

/// Walks through what there is, for patterns.
#[derive(Default)]
pub(super) struct Walk {
    n_names: usize,
}

impl Walk {
    /// The paths that a pattern matches, in order; a path without `*`, `?` and `[` matches itself, if it is there.
    pub(super) fn matches(&mut self, pattern: &str) -> Result<BTreeSet<PathBuf>, Error> {
        let parts = pattern.split('/').filter(|part| !part.is_empty());
        let parts: Vec<Part> = parts.map(part).collect::<Result<_, _>>()?;
        let mut found = BTreeSet::new();
        self.walk(Path::new("/"), &parts, &mut found)?;
        Ok(found)
    }

    fn walk(
        &mut self,
        at: &Path,
        parts: &[Part],
        found: &mut BTreeSet<PathBuf>,
    ) -> Result<(), Error> {
        let Some((part, rest)) = parts.split_first() else {
            found.insert(at.to_owned());
            return match found.len() > FILES_MAX {
                true => Err(Error::TooManyFiles),
                false => Ok(()),
            };
        };
        match part {
            Part::Name(name) => {
                let path = at.join(name);
                match is_there(&path)? {
                    true => self.walk(&path, rest, found),
                    false => Ok(()),
                }
            }
            Part::Pattern(pattern) => self.names(at, &mut |walk, entry| {
                // A name that is not UTF-8 is found all the same: it is refused, not passed over.
                let name = entry.file_name();
                match pattern.matches_with(&name.to_string_lossy(), OPTIONS) {
                    true => walk.walk(&entry.path(), rest, found),
                    false => Ok(()),
                }
            }),
            Part::Folders => {
                self.walk(at, rest, found)?;
                self.names(at, &mut |walk, entry| {
                    let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                    // Of the entry itself: a link may lead up again.
                    match !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                        true => walk.walk(&entry.path(), parts, found),
                        false => Ok(()),
                    }
                })
            }
        }
    }

    /// Calls `look` with all that lies in a folder; there is nothing in what is none.
    fn names(
        &mut self,
        folder: &Path,
        look: &mut impl FnMut(&mut Walk, &fs::DirEntry) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let failed = |error| Error::Io {
            path: folder.to_owned(),
            error,
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            self.n_names += 1;
            if self.n_names > NAMES_MAX {
                return Err(Error::TooManyNames);
            }
            look(self, &entry.map_err(failed)?)?;
        }
        Ok(())
    }
}

fn part(text: &str) -> Result<Part, Error> {
    if text == "**" {
        return Ok(Part::Folders);
    }
    match text.contains(['*', '?', '[']) {
        true => Ok(Part::Pattern(Pattern::new(text)?)),
        false => Ok(Part::Name(text.to_owned())),
    }
}

fn is_there(path: &Path) -> Result<bool, Error> {
    match fs::metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if is_absent(&error) => Ok(false),
        Err(error) => Err(Error::Io {
            path: path.to_owned(),
            error,
        }),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(walk: &mut Walk, folder: &Path, pattern: &str) -> Result<Vec<String>, Error> {
        let paths = walk.matches(&format!("{}/{pattern}", folder.display()))?;
        let inside = |path: PathBuf| {
            let path = path.strip_prefix(folder).expect("it is in the folder");
            path.to_str().expect("text").to_owned()
        };
        Ok(paths.into_iter().map(inside).collect())
    }

    fn make(folder: &Path, files: &[&str]) {
        for file in files {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
            fs::write(path, "").expect("it writes");
        }
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
        std::os::unix::fs::symlink(folder, folder.join("x/up")).expect("it links");
        let check = |pattern: &str, expected: &[&str]| {
            let found = found(&mut Walk::default(), folder, pattern).expect("it walks");
            assert_eq!(found, expected, "{pattern}");
        };
        check("*.csv", &["a.csv", "b.csv", "b[1].csv"]);
        check("?.csv", &["a.csv", "b.csv"]);
        check("[b-z].csv", &["b.csv"]);
        check("b[[]1].csv", &["b[1].csv"]);
        check(".*.csv", &[".c.csv"]);
        check("*/a.csv", &["x/a.csv"]);
        check("**/a.csv", &["a.csv", "x/a.csv", "x/y/a.csv"]);
        check("x/**/*.csv", &["x/a.csv", "x/y/a.csv"]);
        check(".h/a.csv", &[".h/a.csv"]);
        check("x/up/a.csv", &["x/up/a.csv"]);
        check("x/", &["x"]);
        check("none/*.csv", &[]);
        check("a.csv/*", &[]);
        check("e.csv", &[]);
        let wrong = found(&mut Walk::default(), folder, "[a.csv");
        assert!(matches!(wrong, Err(Error::Pattern(_))), "{wrong:?}");
    }

    #[test]
    fn a_walk_ends_after_so_many_names() {
        let folder = tempfile::tempdir().expect("a folder");
        make(folder.path(), &["a.csv", "b.csv"]);
        let mut walk = Walk {
            n_names: NAMES_MAX - 2,
        };
        let all = found(&mut walk, folder.path(), "*.csv").expect("these are two");
        assert_eq!(all, ["a.csv", "b.csv"]);
        let more = found(&mut walk, folder.path(), "*.csv");
        assert!(matches!(more, Err(Error::TooManyNames)), "{more:?}");
    }
}
