//! `cargo xtask logs`: access logs in the combined log format, as a busy web site would write them.
//!
//! ```text
//! 10.1.2.3 - - [06/Oct/2025:00:00:07 +0000] "GET /blog/2025/03/post-7?page=42 HTTP/1.1" 200 512 "-" "Mozilla/5.0 .."
//! ```
//!
//! - Time goes on evenly through seven days from 2025-10-06, and through the files in order.
//! - 20 000 pages, frequency by rank^-1.125; 15 % of requests have a query string, one of three kinds.
//! - One visitor for each 2 900 bytes (2 000 at least), by rank^-0.75; 400 user agents, by rank^-0.75.
//! - 85 % GET, 10 % POST, 5 % HEAD; 80 % are answered with 200, the rest with 304, 301, 404 and 500 alike.
//! - 1 line of 1 000 is malformed, of three kinds: `-`, cut off after the time, or without a request (status 408).
//!
//! What a file holds is decided by the seed, the sizes and its number alone: files are written by one thread a core.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::run::now;
use crate::{flags, supervise};

mod line;

use line::{Lines, Site};

/// Bytes that are written at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// Names of files end in a number of two digits.
const MAX_FILES: u32 = 100;

/// What to write where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) size_bytes: u64,
    pub(crate) folder: PathBuf,
    pub(crate) n_files: u32,
    pub(crate) seed: u64,
}

impl Request {
    pub(crate) fn parse(flags: &[String]) -> Result<Request> {
        let (mut size_bytes, mut folder, mut n_files, mut seed) = (256_000_000, None, 8, 1);
        for flag in flags::read(flags, &[])? {
            match flag.name {
                "--bytes" => size_bytes = bytes(flag.value).with_context(|| flag.wrong())?,
                "--out" => folder = Some(PathBuf::from(flag.value)),
                "--files" => n_files = flag.parse()?,
                "--seed" => seed = flag.parse()?,
                name => bail!("`logs` has no `{name}`, but --bytes, --out, --files, --seed"),
            }
        }
        ensure!(
            (1..=MAX_FILES).contains(&n_files),
            "--files must be from 1 to {MAX_FILES}"
        );
        let folder = folder.context("`--out DIR` says where the logs go")?;
        Ok(Request {
            size_bytes,
            folder,
            n_files,
            seed,
        })
    }

    /// Bytes of one file, exceeded by less than a line.
    fn share(&self) -> u64 {
        self.size_bytes / u64::from(self.n_files)
    }
}

/// A size like `256MB`, `1GiB` or `1000`.
fn bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        unit => bail!("no unit `{unit}`, but KB, MB, GB, KiB, MiB, GiB"),
    };
    let number: u64 = digits.parse()?;
    number.checked_mul(unit).context("too large")
}

/// Writes `access-NN.log`, and says how many lines there are.
///
/// Errors: the folder already has such files, because a pattern would match old and new ones alike.
pub(crate) fn write(request: &Request) -> Result<()> {
    make_room(request)?;
    let (started, site, next) = (now(), Site::new(request.size_bytes), AtomicU32::new(0));
    let some_files = || {
        let mut n_lines = 0;
        loop {
            let file = next.fetch_add(1, Ordering::Relaxed);
            if file >= request.n_files {
                return Ok(n_lines);
            }
            n_lines += write_file(request, &site, file)?;
        }
    };
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    let n_lines = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(some_files)).collect();
        threads.into_iter().map(joined).sum::<Result<u64>>()
    })?;
    let (megabytes, seconds) = (
        request.size_bytes as f64 / 1e6,
        started.elapsed().as_secs_f64(),
    );
    println!(
        "{n_lines} lines, {megabytes:.0} MB in {} files in {}: {seconds:.2} s, {:.0} MB/s",
        request.n_files,
        request.folder.display(),
        megabytes / seconds
    );
    Ok(())
}

fn joined(thread: std::thread::ScopedJoinHandle<'_, Result<u64>>) -> Result<u64> {
    thread
        .join()
        .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
}

fn make_room(request: &Request) -> Result<()> {
    let folder = &request.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let is_log = name.starts_with("access-") && name.ends_with(".log");
        ensure!(
            !is_log,
            "{} has logs already, such as `{name}`: choose another folder",
            folder.display()
        );
    }
    Ok(())
}

/// Writes one file, and gives its number of lines.
fn write_file(request: &Request, site: &Site, file: u32) -> Result<u64> {
    let path = request.folder.join(format!("access-{file:02}.log"));
    let mut out =
        File::create_new(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut lines = Lines::new(site, request.seed, file);
    let mut chunk = Vec::with_capacity(CHUNK_BYTES + 1024);
    let (mut written, mut n_lines) = (0, 0);
    while written < request.share() {
        ensure!(!supervise::is_stopping(), "interrupted");
        chunk.clear();
        let left = (request.share() - written).min(CHUNK_BYTES as u64);
        n_lines += lines.fill(&mut chunk, left as usize, |at| {
            second(request, file, written + at)
        });
        out.write_all(&chunk)
            .with_context(|| format!("cannot write {}", path.display()))?;
        written += chunk.len() as u64;
    }
    Ok(n_lines)
}

/// The second that a line is of which begins at `at` in a file.
fn second(request: &Request, file: u32, at: u64) -> u32 {
    let passed = u128::from(u64::from(file) * request.share() + at);
    let total = u128::from(u64::from(request.n_files) * request.share());
    let second = passed * u128::from(line::SPAN_SECONDS) / total.max(1);
    (second as u32).min(line::SPAN_SECONDS - 1)
}

#[cfg(test)]
mod tests;
