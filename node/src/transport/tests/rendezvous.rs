//! The client of rendezvous servers, against a server that answers as the test says.

use sremp_common::entropy::Entropy;
use sremp_common::label::VERSION_HEADER;
use sremp_common::long_frame::{LongFrameReader, encode_long_frame};
use sremp_common::time::Timestamp;
use sremp_common::wire::{
    Endpoint, ErrorBody, ErrorCode, List, ListServers, Lookup, LookupResponse, Message, PeerInfo,
    Registered, Registration, RequestId, Servers,
};

use super::world::{at, local};
use crate::transport::{
    CallError, ConnId, DialError, Effect, Event, Input, RendezvousServer, Target, Transport,
    TransportConfig,
};

const EXPORTER: [u8; 32] = [9; 32];

/// A transport with one server, and the server's end of the connection.
struct Pair {
    transport: Transport,
    reader: LongFrameReader,
    conn: Option<ConnId>,
    dials: usize,
    closed: usize,
    /// Answered by the server's end, in order.
    requests: Vec<(RequestId, Message)>,
    answers: Vec<(u64, Result<Message, CallError>)>,
}

impl Pair {
    fn new() -> Self {
        let mut transport =
            Transport::new(local(1), Entropy::from_number(1), TransportConfig::default());
        transport.set_rendezvous(vec![server("rendezvous.example:7332")]);
        Self {
            transport,
            reader: LongFrameReader::new(),
            conn: None,
            dials: 0,
            closed: 0,
            requests: Vec::new(),
            answers: Vec::new(),
        }
    }

    /// A pair whose connection stands.
    fn connected() -> Self {
        let mut pair = Self::new();
        pair.ask(Message::ListServers(ListServers()), 0, 0);
        pair.connect(10);
        let (id, _) = pair.requests.pop().unwrap();
        pair.reply_raw(&[&VERSION_HEADER[..]].concat(), 10);
        pair.reply(id, &servers(), 10);
        assert_eq!(pair.answers.pop(), Some((0, Ok(servers()))));
        pair
    }

    fn ask(&mut self, message: Message, tag: u64, ms: u64) {
        self.transport.call(Target::Rendezvous(0), &[], message, tag, at(ms));
        self.drain();
    }

    fn connect(&mut self, ms: u64) {
        let conn = self.conn.unwrap();
        self.transport.handle(Input::TlsConnected { conn, exporter: EXPORTER }, at(ms));
        self.drain();
    }

    fn reply(&mut self, id: RequestId, message: &Message, ms: u64) {
        self.reply_raw(&encode_long_frame(&message.encode(id)).unwrap(), ms);
    }

    fn reply_raw(&mut self, bytes: &[u8], ms: u64) {
        // One byte at a time: no split matters.
        for byte in bytes {
            let Some(conn) = self.conn else { return };
            self.transport.handle(Input::Bytes { conn, bytes: vec![*byte] }, at(ms));
            self.drain();
        }
    }

    fn timeout(&mut self, ms: u64) {
        self.transport.handle_timeout(at(ms));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.transport.poll_effect() {
            match effect {
                Effect::DialTls { conn, .. } => {
                    self.conn = Some(conn);
                    self.reader = LongFrameReader::new();
                    self.dials += 1;
                }
                Effect::Write { conn, bytes } if Some(conn) == self.conn => {
                    let mut bytes = bytes.as_slice();
                    while let Some(message) = self.reader.read(&mut bytes).unwrap() {
                        self.requests.push(Message::decode(&message).unwrap());
                    }
                }
                Effect::Close { conn } if Some(conn) == self.conn => {
                    self.conn = None;
                    self.closed += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        while let Some(event) = self.transport.poll_event() {
            let Event::Answer { tag, result } = event else { panic!("{event:?}") };
            self.answers.push((tag, result));
        }
        self.transport.check_invariants();
    }

    /// What becomes of one request when it is answered like this.
    fn outcome(request: Message, answer: &Message) -> Result<Message, CallError> {
        let mut pair = Self::connected();
        pair.ask(request, 1, 20);
        let (id, _) = pair.requests.pop().unwrap();
        pair.reply(id, answer, 30);
        let (tag, result) = pair.answers.pop().unwrap();
        assert_eq!(tag, 1);
        assert_eq!(pair.answers, []);
        let is_breach = matches!(result, Err(CallError::Misbehaved(_)));
        assert_eq!(pair.closed, usize::from(is_breach), "a liar's connection is closed");
        result
    }
}

fn server(endpoint: &str) -> RendezvousServer {
    RendezvousServer { endpoint: endpoint.parse().unwrap(), ca: None, invite: None }
}

fn servers() -> Message {
    let time = Timestamp::from_millis(1);
    Message::Servers(Servers { servers: List::default(), time })
}

fn info(seed: u64) -> PeerInfo {
    let endpoint: Endpoint = "192.0.2.1:7330".parse().unwrap();
    PeerInfo {
        identity: local(seed).identity.identity().clone(),
        endpoints: List::new(vec![endpoint]).unwrap(),
        last_seen: Timestamp::from_millis(0),
        online: true,
    }
}

fn found(peers: Vec<PeerInfo>, has_more: bool) -> Message {
    Message::LookupResponse(LookupResponse { peers: List::new(peers).unwrap(), has_more })
}

fn registration() -> Registration {
    Registration { endpoints: List::default(), ttl: 600, listed: false }
}

#[test]
fn the_first_request_opens_the_connection_and_the_header_comes_first() {
    let mut pair = Pair::new();
    let lookup = Message::Lookup(Lookup::one(local(2).identity.key()));
    pair.ask(lookup.clone(), 5, 0);
    assert_eq!((pair.dials, pair.requests.len()), (1, 0));
    pair.connect(50);
    assert_eq!(pair.requests, [(0, lookup)]);
    let answer = found(vec![info(2)], false);
    pair.reply_raw(&VERSION_HEADER, 60);
    pair.reply(0, &answer, 60);
    assert_eq!(pair.answers, [(5, Ok(answer))]);
}

#[test]
fn requests_share_a_connection_and_answers_may_come_in_any_order() {
    let mut pair = Pair::connected();
    pair.ask(Message::ListServers(ListServers()), 1, 20);
    pair.ask(Message::Lookup(Lookup::one(local(2).identity.key())), 2, 20);
    let ids: Vec<_> = pair.requests.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, [2, 4]);
    pair.reply(4, &found(vec![], false), 30);
    pair.reply(2, &servers(), 30);
    assert_eq!(pair.answers, [(2, Ok(found(vec![], false))), (1, Ok(servers()))]);
    assert_eq!(pair.dials, 1);
}

#[test]
fn r20_only_the_identity_that_was_asked_for_is_an_answer() {
    let wanted = Message::Lookup(Lookup::one(local(2).identity.key()));
    let outcome = |answer: &Message| Pair::outcome(wanted.clone(), answer);
    let misbehaved = |answer: &Message| matches!(outcome(answer), Err(CallError::Misbehaved(_)));

    let right = found(vec![info(2)], false);
    assert_eq!(outcome(&right), Ok(right));
    assert_eq!(outcome(&found(vec![], false)), Ok(found(vec![], false)));

    assert!(misbehaved(&found(vec![info(3)], false)), "another key");
    assert!(misbehaved(&found(vec![info(2), info(2)], false)), "two of the same");
    assert!(misbehaved(&found(vec![info(2), info(3)], false)), "more than one");
    assert!(misbehaved(&found(vec![info(2)], true)), "more to come");
    assert!(misbehaved(&found(vec![forged()], false)), "a forged identity");
    assert!(misbehaved(&servers()), "an answer to something else");
    let mut offline = info(2);
    offline.online = false;
    assert!(misbehaved(&found(vec![offline], false)), "endpoints of nobody");
}

#[test]
fn r20_a_listing_has_to_be_in_order_and_after_the_page_before() {
    let mut infos: Vec<_> = (2..6).map(info).collect();
    infos.sort_by_key(|info| info.identity.verify().unwrap().key());
    let first = infos[0].identity.verify().unwrap().key();
    let page = |after| Message::Lookup(Lookup::listed(after));
    let misbehaved = |request: Message, answer: &Message| {
        matches!(Pair::outcome(request, answer), Err(CallError::Misbehaved(_)))
    };

    let whole = found(infos.clone(), true);
    assert_eq!(Pair::outcome(page(None), &whole), Ok(whole.clone()));
    let rest = found(infos[1..].to_vec(), false);
    assert_eq!(Pair::outcome(page(Some(first)), &rest), Ok(rest));
    assert!(misbehaved(page(Some(first)), &whole), "the page before once more");
    let mut reversed = infos.clone();
    reversed.reverse();
    assert!(misbehaved(page(None), &found(reversed, false)), "descending");
    assert!(misbehaved(page(None), &found(vec![infos[0].clone(), infos[0].clone()], false)));
    assert!(misbehaved(page(None), &found(vec![], true)), "an endless empty page");
    assert!(misbehaved(page(None), &found(vec![forged()], false)), "a forged identity");
}

/// An identity whose signature is another's: the wire form is legal, the content is not.
fn forged() -> PeerInfo {
    let bytes = sremp_common::wire::encode(&info(2).identity);
    let other = sremp_common::wire::encode(&info(3).identity);
    let body = bytes.len() - 64;
    let forged = [&bytes[..body], &other[other.len() - 64..]].concat();
    PeerInfo { identity: sremp_common::wire::decode(&forged).unwrap(), ..info(2) }
}

#[test]
fn a_registration_is_signed_over_the_exporter_of_its_connection() {
    let mut pair = Pair::new();
    pair.transport.register(0, registration(), 3, at(0));
    pair.drain();
    assert_eq!(pair.dials, 1);
    pair.connect(10);
    let (id, message) = pair.requests.pop().unwrap();
    let Message::Register(register) = message else { panic!("{message:?}") };
    let identity = register.identity.verify().unwrap();
    assert_eq!(identity.key(), local(1).identity.key());
    register.registration.verify(&register.signature, &identity, &EXPORTER).unwrap();
    assert!(register.registration.verify(&register.signature, &identity, &[8; 32]).is_err());

    pair.reply_raw(&VERSION_HEADER, 20);
    let expires_at = Timestamp::from_millis(1);
    let done = Message::Registered(Registered { expires_at, renewal_interval: 9, observed: None });
    pair.reply(id, &done, 20);
    assert_eq!(pair.answers, [(3, Ok(done))]);
}

#[test]
fn an_identity_that_changed_meanwhile_is_the_one_registered() {
    let mut pair = Pair::new();
    pair.transport.register(0, registration(), 3, at(0));
    pair.drain();
    let newer = local(7);
    pair.transport.set_local(newer.clone());
    pair.connect(10);
    let (_, message) = pair.requests.pop().unwrap();
    let Message::Register(register) = message else { panic!("{message:?}") };
    assert_eq!(register.identity, *newer.identity.identity());
    register.registration.verify(&register.signature, &newer.identity, &EXPORTER).unwrap();
}

#[test]
fn errors_of_the_server_are_passed_on_and_keep_the_connection() {
    let error =
        ErrorBody { retry_after: Some(60), ..ErrorBody::new(ErrorCode::RateLimited, "slowly") };
    let lookup = Message::Lookup(Lookup::listed(None));
    let outcome = Pair::outcome(lookup, &Message::Error(error.clone()));
    assert_eq!(outcome, Err(CallError::Refused(error)));
}

#[test]
fn another_protocol_or_garbage_closes_the_connection() {
    for bytes in [&b"HTTP/1.1"[..], b"SREMP\x02\x00", b"SREMP\x01\x00\xff\xff\xff\xff"] {
        let mut pair = Pair::new();
        pair.ask(Message::ListServers(ListServers()), 1, 0);
        pair.connect(10);
        pair.reply_raw(bytes, 20);
        assert!(matches!(pair.answers.as_slice(), [(1, Err(CallError::Misbehaved(_)))]));
        assert_eq!(pair.closed, 1);
    }
    let mut pair = Pair::connected();
    pair.ask(Message::ListServers(ListServers()), 1, 20);
    pair.reply_raw(&encode_long_frame(b"\x93garbage").unwrap(), 30);
    assert!(matches!(pair.answers.as_slice(), [(1, Err(CallError::Misbehaved(_)))]));
}

#[test]
fn a_connection_is_closed_after_half_a_minute_without_a_request() {
    let mut pair = Pair::connected();
    pair.timeout(30_009);
    assert_eq!(pair.closed, 0);
    assert_eq!(pair.transport.poll_timeout().map(|at| at.as_millis()), Some(30_010));
    pair.timeout(30_010);
    assert_eq!(pair.closed, 1);
    // The next request opens another.
    pair.ask(Message::ListServers(ListServers()), 1, 40_000);
    assert_eq!(pair.dials, 2);
}

#[test]
fn a_server_that_is_away_or_silent_is_given_up() {
    let mut pair = Pair::new();
    pair.ask(Message::ListServers(ListServers()), 1, 0);
    let conn = pair.conn.unwrap();
    pair.transport.handle(Input::DialFailed { conn, why: DialError::Refused }, at(5));
    pair.drain();
    assert_eq!(pair.answers.pop(), Some((1, Err(CallError::Unreachable(DialError::Refused)))));

    pair.ask(Message::ListServers(ListServers()), 2, 10);
    pair.timeout(8_010);
    assert_eq!(pair.answers.pop(), Some((2, Err(CallError::Unreachable(DialError::TimedOut)))));

    let mut pair = Pair::connected();
    pair.ask(Message::ListServers(ListServers()), 3, 1_000);
    pair.timeout(11_000);
    assert_eq!(pair.answers.pop(), Some((3, Err(CallError::TimedOut))));
    assert_eq!(pair.closed, 1, "nothing came since: the path counts as dead");
}

#[test]
fn the_end_of_the_stream_answers_what_was_asked() {
    let mut pair = Pair::connected();
    pair.ask(Message::ListServers(ListServers()), 1, 20);
    let conn = pair.conn.unwrap();
    pair.transport.handle(Input::Eof { conn }, at(30));
    pair.drain();
    assert_eq!(pair.answers, [(1, Err(CallError::Closed))]);
}

#[test]
fn calls_are_bounded_and_wrong_ones_are_not_sent() {
    let mut pair = Pair::new();
    for tag in 0..70 {
        pair.ask(Message::ListServers(ListServers()), tag, 0);
    }
    let busy: Vec<_> = pair.answers.iter().map(|(tag, _)| *tag).collect();
    assert_eq!(busy, (64..70).collect::<Vec<_>>());
    assert!(pair.answers.iter().all(|(_, result)| *result == Err(CallError::Busy)));

    let mut pair = Pair::new();
    let both = Lookup { list_all: true, ..Lookup::one(local(2).identity.key()) };
    pair.ask(Message::Lookup(both), 1, 0);
    pair.ask(super::world::ask(), 2, 0);
    pair.transport.call(Target::Rendezvous(9), &[], Message::ListServers(ListServers()), 3, at(0));
    pair.drain();
    let results: Vec<_> = pair.answers.into_iter().map(|(_, result)| result).collect();
    assert_eq!(
        results,
        [
            Err(CallError::Unsendable),
            Err(CallError::Unsendable),
            Err(CallError::Unreachable(DialError::NoAddress)),
        ]
    );
    assert_eq!(pair.dials, 0);
}

#[test]
fn a_server_that_is_replaced_answers_nothing_any_more() {
    let mut pair = Pair::connected();
    pair.ask(Message::ListServers(ListServers()), 1, 20);
    let same = vec![server("rendezvous.example:7332"), server("second.example:7332")];
    pair.transport.set_rendezvous(same);
    pair.drain();
    assert_eq!((pair.answers.len(), pair.closed), (0, 0));
    pair.transport.set_rendezvous(vec![server("other.example:7332")]);
    pair.drain();
    assert_eq!(pair.answers, [(1, Err(CallError::Closed))]);
    assert_eq!(pair.closed, 1);
}
