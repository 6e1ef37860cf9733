//! `weft doctor`: whether this machine has what Weft needs, and what to do where it has not.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde::Deserialize;
use serde_json::json;
use weft_client::{Call, Client};

use crate::arguments::{DoctorArguments, GlobalArguments};
use crate::failure::Failure;
use crate::project::toolchain;
use crate::terminal::Output;
use crate::terminal::text::bytes;
use crate::{Program, StoreAccess, StoreCheck, locations, token};

/// The address that `weft up` listens on unless it is told.
const LISTEN: &str = "127.0.0.1:7070";
/// Memory with which two tasks run beside a server.
const MEMORY_BYTES_WANTED: u64 = 2 << 30;
/// Connections, components and spilled runs are files.
const FILES_WANTED: u64 = 4096;
/// Below this, the first job may fill the disk.
const FREE_BYTES_WANTED: u64 = 1 << 30;
/// Stores refuse requests whose time is some minutes off.
const CLOCK_OFF_SECONDS_MAX: u64 = 60;
/// Time for the answers of one server: somebody waits for the verdict.
const SERVER_WALL_MAX: Duration = Duration::from_secs(5);

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// Something works less well, or not at all for some.
    Warning,
    /// Weft does not run.
    Failing,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Fine => "ok",
            Verdict::Warning => "warning",
            Verdict::Failing => "failing",
        }
    }
}

/// One line of the report.
struct Check {
    what: String,
    verdict: Verdict,
    found: String,
    advice: String,
}

impl Check {
    fn document(&self) -> serde_json::Value {
        json!({
            "check": self.what,
            "status": self.verdict.word(),
            "found": self.found,
            "advice": self.advice,
        })
    }
}

fn check(what: impl Into<String>, verdict: Verdict, found: String, advice: &str) -> Check {
    let advice = match verdict {
        Verdict::Fine => String::new(),
        _ => advice.to_owned(),
    };
    Check {
        what: what.into(),
        verdict,
        found,
        advice,
    }
}

fn at_least(found: u64, wanted: u64) -> Verdict {
    if found >= wanted {
        Verdict::Fine
    } else {
        Verdict::Warning
    }
}

/// The checks so far. People read each as soon as it is done: some take seconds.
struct Report<'a> {
    output: &'a mut Output,
    checks: Vec<Check>,
}

impl<'a> Report<'a> {
    fn new(output: &'a mut Output) -> Result<Self, Failure> {
        let mut report = Self {
            output,
            checks: Vec::new(),
        };
        report.line("STATUS", "CHECK", "FOUND")?;
        Ok(report)
    }

    /// Writes a line for people. The first two columns have room for all but long names of stores.
    fn line(&mut self, status: &str, what: &str, found: &str) -> Result<(), Failure> {
        match self.output.is_json() {
            true => Ok(()),
            false => self
                .output
                .say(&format!("{status:<7}  {what:<12}  {found}")),
        }
    }

    /// Shows on a terminal what is being checked, until the next line.
    fn begin(&mut self, what: &str) {
        if self.output.redraws() {
            self.output.draw(&[format!("checking {what} ..")]);
        }
    }

    fn add(&mut self, check: Check) -> Result<(), Failure> {
        let found = match check.advice.as_str() {
            "" => check.found.clone(),
            advice => format!("{}: {advice}", check.found),
        };
        self.line(check.verdict.word(), &check.what, &found)?;
        self.checks.push(check);
        Ok(())
    }

    fn add_all(&mut self, checks: impl IntoIterator<Item = Check>) -> Result<(), Failure> {
        checks.into_iter().try_for_each(|check| self.add(check))
    }

    /// Writes the document under `--json`. Errors: a check failed.
    fn finish(self) -> Result<(), Failure> {
        let documents: Vec<_> = self.checks.iter().map(Check::document).collect();
        let document = json!({ "checks": documents });
        self.output.document(&document.to_string())?;
        let failing = |check: &&Check| check.verdict == Verdict::Failing;
        match self.checks.iter().filter(failing).count() {
            0 => Ok(()),
            n => Err(Failure::other(format!(
                "{n} of {} checks failed",
                self.checks.len()
            ))),
        }
    }
}

/// Runs `weft doctor`. Errors: a check failed.
pub(crate) fn doctor(
    program: &dyn Program,
    arguments: &DoctorArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut report = Report::new(output)?;
    report.add_all([version(), machine(), sandbox(program), files()])?;
    report.add_all(data_folder(global)?)?;
    report.add_all([rust(), python()])?;
    // Others are asked last, as they may take their time.
    report.begin("stores");
    report.add_all(stores(program, arguments, global)?)?;
    report.begin("the server");
    report.add(server(global)?)?;
    report.finish()
}

fn version() -> Check {
    let found = format!("weft {}", env!("CARGO_PKG_VERSION"));
    check("version", Verdict::Fine, found, "")
}

fn machine() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let information = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = information.lines().find_map(|line| {
        let kib = line.strip_prefix("MemAvailable:")?.trim();
        kib.strip_suffix(" kB")?.parse::<u64>().ok()
    });
    let available = available.unwrap_or(0) << 10;
    check(
        "machine",
        at_least(available, MEMORY_BYTES_WANTED),
        format!("{cores} cores, {} of memory available", bytes(available)),
        "give jobs a smaller `limits.memory`, or `weft up` fewer `--slots`",
    )
}

fn sandbox(program: &dyn Program) -> Check {
    match program.pools_sandboxes() {
        Ok(true) => {
            let found = "sandboxes come from a pool".into();
            check("sandbox", Verdict::Fine, found, "")
        }
        Ok(false) => check(
            "sandbox",
            Verdict::Warning,
            "the address space is too small for a pool".into(),
            "each sandbox takes longer to start; raise `ulimit -v`",
        ),
        Err(error) => check(
            "sandbox",
            Verdict::Failing,
            error.to_string(),
            "Weft runs on 64-bit Linux, on x86 and ARM",
        ),
    }
}

fn files() -> Check {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let found = match most {
        u64::MAX => "no bound".into(),
        most => format!("{most} at most"),
    };
    check(
        "open files",
        at_least(most, FILES_WANTED),
        found,
        "raise `ulimit -Hn`: connections, components and spilled rows are files",
    )
}

fn data_folder(global: &GlobalArguments) -> Result<Vec<Check>, Failure> {
    let folder = locations::data_dir(global.data.as_deref())?;
    // The folder, or what it will be made in.
    let there = folder.ancestors().find(|path| path.exists());
    let there = there.unwrap_or(Path::new("/"));
    let shown = folder.display();
    let writable = tempfile::tempfile_in(there);
    let mut checks = vec![match writable {
        Ok(_) => check("data folder", Verdict::Fine, format!("`{shown}`"), ""),
        Err(error) => check(
            "data folder",
            Verdict::Failing,
            format!("`{shown}`: {error}"),
            "choose another one with `--data`",
        ),
    }];
    if let Ok(disk) = rustix::fs::statvfs(there) {
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        checks.push(check(
            "disk",
            at_least(free, FREE_BYTES_WANTED),
            format!("{} free", bytes(free)),
            "free some space: shuffles and spilled rows lie there",
        ));
    }
    Ok(checks)
}

/// The places of the buckets that settings of a server name.
fn stores(
    program: &dyn Program,
    arguments: &DoctorArguments,
    global: &GlobalArguments,
) -> Result<Vec<Check>, Failure> {
    let data = locations::data_dir(global.data.as_deref())?;
    let (config, store) = (arguments.config.as_deref(), arguments.store.as_deref());
    Ok(match program.check_stores(&data, config, store) {
        Ok(found) => found.into_iter().map(store_place).collect(),
        Err(error) => vec![check(
            "store",
            Verdict::Failing,
            format!("{error:#}"),
            "correct the settings",
        )],
    })
}

fn store_place(found: StoreCheck) -> Check {
    let StoreCheck { store, uri, access } = found;
    match access {
        StoreAccess::Full {
            clock_off_seconds: Some(off),
        } if off > CLOCK_OFF_SECONDS_MAX => check(
            store,
            Verdict::Warning,
            format!("`{uri}`: its clock and this machine's are {off} seconds apart"),
            "set the clock, such as by NTP: stores refuse requests whose time is wrong",
        ),
        StoreAccess::Full { .. } => check(store, Verdict::Fine, format!("`{uri}`"), ""),
        StoreAccess::Reading(reason) => {
            let found = format!("jobs can read `{uri}`, and write no outputs there");
            check(store, Verdict::Warning, found, &reason)
        }
        StoreAccess::None(reason) => {
            let found = format!("`{uri}` cannot be used");
            check(store, Verdict::Failing, found, &reason)
        }
    }
}

/// The server's answer about itself.
#[derive(Debug, Deserialize)]
struct Health {
    version: String,
}

/// Asks the servers in turn, each for `wall` at most. Returns the first answer about health and token.
///
/// Errors: `Unreachable` if none answers, `Problem` if one refuses.
async fn ask(endpoints: &[String], token: Option<&str>, wall: Duration) -> Result<Health, Failure> {
    for endpoint in endpoints {
        match tokio::time::timeout(wall, health(endpoint, token)).await {
            Ok(Err(Failure::Unreachable(_))) | Err(_) => {}
            Ok(asked) => return asked,
        }
    }
    let none = format!("no server answers at {}", endpoints.join(", "));
    Err(Failure::Unreachable(none))
}

async fn health(endpoint: &str, token: Option<&str>) -> Result<Health, Failure> {
    let client = Client::new(&[endpoint.to_owned()], token)?;
    let health = client.send(&Call::get("/v1/health".into())).await?.read()?;
    client.send(&Call::get("/v1/nodes".into())).await?;
    Ok(health)
}

/// A server that answers and takes the token; or a port that one could listen on.
fn server(global: &GlobalArguments) -> Result<Check, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    let token = token(global)?;
    let asked = runtime.block_on(ask(&global.endpoint, token.as_deref(), SERVER_WALL_MAX));
    let addresses = global.endpoint.join(", ");
    Ok(match asked {
        Ok(health) if health.version == env!("CARGO_PKG_VERSION") => {
            let found = format!("answers on {addresses}, and takes the token");
            check("server", Verdict::Fine, found, "")
        }
        Ok(health) => check(
            "server",
            Verdict::Warning,
            format!("{addresses} is version {}", health.version),
            "use the same version on both sides",
        ),
        Err(Failure::Unreachable(_)) => port(&global.endpoint),
        // An endpoint or a token that cannot be one.
        Err(failure @ Failure::Usage(_)) => return Err(failure),
        Err(failure) => check(
            "server",
            Verdict::Failing,
            failure.to_string(),
            "give its token with `--token`, or its folder with `--data`",
        ),
    })
}

/// Whether one could listen where a server is looked for; where that is another machine, at the
/// usual place.
fn port(endpoints: &[String]) -> Check {
    let here = |endpoint: &String| {
        let address = endpoint.strip_prefix("http://").unwrap_or(endpoint);
        let address = address.replace("localhost", "127.0.0.1");
        let address: Option<SocketAddr> = address.trim_end_matches('/').parse().ok();
        address.filter(|address| address.ip().is_loopback())
    };
    let usual = || LISTEN.parse().expect("an address");
    let address = endpoints.iter().find_map(here).unwrap_or_else(usual);
    match TcpListener::bind(address) {
        Ok(_) => {
            let found = format!("none answers; {address} is free for `weft up`");
            check("server", Verdict::Fine, found, "")
        }
        Err(error) => check(
            "server",
            Verdict::Warning,
            format!("none answers, and {address} is taken ({error})"),
            "choose another address with `weft up --listen`, and name it with `--endpoint`",
        ),
    }
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next()?.trim().to_owned();
    output.status.success().then_some(line)
}

fn rust() -> Check {
    let target = toolchain::TARGET;
    match first_line("rustc", &["--version"]) {
        None => check(
            "Rust",
            Verdict::Warning,
            "no rustc".into(),
            "install it from https://rustup.rs to write functions in Rust",
        ),
        Some(version) if toolchain::has_target(Path::new(".")) => {
            let found = format!("{version} with {target}");
            check("Rust", Verdict::Fine, found, "")
        }
        Some(version) => {
            let found = format!("{version} without {target}");
            let advice = format!("`rustup target add {target}`; `weft build` does so by itself");
            check("Rust", Verdict::Warning, found, &advice)
        }
    }
}

fn python() -> Check {
    python_with(
        first_line("python3", &["--version"]),
        first_line("componentize-py", &["--version"]),
    )
}

/// The check of Python and its tool, by the versions that they print.
fn python_with(python: Option<String>, tool: Option<String>) -> Check {
    match (python, tool) {
        (Some(python), Some(tool)) => {
            let found = format!("{python}, {tool}");
            check("Python", Verdict::Fine, found, "")
        }
        // No warning: the user need not do anything.
        (Some(python), None) => {
            let found = format!("{python}; `weft build` installs componentize-py when it needs it");
            check("Python", Verdict::Fine, found, "")
        }
        (None, _) => check(
            "Python",
            Verdict::Warning,
            "no python3".into(),
            "install it to write functions in Python",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::captured;

    #[test]
    fn each_check_is_written_when_it_is_done() {
        let (mut output, stdout, _) = captured::output(false);
        let mut report = Report::new(&mut output).expect("written");
        let fine = check("disk", Verdict::Fine, "1 GiB free".into(), "");
        report.add(fine).expect("written");
        let lines = "STATUS   CHECK         FOUND\nok       disk          1 GiB free\n";
        assert_eq!(stdout.text(), lines);
        let failing = check("server", Verdict::Failing, "none".into(), "start one");
        report.add(failing).expect("written");
        let failed = report.finish().expect_err("one failed");
        assert_eq!(failed.to_string(), "1 of 2 checks failed");
        assert!(stdout.text().ends_with("none: start one\n"));
    }

    #[test]
    fn programs_read_all_checks_in_one_document() {
        let (mut output, stdout, _) = captured::output(true);
        let mut report = Report::new(&mut output).expect("written");
        report.add(version()).expect("written");
        assert_eq!(stdout.text(), "");
        report.finish().expect("it is fine");
        let document: serde_json::Value = serde_json::from_str(&stdout.text()).expect("JSON");
        assert_eq!(document["checks"][0]["status"], "ok");
    }

    #[test]
    fn a_server_that_is_silent_is_not_waited_for() {
        // The system takes the connection, and nobody reads it.
        let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = silent.local_addr().expect("it is bound");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let endpoints = [format!("http://{address}")];
        let asked = runtime.block_on(ask(&endpoints, None, Duration::from_millis(50)));
        assert!(matches!(asked, Err(Failure::Unreachable(_))));
    }

    #[test]
    fn stores_are_told_of_by_what_jobs_can_do_there() {
        let of = |access| {
            let found = store_place(StoreCheck {
                store: "store.lake".into(),
                uri: "s3://lake/raw".into(),
                access,
            });
            assert_eq!(found.what, "store.lake");
            assert!(found.found.contains("`s3://lake/raw`"), "{}", found.found);
            (found.verdict, found.advice)
        };
        let full = |clock_off_seconds| of(StoreAccess::Full { clock_off_seconds });
        assert_eq!(full(None), (Verdict::Fine, String::new()));
        assert_eq!(full(Some(2)), (Verdict::Fine, String::new()));
        let (verdict, advice) = full(Some(600));
        assert_eq!(verdict, Verdict::Warning);
        assert!(advice.contains("NTP"), "{advice}");
        let reason = || "ask for the right".to_owned();
        let reading = of(StoreAccess::Reading(reason()));
        assert_eq!(reading, (Verdict::Warning, reason()));
        let none = of(StoreAccess::None(reason()));
        assert_eq!(none, (Verdict::Failing, reason()));
    }

    #[test]
    fn a_tool_that_is_installed_when_it_is_needed_is_no_warning() {
        let python = || Some("Python 3.11.2".to_owned());
        let found = python_with(python(), None);
        assert_eq!((found.verdict, found.advice.as_str()), (Verdict::Fine, ""));
        assert!(
            found.found.contains("`weft build` installs"),
            "{}",
            found.found
        );
        let found = python_with(python(), Some("componentize-py 0.25.1".into()));
        assert_eq!(found.found, "Python 3.11.2, componentize-py 0.25.1");
        let found = python_with(None, None);
        assert_eq!(found.verdict, Verdict::Warning);
        assert!(found.advice.starts_with("install it"), "{}", found.advice);
    }
}
