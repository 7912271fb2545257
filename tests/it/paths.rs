//! Over which path a message goes, and why it does not, played on the simulator.

use sremp_node::api::{Command, MessageState, PathPolicy, PathState, Reply};
use sremp_sim::World;

use crate::user::{ask, contact, message, send, state, status, texts};

fn set_path(world: &mut World, host: usize, who: &str, path: PathPolicy) {
    world.command(host, Command::ContactPath { who: who.into(), path: Some(path) }).unwrap();
}

/// Two nodes with two relays, who have talked directly.
fn pair() -> World {
    let mut world = World::new(31, 2, 2);
    world.introduce_all();
    send(&mut world, 0, "node2", "first");
    world.pass(30_000);
    assert_eq!(contact(&mut world, 0, "node2").path, PathState::Direct);
    world
}

/// A machine that was suspended: its connections are open, and nothing comes back.
#[test]
fn what_an_open_but_silent_session_has_is_at_a_relay_within_two_seconds() {
    let mut world = pair();
    world.net.cut(0, 1);
    let id = send(&mut world, 0, "node2", "are you asleep?");
    world.pass(900);
    assert_eq!(state(&mut world, 0, &id), MessageState::Queued, "the session may still answer");
    world.pass(1_100);
    assert_eq!(state(&mut world, 0, &id), MessageState::Sent);
    // The receiver has its relays: it reads the message there, and once.
    world.pass(30_000);
    world.heal();
    world.pass(60_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
    assert_eq!(texts(&mut world, 1, "node1"), ["first", "are you asleep?"]);
}

#[test]
fn direct_means_that_no_relay_gets_a_copy_however_silent_the_session() {
    let mut world = pair();
    set_path(&mut world, 0, "node2", PathPolicy::Direct);
    world.net.cut(0, 1);
    let before: u64 = (2..4).map(|relay| world.bytes_carried(0, relay)).sum();
    let id = send(&mut world, 0, "node2", "for you alone");
    world.pass(9_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Queued);
    let after: u64 = (2..4).map(|relay| world.bytes_carried(0, relay)).sum();
    assert!(after - before < 512, "keep-alives are all that relays got: {}", after - before);
    world.heal();
    world.pass(600_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
}

#[test]
fn a_session_that_answers_sends_nothing_twice() {
    let mut world = pair();
    let before: u64 = (2..4).map(|relay| world.bytes_carried(0, relay)).sum();
    for number in 0..20 {
        send(&mut world, 0, "node2", &format!("number {number}"));
        world.pass(400);
    }
    let after: u64 = (2..4).map(|relay| world.bytes_carried(0, relay)).sum();
    assert!(after - before < 2_048, "keep-alives are all that relays got: {}", after - before);
}

#[test]
fn relay_ends_the_session_and_lets_none_in() {
    let mut world = pair();
    set_path(&mut world, 0, "node2", PathPolicy::Relay);
    world.pass(1_000);
    let view = contact(&mut world, 0, "node2");
    assert_ne!(view.path, PathState::Direct);
    assert_eq!(view.path_policy, Some(PathPolicy::Relay));
    // The other side dials us as long as it may: not this time.
    set_path(&mut world, 1, "node1", PathPolicy::Relay);
    world.pass(1_000);
    let before = world.bytes_carried(0, 1);
    let id = send(&mut world, 0, "node2", "by relay");
    world.pass(30_000);
    assert_eq!(state(&mut world, 0, &id), MessageState::Delivered);
    assert_eq!(world.bytes_carried(0, 1), before, "not a byte went there");
    set_path(&mut world, 1, "node1", PathPolicy::Auto);
    // The other side may try: it gets no session, and its messages come by relay.
    let answer = send(&mut world, 1, "node1", "why so shy?");
    world.pass(30_000);
    assert_eq!(state(&mut world, 1, &answer), MessageState::Delivered);
    for host in [0, 1] {
        let status = status(&mut world, host);
        let direct: Vec<_> = status.sessions.iter().filter(|session| !session.relay).collect();
        assert!(direct.is_empty(), "{direct:?}");
    }
    // And back.
    set_path(&mut world, 0, "node2", PathPolicy::Auto);
    send(&mut world, 0, "node2", "hello again");
    world.pass(60_000);
    assert_eq!(contact(&mut world, 0, "node2").path, PathState::Direct);
}

/// A node that closes every session must not make others dial it without a pause.
#[test]
fn a_node_that_lets_nobody_in_is_dialled_with_pauses() {
    let mut world = pair();
    set_path(&mut world, 1, "node1", PathPolicy::Relay);
    world.pass(1_000);
    [2, 3].into_iter().for_each(|relay| world.crash(relay));
    send(&mut world, 0, "node2", "anybody there?");
    let before = world.bytes_carried(0, 1);
    world.pass(60_000);
    // A handshake and a message are some kilobytes each time.
    let bytes = world.bytes_carried(0, 1) - before;
    assert!(bytes < 100_000, "{bytes} bytes in a minute");
}

#[test]
fn a_message_that_waits_says_why() {
    let mut world = pair();
    [1, 2, 3].into_iter().for_each(|host| world.crash(host));
    let id = send(&mut world, 0, "node2", "patience");
    assert_eq!(message(&mut world, 0, &id).error, None, "it has only just left");
    world.pass(20_000);
    let view = message(&mut world, 0, &id);
    let why = view.error.unwrap();
    assert!(why.contains("their node: not reachable (connection refused)"), "{why}");
    assert!(why.contains("their relay: not reachable (connection refused)"), "{why}");
    assert!(why.ends_with("it is tried again by itself"), "{why}");
    assert_eq!(view.recipients[0].error.as_ref(), Some(&why));
    // Only one of the two may be used.
    set_path(&mut world, 0, "node2", PathPolicy::Direct);
    world.pass(20_000);
    let why = message(&mut world, 0, &id).error.unwrap();
    assert!(why.contains("their node: not reachable"), "{why}");
    assert!(why.contains("relays: not used, because the path is `direct`"), "{why}");
    set_path(&mut world, 0, "node2", PathPolicy::Relay);
    let why = message(&mut world, 0, &id).error.unwrap();
    assert!(why.contains("their node: not used, because the path is `relay`"), "{why}");

    // Their owner sees the same of relays.
    let relays = ask!(world, 0, Command::RelayList, Reply::Relays);
    assert!(relays.iter().all(|relay| !relay.connected));
    for relay in relays {
        assert_eq!(relay.error.as_deref(), Some("not reachable: connection refused"));
    }

    set_path(&mut world, 0, "node2", PathPolicy::Auto);
    [1, 2, 3].into_iter().for_each(|host| world.start(host));
    world.pass(600_000);
    let view = message(&mut world, 0, &id);
    assert_eq!((view.state, view.error), (MessageState::Delivered, None));
    let relays = ask!(world, 0, Command::RelayList, Reply::Relays);
    assert!(relays.iter().all(|relay| relay.connected && relay.error.is_none()), "{relays:?}");
}
