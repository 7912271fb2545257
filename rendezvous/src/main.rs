//! The program `sremp-rendezvous`: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    sremp_rendezvous::cli::main()
}
