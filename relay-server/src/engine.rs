//! The keeper of mailboxes as a state machine: requests of sessions in, answers and pushes out.
//!
//! Pure: no socket, no clock, no file. Whoever runs it hands in an open transaction with each
//! input, calls [`Engine::settle`] once before the commit, and **releases the outputs only after
//! the commit** (see [`Engine::take_durability`]): then nothing is answered that a crash can undo.
//!
//! ```text
//!  handle(input)*  ->  settle  ->  commit  ->  poll_output*
//! ```
//! A node that holds mailboxes for its owner's contacts does the same in its own file:
//!
//! ```no_run
//! # use sremp_common::{id::{IdentityKey, Incarnation}, time::Now};
//! # use sremp_relay::{engine::*, store::*};
//! # fn example(
//! #     transaction: ::redb::WriteTransaction, own: IdentityKey, fresh: Incarnation, input: Input, now: Now,
//! # ) -> Result<(), StoreError> {
//! # let config = EngineConfig { registration: Registration::Only([].into()), ..EngineConfig::default() };
//! let incarnation = RedbMailboxes::within(&transaction, |boxes| boxes.incarnation(fresh))?;
//! let mut engine = Engine::new(config, own, incarnation);
//! RedbMailboxes::within(&transaction, |boxes| {
//!     engine.handle(boxes, input, now)?;
//!     engine.settle(boxes)
//! })?;
//! transaction.commit()?;
//! while let Some(output) = engine.poll_output() { /* send it */ }
//! # Ok(())
//! # }
//! ```
//!
//! What this is not: it does not know connections, encryption or time-outs of sessions, and it
//! never looks into a blob.

mod config;
mod delivery;
mod demand;
mod directory;
mod expiry;
mod owners;
mod rates;
mod storing;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use sremp_common::id::{IdentityKey, Incarnation};
use sremp_common::neighbourhood::neighbourhood;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{
    Ack, ClaimMailbox, Endpoint, ErrorBody, ErrorCode, Message, PublishKeyPackages, RequestId,
    RetrieveMessages, SetAdmission,
};

use self::delivery::Reader;
use self::demand::Demand;
use self::expiry::ExpiryClock;
use self::rates::{Counted, Counts};
use crate::store::{Gone, Mailbox, Mailboxes, StoreError};

pub use self::config::{EngineConfig, RateLimits, Registration, Room};

/// When to look for messages whose time has come.
const EXPIRE_EVERY: Duration = Duration::from_secs(60);
/// After a start nothing expires for so long: the clock of a machine that has just started may be
/// wrong until a time server was asked.
const FIRST_EXPIRY_AFTER: Duration = Duration::from_secs(3_600);
/// When to go on, after a pass that found as many as it may take.
const EXPIRE_AGAIN: Duration = Duration::from_secs(1);
/// Rows of one pass: a pass stays below a tenth of a second.
const EXPIRE_ROWS: usize = 1000;
/// Told to whoever asks for what needs an owner.
const ONLY_IDENTIFIED: &str = "only in an identified session";
/// Seconds after which somebody may ask again who found no room.
const RETRY_NO_ROOM: u32 = 60;

/// A session, numbered by whoever runs the engine; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What happens to the engine.
#[derive(Debug)]
pub enum Input {
    /// A session is established.
    Opened {
        /// Its number.
        session: SessionId,
        /// Who is at the other end; nobody in an anonymous session.
        caller: Option<IdentityKey>,
        /// The address that the session comes from.
        observed: Option<Endpoint>,
    },
    /// A request came in a session.
    Request {
        /// The session.
        session: SessionId,
        /// The number of the request, for the answer.
        request_id: RequestId,
        /// The request.
        message: Message,
    },
    /// A session is over.
    Closed {
        /// The session.
        session: SessionId,
    },
}

/// What the engine wants done, once the transaction is durable.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send an answer, or one more push, under the number of a request.
    Answer {
        /// In this session.
        session: SessionId,
        /// To this request.
        request_id: RequestId,
        /// The answer.
        message: Message,
    },
    /// Send a request of our own. It is not answered.
    Tell {
        /// In this session.
        session: SessionId,
        /// What to say.
        message: Message,
    },
}

/// How soon the transaction must be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Nothing was written.
    #[default]
    Nothing,
    /// Something was written that may be lost in a crash: acknowledged messages would come again.
    /// Outputs may be released before the commit.
    Lazy,
    /// Outputs must wait for the commit.
    Now,
}

/// A session as the engine sees it.
#[derive(Debug)]
struct Session {
    caller: Option<IdentityKey>,
    observed: Option<Endpoint>,
}

/// Keeps mailboxes. See the module.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    own: IdentityKey,
    incarnation: Incarnation,
    sessions: BTreeMap<SessionId, Session>,
    /// Owners that read their mailbox now: one session each, the newest.
    readers: BTreeMap<IdentityKey, Reader>,
    /// Readers that may have something to be pushed, in turn. Each stands here at most once.
    due: VecDeque<IdentityKey>,
    outputs: VecDeque<Output>,
    durability: Durability,
    next_expiry: Instant,
    expiry_clock: ExpiryClock,
    room: Room,
    /// Bytes that may still be stored before the room is looked at again.
    budget: u64,
    banned: BTreeSet<IdentityKey>,
    counts: Counts,
    demand: Demand,
    /// Messages that were acknowledged, and that expired, since the start.
    gone: (u64, u64),
}

impl Engine {
    /// An engine without sessions. `own` is the keeper's identity, which proofs of work are bound
    /// to; `incarnation` is that of the store.
    #[must_use]
    pub fn new(config: EngineConfig, own: IdentityKey, incarnation: Incarnation) -> Self {
        Self {
            config,
            own,
            incarnation,
            sessions: BTreeMap::new(),
            readers: BTreeMap::new(),
            due: VecDeque::new(),
            outputs: VecDeque::new(),
            durability: Durability::Nothing,
            next_expiry: Instant::from_millis(0),
            expiry_clock: ExpiryClock::default(),
            room: Room::Plenty,
            budget: u64::MAX,
            banned: BTreeSet::new(),
            counts: Counts::default(),
            demand: Demand::new(),
            gone: (0, 0),
        }
    }

    /// Replaces the rule about who may open a mailbox. Open ones stay:
    /// [`Mailboxes::remove_mailbox`] removes them.
    pub fn set_registration(&mut self, registration: Registration) {
        self.config.registration = registration;
    }

    /// Replaces quotas and policy. What is stored already stays, whatever it exceeds now.
    pub fn set_config(&mut self, config: EngineConfig) {
        self.config = config;
    }

    /// Forgets every session and everything that was not released, as a restart of the process
    /// would. For a store that had to be opened anew: what the engine knew of it may be wrong.
    pub fn restart(&mut self) {
        self.sessions = BTreeMap::new();
        self.readers = BTreeMap::new();
        self.due = VecDeque::new();
        self.outputs = VecDeque::new();
        self.durability = Durability::Nothing;
    }

    /// Says how much room there is on the disk, and how many bytes of blobs may be stored until it
    /// is said again. What is stored already can be read and deleted whatever it says.
    pub const fn set_room(&mut self, room: Room, budget: u64) {
        self.room = room;
        self.budget = budget;
    }

    /// Messages that were acknowledged, and messages that expired, since the start.
    #[must_use]
    pub const fn gone(&self) -> (u64, u64) {
        self.gone
    }

    /// What was said last about the room on the disk.
    #[must_use]
    pub const fn room(&self) -> Room {
        self.room
    }

    /// Replaces the list of those whom nothing is done for. Their mailboxes stay, and take nothing.
    pub fn set_banned(&mut self, banned: BTreeSet<IdentityKey>) {
        self.readers.retain(|owner, _| !banned.contains(owner));
        let Self { due, readers, .. } = self;
        due.retain(|owner| readers.contains_key(owner));
        self.banned = banned;
    }

    /// Leading zero bits that a proof of work must show now.
    pub fn difficulty(&mut self, now: Instant) -> u8 {
        self.demand.difficulty(&self.config, now)
    }

    /// Sessions that are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions.len()
    }

    /// Takes one input. Inputs of unknown sessions are ignored.
    ///
    /// # Errors
    /// [`StoreError`]: the transaction must be given up, and the engine with it.
    pub fn handle<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        input: Input,
        now: Now,
    ) -> Result<(), StoreError> {
        match input {
            Input::Opened { session, caller, observed } => {
                self.sessions.insert(session, Session { caller, observed });
            }
            Input::Closed { session } => self.close(session),
            Input::Request { session, request_id, message } => {
                let Some(known) = self.sessions.get(&session) else { return Ok(()) };
                let network = known.observed.as_ref().and_then(network_of);
                let request = Request { session, request_id, caller: known.caller, network };
                let answer = match self.turn_away(request, &message, now) {
                    Some(refused) => refused,
                    None => self.answer(store, request, message, now)?,
                };
                if let Some(message) = answer {
                    self.outputs.push_back(Output::Answer { session, request_id, message });
                }
            }
        }
        Ok(())
    }

    /// Fills the push windows of readers. Called once after a batch of inputs, before the commit.
    /// When more is left to be pushed than fits into one turn, [`Self::poll_timeout`] asks to be
    /// called again at once.
    ///
    /// # Errors
    /// As [`Self::handle`].
    pub fn settle<S: Mailboxes + ?Sized>(&mut self, store: &mut S) -> Result<(), StoreError> {
        self.push_due(store)
    }

    /// Does what is due: expiry, and pushes that were left over. Early or twice is harmless.
    ///
    /// # Errors
    /// As [`Self::handle`].
    pub fn handle_timeout<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        now: Now,
    ) -> Result<(), StoreError> {
        if now.instant >= self.next_expiry {
            let Some(wall) = self.expiry_clock.look(now) else {
                self.next_expiry = now.instant + FIRST_EXPIRY_AFTER;
                return self.push_due(store);
            };
            let gone = store.expire(wall, EXPIRE_ROWS)?;
            let pause = if gone.len() < EXPIRE_ROWS { EXPIRE_EVERY } else { EXPIRE_AGAIN };
            self.next_expiry = now.instant + pause;
            if !gone.is_empty() {
                self.written(Durability::Lazy);
            }
            self.expired(&gone);
            store.expire_invites(wall)?;
        }
        self.push_due(store)
    }

    /// Deletes everything whose time has come by the wall clock, because the operator says so; gives how many messages that were.
    ///
    /// # Errors
    /// As [`Self::handle`].
    pub fn expire_all<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        now: Now,
    ) -> Result<usize, StoreError> {
        let mut count = 0_usize;
        loop {
            let gone = store.expire(now.wall, EXPIRE_ROWS)?;
            self.expired(&gone);
            count = count.saturating_add(gone.len());
            if gone.len() < EXPIRE_ROWS {
                store.expire_invites(now.wall)?;
                return Ok(count);
            }
        }
    }

    /// When to call [`Self::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        if self.due.is_empty() { self.next_expiry } else { Instant::from_millis(0) }
    }

    /// The next thing to be done. Only after the commit, if [`Self::take_durability`] says so.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What the transaction needs before the outputs may be released; asking forgets it.
    pub fn take_durability(&mut self) -> Durability {
        std::mem::take(&mut self.durability)
    }

    /// What is refused before anything is looked at: everything of somebody banned, and changes
    /// that come too often. The inner nothing is for what has no answer.
    fn turn_away(
        &mut self,
        request: Request,
        message: &Message,
        now: Now,
    ) -> Option<Option<Message>> {
        let caller = request.caller?;
        if self.banned.contains(&caller) {
            let is_silent = matches!(message, Message::Ack(_));
            return Some((!is_silent).then(|| refuse(ErrorCode::NotAllowed, "banned")));
        }
        if !is_change(message) {
            return None;
        }
        let limits = self.config.rates;
        let counted = self.counts.change(&limits, &caller, now.instant);
        counted.err().map(|wait| Some(refuse_until(ErrorCode::RateLimited, wait, "too often")))
    }

    fn written(&mut self, durability: Durability) {
        self.durability = self.durability.max(durability);
    }

    fn close(&mut self, session: SessionId) {
        let Some(Session { caller: Some(owner), .. }) = self.sessions.remove(&session) else {
            return;
        };
        if self.readers.get(&owner).is_some_and(|reader| reader.session == session) {
            self.readers.remove(&owner);
            self.due.retain(|due| *due != owner);
        }
    }

    fn expired(&mut self, gone: &[Gone]) {
        let count = u64::try_from(gone.len()).unwrap_or(u64::MAX);
        self.gone.1 = self.gone.1.saturating_add(count);
        gone.iter().for_each(|gone| self.release(gone));
    }

    /// A message is gone from a mailbox: if it was under way, its place in the window is free.
    fn release(&mut self, gone: &Gone) {
        let Some(reader) = self.readers.get_mut(&gone.owner) else { return };
        if reader.release(gone.sequence) && reader.queue() {
            self.due.push_back(gone.owner);
        }
    }

    /// The answer to a request, if it has one.
    fn answer<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        request: Request,
        message: Message,
        now: Now,
    ) -> Result<Option<Message>, StoreError> {
        let answer = match message {
            Message::RelayInfoRequest(_) => {
                Message::RelayInfo(self.info(request.session, self.config.limits, now))
            }
            Message::StoreMessage(body) => self.store(store, request, &body, now)?,
            Message::TakeKeyPackage(body) => self.take(store, request, &body, now)?,
            Message::RelayRegister(body) => match request.caller {
                Some(owner) => self.register(store, request, owner, body, now)?,
                None => refuse(ErrorCode::NotAllowed, ONLY_IDENTIFIED),
            },
            Message::ClaimMailbox(body) => {
                return self.answer_owner(store, request, OfOwner::Claim(body));
            }
            Message::SetAdmission(body) => {
                return self.answer_owner(store, request, OfOwner::SetAdmission(body));
            }
            Message::PublishKeyPackages(body) => {
                return self.answer_owner(store, request, OfOwner::Publish(body));
            }
            Message::RetrieveMessages(body) => {
                return self.answer_owner(store, request, OfOwner::Retrieve(body));
            }
            Message::Ack(body) => {
                return self.answer_owner(store, request, OfOwner::Ack(body));
            }
            // Between nodes, and not answered.
            Message::Typing(_) => return Ok(None),
            // Answers, and messages of sessions, never get here as requests.
            Message::Error(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Close(_)
            | Message::Done(_)
            | Message::RelayInfo(_)
            | Message::RelayRegistered(_)
            | Message::StoreResponse(_)
            | Message::MessageBatch(_)
            | Message::KeyPackageStock(_)
            | Message::KeyPackageTaken(_)
            | Message::KeyPackagesLow(_)
            | Message::Register(_)
            | Message::Registered(_)
            | Message::Lookup(_)
            | Message::LookupResponse(_)
            | Message::ListServers(_)
            | Message::Servers(_) => refuse(ErrorCode::Unsupported, "not a request to a mailbox"),
        };
        Ok(Some(answer))
    }

    /// As [`Self::answer`], for what only the owner of an open mailbox may ask. The owner is always
    /// the identity of the session: no request names it.
    fn answer_owner<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        request: Request,
        asked: OfOwner,
    ) -> Result<Option<Message>, StoreError> {
        let mailbox = match &request.caller {
            Some(owner) => store.mailbox(owner)?,
            None => None,
        };
        let (Some(owner), Some(mailbox)) = (request.caller, mailbox) else {
            let text = if request.caller.is_some() { "register first" } else { ONLY_IDENTIFIED };
            // An acknowledgement is never answered.
            let is_silent = matches!(asked, OfOwner::Ack(_));
            return Ok((!is_silent).then(|| refuse(ErrorCode::NotAllowed, text)));
        };
        Ok(match asked {
            OfOwner::Claim(body) => Some(self.claim(store, request.session, owner, &body)?),
            OfOwner::SetAdmission(body) => Some(self.set_admission(store, owner, &body)?),
            OfOwner::Publish(body) => Some(self.publish(store, owner, &body)?),
            OfOwner::Retrieve(body) => {
                self.retrieve(request, owner, body, mailbox);
                None
            }
            OfOwner::Ack(body) => {
                self.acknowledge(store, owner, &body)?;
                None
            }
        })
    }

    fn acknowledge<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        owner: IdentityKey,
        body: &Ack,
    ) -> Result<(), StoreError> {
        for sequence in body.sequences.iter() {
            if let Some(gone) = store.acknowledge(&owner, *sequence)? {
                self.written(Durability::Lazy);
                self.release(&gone);
                self.gone.0 = self.gone.0.saturating_add(1);
            }
        }
        Ok(())
    }
}

/// What only an owner may ask, and only once its mailbox is open.
#[derive(Debug)]
enum OfOwner {
    Claim(ClaimMailbox),
    SetAdmission(SetAdmission),
    Publish(PublishKeyPackages),
    Retrieve(RetrieveMessages),
    Ack(Ack),
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
struct Request {
    session: SessionId,
    request_id: RequestId,
    caller: Option<IdentityKey>,
    /// The neighbourhood that it came from.
    network: Option<IpAddr>,
}

/// The neighbourhood of an address; names have none.
fn network_of(observed: &Endpoint) -> Option<IpAddr> {
    observed.socket_address().map(|address| neighbourhood(address.ip()))
}

/// Whether a request changes the mailbox itself, or begins to read it anew: each of them may touch
/// thousands of rows.
const fn is_change(message: &Message) -> bool {
    matches!(
        message,
        Message::RelayRegister(_)
            | Message::ClaimMailbox(_)
            | Message::SetAdmission(_)
            | Message::PublishKeyPackages(_)
            | Message::RetrieveMessages(_)
    )
}

/// An answer that refuses.
fn refuse(code: ErrorCode, text: &str) -> Message {
    Message::Error(ErrorBody::new(code, text))
}

/// An answer that refuses for some seconds.
fn refuse_until(code: ErrorCode, seconds: u32, text: &str) -> Message {
    Message::Error(ErrorBody { retry_after: Some(seconds), ..ErrorBody::new(code, text) })
}
