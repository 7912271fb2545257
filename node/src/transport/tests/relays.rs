//! Relays that a session is kept with.

use std::time::Duration;

use sremp_common::id::BlobId;
use sremp_common::identity::RelayRecord;
use sremp_common::time::Timestamp;
use sremp_common::wire::{
    Ack, Bin, Done, List, Message, MessageBatch, RetrieveMessages, StoredMessage,
};

use super::calls::first_incoming;
use super::world::{World, ask, relay_info};
use crate::transport::{CallError, Candidate, DialError, Event, Origin, SessionKind, Target};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

fn keep(world: &mut World, node: usize, relay: usize) {
    let endpoints = List::new(vec![world.nodes[relay].address.into()]).unwrap();
    let record = RelayRecord { identity_key: world.key(relay), endpoints };
    let now = world.now;
    world.with(node, |transport| transport.keep_relay(&record, Origin::Told, now));
}

fn batch(size: usize) -> Message {
    let message = StoredMessage {
        sequence: 1,
        blob_id: BlobId::new([1; 16]),
        stored_at: Timestamp::from_millis(1),
        blob: Bin::new(vec![1; size]).unwrap(),
    };
    let messages = List::new(vec![message]).unwrap();
    Message::MessageBatch(MessageBatch { messages, has_more: false })
}

#[test]
fn a_kept_relay_is_dialled_and_dialled_again_after_it_came_back() {
    let mut world = World::new(2, 1);
    // The relay's user is known to it: idle strangers are sent home.
    let users = [world.key(0)].into();
    world.with(1, |transport| transport.set_known(users));
    keep(&mut world, 0, 1);
    world.run(SECOND);
    assert!(matches!(world.nodes[0].events.first(), Some(Event::SessionUp { relay: true, .. })));
    assert_eq!(world.nodes[0].transport.sessions()[0].kind, SessionKind::OwnRelay);

    world.run(Duration::from_secs(60));
    world.crash(1);
    world.run(Duration::from_secs(2));
    let node = &world.nodes[0];
    assert_eq!((node.sessions_up(), node.sessions_down()), (2, 1));
    assert!(node.transport.has_session(&world.key(1)));
}

#[test]
fn a_relay_that_stays_away_is_dialled_ever_more_seldom() {
    let mut world = World::new(2, 2);
    let away = world.nodes[1].address.into();
    world.refusing.insert(away);
    keep(&mut world, 0, 1);
    world.run(HOUR);
    let first_hour = world.nodes[0].dials.len();
    assert!((15..80).contains(&first_hour), "{first_hour} dials");
    world.run(HOUR);
    // The expected wait is half of five minutes: about 24 an hour.
    let second_hour = world.nodes[0].dials.len() - first_hour;
    assert!((12..50).contains(&second_hour), "{second_hour} dials");

    // A change of network is worth an attempt at once.
    world.refusing.clear();
    let now = world.now;
    world.with(0, |transport| transport.retry_relays(now));
    world.run(SECOND);
    assert!(world.nodes[0].transport.has_session(&world.key(1)));
}

#[test]
fn a_relay_that_hangs_up_at_once_is_not_dialled_without_pause() {
    let mut world = World::new(2, 3);
    let (rejecting, now) = (world.key(0), world.now);
    world.with(1, |transport| transport.set_rejected([rejecting].into(), now));
    keep(&mut world, 0, 1);
    world.run(HOUR);
    assert!(world.nodes[0].dials.len() < 80, "{} dials", world.nodes[0].dials.len());
}

#[test]
fn a_dropped_relay_stays_closed() {
    let mut world = World::new(2, 4);
    keep(&mut world, 0, 1);
    world.run(SECOND);
    let (relay, now) = (world.key(1), world.now);
    world.with(0, |transport| transport.drop_relay(&relay, now));
    world.run(HOUR);
    assert!(world.nodes[0].transport.sessions().is_empty());
    assert_eq!(world.nodes[0].dials.len(), 1);
    world.call_with(0, Target::OwnRelay(relay), &[], ask(), 1);
    assert_eq!(world.answer(0, 1), Some(Err(CallError::Unreachable(DialError::NoAddress))));
}

#[test]
fn a_relay_that_moves_is_dialled_at_its_new_address() {
    let mut world = World::new(2, 5);
    let key = world.key(1);
    let now = world.now;
    let elsewhere = List::new(vec!["198.51.100.1:1".parse().unwrap()]).unwrap();
    let record = RelayRecord { identity_key: key, endpoints: elsewhere };
    world.with(0, |transport| transport.keep_relay(&record, Origin::Told, now));
    world.run(Duration::from_secs(120));
    assert!(!world.nodes[0].transport.has_session(&key));
    keep(&mut world, 0, 1);
    world.run(Duration::from_secs(3));
    assert!(world.nodes[0].transport.has_session(&key));
}

#[test]
fn a_call_to_the_own_relay_uses_the_kept_session_and_so_does_one_to_the_peer() {
    let mut world = World::new(2, 6);
    keep(&mut world, 0, 1);
    world.run(SECOND);
    let key = world.key(1);
    world.call_with(0, Target::OwnRelay(key), &[], ask(), 1);
    world.call_with(0, Target::Peer(key), &[], ask(), 2);
    world.run(SECOND);
    assert_eq!(world.answer(0, 1), Some(Ok(relay_info())));
    assert_eq!(world.answer(0, 2), Some(Ok(relay_info())));
    assert_eq!(world.nodes[1].transport.sessions().len(), 1);
}

#[test]
fn a_mailbox_is_read_by_one_call_and_pushes_from_then_on() {
    let mut world = World::new(2, 7);
    world.nodes[1].answers = false;
    keep(&mut world, 0, 1);
    world.run(SECOND);
    let retrieve = Message::RetrieveMessages(RetrieveMessages { window: 1 << 20 });
    let target = Target::OwnRelay(world.key(1));
    world.call_with(0, target, &[], retrieve, 1);
    world.run(Duration::from_secs(20));
    // An empty mailbox is no timeout.
    assert_eq!(world.answer(0, 1), None);
    let (session, request) = first_incoming(&world, 1);
    // Batches of a kept relay may be as large as messages can be.
    for size in [10, 1_000_000, 3_000_000] {
        let now = world.now;
        world.with(1, |transport| transport.respond(session, request, &batch(size), now));
        world.run(SECOND);
    }
    assert_eq!(world.answer(0, 1), Some(Ok(Message::Done(Done()))));
    let sizes: Vec<_> = world.nodes[0].events.iter().filter_map(pushed_size).collect();
    assert_eq!(sizes, [10, 1_000_000, 3_000_000]);

    let ack = Message::Ack(Ack { sequences: List::new(vec![1]).unwrap() });
    world.call_with(0, target, &[], ack, 2);
    assert_eq!(world.answer(0, 2), Some(Ok(Message::Done(Done()))));
    world.run(SECOND);
    assert_eq!(world.nodes[1].incoming(), 2);
}

#[test]
fn a_stream_that_its_keeper_ends_ends_the_session_so_that_it_is_asked_for_again() {
    let mut world = World::new(2, 8);
    world.nodes[1].answers = false;
    keep(&mut world, 0, 1);
    world.run(SECOND);
    let retrieve = Message::RetrieveMessages(RetrieveMessages { window: 1 });
    let target = Target::OwnRelay(world.key(1));
    world.call_with(0, target, &[], retrieve, 1);
    world.run(SECOND);
    let (session, request) = first_incoming(&world, 1);
    for message in [batch(1), relay_info()] {
        let now = world.now;
        world.with(1, |transport| transport.respond(session, request, &message, now));
        world.run(SECOND);
    }
    assert!(world.nodes[0].sessions_down() >= 1);
}

#[test]
fn a_relay_named_by_somebody_else_at_a_private_address_is_not_dialled() {
    let mut world = World::new(2, 9);
    let private = List::new(vec!["127.0.0.1:7331".parse().unwrap()]).unwrap();
    let record = RelayRecord { identity_key: world.key(1), endpoints: private };
    let now = world.now;
    world.with(0, |transport| transport.keep_relay(&record, Origin::Told, now));
    world.run(Duration::from_secs(100));
    assert!(world.nodes[0].dials.is_empty());
    let user = Candidate::user("127.0.0.1:7331".parse().unwrap());
    let target = Target::OwnRelay(world.key(1));
    world.call_with(0, target, &[user], ask(), 1);
    assert_eq!(world.nodes[0].dials.len(), 1);
}

fn pushed_size(event: &Event) -> Option<usize> {
    match event {
        Event::Pushed { message: Message::MessageBatch(batch), .. } => {
            Some(batch.messages.iter().map(|message| message.blob.len()).sum())
        }
        _ => None,
    }
}
