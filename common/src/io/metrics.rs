//! Figures for monitoring, in the text format of Prometheus (version 0.0.4): which there are, and
//! a page with all of them. Names are fixed here and in the servers, so that documents, alerts and
//! dashboards can be held against them. No label ever names a person or an address.

pub mod process;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a figure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, from the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often something took how long.
    Histogram,
}

/// A figure, or one for each value of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// As monitoring knows it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// What tells its members apart.
    pub label: Option<&'static str>,
}

impl Family {
    /// A counter; its name ends with `_total`.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Counter, help, label: None }
    }

    /// A gauge.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Gauge, help, label: None }
    }

    /// A histogram of seconds; its name ends with `_seconds`.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: Kind::Histogram, help, label: None }
    }

    /// One figure for each value of `label`.
    #[must_use]
    pub const fn by(mut self, label: &'static str) -> Self {
        self.label = Some(label);
        self
    }
}

/// A page in the making.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    /// Whose head stands on the page.
    families: Vec<&'static str>,
}

impl Page {
    /// The value of a figure without a label.
    pub fn put(&mut self, family: &Family, value: u64) {
        self.head(family);
        self.line(family.name, "", value);
    }

    /// The same in seconds.
    pub fn put_seconds(&mut self, family: &Family, value: Duration) {
        self.head(family);
        self.line(family.name, "", value.as_secs_f64());
    }

    /// The values of a figure for the values of its label. All of a family stand together.
    pub fn put_each<'v>(
        &mut self,
        family: &Family,
        values: impl IntoIterator<Item = (&'v str, u64)>,
    ) {
        self.head(family);
        let label = family.label.unwrap_or("kind");
        for (is, value) in values {
            self.line(family.name, &format!("{{{label}=\"{}\"}}", escaped(is)), value);
        }
    }

    /// A histogram.
    pub fn put_histogram(&mut self, family: &Family, histogram: &Histogram) {
        self.head(family);
        let mut below = 0_u64;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            below = below.saturating_add(count.load(Ordering::Relaxed));
            let label = format!("{{le=\"{}\"}}", bound.as_secs_f64());
            self.line(&format!("{}_bucket", family.name), &label, below);
        }
        let all = below.saturating_add(histogram.beyond.load(Ordering::Relaxed));
        self.line(&format!("{}_bucket", family.name), "{le=\"+Inf\"}", all);
        let sum = Duration::from_micros(histogram.micros.load(Ordering::Relaxed));
        self.line(&format!("{}_sum", family.name), "", sum.as_secs_f64());
        self.line(&format!("{}_count", family.name), "", all);
    }

    /// The families on the page, in their order.
    #[must_use]
    pub fn families(&self) -> &[&'static str] {
        &self.families
    }

    /// The finished text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.text
    }

    fn head(&mut self, family: &Family) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.families.push(family.name);
        let Family { name, help, .. } = family;
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &str, value: impl std::fmt::Display) {
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Bounds from half a millisecond to ten seconds.
const BOUNDS: [Duration; 14] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Counts how long things took; may be shared between threads.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [Duration; 14],
    counts: [AtomicU64; 14],
    beyond: AtomicU64,
    micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            bounds: &BOUNDS,
            counts: Default::default(),
            beyond: AtomicU64::new(0),
            micros: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        let at = self.bounds.partition_point(|bound| *bound < took);
        self.counts.get(at).unwrap_or(&self.beyond).fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        const OPEN: Family = Family::gauge("x_open", "Open now.");
        const REFUSED: Family = Family::counter("x_refused_total", "Refused.").by("reason");
        const TOOK: Family = Family::histogram("x_seconds", "Time.");
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_micros(1_001));
        histogram.observe(Duration::from_secs(11));
        let mut page = Page::default();
        page.put(&OPEN, 3);
        page.put_each(&REFUSED, [("full", 1), ("a\"b\\c\nd", 2)]);
        page.put_histogram(&TOOK, &histogram);
        assert_eq!(page.families(), ["x_open", "x_refused_total", "x_seconds"]);
        let text = page.into_text();
        for line in [
            "# HELP x_open Open now.\n# TYPE x_open gauge\nx_open 3\n",
            "x_refused_total{reason=\"full\"} 1\n",
            "x_refused_total{reason=\"a\\\"b\\\\c\\nd\"} 2\n",
            "# TYPE x_seconds histogram\nx_seconds_bucket{le=\"0.0005\"} 0\n",
            "x_seconds_bucket{le=\"0.001\"} 1\nx_seconds_bucket{le=\"0.0025\"} 2\n",
            "x_seconds_bucket{le=\"10\"} 2\nx_seconds_bucket{le=\"+Inf\"} 3\n",
            "x_seconds_sum 11.002001\nx_seconds_count 3\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
