//! `cargo xtask bench`: measures what is committed, and writes it to `bench/RESULTS.md`.
//!
//! ```text
//! platform    micro    in process: sandboxes, map calls, artefacts, beside bare wasmtime and native code
//!             up       `weft up` from an empty folder to its first answer, and `weft deploy`
//!             invoke   calls over HTTP on 1, 8 and 64 connections
//!             noop     a task that does nothing, and 10,000 of them, each in a sandbox of its own
//! --peers     weblog, taxi, wordcount, scoring, sort, join    bench/compare.py: Weft and others on the same data
//! ```
//!
//! A part replaces its section of the results, which says commit, machine, load and date, so that `--only` leaves the others
//! as they are. The table in `README.md` shows the last runs of each job that was compared. What is measured is a clean
//! checkout: numbers that belong to no commit are of no use. Like the demo, the verb runs as a worker of [`supervise`].

use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use crate::places::Places;
use crate::run::{answer, program, step};
use crate::server::Folder;
use crate::{flags, guests, python, supervise, toolchain};

mod peers;
mod platform;
mod results;

use results::{Origin, Results};

/// The verb that measures.
pub(crate) const WORKER: &str = "bench-worker";

/// What is less is a trial, and not for README.
const README_RUNS_MIN: usize = 5;
const README_SCALE_MIN: f64 = 0.25;

/// What to measure, and how long.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    with_peers: bool,
    /// Size of the data for peers; at 1 about a gigabyte for each job.
    scale: f64,
    runs: usize,
    only: Option<String>,
}

impl Request {
    fn parse(flags: &[String]) -> Result<Request> {
        let mut request = Request {
            with_peers: false,
            scale: 1.0,
            runs: 5,
            only: None,
        };
        for flag in flags::read(flags, &["--peers"])? {
            match flag.name {
                "--peers" => request.with_peers = true,
                "--scale" => request.scale = flag.parse()?,
                "--runs" => request.runs = flag.parse()?,
                "--only" => request.only = Some(flag.value.to_owned()),
                name => bail!("`bench` has no `{name}`, but --peers, --scale, --runs, --only"),
            }
        }
        request.check()
    }

    fn check(mut self) -> Result<Request> {
        ensure!(
            self.scale > 0.0 && self.scale <= 100.0,
            "--scale must be more than 0, and 100 at most"
        );
        ensure!((1..=100).contains(&self.runs), "--runs must be 1 to 100");
        if let Some(only) = &self.only {
            let is_job = peers::JOBS.contains(&only.as_str());
            ensure!(
                is_job || platform::PARTS.contains(&only.as_str()),
                "--only must be one of {}, {}",
                platform::PARTS.join(", "),
                peers::JOBS.join(", ")
            );
            self.with_peers = is_job;
        }
        Ok(self)
    }

    /// Those of `names` that are asked for.
    fn wanted<'a>(&'a self, names: &'a [&'static str]) -> impl Iterator<Item = &'static str> + 'a {
        let only = self.only.as_deref();
        names
            .iter()
            .copied()
            .filter(move |name| only.is_none_or(|only| only == *name))
    }
}

/// Asks what must be asked at the terminal, then measures as a worker.
pub(crate) fn start(flags: &[String]) -> Result<ExitCode> {
    Request::parse(flags)?;
    committed(&Places::find()?)?;
    toolchain::ensure()?;
    python::ensure_python()?;
    supervise::front(WORKER, flags)
}

/// Builds, measures part by part, and writes after each.
pub(crate) fn work(places: &Places, flags: &[String]) -> Result<()> {
    supervise::become_worker();
    let request = Request::parse(flags)?;
    let commit = committed(places)?;
    step("build weft", || guests::build_weft(places))?;
    step("build guests", || guests::build_all(places))?;
    let folder = Folder::new("bench")?;
    let mut results = Results::open(places)?;
    for part in request.wanted(&platform::PARTS) {
        let origin = Origin::now(&commit);
        let body = step(part, || {
            platform::measure(places, &folder.0, part, request.runs)
        })?;
        results.put(part, &format!("{body}\n{origin}\n"))?;
    }
    if request.with_peers {
        let peers = step("install peers", || peers::Peers::install(places))?;
        for job in request.wanted(&peers::JOBS) {
            let section = step(job, || peers.compare(&request, job, &commit))?;
            results.put(job, &section)?;
        }
        if request.runs >= README_RUNS_MIN && request.scale >= README_SCALE_MIN {
            results::put_in_readme(places, &peers.overview()?)?;
        }
    }
    println!("written to {}", results.path().display());
    Ok(())
}

/// The commit of the checkout. Errors: files differ from it.
fn committed(places: &Places) -> Result<String> {
    let git = |arguments: &[&str]| answer(program("git").current_dir(&places.root).args(arguments));
    // What the verb itself writes is nothing that it measures.
    let status = [
        "status",
        "--porcelain",
        "--",
        ".",
        ":!bench/RESULTS.md",
        ":!README.md",
    ];
    let changed = git(&status).context("git does not say what has changed here")?;
    ensure!(
        changed.is_empty(),
        "what is measured must be committed; this is not:\n{changed}"
    );
    git(&["rev-parse", "--short", "HEAD"]).context("there is no commit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Request> {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Request::parse(&flags)
    }

    #[test]
    fn flags_say_what_is_measured() {
        let all = parse(&[]).expect("parses");
        assert_eq!((all.with_peers, all.scale, all.runs), (false, 1.0, 5));
        assert_eq!(all.wanted(&platform::PARTS).count(), platform::PARTS.len());
        let one = parse(&["--only", "taxi", "--scale", "0.1", "--runs", "2"]).expect("parses");
        assert!(one.with_peers && one.wanted(&platform::PARTS).next().is_none());
        assert_eq!(one.wanted(&peers::JOBS).collect::<Vec<_>>(), ["taxi"]);
        for wrong in [
            &["--only", "nothing"][..],
            &["--runs", "0"],
            &["--scale"],
            &["--scale", "NaN"],
            &["--fast", "1"],
        ] {
            parse(wrong).expect_err("is refused");
        }
    }
}
