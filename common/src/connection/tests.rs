//! Two connections joined by hand, under a virtual clock: what honest peers do. What others do is in
//! `attacks` and `violations`.

mod attacks;
mod violations;

use proptest::prelude::*;

use super::*;
use crate::limit::{
    IDLE_TIMEOUT, MAX_MESSAGE_STRANGER, MAX_OPEN_REQUESTS, MAX_SESSION_AGE, PING_AFTER,
};
use crate::noise::testing::{Person, person};
use crate::time::Timestamp;
use crate::wire::{
    Ack, Bin, Close, Done, ErrorBody, List, MessageBatch, Ping, RetrieveMessages, StoreMessage,
};

/// Two ends and what happened at each.
struct Pair {
    now: Now,
    near: End,
    far: End,
}

struct End {
    connection: Connection,
    events: Vec<Event>,
}

impl End {
    fn new(connection: Connection) -> Self {
        Self { connection, events: Vec::new() }
    }

    /// Everything that the connection has to say now.
    fn drain(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            while let Some(event) = self.connection.poll_event() {
                self.events.push(event);
            }
            match self.connection.poll_transmit() {
                Some(more) => bytes.extend(more),
                None => return bytes,
            }
        }
    }

    /// Tells the connection that nothing more comes, and gives how it ended.
    fn cut(mut self, now: Now) -> Closed {
        self.connection.handle_eof(now);
        self.drain();
        self.closed()
    }

    /// How the connection ended. Nothing happens after the end, and it comes once.
    fn closed(mut self) -> Closed {
        self.connection.handle_eof(at(u64::MAX));
        self.connection.handle_timeout(at(u64::MAX));
        self.connection.handle_bytes(b"anything", at(u64::MAX));
        self.drain();
        assert!(!self.connection.is_established() && self.connection.is_closed());
        assert_eq!(self.connection.poll_timeout(), None);
        assert_eq!(self.connection.queued_bytes(), 0);
        let Some(Event::Closed(closed)) = self.events.pop() else { panic!("no end") };
        assert!(!self.events.iter().any(|event| matches!(event, Event::Closed(_))));
        closed
    }

    fn requests(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Request { .. })).count()
    }
}

impl Pair {
    fn new(dialler: &Person, listener: &Person, anonymous: bool) -> Self {
        let now = at(0);
        let expect = Some(listener.identity.key());
        let entropy = Entropy::from_number(1);
        let near = Connection::dial(dialler.local(), expect, anonymous, entropy, now);
        let far = Connection::accept(listener.local(), Entropy::from_number(2), now);
        Self { now, near: End::new(near), far: End::new(far) }
    }

    fn established(anonymous: bool) -> Self {
        let mut pair = Self::new(&person(1), &person(2), anonymous);
        pair.run();
        assert!(pair.near.connection.is_established() && pair.far.connection.is_established());
        pair.near.events.clear();
        pair.far.events.clear();
        pair
    }

    /// Moves bytes both ways until nothing moves.
    fn run(&mut self) {
        loop {
            let there = self.near.drain();
            self.far.connection.handle_bytes(&there, self.now);
            let back = self.far.drain();
            self.near.connection.handle_bytes(&back, self.now);
            if there.is_empty() && back.is_empty() {
                return;
            }
        }
    }

    /// Lets time pass on both sides, as their timers ask.
    fn wait_until(&mut self, until: u64) {
        let next = |pair: &Self| {
            let timers = [&pair.near, &pair.far].map(|end| end.connection.poll_timeout());
            timers.into_iter().flatten().min().filter(|at| at.as_millis() <= until)
        };
        while let Some(instant) = next(self) {
            self.now.instant = self.now.instant.max(instant);
            self.near.connection.handle_timeout(self.now);
            self.far.connection.handle_timeout(self.now);
            self.run();
        }
        self.now = at(until);
    }
}

fn at(ms: u64) -> Now {
    Now { instant: Instant::from_millis(ms), wall: Timestamp::from_millis(ms) }
}

fn ask() -> Message {
    Message::RelayInfoRequest(Ping())
}

fn store(bytes: usize) -> Message {
    let blob = Bin::new(vec![7; bytes]).unwrap();
    Message::StoreMessage(StoreMessage { blob, recipients: List::default() })
}

#[test]
fn two_people_meet_and_talk() {
    let mut pair = Pair::new(&person(1), &person(2), false);
    assert_eq!(pair.near.connection.request(&ask()), Err(NotOpen::NotEstablished));
    pair.run();
    let [Event::Established(peer)] = &pair.near.events[..] else { panic!() };
    assert_eq!((peer.caller.key(), peer.role), (Some(person(2).identity.key()), Role::Initiator));
    assert_eq!(pair.near.connection.peer(), Some(peer));
    let [Event::Established(peer)] = &pair.far.events[..] else { panic!() };
    assert_eq!((peer.caller.key(), peer.role), (Some(person(1).identity.key()), Role::Responder));

    // Both may ask; the numbers do not collide.
    let there = pair.near.connection.request(&ask()).unwrap();
    let back = pair.far.connection.request(&ask()).unwrap();
    assert_eq!((there % 2, back % 2), (0, 1));
    pair.run();
    for (end, id) in [(&mut pair.near, back), (&mut pair.far, there)] {
        let Some(Event::Request { id: seen, message }) = end.events.pop() else { panic!() };
        assert_eq!((seen, message), (id, ask()));
        end.connection.respond(id, &Message::Done(Done()));
    }
    pair.run();
    for (end, id) in [(&mut pair.near, there), (&mut pair.far, back)] {
        let Some(Event::Response { id: seen, message }) = end.events.pop() else { panic!() };
        assert_eq!((seen, message), (id, Message::Done(Done())));
    }
}

#[test]
fn a_subscription_is_answered_again_and_again() {
    let mut pair = Pair::established(false);
    let subscribe = Message::RetrieveMessages(RetrieveMessages { window: 1 });
    let id = pair.near.connection.request(&subscribe).unwrap();
    pair.run();
    let batch = Message::MessageBatch(MessageBatch { messages: List::default(), has_more: false });
    for _ in 0..3 {
        pair.far.connection.respond(id, &batch);
    }
    pair.far.connection.respond(id, &Message::Done(Done()));
    // After its end, and after an answer that is final, nothing more is handed on.
    pair.far.connection.respond(id, &batch);
    pair.run();
    assert_eq!(pair.near.events.len(), 4);
    let other = pair.near.connection.request(&ask()).unwrap();
    pair.near.connection.abandon(other);
    pair.run();
    pair.far.connection.respond(other, &Message::Done(Done()));
    pair.run();
    assert_eq!(pair.near.events.len(), 4);
    assert!(pair.near.connection.is_established());
}

#[test]
fn a_clean_end_comes_after_everything_that_was_queued() {
    let mut pair = Pair::established(false);
    pair.far.connection.set_peer_trusted(true);
    pair.near.connection.request(&store(300_000)).unwrap();
    pair.near.connection.request(&ask()).unwrap();
    pair.near.connection.close(ErrorCode::Duplicate);
    assert_eq!(pair.near.connection.request(&ask()), Err(NotOpen::Closed));
    pair.run();
    assert_eq!(pair.far.requests(), 2);
    for end in [pair.near, pair.far] {
        assert!(matches!(end.closed(), Closed::Clean(ErrorCode::Duplicate)));
    }
}

#[test]
fn closing_within_the_handshake_is_silent() {
    let mut pair = Pair::new(&person(1), &person(2), false);
    pair.near.connection.close(ErrorCode::Goodbye);
    assert!(pair.near.drain().is_empty());
    assert!(matches!(pair.near.closed(), Closed::Clean(ErrorCode::Goodbye)));
}

#[test]
fn silence_is_probed_and_then_ends_the_connection() {
    let mut pair = Pair::established(false);
    // A quarter of a day in silence, with only probes and their answers.
    let mut probes = 0;
    for minute in 0..360 {
        let before = pair.near.connection.poll_timeout().unwrap();
        pair.wait_until(minute * 60_000);
        probes += usize::from(pair.near.connection.poll_timeout().unwrap() != before);
    }
    assert!(pair.near.events.is_empty() && pair.far.events.is_empty());
    assert!((250..=360).contains(&probes), "{probes}");
    // Then the other side is gone.
    let began = pair.now.instant;
    let mut now = began;
    while let Some(at) = pair.near.connection.poll_timeout() {
        now = at;
        pair.near.connection.handle_timeout(Now { instant: at, ..pair.now });
        pair.near.drain();
    }
    assert!(now.since(began) <= IDLE_TIMEOUT && now.since(began) > PING_AFTER);
    let Closed::Failed(ConnectionError::Silent) = pair.near.closed() else { panic!() };
}

#[test]
fn a_probe_comes_after_a_minute_more_or_less() {
    let mut seen = Vec::new();
    for seed in 0..50 {
        let mut pair = Pair::new(&person(1), &person(2), false);
        let expect = Some(person(2).identity.key());
        let entropy = Entropy::from_number(seed);
        pair.near.connection =
            Connection::dial(person(1).local(), expect, false, entropy, pair.now);
        pair.run();
        seen.push(pair.near.connection.poll_timeout().unwrap().as_millis());
    }
    assert!(seen.iter().all(|at| (48_000..=72_000).contains(at)));
    assert!(seen.iter().max().unwrap() - seen.iter().min().unwrap() > 15_000);
}

#[test]
fn a_session_is_renewed_after_a_day() {
    let mut pair = Pair::established(false);
    let day = u64::try_from(MAX_SESSION_AGE.as_millis()).unwrap();
    pair.wait_until(day - 1);
    assert!(pair.near.connection.is_established());
    pair.wait_until(day);
    assert!(matches!(pair.near.closed(), Closed::Clean(ErrorCode::Goodbye)));
    assert!(matches!(pair.far.closed(), Closed::Clean(ErrorCode::Goodbye)));
}

#[test]
fn requests_that_wait_are_bounded() {
    let mut pair = Pair::established(false);
    for _ in 0..MAX_OPEN_REQUESTS {
        pair.near.connection.request(&ask()).unwrap();
    }
    assert_eq!(pair.near.connection.request(&ask()), Err(NotOpen::TooManyRequests));
    // What is not answered does not count.
    let ack = Message::Ack(Ack { sequences: List::default() });
    pair.near.connection.request(&ack).unwrap();
    pair.run();
    assert_eq!(pair.far.requests(), MAX_OPEN_REQUESTS + 1);
    pair.far.connection.respond(0, &Message::Done(Done()));
    pair.run();
    assert!(pair.near.connection.request(&ask()).is_ok());
}

#[test]
fn what_is_no_request_is_not_sent() {
    let mut pair = Pair::established(false);
    for message in [
        Message::Done(Done()),
        Message::Error(ErrorBody::new(ErrorCode::Internal, "")),
        Message::Close(Close { code: ErrorCode::Goodbye }),
        Message::ListServers(crate::wire::ListServers()),
    ] {
        assert_eq!(pair.near.connection.request(&message), Err(NotOpen::NotARequest));
    }
    let mut pair = Pair::established(true);
    let publish = Message::Ack(Ack { sequences: List::default() });
    assert_eq!(pair.near.connection.request(&publish), Err(NotOpen::NotARequest));
    assert_eq!(pair.far.connection.request(&ask()), Err(NotOpen::NotARequest));
    pair.near.connection.request(&ask()).unwrap();
    pair.near.connection.request(&store(10)).unwrap();
    pair.run();
    assert_eq!(pair.far.requests(), 2);
}

#[test]
fn trust_is_asked_before_the_first_message_is_judged() {
    // Message 3 and a message that only trusted peers may send come in one piece.
    for trusted in [false, true] {
        let mut pair = Pair::new(&person(1), &person(2), false);
        let hello = pair.near.drain();
        pair.far.connection.handle_bytes(&hello, pair.now);
        let answer = pair.far.drain();
        pair.near.connection.handle_bytes(&answer, pair.now);
        assert!(matches!(pair.near.connection.poll_event(), Some(Event::Established(_))));
        pair.near.connection.request(&store(MAX_MESSAGE_STRANGER + 1)).unwrap();
        let bytes = pair.near.drain();
        pair.far.connection.handle_bytes(&bytes, pair.now);
        let Some(Event::Established(_)) = pair.far.connection.poll_event() else { panic!() };
        pair.far.connection.set_peer_trusted(trusted);
        pair.run();
        assert_eq!(pair.far.requests(), usize::from(trusted));
        assert_eq!(pair.far.connection.is_established(), trusted);
        if !trusted {
            assert!(matches!(pair.near.closed(), Closed::Clean(ErrorCode::TooLarge)));
        }
    }
}

#[test]
fn what_waits_for_the_first_event_is_bounded_and_its_end_is_kept() {
    let upto_message_3 = || {
        let mut pair = Pair::new(&person(1), &person(2), false);
        let hello = pair.near.drain();
        pair.far.connection.handle_bytes(&hello, pair.now);
        let answer = pair.far.drain();
        pair.near.connection.handle_bytes(&answer, pair.now);
        let message_3 = pair.near.drain();
        pair.far.connection.handle_bytes(&message_3, pair.now);
        pair
    };
    let mut pair = upto_message_3();
    pair.near.connection.request(&ask()).unwrap();
    let request = pair.near.drain();
    pair.far.connection.handle_bytes(&request, pair.now);
    pair.far.connection.handle_eof(pair.now);
    pair.far.drain();
    assert!(matches!(&pair.far.events[1], Event::Request { .. }));
    assert!(matches!(pair.far.closed(), Closed::Unclean));

    let mut pair = upto_message_3();
    pair.far.connection.handle_bytes(&vec![0; MAX_HELD], pair.now);
    pair.far.connection.handle_bytes(&[0], pair.now);
    let Closed::Failed(ConnectionError::NotPolled) = pair.far.closed() else { panic!() };
}

#[test]
fn an_idle_connection_is_small() {
    let mut pair = Pair::established(false);
    pair.near.connection.request(&store(90_000)).unwrap();
    pair.run();
    pair.far.connection.respond(0, &Message::Done(Done()));
    pair.run();
    pair.near.connection.forget_peer();
    let connection = &pair.near.connection;
    assert_eq!(connection.peer(), None);
    assert_eq!(connection.events.capacity(), 0);
    assert_eq!(connection.transmit.capacity(), 0);
    assert_eq!(connection.queued_bytes(), 0);
    let Stage::Open(open) = &connection.stage else { panic!() };
    // What the Noise library holds besides (two cipher states) is about 1.3 KiB.
    assert!(size_of::<Connection>() + size_of_val(&**open) < 1400);
    assert!(!open.holds_buffers());
}

#[test]
fn an_answer_that_is_too_long_becomes_an_error() {
    let mut pair = Pair::established(false);
    pair.near.connection.set_peer_trusted(true);
    let id = pair.near.connection.request(&ask()).unwrap();
    pair.run();
    let stored = crate::wire::StoredMessage {
        sequence: 1,
        blob_id: crate::id::BlobId::new([0; 16]),
        stored_at: Timestamp::from_millis(0),
        blob: Bin::new(vec![0; 3 << 20]).unwrap(),
    };
    let messages = List::new(vec![stored; 2]).unwrap();
    let batch = Message::MessageBatch(MessageBatch { messages, has_more: false });
    pair.far.connection.respond(id, &batch);
    pair.run();
    let Some(Event::Response { message: Message::Error(error), .. }) = pair.near.events.pop()
    else {
        panic!()
    };
    assert_eq!(error.code, ErrorCode::TooLarge);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_of_the_stream_gives_the_same_events(
        sizes in prop::collection::vec(prop_oneof![0..100_usize, 16_000..17_000_usize, 0..90_000_usize], 0..8),
        cuts in prop::collection::vec(prop_oneof![1..10_usize, 1..20_000_usize], 1..50),
    ) {
        let mut pair = Pair::new(&person(1), &person(2), false);
        let mut cuts = cuts.iter().cycle();
        let mut sent = false;
        loop {
            let there = pair.near.drain();
            let back_before = pair.far.events.len();
            deliver(&mut pair.far, &there, &mut cuts);
            let back = pair.far.drain();
            deliver(&mut pair.near, &back, &mut cuts);
            if pair.near.connection.is_established() && !sent {
                sent = true;
                for size in &sizes {
                    pair.near.connection.request(&store(*size)).unwrap();
                }
            } else if there.is_empty() && back.is_empty() && pair.far.events.len() == back_before {
                break;
            }
        }
        let mut seen: Vec<usize> = Vec::new();
        for event in &pair.far.events {
            if let Event::Request { message: Message::StoreMessage(store), .. } = event {
                seen.push(store.blob.len());
            }
        }
        seen.sort_unstable();
        let mut sizes = sizes;
        sizes.sort_unstable();
        prop_assert_eq!(seen, sizes);
    }
}

fn deliver<'a>(to: &mut End, mut bytes: &[u8], cuts: &mut impl Iterator<Item = &'a usize>) {
    while !bytes.is_empty() {
        let cut = cuts.next().unwrap();
        let (piece, rest) = bytes.split_at((*cut).min(bytes.len()));
        to.connection.handle_bytes(piece, at(0));
        bytes = rest;
    }
}
