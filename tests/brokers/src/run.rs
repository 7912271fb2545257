//! What the command line asks for: which parts, how much of each, and in which form.

use std::process::ExitCode;

use super::figure::Report;
use super::{compare, crowd, disk};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub rounds: usize,
    /// Milliseconds in which is sent, in each run.
    pub window_ms: u64,
    /// Clients that are connected at once.
    pub connections: usize,
}

const FULL: Effort = Effort { rounds: 3, window_ms: 3_000, connections: 10_000 };
const QUICK: Effort = Effort { rounds: 3, window_ms: 700, connections: 2_000 };

const USAGE: &str = "usage: brokers [--quick] [--json] [--rounds NUMBER]
               [--only disk|crowd|ours|Mosquitto|JetStream|\"PostgreSQL polled\"|\"PostgreSQL LISTEN\"]...";

/// Reads the arguments, measures, prints.
pub fn run() -> ExitCode {
    let mut effort = FULL;
    let mut json = false;
    let mut only = Vec::new();
    let mut rounds = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => effort = QUICK,
            "--json" => json = true,
            "--only" => only.extend(arguments.next()),
            "--rounds" => rounds = arguments.next().and_then(|count| count.parse().ok()),
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    effort.rounds = rounds.unwrap_or(effort.rounds).max(1);
    let mut report = Report::new(effort.rounds);
    let is_wanted = |part: &str| only.is_empty() || only.iter().any(|name| name == part);
    if is_wanted("disk") {
        progress("the disk");
        disk::measure(&mut report, effort.rounds);
    }
    let systems: Vec<String> =
        only.iter().filter(|name| !["disk", "crowd"].contains(&name.as_str())).cloned().collect();
    let mut top = serde_json::Map::new();
    if only.is_empty() || !systems.is_empty() {
        let measured = compare::measure(&mut report, effort, &systems);
        top.extend(measured.as_object().cloned().unwrap_or_default());
    }
    if is_wanted("crowd") {
        let mut bytes = crowd::measure(&mut report, effort);
        bytes.sort_by(f64::total_cmp);
        top.insert("idle_connection_bytes".to_owned(), bytes[bytes.len() / 2].into());
    }
    if json {
        eprint!("{}", report.table());
        top.extend(report.json().as_object().cloned().unwrap_or_default());
        println!("{}", serde_json::Value::Object(top));
    } else {
        print!("{}", report.table());
    }
    ExitCode::SUCCESS
}

/// Says what is being measured.
pub fn progress(what: &str) {
    eprintln!("measuring {what} ...");
}
