//! What an operator and his monitoring see and do, on the real program.
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::Value;
use sremp_common::text::decode_invite;
use sremp_common::wire::{ErrorCode, Message};
use tempfile::TempDir;

use super::support::{self, Client, Person, Server, home, lookup, run};

/// A server whose configuration is a file, so that it can be changed.
fn start(home: &TempDir, more: &str) -> Server {
    write_config(home, more);
    Server::start_configured(home, &[])
}

fn write_config(home: &TempDir, more: &str) {
    fs::write(home.path().join("rendezvous.toml"), more).unwrap();
}

/// Asks the server in `home`.
fn ask(home: &TempDir, arguments: &[&str], code: i32) -> support::Printed {
    let data = home.path().join("data");
    let mut all = vec!["--json"];
    all.extend(arguments);
    all.extend(["--data", data.to_str().unwrap()]);
    run(&all, code)
}

pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:0\"\n";

#[test]
fn monitoring_sees_every_figure_and_nobody() {
    let home = home();
    let server = start(&home, METRICS);
    let metrics = server.metrics.unwrap();
    let mut client = Client::connect(&server);
    client.register(&Person::new(1), 600, true).unwrap();
    assert_eq!(get(metrics, "/livez").0, 200);
    assert_eq!(get(metrics, "/readyz").0, 200);
    let (_, text) = get(metrics, "/metrics");
    let exported: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let promised = sremp_rendezvous::io::operated::families();
    assert_eq!(exported, promised.iter().map(|family| family.name).collect());
    for line in [
        "sremp_rendezvous_online 1\n",
        "sremp_rendezvous_registrations_total{result=\"new\"} 1\n",
        "sremp_rendezvous_renewal_stretch_percent 100\n",
        "sremp_connections_open 1\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    // Nobody is named: no id, no key, no address.
    assert!(!text.contains("sremp1") && !text.contains("127.0.0.1"), "{text}");
}

#[test]
fn a_reload_takes_over_what_it_can_and_keeps_the_old_when_it_cannot() {
    let home = home();
    let server = start(&home, "");
    let mut client = Client::connect(&server);
    client.register(&Person::new(1), 600, true).unwrap();

    write_config(&home, "[access]\nmode = \"closed\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n");
    let answer = ask(&home, &["reload"], 0).json();
    assert_eq!(answer["summary"], "taken over: access.mode; these need a restart: metrics.listen");
    let refused = client.register(&Person::new(2), 600, true).unwrap_err();
    assert_eq!(refused, ErrorCode::NotAdmitted);
    client.register(&Person::new(1), 600, true).unwrap();

    // Wrong: loud, and nothing changes.
    write_config(&home, "[access]\nmode = \"open\"\n[limits]\nlookups_per_minute = 0\n");
    let error = ask(&home, &["reload"], 5).json_error();
    assert!(error["message"].as_str().unwrap().contains("lookups_per_minute"), "{error}");
    server.wait_for_log("the old one stays");
    assert_eq!(client.register(&Person::new(2), 600, true), Err(ErrorCode::NotAdmitted));

    // SIGHUP does the same; the log's level is one of the things taken over.
    write_config(&home, "[log]\nlevel = \"debug\"\n");
    server.hang_up();
    server.wait_for_log("taken over: access.mode, log.level");
    client.register(&Person::new(2), 600, true).unwrap();
    drop(client);
    server.wait_for_log("connection closed");
}

#[test]
fn a_backup_is_a_registry_that_can_be_started() {
    let home = home();
    let server = start(&home, "");
    let mut client = Client::connect(&server);
    let alice = Person::new(1);
    client.register(&alice, 3_600, true).unwrap();
    let copy = home.path().join("copy.redb");
    let copied = ask(&home, &["backup", copy.to_str().unwrap()], 0).json();
    assert!(copied["rows"].as_u64().unwrap() >= 3, "{copied}");
    // What comes later is not in it, and nothing is overwritten.
    client.register(&Person::new(2), 3_600, true).unwrap();
    let error = ask(&home, &["backup", copy.to_str().unwrap()], 5).json_error();
    assert!(error["message"].as_str().unwrap().contains("exists already"), "{error}");
    assert_eq!(ask(&home, &["expire"], 0).json()["removed"], 0);
    ask(&home, &["compact"], 0);
    assert!(lookup(&mut client, &alice).unwrap().online);

    let other = support::home();
    fs::create_dir(other.path().join("data")).unwrap();
    support::make_private(&other.path().join("data"));
    fs::copy(&copy, other.path().join("data/registry.redb")).unwrap();
    let restored = start(&other, "");
    let mut client = Client::connect(&restored);
    assert!(lookup(&mut client, &alice).unwrap().online);
    assert!(lookup(&mut client, &Person::new(2)).is_none());
}

#[test]
fn bans_hold_over_restarts_and_can_be_lifted() {
    let home = home();
    let server = start(&home, "");
    Client::connect(&server);
    ask(&home, &["ban", "127.0.0.0/8"], 0);
    assert!(Client::try_connect(&server, support::alpn()).is_none());
    assert_eq!(server.terminate(), Some(0));
    let server = start(&home, "");
    assert!(Client::try_connect(&server, support::alpn()).is_none());
    assert_eq!(ask(&home, &["bans"], 0).json()["added"][0], "127.0.0.0/8");
    ask(&home, &["unban", "127.0.0.0/8"], 0);
    Client::connect(&server);
    assert_eq!(ask(&home, &["unban", "127.0.0.0/8"], 5).json_error()["code"], "refused");
    let refused = ask(&home, &["status"], 0).json()["connections"]["refused"]["banned"].as_u64();
    assert_eq!(refused, Some(1));
}

#[test]
fn connections_are_shown_and_drain_ends_them() {
    let home = home();
    let server = start(&home, METRICS);
    let mut client = Client::connect(&server);
    assert!(lookup(&mut client, &Person::new(1)).is_none());
    let shown = ask(&home, &["connections"], 0).json();
    assert_eq!(shown["open"], 1);
    assert!(shown["connections"][0]["address"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert_eq!(shown["connections"][0]["established"], true);
    assert_eq!(ask(&home, &["drain"], 0).json()["draining"], true);
    assert_eq!(server.wait(), Some(0));
    assert!(client.read().is_some(), "the goodbye");
    assert!(client.read().is_none());
}

#[test]
fn the_service_manager_is_told() {
    let home = home();
    write_config(&home, "");
    let path = home.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let hear = |wanted: &str| {
        let mut buffer = [0; 1_024];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("{wanted}: {e}"));
            let text = std::str::from_utf8(&buffer[..length]).unwrap();
            if text.lines().any(|line| line == wanted) {
                return;
            }
        }
    };
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "200000")];
    let server = Server::start_configured(&home, &environment);
    hear("READY=1");
    hear("WATCHDOG=1");
    server.hang_up();
    hear("RELOADING=1");
    hear("READY=1");
    assert_eq!(server.terminate(), Some(0));
    hear("STOPPING=1");
}

#[test]
fn check_says_what_is_risky() {
    let home = home();
    let config = home.path().join("rendezvous.toml");
    let tls = "[tls]\ncert = \"certs/cert.pem\"\nkey = \"certs/key.pem\"\n";
    fs::write(&config, format!("{tls}[registry]\nallow_private_endpoints = true\n")).unwrap();
    let checked = run(&["--json", "check", "--config", config.to_str().unwrap()], 0).json();
    let risks: Vec<&str> =
        checked["risks"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(risks.iter().any(|risk| risk.starts_with("registry.allow_private_endpoints")));
    assert!(risks.iter().any(|risk| risk.starts_with("metrics.listen")), "{risks:?}");
}

/// Registers somebody who shows an invitation, or none, and says why not.
fn register(client: &mut Client, number: u64, invite: Option<&str>) -> Option<ErrorCode> {
    let mut register = client.signed(&Person::new(number), 600, true);
    register.invite = invite.map(|text| decode_invite(text).unwrap());
    client.code_of(&Message::Register(register))
}

#[test]
fn invitations_are_made_shown_and_taken_back() {
    let home = home();
    let server = start(&home, "[access]\nmode = \"invite\"\n");
    let mut client = Client::connect(&server);
    assert_eq!(register(&mut client, 1, None), Some(ErrorCode::NotAdmitted));
    let made = ask(&home, &["invite", "new"], 0).json();
    let once = made["invite"].as_str().unwrap();
    assert_eq!(ask(&home, &["invite", "list"], 0).json()["invitations"][0]["uses"], 1);
    assert_eq!(register(&mut client, 1, Some(once)), None);
    assert_eq!(register(&mut client, 2, Some(once)), Some(ErrorCode::NotAdmitted));
    assert_eq!(ask(&home, &["invite", "list"], 0).json()["invitations"], Value::Array(vec![]));

    // People see nothing but what they are to pass on. It is there after a sudden death, and in a
    // copy; whoever came in by it stays when it is taken back.
    let data = home.path().join("data");
    let data = data.to_str().unwrap();
    let many = run(&["invite", "new", "--uses", "9", "--days", "1", "--data", data], 0).stdout;
    let many = many.trim();
    assert_eq!(register(&mut client, 2, Some(many)), None);
    server.kill();
    let server = start(&home, "[access]\nmode = \"invite\"\n");
    let mut client = Client::connect(&server);
    assert_eq!(register(&mut client, 3, Some(many)), None);
    assert_eq!(ask(&home, &["invite", "revoke", many], 0).json()["revoked"], true);
    assert_eq!(register(&mut client, 4, Some(many)), Some(ErrorCode::NotAdmitted));
    assert_eq!(register(&mut client, 3, None), None);
    assert_eq!(ask(&home, &["invite", "revoke", many], 5).json_error()["code"], "refused");
    ask(&home, &["invite", "revoke", "nonsense"], 5);
    ask(&home, &["invite", "new", "--uses", "0"], 5);
}
