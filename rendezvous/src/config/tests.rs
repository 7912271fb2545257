//! Sources, bounds, and the example that is shipped.

use std::collections::BTreeSet;

use sremp_common::entropy::Entropy;
use sremp_common::io::sources::load;
use sremp_common::key::IdentitySecret;
use sremp_common::text::encode_identity_key;

use super::*;

const EXAMPLE: &str = include_str!("../../../deploy/rendezvous.toml");

fn example_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/rendezvous.toml")
}

fn from_text(text: &str) -> Result<Config, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rendezvous.toml");
    std::fs::write(&path, text).unwrap();
    load(Some(&path), [])
}

fn from_env(name: &str, value: &str) -> Result<Config, ConfigError> {
    load(None, [(name.to_owned(), value.replace("ID", &id()))])
}

/// Somebody's id.
fn id() -> String {
    let secret = IdentitySecret::generate(&mut Entropy::from_number(1));
    encode_identity_key(&secret.public())
}

/// A value other than the default, for every key there is.
const OTHER_VALUES: [(&str, &str); 33] = [
    ("server.listen", "127.0.0.1:1"),
    ("server.data", "/elsewhere"),
    ("server.max_connections", "7"),
    ("server.max_connections_per_network", "7"),
    ("server.idle_timeout", "77"),
    ("network.max_half_open", "7"),
    ("network.arrivals_per_minute", "7"),
    ("network.banned", "[\"192.0.2.0/24\"]"),
    ("network.trusted_proxies", "[\"10.0.0.0/8\"]"),
    ("network.drain_timeout", "7"),
    ("access.mode", "closed"),
    ("access.allowed", "[\"ID\"]"),
    ("access.banned", "[\"ID\"]"),
    ("tls.cert", "/a.pem"),
    ("tls.key", "/b.pem"),
    ("registry.max_entries", "7"),
    ("registry.max_bytes", "7000000"),
    ("registry.min_free_bytes", "7000000"),
    ("registry.listing", "false"),
    ("registry.peers", "[\"example.org:7332\"]"),
    ("registry.allow_private_endpoints", "true"),
    ("registry.cache_bytes", "7000000"),
    ("limits.registrations_per_minute", "7"),
    ("limits.registrations_per_identity_per_minute", "7"),
    ("limits.new_identities_per_hour", "7"),
    ("limits.lookups_per_minute", "7"),
    ("limits.list_pages_per_minute", "7"),
    ("limits.identities_per_network", "7"),
    ("limits.wanted_registrations_per_second", "7"),
    ("metrics.listen", "127.0.0.1:9332"),
    ("metrics.allow_remote", "true"),
    ("log.level", "debug"),
    ("log.format", "json"),
];

#[test]
fn the_example_has_every_key_and_the_defaults() {
    let parsed: toml::Table = toml::from_str(EXAMPLE).unwrap();
    let keys: BTreeSet<String> = parsed
        .iter()
        .flat_map(|(section, keys)| {
            keys.as_table().unwrap().keys().map(move |key| format!("{section}.{key}"))
        })
        .collect();
    let known: BTreeSet<String> = OTHER_VALUES.iter().map(|(key, _)| (*key).to_owned()).collect();
    assert_eq!(keys, known);

    let mut config: Config = load(Some(&example_path()), []).unwrap();
    assert!(config.certificate().is_ok());
    // The three paths have no default that would be right everywhere.
    config.server.data = None;
    config.tls = TlsSection::default();
    assert_eq!(config, Config::default());
}

#[test]
fn every_key_can_be_set_from_the_environment() {
    let full = Config {
        server: ServerSection { data: Some("/d".into()), ..ServerSection::default() },
        tls: TlsSection { cert: Some("/c".into()), key: Some("/k".into()) },
        ..Config::default()
    };
    let count: usize = toml::Table::try_from(full)
        .unwrap()
        .values()
        .map(|section| section.as_table().unwrap().len())
        .sum();
    assert_eq!(count, OTHER_VALUES.len(), "a key is missing from the table of this test");
    for (key, value) in OTHER_VALUES {
        let name = format!("{ENV_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase());
        let config = from_env(&name, value).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_ne!(config, Config::default(), "{name} has no effect");
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.toml");
    std::fs::write(&path, "[server]\nlisten = \"127.0.0.1:1\"\nidle_timeout = 20\n").unwrap();
    let name = format!("{ENV_PREFIX}SERVER__LISTEN");
    let config: Config = load(Some(&path), [(name, "127.0.0.1:2".to_owned())]).unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:2");
    assert_eq!(config.server.idle_timeout, 20);
}

#[test]
fn paths_are_meant_from_where_the_file_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.toml");
    std::fs::write(&path, "[tls]\ncert = \"cert.pem\"\nkey = \"/etc/key.pem\"\n").unwrap();
    let config: Config = load(Some(&path), []).unwrap();
    let (cert, key) = config.certificate().unwrap();
    assert_eq!(cert, directory.path().join("cert.pem"));
    assert_eq!(key, Path::new("/etc/key.pem"));
}

#[test]
fn what_is_unknown_or_out_of_bounds_is_refused() {
    for text in [
        "[server]\nlisten_on = \"[::]:1\"",
        "[servers]\n",
        "top = 1",
        "[server]\nlisten = 7332",
        "[server]\nlisten = \"7332\"",
        "[server]\nlisten = \"example.org\"",
        "[server]\nidle_timeout = 9",
        "[server]\nmax_connections = 0",
        "[network]\nmax_half_open = 0",
        "[network]\nbanned = [\"everybody\"]",
        "[network]\ndrain_timeout = 0",
        "[access]\nmode = \"list\"",
        "[access]\nbanned = [\"somebody\"]",
        "[limits]\nidentities_per_network = 0",
        "[metrics]\nlisten = \"0.0.0.0:9332\"",
        "[registry]\nmax_entries = 0",
        "[registry]\nmax_bytes = 10",
        "[registry]\npeers = [\"example.org\"]",
        "[limits]\nlookups_per_minute = 0",
        "[log]\nlevel = \"loud\"",
        "not toml",
    ] {
        assert!(from_text(text).is_err(), "{text}");
    }
    for (name, value) in [
        ("SREMP_RENDEZVOUS__SERVER__LISTEN_ON", "x"),
        ("SREMP_RENDEZVOUS__SERVER", "x"),
        ("SREMP_RENDEZVOUS__NOTHING__LISTEN", "x"),
        ("SREMP_RENDEZVOUS__SERVER__MAX_CONNECTIONS", "many"),
        ("SREMP_RENDEZVOUS__SERVER__MAX_CONNECTIONS", "1\nlisten = \"127.0.0.1:1\""),
    ] {
        assert!(from_env(name, value).is_err(), "{name}={value}");
    }
    assert!(from_env("SREMP_RENDEZVOUS_OTHER", "x").is_ok());
}

/// A name in the list of what can be taken over that is no key would be a lie.
#[test]
fn every_live_key_exists() {
    for live in LIVE {
        let is_one = |key: &str| key == live || key.starts_with(&format!("{live}."));
        assert!(OTHER_VALUES.iter().any(|(key, _)| is_one(key)), "{live}");
    }
}

/// Each key of the registry arrives there.
#[test]
fn every_rule_reaches_the_registry() {
    let default = format!("{:?}", Config::default().registry().unwrap());
    let sections = ["registry.", "limits.", "access."];
    for (key, value) in OTHER_VALUES {
        if !sections.iter().any(|section| key.starts_with(section)) || key == "registry.cache_bytes"
        {
            continue;
        }
        let mut config = from_env(&variable(key), value).unwrap();
        if key == "access.allowed" {
            config.access.mode = AccessMode::List;
        }
        assert_ne!(format!("{:?}", config.registry().unwrap()), default, "{key} has no effect");
    }
}

#[test]
fn what_is_risky_is_said() {
    let quiet = Config { metrics: with_metrics(), ..Config::default() };
    assert!(quiet.risks().iter().all(|risk| risk.contains("open files")), "{:?}", quiet.risks());
    let mut risky = Config::default();
    risky.registry.allow_private_endpoints = true;
    risky.registry.min_free_bytes = 0;
    risky.registry.peers = vec!["localhost:7332".to_owned()];
    risky.limits.identities_per_network = 50_000;
    let said = risky.risks().join("\n");
    for key in [
        "metrics.listen",
        "allow_private",
        "localhost:7332",
        "identities_per_network",
        "min_free_bytes",
    ] {
        assert!(said.contains(key), "{key}: {said}");
    }
}

fn with_metrics() -> MetricsSection {
    MetricsSection { listen: "127.0.0.1:9332".to_owned(), allow_remote: false }
}

fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}
