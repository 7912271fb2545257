//! A flood: `flood [--quick] [--json]`. Starts the relay beside it, lets well-behaved clients use
//! it, floods it meanwhile, fills its disk, and kills it. Every phase ends by itself. Exit code 1 when a promise is broken.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measuring program: a broken assumption shall stop the run"
)]

mod crowd;
mod disk;
mod honest;
mod program;
mod restart;

#[path = "../it/relay_client.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod relay_client;

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::crowd::Crowd;
use crate::honest::Honest;
use crate::program::{Relay, resident_peak};

/// What an honest client may wait at most, at the 99th percentile.
const PROMISED_P99: Duration = Duration::from_secs(1);
/// Resident memory of the relay at most.
const PROMISED_BYTES: u64 = 256 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let seconds = if has("--quick") { 4 } else { 12 };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut results = runtime.block_on(floods(Duration::from_secs(seconds)));
    results.push(runtime.block_on(disk::fill()));
    results.push(runtime.block_on(restart::measure(if has("--quick") { 64 } else { 1024 })));
    let is_kept = results.iter().all(|result| result["kept"] == true);
    if has("--json") {
        println!("{}", json!({"kept": is_kept, "phases": results}));
    } else {
        for result in &results {
            println!("{}", line(result));
        }
    }
    if is_kept { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

/// One line for people.
fn line(result: &Value) -> String {
    let fields = result.as_object().unwrap();
    let rest: Vec<String> = fields
        .iter()
        .filter(|(name, _)| !["phase", "kept"].contains(&name.as_str()))
        .map(|(name, value)| format!("{}={value}", name.replace('_', " ")))
        .collect();
    let verdict = if result["kept"] == true { "ok    " } else { "BROKEN" };
    format!("{verdict} {}: {}", result["phase"].as_str().unwrap(), rest.join(", "))
}

async fn floods(long: Duration) -> Vec<Value> {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(&directory.path().join("data"), "[rates]\nstores_per_minute = 0\n");
    let honest = Honest::start(&relay).await;
    let mut results = Vec::new();
    for crowd in [
        Crowd::Nobody,
        Crowd::Handshakes { per_second: 5_000, addresses: 200 },
        Crowd::HalfOpen { connections: 10_000, addresses: 200 },
        Crowd::Dripping { connections: 1_000, addresses: 200 },
    ] {
        eprintln!("{} ...", crowd.name());
        honest.forget();
        let tally = crowd.flood(relay.address, long).await;
        let peak = resident_peak(relay.process());
        let (store, dial, failed) = honest.figures();
        let p99 = store.p99.max(dial.p99);
        results.push(json!({
            "phase": crowd.name(),
            "attempts": tally.attempts, "answered": tally.answered, "cut_off": tally.cut_off,
            "store_p99_ms": millis(store.p99), "stores": store.count,
            "dial_p99_ms": millis(dial.p99), "dials": dial.count, "failed_dials": failed,
            "relay_peak_mib": peak >> 20,
            "kept": p99 <= PROMISED_P99 && failed == 0 && store.count > 0 && peak <= PROMISED_BYTES,
        }));
    }
    let (stored, lost) = honest.end().await;
    results.push(json!({
        "phase": "what was acknowledged", "stored": stored, "lost": lost, "kept": lost == 0,
    }));
    results
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
