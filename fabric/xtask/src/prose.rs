//! A ratchet over prose and sizes: numbers that may fall and never rise.
//!
//! Each of the [`MEASURES`] counts its offenders in the sources of the workspace. The ratchet file,
//! `prose-ratchet.txt`, holds the maximum of each number. A number below its maximum fails as well,
//! until the file is lowered to it: so progress stays.

mod code;
mod measures;

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::places::Places;
use crate::run::{answer, program};
use measures::{MEASURES, Measure, Offender, Source};

const RATCHET: &str = "fabric/xtask/prose-ratchet.txt";

/// Offenders that are listed of each number that rose.
const LISTED_MAX: usize = 10;

/// Fails where a number of the workspace is not the one in the ratchet file.
pub(crate) fn check(places: &Places) -> Result<()> {
    let ratchet = std::fs::read_to_string(places.root.join(RATCHET))
        .with_context(|| format!("cannot read {RATCHET}"))?;
    let maxima = maxima(&ratchet).with_context(|| format!("{RATCHET} is invalid"))?;
    let sources = sources(&places.root)?;
    let mut complaints = Vec::new();
    for (measure, maximum) in MEASURES.iter().zip(maxima) {
        let offenders: Vec<Offender> = sources.iter().flat_map(measure.find).collect();
        println!("{}: {} of {maximum}", measure.name, offenders.len());
        if let Some(complaint) = complaint(measure, offenders.len(), maximum) {
            complaints.push(complaint);
        }
        if offenders.len() > maximum {
            complaints.extend(listed(newest_first(&places.root, offenders)));
        }
    }
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// The maximum of each of the [`MEASURES`], from the text of the ratchet file.
fn maxima(ratchet: &str) -> Result<Vec<usize>> {
    let mut found = BTreeMap::new();
    for line in ratchet.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, maximum) = entry(line).with_context(|| format!("line `{line}`"))?;
        ensure!(
            found.insert(name, maximum).is_none(),
            "`{name}` is there twice"
        );
    }
    let mut maxima = Vec::new();
    for Measure { name, .. } in MEASURES {
        maxima.push(found.remove(name).with_context(|| format!("no `{name}`"))?);
    }
    if let Some(name) = found.keys().next() {
        bail!("no measure is named `{name}`");
    }
    Ok(maxima)
}

/// A line `name = maximum`.
fn entry(line: &str) -> Result<(&str, usize)> {
    let (name, maximum) = line.split_once('=').context("it lacks `=`")?;
    let maximum = maximum.trim().parse().context("not a number")?;
    Ok((name.trim(), maximum))
}

/// A sentence about a number that is not its maximum.
fn complaint(measure: &Measure, count: usize, maximum: usize) -> Option<String> {
    let Measure {
        name, offenders, ..
    } = measure;
    let (moved, remedy) = match count.cmp(&maximum) {
        Ordering::Equal => return None,
        Ordering::Greater => ("rose", "mend the newest".to_owned()),
        Ordering::Less => ("fell", format!("write `{name} = {count}` in {RATCHET}")),
    };
    Some(format!(
        "`{name}` {moved} from {maximum} to {count} ({offenders}): {remedy}"
    ))
}

fn listed(offenders: Vec<Offender>) -> Vec<String> {
    let count = offenders.len();
    let line = |found: Offender| {
        let Offender { path, detail, .. } = found;
        format!("  {path}:{}: {detail}", found.lines.start())
    };
    let mut lines: Vec<String> = offenders.into_iter().take(LISTED_MAX).map(line).collect();
    if count > LISTED_MAX {
        lines.push(format!("  and {} older ones", count - LISTED_MAX));
    }
    lines
}

/// Sorts by the time of the last commit to a line of the offender; uncommitted ones come first.
fn newest_first(root: &Path, offenders: Vec<Offender>) -> Vec<Offender> {
    let mut by_file: BTreeMap<String, Vec<Offender>> = BTreeMap::new();
    for offender in offenders {
        let of_file = by_file.entry(offender.path.clone()).or_default();
        of_file.push(offender);
    }
    let mut timed = Vec::new();
    for (path, offenders) in by_file {
        let times = times_of(root, &path, &offenders);
        let time = |offender: Offender| (newest(&times, &offender), offender);
        timed.extend(offenders.into_iter().map(time));
    }
    timed.sort_by_key(|(time, _)| Reverse(*time));
    timed.into_iter().map(|(_, offender)| offender).collect()
}

/// Lines that git knows nothing of are new.
fn newest(times: &BTreeMap<usize, u64>, offender: &Offender) -> u64 {
    let times = times.range(offender.lines.clone());
    times.map(|(_, time)| *time).max().unwrap_or(u64::MAX)
}

/// When the lines of the offenders in one file were committed; empty for a file that is not.
fn times_of(root: &Path, path: &str, offenders: &[Offender]) -> BTreeMap<usize, u64> {
    let mut git = program("git");
    git.current_dir(root).args(["blame", "--line-porcelain"]);
    for Offender { lines, .. } in offenders {
        git.arg(format!("-L{},{}", lines.start(), lines.end()));
    }
    let blame = answer(git.args(["--", path]));
    blame.map(|blame| line_times(&blame)).unwrap_or_default()
}

/// The time of each line that `git blame --line-porcelain` tells about, in seconds.
fn line_times(blame: &str) -> BTreeMap<usize, u64> {
    let mut times = BTreeMap::new();
    let mut line: Option<usize> = None;
    for text in blame.lines() {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            _ if text.starts_with('\t') => {}
            ["committer-time", time] => times.extend(line.zip(time.parse().ok())),
            [commit, _, number, ..] if is_commit(commit) => line = number.parse().ok(),
            _ => {}
        }
    }
    times
}

fn is_commit(word: &str) -> bool {
    word.len() >= 40 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The files that are measured.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut paths = rust_files(&root.join("fabric"))?;
    paths.extend(rust_files(&root.join("guest-sdk/rust/src"))?);
    for folder in ["fabric", "fabric/docs"] {
        let mut documents = entries(&root.join(folder))?;
        documents.retain(|path| has_extension(path, "md"));
        paths.extend(documents);
    }
    paths.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    paths.iter().map(|path| source(root, path)).collect()
}

fn source(root: &Path, path: &Path) -> Result<Source> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let path = path.strip_prefix(root)?.to_string_lossy().into_owned();
    Ok(Source::new(path, text))
}

/// The Rust files under a folder, without those that builds leave there.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in entries(folder)? {
        if path.is_dir() && !path.is_symlink() && !path.ends_with("target") {
            files.extend(rust_files(&path)?);
        } else if has_extension(&path, "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The entries of a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("cannot list {}", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(unreadable)? {
        paths.push(entry.with_context(unreadable)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratchet_file_names_each_measure_once() {
        let whole =
            "# why\n\nlong-files = 3\ndoc-openings=1\nlong-prose-lines = 2\nlong-functions = 4\n";
        assert_eq!(maxima(whole).expect("it is valid"), [1, 2, 3, 4]);
        let error = |ratchet: String| format!("{:#}", maxima(&ratchet).expect_err("it is invalid"));
        let cases = [
            (whole.replace("long-files = 3", ""), "no `long-files`"),
            (
                format!("{whole}long-files = 3"),
                "`long-files` is there twice",
            ),
            (format!("{whole}verbs = 3"), "no measure is named `verbs`"),
            (format!("{whole}verbs"), "line `verbs`: it lacks `=`"),
            (
                whole.replace('3', "-3"),
                "line `long-files = -3`: not a number",
            ),
        ];
        for (ratchet, message) in cases {
            let error = error(ratchet);
            assert!(error.starts_with(message), "{error}");
        }
    }

    #[test]
    fn a_number_stays_what_it_is() {
        let said = |count| complaint(&MEASURES[2], count, 7);
        assert_eq!(said(7), None);
        let rose = said(8).expect("it rose");
        assert!(rose.starts_with("`long-files` rose from 7 to 8"), "{rose}");
        let fell = said(6).expect("it fell");
        assert!(
            fell.ends_with("write `long-files = 6` in fabric/xtask/prose-ratchet.txt"),
            "{fell}"
        );
    }

    fn offender(lines: std::ops::RangeInclusive<usize>) -> Offender {
        Offender {
            path: "a.rs".to_owned(),
            lines,
            detail: "/// What".to_owned(),
        }
    }

    #[test]
    fn ten_offenders_are_listed() {
        assert_eq!(listed(vec![offender(3..=5)]), ["  a.rs:3: /// What"]);
        let lines = listed(vec![offender(3..=5); 12]);
        assert_eq!(lines.len(), 11);
        assert_eq!(lines[10], "  and 2 older ones");
    }

    #[test]
    fn an_offender_is_as_new_as_its_newest_line() {
        let commit = "0123456789".repeat(4);
        let blame = [
            &format!("{commit} 9 3 1"),
            "committer-time 50",
            &format!("summary {commit} 1 8"),
            "\tcommitter-time 99",
            &format!("{commit} 9 4"),
            "committer-time 70",
        ];
        let times = line_times(&blame.join("\n"));
        assert_eq!(times, BTreeMap::from([(3, 50), (4, 70)]));
        assert_eq!(newest(&times, &offender(3..=3)), 50);
        assert_eq!(newest(&times, &offender(1..=9)), 70);
        assert_eq!(newest(&times, &offender(5..=9)), u64::MAX);
    }
}
