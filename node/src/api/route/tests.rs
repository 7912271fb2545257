//! The client's and the server's half undo each other.

use super::*;
use crate::api::{ErrorKind, Flag, PathPolicy};

/// Names that are awkward in a path.
const AWKWARD: &[&str] = &[
    "bob",
    "a/b",
    "a?b=c&d",
    "100%",
    "%2F",
    "..",
    "a b",
    "\u{e9}\u{1F600}",
    "#x",
    "",
    "trust",
    "group:club",
    "\u{1B}[2J\n",
];

/// One of every command, with text that is awkward in a path wherever text goes.
fn every_command(text: &str) -> Vec<Command> {
    use Command as C;
    let s = || text.to_owned();
    let server: sremp_common::wire::Endpoint = "[2001:db8::1]:7332".parse().unwrap();
    let name = sremp_common::name::Username::new("ann \u{e9}").unwrap();
    vec![
        C::Status,
        C::Link { once: false },
        C::Link { once: true },
        C::LinkRevoke,
        C::ContactAdd { what: s(), alias: Some(s()) },
        C::ContactAdd { what: s(), alias: None },
        C::ContactList,
        C::ContactShow { who: s() },
        C::ContactAlias { who: s(), alias: s() },
        C::ContactTrust { who: s() },
        C::ContactVerify { who: s() },
        C::ContactReject { who: s() },
        C::ContactReset { who: s() },
        C::ContactPath { who: s(), path: Some(PathPolicy::Direct) },
        C::ContactPath { who: s(), path: None },
        C::ContactRemove { who: s() },
        C::Peers { name: Some(s()) },
        C::Peers { name: None },
        C::RequestsList,
        C::RequestsAccept { who: s() },
        C::RequestsDecline { who: s() },
        C::Send { to: s(), text: s(), reply_to: Some(s()) },
        C::Send { to: s(), text: s(), reply_to: None },
        C::React { with: s(), message: s(), reaction: Some(s()) },
        C::React { with: s(), message: s(), reaction: None },
        C::Edit { with: s(), message: s(), text: s() },
        C::Delete { with: s(), message: s() },
        C::TimerShow { with: s() },
        C::TypingShow { with: s() },
        C::TypingTell { with: s(), typing: true },
        C::TimerSet { with: s(), seconds: Some(60) },
        C::TimerSet { with: s(), seconds: None },
        C::MessageShow { id: s() },
        C::History { with: s(), limit: 7, before: Some(s()) },
        C::History { with: s(), limit: 7, before: None },
        C::MarkRead { with: s() },
        C::Events { after: Some(u64::MAX), limit: 3 },
        C::Events { after: None, limit: 3 },
        C::GroupCreate { name: s(), members: vec![s(), s()], suite: None },
        C::GroupCreate { name: s(), members: vec![s()], suite: Some(s()) },
        C::GroupList,
        C::GroupShow { group: s() },
        C::GroupAdd { group: s(), who: vec![s()] },
        C::GroupRemove { group: s(), who: s() },
        C::GroupPromote { group: s(), who: s() },
        C::GroupDemote { group: s(), who: s() },
        C::GroupRename { group: s(), name: s() },
        C::GroupLeave { group: s() },
        C::RelayAdd { link: s() },
        C::RelayRemove { relay: s() },
        C::RelayMigrate { relay: s(), link: s() },
        C::RelayList,
        C::RelayAllow { who: s() },
        C::RelayDisallow { who: s() },
        C::RendezvousAdd(ServerOptions {
            server: server.clone(),
            ca: Some("/etc/ca.pem".into()),
            invite: Some(s()),
        }),
        C::RendezvousAdd(ServerOptions { server: server.clone(), ca: None, invite: None }),
        C::RendezvousRemove { server },
        C::RendezvousList,
        C::IdentityShow,
        C::IdentityRename { name },
        C::IdentityFlag { flag: Flag::IsMachineAccount, on: true },
        C::IdentityPicture { bytes: vec![0, 255] },
        C::IdentityRotateNoiseKey,
        C::IdentityRotateTokens,
    ]
}

fn there_and_back(request: &Request) -> Result<Request, ApiError> {
    let HttpForm { method, target, body } = encode(request);
    assert!(target.is_ascii() && !target.contains([' ', '#', '\n']), "{target}");
    decode(method.word(), &target, &body)
}

#[test]
fn every_command_survives_http() {
    for text in AWKWARD {
        for command in every_command(text) {
            // The page of events is the one place where a fixed word stands where a name could.
            let request = Request::Command(command);
            assert_eq!(there_and_back(&request).unwrap(), request, "{text:?}");
        }
        let wait = Request::Wait { id: (*text).to_owned(), state: MessageState::Read, timeout: 5 };
        assert_eq!(there_and_back(&wait).unwrap(), wait);
    }
    for after in [None, Some(0), Some(u64::MAX)] {
        let watch = Request::Watch { after };
        assert_eq!(there_and_back(&watch).unwrap(), watch);
    }
}

#[test]
fn no_two_commands_share_a_resource() {
    let mut seen = std::collections::BTreeMap::new();
    for command in every_command("bob") {
        let HttpForm { method, target, .. } = encode(&Request::Command(command.clone()));
        let path = target.split('?').next().unwrap().to_owned();
        let before = seen.insert((method.word(), path.clone()), command.name());
        assert!(before.is_none_or(|name| name == command.name()), "{method} {path}");
    }
}

fn refused(method: &str, target: &str, body: &str) -> ErrorKind {
    decode(method, target, body.as_bytes()).unwrap_err().code
}

#[test]
fn what_is_not_a_resource() {
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/v1"),
        ("GET", "/v1/"),
        ("GET", "/v2/status"),
        ("POST", "/v1/status"),
        ("BREW", "/v1/status"),
        ("GET", "/v1/status/"),
        ("GET", "http://localhost/v1/status"),
    ] {
        assert_eq!(refused(method, target, ""), ErrorKind::NotFound, "{method} {target}");
    }
}

#[test]
fn what_is_wrong_about_a_request() {
    for (method, target, body) in [
        ("POST", "/v1/messages", ""),
        ("POST", "/v1/messages", "{\"to\":\"bob\"}"),
        ("POST", "/v1/messages", "{\"to\":\"bob\",\"text\":\"x\",\"replyto\":\"y\"}"),
        ("POST", "/v1/messages", "{\"to\":\"bob\",\"text\":\"x\"} x"),
        ("POST", "/v1/contacts/bob/trust", "{\"really\":true}"),
        ("GET", "/v1/contacts/%FF", ""),
        ("GET", "/v1/contacts/%2", ""),
        ("GET", "/v1/peers?nmae=bob", ""),
        ("GET", "/v1/events?after=-1", ""),
        ("GET", "/v1/conversations/bob/messages?limit=x", ""),
        ("GET", "/v1/messages/1/wait?state=sideways", ""),
        ("POST", "/v1/rendezvous", "{\"server\":\"nowhere\"}"),
        ("POST", "/v1/rendezvous", "{\"server\":\"a.example:1\",\"ca\":\"ca.pem\"}"),
        ("PUT", "/v1/identity/name", "{\"name\":\"\\u202e\"}"),
        ("PUT", "/v1/identity/flags/is_relay_server", "{\"on\":true}"),
    ] {
        assert_eq!(refused(method, target, body), ErrorKind::Usage, "{method} {target} {body}");
    }
    let long = format!("/v1/contacts/{}", "x".repeat(MAX_PATH));
    assert_eq!(refused("GET", &long, ""), ErrorKind::Usage);
    let big = vec![0; MAX_PICTURE + 1];
    assert_eq!(decode("PUT", "/v1/identity/picture", &big).unwrap_err().code, ErrorKind::Usage);
}

/// `docs/api.md` lists exactly the resources that there are.
#[test]
fn the_document_lists_every_resource() {
    use std::collections::BTreeSet;
    let document = include_str!("../../../../docs/api.md");
    let listed: BTreeSet<String> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(resource, _)| resource)
        .filter(|resource| resource.contains(" /"))
        .map(|resource| {
            let path = resource.split('?').next().unwrap();
            let mut path = path.replace("{server}", "%5B2001%3Adb8%3A%3A1%5D%3A7332");
            path = path.replace("{flag}", "is_machine_account");
            for word in ["{who}", "{with}", "{group}", "{id}", "{relay}"] {
                path = path.replace(word, "bob");
            }
            path
        })
        .collect();
    let mut requests: Vec<Request> = every_command("bob").into_iter().map(Request::from).collect();
    requests.push(Request::Wait { id: "bob".into(), state: MessageState::Sent, timeout: 1 });
    requests.push(Request::Watch { after: None });
    let known: BTreeSet<String> = requests
        .iter()
        .map(|request| {
            let HttpForm { method, target, .. } = encode(request);
            let path = target.split('?').next().unwrap();
            format!("{method} {}", path.strip_prefix("/v1").unwrap())
        })
        .collect();
    assert_eq!(listed, known);
}
