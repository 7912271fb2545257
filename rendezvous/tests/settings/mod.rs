//! Every key of the configuration has an effect: with another value the real program does something
//! else. A test here, or one elsewhere that is named, stands for each key.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use sremp_common::text::encode_identity_key;
use sremp_common::wire::{
    Close, Endpoint, ErrorBody, ErrorCode, List, ListServers, Lookup, Message, Register,
};

use super::every_key::{Elsewhere, assert_shown};
use super::support::{
    self, Client, PATIENCE, Person, Server, alpn, connect_from, home, lookup, program, run,
};

const EXAMPLE: &str = include_str!("../../../deploy/rendezvous.toml");
const HERE: &str = include_str!("mod.rs");

/// Keys whose effect another test shows.
const ELSEWHERE: [Elsewhere; 3] = [
    (
        "server.max_connections_per_network",
        include_str!("../process.rs"),
        "connections_of_one_network_are_bounded",
    ),
    (
        "network.max_half_open",
        include_str!("../rough/mod.rs"),
        "n17_known_networks_get_through_a_flood_of_half_open_connections",
    ),
    (
        "limits.wanted_registrations_per_second",
        include_str!("../../src/registry/pace.rs"),
        "load_stretches_intervals_and_calm_brings_them_back",
    ),
];

/// More than any disk has.
const TOO_MUCH: &str = "4611686018427387904";

#[test]
fn every_key_has_an_effect_that_a_test_shows() {
    assert_shown(EXAMPLE, HERE, &ELSEWHERE);
}

fn variable(key: &str) -> String {
    format!("SREMP_RENDEZVOUS__{}", key.replace('.', "__").to_ascii_uppercase())
}

/// A server with these keys, and what is to be seen there.
fn with<R>(keys: &[(&str, &str)], test: impl FnOnce(&Server) -> R) -> R {
    let home = home();
    let variables: Vec<(String, &str)> =
        keys.iter().map(|(key, value)| (variable(key), *value)).collect();
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    test(&Server::start_with(&home, &variables))
}

/// A server all of whose settings come from these keys.
fn without_flags(home: &tempfile::TempDir, keys: &[(&str, &str)]) -> Server {
    let mut command = program(&["--json", "run"]);
    command.current_dir(home.path());
    let path = |name: &str| home.path().join(name);
    command.env(variable("server.listen"), "127.0.0.1:0");
    command.env(variable("server.data"), path("data"));
    command.env(variable("tls.cert"), path("certs/cert.pem"));
    command.env(variable("tls.key"), path("certs/key.pem"));
    for (key, value) in keys {
        command.env(variable(key), value);
    }
    Server::run(home, command)
}

/// Registers somebody, and says why not, with the seconds to wait.
fn register(client: &mut Client, number: u64) -> (Option<ErrorCode>, Option<u32>) {
    let register = client.signed(&Person::new(number), 600, true);
    refusal(client.ask(&Message::Register(register)))
}

fn refusal(answer: Message) -> (Option<ErrorCode>, Option<u32>) {
    match answer {
        Message::Error(ErrorBody { code, retry_after, .. }) => (Some(code), retry_after),
        _ => (None, None),
    }
}

const FINE: (Option<ErrorCode>, Option<u32>) = (None, None);
const NOT_ADMITTED: (Option<ErrorCode>, Option<u32>) = (Some(ErrorCode::NotAdmitted), Some(600));

/// Too soon, with a time to wait that is longer than this.
fn is_too_soon((code, wait): (Option<ErrorCode>, Option<u32>), longer_than: u32) -> bool {
    code == Some(ErrorCode::RateLimited) && wait > Some(longer_than)
}

/// A session with a server that sits behind a proxy, which says whose it is.
fn from_outside(server: &Server, says: &str) -> Option<Client> {
    let mut stream = connect_from(server.address, IpAddr::V4(Ipv4Addr::LOCALHOST));
    stream.write_all(format!("PROXY TCP4 {says} 10.0.0.1 5 7332\r\n").as_bytes()).unwrap();
    Client::over(server, stream, alpn())
}

#[test]
fn server_listen() {
    let home = home();
    let server = without_flags(&home, &[("server.listen", "127.0.0.3:0")]);
    assert_eq!(server.address.ip(), Ipv4Addr::new(127, 0, 0, 3));
}

#[test]
fn server_data() {
    let home = home();
    let data = home.path().join("elsewhere");
    drop(without_flags(&home, &[("server.data", data.to_str().unwrap())]));
    assert!(data.join("registry.redb").exists());
}

#[test]
fn server_max_connections() {
    with(&[("server.max_connections", "2")], |server| {
        let _both = (Client::connect(server), Client::connect(server));
        assert!(Client::try_connect(server, alpn()).is_none());
    });
}

/// The default is five times the patience of the tests.
#[test]
fn server_idle_timeout() {
    with(&[("server.idle_timeout", "10")], |server| {
        let (_, message) = Client::connect(server).read().unwrap();
        assert_eq!(message, Message::Close(Close { code: ErrorCode::TimedOut }));
    });
}

#[test]
fn network_arrivals_per_minute() {
    with(&[("network.arrivals_per_minute", "2")], |server| {
        drop((Client::connect(server), Client::connect(server)));
        assert!(Client::try_connect(server, alpn()).is_none());
    });
}

#[test]
fn network_banned() {
    with(&[("network.banned", "[\"127.0.0.0/8\"]")], |server| {
        assert!(Client::try_connect(server, alpn()).is_none());
    });
}

#[test]
fn network_trusted_proxies() {
    with(&[("network.trusted_proxies", "[\"127.0.0.1/32\"]")], |server| {
        assert!(Client::try_connect(server, alpn()).is_none(), "it must say for whom it comes");
        let mut client = from_outside(server, "192.0.2.1").unwrap();
        let registered = client.register(&Person::new(1), 600, false).unwrap();
        assert_eq!(registered.observed.unwrap().to_string(), "192.0.2.1:5");
    });
}

/// The service manager is told how long a stop may take.
#[test]
fn network_drain_timeout() {
    let home = home();
    let path = home.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let name = variable("network.drain_timeout");
    let variables = [(name.as_str(), "7"), ("NOTIFY_SOCKET", path.to_str().unwrap())];
    assert_eq!(Server::start_with(&home, &variables).terminate(), Some(0));
    let mut buffer = [0; 1_024];
    loop {
        let length = manager.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        if text.contains("STOPPING=1") {
            // Ten seconds more, for what comes after the last client.
            assert!(text.contains("EXTEND_TIMEOUT_USEC=17000000"), "{text}");
            break;
        }
    }
}

fn id(number: u64) -> String {
    encode_identity_key(&Person::new(number).identity.key())
}

#[test]
fn access_mode() {
    for (mode, expected) in [("open", FINE), ("invite", NOT_ADMITTED), ("closed", NOT_ADMITTED)] {
        with(&[("access.mode", mode)], |server| {
            assert_eq!(register(&mut Client::connect(server), 1), expected, "{mode}");
        });
    }
}

#[test]
fn access_allowed() {
    let home = home();
    let list = format!("[access]\nmode = \"list\"\nallowed = [\"{}\"]\n", id(1));
    fs::write(home.path().join("rendezvous.toml"), list).unwrap();
    let server = Server::start_configured(&home, &[]);
    let mut client = Client::connect(&server);
    assert_eq!(register(&mut client, 1), FINE);
    assert_eq!(register(&mut client, 2), NOT_ADMITTED);
}

#[test]
fn access_banned() {
    with(&[("access.banned", &format!("[\"{}\"]", id(1)))], |server| {
        let mut client = Client::connect(server);
        assert_eq!(register(&mut client, 1), NOT_ADMITTED);
        assert_eq!(register(&mut client, 2), FINE);
    });
}

/// Certificate and key from elsewhere: by another authority.
#[test]
fn tls_cert() {
    let (own, other) = (home(), home());
    let cert = other.path().join("certs/cert.pem");
    let key = other.path().join("certs/key.pem");
    let keys = [("tls.cert", cert.to_str().unwrap()), ("tls.key", key.to_str().unwrap())];
    let server = without_flags(&own, &keys);
    assert!(Client::try_connect(&server, alpn()).is_none(), "not by the authority of this home");
    fs::copy(other.path().join("certs/ca.pem"), own.path().join("certs/ca.pem")).unwrap();
    Client::connect(&server);
}

/// The key of another certificate does not fit.
#[test]
fn tls_key() {
    let (own, other) = (home(), home());
    let check = |key: &Path, code: i32| {
        let mut command = program(&["check"]);
        command.env(variable("tls.cert"), own.path().join("certs/cert.pem"));
        command.env(variable("tls.key"), key);
        assert_eq!(command.status().unwrap().code(), Some(code));
    };
    check(&own.path().join("certs/key.pem"), 0);
    check(&other.path().join("certs/key.pem"), 2);
}

#[test]
fn registry_max_entries() {
    with(&[("registry.max_entries", "1")], |server| {
        let mut client = Client::connect(server);
        assert_eq!(register(&mut client, 1), FINE);
        assert_eq!(register(&mut client, 2), (Some(ErrorCode::Unavailable), Some(3_600)));
        assert_eq!(register(&mut client, 1), FINE, "whoever is here can renew");
    });
}

/// People with pictures, until the least room that can be set is used up.
#[test]
fn registry_max_bytes() {
    with(&[("registry.max_bytes", "1048576")], |server| {
        let mut client = Client::connect(server);
        let mut taken = 0;
        let refused = loop {
            let person = Person::with_picture(taken, 16_000);
            let register = client.signed(&person, 600, false);
            match refusal(client.ask(&Message::Register(register))) {
                FINE => taken += 1,
                refused => break refused,
            }
        };
        assert_eq!((taken, refused), (64, (Some(ErrorCode::Unavailable), Some(3_600))));
    });
}

#[test]
fn registry_min_free_bytes() {
    with(&[("registry.min_free_bytes", TOO_MUCH)], |server| {
        let refused = register(&mut Client::connect(server), 1);
        assert_eq!(refused, (Some(ErrorCode::Unavailable), Some(3_600)));
    });
}

#[test]
fn registry_listing() {
    for (listing, expected) in [("true", None), ("false", Some(ErrorCode::Unsupported))] {
        with(&[("registry.listing", listing)], |server| {
            let mut client = Client::connect(server);
            assert_eq!(client.code_of(&Message::Lookup(Lookup::listed(None))), expected);
        });
    }
}

#[test]
fn registry_peers() {
    with(&[("registry.peers", "[\"rendezvous.example.org:7332\"]")], |server| {
        let answer = Client::connect(server).ask(&Message::ListServers(ListServers()));
        let Message::Servers(servers) = answer else { panic!("{answer:?}") };
        assert_eq!(servers.servers[0].to_string(), "rendezvous.example.org:7332");
    });
}

#[test]
fn registry_allow_private_endpoints() {
    for (allowed, expected) in [("false", Some(ErrorCode::NotAllowed)), ("true", None)] {
        let proxies = ("network.trusted_proxies", "[\"127.0.0.1/32\"]");
        with(&[proxies, ("registry.allow_private_endpoints", allowed)], |server| {
            let mut client = from_outside(server, "192.0.2.1").unwrap();
            let inside: Endpoint = "10.0.0.1:7330".parse().unwrap();
            let endpoints = List::new(vec![inside]).unwrap();
            let register: Register = client.signed_at(&Person::new(1), endpoints, 600, false);
            assert_eq!(client.code_of(&Message::Register(register)), expected);
        });
    }
}

/// What is written stays in memory, as far as the cache allows.
#[test]
fn registry_cache_bytes() {
    let resident = |bytes: &str| {
        let keys = [
            ("registry.cache_bytes", bytes),
            ("limits.registrations_per_minute", "1000000"),
            ("limits.new_identities_per_hour", "1000000"),
            ("limits.identities_per_network", "1000000"),
        ];
        with(&keys, |server| {
            let mut client = Client::connect(server);
            for number in 0..1_500 {
                client.register(&Person::with_picture(number, 16_000), 600, false).unwrap();
            }
            server.resident()
        })
    };
    let (small, large) = (resident("1048576"), resident("134217728"));
    assert!(large > small + (10 << 20), "{small} and {large} bytes");
}

#[test]
fn limits_registrations_per_minute() {
    with(&[("limits.registrations_per_minute", "1")], |server| {
        let mut client = Client::connect(server);
        assert_eq!(register(&mut client, 1), FINE);
        assert!(is_too_soon(register(&mut client, 2), 30));
        // Somebody from another network is not concerned.
        let stream = connect_from(server.address, [127, 0, 0, 9].into());
        assert_eq!(register(&mut Client::over(server, stream, alpn()).unwrap(), 2), FINE);
    });
}

#[test]
fn limits_registrations_per_identity_per_minute() {
    with(&[("limits.registrations_per_identity_per_minute", "1")], |server| {
        let mut client = Client::connect(server);
        assert_eq!(register(&mut client, 1), FINE);
        // From whichever network; others are not concerned.
        let stream = connect_from(server.address, [127, 0, 0, 9].into());
        let mut elsewhere = Client::over(server, stream, alpn()).unwrap();
        assert!(is_too_soon(register(&mut elsewhere, 1), 30));
        assert_eq!(register(&mut client, 2), FINE);
    });
}

#[test]
fn limits_new_identities_per_hour() {
    with(&[("limits.new_identities_per_hour", "1")], |server| {
        let mut client = Client::connect(server);
        assert_eq!(register(&mut client, 1), FINE);
        assert!(is_too_soon(register(&mut client, 2), 3_000));
        assert_eq!(register(&mut client, 1), FINE);
    });
}

#[test]
fn limits_lookups_per_minute() {
    with(&[("limits.lookups_per_minute", "1")], |server| {
        let mut client = Client::connect(server);
        assert!(lookup(&mut client, &Person::new(1)).is_none());
        assert!(is_too_soon(refusal(client.ask(&Person::new(1).lookup())), 30));
    });
}

#[test]
fn limits_list_pages_per_minute() {
    with(&[("limits.list_pages_per_minute", "1")], |server| {
        let mut client = Client::connect(server);
        let page = Message::Lookup(Lookup::listed(None));
        assert_eq!(refusal(client.ask(&page)), FINE);
        assert!(is_too_soon(refusal(client.ask(&page)), 30));
    });
}

#[test]
fn limits_identities_per_network() {
    with(&[("limits.identities_per_network", "1")], |server| {
        let mut client = Client::connect(server);
        assert_eq!(register(&mut client, 1), FINE);
        assert_eq!(register(&mut client, 2), (Some(ErrorCode::QuotaExceeded), Some(3_600)));
        let stream = connect_from(server.address, [127, 0, 0, 9].into());
        assert_eq!(register(&mut Client::over(server, stream, alpn()).unwrap(), 2), FINE);
    });
}

#[test]
fn metrics_listen() {
    with(&[("metrics.listen", "127.0.0.1:0")], |server| {
        assert_eq!(super::operator::get(server.metrics.unwrap(), "/livez").0, 200);
    });
    with(&[], |server| assert!(server.metrics.is_none()));
}

#[test]
fn metrics_allow_remote() {
    let home = home();
    let file = home.path().join("rendezvous.toml");
    let check = |allowed: bool, code: i32| {
        let tls = "[tls]\ncert = \"certs/cert.pem\"\nkey = \"certs/key.pem\"\n";
        let text = format!("{tls}[metrics]\nlisten = \"0.0.0.0:0\"\nallow_remote = {allowed}\n");
        fs::write(&file, text).unwrap();
        run(&["--json", "check", "--config", file.to_str().unwrap()], code)
    };
    let error = check(false, 2).json_error();
    assert!(error["message"].as_str().unwrap().contains("metrics.allow_remote"), "{error}");
    assert!(check(true, 0).stdout.contains("without a password"));
}

/// What is logged until the server is ready and a client has come and gone.
fn logged(keys: &[(&str, &str)]) -> Vec<String> {
    let home = home();
    let mut command = program(&support::run_arguments(&home, &[]));
    command.envs(keys.iter().map(|(key, value)| (variable(key), *value)));
    let mut child = command.spawn().unwrap();
    let line = support::first_line(&mut child);
    let address = line.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(support::alert_of(address, b"no TLS, and more than a record's header").is_some());
    support::signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn log_level() {
    assert!(logged(&[("log.level", "error")]).is_empty());
    assert!(logged(&[("log.level", "info")]).iter().any(|line| line.contains("ready")));
    // Whoever turns it up still learns of nobody: addresses are blurred.
    for (more, said) in [
        (("network.max_half_open", "9"), "connection failed"),
        (("network.banned", "[\"127.0.0.0/8\"]"), "turned away"),
    ] {
        let all = logged(&[("log.level", "trace"), more]).join("\n");
        assert!(all.contains(said) && all.contains("127.0.0.x"), "{all}");
        assert!(!all.contains("127.0.0.1") && !all.contains("sremp1"), "{all}");
    }
}

#[test]
fn log_format() {
    for form in ["text", "json"] {
        let lines = logged(&[("log.format", form)]);
        let is_json = |line: &String| serde_json::from_str::<serde_json::Value>(line).is_ok();
        assert!(!lines.is_empty());
        assert!(lines.iter().all(|line| is_json(line) == (form == "json")), "{lines:?}");
    }
}
