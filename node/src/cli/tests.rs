//! What can be typed, and what is refused.

use super::*;

fn parse(words: &str) -> Result<Action, clap::Error> {
    let words = std::iter::once("sremp").chain(words.split(' '));
    CommandLine::try_parse_from(words).map(|line| line.action)
}

#[test]
fn the_grammar_is_sound() {
    use clap::CommandFactory as _;
    CommandLine::command().debug_assert();
}

#[test]
fn the_fixed_grammar_parses() {
    for line in [
        "init --name ann --listen 127.0.0.1:0 --advertise a.example:1 --rendezvous r.example:2,ca=x.pem",
        "run",
        "check",
        "status",
        "link",
        "link --qr --once",
        "link revoke",
        "contact add x --alias y",
        "contact list",
        "contact show x",
        "contact alias x y",
        "contact trust x",
        "contact verify x",
        "contact reject x",
        "contact reset x",
        "contact remove x",
        "peers",
        "peers ann",
        "requests list",
        "requests accept x",
        "requests decline x",
        "send x hello",
        "send x --wait sent --timeout 3 -- --text",
        "send x --wait delivered --reply-to y",
        "history x --limit 5 --before y",
        "watch --after 7",
        "group create g a b",
        "group list",
        "group show g",
        "group add g a b",
        "group remove g a",
        "group promote g a",
        "group demote g a",
        "group rename g h",
        "group leave g",
        "relay add l",
        "relay remove l",
        "relay list",
        "relay allow x",
        "relay disallow x",
        "rendezvous add h:1,ca=f",
        "rendezvous remove h:1",
        "rendezvous list",
        "identity show",
        "identity rename ann",
        "identity set is_machine_account on",
        "identity picture f",
        "identity rotate-noise-key",
        "--json --home /tmp/x status",
    ] {
        assert!(parse(line).is_ok(), "{line}: {:?}", parse(line).err());
    }
}

#[test]
fn what_is_not_in_it_is_refused() {
    for line in [
        "",
        "sing",
        "send",
        "contact",
        "group add g",
        "history x --limit 0",
        "init",
        "init --name \u{202E}x",
        "rendezvous add h",
        "rendezvous add h:1,cb=f",
        "send x --wait soon",
    ] {
        assert!(parse(line).is_err(), "{line}");
    }
}
