//! What somebody outside can make us hold: connections, bytes, time.

use std::net::SocketAddr;
use std::time::Duration;

use sremp_common::entropy::Entropy;
use sremp_common::id::BlobId;
use sremp_common::time::Timestamp;
use sremp_common::wire::{
    Bin, List, Message, MessageBatch, RetrieveMessages, StoreMessage, StoredMessage,
};

use super::calls::first_incoming;
use super::world::{World, ask, at, local};
use crate::transport::{
    CallError, Candidate, ConnId, DialError, Effect, Input, MAX_HALF_OPEN,
    MAX_HALF_OPEN_PER_NETWORK, MAX_STRANGER_SESSIONS, Target, Transport, TransportConfig,
    WRITE_WINDOW,
};

const SECOND: Duration = Duration::from_secs(1);

fn transport() -> Transport {
    Transport::new(local(1), Entropy::from_number(1), TransportConfig::default())
}

/// Accepts one connection and says whether it was let in.
fn let_in(transport: &mut Transport, conn: ConnId, from: &str, ms: u64) -> bool {
    let from: SocketAddr = from.parse().unwrap();
    transport.handle(Input::Accepted { conn, from }, at(ms));
    !effects(transport).contains(&Effect::Close { conn })
}

fn effects(transport: &mut Transport) -> Vec<Effect> {
    std::iter::from_fn(|| transport.poll_effect()).collect()
}

#[test]
fn n17_half_open_connections_are_bounded_for_each_network_and_in_total() {
    let mut transport = transport();
    let mut conns = (1..).map(|i| i * 2);
    for i in 0..MAX_HALF_OPEN_PER_NETWORK {
        let from = format!("198.51.100.{i}:1");
        assert!(let_in(&mut transport, conns.next().unwrap(), &from, 0));
    }
    assert!(!let_in(&mut transport, conns.next().unwrap(), "198.51.100.250:1", 0));
    // The same network, dressed as IPv6.
    assert!(!let_in(&mut transport, conns.next().unwrap(), "[::ffff:198.51.100.9]:1", 0));

    for i in 0..MAX_HALF_OPEN - MAX_HALF_OPEN_PER_NETWORK {
        let from = format!("[2a00:0:0:{i:x}::1]:1");
        assert!(let_in(&mut transport, conns.next().unwrap(), &from, 0));
    }
    assert!(!let_in(&mut transport, conns.next().unwrap(), "203.0.113.1:1", 0));
    assert_eq!(transport.counters().refused_full, 3);
}

#[test]
fn n16_slow_handshakes_free_their_places_after_ten_seconds() {
    let mut transport = transport();
    for i in 0..MAX_HALF_OPEN_PER_NETWORK {
        let conn = u64::try_from(i * 2 + 2).unwrap();
        assert!(let_in(&mut transport, conn, "198.51.100.1:1", 0));
    }
    // A byte a second is not progress.
    for second in 1..10 {
        let first_byte = b"SREMP\x01\x00\x20\x00"[second - 1];
        for i in 0..MAX_HALF_OPEN_PER_NETWORK {
            let conn = u64::try_from(i * 2 + 2).unwrap();
            let now = at(u64::try_from(second).unwrap() * 1000);
            transport.handle(Input::Bytes { conn, bytes: vec![first_byte] }, now);
            transport.handle_timeout(now);
        }
    }
    assert!(!let_in(&mut transport, 1000, "198.51.100.1:1", 9_999));
    assert!(transport.poll_timeout().is_some_and(|at| at.as_millis() <= 10_000));
    transport.handle_timeout(at(10_000));
    assert!(let_in(&mut transport, 1002, "198.51.100.1:1", 10_000));
    let refused = u64::try_from(MAX_HALF_OPEN_PER_NETWORK).unwrap();
    assert_eq!(transport.counters().handshakes_failed, refused);
}

#[test]
fn a_number_that_is_taken_or_odd_is_misuse_and_harms_nobody() {
    let mut transport = transport();
    assert!(let_in(&mut transport, 2, "198.51.100.1:1", 0));
    transport.handle(Input::Accepted { conn: 2, from: "203.0.113.1:1".parse().unwrap() }, at(0));
    transport.handle(Input::Accepted { conn: 3, from: "203.0.113.1:1".parse().unwrap() }, at(0));
    assert_eq!(transport.counters().shell_misuse, 2);
    // Nor do reports about connections that are long gone.
    for conn in [2, 3, 99] {
        transport.handle(Input::Connected { conn }, at(1));
        transport.handle(Input::DialFailed { conn: 99, why: DialError::Refused }, at(1));
        transport.handle(Input::Written { conn, bytes: 5 }, at(1));
        transport.handle(Input::TlsConnected { conn, exporter: [0; 32] }, at(1));
        transport.handle(Input::Bytes { conn: 99, bytes: vec![1] }, at(1));
        transport.handle(Input::Eof { conn: 99 }, at(1));
    }
}

#[test]
fn strangers_fill_only_their_own_places() {
    let mut world = World::new(2, 3);
    for conversation in 0..u64::try_from(MAX_STRANGER_SESSIONS).unwrap() + 10 {
        let target = Target::Anonymous(world.key(1), conversation);
        let candidates = [world.candidate(1)];
        world.call_with(0, target, &candidates, ask(), conversation);
        world.run(Duration::from_millis(90));
    }
    assert_eq!(world.nodes[1].transport.sessions().len(), MAX_STRANGER_SESSIONS);
    assert_eq!(world.nodes[1].transport.counters().refused_full, 10);
    // A contact comes in nevertheless.
    let contacts = [world.key(0)].into();
    world.with(1, |transport| transport.set_known(contacts));
    world.call(0, 1, 10_000);
    world.run(SECOND);
    assert!(matches!(world.answer(0, 10_000), Some(Ok(_))));
}

#[test]
fn a_peer_that_does_not_read_loses_its_session() {
    let mut world = World::new(2, 4);
    world.nodes[1].answers = false;
    let retrieve = Message::RetrieveMessages(RetrieveMessages { window: u32::MAX });
    let candidates = [world.candidate(1)];
    world.call_with(0, Target::Peer(world.key(1)), &candidates, retrieve, 1);
    world.run(SECOND);
    let (session, request) = first_incoming(&world, 1);
    world.stuck_writers.insert(1);
    let message = StoredMessage {
        sequence: 1,
        blob_id: BlobId::new([1; 16]),
        stored_at: Timestamp::from_millis(1),
        blob: Bin::new(vec![1; 1 << 20]).unwrap(),
    };
    let messages = List::new(vec![message]).unwrap();
    let batch = Message::MessageBatch(MessageBatch { messages, has_more: true });
    let now = world.now;
    for pushed in 0.. {
        if world.nodes[1].transport.sessions().is_empty() {
            assert!((16..20).contains(&pushed), "closed after {pushed} MiB");
            break;
        }
        assert!(pushed < 100);
        world.with(1, |transport| transport.respond(session, request, &batch, now));
    }
    assert_eq!(world.nodes[1].transport.counters().slow_readers, 1);
    assert_eq!(world.nodes[1].sessions_down(), 1);
}

#[test]
fn the_shell_never_holds_much_more_than_a_window() {
    let mut world = World::new(2, 5);
    world.call(0, 1, 1);
    world.run(SECOND);
    world.stuck_writers.insert(0);
    let store = Message::StoreMessage(StoreMessage {
        blob: Bin::new(vec![7; 3 << 20]).unwrap(),
        recipients: List::default(),
    });
    world.call_with(0, Target::Peer(world.key(1)), &[], store, 2);
    let written: usize =
        world.nodes[0].transport.sessions.values().map(|session| session.writing).sum();
    assert!((WRITE_WINDOW..WRITE_WINDOW + 64 * 1024).contains(&written), "{written}");
    world.run(Duration::from_secs(200));
    assert!(matches!(world.answer(0, 2), Some(Err(CallError::TimedOut | CallError::Closed))));
}

#[test]
fn calls_that_cannot_be_sent_do_not_fill_the_memory() {
    let mut world = World::new(2, 6);
    let target = Target::Peer(world.key(1));
    let nowhere = [Candidate::told("198.51.100.1:1".parse().unwrap())];
    for tag in 0..40 {
        let store = Message::StoreMessage(StoreMessage {
            blob: Bin::new(vec![7; 3 << 20]).unwrap(),
            recipients: List::default(),
        });
        world.call_with(0, target, &nowhere, store, tag);
    }
    let busy = |tag: &u64| world.answer(0, *tag) == Some(Err(CallError::Busy));
    assert_eq!((0..40).filter(busy).count(), 40 - 21);
    // The room is there again once they are answered.
    world.run(Duration::from_secs(2));
    world.call(0, 1, 100);
    world.run(SECOND);
    assert!(matches!(world.answer(0, 100), Some(Ok(_))));
}
