//! What a peer does that has proved who it is, holds the session's keys, and breaks the rules.

use super::*;
use crate::chunk::{CHUNK_HEADER, ChunkError, MAX_CHUNK_FRAME, Outgoing};
use crate::frame::{FrameDecoder, append_frame};
use crate::limit::CHUNK_PAYLOAD;
use crate::wire::WireError;

/// An established connection (the responder's end) and whoever is at its other end: somebody who
/// holds the keys and says anything that it likes.
struct Hostile {
    pair: Pair,
    chunks: Outgoing,
}

impl Hostile {
    fn new(anonymous: bool) -> Self {
        Self { pair: Pair::established(anonymous), chunks: Outgoing::default() }
    }

    /// Sends the plaintext of one frame.
    fn say_plain(&mut self, plaintext: &[u8]) {
        let Stage::Open(open) = &mut self.pair.near.connection.stage else { panic!() };
        let mut sealed = Vec::new();
        open.session_mut().seal(plaintext, &mut sealed).unwrap();
        let mut frame = Vec::new();
        append_frame(&mut frame, &sealed).unwrap();
        self.pair.far.connection.handle_bytes(&frame, self.pair.now);
    }

    /// Sends the bytes of one message.
    fn say_bytes(&mut self, message: &[u8]) {
        self.chunks.push(message.to_vec()).unwrap();
        while let Some(chunk) = self.chunks.next_chunk() {
            self.say_plain(&chunk);
        }
    }

    fn say(&mut self, id: RequestId, message: &Message) {
        self.say_bytes(&message.encode(id));
    }

    /// Everything that the victim says, whether an honest peer would have taken it or not.
    fn hear(&mut self) -> Vec<(RequestId, Message)> {
        let bytes = self.pair.far.drain();
        let Stage::Open(open) = &mut self.pair.near.connection.stage else { panic!() };
        let (mut frames, mut rest, mut heard) = (FrameDecoder::default(), &bytes[..], Vec::new());
        while let Some(frame) = frames.pull(&mut rest, MAX_CHUNK_FRAME).unwrap() {
            let chunk = open.session_mut().open(&frame).unwrap();
            heard.push(Message::decode(&chunk[CHUNK_HEADER..]).unwrap());
        }
        heard
    }

    /// How the victim ended, and what it told us in the end.
    fn end(mut self) -> (ConnectionError, Option<ErrorCode>) {
        let told = self.hear().pop().map(|(_, message)| {
            let Message::Close(close) = message else { panic!("{message:?} in the end") };
            close.code
        });
        let Closed::Failed(error) = self.pair.far.closed() else { panic!() };
        (error, told)
    }
}

#[test]
fn l13_chunks_that_break_a_rule_end_the_connection() {
    let mut hostile = Hostile::new(false);
    hostile.say_plain(&[0; 13]);
    let (error, told) = hostile.end();
    assert!(matches!(error, ConnectionError::Chunk(ChunkError::Truncated)));
    assert_eq!(told, Some(ErrorCode::Malformed));

    let budget = ReassemblyBudget::new(CHUNK_PAYLOAD);
    let mut hostile = Hostile::new(false);
    hostile.pair.far.connection.set_reassembly_budget(budget.clone());
    hostile.say(0, &store(40_000));
    let (error, told) = hostile.end();
    assert!(matches!(error, ConnectionError::Chunk(ChunkError::NoRoom)));
    assert_eq!((told, budget.used()), (Some(ErrorCode::Unavailable), 0));
}

#[test]
fn malformed_messages_end_the_connection() {
    for bytes in [&[0xc0][..], &[0x93, 1, 0], &[0x93, 1, 0, 0x90, 0], &[0x93, 0xcc, 1, 0, 0x90]] {
        let mut hostile = Hostile::new(false);
        hostile.say_bytes(bytes);
        let (error, told) = hostile.end();
        assert!(matches!(error, ConnectionError::Malformed(_)), "{bytes:?} {error:?}");
        assert_eq!(told, Some(ErrorCode::Malformed));
    }
}

#[test]
fn unknown_types_are_refused_without_ending_the_connection() {
    let mut hostile = Hostile::new(false);
    hostile.say_bytes(&[0x93, 63, 8, 0xc0]);
    // What only rendezvous servers do is not done here.
    hostile.say(10, &Message::ListServers(crate::wire::ListServers()));
    for (heard, number) in hostile.hear().into_iter().zip([8, 10]) {
        let (id, Message::Error(error)) = heard else { panic!() };
        assert_eq!((id, error.code), (number, ErrorCode::Unsupported));
    }
    assert!(hostile.pair.far.events.is_empty());
    assert!(hostile.pair.far.connection.is_established());
    // An answer of an unknown type is a request that failed.
    let id = hostile.pair.far.connection.request(&ask()).unwrap();
    hostile.say_bytes(&[0x93, 63, u8::try_from(id).unwrap(), 0xc0]);
    hostile.pair.far.drain();
    let [Event::Response { message: Message::Error(error), .. }] = &hostile.pair.far.events[..]
    else {
        panic!()
    };
    assert_eq!(error.code, ErrorCode::Unsupported);
}

#[test]
fn numbers_and_directions_are_checked() {
    let error_of = |lines: &[(RequestId, Message)]| {
        let mut hostile = Hostile::new(false);
        for (id, message) in lines {
            hostile.say(*id, message);
        }
        hostile.end().0
    };
    let done = Message::Done(Done());
    let odd_request = error_of(&[(1, ask())]);
    assert!(matches!(odd_request, ConnectionError::WrongDirection(16)));
    let even_answer = error_of(&[(0, done.clone())]);
    assert!(matches!(even_answer, ConnectionError::WrongDirection(4)));
    assert!(matches!(error_of(&[(1, done)]), ConnectionError::NeverAsked(1)));
    let twice = error_of(&[(0, ask()), (0, ask())]);
    assert!(matches!(twice, ConnectionError::DuplicateRequest(0)));
    let odd_farewell = error_of(&[(1, Message::Close(Close { code: ErrorCode::Goodbye }))]);
    assert!(matches!(odd_farewell, ConnectionError::WrongDirection(3)));
    let many: Vec<_> = (0..=1024).map(|number| (number * 2, ask())).collect();
    assert!(matches!(error_of(&many), ConnectionError::TooManyRequests));
}

#[test]
fn probes_whose_answers_are_not_read_are_bounded() {
    let mut hostile = Hostile::new(false);
    for number in 0..3000 {
        hostile.say(number * 2, &Message::Ping(Ping()));
    }
    assert!(hostile.pair.far.connection.queued_bytes() < 100_000);
    let (error, told) = hostile.end();
    assert!(matches!(error, ConnectionError::TooManyRequests));
    assert_eq!(told, Some(ErrorCode::RateLimited));
}

#[test]
fn an_anonymous_caller_may_ask_for_little() {
    for message in [ask(), store(5)] {
        let mut hostile = Hostile::new(true);
        hostile.say(0, &message);
        hostile.pair.far.drain();
        assert_eq!(hostile.pair.far.requests(), 1);
    }
    for message in [
        Message::RetrieveMessages(RetrieveMessages { window: 1 }),
        Message::Ack(Ack { sequences: List::default() }),
    ] {
        let mut hostile = Hostile::new(true);
        hostile.say(0, &message);
        let heard = hostile.hear();
        let [(0, Message::Error(refusal)), (_, Message::Close(farewell))] = &heard[..] else {
            panic!()
        };
        assert_eq!((refusal.code, farewell.code), (ErrorCode::NotAllowed, ErrorCode::NotAllowed));
        let (error, _) = hostile.end();
        let number = message.type_number();
        assert!(matches!(error, ConnectionError::NotAllowed(seen) if seen == number));
    }
}

#[test]
fn nothing_that_a_peer_decodes_to_is_quoted_without_bound() {
    let mut hostile = Hostile::new(false);
    hostile.say_bytes(&[&[0x93, 16, 0, 0xd9, 255][..], &[b'x'; 255]].concat());
    let ConnectionError::Malformed(undecodable) = hostile.end().0 else { panic!() };
    let WireError::Malformed(text) = undecodable.error else { panic!() };
    assert!(text.len() <= 4 * 120);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_plaintext_is_survived(
        plaintexts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6),
        message in prop::collection::vec(any::<u8>(), 1..80),
    ) {
        let mut hostile = Hostile::new(false);
        hostile.say_bytes(&[&[0x93][..], &message].concat());
        for plaintext in plaintexts {
            hostile.say_plain(&plaintext);
        }
        hostile.pair.far.drain();
        let closed = hostile.pair.far.cut(at(1));
        prop_assert!(matches!(closed, Closed::Failed(_) | Closed::Unclean | Closed::Clean(_)));
    }
}
