//! The engine over the model store: what each request is answered, and what is pushed when.

mod delivery;
mod directory;
mod owners;
mod storing;

use sremp_common::entropy::Entropy;
use sremp_common::id::Token;
use sremp_common::identity::{Flags, IdentityData};
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::name::Username;
use sremp_common::time::Timestamp;
use sremp_common::wire::{
    Admission, AdmissionClass, AdmissionEntry, Bin, Done, List, MessageBatch, Ping, Recipient,
    RelayCapabilities, RelayRegister, RelayRegistered, StoreMessage, StoreResult, StoredMessage,
};

use super::*;
use crate::store::model::Model;

/// Noon of a day long ago.
const NOON: u64 = 10_000 * 86_400_000 + 43_200_000;

fn secret(number: u64) -> IdentitySecret {
    IdentitySecret::generate(&mut Entropy::from_number(number))
}

fn key(number: u64) -> IdentityKey {
    secret(number).public()
}

fn relay() -> IdentityKey {
    key(1000)
}

fn token(number: u8) -> Token {
    Token::new([number; 16])
}

fn by_token(owner: u64, number: u8) -> Recipient {
    Recipient { identity_key: key(owner), admission: Admission::Token(token(number)) }
}

fn blob(number: u64, length: usize) -> Vec<u8> {
    let mut blob = vec![0; length];
    blob.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
    blob
}

/// An engine, a store, a clock, and what the sessions were told.
struct Rig {
    engine: Engine,
    store: Model,
    now: Now,
    outputs: Vec<Output>,
    durability: Durability,
    requests: RequestId,
}

impl Rig {
    fn new(change: impl FnOnce(&mut EngineConfig)) -> Self {
        // One sender may fill everything, unless a test is about just that.
        let mut config = EngineConfig { sender_share: 100, ..EngineConfig::default() };
        change(&mut config);
        let mut rig = Self {
            engine: Engine::new(config, relay(), Incarnation::new([9; 16])),
            store: Model::default(),
            now: Now { instant: Instant::from_millis(0), wall: Timestamp::from_millis(NOON) },
            outputs: Vec::new(),
            durability: Durability::Nothing,
            requests: 0,
        };
        rig.pass(0);
        rig
    }

    /// A rig in which person 1 has an open mailbox, admits token 1 as a contact's and token 2 as a
    /// link's (quota 3), and has session 1.
    fn with_owner(change: impl FnOnce(&mut EngineConfig)) -> Self {
        let mut rig = Self::new(change);
        rig.open(1, Some(1));
        rig.register(1, u32::MAX, u32::MAX);
        rig.admit(1, &[(1, AdmissionClass::Contact, 0), (2, AdmissionClass::Link, 3)]);
        rig
    }

    fn pass(&mut self, ms: u64) {
        let duration = Duration::from_millis(ms);
        self.now = Now { instant: self.now.instant + duration, wall: self.now.wall + duration };
        self.engine.handle_timeout(&mut self.store, self.now).unwrap();
        self.collect();
    }

    fn open(&mut self, session: u64, caller: Option<u64>) {
        let observed = Some("192.0.2.1:5".parse().unwrap());
        let (session, caller) = (SessionId(session), caller.map(key));
        self.input(Input::Opened { session, caller, observed });
    }

    fn close(&mut self, session: u64) {
        self.input(Input::Closed { session: SessionId(session) });
    }

    fn input(&mut self, input: Input) {
        self.engine.handle(&mut self.store, input, self.now).unwrap();
        self.engine.settle(&mut self.store).unwrap();
        self.collect();
    }

    fn collect(&mut self) {
        self.durability = self.engine.take_durability();
        while let Some(output) = self.engine.poll_output() {
            self.outputs.push(output);
        }
        self.check_windows();
    }

    /// No reader ever has more under way than its window, but for a single message.
    fn check_windows(&self) {
        for reader in self.engine.readers.values() {
            reader.check_invariants();
        }
        assert!(self.engine.due.len() <= self.engine.readers.len());
    }

    /// Sends a request; gives its number.
    fn send(&mut self, session: u64, message: Message) -> RequestId {
        self.requests += 2;
        let (session, request_id) = (SessionId(session), self.requests);
        self.input(Input::Request { session, request_id, message });
        self.requests
    }

    /// Sends a request and takes the answer to it.
    fn ask(&mut self, session: u64, message: Message) -> Message {
        let asked = self.send(session, message);
        let is_answer = |output: &Output| {
            matches!(output, Output::Answer { session: to, request_id, .. }
                if (to.0, *request_id) == (session, asked))
        };
        let position = self.outputs.iter().position(is_answer).expect("an answer");
        match self.outputs.remove(position) {
            Output::Answer { message, .. } | Output::Tell { message, .. } => message,
        }
    }

    /// As [`Self::ask`], for what must be refused.
    fn refused(&mut self, session: u64, message: Message) -> ErrorCode {
        let answer = self.ask(session, message);
        let Message::Error(error) = answer else { panic!("{answer:?}") };
        error.code
    }

    fn register(&mut self, session: u64, max_message_size: u32, duration: u32) -> RelayRegistered {
        let capabilities = RelayCapabilities { max_message_size, max_storage_duration: duration };
        let answer =
            self.ask(session, Message::RelayRegister(RelayRegister { capabilities, invite: None }));
        let Message::RelayRegistered(registered) = answer else { panic!("{answer:?}") };
        registered
    }

    fn admit(&mut self, session: u64, tokens: &[(u8, AdmissionClass, u32)]) {
        let entries = tokens.iter().map(|(number, class, daily_quota)| AdmissionEntry {
            token_hash: token(*number).hash(),
            class: *class,
            daily_quota: *daily_quota,
        });
        let entries = List::new(entries.collect()).unwrap();
        let answer = self.ask(session, Message::SetAdmission(SetAdmission { entries }));
        assert_eq!(answer, Message::Done(Done()));
    }

    fn store(&mut self, session: u64, blob: &[u8], to: &[Recipient]) -> Vec<StoreResult> {
        let blob = Bin::new(blob.to_vec()).unwrap();
        let recipients = List::new(to.to_vec()).unwrap();
        let answer = self.ask(session, Message::StoreMessage(StoreMessage { blob, recipients }));
        let Message::StoreResponse(response) = answer else { panic!("{answer:?}") };
        response.results.into_vec()
    }

    /// Stores for one recipient; gives the refusal.
    fn store_one(&mut self, session: u64, blob: &[u8], to: Recipient) -> Option<ErrorCode> {
        self.store(session, blob, &[to])[0].refused
    }

    fn retrieve(&mut self, session: u64, window: u32) -> RequestId {
        self.send(session, Message::RetrieveMessages(RetrieveMessages { window }))
    }

    fn acknowledge(&mut self, session: u64, sequences: &[u64]) {
        let sequences = List::new(sequences.to_vec()).unwrap();
        self.send(session, Message::Ack(Ack { sequences }));
    }

    /// The batches that were pushed to a session since the last call.
    fn batches(&mut self, session: u64) -> Vec<MessageBatch> {
        let mut batches = Vec::new();
        self.outputs.retain(|output| match output {
            Output::Answer { session: to, message: Message::MessageBatch(batch), .. }
                if to.0 == session =>
            {
                batches.push(batch.clone());
                false
            }
            Output::Answer { .. } | Output::Tell { .. } => true,
        });
        batches
    }

    /// The messages in them.
    fn pushed(&mut self, session: u64) -> Vec<StoredMessage> {
        self.batches(session).into_iter().flat_map(|batch| batch.messages.into_vec()).collect()
    }

    fn totals(&mut self) -> crate::store::Totals {
        self.store.totals().unwrap()
    }
}

fn sequences(messages: &[StoredMessage]) -> Vec<u64> {
    messages.iter().map(|message| message.sequence).collect()
}

fn identity(number: u64, version: u64, name: &str) -> sremp_common::identity::Identity {
    let data = IdentityData {
        username: Username::new(name).unwrap(),
        identity_key: key(number),
        noise_key: NoiseSecret::generate(&mut Entropy::from_number(number)).public(),
        flags: Flags::default(),
        extensions: None,
        version,
        created: Timestamp::from_millis(1),
    };
    data.sign(&secret(number)).unwrap().identity().clone()
}

#[test]
fn what_a_relay_says_of_itself() {
    let mut rig = Rig::new(|config| config.pow_difficulty = 7);
    rig.open(1, None);
    let answer = rig.ask(1, Message::RelayInfoRequest(Ping()));
    let Message::RelayInfo(info) = answer else { panic!("{answer:?}") };
    assert_eq!(info.limits, EngineConfig::default().limits);
    assert_eq!((info.pow_difficulty, info.time), (7, rig.now.wall));
    assert_eq!(info.incarnation, Incarnation::new([9; 16]));
    assert_eq!(info.observed.unwrap().to_string(), "192.0.2.1:5");
    assert_eq!(rig.durability, Durability::Nothing);
}

#[test]
fn registering_opens_and_renews() {
    let mut rig = Rig::with_owner(|_| {});
    assert_eq!(rig.store_one(1, b"hi", by_token(1, 1)), None);
    let registered = rig.register(1, 5_000, 7_200);
    assert_eq!(rig.durability, Durability::Now);
    assert_eq!((registered.info.limits.max_blob, registered.info.limits.retention), (5_000, 7_200));
    assert_eq!((registered.messages, registered.bytes, registered.key_packages), (1, 2, 0));
    assert_eq!(rig.register(1, 5_000, 7_200), registered);
    assert_eq!(rig.durability, Durability::Nothing, "who comes back changes nothing");
    // Wishes are bounded from both sides.
    let registered = rig.register(1, u32::MAX, 0);
    assert_eq!(rig.durability, Durability::Now);
    assert_eq!(registered.info.limits.max_blob, EngineConfig::default().limits.max_blob);
    assert_eq!(registered.info.limits.retention, 3_600);
}

#[test]
fn what_needs_an_owner_or_a_mailbox_is_refused_without() {
    let mut rig = Rig::new(|_| {});
    rig.open(1, None);
    rig.open(2, Some(2));
    let capabilities = RelayCapabilities { max_message_size: 1, max_storage_duration: 1 };
    let register = Message::RelayRegister(RelayRegister { capabilities, invite: None });
    assert_eq!(rig.refused(1, register), ErrorCode::NotAllowed);
    for session in [1, 2] {
        let entries = List::default();
        let refused = rig.refused(session, Message::SetAdmission(SetAdmission { entries }));
        assert_eq!(refused, ErrorCode::NotAllowed);
        let retrieve = Message::RetrieveMessages(RetrieveMessages { window: 9 });
        assert_eq!(rig.refused(session, retrieve), ErrorCode::NotAllowed);
        rig.acknowledge(session, &[1]);
        assert_eq!(rig.outputs, [], "an acknowledgement is never answered");
    }
    assert_eq!(rig.refused(2, Message::Done(Done())), ErrorCode::Unsupported);
    assert_eq!(rig.totals(), crate::store::Totals::default());
}

#[test]
fn who_may_open_a_mailbox() {
    let mut rig = Rig::new(|config| {
        config.registration = Registration::Only([key(1)].into());
        config.max_mailboxes = 2;
    });
    let capabilities = RelayCapabilities { max_message_size: 1, max_storage_duration: 1 };
    let register = || Message::RelayRegister(RelayRegister { capabilities, invite: None });
    for number in 1..=3 {
        rig.open(number, Some(number));
    }
    rig.register(1, 1, 1);
    assert_eq!(rig.refused(2, register()), ErrorCode::NotAllowed);
    rig.engine.set_registration(Registration::Only([key(2)].into()));
    assert_eq!(rig.refused(1, register()), ErrorCode::NotAllowed);
    rig.engine.set_registration(Registration::Everyone);
    rig.register(2, 1, 1);
    assert_eq!(rig.refused(3, register()), ErrorCode::Unavailable, "no third mailbox");
    rig.register(1, 1, 1);
    // Not for the relay itself either.
    rig.open(9, Some(1000));
    assert_eq!(rig.refused(9, register()), ErrorCode::NotAllowed);
}

#[test]
fn changes_are_bounded_by_the_minute() {
    let mut rig = Rig::with_owner(|_| {});
    let change = || Message::SetAdmission(SetAdmission { entries: List::default() });
    // Two were made by the rig.
    for _ in 2..RateLimits::default().changes_per_minute {
        assert_eq!(rig.ask(1, change()), Message::Done(Done()));
    }
    assert_eq!(rig.refused(1, change()), ErrorCode::RateLimited);
    rig.pass(60_000);
    assert_eq!(rig.ask(1, change()), Message::Done(Done()));
}

#[test]
fn a_mailbox_that_is_removed_is_gone_for_everybody() {
    let mut rig = Rig::with_owner(|_| {});
    rig.retrieve(1, 1 << 20);
    assert_eq!(rig.store_one(1, b"hi", by_token(1, 1)), None);
    assert!(rig.store.remove_mailbox(&key(1), 10).unwrap());
    assert_eq!(rig.store_one(1, b"ho", by_token(1, 1)), Some(ErrorCode::NotAdmitted));
    let retrieve = Message::RetrieveMessages(RetrieveMessages { window: 9 });
    assert_eq!(rig.refused(1, retrieve), ErrorCode::NotAllowed);
}

#[test]
fn inputs_of_unknown_sessions_are_ignored() {
    let mut rig = Rig::with_owner(|_| {});
    rig.close(7);
    rig.send(7, Message::RelayInfoRequest(Ping()));
    rig.close(1);
    rig.send(1, Message::RelayInfoRequest(Ping()));
    assert_eq!(rig.outputs, []);
    assert_eq!(rig.engine.sessions(), 0);
}
