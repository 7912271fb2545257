//! Runs many seeds on all cores: `sweep [mixed | groups | split | hard] [--seeds COUNT] [--from FIRST]`.
//! A seed that fails prints itself and how the run went; the exit code says whether any did. To look
//! at one of them, `--log FILTER` (as `sremp_node=debug`) prints what its machines log, on one core.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "this is a command-line tool, and says how long it took"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use sremp_sim::{GroupReport, Knobs};

/// What all runs came to.
#[derive(Default)]
struct Sums {
    failed: AtomicUsize,
    messages: AtomicUsize,
    changes: AtomicUsize,
    switches: AtomicUsize,
    virtual_seconds: AtomicU64,
    slowest: AtomicU64,
}

impl Sums {
    fn add(&self, report: &GroupReport) {
        self.messages.fetch_add(report.messages, Ordering::Relaxed);
        self.changes.fetch_add(report.changes, Ordering::Relaxed);
        self.switches.fetch_add(report.switches, Ordering::Relaxed);
        self.virtual_seconds.fetch_add(report.virtual_seconds, Ordering::Relaxed);
        self.slowest.fetch_max(report.settled_after, Ordering::Relaxed);
    }
}

fn main() -> ExitCode {
    let mut seeds = 100;
    let mut from = 0;
    let mut story = "mixed".to_owned();
    let mut log = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--log" {
            log = arguments.next();
            continue;
        }
        let mut value = || arguments.next().and_then(|value| value.parse::<u64>().ok());
        let known = match argument.as_str() {
            "mixed" | "groups" | "split" | "hard" => {
                story = argument;
                true
            }
            "--seeds" => value().map(|value| seeds = value).is_some(),
            "--from" => value().map(|value| from = value).is_some(),
            _ => false,
        };
        if !known {
            eprintln!(
                "usage: sweep [mixed | groups | split | hard] [--seeds COUNT] [--from FIRST] [--log FILTER]"
            );
            return ExitCode::from(2);
        }
    }
    let began = Instant::now();
    if let Some(filter) = &log {
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_ansi(false).init();
    }
    let sums = sweep(&story, from, seeds, log.is_some());
    let failed = sums.failed.into_inner();
    let messages = sums.messages.into_inner();
    print!("{story}: {seeds} seeds, {messages} messages, ");
    if story != "mixed" {
        print!(
            "{} changes, {} switches of a member, {} virtual hours, all agreed within {} virtual s, ",
            sums.changes.into_inner(),
            sums.switches.into_inner(),
            sums.virtual_seconds.into_inner() / 3600,
            sums.slowest.into_inner()
        );
    }
    println!("{failed} failed, in {} s", began.elapsed().as_secs());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn sweep(story: &str, from: u64, seeds: u64, alone: bool) -> Sums {
    let next = AtomicU64::new(from);
    let sums = Sums::default();
    // The panics of failed seeds are printed once, below.
    std::panic::set_hook(Box::new(|_| {}));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if alone { 1 } else { cores };
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from.saturating_add(seeds) {
                return;
            }
            match std::panic::catch_unwind(|| run(story, seed)) {
                Ok(report) => sums.add(&report),
                Err(cause) => {
                    sums.failed.fetch_add(1, Ordering::Relaxed);
                    let text = cause.downcast_ref::<String>().cloned().unwrap_or_default();
                    println!("{text}\n");
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    sums
}

fn run(story: &str, seed: u64) -> GroupReport {
    match story {
        "groups" => sremp_sim::run_group_seed(seed, &Knobs::default()),
        "split" => sremp_sim::run_group_seed(seed, &Knobs::split()),
        "hard" => sremp_sim::run_group_seed(seed, &Knobs::hard()),
        _ => {
            let messages = sremp_sim::run_seed(seed).messages;
            GroupReport { messages, ..GroupReport::default() }
        }
    }
}
