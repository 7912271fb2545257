//! What strangers and the network do to a connection: before it is established, and to its frames.

use super::*;
use crate::chunk::{ChunkError, MAX_CHUNK_FRAME, Outgoing};
use crate::frame::{FrameError, append_frame};
use crate::label::VERSION_HEADER;
use crate::limit::{HANDSHAKE_TIMEOUT, MAX_NOISE_MESSAGE, REASSEMBLY_TIMEOUT};
use crate::noise::{HandshakeError, SessionError};
use crate::wire::Pong;

fn dialled() -> End {
    let expect = Some(person(2).identity.key());
    let entropy = Entropy::from_number(1);
    End::new(Connection::dial(person(1).local(), expect, false, entropy, at(0)))
}

fn accepted() -> End {
    End::new(Connection::accept(person(2).local(), Entropy::from_number(2), at(0)))
}

/// What comes of a whole attempt: how each side ended, and that neither saw anything else.
fn refused(mut pair: Pair) -> (Closed, Closed) {
    pair.run();
    assert_eq!(pair.near.requests() + pair.far.requests(), 0);
    let established =
        |end: &End| end.events.iter().any(|event| matches!(event, Event::Established(_)));
    assert!(!established(&pair.near) && !established(&pair.far));
    (pair.near.cut(at(1)), pair.far.cut(at(1)))
}

#[test]
fn n01_static_key_mismatch() {
    let hostile = Person { identity: person(1).identity, ..person(66) };
    let (_, far) = refused_at_responder(Pair::new(&hostile, &person(2), false));
    let Closed::Failed(ConnectionError::Handshake(HandshakeError::StaticKeyMismatch)) = far else {
        panic!()
    };
    let (near, _) = refused(Pair::new(&person(2), &hostile, false));
    let Closed::Failed(ConnectionError::Handshake(HandshakeError::StaticKeyMismatch)) = near else {
        panic!()
    };
}

/// As [`refused`], where the initiator has done its part and only the responder refuses.
fn refused_at_responder(mut pair: Pair) -> (Closed, Closed) {
    pair.run();
    assert_eq!(pair.far.events.len(), 1);
    (pair.near.cut(at(1)), pair.far.cut(at(1)))
}

#[test]
fn n02_a_wrong_host_learns_nothing_about_the_caller() {
    let mut pair = Pair::new(&person(1), &person(66), false);
    let expect = Some(person(2).identity.key());
    let entropy = Entropy::from_number(1);
    pair.near.connection = Connection::dial(person(1).local(), expect, false, entropy, pair.now);
    let hello = pair.near.drain();
    pair.far.connection.handle_bytes(&hello, pair.now);
    let answer = pair.far.drain();
    pair.near.connection.handle_bytes(&answer, pair.now);
    assert!(pair.near.drain().is_empty());
    let Closed::Failed(ConnectionError::Handshake(HandshakeError::WrongIdentity { .. })) =
        pair.near.closed()
    else {
        panic!()
    };
}

#[test]
fn n05_headers_changed_in_flight() {
    let mut pair = Pair::new(&person(1), &person(2), false);
    let mut hello = pair.near.drain();
    hello[6] ^= 1;
    pair.far.connection.handle_bytes(&hello, pair.now);
    let (near, _) = refused(pair);
    assert!(matches!(near, Closed::Failed(ConnectionError::Handshake(HandshakeError::Decrypt))));

    let mut pair = Pair::new(&person(1), &person(2), false);
    let hello = pair.near.drain();
    pair.far.connection.handle_bytes(&hello, pair.now);
    let mut answer = pair.far.drain();
    answer[6] ^= 1;
    pair.near.connection.handle_bytes(&answer, pair.now);
    let (near, _) = refused(pair);
    assert!(matches!(
        near,
        Closed::Failed(ConnectionError::Handshake(HandshakeError::HeaderChanged))
    ));
}

#[test]
fn n06_wrong_magic_versions_and_cut_headers() {
    for mut end in [dialled(), accepted()] {
        end.drain();
        end.connection.handle_bytes(b"SREMP\x01\xff", at(0));
        assert!(end.drain().is_empty() && !end.connection.is_closed());
    }
    for make in [dialled, accepted] {
        for wrong in 0..5 {
            let mut end = make();
            let hello = end.drain();
            let mut header = VERSION_HEADER;
            header[wrong] ^= 0x20;
            // Refused at the first wrong byte, not at the seventh.
            end.connection.handle_bytes(&header[..=wrong], at(0));
            assert!(hello.is_empty() || hello.starts_with(&VERSION_HEADER));
            let Closed::Failed(ConnectionError::Handshake(HandshakeError::NotSremp)) = end.closed()
            else {
                panic!()
            };
        }
        for major in [0, 2, 255] {
            let mut end = make();
            end.connection.handle_bytes(&[b'S', b'R', b'E', b'M', b'P', major, 7], at(0));
            // The other side is told our version, too.
            assert!(end.drain().starts_with(&VERSION_HEADER));
            let Closed::Failed(ConnectionError::Handshake(HandshakeError::VersionMismatch {
                ours,
                theirs,
            })) = end.closed()
            else {
                panic!()
            };
            assert_eq!((ours, theirs), ((1, 0), (major, 7)));
        }
        for length in 0..VERSION_HEADER.len() {
            let mut end = make();
            end.connection.handle_bytes(&VERSION_HEADER[..length], at(0));
            let Closed::Failed(ConnectionError::HandshakeCutOff) = end.cut(at(1)) else { panic!() };
        }
    }
}

#[test]
fn n08_everything_comes_back_to_its_sender() {
    let mut near = dialled();
    let hello = near.drain();
    near.connection.handle_bytes(&hello, at(0));
    assert!(near.drain().is_empty());
    let Closed::Failed(ConnectionError::Handshake(HandshakeError::Length)) = near.closed() else {
        panic!()
    };
    // The responder's own message 2 does not make a message 3, with or without its header.
    for skip in [0, VERSION_HEADER.len()] {
        let mut pair = Pair::new(&person(1), &person(2), false);
        let hello = pair.near.drain();
        pair.far.connection.handle_bytes(&hello, pair.now);
        let answer = pair.far.drain();
        pair.far.connection.handle_bytes(&answer[skip..], pair.now);
        assert!(pair.far.drain().is_empty() && pair.far.events.len() <= 1);
        let Closed::Failed(_) = pair.far.cut(at(1)) else { panic!() };
    }
    for far_side in [false, true] {
        let pair = Pair::established(false);
        let mut end = if far_side { pair.far } else { pair.near };
        end.connection.request(&ask()).unwrap();
        let sealed = end.drain();
        end.connection.handle_bytes(&sealed, pair.now);
        let Closed::Failed(ConnectionError::Session(SessionError::Decrypt)) = end.closed() else {
            panic!()
        };
    }
}

#[test]
fn n09_dialling_oneself() {
    for anonymous in [false, true] {
        let (near, _) = refused(Pair::new(&person(1), &person(1), anonymous));
        let Closed::Failed(ConnectionError::Handshake(HandshakeError::OwnKey)) = near else {
            panic!()
        };
    }
}

#[test]
fn n11_frames_replayed_reordered_dropped() {
    // Indices of three frames as a hostile network delivers them, and how many requests that gives.
    let deliveries: &[(&[usize], usize)] = &[
        (&[0, 0], 1),
        (&[0, 1, 0], 2),
        (&[1, 0], 0),
        (&[0, 2, 1], 1),
        (&[1], 0),
        (&[0, 2], 1),
        (&[2, 1, 0], 0),
    ];
    for (order, expected) in deliveries {
        let mut pair = Pair::established(false);
        let frames: Vec<Vec<u8>> = (0..3)
            .map(|_| {
                pair.near.connection.request(&ask()).unwrap();
                pair.near.drain()
            })
            .collect();
        for index in *order {
            pair.far.connection.handle_bytes(&frames[*index], pair.now);
        }
        // Once it has failed, even the right frame comes too late.
        pair.far.connection.handle_bytes(&frames[*expected], pair.now);
        pair.far.drain();
        assert_eq!(pair.far.requests(), *expected);
        let Closed::Failed(ConnectionError::Session(SessionError::Decrypt)) = pair.far.closed()
        else {
            panic!()
        };
    }
}

#[test]
fn n12_a_forged_frame_ends_the_session() {
    let mut pair = Pair::established(false);
    let mut forged = Vec::new();
    append_frame(&mut forged, &[0; 64]).unwrap();
    pair.far.connection.handle_bytes(&forged, pair.now);
    assert!(pair.far.drain().is_empty(), "whoever forges is told nothing");
    let Closed::Failed(ConnectionError::Session(SessionError::Decrypt)) = pair.far.closed() else {
        panic!()
    };
}

#[test]
fn n13_a_session_ends_before_its_keys_are_used_up() {
    let mut pair = Pair::established(false);
    for end in [&mut pair.near, &mut pair.far] {
        let Stage::Open(open) = &mut end.connection.stage else { panic!() };
        open.session_mut().limit_frames(1000);
    }
    let mut sent = 0;
    while pair.near.connection.request(&Message::Ping(Ping())).is_ok() {
        sent += 1;
        pair.run();
    }
    assert_eq!(sent, 875);
    assert!(matches!(pair.near.closed(), Closed::Clean(ErrorCode::Goodbye)));
    assert!(matches!(pair.far.closed(), Closed::Clean(ErrorCode::Goodbye)));
}

#[test]
fn n14_every_cut_of_the_handshake_and_illegal_frames() {
    let mut pair = Pair::new(&person(1), &person(2), false);
    let hello = pair.near.drain();
    pair.far.connection.handle_bytes(&hello, pair.now);
    let answer = pair.far.drain();
    for cut in 0..hello.len() {
        let mut end = accepted();
        end.connection.handle_bytes(&hello[..cut], at(0));
        assert!(end.drain().is_empty());
        let Closed::Failed(ConnectionError::HandshakeCutOff) = end.cut(at(1)) else { panic!() };
    }
    for cut in 0..answer.len() {
        let mut end = dialled();
        end.drain();
        end.connection.handle_bytes(&answer[..cut], at(0));
        let Closed::Failed(ConnectionError::HandshakeCutOff) = end.cut(at(1)) else { panic!() };
    }

    let illegal = |end: &mut End, frame: &[u8]| end.connection.handle_bytes(frame, at(0));
    let mut end = accepted();
    illegal(&mut end, b"SREMP\x01\x00\x00\x00");
    let Closed::Failed(ConnectionError::Frame(FrameError::Empty)) = end.closed() else { panic!() };
    // Message 1 has 32 bytes: a longer one is refused at its length, nothing is gathered.
    let mut end = accepted();
    illegal(&mut end, b"SREMP\x01\x00\x21\x00");
    let Closed::Failed(ConnectionError::Frame(FrameError::TooLong { announced: 33, .. })) =
        end.closed()
    else {
        panic!()
    };
    for length in [0, MAX_CHUNK_FRAME + 1, MAX_NOISE_MESSAGE] {
        let mut pair = Pair::established(false);
        let length = u16::try_from(length).unwrap().to_le_bytes();
        pair.far.connection.handle_bytes(&length, pair.now);
        pair.run();
        assert!(matches!(
            pair.near.events.last(),
            Some(Event::Closed(Closed::Clean(ErrorCode::Malformed)))
        ));
        let Closed::Failed(ConnectionError::Frame(_)) = pair.far.closed() else { panic!() };
    }
}

#[test]
fn n15_a_cut_is_not_a_clean_end() {
    for frames in 0..3 {
        let mut pair = Pair::established(false);
        for _ in 0..frames {
            pair.near.connection.request(&ask()).unwrap();
        }
        pair.run();
        assert_eq!(pair.far.requests(), frames);
        assert!(matches!(pair.far.cut(pair.now), Closed::Unclean));
    }
    // In the middle of a message, of a frame, and of the farewell.
    let mut pair = Pair::established(false);
    pair.near.connection.request(&store(50_000)).unwrap();
    let mut bytes = pair.near.drain();
    pair.near.connection.close(ErrorCode::Goodbye);
    bytes.extend(pair.near.drain());
    for cut in [1, 20_000, 40_000, bytes.len() - 1] {
        let mut pair = Pair::established(false);
        pair.far.connection.handle_bytes(&bytes[..cut], pair.now);
        assert!(matches!(pair.far.cut(pair.now), Closed::Unclean));
    }
    let mut pair = Pair::established(false);
    pair.far.connection.handle_bytes(&bytes, pair.now);
    assert!(matches!(pair.far.cut(pair.now), Closed::Clean(ErrorCode::Goodbye)));
}

#[test]
fn n16_a_thousand_slow_diallers_hold_their_slots_for_ten_seconds() {
    let hello = dialled().drain();
    let local = person(2).local();
    let slot = |seed| Connection::accept(local.clone(), Entropy::from_number(seed), at(0));
    let mut slots: Vec<End> = (0..1000).map(slot).map(End::new).collect();
    let deadline = Instant::default() + HANDSHAKE_TIMEOUT;
    for second in 0..10_u64 {
        let byte = usize::try_from(second).unwrap();
        for end in &mut slots {
            assert_eq!(end.connection.poll_timeout(), Some(deadline));
            end.connection.handle_bytes(&hello[byte..=byte], at(second * 1000));
            end.connection.handle_timeout(at(second * 1000 + 999));
            assert!(!end.connection.is_closed());
        }
    }
    for (number, mut end) in slots.into_iter().enumerate() {
        // Whether the timer fires or another byte comes first makes no difference.
        if number % 2 == 0 {
            end.connection.handle_timeout(at(10_000));
        } else {
            end.connection.handle_bytes(&hello[10..11], at(10_000));
        }
        let Closed::Failed(ConnectionError::HandshakeTimedOut) = end.closed() else { panic!() };
    }
}

#[test]
fn n16_a_frame_and_a_message_have_thirty_seconds() {
    // One byte a second keeps a session from being idle, but the frame does not become whole.
    let mut pair = Pair::established(false);
    pair.near.connection.request(&store(10_000)).unwrap();
    let bytes = pair.near.drain();
    let limit = REASSEMBLY_TIMEOUT.as_secs();
    for (second, byte) in (0..limit).zip(&bytes) {
        let now = at(second * 1000);
        pair.far.connection.handle_timeout(now);
        assert!(pair.far.connection.is_established());
        pair.far.connection.handle_bytes(&[*byte], now);
        assert!(pair.far.connection.poll_timeout() <= Some(Instant::from_millis(limit * 1000)));
    }
    pair.far.connection.handle_timeout(at(limit * 1000));
    let Closed::Failed(ConnectionError::FrameTimedOut) = pair.far.closed() else { panic!() };

    let mut pair = Pair::established(false);
    pair.near.connection.request(&store(50_000)).unwrap();
    let first = pair.near.connection.poll_transmit().unwrap();
    pair.far.connection.handle_bytes(&first, pair.now);
    pair.far.connection.handle_timeout(at(limit * 1000 - 1));
    assert!(pair.far.connection.is_established());
    pair.far.connection.handle_timeout(at(limit * 1000));
    let Closed::Failed(ConnectionError::Chunk(ChunkError::TimedOut)) = pair.far.closed() else {
        panic!()
    };
}

#[test]
fn n20_data_before_authentication() {
    let request = ask().encode(0);
    let mut plain = Outgoing::default();
    plain.push(request.clone()).unwrap();
    let chunk = plain.next_chunk().unwrap();
    let mut frames = Vec::new();
    for content in [&request, &chunk] {
        let mut frame = VERSION_HEADER.to_vec();
        append_frame(&mut frame, content).unwrap();
        frames.push(frame);
    }
    // Instead of message 1, to a responder; instead of message 2, to an initiator.
    for frame in &frames {
        for mut end in [dialled(), accepted()] {
            end.drain();
            end.connection.handle_bytes(frame, at(0));
            end.drain();
            assert!(end.events.iter().all(|event| matches!(event, Event::Closed(_))));
            let Closed::Failed(_) = end.cut(at(1)) else { panic!() };
        }
    }
    // Instead of message 3: in the clear, and sealed in a session of its own.
    let mut other = Pair::established(false);
    other.near.connection.request(&ask()).unwrap();
    let sealed = other.near.drain();
    for early in [frames[1][VERSION_HEADER.len()..].to_vec(), sealed] {
        let mut pair = Pair::new(&person(1), &person(2), false);
        let hello = pair.near.drain();
        pair.far.connection.handle_bytes(&hello, pair.now);
        pair.far.drain();
        pair.far.connection.handle_bytes(&early, pair.now);
        pair.far.drain();
        assert_eq!(pair.far.requests(), 0);
        let Closed::Failed(ConnectionError::Handshake(_)) = pair.far.closed() else { panic!() };
    }
    // And no answer leaves before the handshake is done.
    let mut end = accepted();
    end.connection.respond(0, &Message::Pong(Pong()));
    assert!(end.drain().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn n14_any_bytes_to_a_fresh_connection(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        after_header in any::<bool>(),
    ) {
        for mut end in [dialled(), accepted()] {
            if after_header {
                end.connection.handle_bytes(&VERSION_HEADER, at(0));
            }
            end.connection.handle_bytes(&bytes, at(0));
            end.drain();
            prop_assert!(!end.connection.is_established());
            let Closed::Failed(_) = end.cut(at(1)) else { panic!() };
        }
    }
}
