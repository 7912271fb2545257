//! Runs many seeds on all cores: `sweep --seeds COUNT [--from FIRST]`. A seed that fails prints
//! itself and how the run went; the exit code says whether any did.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command-line tool")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

fn main() -> ExitCode {
    let mut seeds = 100;
    let mut from = 0;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse::<u64>().ok());
        match (argument.as_str(), value) {
            ("--seeds", Some(value)) => seeds = value,
            ("--from", Some(value)) => from = value,
            _ => {
                eprintln!("usage: sweep [--seeds COUNT] [--from FIRST]");
                return ExitCode::from(2);
            }
        }
    }
    let next = AtomicU64::new(from);
    let failed = AtomicUsize::new(0);
    let messages = AtomicUsize::new(0);
    // The panics of failed seeds are printed once, below.
    std::panic::set_hook(Box::new(|_| {}));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from.saturating_add(seeds) {
                        return;
                    }
                    match std::panic::catch_unwind(|| sremp_sim::run_seed(seed)) {
                        Ok(report) => {
                            messages.fetch_add(report.messages, Ordering::Relaxed);
                        }
                        Err(cause) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            let text = cause.downcast_ref::<String>().cloned().unwrap_or_default();
                            println!("{text}\n");
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{seeds} seeds, {} messages, {failed} failed", messages.into_inner());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
