//! What can be typed, what it means, and what is refused.

use std::path::Path;

use clap::CommandFactory as _;

use super::plan::{Plan, Show, plan};
use super::*;
use crate::api::{Command as C, InitOptions, ServerOptions};

fn words(line: &str) -> Result<Action, clap::Error> {
    let words = std::iter::once("sremp").chain(line.split(' ').filter(|word| !word.is_empty()));
    CommandLine::try_parse_from(words).map(|line| line.action)
}

fn planned(line: &str) -> Plan {
    plan(words(line).unwrap_or_else(|error| panic!("{line}: {error}")), Path::new("/here"))
}

#[test]
fn the_grammar_is_sound() {
    CommandLine::command().debug_assert();
}

#[test]
#[expect(clippy::too_many_lines, reason = "one line for each action")]
fn every_action_means_its_command() {
    let s = str::to_owned;
    let who = || s("bob");
    let group = || s("club");
    let server: Endpoint = "r.example:7332".parse().unwrap();
    let add = |ca: Option<&str>, invite: Option<&str>| {
        let (ca, invite) = (ca.map(Into::into), invite.map(str::to_owned));
        C::RendezvousAdd(ServerOptions { server: server.clone(), ca, invite })
    };
    let of = |members: &[&str]| members.iter().map(|name| s(name)).collect::<Vec<_>>();
    for (line, command) in [
        ("status", C::Status),
        ("link", C::Link { once: false }),
        ("link --once", C::Link { once: true }),
        ("link revoke", C::LinkRevoke),
        ("contact add sremplink1x", C::ContactAdd { what: s("sremplink1x"), alias: None }),
        ("contact add x@h:1 --alias bob", C::ContactAdd { what: s("x@h:1"), alias: Some(who()) }),
        ("contact list", C::ContactList),
        ("contact show bob", C::ContactShow { who: who() }),
        ("contact alias bob rob", C::ContactAlias { who: who(), alias: s("rob") }),
        ("contact trust bob", C::ContactTrust { who: who() }),
        ("contact verify bob", C::ContactVerify { who: who() }),
        ("contact reject bob", C::ContactReject { who: who() }),
        ("contact reset bob", C::ContactReset { who: who() }),
        ("contact path bob relay", C::ContactPath { who: who(), path: Some(PathPolicy::Relay) }),
        ("contact path bob default", C::ContactPath { who: who(), path: None }),
        ("contact remove bob", C::ContactRemove { who: who() }),
        ("peers", C::Peers { name: None }),
        ("peers bob", C::Peers { name: Some(who()) }),
        ("requests list", C::RequestsList),
        ("requests accept bob", C::RequestsAccept { who: who() }),
        ("requests decline bob", C::RequestsDecline { who: who() }),
        (
            "react bob 00ff +1",
            C::React { with: who(), message: s("00ff"), reaction: Some(s("+1")) },
        ),
        ("react bob 00ff --none", C::React { with: who(), message: s("00ff"), reaction: None }),
        ("delete bob 00ff", C::Delete { with: who(), message: s("00ff") }),
        ("typing bob", C::TypingShow { with: who() }),
        ("typing bob on", C::TypingTell { with: who(), typing: true }),
        ("typing bob off", C::TypingTell { with: who(), typing: false }),
        ("timer bob", C::TimerShow { with: who() }),
        ("timer bob 2h", C::TimerSet { with: who(), seconds: Some(7200) }),
        ("timer bob off", C::TimerSet { with: who(), seconds: None }),
        ("message 00ff", C::MessageShow { id: s("00ff") }),
        ("history bob", C::History { with: who(), limit: 50, before: None }),
        (
            "history bob --limit 3 --before 00ff",
            C::History { with: who(), limit: 3, before: Some(s("00ff")) },
        ),
        ("read bob", C::MarkRead { with: who() }),
        ("group create club", C::GroupCreate { name: group(), members: vec![], suite: None }),
        (
            "group create club a b",
            C::GroupCreate { name: group(), members: of(&["a", "b"]), suite: None },
        ),
        (
            "group create club a --suite 0x004F",
            C::GroupCreate { name: group(), members: of(&["a"]), suite: Some("0x004F".into()) },
        ),
        ("group list", C::GroupList),
        ("group show club", C::GroupShow { group: group() }),
        ("group add club a b", C::GroupAdd { group: group(), who: of(&["a", "b"]) }),
        ("group remove club bob", C::GroupRemove { group: group(), who: who() }),
        ("group promote club bob", C::GroupPromote { group: group(), who: who() }),
        ("group demote club bob", C::GroupDemote { group: group(), who: who() }),
        ("group rename club pub", C::GroupRename { group: group(), name: s("pub") }),
        ("group leave club", C::GroupLeave { group: group() }),
        ("relay add sremprelay1x", C::RelayAdd { link: s("sremprelay1x") }),
        (
            "relay migrate 127.0.0.1:7331 sremprelay1x",
            C::RelayMigrate { relay: s("127.0.0.1:7331"), link: s("sremprelay1x") },
        ),
        ("relay remove sremprelay1x", C::RelayRemove { relay: s("sremprelay1x") }),
        ("relay list", C::RelayList),
        ("relay allow bob", C::RelayAllow { who: who() }),
        ("relay disallow bob", C::RelayDisallow { who: who() }),
        ("rendezvous add r.example:7332", add(None, None)),
        ("rendezvous add r.example:7332,ca=ca.pem", add(Some("/here/ca.pem"), None)),
        ("rendezvous add r.example:7332,ca=/etc/a,b.pem", add(Some("/etc/a,b.pem"), None)),
        ("rendezvous add r.example:7332,invite=i", add(None, Some("i"))),
        (
            "rendezvous add r.example:7332,ca=/etc/a,b.pem,invite=i",
            add(Some("/etc/a,b.pem"), Some("i")),
        ),
        (
            "rendezvous add r.example:7332,invite=i,ca=/etc/a,b.pem",
            add(Some("/etc/a,b.pem"), Some("i")),
        ),
        ("rendezvous remove r.example:7332", C::RendezvousRemove { server }),
        ("rendezvous list", C::RendezvousList),
        ("identity show", C::IdentityShow),
        ("identity rename ann", C::IdentityRename { name: Username::new("ann").unwrap() }),
        (
            "identity set is_machine_account on",
            C::IdentityFlag { flag: Flag::IsMachineAccount, on: true },
        ),
        ("identity set prefers_async off", C::IdentityFlag { flag: Flag::PrefersAsync, on: false }),
        ("identity rotate-noise-key", C::IdentityRotateNoiseKey),
        ("identity rotate-tokens", C::IdentityRotateTokens),
    ] {
        let Plan::Ask { command: found, .. } = planned(line) else { panic!("{line}") };
        assert!(found == command, "{line} means {found:?}");
    }
}

#[test]
fn what_is_not_a_single_question() {
    let (to, file) = (|| "bob".to_owned(), || "f".into());
    let send = |text: Option<&str>, reply_to: Option<&str>, wait, timeout| Plan::Send {
        to: to(),
        text: text.map(str::to_owned),
        reply_to: reply_to.map(str::to_owned),
        wait,
        timeout,
    };
    for (line, expected) in [
        ("run", Plan::Run),
        ("check", Plan::Check),
        ("send bob hi", send(Some("hi"), None, None, 30)),
        ("send bob", send(None, None, None, 30)),
        ("send bob -- --json", send(Some("--json"), None, None, 30)),
        (
            "send bob --wait delivered --timeout 5 --reply-to 00ff -- hi",
            send(Some("hi"), Some("00ff"), Some(WaitFor::Delivered), 5),
        ),
        ("send bob hi --wait sent", send(Some("hi"), None, Some(WaitFor::Sent), 30)),
        ("watch", Plan::Watch { after: None }),
        ("watch --after 7", Plan::Watch { after: Some(7) }),
        ("identity picture f", Plan::Picture { file: file() }),
        ("identity export f", Plan::Export { file: file() }),
        ("identity import f", Plan::Import { file: file() }),
        ("chat", Plan::Chat { with: None }),
        ("chat bob", Plan::Chat { with: Some(to()) }),
        (
            "link --qr",
            Plan::Ask { command: C::Link { once: false }, show: Show { qr: true, ids: false } },
        ),
    ] {
        assert_eq!(planned(line), expected, "{line}");
    }
}

#[test]
fn init_takes_everything_at_once() {
    let line = "init --name ann --listen 127.0.0.1:0 --advertise a.example:1 --advertise [::1]:2 \
        --rendezvous r.example:3,ca=x.pem --rendezvous 192.0.2.1:4 --relay sremprelay1x --relay l";
    let expected = InitOptions {
        name: Username::new("ann").unwrap(),
        listen: Some("127.0.0.1:0".parse().unwrap()),
        advertise: vec!["a.example:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
        rendezvous: vec![
            ServerOptions {
                server: "r.example:3".parse().unwrap(),
                ca: Some("/here/x.pem".into()),
                invite: None,
            },
            ServerOptions { server: "192.0.2.1:4".parse().unwrap(), ca: None, invite: None },
        ],
        relays: vec!["sremprelay1x".into(), "l".into()],
    };
    assert_eq!(planned(line), Plan::Init(expected));
    for (given, meant) in [
        ("localhost:7", "127.0.0.1:7"),
        (":7", "[::]:7"),
        ("*:7", "[::]:7"),
        ("[::1]:0", "[::1]:0"),
    ] {
        assert_eq!(listen(given), Ok(meant.parse().unwrap()), "{given}");
    }
}

#[test]
fn home_and_json_may_stand_anywhere() {
    for line in ["--home /h --json status", "status --json --home /h", "--json status --home=/h"] {
        let words = std::iter::once("sremp").chain(line.split(' '));
        let line = CommandLine::try_parse_from(words).unwrap();
        assert!(line.json);
        assert_eq!(line.home.as_deref(), Some(Path::new("/h")));
    }
}

#[test]
fn what_is_not_in_the_grammar_is_refused() {
    for line in [
        "",
        "sing",
        "send",
        "contact",
        "group add g",
        "history x --limit 0",
        "history x --limit 1001",
        "history x --limit x",
        "init",
        "init --name \u{202E}x",
        "init --name ann --listen nowhere",
        "init --name ann --listen a.example:7",
        "init --name ann --advertise h",
        "rendezvous add h",
        "rendezvous add h:1,cb=f",
        "rendezvous add h:1,ca=",
        "send x --wait soon",
        "send x --wait queued",
        "send x y --timeout -1",
        "send x y z",
        "watch --after x",
        "identity set is_relay_server on",
        "identity set prefers_async maybe",
        "contact path x sideways",
        "link revoke --once x",
        "contact show",
        "status extra",
    ] {
        assert!(words(line).is_err(), "{line}");
    }
}
