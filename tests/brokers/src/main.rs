//! Our relay beside what an operator would otherwise take, in one run, on one machine, under one
//! load: `brokers [--quick] [--json] [--only PART]`, by `scripts/bench relay`. docs/benchmarks.md says
//! what each line means.

mod compare;
mod crowd;
mod disk;
#[path = "../../bench/figure.rs"]
mod figure;
mod jetstream;
mod load;
mod machine;
mod mosquitto;
mod ours;
mod postgres;
#[path = "../../it/relay_client.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod relay_client;
mod run;

use std::process::ExitCode;

use run::{Effort, progress};

fn main() -> ExitCode {
    run::run()
}
