//! Sources, bounds, and the example that is shipped.

use std::collections::BTreeSet;

use sremp_common::entropy::Entropy;
use sremp_common::key::IdentitySecret;
use sremp_common::text::encode_identity_key;

use super::*;

const EXAMPLE: &str = include_str!("../../../deploy/relay.toml");

/// A value other than the default, for every key there is.
const OTHER_VALUES: [(&str, &str); 37] = [
    ("server.listen", "127.0.0.1:1"),
    ("server.advertise", "[\"example.org:7331\"]"),
    ("server.data", "/elsewhere"),
    ("server.max_connections", "7"),
    ("server.max_connections_per_network", "7"),
    ("access.mode", "closed"),
    ("access.allowed", "[\"ID\"]"),
    ("access.banned", "[\"ID\"]"),
    ("mailboxes.max_mailboxes", "7"),
    ("mailboxes.max_total_bytes", "68719476737"),
    ("mailboxes.max_messages", "7"),
    ("mailboxes.max_bytes", "7000000"),
    ("mailboxes.max_blob", "70000"),
    ("mailboxes.retention", "7000"),
    ("mailboxes.stranger_share", "7"),
    ("mailboxes.sender_share", "7"),
    ("mailboxes.pow_difficulty", "7"),
    ("mailboxes.pow_per_minute", "7"),
    ("mailboxes.push_window", "70000"),
    ("rates.new_mailboxes_per_hour", "7"),
    ("rates.stores_per_minute", "7"),
    ("rates.key_packages_per_minute", "7"),
    ("rates.changes_per_minute", "7"),
    ("network.max_half_open", "7"),
    ("network.arrivals_per_minute", "7"),
    ("network.banned", "[\"192.0.2.0/24\"]"),
    ("network.trusted_proxies", "[\"192.0.2.0/24\"]"),
    ("network.drain_timeout", "7"),
    ("metrics.listen", "127.0.0.1:7"),
    ("metrics.allow_remote", "true"),
    ("store.cache_bytes", "7000000"),
    ("store.journal_bytes", "70000"),
    ("store.free_for_mailboxes", "7000000000"),
    ("store.free_for_messages", "7"),
    ("store.reserve_bytes", "7"),
    ("log.level", "debug"),
    ("log.format", "json"),
];

fn variable(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

fn with(key: &str, value: &str) -> Result<Config, ConfigError> {
    load(None, [(variable(key), value.replace("ID", &id()))])
}

/// Somebody's id.
fn id() -> String {
    let secret = IdentitySecret::generate(&mut Entropy::from_number(1));
    encode_identity_key(&secret.public())
}

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

    let mut config: Config = toml::from_str(EXAMPLE).unwrap();
    config.check().unwrap();
    // These have no default that would be right everywhere.
    config.server.data = None;
    config.server.advertise = Vec::new();
    assert_eq!(config, Config::default());
}

#[test]
fn every_key_can_be_set_from_the_environment() {
    let full = Config {
        server: ServerSection { data: Some("/d".into()), ..ServerSection::default() },
        ..Config::default()
    };
    let sections = toml::Table::try_from(full).unwrap();
    let count: usize = sections.values().map(|section| section.as_table().unwrap().len()).sum();
    assert_eq!(count, OTHER_VALUES.len(), "a key is missing from the table of this test");
    for (key, value) in OTHER_VALUES {
        let config = with(key, value).unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_ne!(config, Config::default(), "{key} has no effect");
    }
}

/// Each key of the engine arrives there.
#[test]
fn every_quota_reaches_the_engine() {
    let default = Config::default().engine();
    let of_engine = |key: &str| key.starts_with("mailboxes.") || key.starts_with("rates.");
    for (key, value) in OTHER_VALUES.iter().filter(|(key, _)| of_engine(key)) {
        assert_ne!(with(key, value).unwrap().engine(), default, "{key} has no effect");
    }
}

/// A name in the list of what can be taken over that is no key would be a lie.
#[test]
fn every_live_key_exists() {
    for live in LIVE {
        let is_one = |key: &str| key == live || key.starts_with(&format!("{live}."));
        assert!(OTHER_VALUES.iter().any(|(key, _)| is_one(key)), "{live}");
    }
}

#[test]
fn who_may_open_a_mailbox_reaches_the_engine() {
    let key = decode_identity_key(&id()).unwrap();
    let config = |mode: &str| {
        let allowed = format!("[\"{}\"]", id());
        load(
            None,
            [(variable("access.mode"), mode.to_owned()), (variable("access.allowed"), allowed)],
        )
    };
    for (mode, registration) in [
        ("open", Registration::Everyone),
        ("invite", Registration::Invited),
        ("list", Registration::Only([key].into())),
        ("closed", Registration::Nobody),
    ] {
        assert_eq!(config(mode).unwrap().engine().registration, registration);
    }
    assert_eq!(with("access.banned", "[\"ID\"]").unwrap().access.banned_keys(), [key].into());
}

#[test]
fn the_environment_wins_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.toml");
    let text = "[server]\nlisten = \"127.0.0.1:1\"\ndata = \"d\"\nmax_connections = 20\n";
    std::fs::write(&path, text).unwrap();
    let name = variable("server.listen");
    let config = load(Some(&path), [(name, "127.0.0.1:2".to_owned())]).unwrap();
    assert_eq!(config.server.listen, "127.0.0.1:2");
    assert_eq!(config.server.max_connections, 20);
    assert_eq!(config.server.data.unwrap(), directory.path().join("d"));
}

#[test]
fn what_is_unknown_or_out_of_bounds_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("r.toml");
    for text in [
        "[server]\nlisten_on = \"[::]:1\"",
        "[servers]\n",
        "top = 1",
        "[server]\nlisten = 7331",
        "[server]\nlisten = \"7331\"",
        "[server]\nadvertise = [\"example.org\"]",
        "[server]\nadvertise = [\"example.org:0\"]",
        "[server]\nmax_connections = 0",
        "[mailboxes]\nmax_blob = 4000000",
        "[mailboxes]\nmax_blob = 100",
        "[mailboxes]\nmax_bytes = 100",
        "[mailboxes]\nmax_total_bytes = 100",
        "[mailboxes]\nretention = 1",
        "[access]\nmode = \"friends\"",
        "[access]\nmode = \"list\"",
        "[access]\nallowed = [\"sremp1nobody\"]",
        "[access]\nbanned = [\"192.0.2.1\"]",
        "[mailboxes]\nstranger_share = 101",
        "[mailboxes]\nsender_share = 0",
        "[mailboxes]\npow_difficulty = 41",
        "[mailboxes]\npush_window = 5000000",
        "[mailboxes]\nmax_messages = 0",
        "[mailboxes]\nmax_mailboxes = -1",
        "[store]\ncache_bytes = 0",
        "[store]\njournal_bytes = 7",
        "[store]\nfree_for_mailboxes = 7",
        "[store]\nreserve_bytes = 10000000000",
        "[log]\nlevel = \"loud\"",
    ] {
        std::fs::write(&path, text).unwrap();
        assert!(load(Some(&path), []).is_err(), "{text}");
    }
    assert!(with("server.nothing", "1").is_err());
    assert!(with("nowhere.listen", "1").is_err());
    assert!(load(None, [(format!("{ENV_PREFIX}LISTEN"), "1".to_owned())]).is_err());
    assert!(load(Some(&directory.path().join("missing")), []).is_err());
}
