//! Whole commands, from words to streams and exit code, against a node that only pretends.
#![expect(clippy::wildcard_enum_match_arm, reason = "a fake core knows only its test's commands")]

use serde_json::Value;

use super::*;
use crate::api::json::acts_on_text;
use crate::api::{Event, EventPage, LinkKind, LinkView, Reply, sample};
use crate::io::http::fake::FakeNode;

const SHELL: Shell = Shell {
    init: |home, options| {
        let name = options.name.to_string();
        Ok(InitReply { id: home.path().display().to_string(), name, link: "sremplink1x".into() })
    },
    run: |_, config, _, json| {
        Err(ApiError::failed(format!("listen {} json {json}", config.node.listen)))
    },
    check: |home| Err(ApiError::not_found(format!("{} has no identity", home.path().display()))),
};

/// What a person sees of a command.
#[derive(Debug)]
struct Seen {
    code: u8,
    out: String,
    err: String,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }

    fn error(&self) -> Value {
        serde_json::from_str::<Value>(&self.err).unwrap()["error"].clone()
    }
}

fn typed(home: &Path, words: &[&str], input: &[u8]) -> Seen {
    let (mut out, mut err, mut input) = (Vec::new(), Vec::new(), input);
    let streams =
        Streams { input: &mut input, input_is_terminal: false, out: &mut out, err: &mut err };
    let start = ["sremp".as_ref(), "--home".as_ref(), home.as_os_str()].map(OsString::from);
    let words = words.iter().map(OsString::from);
    let code = execute(start.into_iter().chain(words), SHELL, streams);
    Seen { code, out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap() }
}

fn on(node: &FakeNode, words: &[&str]) -> Seen {
    typed(node.home.path(), words, b"")
}

fn sent(state: MessageState) -> Reply {
    Reply::Sent(SentView { message_id: "m1".into(), conversation: "c1".into(), state })
}

/// A node that queues everything, whose messages are then in `view`.
fn sending_node(view: MessageView) -> FakeNode {
    FakeNode::start(move |command| match command {
        Command::Send { to, text, .. } => {
            assert_eq!((to.as_str(), text.as_str()), ("bob", "hello"));
            Ok(sent(MessageState::Queued))
        }
        Command::MessageShow { .. } => Ok(Reply::Message(Box::new(view.clone()))),
        other => panic!("{other:?}"),
    })
}

fn message_in(state: MessageState) -> MessageView {
    MessageView { state, error: None, message_id: "m1".into(), ..sample::message("x") }
}

#[test]
fn no_node_is_told_with_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let shown = home.path().display();
    let message =
        format!("no node is running for {shown}; start it with: sremp --home {shown} run");
    for words in [&["status"][..], &["send", "bob", "hi"], &["watch"], &["contact", "list"]] {
        let seen = typed(home.path(), words, b"");
        assert_eq!((seen.code, seen.out.as_str()), (3, ""));
        assert_eq!(seen.err, format!("sremp: {message}\n"));
        let seen = typed(home.path(), &[&["--json"], words].concat(), b"");
        assert_eq!((seen.code, seen.out.as_str()), (3, ""));
        assert_eq!(seen.error()["code"], "no_daemon");
        assert_eq!(seen.error()["message"], message.as_str());
    }
}

#[test]
fn exit_codes_follow_the_kind_of_error() {
    for kind in [ErrorKind::Failed, ErrorKind::Usage, ErrorKind::NotFound, ErrorKind::Refused] {
        let node = FakeNode::start(move |_| Err(ApiError::new(kind, "because")));
        let seen = on(&node, &["contact", "show", "bob"]);
        assert_eq!((seen.code, seen.out.as_str()), (kind.exit_code(), ""));
        assert_eq!(seen.err, "sremp: because\n");
        let seen = on(&node, &["contact", "show", "bob", "--json"]);
        assert_eq!(seen.error(), serde_json::json!({ "code": kind.word(), "message": "because" }));
    }
}

#[test]
fn wrong_words_are_usage_errors() {
    let home = tempfile::tempdir().unwrap();
    for words in
        [&["sing"][..], &["send"], &["history", "bob", "--limit", "0"], &["group", "add", "g"]]
    {
        let seen = typed(home.path(), words, b"");
        assert_eq!((seen.code, seen.out.as_str()), (2, ""), "{words:?}");
        assert!(seen.err.starts_with("sremp: "), "{}", seen.err);
        let seen = typed(home.path(), &[&["--json"], words].concat(), b"");
        assert_eq!(seen.code, 2);
        assert_eq!(seen.error()["code"], "usage", "{words:?}");
    }
    // Behind `--` it is a text, not an option.
    let seen = typed(home.path(), &["sing", "--", "--json"], b"");
    assert!(seen.err.starts_with("sremp: "), "{}", seen.err);
}

#[test]
fn help_and_version_are_no_errors() {
    let home = tempfile::tempdir().unwrap();
    let seen = typed(home.path(), &["--version"], b"");
    assert_eq!((seen.code, seen.err.as_str()), (0, ""));
    assert_eq!(seen.out, format!("sremp {}\n", env!("CARGO_PKG_VERSION")));
    let seen = typed(home.path(), &["--help"], b"");
    assert_eq!(seen.code, 0);
    assert!(seen.out.contains("contact") && seen.out.contains("Exit codes"), "{}", seen.out);
}

#[test]
fn an_answer_is_text_or_json() {
    let node = FakeNode::start(|_| {
        Ok(Reply::Link(LinkView { link: "sremplink1abc".into(), kind: LinkKind::Standing }))
    });
    assert_eq!(on(&node, &["link"]).out, "sremplink1abc\n");
    let seen = on(&node, &["--json", "link", "--qr"]);
    assert_eq!((seen.code, seen.err.as_str()), (0, ""));
    assert_eq!(seen.json()["link"], "sremplink1abc");
    let seen = on(&node, &["link", "--qr"]);
    assert!(seen.out.contains('\u{2588}') && seen.out.ends_with("\nsremplink1abc\n"));
}

#[test]
fn send_returns_when_it_is_queued() {
    let node = sending_node(message_in(MessageState::Queued));
    let seen = on(&node, &["send", "bob", "hello"]);
    assert_eq!((seen.code, seen.out.as_str(), seen.err.as_str()), (0, "queued  m1\n", ""));
    let seen = on(&node, &["--json", "send", "bob", "hello"]);
    let expected =
        serde_json::json!({ "message_id": "m1", "conversation": "c1", "state": "queued" });
    assert_eq!(seen.json(), expected);
}

#[test]
fn send_reads_standard_input() {
    let node = sending_node(message_in(MessageState::Queued));
    for input in ["hello", "hello\n"] {
        let seen = typed(node.home.path(), &["send", "bob"], input.as_bytes());
        assert_eq!(seen.code, 0, "{seen:?}");
    }
    let long = vec![b'x'; MAX_TEXT + 1];
    for (input, why) in [
        (&b""[..], "the message is empty"),
        (b"\n", "the message is empty"),
        (b"\xFF", "the text on standard input is not UTF-8, or too long"),
        (&long, "a message has at most 65536 bytes"),
    ] {
        let seen = typed(node.home.path(), &["send", "bob"], input);
        assert_eq!((seen.code, seen.err), (2, format!("sremp: {why}\n")));
    }
}

#[test]
fn send_waits() {
    let node = sending_node(message_in(MessageState::Delivered));
    for state in ["sent", "delivered"] {
        let seen = on(&node, &["--json", "send", "bob", "--wait", state, "--", "hello"]);
        assert_eq!((seen.code, seen.err.as_str()), (0, ""));
        assert_eq!(seen.json()["state"], "delivered");
    }
    let words = ["--json", "send", "bob", "hello", "--wait", "read", "--timeout", "0"];
    let seen = on(&node, &words);
    assert_eq!(seen.code, 6);
    assert_eq!(seen.json()["state"], "delivered", "the object is printed all the same");
    assert_eq!(seen.error()["code"], "timed_out");
    let seen = on(&node, &words[1..]);
    assert_eq!((seen.code, seen.out.as_str()), (6, "delivered  m1\n"));
    assert_eq!(
        seen.err,
        "sremp: after 0 s the message is delivered, not read; it is still on its way: sremp message m1\n"
    );
}

#[test]
fn send_tells_why_waiting_is_in_vain() {
    let failed =
        MessageView { error: Some("no\u{9B} key".into()), ..message_in(MessageState::Failed) };
    let seen = on(&sending_node(failed), &["send", "bob", "hello", "--wait", "sent"]);
    assert_eq!((seen.code, seen.out.as_str()), (1, "failed  m1\n"));
    assert_eq!(seen.err, "sremp: the message failed: noM-^[ key\n");
    let large = MessageView { final_state: MessageState::Sent, ..message_in(MessageState::Sent) };
    let seen = on(&sending_node(large), &["send", "bob", "hello", "--wait", "delivered"]);
    assert_eq!((seen.code, seen.out.as_str()), (5, "sent  m1\n"));
    assert!(seen.err.contains("do not confirm"), "{}", seen.err);
}

#[test]
fn watch_prints_one_object_a_line() {
    let mut node = FakeNode::start(|command| match command {
        Command::Events { after, .. } => {
            let all = (1..).zip(sample::events("x\u{9B}"));
            let events: Vec<Event> = all
                .map(|(seq, body)| Event { seq, at: sample::AT, body })
                .filter(|event| after.is_some_and(|after| event.seq > after))
                .collect();
            Ok(Reply::Events(EventPage { events, first: 1, last: 8, at: sample::AT }))
        }
        Command::IdentityShow => Ok(Reply::Identity(Box::new(sample::identity("me")))),
        other => panic!("{other:?}"),
    });
    // The reader closes the pipe after five lines.
    struct Pipe(Vec<u8>);
    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.iter().filter(|byte| **byte == b'\n').count() == 5 {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (mut out, mut err) = (Pipe(Vec::new()), Vec::new());
    let streams =
        Streams { input: &mut &b""[..], input_is_terminal: false, out: &mut out, err: &mut err };
    let home = node.home.path().as_os_str();
    let words = ["sremp", "watch", "--after", "1", "--home"].map(OsString::from);
    let code = execute(words.into_iter().chain([home.into()]), SHELL, streams);
    assert_eq!((code, err.as_slice()), (0, &b""[..]));
    let out = String::from_utf8(out.0).unwrap();
    assert!(!out.chars().any(acts_on_text), "{out:?}");
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ready", "state", "changed", "request", "contact"]);
    let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    node.stop();
}

#[test]
fn what_needs_no_node() {
    let home = tempfile::tempdir().unwrap();
    let seen = typed(home.path(), &["--json", "init", "--name", " ann  b "], b"");
    assert_eq!((seen.code, seen.json()["name"].as_str()), (0, Some("ann b")));
    let seen = typed(home.path(), &["init", "--name", "ann"], b"");
    assert!(seen.out.contains(&format!("sremp --home {} run", home.path().display())));
    assert_eq!(typed(home.path(), &["check"], b"").code, 4);
    std::fs::write(home.path().join("config.toml"), "[node]\nlisten = \"127.0.0.1:7\"\n").unwrap();
    let seen = typed(home.path(), &["run", "--json"], b"");
    assert_eq!(seen.error()["message"], "listen 127.0.0.1:7 json true");
    std::fs::write(home.path().join("config.toml"), "[node]\nlisten = 7\n").unwrap();
    for words in ["run", "check"] {
        let seen = typed(home.path(), &[words], b"");
        assert_eq!(seen.code, 2);
        assert!(seen.err.contains("line 2"), "{}", seen.err);
    }
    for words in [&["chat"][..], &["identity", "export", "x"], &["identity", "import", "x"]] {
        let seen = typed(home.path(), words, b"");
        assert_eq!(seen.code, 1);
        assert!(seen.err.ends_with("is not part of this version\n"), "{}", seen.err);
    }
}

#[test]
fn a_picture_is_read_and_bounded() {
    let node = FakeNode::start(|command| {
        assert!(command == Command::IdentityPicture { bytes: vec![7; 3] });
        Ok(Reply::Identity(Box::new(sample::identity("me"))))
    });
    let file = node.home.path().join("picture");
    let words = ["identity", "picture", file.to_str().unwrap()];
    assert_eq!(on(&node, &words).code, 2, "there is none yet");
    std::fs::write(&file, [7; 3]).unwrap();
    assert_eq!(on(&node, &words).code, 0);
    std::fs::write(&file, vec![7; MAX_PICTURE + 1]).unwrap();
    assert_eq!(on(&node, &words).code, 2);
    assert_eq!(on(&node, &["identity", "picture", "/dev/zero"]).code, 2, "never read to its end");
}

/// Every byte, in every field of every answer and in errors, through the whole program.
#[test]
fn c08_nothing_of_others_reaches_the_terminal_raw() {
    let hostile: String = (0..=u8::MAX)
        .map(char::from)
        .chain(
            "\u{1B}]52;c;eA==\u{7}\u{1B}]8;;http://a.example\u{1B}\\\u{1B}[21t\u{202E}\u{2066}"
                .chars(),
        )
        .collect();
    let answers: std::collections::BTreeMap<&str, Reply> = sample::answers(&hostile)
        .into_iter()
        .map(|(command, reply)| (command.name(), reply))
        .collect();
    let error = hostile.clone();
    let node = FakeNode::start(move |command| match command {
        Command::ContactShow { who } if who == "error" => Err(ApiError::failed(error.clone())),
        other => Ok(answers[other.name()].clone()),
    });
    for words in [
        "status",
        "link",
        "link --qr",
        "contact list",
        "contact show x",
        "contact show error",
        "peers",
        "requests list",
        "send x y",
        "message x",
        "history x",
        "history x --ids",
        "group list",
        "group show x",
        "relay list",
        "rendezvous list",
        "identity show",
    ] {
        for json in [&[][..], &["--json"]] {
            let words: Vec<&str> = words.split(' ').chain(json.iter().copied()).collect();
            let seen = on(&node, &words);
            let all = format!("{}{}", seen.out, seen.err);
            let bad = all
                .chars()
                .find(|c| (c.is_control() && !matches!(c, '\n' | '\t')) || acts_on_text(*c));
            assert_eq!(bad, None, "{words:?} shows {all:?}");
            assert!(all.len() > 2 && !all.contains("in another way"), "{words:?} {all:?}");
        }
    }
    let seen = on(&node, &["contact", "show", &hostile[1..]]);
    assert!(!seen.out.contains('\u{1B}'));
    let seen = on(&node, &["sing\u{1B}[2J"]);
    assert_eq!(seen.code, 2);
    assert!(!seen.err.contains('\u{1B}'), "{:?}", seen.err);
}
