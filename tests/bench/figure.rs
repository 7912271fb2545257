//! Figures: values of several rounds, their median and spread, what was promised, and how all of it
//! is printed.

use std::fmt::Write as _;
use std::time::Duration;

/// What was promised.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

/// One measured quantity.
#[derive(Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    rounds: Vec<f64>,
    target: Option<Target>,
}

impl Figure {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.rounds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        }
    }

    fn is_reached(&self) -> Option<bool> {
        self.target.map(|target| match target {
            Target::AtMost(bound) => self.median() <= bound,
            Target::AtLeast(bound) => self.median() >= bound,
        })
    }
}

/// Everything that was measured.
#[derive(Debug)]
pub struct Report {
    rounds: usize,
    figures: Vec<Figure>,
}

impl Report {
    pub fn new(rounds: usize) -> Self {
        Self { rounds, figures: Vec::new() }
    }

    /// One figure, from the values of its rounds.
    pub fn add(&mut self, name: &str, unit: &'static str, rounds: &[f64], target: Option<Target>) {
        assert!(!rounds.is_empty(), "{name} was not measured");
        self.figures.push(Figure { name: name.to_owned(), unit, rounds: rounds.to_vec(), target });
    }

    pub fn table(&self) -> String {
        let mut out = String::new();
        let width = self.figures.iter().map(|figure| figure.name.len()).max().unwrap_or(0);
        let head = ["median", "min", "max", "unit", "target", ""];
        let _ = writeln!(
            out,
            "{:width$} {:>10} {:>10} {:>10} {:10} {:>10} {}",
            "", head[0], head[1], head[2], head[3], head[4], head[5]
        );
        for figure in &self.figures {
            let sorted = figure.sorted();
            let target = match figure.target {
                Some(Target::AtMost(bound)) => format!("<= {}", number(bound)),
                Some(Target::AtLeast(bound)) => format!(">= {}", number(bound)),
                None => String::new(),
            };
            let verdict = match figure.is_reached() {
                Some(true) => "reached",
                Some(false) => "MISSED",
                None => "",
            };
            let line = format!(
                "{:width$} {:>10} {:>10} {:>10} {:10} {target:>10} {verdict}",
                figure.name,
                number(figure.median()),
                number(sorted[0]),
                number(sorted[sorted.len() - 1]),
                figure.unit,
            );
            let _ = writeln!(out, "{}", line.trim_end());
        }
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let _ = writeln!(out, "{} rounds each (memory: 3), {cpus} processors", self.rounds);
        out
    }

    pub fn json(&self) -> serde_json::Value {
        let figures: Vec<serde_json::Value> = self
            .figures
            .iter()
            .map(|figure| {
                let sorted = figure.sorted();
                let target = figure.target.map(|target| match target {
                    Target::AtMost(bound) => serde_json::json!({ "at_most": bound }),
                    Target::AtLeast(bound) => serde_json::json!({ "at_least": bound }),
                });
                serde_json::json!({
                    "name": figure.name,
                    "unit": figure.unit,
                    "median": figure.median(),
                    "min": sorted[0],
                    "max": sorted[sorted.len() - 1],
                    "rounds": figure.rounds,
                    "target": target,
                    "reached": figure.is_reached(),
                })
            })
            .collect();
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        serde_json::json!({ "processors": cpus, "figures": figures })
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// The value below which `share` percent of the durations lie.
pub fn percentile(durations: &mut [Duration], share: usize) -> Duration {
    durations.sort_unstable();
    durations[(durations.len() - 1) * share / 100]
}

pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
