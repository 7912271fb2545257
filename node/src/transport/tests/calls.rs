//! Calls: answered once, whatever happens to the path.

use std::time::Duration;

use sremp_common::id::TokenHash;
use sremp_common::wire::{
    Admission, AdmissionClass, AdmissionEntry, Bin, Done, ErrorBody, ErrorCode, List, Message,
    Recipient, SetAdmission, StoreMessage, StoreResponse,
};

use super::world::{World, ask, relay_info};
use crate::transport::{CallError, Candidate, DialError, Event, SessionKind, Target};

const SECOND: Duration = Duration::from_secs(1);

fn named(texts: &[&str]) -> Vec<Candidate> {
    texts.iter().map(|text| Candidate::told(text.parse().unwrap())).collect()
}

#[test]
fn a_call_dials_and_is_answered_and_the_session_stays() {
    let mut world = World::new(2, 1);
    world.call(0, 1, 7);
    world.run(SECOND);
    assert_eq!(world.answer(0, 7), Some(Ok(relay_info())));
    assert!(matches!(
        world.nodes[1].events.first(),
        Some(Event::SessionUp { peer: Some(peer), from: Some(_), relay: false, .. })
            if peer.key() == world.key(0)
    ));

    // The callee calls back over the same session, without knowing any address.
    world.call_with(1, Target::Peer(world.key(0)), &[], ask(), 8);
    world.run(SECOND);
    assert_eq!(world.answer(1, 8), Some(Ok(relay_info())));
    assert_eq!(world.nodes[0].dials.len() + world.nodes[1].dials.len(), 1);
    let views = world.nodes[0].transport.sessions();
    assert!(matches!(views.as_slice(), [view] if view.kind == SessionKind::Peer));
}

#[test]
fn without_session_and_candidates_the_answer_is_there_at_once() {
    let mut world = World::new(2, 2);
    world.call_with(0, Target::Peer(world.key(1)), &[], ask(), 1);
    assert_eq!(world.answer(0, 1), Some(Err(CallError::Unreachable(DialError::NoAddress))));
    // Oneself is nobody to call.
    let own = world.nodes[0].address.into();
    world.call_with(0, Target::Peer(world.key(0)), &[Candidate::user(own)], ask(), 2);
    assert_eq!(world.answer(0, 2), Some(Err(CallError::Unreachable(DialError::NoAddress))));
    assert!(world.nodes[0].dials.is_empty());
}

#[test]
fn a_dead_first_candidate_costs_a_quarter_of_a_second() {
    let mut world = World::new(2, 3);
    let mut candidates = named(&["[2a00::dead]:1"]);
    candidates.push(world.candidate(1));
    world.call_with(0, Target::Peer(world.key(1)), &candidates, ask(), 1);
    world.run(Duration::from_millis(249));
    assert_eq!(world.nodes[0].dials.len(), 1);
    world.run(Duration::from_millis(20));
    assert_eq!(world.answer(0, 1), Some(Ok(relay_info())));
    let starts: Vec<_> = world.nodes[0].dials.iter().map(|(ms, _)| *ms).collect();
    assert_eq!(starts, [0, 250]);
}

#[test]
fn a_refused_first_candidate_costs_nothing() {
    let mut world = World::new(2, 4);
    let mut candidates = named(&["[2a00::dead]:1"]);
    world.refusing.insert(candidates[0].endpoint.clone());
    candidates.push(world.candidate(1));
    world.call_with(0, Target::Peer(world.key(1)), &candidates, ask(), 1);
    world.run(Duration::from_millis(20));
    assert_eq!(world.answer(0, 1), Some(Ok(relay_info())));
}

#[test]
fn candidates_without_an_answer_are_given_up_after_a_second_and_a_half_each() {
    let mut world = World::new(2, 5);
    let candidates = named(&["198.51.100.1:1", "198.51.100.2:1", "198.51.100.3:1"]);
    world.call_with(0, Target::Peer(world.key(1)), &candidates, ask(), 1);
    world.run(Duration::from_millis(1999));
    assert_eq!(world.answer(0, 1), None);
    world.run(Duration::from_millis(2));
    assert_eq!(world.answer(0, 1), Some(Err(CallError::Unreachable(DialError::TimedOut))));
    let starts: Vec<_> = world.nodes[0].dials.iter().map(|(ms, _)| *ms).collect();
    assert_eq!(starts, [0, 250, 500]);
    let unreached =
        |event: &Event| matches!(event, Event::Unreached { why: DialError::TimedOut, .. });
    assert_eq!(world.nodes[0].events.iter().filter(|event| unreached(event)).count(), 1);
}

#[test]
fn candidates_of_a_later_call_join_the_dial_under_way() {
    let mut world = World::new(2, 6);
    let target = Target::Peer(world.key(1));
    world.call_with(0, target, &named(&["198.51.100.1:1"]), ask(), 1);
    let good = [world.candidate(1)];
    world.call_with(0, target, &good, ask(), 2);
    world.run(SECOND);
    assert_eq!(world.answer(0, 1), Some(Ok(relay_info())));
    assert_eq!(world.answer(0, 2), Some(Ok(relay_info())));
}

#[test]
fn n02_another_identity_at_the_address_learns_nothing() {
    let mut world = World::new(3, 7);
    let wrong = [world.candidate(2)];
    world.call_with(0, Target::Peer(world.key(1)), &wrong, ask(), 1);
    world.run(SECOND);
    assert_eq!(world.answer(0, 1), Some(Err(CallError::Unreachable(DialError::WrongIdentity))));
    assert!(world.nodes[2].events.is_empty());
    assert!(world.nodes[0].transport.counters().handshakes_failed >= 1);
    assert_eq!(world.nodes[0].sessions_up(), 0);
}

#[test]
fn n02_a_wrong_identity_does_not_keep_the_right_one_from_being_found() {
    let mut world = World::new(3, 8);
    let candidates = [world.candidate(2), world.candidate(1)];
    world.call_with(0, Target::Peer(world.key(1)), &candidates, ask(), 1);
    world.run(SECOND);
    assert_eq!(world.answer(0, 1), Some(Ok(relay_info())));
    assert!(world.nodes[2].events.is_empty());
}

#[test]
fn a_call_without_an_answer_times_out_and_a_silent_session_ends() {
    let mut world = World::new(2, 9);
    world.nodes[1].answers = false;
    world.call(0, 1, 1);
    world.run(Duration::from_millis(9_999));
    assert_eq!(world.answer(0, 1), None);
    world.run(Duration::from_millis(2));
    assert_eq!(world.answer(0, 1), Some(Err(CallError::TimedOut)));
    // Nothing had come since the call: the path counts as dead.
    assert_eq!(world.nodes[0].transport.counters().silent, 1);
    assert!(world.nodes[0].transport.sessions().is_empty());
}

#[test]
fn a_session_on_which_something_comes_outlives_a_late_answer() {
    let mut world = World::new(2, 10);
    world.nodes[1].answers = false;
    world.call(0, 1, 1);
    world.run(Duration::from_secs(5));
    let (session, request_id) = first_incoming(&world, 1);
    world.call(0, 1, 2);
    world.run(SECOND);
    let (_, second) = last_incoming(&world, 1);
    let now = world.now;
    world.with(1, |transport| transport.respond(session, second, &relay_info(), now));
    world.run(Duration::from_secs(5));
    assert_eq!(world.answer(0, 1), Some(Err(CallError::TimedOut)));
    assert_eq!(world.answer(0, 2), Some(Ok(relay_info())));
    let now = world.now;
    world.with(1, |transport| transport.respond(session, request_id, &relay_info(), now));
    world.run(SECOND);
    assert_eq!(world.nodes[0].transport.sessions().len(), 1);
    assert_eq!(world.answer(0, 1), Some(Err(CallError::TimedOut)));
}

#[test]
fn calls_in_flight_are_answered_when_the_session_breaks() {
    let mut world = World::new(2, 11);
    world.nodes[1].answers = false;
    for tag in 0..5 {
        world.call(0, 1, tag);
    }
    world.run(SECOND);
    world.crash(1);
    world.run(SECOND);
    for tag in 0..5 {
        assert_eq!(world.answer(0, tag), Some(Err(CallError::Closed)));
    }
    assert_eq!(world.nodes[0].sessions_down(), 1);
    assert_eq!(world.nodes[0].transport.counters().sessions_broken, 1);
    // The next call simply dials again.
    world.nodes[1].answers = true;
    world.call(0, 1, 9);
    world.run(SECOND);
    assert_eq!(world.answer(0, 9), Some(Ok(relay_info())));
}

#[test]
fn many_calls_are_pipelined_and_the_queue_is_bounded() {
    let mut world = World::new(2, 12);
    for tag in 0..1100 {
        world.call(0, 1, tag);
    }
    world.run(Duration::from_secs(5));
    let busy = |tag: &u64| world.answer(0, *tag) == Some(Err(CallError::Busy));
    assert_eq!((0..1100).filter(busy).count(), 1100 - 1024);
    assert_eq!(
        (0..1024).filter(|tag| world.answer(0, *tag) == Some(Ok(relay_info()))).count(),
        1024
    );
}

#[test]
fn at_most_256_calls_are_unanswered_on_one_session() {
    let mut world = World::new(2, 13);
    world.nodes[1].answers = false;
    for tag in 0..300 {
        world.call(0, 1, tag);
    }
    world.run(SECOND);
    assert_eq!(world.nodes[1].incoming(), 256);
    assert_eq!(world.nodes[0].transport.sessions()[0].outstanding, 256);
}

#[test]
fn errors_and_wrong_answers_are_told_apart() {
    let mut world = World::new(2, 14);
    world.nodes[1].answers = false;
    world.call(0, 1, 1);
    world.call(0, 1, 2);
    world.run(SECOND);
    let error = ErrorBody::new(ErrorCode::QuotaExceeded, "full");
    let (session, first) = first_incoming(&world, 1);
    let (_, second) = last_incoming(&world, 1);
    let now = world.now;
    let refusal = Message::Error(error.clone());
    world.with(1, |transport| transport.respond(session, first, &refusal, now));
    world.run(SECOND);
    assert_eq!(world.answer(0, 1), Some(Err(CallError::Refused(error))));
    assert_eq!(world.nodes[0].transport.sessions().len(), 1);

    world.with(1, |transport| transport.respond(session, second, &Message::Done(Done()), now));
    world.run(SECOND);
    assert!(matches!(world.answer(0, 2), Some(Err(CallError::Misbehaved(_)))));
    assert!(world.nodes[0].transport.sessions().is_empty());
}

#[test]
fn a_store_needs_one_result_for_each_recipient() {
    let mut world = World::new(2, 15);
    world.nodes[1].answers = false;
    let recipient = Recipient { identity_key: world.key(1), admission: Admission::Session };
    let store = Message::StoreMessage(StoreMessage {
        blob: Bin::new(vec![7; 1000]).unwrap(),
        recipients: List::new(vec![recipient, recipient]).unwrap(),
    });
    let candidates = [world.candidate(1)];
    world.call_with(0, Target::Peer(world.key(1)), &candidates, store, 1);
    world.run(SECOND);
    let (session, id) = first_incoming(&world, 1);
    let empty = Message::StoreResponse(StoreResponse { results: List::default() });
    let now = world.now;
    world.with(1, |transport| transport.respond(session, id, &empty, now));
    world.run(SECOND);
    assert!(matches!(world.answer(0, 1), Some(Err(CallError::Misbehaved(_)))));
}

#[test]
fn what_is_no_request_is_not_sent() {
    let mut world = World::new(2, 16);
    let candidates = [world.candidate(1)];
    for (tag, message) in [(1, Message::Done(Done())), (2, relay_info())] {
        world.call_with(0, Target::Peer(world.key(1)), &candidates, message, tag);
        assert_eq!(world.answer(0, tag), Some(Err(CallError::Unsendable)));
    }
    // An anonymous session asks for nothing that needs an owner.
    let token_list = Message::SetAdmission(SetAdmission {
        entries: List::new(vec![AdmissionEntry {
            token_hash: TokenHash::new([1; 32]),
            class: AdmissionClass::Contact,
            daily_quota: 0,
        }])
        .unwrap(),
    });
    let target = Target::Anonymous(world.key(1), 1);
    world.call_with(0, target, &candidates, token_list, 3);
    world.run(SECOND);
    assert_eq!(world.answer(0, 3), Some(Err(CallError::Unsendable)));
    assert_eq!(world.nodes[1].incoming(), 0);
}

pub(super) fn first_incoming(world: &World, node: usize) -> (u64, u64) {
    incoming(world, node).next().unwrap()
}

pub(super) fn last_incoming(world: &World, node: usize) -> (u64, u64) {
    incoming(world, node).last().unwrap()
}

fn incoming(world: &World, node: usize) -> impl Iterator<Item = (u64, u64)> {
    world.nodes[node].events.iter().filter_map(|event| match event {
        Event::Incoming { session, request_id, .. } => Some((*session, *request_id)),
        _ => None,
    })
}
