//! The benchmark: `bench [--quick] [--json]`. Everything that a target was promised for is measured
//! in one run, beside what it is compared with, in several rounds.
//!
//! Progress goes to standard error. The table goes to standard output; with `--json` it goes to
//! standard error, and one JSON object to standard output. Files are made in temporary directories
//! (`TMPDIR` says on which disk), and gone afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a tool for measuring: it reads clocks, starts threads, and stops at what it did not expect"
)]

mod delivery;
mod direct;
mod figure;
mod groups;
mod memory;
mod parts;
mod registry;
mod relay;
mod rendezvous;
mod throughput;

use std::process::ExitCode;

use figure::Report;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds of each figure.
    pub rounds: usize,
    /// Messages of one round of round trips.
    pub trips: usize,
    /// Messages of one round of throughput.
    pub messages: usize,
    /// Milliseconds of one round of cycles at the relay.
    pub relay_ms: u64,
    /// Idle connections at the relay.
    pub connections: usize,
    /// Mebibytes in the registry of a rendezvous server that is killed.
    pub stored_mib: u64,
}

const FULL: Effort = Effort {
    rounds: 5,
    trips: 500,
    messages: 10_000,
    relay_ms: 3_000,
    connections: 3_000,
    stored_mib: 1_024,
};
const QUICK: Effort = Effort {
    rounds: 3,
    trips: 100,
    messages: 2_000,
    relay_ms: 700,
    connections: 1_000,
    stored_mib: 64,
};

fn main() -> ExitCode {
    let mut effort = FULL;
    let mut json = false;
    let mut only = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => effort = QUICK,
            "--json" => json = true,
            "--only" => only = arguments.next(),
            _ => {
                eprintln!(
                    "usage: bench [--quick] [--json] [--only direct|throughput|relay|rendezvous|memory|groups|delivery]"
                );
                return ExitCode::from(2);
            }
        }
    }
    if let Some(name) = &only
        && !["direct", "throughput", "relay", "rendezvous", "memory", "groups", "delivery"]
            .contains(&name.as_str())
    {
        eprintln!("there is nothing called {name}");
        return ExitCode::from(2);
    }
    let mut report = Report::new(effort.rounds);
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    // Memory first: processes of their own, on a machine that is still quiet.
    if wanted("memory") {
        memory::measure(&mut report, effort);
    }
    if wanted("direct") {
        direct::measure(&mut report, effort);
    }
    if wanted("throughput") {
        throughput::measure(&mut report, effort);
    }
    if wanted("groups") {
        groups::measure(&mut report, effort);
    }
    if wanted("delivery") {
        delivery::measure(&mut report, effort);
    }
    if wanted("relay") {
        relay::measure(&mut report, effort);
    }
    if wanted("rendezvous") {
        registry::measure(&mut report, effort);
        rendezvous::measure(&mut report, effort);
    }
    if json {
        eprint!("{}", report.table());
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    ExitCode::SUCCESS
}

/// Says what is being measured.
pub fn progress(what: &str) {
    eprintln!("measuring {what} ...");
}
