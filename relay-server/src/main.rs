//! The program `sremp-relay`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sremp_relay::cli::main()
}
