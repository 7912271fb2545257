//! Two connections joined by hand, under a virtual clock.

use super::*;
use crate::entropy::Entropy;
use crate::noise::testing::{Person, person};
use crate::time::Timestamp;
use crate::wire::Ping;

/// Moves bytes both ways until nothing moves; gives what happened on each side.
struct Pair {
    now: Now,
    dialled: Connection,
    accepted: Connection,
    dialled_events: Vec<Event>,
    accepted_events: Vec<Event>,
}

impl Pair {
    fn new(dialler: &Person, listener: &Person, anonymous: bool) -> Self {
        let now = at(0);
        let expect = Some(listener.identity.key());
        Self {
            now,
            dialled: Connection::dial(
                dialler.local(),
                expect,
                anonymous,
                Entropy::from_number(1),
                now,
            ),
            accepted: Connection::accept(listener.local(), Entropy::from_number(2), now),
            dialled_events: Vec::new(),
            accepted_events: Vec::new(),
        }
    }

    fn established(anonymous: bool) -> Self {
        let mut pair = Self::new(&person(1), &person(2), anonymous);
        pair.run();
        assert!(pair.dialled.is_established() && pair.accepted.is_established());
        pair.dialled_events.clear();
        pair.accepted_events.clear();
        pair
    }

    fn run(&mut self) {
        loop {
            let there = drain(&mut self.dialled, &mut self.dialled_events);
            self.accepted.handle_bytes(&there, self.now);
            let back = drain(&mut self.accepted, &mut self.accepted_events);
            self.dialled.handle_bytes(&back, self.now);
            if there.is_empty() && back.is_empty() {
                return;
            }
        }
    }
}

fn at(ms: u64) -> Now {
    Now { instant: Instant::from_millis(ms), wall: Timestamp::from_millis(ms) }
}

fn drain(connection: &mut Connection, events: &mut Vec<Event>) -> Vec<u8> {
    while let Some(event) = connection.poll_event() {
        events.push(event);
    }
    let mut bytes = Vec::new();
    while let Some(more) = connection.poll_transmit() {
        bytes.extend(more);
    }
    bytes
}

#[test]
fn two_people_meet_and_talk() {
    let mut pair = Pair::new(&person(1), &person(2), false);
    pair.run();
    let [Event::Established(peer)] = &pair.dialled_events[..] else { panic!() };
    assert_eq!(peer.caller.key(), Some(person(2).identity.key()));
    let [Event::Established(peer)] = &pair.accepted_events[..] else { panic!() };
    assert_eq!(peer.caller.key(), Some(person(1).identity.key()));

    let id = pair.dialled.request(&Message::RelayInfoRequest(Ping())).unwrap();
    pair.run();
    let Event::Request { id: seen, message: Message::RelayInfoRequest(_) } =
        &pair.accepted_events[1]
    else {
        panic!()
    };
    assert_eq!(*seen, id);
}
