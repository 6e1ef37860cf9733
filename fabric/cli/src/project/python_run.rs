//! Running Python and its tool, and saying in few words why they failed.
//!
//! ```text
//!   standard error --its last 64 KiB--> traceback --a module is missing--> one line with the remedy
//!                                                 --anything else--> last lines, and the failure
//! ```
//!
//! The tool wraps the sandbox's traceback in one of its own, and adds the stack of its own Rust code.

use std::io::{self, ErrorKind, Read};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::project::build_python::ENTRY;
use crate::terminal::Output;

/// Bytes that are kept of standard error, the last ones.
const SAID_BYTES_MAX: usize = 64 << 10;
/// Bytes that are kept of standard output, the last ones: enough for a component with a thousand functions.
const PRINTED_BYTES_MAX: usize = 8 << 20;
/// Lines of a traceback that are shown, the last ones.
const LINES_MAX: usize = 15;

/// Begins what Python says about a module that is missing; its name and a quote follow.
const MISSING: &str = "ModuleNotFoundError: No module named '";
/// Begins what the tool says if the module cannot be imported in the sandbox.
const WRAPPED: &str = "AssertionError: Traceback (most recent call last):";

/// A program that has ended.
struct Ran {
    succeeded: bool,
    printed: String,
    said: String,
}

/// Runs a program to its end and returns what it printed. Standard error is passed on if it succeeds.
///
/// Errors: `Other` with `what` after the last lines of the traceback, or with the module that is missing.
pub(crate) fn run(
    command: &mut Command,
    what: &str,
    output: &mut Output,
) -> Result<String, Failure> {
    let program = command.get_program().display().to_string();
    let ran =
        ran(command).map_err(|error| Failure::other(format!("cannot run `{program}`: {error}")))?;
    if !ran.succeeded {
        return Err(failed(&ran.said, what, output));
    }
    if !ran.said.trim().is_empty() {
        output.note(ran.said.trim_end());
    }
    Ok(ran.printed)
}

fn ran(command: &mut Command) -> io::Result<Ran> {
    command.stdin(Stdio::null());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    // Both at a time: a program waits while a pipe is full.
    let (printed, said) = std::thread::scope(|scope| {
        let said = scope.spawn(move || end_of(stderr, SAID_BYTES_MAX));
        let printed = end_of(stdout, PRINTED_BYTES_MAX);
        (printed, said.join().expect("reading does not panic"))
    });
    Ok(Ran {
        succeeded: child.wait()?.success(),
        printed,
        said,
    })
}

/// The last `most` bytes of a stream, as text.
fn end_of(mut stream: impl Read, most: usize) -> String {
    let mut kept = Vec::new();
    let mut piece = vec![0; 8 << 10];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => kept.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
        if kept.len() > 2 * most {
            kept.drain(..kept.len() - most);
        }
    }
    let begin = kept.len().saturating_sub(most);
    String::from_utf8_lossy(&kept[begin..]).into_owned()
}

/// The failure of a program, which the end of its traceback precedes on `output`.
fn failed(said: &str, what: &str, output: &mut Output) -> Failure {
    let trace = traceback(said);
    if let Some(module) = missing_module(trace) {
        return Failure::other(cannot_import(module, line_of_app(trace)));
    }
    let lines: Vec<&str> = trace.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LINES_MAX)..];
    if !shown.is_empty() {
        output.note(&shown.join("\n"));
    }
    Failure::other(what)
}

/// Python's own words: without the traceback that the tool puts around them, and its stack.
fn traceback(said: &str) -> &str {
    let said = said.split("\nStack backtrace:").next().unwrap_or(said);
    let inner = said.split_once(WRAPPED).map(|(_, inner)| inner);
    // The cause repeats the last line.
    let inner = inner.and_then(|inner| inner.split("\nCaused by:").next());
    inner.unwrap_or(said).trim_matches('\n').trim_end()
}

/// The module that is missing, if that is what the program failed over. Packages with native parts make an
/// `ImportError` of it, with advice of their own.
fn missing_module(trace: &str) -> Option<&str> {
    let lines: Vec<&str> = trace.lines().collect();
    let last = lines
        .iter()
        .rposition(|line| line.trim_start().starts_with(MISSING))?;
    let after = &lines[last + 1..];
    let is_cause = after.iter().any(|line| line.starts_with("ImportError:"));
    let name = lines[last].trim_start().strip_prefix(MISSING)?;
    (after.is_empty() || is_cause).then(|| name.split('\'').next().unwrap_or(name))
}

/// The line of the user's module that was running.
fn line_of_app(trace: &str) -> Option<&str> {
    let (_, rest) = trace.rsplit_once(&format!("/{ENTRY}\", line "))?;
    rest.split(|c: char| !c.is_ascii_digit()).next()
}

fn cannot_import(module: &str, line: Option<&str>) -> String {
    let place = line.map_or_else(String::new, |line| format!(" (`{ENTRY}`, line {line})"));
    let package = module.split('.').next().unwrap_or(module);
    // By convention the native parts of packages.
    let is_native = module.split('.').any(|part| part.starts_with('_'));
    let install = match is_native {
        true => String::new(),
        false => format!(" (`pip install --target . {package}`)"),
    };
    format!(
        "module `{module}` cannot be imported{place}: packages must be pure Python, which numpy and pandas are not, and lie in the project's folder{install}; native extensions and the network are not in the sandbox"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::captured;

    /// How the tool says that an import has failed.
    fn of_tool(error: &str) -> String {
        format!(
            "Traceback (most recent call last):\n  File \"/bin/componentize-py\", line 8, in <module>\n    sys.exit(script())\n\
             {WRAPPED}\n  File \"/1/weft_app.py\", line 1, in <module>\n    import app\n  File \"/0/app.py\", line 2, in <module>\n    \
             import ssl\n  File \"/python/ssl.py\", line 100, in <module>\n{error}\n\n\nCaused by:\n    {error}\n\n\
             Stack backtrace:\n   0: <anyhow::Error>::msg\n   1: anyhow::__private::format_err\n"
        )
    }

    #[track_caller]
    fn check(said: &str, noted: &str, parts: &[&str]) {
        let (mut output, _, stderr) = captured::output(false);
        let failure = failed(said, "it failed", &mut output).to_string();
        for part in parts {
            assert!(failure.contains(part), "`{failure}` lacks `{part}`");
        }
        assert!(!failure.contains('\n'), "{failure}");
        assert_eq!(stderr.text(), noted);
    }

    #[test]
    fn a_module_that_is_missing_is_one_line_with_the_remedy() {
        let said = "Traceback (most recent call last):\n  File \"/p/app.py\", line 3, in <module>\n    import pandas\n\
                    ModuleNotFoundError: No module named 'pandas'\n";
        let parts = [
            "module `pandas` cannot be imported (`app.py`, line 3): ",
            "(`pip install --target . pandas`)",
            "native extensions",
        ];
        check(said, "", &parts);
        let said = "ModuleNotFoundError: No module named 'a.b'; 'a' is not a package";
        check(said, "", &["module `a.b` cannot", "--target . a`"]);
    }

    #[test]
    fn a_native_module_cannot_be_installed() {
        let said = of_tool("ModuleNotFoundError: No module named '_ssl'");
        let place = "module `_ssl` cannot be imported (`app.py`, line 2): ";
        check(&said, "", &[place, "in the project's folder; native"]);
        let numpy = "ModuleNotFoundError: No module named 'numpy._core._multiarray_umath'\n\nDuring handling of the above \
                     exception, another exception occurred:\n\nImportError:\n\nIMPORTANT: PLEASE READ THIS\n";
        check(
            &of_tool(numpy),
            "",
            &["module `numpy._core._multiarray_umath` cannot"],
        );
    }

    #[test]
    fn other_failures_come_after_the_end_of_their_traceback() {
        let lines: Vec<String> = (0..100).map(|n| format!("line {n}")).collect();
        let noted = format!("{}\n", lines[100 - LINES_MAX..].join("\n"));
        check(&lines.join("\n"), &noted, &["it failed"]);
        let said = format!("{MISSING}x'\nValueError: no\n");
        check(&said, &said, &["it failed"]);
        check("", "", &["it failed"]);
        let said = of_tool("ValueError: no");
        let noted = "  File \"/1/weft_app.py\", line 1, in <module>\n    import app\n  \
                     File \"/0/app.py\", line 2, in <module>\n    import ssl\n  \
                     File \"/python/ssl.py\", line 100, in <module>\nValueError: no\n";
        check(&said, noted, &["it failed"]);
    }

    #[test]
    fn what_a_program_writes_is_bounded_and_passed_on() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let (mut output, _, stderr) = captured::output(false);
            let printed = run(&mut command, "it failed", &mut output);
            (printed.ok(), stderr.text())
        };
        let (printed, noted) = shell("echo printed; echo said >&2");
        assert_eq!(
            (printed.as_deref(), noted.as_str()),
            (Some("printed\n"), "said\n")
        );
        let (printed, noted) = shell("head -c 1000000 /dev/zero | tr '\\0' x >&2; exit 1");
        assert_eq!((printed, noted.len()), (None, SAID_BYTES_MAX + 1));
    }
}
