//! What operators are given says what the programs say: figures in the documents, alerts and
//! dashboard, commands in the documents, paths in the units and packages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use sremp_common::io::metrics::{Family, Kind};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn families() -> Vec<Family> {
    let mut all = sremp_relay::io::operated::families();
    all.extend(sremp_rendezvous::io::operated::families());
    all
}

/// Every word in a text that looks like a figure of ours, or of the process.
fn figures_in(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c| !is_part(c))
        .filter(|word| word.starts_with("sremp_") || word.starts_with("process_"))
        .collect()
}

#[test]
fn the_documents_name_exactly_the_figures_that_are_exported() {
    let document = text("docs/operating.md");
    let rows: BTreeSet<(String, String, String)> = document
        .lines()
        .filter(|line| line.starts_with("| `sremp_") || line.starts_with("| `process_"))
        .map(|line| {
            let cells: Vec<&str> =
                line.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            (cells[1].to_owned(), cells[2].to_owned(), cells[3].to_owned())
        })
        .collect();
    let exported: BTreeSet<(String, String, String)> = families()
        .iter()
        .map(|family| {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let label = family.label.unwrap_or_default();
            (family.name.to_owned(), kind.to_owned(), label.to_owned())
        })
        .collect();
    let missing: Vec<_> = exported.difference(&rows).collect();
    let invented: Vec<_> = rows.difference(&exported).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "missing {missing:?}, invented {invented:?}"
    );
}

/// The values of labels stand in the document, too.
#[test]
fn the_documents_name_the_values_of_labels() {
    let document = text("docs/operating.md");
    let source = text("relay-server/src/io/keeper/figures.rs");
    let codes = source.lines().filter_map(|line| line.trim().strip_prefix("ErrorCode::"));
    let mut values: Vec<&str> = codes.filter_map(|line| line.split('"').nth(1)).collect();
    assert!(values.len() > 10, "{values:?}");
    values.extend([
        "ok",
        "acknowledged",
        "expired",
        "full",
        "network",
        "half_open",
        "rate",
        "banned",
    ]);
    for value in values {
        assert!(document.contains(&format!("`{value}`")), "{value}");
    }
}

#[test]
fn names_follow_the_customs_of_prometheus_and_labels_name_nobody() {
    for family in families() {
        let is_seconds = family.name.ends_with("_seconds");
        match family.kind {
            Kind::Counter => assert!(family.name.ends_with("_total"), "{}", family.name),
            Kind::Gauge => assert!(!family.name.ends_with("_total"), "{}", family.name),
            Kind::Histogram => assert!(is_seconds, "{}", family.name),
        }
        let known =
            [None, Some("version"), Some("result"), Some("reason"), Some("kind"), Some("code")];
        assert!(known.contains(&family.label), "{}: {:?}", family.name, family.label);
    }
}

#[test]
fn alerts_and_dashboard_use_figures_that_exist() {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for family in families() {
        known.insert(family.name.to_owned());
        if family.kind == Kind::Histogram {
            known.extend(["bucket", "sum", "count"].map(|end| format!("{}_{end}", family.name)));
        }
    }
    for path in
        ["deploy/monitoring/alerts.yml", "deploy/monitoring/dashboard.json", "docs/operating.md"]
    {
        let text = text(path);
        let used = figures_in(&text);
        assert!(used.len() > 8, "{path}: {used:?}");
        let unknown: Vec<_> = used.iter().filter(|name| !known.contains(**name)).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
    let dashboard: serde_json::Value =
        serde_json::from_str(&text("deploy/monitoring/dashboard.json")).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 10);
}

#[test]
fn every_alert_says_what_to_do() {
    let alerts = text("deploy/monitoring/alerts.yml");
    let named: BTreeSet<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let document = text("docs/operating.md");
    let explained: BTreeSet<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `Sremp")?.split('`').next())
        .collect();
    let named: BTreeSet<&str> =
        named.iter().map(|name| name.strip_prefix("Sremp").unwrap()).collect();
    assert_eq!(named, explained);
}

/// The units start the programs as they are installed, and the packages install what the units and
/// the documents name.
#[test]
fn units_packages_and_documents_agree_on_places() {
    for (program, package, config) in [
        ("sremp-relay", "relay-server", "relay.toml"),
        ("sremp-rendezvous", "rendezvous", "rendezvous.toml"),
    ] {
        let unit = text(&format!("deploy/systemd/{program}.service"));
        let place = format!("/etc/{program}/{config}");
        for line in [
            "Type=notify".to_owned(),
            format!("ExecStart=/usr/bin/{program} run --config {place}"),
            format!("StateDirectory={program}"),
            format!("User={program}"),
        ] {
            assert!(unit.lines().any(|found| found == line), "{program}: {line}");
        }
        let example = text(&format!("deploy/{config}"));
        assert!(example.contains(&format!("data = \"/var/lib/{program}\"")), "{config}");
        let manifest: toml::Table = text(&format!("{package}/Cargo.toml")).parse().unwrap();
        let deb = &manifest["package"]["metadata"]["deb"];
        assert_eq!(deb["conf-files"][0].as_str(), Some(place.as_str()));
        for asset in deb["assets"].as_array().unwrap() {
            let source = asset[0].as_str().unwrap();
            let exists = root().join(package).join(source).exists();
            assert!(source.starts_with("target/") || exists, "{source}");
        }
        let sysusers = text(&format!("deploy/systemd/{program}.sysusers"));
        assert!(sysusers.contains(&format!("u {program} ")), "{sysusers}");
        assert!(text("docs/operating.md").contains(&place));
    }
}
