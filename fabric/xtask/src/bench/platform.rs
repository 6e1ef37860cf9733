//! What Weft itself takes, without peers. Each part gives a table in Markdown.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};

use crate::places::Places;
use crate::run::{cargo, now, program, run, run_lines};
use crate::server::{Folder, Server};

pub(super) const PARTS: [&str; 4] = ["micro", "up", "invoke", "noop"];

const CONNECTIONS: [usize; 3] = [1, 8, 64];
const INVOKE_SECONDS: usize = 5;
const NOOP_TASKS: usize = 10_000;

/// Measures one of [`PARTS`], with `folder` to work in.
pub(super) fn measure(places: &Places, folder: &Path, part: &str, runs: usize) -> Result<String> {
    match part {
        "micro" => micro(places, runs),
        "up" => up(places, folder, runs),
        "invoke" => invoke(places, folder, runs),
        _ => noop(places, folder, runs),
    }
}

/// What the example prints, which is a table already, with a line about the machine before it.
fn micro(places: &Places, runs: usize) -> Result<String> {
    let mut command = cargo(places);
    command
        .args([
            "run",
            "--release",
            "--quiet",
            "-p",
            "weft-sandbox",
            "--example",
            "micro",
        ])
        .arg(runs.to_string())
        .env("WEFT_GUESTS", places.guests());
    let mut text = String::new();
    run_lines(&mut command, |line| {
        println!("{line}");
        text.push_str("    ");
        text.push_str(line);
        text.push('\n');
    })?;
    Ok(text)
}

fn up(places: &Places, folder: &Path, runs: usize) -> Result<String> {
    let weblog = places.guests().join("weblog.wasm");
    let (mut ready_ms, mut deployed_ms) = (Vec::new(), Vec::new());
    for round in 0..runs {
        let data = folder.join(format!("up-{round}"));
        std::fs::create_dir(&data)?;
        let began = now();
        let server = Server::start(places, &data)?;
        ready_ms.push(began.elapsed().as_secs_f64() * 1e3);
        let began = now();
        run(server
            .weft()
            .arg("deploy")
            .arg(&weblog)
            .stdout(Stdio::null()))?;
        deployed_ms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let mut table = Table::new();
    table.row(
        "`weft up`, from an empty folder to an answer",
        "ms",
        ready_ms,
    );
    table.row(
        "`weft deploy weblog.wasm`, compilation included",
        "ms",
        deployed_ms,
    );
    Ok(table.0)
}

fn invoke(places: &Places, folder: &Path, runs: usize) -> Result<String> {
    let mut build = cargo(places);
    run(build.args([
        "build",
        "--release",
        "-p",
        "weft",
        "--example",
        "invoke_load",
    ]))?;
    let folder = own_folder(folder, "invoke")?;
    let server = with_hello(places, &folder.0)?;
    let token = std::fs::read_to_string(server.data.join("token")).context("no token")?;
    let mut table = Table::new();
    for connections in CONNECTIONS {
        let mut columns: [Vec<f64>; 3] = Default::default();
        for _ in 0..runs {
            let mut load = program(places.target.join("release/examples/invoke_load"));
            load.arg(server.address.to_string())
                .args([token.trim(), "hello/echo"])
                .args([connections.to_string(), INVOKE_SECONDS.to_string()]);
            run_lines(&mut load, |line| {
                println!("{line}");
                for (column, value) in columns.iter_mut().zip(numbers(line).into_iter().skip(1)) {
                    column.push(value);
                }
            })?;
        }
        let units = [("", "calls/s"), (", p50", "ms"), (", p99", "ms")];
        for ((what, unit), values) in units.into_iter().zip(columns) {
            let s = if connections == 1 { "" } else { "s" };
            table.row(&format!("{connections} connection{s}{what}"), unit, values);
        }
    }
    Ok(table.0)
}

fn noop(places: &Places, folder: &Path, runs: usize) -> Result<String> {
    let folder = own_folder(folder, "noop")?;
    let server = with_hello(places, &folder.0)?;
    let mut table = Table::new();
    for (tasks, unit, of_second) in [(1, "ms", 1e3), (NOOP_TASKS, "s", 1.0)] {
        let job = folder.0.join(format!("noop-{tasks}.toml"));
        let stage = format!("[[stage]]\nname = \"noop\"\ntask = \"hello/noop\"\ncount = {tasks}\n");
        std::fs::write(&job, format!("name = \"noop\"\n\n{stage}"))?;
        let mut took = Vec::new();
        for _ in 0..runs {
            let mut weft = server.weft();
            weft.arg("run").arg(&job);
            weft.stdout(Stdio::null()).stderr(Stdio::null());
            let began = now();
            run(&mut weft)?;
            took.push(began.elapsed().as_secs_f64() * of_second);
        }
        let s = if tasks == 1 { "" } else { "s" };
        table.row(
            &format!("{tasks} task{s}, `weft run` to its end"),
            unit,
            took,
        );
    }
    Ok(table.0)
}

fn own_folder(folder: &Path, name: &str) -> Result<Folder> {
    let path = folder.join(name);
    std::fs::create_dir(&path)?;
    Ok(Folder(path))
}

fn with_hello(places: &Places, folder: &Path) -> Result<Server> {
    let server = Server::start(places, folder)?;
    run(server
        .weft()
        .arg("deploy")
        .arg(places.guests().join("hello.wasm"))
        .stdout(Stdio::null()))?;
    Ok(server)
}

/// The numbers among the words of a line.
fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace()
        .filter_map(|word| word.trim_end_matches(',').parse().ok())
        .collect()
}

/// Rows of what was measured several times.
struct Table(String);

impl Table {
    fn new() -> Table {
        Table("| what | median | smallest to largest |\n|---|--:|--:|\n".into())
    }

    fn row(&mut self, what: &str, unit: &str, mut values: Vec<f64>) {
        values.sort_by(f64::total_cmp);
        let (smallest, largest) = (values[0], values[values.len() - 1]);
        let digits = if smallest < 10.0 { 2 } else { 0 };
        let median = values[values.len() / 2];
        self.0.push_str(&format!(
            "| {what} | {median:.digits$} {unit} | {smallest:.digits$} to {largest:.digits$} {unit} |\n"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_tells_its_numbers() {
        let line =
            "8 connections: 15400 calls/s, p50 0.490 ms, p99 1.200 ms, load's CPU 0.20 cores";
        assert_eq!(numbers(line), [8.0, 15400.0, 0.49, 1.2, 0.2]);
    }

    #[test]
    fn rows_have_the_median_and_the_ends() {
        let mut table = Table::new();
        table.row("calls", "ms", vec![3.0, 1.0, 2.0]);
        assert!(table.0.ends_with("| calls | 2.00 ms | 1.00 to 3.00 ms |\n"));
    }
}
