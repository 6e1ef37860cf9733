//! `bench/RESULTS.md`, and the table in `README.md`: text between marks, which is replaced as a whole.
//!
//! ```text
//! <!-- NAME -->
//! what was measured last
//! <!-- /NAME -->
//! ```

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::places::Places;
use crate::run::{answer, program};

const HEAD: &str = "\
# Results

Written by `cargo xtask bench`, part by part; each says which commit was measured where. To measure again on your machine:

    cargo xtask bench --peers
";

/// What was measured, where and when.
pub(super) struct Origin {
    commit: String,
    load: String,
    date: String,
}

impl Origin {
    pub(super) fn now(commit: &str) -> Origin {
        let load = first_line("/proc/loadavg", "");
        let date = answer(program("date").args(["-u", "+%Y-%m-%d"]));
        Origin {
            commit: commit.to_owned(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            date: date.unwrap_or_default(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = |line: String| line.split(':').nth(1).unwrap_or_default().trim().to_owned();
        let cpu = value(first_line("/proc/cpuinfo", "model name"));
        let memory = value(first_line("/proc/meminfo", "MemTotal"));
        let memory_kib: f64 = memory.trim_end_matches(" kB").parse().unwrap_or(0.0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        write!(
            out,
            "Commit {}; {cpu}, {cores} cores, {:.1} GiB; {}; load {} before.",
            self.commit,
            memory_kib / f64::from(1 << 20),
            self.date,
            self.load
        )
    }
}

/// The first line of a file that begins so, or nothing.
fn first_line(path: &str, beginning: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut lines = text.lines();
    let found = lines.find(|line| line.starts_with(beginning));
    found.unwrap_or_default().to_owned()
}

/// The file of results, written after each part.
pub(super) struct Results {
    path: PathBuf,
    text: String,
}

impl Results {
    pub(super) fn open(places: &Places) -> Result<Results> {
        let path = places.root.join("bench/RESULTS.md");
        let text = if path.exists() {
            std::fs::read_to_string(&path).context("cannot read the results so far")?
        } else {
            HEAD.to_owned()
        };
        Ok(Results { path, text })
    }

    /// Replaces a section, or adds it.
    pub(super) fn put(&mut self, name: &str, body: &str) -> Result<()> {
        let heading = format!("### {name}\n");
        let body = match body.starts_with(&heading) {
            true => body.to_owned(),
            false => format!("{heading}\n{body}"),
        };
        self.text = replaced(&self.text, name, &body)
            .unwrap_or_else(|| format!("{}\n{}", self.text, marked(name, &body)));
        std::fs::write(&self.path, &self.text)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Replaces the table in `README.md`. Errors: it has no marks.
pub(super) fn put_in_readme(places: &Places, table: &str) -> Result<()> {
    let path = places.root.join("README.md");
    let text = std::fs::read_to_string(&path).context("cannot read README.md")?;
    let text = replaced(&text, "bench", table)
        .context("README.md has no `<!-- bench -->` and `<!-- /bench -->`")?;
    std::fs::write(path, text).context("cannot write README.md")
}

fn marked(name: &str, body: &str) -> String {
    format!("<!-- {name} -->\n{}\n<!-- /{name} -->\n", body.trim_end())
}

/// `text` with another body between the marks of `name`; nothing where they are missing.
fn replaced(text: &str, name: &str, body: &str) -> Option<String> {
    let end_mark = format!("<!-- /{name} -->\n");
    let start = text.find(&format!("<!-- {name} -->\n"))?;
    let end = start + text[start..].find(&end_mark)? + end_mark.len();
    Some([&text[..start], &marked(name, body), &text[end..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_marks_is_replaced() {
        let text = "a\n<!-- up -->\nold\n<!-- /up -->\nb\n";
        let expected = "a\n<!-- up -->\nnew\n<!-- /up -->\nb\n";
        assert_eq!(replaced(text, "up", "new\n\n").as_deref(), Some(expected));
        assert_eq!(replaced(text, "noop", "new"), None);
        assert_eq!(replaced("<!-- up -->\n", "up", "new"), None);
    }
}
