//! The real program: its command line, its TLS, its signals, and what is left after SIGKILL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    reason = "all of this is test code, helpers included"
)]

#[path = "../../tests/it/every_key.rs"]
mod every_key;
mod operator;
mod rough;
mod settings;
mod support;

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;
use sremp_common::wire::{ErrorCode, Lookup, Message};

use support::{Client, Person, Server, alert_of, home, lookup, program, run};

#[test]
fn what_was_registered_survives_sigkill() {
    let home = home();
    let alice = Person::new(1);
    let bob = Person::new(2);
    let (before, observed) = {
        let server = Server::start(&home);
        let mut client = Client::connect(&server);
        let registered = client.register(&alice, 3_600, true).unwrap();
        assert!((1_575..=1_800).contains(&registered.renewal_interval));
        client.register(&bob, 3_600, false).unwrap();
        let found = lookup(&mut client, &alice).unwrap();
        assert!(found.online);
        assert_eq!(found.identity, *alice.identity.identity());
        server.kill();
        (found, registered.observed.unwrap())
    };
    assert!(observed.to_string().starts_with("127.0.0.1:"));

    let server = Server::start(&home);
    let mut client = Client::connect(&server);
    assert_eq!(lookup(&mut client, &alice).unwrap(), before);
    assert!(lookup(&mut client, &bob).unwrap().online);
    let Message::LookupResponse(listed) = client.ask(&Message::Lookup(Lookup::listed(None))) else {
        panic!()
    };
    assert_eq!(listed.peers.len(), 1);
    // An older version is still refused.
    let stale = client.register(&alice.with_version(0), 3_600, true).unwrap_err();
    assert_eq!(stale, ErrorCode::Stale);
    assert_eq!(server.terminate(), Some(0));
}

#[test]
fn r02_a_registration_is_worth_nothing_in_another_session() {
    let home = home();
    let other_home = support::home();
    let (server, other) = (Server::start(&home), Server::start(&other_home));
    let alice = Person::new(1);
    let mut first = Client::connect(&server);
    let register = first.signed(&alice, 600, false);
    // At another server, and in another session of this one, before and after its use.
    let replay = |client: &mut Client| client.code_of(&Message::Register(register.clone()));
    let mut again = Client::connect(&server);
    assert_eq!(replay(&mut Client::connect(&other)), Some(ErrorCode::AuthenticationFailed));
    assert_eq!(replay(&mut again), Some(ErrorCode::AuthenticationFailed));
    assert_eq!(replay(&mut first), None);
    assert_eq!(replay(&mut again), Some(ErrorCode::AuthenticationFailed));
    assert!(lookup(&mut Client::connect(&other), &alice).is_none());
    assert_ne!(first.exporter, again.exporter);
}

#[test]
fn only_tls_1_3_and_only_this_protocol() {
    let home = home();
    let server = Server::start(&home);
    // A ClientHello that offers TLS 1.2 and nothing newer: alert 70 is protocol_version.
    assert_eq!(alert_of(server.address, &support::client_hello_of_tls_1_2()), Some(70));
    // No TLS at all.
    assert!(alert_of(server.address, b"SREMP\x01\x00 and more than a record's header").is_some());
    // Another protocol, or none: closed before the server's header.
    for protocols in [vec![b"h2".to_vec()], vec![]] {
        assert!(Client::try_connect(&server, protocols).is_none());
    }
    // No tickets: a session cannot be resumed.
    let mut client = Client::connect(&server);
    assert!(lookup(&mut client, &Person::new(1)).is_none());
    assert_eq!(client.tickets(), 0);
}

#[test]
fn a_new_certificate_is_taken_without_a_restart() {
    let home = home();
    let server = Server::start(&home);
    let mut old_session = Client::connect(&server);
    let renewed = home.path().join("renewed");
    run(&["dev-cert", renewed.to_str().unwrap(), "127.0.0.1", "localhost"], 0);
    fs::copy(renewed.join("cert.pem"), home.path().join("certs/cert.pem")).unwrap();
    server.hang_up();
    server.wait_for_log("the configuration cannot be taken over; the old one stays");
    // Half of the change: the old certificate stays.
    Client::connect(&server);
    fs::copy(renewed.join("key.pem"), home.path().join("certs/key.pem")).unwrap();
    server.hang_up();
    server.wait_for_log("the configuration was read again");
    fs::copy(renewed.join("ca.pem"), home.path().join("certs/ca.pem")).unwrap();
    Client::connect(&server);
    // Sessions that stand are not disturbed.
    assert!(lookup(&mut old_session, &Person::new(1)).is_none());
}

#[test]
fn sigterm_ends_sessions_with_a_word() {
    let home = home();
    let server = Server::start(&home);
    let mut client = Client::connect(&server);
    assert!(lookup(&mut client, &Person::new(1)).is_none());
    assert_eq!(server.terminate(), Some(0));
    let (_, message) = client.read().unwrap();
    let Message::Close(close) = message else { panic!("{message:?}") };
    assert_eq!(close.code, ErrorCode::Unavailable);
    assert!(client.read().is_none());
    assert!(!home.path().join("data/control.sock").exists());
}

#[test]
fn status_tells_numbers_and_whether_there_is_a_server() {
    let home = home();
    let data = home.path().join("data");
    let data = data.to_str().unwrap();
    let none = run(&["--json", "status", "--data", data], 3);
    assert_eq!(none.json_error()["code"], "not_running");
    let server = Server::start(&home);
    let mut client = Client::connect(&server);
    client.register(&Person::new(1), 600, true).unwrap();
    let status = run(&["status", "--json", "--data", data], 0).json();
    assert_eq!(status["registry"]["online"], 1);
    assert_eq!(status["registry"]["listed"], 1);
    assert_eq!(status["registry"]["counters"]["registered"], 1);
    assert_eq!(status["connections"]["open"], 1);
    assert_eq!(status["listening"], server.address.to_string());
    let text = run(&["status", "--data", data], 0).stdout;
    assert!(text.contains("online: 1"), "{text}");
    let mode = fs::metadata(home.path().join("data/control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Nobody else may have the same data.
    let second = run(&support::run_arguments(&home, &["--json"]), 1);
    let message = second.json_error()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("another process is using this data directory"), "{message}");
}

#[test]
fn connections_of_one_network_are_bounded() {
    let home = home();
    let name = "SREMP_RENDEZVOUS__SERVER__MAX_CONNECTIONS_PER_NETWORK";
    let server = Server::start_with(&home, &[(name, "2")]);
    let first = Client::connect(&server);
    let _second = Client::connect(&server);
    assert!(Client::try_connect(&server, support::alpn()).is_none());
    drop(first);
    server.wait_for_open_connections(&home, 1);
    Client::connect(&server);
}

#[test]
fn what_cannot_be_understood_is_refused_with_a_reason() {
    let home = home();
    let certs = home.path().join("certs");
    let config = home.path().join("rendezvous.toml");
    let path = config.to_str().unwrap();
    let good = "[server]\nlisten = \"127.0.0.1:0\"\n[tls]\ncert = \"certs/cert.pem\"\nkey = \"certs/key.pem\"\n";
    fs::write(&config, good).unwrap();
    assert_eq!(run(&["--json", "check", "--config", path], 0).json()["ok"], true);
    for (text, reason) in [
        ("[server]\nlistem = 1\n", "listem"),
        ("[tls]\ncert = \"certs/cert.pem\"\n", "no certificate"),
        ("[tls]\ncert = \"certs/cert.pem\"\nkey = \"certs/no.pem\"\n", "no.pem"),
        ("[tls]\ncert = \"certs/cert.pem\"\nkey = \"certs/ca.pem\"\n", "can be read by everybody"),
    ] {
        fs::write(&config, text).unwrap();
        for program in
            [&["check", "--json", "--config", path][..], &["run", "--json", "--config", path]]
        {
            let failed = run(program, 2);
            assert_eq!(failed.json_error()["code"], "config");
            let message = failed.json_error()["message"].as_str().unwrap().to_owned();
            assert!(message.contains(reason), "{message}");
            assert_eq!(failed.stdout, "");
        }
    }
    run(&["check", "--config", "/no/such/file"], 2);
    for usage in [&["run", "--cert", "x"][..], &["dance"], &["dev-cert", "x"], &[]] {
        run(usage, 2);
    }
    assert_eq!(run(&["--json", "dance"], 2).json_error()["code"], "usage");
    let exists = run(&["--json", "dev-cert", certs.to_str().unwrap(), "localhost"], 1);
    assert!(exists.json_error()["message"].as_str().unwrap().contains("exists already"));
    assert!(run(&["--version"], 0).stdout.contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_ready_line_is_what_scripts_wait_for() {
    let home = home();
    for (json, prefix) in [(false, "sremp-rendezvous ready: listening on 127.0.0.1:"), (true, "{")]
    {
        let flags: &[&str] = if json { &["--json"] } else { &[] };
        let mut child = program(&support::run_arguments(&home, flags)).spawn().unwrap();
        let line = support::first_line(&mut child);
        assert!(line.starts_with(prefix), "{line}");
        if json {
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["event"], "ready");
            assert!(value["listening"].as_str().unwrap().starts_with("127.0.0.1:"));
        }
        support::signal(&child, "TERM");
        let mut rest = String::new();
        child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

#[test]
fn a_server_whose_outputs_are_gone_serves_on() {
    // Closed; a pipe that nobody reads; a disk that is full.
    for gone in ["2>&- >&-", "", "2>/dev/full >/dev/full"] {
        let home = home();
        let script = format!("exec \"$0\" \"$@\" {gone}");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_sremp-rendezvous")]);
        command.args(support::run_arguments(&home, &[]));
        command.env("SREMP_RENDEZVOUS__LOG__LEVEL", "trace");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        let status = support::wait_for_status(&home, |status| status["listening"].is_string());
        let address = status["listening"].as_str().unwrap().parse().unwrap();
        // Each of them is logged.
        for _ in 0..3 {
            assert!(alert_of(address, b"no TLS, and more than a record's header").is_some());
        }
        support::wait_for_status(&home, |status| status["connections_failed"] == 3);
        run(&["reload", "--data", home.path().join("data").to_str().unwrap()], 0);
        support::signal(&child, "TERM");
        assert_eq!(child.wait().unwrap().code(), Some(0), "{gone}");
    }
}
