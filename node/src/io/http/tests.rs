//! The local interface over a real socket, with a core that only pretends.
#![expect(clippy::wildcard_enum_match_arm, reason = "a fake core knows only its test's commands")]

use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use super::fake::{FakeNode, private_directory};
use super::socket::{Socket, SocketError};
use crate::api::route::Request;
use crate::api::{
    ApiError, Command, ErrorBody, ErrorKind, Event, EventBody, EventPage, MessageState,
    MessageView, Reply, json, sample,
};
use crate::io::client::Client;

/// Sends raw bytes and reads until the other side closes.
fn raw(node: &FakeNode, request: &str) -> String {
    let mut stream = UnixStream::connect(node.home.socket()).unwrap();
    // The other side may have closed already: then there is nothing to read either.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

fn status_node() -> FakeNode {
    FakeNode::start(|_| Ok(Reply::Status(Box::new(sample::status("x")))))
}

fn get(headers: &str) -> String {
    format!("GET /v1/status HTTP/1.1\r\nconnection: close\r\n{headers}\r\n")
}

#[test]
fn every_answer_comes_through() {
    for (command, reply) in sample::answers("a \u{202E}\u{1B}[2J b") {
        let (asked, answered) = (command.clone(), reply.clone());
        let mut node = FakeNode::start(move |command| {
            assert!(command == asked);
            Ok(answered.clone())
        });
        let mut client = Client::connect(&node.home).unwrap();
        let answer = client.ask(&command.into()).unwrap();
        assert_eq!(answer, json::to_string(&reply).unwrap());
        drop(client);
        node.stop();
    }
}

#[test]
fn errors_come_through_with_code_and_status() {
    for kind in [ErrorKind::Failed, ErrorKind::NotFound, ErrorKind::Refused, ErrorKind::TimedOut] {
        let node = FakeNode::start(move |_| Err(ApiError::new(kind, "why \u{9B}not")));
        let error = Client::connect(&node.home).unwrap().ask(&Command::Status.into()).unwrap_err();
        assert_eq!(error, ApiError::new(kind, "why \u{9B}not"));
        let answer = raw(&node, &get("host: localhost\r\n"));
        assert!(answer.starts_with(&format!("HTTP/1.1 {} ", kind.http_status())), "{answer}");
        let body: ErrorBody =
            serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body.error.code, kind);
        assert!(!answer.contains('\u{9B}'));
    }
}

#[test]
fn a_core_that_is_gone_is_an_error() {
    let node = FakeNode::start(|_| Ok(Reply::Done {}));
    let mut client = Client::connect(&node.home).unwrap();
    assert!(client.ask(&Command::LinkRevoke.into()).is_ok());
    // The fake core never ends by itself; a handle without a core is made here.
    let (handle, end) = crate::io::handle::channel();
    drop(end);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = runtime.block_on(handle.command(Command::Status)).unwrap_err();
    assert_eq!(error.code, ErrorKind::Failed);
    assert!(handle.events().is_none());
}

#[test]
fn c09_the_socket_is_the_owners_alone() {
    let node = status_node();
    let found = std::fs::symlink_metadata(node.home.socket()).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(node.home.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn c09_another_user_gets_no_answer() {
    let nobody = 0xFFFF_FFF0;
    let node = FakeNode::start_owned_by(Some(nobody), |_| panic!("nobody may be asked"));
    assert_eq!(raw(&node, &get("host: localhost\r\n")), "");
    let error = Client::connect(&node.home).unwrap().ask(&Command::Status.into()).unwrap_err();
    assert_eq!(error.code, ErrorKind::Failed);
}

#[test]
fn c09_a_home_that_is_open_to_others_gets_no_socket() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for mode in [0o750, 0o701, 0o777] {
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        let path = directory.path().join("api.sock");
        let bound = runtime.block_on(Socket::bind(&path));
        assert!(matches!(bound, Err(SocketError::HomeIsOpen(_))), "{mode:o}");
        assert!(!path.exists());
    }
}

#[test]
fn c09_a_browsers_request_is_refused() {
    let node = status_node();
    for (headers, status) in [
        ("host: localhost\r\n", 200),
        ("host: LOCALHOST\r\n", 200),
        ("host: localhost\r\norigin: http://a.example\r\n", 403),
        ("host: localhost\r\norigin: null\r\n", 403),
        ("host: localhost\r\norigin: http://localhost\r\n", 403),
        ("host: a.example\r\n", 403),
        ("host: localhost.a.example\r\n", 403),
        ("host: 127.0.0.1:7330\r\n", 403),
    ] {
        let answer = raw(&node, &get(headers));
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers}: {answer}");
    }
}

#[test]
fn a_body_beyond_the_bound_is_refused() {
    let node = FakeNode::start(|_| panic!("the core must not be asked"));
    let big = crate::api::route::MAX_BODY + 1;
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {big}\r\n\r\n"
    );
    let answer = raw(&node, &(head + &"x".repeat(big)));
    // The refusal may overtake the rest of the body; then the connection is reset under it.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[test]
fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = private_directory();
    let path = directory.path().join("api.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // What a killed process leaves behind: a bound file that nobody listens on.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = Socket::bind(&path).await.unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(SocketError::AlreadyRunning)));
        drop(live);
        assert!(!path.exists(), "removed when the node stops");

        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(SocketError::NotASocket(_))));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(SocketError::NotASocket(_))));
        let long = directory.path().join("x".repeat(120));
        assert!(matches!(Socket::bind(&long).await, Err(SocketError::PathTooLong(_))));
    });
}

fn message_in(state: MessageState) -> MessageView {
    MessageView { state, error: None, ..sample::message("m1") }
}

fn state_event(seq: u64, id: &str) -> Arc<Event> {
    let (message_id, conversation) = (id.to_owned(), "c".to_owned());
    let body =
        EventBody::State { message_id, conversation, state: MessageState::Sent, error: None };
    Arc::new(Event { seq, at: sample::AT, body })
}

/// A node whose message moves on by one state each time it is looked at.
fn moving_node(states: Vec<MessageState>) -> FakeNode {
    let states = Mutex::new(states.into_iter());
    let (looked, looks) = std::sync::mpsc::channel();
    let node = FakeNode::start(move |command| {
        assert!(matches!(command, Command::MessageShow { .. }));
        let state = states.lock().unwrap().next().unwrap();
        looked.send(()).unwrap();
        Ok(Reply::Message(Box::new(message_in(state))))
    });
    let events = node.events.clone();
    std::thread::spawn(move || {
        for (seq, ()) in (1..).zip(looks) {
            // Events of other messages wake nobody.
            let _ = events.send(state_event(seq, "m0"));
            let _ = events.send(state_event(seq, "m1"));
        }
    });
    node
}

fn wait(node: &FakeNode, state: MessageState, timeout: u32) -> Result<MessageState, ApiError> {
    let request = Request::Wait { id: "m1".into(), state, timeout };
    let answer = Client::connect(&node.home)?.ask(&request)?;
    Ok(serde_json::from_str::<MessageView>(&answer).unwrap().state)
}

#[test]
fn a_wait_ends_when_the_state_is_reached() {
    use MessageState::{Delivered, Failed, Queued, Read, Sent};
    let node = moving_node(vec![Queued, Sent, Delivered]);
    assert_eq!(wait(&node, Delivered, 60), Ok(Delivered));
    let node = moving_node(vec![Read]);
    assert_eq!(wait(&node, Sent, 60), Ok(Read));
    let node = moving_node(vec![Queued, Failed]);
    assert_eq!(wait(&node, Delivered, 60), Ok(Failed));
}

#[test]
fn a_wait_ends_with_its_time() {
    let node = FakeNode::start(|_| Ok(Reply::Message(Box::new(message_in(MessageState::Sent)))));
    assert_eq!(wait(&node, MessageState::Read, 0), Ok(MessageState::Sent));
}

#[test]
fn a_wait_for_what_cannot_come_ends_at_once() {
    let node = FakeNode::start(|_| {
        let view =
            MessageView { final_state: MessageState::Sent, ..message_in(MessageState::Sent) };
        Ok(Reply::Message(Box::new(view)))
    });
    assert_eq!(wait(&node, MessageState::Delivered, 3600), Ok(MessageState::Sent));
}

/// A core that has recorded `count` events, the oldest `lost` of them not any more.
fn recorded(count: u64, lost: u64) -> FakeNode {
    FakeNode::start(move |command| match command {
        Command::Events { after, limit } => {
            let first = after.map_or(count + 1, |after| after.max(lost) + 1);
            let numbers = (first..=count).take(limit.try_into().unwrap());
            let events = numbers.map(|seq| Event::clone(&state_event(seq, "m"))).collect();
            Ok(Reply::Events(EventPage { events, first: lost + 1, last: count, at: sample::AT }))
        }
        Command::IdentityShow => Ok(Reply::Identity(Box::new(sample::identity("me")))),
        other => panic!("{other:?}"),
    })
}

/// The first `count` numbers of a stream, checked to be whole events, the first of them `ready`.
fn numbers(
    node: &FakeNode,
    after: Option<u64>,
    count: usize,
    mut each: impl FnMut(u64),
) -> Vec<u64> {
    let mut numbers = Vec::new();
    let followed = Client::connect(&node.home).unwrap().follow(&Request::Watch { after }, |line| {
        let event: Event = serde_json::from_str(line).unwrap();
        assert_eq!(matches!(event.body, EventBody::Ready { .. }), numbers.is_empty(), "{line}");
        numbers.push(event.seq);
        each(event.seq);
        numbers.len() < count
    });
    assert_eq!(followed, Ok(()));
    numbers
}

#[test]
fn a_stream_begins_where_it_is_asked_to() {
    let node = recorded(3, 0);
    assert_eq!(numbers(&node, Some(0), 4, |_| ()), [0, 1, 2, 3]);
    assert_eq!(numbers(&node, Some(2), 2, |_| ()), [2, 3]);
    assert_eq!(numbers(&node, None, 1, |_| ()), [3]);
    assert_eq!(numbers(&node, Some(99), 1, |_| ()), [3], "what lies in the future is not awaited");
    // More than a page, and an oldest event that is gone.
    let node = recorded(1000, 10);
    let all = numbers(&node, Some(5), 991, |_| ());
    assert_eq!(all[0], 5);
    assert!(all[1..].iter().copied().eq(11..=1000));
}

#[test]
fn a_stream_goes_on_with_what_happens() {
    let node = recorded(2, 0);
    let live = node.events.clone();
    let seen = numbers(&node, Some(1), 4, |seq| {
        // Repeated and old ones are not shown twice.
        for next in [1, 2, 2, seq + 1] {
            let _ = live.send(state_event(next, "m"));
        }
    });
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn a_gap_in_what_happens_is_filled_from_the_record() {
    let node = recorded(500, 0);
    let live = node.events.clone();
    // The stream starts at 500; then 2,000 events come at once, more than a watcher may lag behind.
    // The record ends at 500, so what it does not have is passed over, and the newest still comes.
    let seen = numbers(&node, Some(499), 3, |seq| {
        if seq == 500 {
            (501..=2500).for_each(|seq| drop(live.send(state_event(seq, "m"))));
        }
    });
    assert_eq!(seen[..2], [499, 500]);
    assert!(seen[2] > 500);
}

#[test]
fn a_stream_ends_when_the_node_stops() {
    let mut node = recorded(1, 0);
    let mut client = Client::connect(&node.home).unwrap();
    let (ready, is_ready) = std::sync::mpsc::channel();
    let following = std::thread::spawn(move || {
        client.follow(&Request::Watch { after: None }, |_| ready.send(()).is_ok())
    });
    is_ready.recv().unwrap();
    node.stop();
    assert_eq!(following.join().unwrap().unwrap_err().code, ErrorKind::Failed);
    assert!(!node.home.socket().exists());
    let error = Client::connect(&node.home).unwrap_err();
    assert_eq!(error.code, ErrorKind::NoDaemon);
    let home = node.home.path().display().to_string();
    assert_eq!(
        error.message,
        format!("no node is running for {home}; start it with: sremp --home {home} run")
    );
}
