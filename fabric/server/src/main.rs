//! The `weft` binary: one program that is the server, its children, and the command line.

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}
