//! The same jobs on other systems: a virtual environment, data, and `bench/compare.py`.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::Request;
use crate::logs;
use crate::places::Places;
use crate::python::environment;
use crate::run::{program, run, run_lines};

pub(super) const JOBS: [&str; 6] = ["weblog", "taxi", "wordcount", "scoring", "sort", "join"];

/// Bytes of access logs at scale 1.
const LOG_BYTES: f64 = 1.17e9;

/// Python with all peers, and what is measured with it.
pub(super) struct Peers<'a> {
    places: &'a Places,
    /// `bench` in the target folder.
    folder: PathBuf,
}

impl<'a> Peers<'a> {
    /// Makes the environment where its requirements have changed.
    pub(super) fn install(places: &'a Places) -> Result<Peers<'a>> {
        let folder = places.target.join("bench");
        std::fs::create_dir_all(&folder)?;
        let peers = Peers { places, folder };
        let requirements = peers.script("requirements.txt");
        environment(&peers.folder.join("venv"), &requirements)?;
        Ok(peers)
    }

    /// Runs one job on all systems, and gives its section of the results.
    pub(super) fn compare(&self, request: &Request, job: &str, commit: &str) -> Result<String> {
        let data = self.data(job, request.scale)?;
        drop(std::fs::remove_file(self.runs(job)));
        let mut compare = self.python();
        compare
            .arg(self.script("compare.py"))
            .args(["--workload", job, "--commit", commit, "--runs"])
            .arg(request.runs.to_string())
            .arg("--data")
            .arg(data)
            .arg("--weft")
            .arg(self.places.weft())
            .arg("--guests")
            .arg(self.places.guests())
            .arg("--out")
            .arg(self.runs(job));
        let mut section = String::new();
        run_lines(&mut compare, |line| {
            println!("{line}");
            section.push_str(line);
            section.push('\n');
        })?;
        Ok(section)
    }

    /// One table of all jobs that have been compared.
    pub(super) fn overview(&self) -> Result<String> {
        let mut report = self.python();
        report.arg(self.script("report.py")).arg("overview");
        report.args(
            JOBS.map(|job| self.runs(job))
                .iter()
                .filter(|runs| runs.exists()),
        );
        let mut table = String::new();
        run_lines(&mut report, |line| {
            table.push_str(line);
            table.push('\n');
        })?;
        Ok(table)
    }

    /// The folder of a job's data, which is made once.
    fn data(&self, job: &str, scale: f64) -> Result<PathBuf> {
        // Other generators make other data.
        let mut hasher = DefaultHasher::new();
        std::fs::read(self.script("generate.py"))?.hash(&mut hasher);
        let made = format!("data/{scale}-{:016x}/{job}", hasher.finish());
        let folder = self.folder.join(made);
        if folder.is_dir() {
            return Ok(folder);
        }
        let unfinished = folder.with_extension("unfinished");
        drop(std::fs::remove_dir_all(&unfinished));
        self.generate(job, scale, &unfinished)?;
        std::fs::rename(&unfinished, &folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }

    fn generate(&self, job: &str, scale: f64, folder: &Path) -> Result<()> {
        if job == "weblog" {
            return logs::write(&logs::Request {
                size_bytes: (LOG_BYTES * scale) as u64,
                folder: folder.to_owned(),
                n_files: 8,
                seed: 1,
            });
        }
        let mut generate = self.python();
        generate.arg(self.script("generate.py")).arg(job);
        generate.args(["--scale", &scale.to_string(), "--out"]);
        run(generate.arg(folder))
    }

    fn python(&self) -> Command {
        let mut python = program(self.folder.join("venv/bin/python"));
        python.env("PYTHONDONTWRITEBYTECODE", "1");
        python
    }

    fn script(&self, name: &str) -> PathBuf {
        self.places.root.join("bench").join(name)
    }

    /// A line for each run of a job.
    fn runs(&self, job: &str) -> PathBuf {
        self.folder.join(format!("runs-{job}.jsonl"))
    }
}
