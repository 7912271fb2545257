//! Whom we talk to, what they learn, and which addresses we dial.

use std::collections::BTreeSet;
use std::time::Duration;

use sremp_common::entropy::Entropy;
use sremp_common::wire::{ErrorCode, Lookup, Message};

use super::world::{World, ask, at, local, relay_info};
use crate::transport::{
    CallError, Candidate, Effect, Event, SessionKind, Target, Transport, TransportConfig,
};

const SECOND: Duration = Duration::from_secs(1);

fn reject(world: &mut World, who: usize, whom: usize) {
    let rejected = BTreeSet::from([world.key(whom)]);
    let now = world.now;
    world.with(who, |transport| transport.set_rejected(rejected, now));
}

#[test]
fn c03_a_rejected_caller_gets_no_session_and_is_no_event() {
    let mut world = World::new(2, 1);
    reject(&mut world, 1, 0);
    world.call(0, 1, 1);
    world.run(SECOND);
    assert_eq!(world.answer(0, 1), Some(Err(CallError::Closed)));
    assert!(world.nodes[1].events.is_empty());
    assert!(world.nodes[1].transport.sessions().is_empty());
    assert_eq!(world.nodes[1].transport.counters().rejected, 1);
}

#[test]
fn c03_a_rejected_peer_is_never_dialled() {
    let mut world = World::new(2, 2);
    reject(&mut world, 0, 1);
    let candidates = [world.candidate(1)];
    let key = world.key(1);
    for (tag, target) in [(1, Target::Peer(key)), (2, Target::Anonymous(key, 9))] {
        world.call_with(0, target, &candidates, ask(), tag);
        assert_eq!(world.answer(0, tag), Some(Err(CallError::Rejected)));
    }
    let now = world.now;
    world.with(0, |transport| transport.probe_peer(key, &candidates, now));
    world.run(SECOND);
    assert!(world.nodes[0].dials.is_empty());
}

#[test]
fn c03_rejection_ends_sessions_dials_and_waiting_calls() {
    let mut world = World::new(2, 3);
    world.call(0, 1, 1);
    world.run(SECOND);
    world.nodes[1].answers = false;
    world.call(0, 1, 2);
    world.run(SECOND);
    reject(&mut world, 0, 1);
    assert_eq!(world.answer(0, 2), Some(Err(CallError::Closed)));
    world.run(SECOND);
    for node in &world.nodes {
        assert!(node.transport.sessions().is_empty());
        assert_eq!(node.sessions_down(), 1);
    }

    // While a dial is under way, too.
    let mut world = World::new(2, 4);
    world.call(0, 1, 1);
    reject(&mut world, 0, 1);
    assert_eq!(world.answer(0, 1), Some(Err(CallError::Rejected)));
    world.run(SECOND);
    assert!(world.nodes[1].events.is_empty());
}

#[test]
fn an_anonymous_call_reveals_no_identity() {
    let mut world = World::new(2, 5);
    let target = Target::Anonymous(world.key(1), 1);
    let candidates = [world.candidate(1)];
    world.call_with(0, target, &candidates, ask(), 1);
    world.run(SECOND);
    assert_eq!(world.answer(0, 1), Some(Ok(relay_info())));
    let events = &world.nodes[1].events;
    assert!(matches!(
        events.as_slice(),
        [Event::SessionUp { peer: None, relay: false, .. }, Event::Incoming { caller: None, .. },]
    ));
    let kinds = |node: usize| world.nodes[node].transport.sessions()[0].kind;
    assert_eq!(kinds(0), SessionKind::AnonymousOutgoing);
    assert_eq!(kinds(1), SessionKind::AnonymousIncoming);
    // Our own side announces no session on which somebody could be answered.
    assert_eq!(world.nodes[0].sessions_up(), 0);
    assert!(!world.nodes[0].transport.has_session(&world.key(1)));
}

#[test]
fn each_conversation_has_a_session_of_its_own_that_ends_when_idle() {
    let mut world = World::new(2, 6);
    let candidates = [world.candidate(1)];
    for (tag, conversation) in [(1, 1), (2, 2), (3, 1)] {
        let target = Target::Anonymous(world.key(1), conversation);
        world.call_with(0, target, &candidates, ask(), tag);
    }
    world.run(SECOND);
    assert_eq!(world.nodes[1].transport.sessions().len(), 2);
    world.run(Duration::from_secs(28));
    assert_eq!(world.nodes[1].transport.sessions().len(), 2);
    world.run(Duration::from_secs(2));
    assert!(world.nodes[0].transport.sessions().is_empty());
    assert!(world.nodes[1].transport.sessions().is_empty());
    assert_eq!(world.nodes[1].sessions_down(), 2);
    assert_eq!(world.nodes[1].transport.counters().sessions_broken, 0);
}

#[test]
fn a_stranger_is_sent_home_when_idle_and_a_contact_is_not() {
    for known in [false, true] {
        let mut world = World::new(2, 7);
        if known {
            let contacts = BTreeSet::from([world.key(0)]);
            world.with(1, |transport| transport.set_known(contacts));
        }
        world.call(0, 1, 1);
        world.run(Duration::from_secs(300));
        assert_eq!(world.nodes[1].transport.sessions().len(), usize::from(known));
        assert_eq!(world.nodes[0].sessions_down(), usize::from(!known));
    }
}

#[test]
fn r10_private_addresses_are_dialled_only_for_the_user_or_where_allowed() {
    let private = "10.1.2.3:7330".parse().unwrap();
    let name = "example.org:7330".parse().unwrap();
    let dials = |candidate: Candidate, allow_private_addresses: bool| {
        let config = TransportConfig { allow_private_addresses };
        let mut transport = Transport::new(local(1), Entropy::from_number(1), config);
        let peer = local(2).identity.key();
        transport.call(Target::Peer(peer), &[candidate], ask(), 1, at(0));
        match transport.poll_effect() {
            Some(Effect::Dial { allow_private, .. }) => Some(allow_private),
            _ => None,
        }
    };
    assert_eq!(dials(Candidate::told(Clone::clone(&private)), false), None);
    assert_eq!(dials(Candidate::told(Clone::clone(&private)), true), Some(true));
    assert_eq!(dials(Candidate::user(private), false), Some(true));
    // A name is resolved by the shell, which is told whether to check what it finds.
    assert_eq!(dials(Candidate::told(Clone::clone(&name)), false), Some(false));
    assert_eq!(dials(Candidate::user(name), false), Some(true));
}

#[test]
fn a_probe_makes_a_session_or_says_that_there_is_none() {
    let mut world = World::new(2, 8);
    let (key, good) = (world.key(1), [world.candidate(1)]);
    let now = world.now;
    world.with(0, |transport| transport.probe_peer(key, &good, now));
    world.run(SECOND);
    assert!(world.nodes[0].transport.has_session(&key));
    // With a session there is nothing to probe.
    world.with(0, |transport| transport.probe_peer(key, &good, now));
    assert_eq!(world.nodes[0].dials.len(), 1);

    let mut world = World::new(2, 9);
    let dead = [Candidate::told("198.51.100.1:1".parse().unwrap())];
    world.with(0, |transport| transport.probe_peer(key, &dead, now));
    world.run(Duration::from_secs(2));
    assert!(matches!(world.nodes[0].events.as_slice(), [Event::Unreached { .. }]));
}

#[test]
fn closing_ends_sessions_for_both_sides_in_order() {
    let mut world = World::new(2, 10);
    world.call(0, 1, 1);
    world.run(SECOND);
    let (key, now) = (world.key(1), world.now);
    world.with(0, |transport| transport.close_peer(&key, ErrorCode::Goodbye, now));
    world.run(SECOND);
    for node in &world.nodes {
        assert!(node.transport.sessions().is_empty());
        assert_eq!((node.sessions_up(), node.sessions_down()), (1, 1));
        assert_eq!(node.transport.counters().sessions_broken, 0);
    }

    world.call(0, 1, 2);
    world.run(SECOND);
    let now = world.now;
    world.with(1, |transport| transport.shut_down(now));
    world.run(SECOND);
    assert!(world.nodes.iter().all(|node| node.transport.sessions().is_empty()));
    assert!(world.nodes.iter().all(|node| node.transport.poll_timeout().is_none()));
}

#[test]
fn a_request_for_a_registry_is_not_served_by_a_node() {
    // A node's peers send only what mailboxes serve; all else is answered below the layers above.
    let mut world = World::new(2, 11);
    let candidates = [world.candidate(1)];
    let lookup = Lookup::one(world.key(0));
    world.call_with(0, Target::Peer(world.key(1)), &candidates, Message::Lookup(lookup), 1);
    assert_eq!(world.answer(0, 1), Some(Err(CallError::Unsendable)));
}
