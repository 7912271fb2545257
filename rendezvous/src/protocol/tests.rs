//! One connection without a network: what goes in, what comes out, and when it ends.

use proptest::prelude::*;
use sremp_common::id::{IdentityKey, SoughtKey};
use sremp_common::wire::{ListServers, Lookup, Ping, Servers};

use super::*;

const IDLE: Duration = Duration::from_secs(100);

/// What [`list_servers`] asks for.
const SERVERS: Wanted = Wanted::Question(Question::Servers);

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn framed(id: RequestId, message: &Message) -> Vec<u8> {
    encode_long_frame(&message.encode(id)).unwrap()
}

/// A session whose header has been exchanged.
fn open() -> Session {
    let mut session = Session::new(IDLE, at(0));
    assert_eq!(session.poll_transmit().unwrap(), VERSION_HEADER);
    session.handle_bytes(&VERSION_HEADER, at(0));
    session
}

/// All messages that the session has to send.
fn sent(session: &mut Session) -> Vec<(RequestId, Message)> {
    let mut reader = LongFrameReader::new();
    let _ = reader.read(&mut &VERSION_HEADER[..]).unwrap();
    let mut messages = Vec::new();
    while let Some(bytes) = session.poll_transmit() {
        let mut bytes = bytes.as_slice();
        while let Some(frame) = reader.read(&mut bytes).unwrap() {
            messages.push(Message::decode(&frame).unwrap());
        }
    }
    messages
}

/// The code of the one error that the session has to send, and the request it answers.
fn refused(session: &mut Session) -> (RequestId, ErrorCode) {
    match sent(session).as_slice() {
        [(id, Message::Error(error))] => (*id, error.code),
        other => panic!("{other:?}"),
    }
}

fn servers() -> Message {
    let time = sremp_common::time::Timestamp::default();
    Message::Servers(Servers { servers: sremp_common::wire::List::default(), time })
}

fn list_servers(id: RequestId) -> Vec<u8> {
    framed(id, &Message::ListServers(ListServers()))
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let mut session = open();
    let mut bytes = list_servers(0);
    bytes.extend(framed(2, &Message::Ping(Ping())));
    bytes.extend(list_servers(4));
    session.handle_bytes(&bytes, at(1));
    assert_eq!(session.poll_wanted(), Some(SERVERS));
    assert_eq!(session.poll_wanted(), None);
    assert!(!session.wants_bytes());
    assert_eq!(session.poll_timeout(), None);
    assert!(sent(&mut session).is_empty());

    session.handle_answer(&servers(), at(2));
    assert_eq!(sent(&mut session), [(0, servers()), (2, Message::Pong(Pong()))]);
    assert_eq!(session.poll_wanted(), Some(SERVERS));
    session.handle_answer(&servers(), at(3));
    assert_eq!(sent(&mut session), [(4, servers())]);
    assert!(session.wants_bytes());
    // An answer that nobody asked for goes nowhere.
    session.handle_answer(&servers(), at(4));
    assert!(sent(&mut session).is_empty());
}

#[test]
fn answers_to_what_came_together_leave_together_up_to_a_bound() {
    // As many as fill a TLS record, and more.
    const MANY: u64 = 40;
    let servers = sremp_common::wire::List::truncated(
        (0..60).map(|n| format!("server{n:02}.example.org:7332").parse().unwrap()).collect(),
    );
    let time = sremp_common::time::Timestamp::default();
    let answer = Message::Servers(Servers { servers, time });
    let mut session = open();
    let bytes: Vec<u8> = (0..MANY).flat_map(|n| list_servers(2 * n)).collect();
    session.handle_bytes(&bytes, at(1));
    let (mut answered, mut writes) = (0, Vec::new());
    while answered < MANY {
        while let Some(wanted) = session.poll_wanted() {
            assert_eq!(wanted, SERVERS);
            session.handle_answer(&answer, at(2));
            answered += 1;
        }
        writes.push(session.poll_transmit().unwrap().len());
    }
    let one = framed(0, &answer).len();
    assert!(writes.len() > 1 && writes.iter().all(|write| *write <= MAX_GATHERED + one));
    assert!(writes[0] > MAX_GATHERED, "{writes:?}");
    assert!(session.wants_bytes() && session.poll_transmit().is_none());
}

#[test]
fn lookups_say_what_they_ask_for_or_are_refused() {
    let key = sremp_common::key::IdentitySecret::from_bytes(&[1; 32]).public();
    let good: [(Lookup, Wanted); 3] = [
        (Lookup::one(key), Wanted::Question(Question::One(SoughtKey::of(&key)))),
        (Lookup::listed(None), Wanted::Request(Request::List(None))),
        (Lookup::listed(Some(key)), Wanted::Request(Request::List(Some(key)))),
    ];
    for (lookup, wanted) in good {
        let mut session = open();
        session.handle_bytes(&framed(0, &Message::Lookup(lookup)), at(1));
        assert_eq!(session.poll_wanted(), Some(wanted));
    }
    let bad: [(Option<IdentityKey>, bool, Option<IdentityKey>); 5] = [
        (None, false, None),
        (Some(key), true, None),
        (Some(key), false, Some(key)),
        (None, false, Some(key)),
        (Some(key), true, Some(key)),
    ];
    for (target, list_all, after) in bad {
        let mut session = open();
        let target = target.as_ref().map(SoughtKey::of);
        let lookup = Lookup { target, list_all, after };
        session.handle_bytes(&framed(6, &Message::Lookup(lookup)), at(1));
        assert_eq!(refused(&mut session), (6, ErrorCode::Malformed));
        assert_eq!(session.ending(), Some(Ending::Malformed));
    }
}

#[test]
fn what_is_not_served_is_refused_and_the_connection_goes_on() {
    let mut session = open();
    session.handle_bytes(&framed(0, &Message::RelayInfoRequest(Ping())), at(1));
    assert_eq!(refused(&mut session), (0, ErrorCode::Unsupported));
    // [200, 2, nil]: a type that nobody knows.
    session.handle_bytes(&encode_long_frame(&[0x93, 0xcc, 200, 2, 0xc0]).unwrap(), at(1));
    assert_eq!(refused(&mut session), (2, ErrorCode::Unsupported));
    assert!(session.wants_bytes());
    // Every type number that is known and not ours.
    for number in Message::TYPE_NUMBERS {
        assert!(*number < 128, "the test writes short numbers");
    }
}

#[test]
fn malformed_messages_end_the_connection() {
    for (frame, id) in [
        (vec![], UNASKED),
        (b"\xc1".to_vec(), UNASKED),
        // [1, 2, [7]]: a ping with something in it.
        (vec![0x93, 1, 2, 0x91, 7], 2),
        // The same id in a longer form.
        (vec![0x93, 1, 0xcc, 2, 0x90], UNASKED),
        // Something behind the message.
        (vec![0x93, 1, 2, 0x90, 0xc0], 2),
        // An id of the responder's.
        (vec![0x93, 1, 3, 0x90], 3),
    ] {
        let mut session = open();
        session.handle_bytes(&encode_long_frame(&frame).unwrap(), at(1));
        assert_eq!(refused(&mut session), (id, ErrorCode::Malformed), "{frame:?}");
        assert_eq!(session.ending(), Some(Ending::Malformed));
        // And nothing more is heard.
        session.handle_bytes(&list_servers(0), at(1));
        assert_eq!(session.poll_wanted(), None);
    }
}

#[test]
fn streams_of_others_end_the_connection() {
    for (bytes, answer) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), None),
        (b"SREMP\x02\x00".to_vec(), Some(ErrorCode::VersionMismatch)),
        (b"SREMP\x01\x00\x01\x00\x01\x00".to_vec(), Some(ErrorCode::TooLarge)),
        (b"SREMP\x01\x00\xff\xff\xff\xff".to_vec(), Some(ErrorCode::TooLarge)),
    ] {
        let mut session = Session::new(IDLE, at(0));
        assert_eq!(session.poll_transmit().unwrap(), VERSION_HEADER);
        session.handle_bytes(&bytes, at(1));
        match answer {
            None => assert!(sent(&mut session).is_empty()),
            Some(code) => assert_eq!(refused(&mut session), (UNASKED, code)),
        }
        assert_eq!(session.ending(), Some(Ending::Malformed));
    }
}

#[test]
fn the_end_of_the_stream_is_clean_only_between_messages() {
    let mut session = open();
    session.handle_eof();
    assert_eq!(session.ending(), Some(Ending::Eof));
    let mut session = open();
    session.handle_bytes(&list_servers(0)[..5], at(1));
    session.handle_eof();
    assert_eq!(session.ending(), Some(Ending::CutOff));
    for message in [
        Message::Close(Close { code: ErrorCode::Goodbye }),
        Message::Error(ErrorBody::new(ErrorCode::Internal, "")),
    ] {
        let mut session = open();
        session.handle_bytes(&framed(0, &message), at(1));
        assert_eq!(session.ending(), Some(Ending::Closed));
        assert!(sent(&mut session).is_empty());
    }
}

/// Lets time pass up to, and then onto, the deadline.
fn times_out_at(session: &mut Session, ms: u64) {
    assert_eq!(session.poll_timeout(), Some(at(ms)));
    session.handle_timeout(at(ms - 1));
    assert_eq!(session.ending(), None);
    session.handle_timeout(at(ms));
    assert_eq!(session.ending(), Some(Ending::TimedOut));
}

#[test]
fn silence_and_dripping_end_the_connection() {
    // No header.
    let mut session = Session::new(IDLE, at(0));
    session.handle_bytes(b"SREM", at(9_000));
    times_out_at(&mut session, 10_000);

    // No request.
    let mut session = open();
    times_out_at(&mut session, 100_000);
    assert_eq!(
        sent(&mut session),
        [(UNASKED, Message::Close(Close { code: ErrorCode::TimedOut }))]
    );

    // A request byte by byte: the first byte starts a clock that the others do not wind.
    let mut session = open();
    session.handle_bytes(&framed(0, &Message::Ping(Ping())), at(50_000));
    let request = list_servers(0);
    for (i, byte) in request[..5].iter().enumerate() {
        let now = 60_000 + 1_000 * u64::try_from(i).unwrap();
        session.handle_bytes(std::slice::from_ref(byte), at(now));
    }
    times_out_at(&mut session, 90_000);

    // An answer starts the silence anew.
    let mut session = open();
    session.handle_bytes(&request, at(1_000));
    assert!(session.poll_wanted().is_some());
    session.handle_timeout(at(1_000_000));
    assert_eq!(session.ending(), None);
    session.handle_answer(&servers(), at(2_000_000));
    times_out_at(&mut session, 2_100_000);
}

#[test]
fn a_server_that_stops_says_so_once() {
    let mut session = open();
    session.close(ErrorCode::Unavailable);
    session.close(ErrorCode::Unavailable);
    let close = Message::Close(Close { code: ErrorCode::Unavailable });
    assert_eq!(sent(&mut session), [(UNASKED, close)]);
    assert_eq!(session.ending(), Some(Ending::Closed));
}

proptest! {
    #[test]
    fn any_bytes_end_in_a_state_with_a_next_step(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        flip in any::<(usize, u8)>(),
    ) {
        // Anything at all, and a good request with one byte changed.
        let mut changed = list_servers(0);
        let place = flip.0 % changed.len();
        changed[place] ^= flip.1;
        for input in [bytes, changed] {
            let mut session = open();
            session.handle_bytes(&input, at(1));
            let _ = sent(&mut session);
            if session.poll_wanted().is_some() {
                session.handle_answer(&servers(), at(2));
            }
            prop_assert!(session.ending().is_some() || session.poll_timeout().is_some() || session.poll_wanted().is_some());
        }
    }
}
