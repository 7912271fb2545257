//! All systems in turn, in several rounds, and what follows from a comparison of their figures.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::figure::{Report, Target, millis, percentile};
use crate::load::{Outcome, Plan, System, run};
use crate::ours::{Ours, Relay};
use crate::postgres::{self, Mode, Postgres};
use crate::{Effort, jetstream, mosquitto, progress};

/// Senders, and as many mailboxes.
const SIZES: [usize; 3] = [1, 16, 64];
/// The size that is compared.
const MANY: usize = 64;

/// The systems, in the order in which they are measured.
const SYSTEMS: [&str; 5] = [OURS, MOSQUITTO, JETSTREAM, POLLED, LISTENED];
const OURS: &str = "ours";
const MOSQUITTO: &str = "Mosquitto";
const JETSTREAM: &str = "JetStream";
const POLLED: &str = "PostgreSQL polled";
const LISTENED: &str = "PostgreSQL LISTEN";

/// One figure of a round.
#[derive(Clone, Copy, Debug)]
struct Measured {
    per_s: f64,
    sent_per_s: f64,
    p50: f64,
    p99: f64,
}

/// Rounds, by system and senders; no senders stands for half of the peak load.
type Rounds = BTreeMap<(&'static str, usize), Vec<Measured>>;

/// Measures the systems that are wanted; what `--json` gives at its top.
pub fn measure(report: &mut Report, effort: Effort, wanted: &[String]) -> serde_json::Value {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let is_wanted = |system: &str| wanted.is_empty() || wanted.iter().any(|name| name == system);
    let mut rounds = Rounds::new();
    let directory = tempfile::tempdir().unwrap();
    let mut database = None;
    for round in 0..effort.rounds {
        let place = directory.path().join(round.to_string());
        std::fs::create_dir(&place).unwrap();
        for system in SYSTEMS.into_iter().filter(|system| is_wanted(system)) {
            progress(&format!("{system}, round {}", round + 1));
            let mut bench = Bench { runtime: &runtime, effort, rounds: &mut rounds, name: system };
            match system {
                OURS => ours(&mut bench, &place),
                MOSQUITTO => {
                    let (_server, system) = mosquitto::start(&place);
                    bench.all(&system);
                }
                JETSTREAM => {
                    let (_server, system) = jetstream::start(&place);
                    bench.all(&system);
                }
                _ => {
                    let data = database.get_or_insert_with(|| postgres::create(directory.path()));
                    let (_server, address) = postgres::start(data);
                    let mode = if system == POLLED { Mode::Poll } else { Mode::Listen };
                    bench.all(&Postgres { address, mode });
                }
            }
        }
    }
    tell(report, &rounds);
    compare(report, &rounds)
}

fn ours(bench: &mut Bench<'_>, place: &Path) {
    let relay = Relay::start(place, "127.0.0.1:0");
    bench.all(&Ours::new(&relay));
}

/// One system in one round.
struct Bench<'b> {
    runtime: &'b Runtime,
    effort: Effort,
    rounds: &'b mut Rounds,
    name: &'static str,
}

impl Bench<'_> {
    fn all<S: System>(&mut self, system: &S) {
        // Warm: what is allocated, compiled or opened once is.
        let warm = Plan { pairs: 4, window: Duration::from_millis(200), rate: None };
        self.check(&self.runtime.block_on(run(system, warm)));
        let window = Duration::from_millis(self.effort.window_ms);
        let mut peak = 0.0;
        for pairs in SIZES {
            let plan = Plan { pairs, window, rate: None };
            let outcome = self.runtime.block_on(run(system, plan));
            peak = outcome.per_s;
            self.note(pairs, outcome);
        }
        if self.name != LISTENED {
            let plan = Plan { pairs: MANY, window, rate: Some(peak / 2.0) };
            let outcome = self.runtime.block_on(run(system, plan));
            self.note(0, outcome);
        }
    }

    fn note(&mut self, size: usize, mut outcome: Outcome) {
        self.check(&outcome);
        let mut at = |share| millis(percentile(&mut outcome.latencies, share));
        let measured = Measured {
            p50: at(50),
            p99: at(99),
            per_s: outcome.per_s,
            sent_per_s: outcome.sent_per_s,
        };
        self.rounds.entry((self.name, size)).or_default().push(measured);
    }

    fn check(&self, outcome: &Outcome) {
        let Outcome { undelivered, messages, .. } = *outcome;
        assert_eq!(undelivered, 0, "{}: {undelivered} of {messages} undelivered", self.name);
        assert!(messages > 0, "{}: nothing was sent", self.name);
    }
}

/// Every figure of every system.
fn tell(report: &mut Report, rounds: &Rounds) {
    for size in SIZES.into_iter().chain([0]) {
        for system in SYSTEMS {
            let Some(measured) = rounds.get(&(system, size)) else { continue };
            let column =
                |value: fn(&Measured) -> f64| -> Vec<f64> { measured.iter().map(value).collect() };
            let target = (system == OURS && size == 0).then_some(Target::AtMost(50.0));
            let load = match size {
                0 => "half of its peak load".to_owned(),
                1 => "1 sender".to_owned(),
                size => format!("{size} senders"),
            };
            report.add(&format!("{system}: {load}"), "cycles/s", &column(|one| one.per_s), None);
            if size != 0 {
                let sent = column(|one| one.sent_per_s);
                report.add("  acknowledged while they sent", "messages/s", &sent, None);
            }
            report.add("  p50 from send to receipt", "ms", &column(|one| one.p50), None);
            report.add("  p99 from send to receipt", "ms", &column(|one| one.p99), target);
        }
    }
}

/// Ours beside the others, round by round, with as many senders as are compared.
fn compare(report: &mut Report, rounds: &Rounds) -> serde_json::Value {
    let column = |system: &str, value: fn(&Measured) -> f64| -> Vec<f64> {
        let measured = SYSTEMS.iter().find(|name| **name == system);
        let measured = measured.and_then(|name| rounds.get(&(*name, MANY)));
        measured.into_iter().flatten().map(value).collect()
    };
    let per_s = |system| column(system, |one| one.per_s);
    let better = |one: Vec<f64>, other: Vec<f64>, choose: fn(f64, f64) -> f64| match other.len() {
        0 => one,
        _ if one.is_empty() => other,
        _ => one.iter().zip(&other).map(|(one, other)| choose(*one, *other)).collect(),
    };
    let postgres = better(per_s(POLLED), per_s(LISTENED), f64::max);
    let ours = per_s(OURS);
    let mut ratio = |name: &str, above: &[f64], below: &[f64], target| {
        let ratios: Vec<f64> = above.iter().zip(below).map(|(one, other)| one / other).collect();
        if !ratios.is_empty() {
            report.add(name, "times", &ratios, target);
        }
    };
    ratio("ours over the better PostgreSQL", &ours, &postgres, Some(Target::AtLeast(1.2)));
    ratio("ours over JetStream", &ours, &per_s(JETSTREAM), Some(Target::AtLeast(0.6)));
    ratio("ours over Mosquitto", &ours, &per_s(MOSQUITTO), None);
    let p99 = |system| column(system, |one| one.p99);
    let worse = better(p99(POLLED), p99(JETSTREAM), f64::min);
    ratio("p99 of ours over the lower of theirs", &p99(OURS), &worse, Some(Target::AtMost(1.0)));
    serde_json::json!({
        "ours_per_s": median(&ours),
        "mosquitto_per_s": median(&per_s(MOSQUITTO)),
        "nats_per_s": median(&per_s(JETSTREAM)),
        "postgres_per_s": median(&postgres),
    })
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
