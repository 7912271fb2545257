//! `sremp`: the daemon and its command line in one program.

use std::process::ExitCode;

use sremp_node::cli::run::{Shell, main as command_line};
use sremp_node::io;

fn main() -> ExitCode {
    command_line(Shell { init: io::init, run: io::run, check: io::check })
}
