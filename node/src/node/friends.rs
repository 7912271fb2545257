//! Mailboxes that this node keeps for friends: the relay's own engine, on tables of its own in the
//! same file and the same transaction. Whoever the owner allows has one; nobody else.

use std::collections::BTreeSet;

use sremp_common::id::{IdentityKey, Incarnation};
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{Endpoint, Message, RequestId, StoreMessage, StoreResult};
use sremp_relay::engine::{self, Engine, EngineConfig, Registration, SessionId as KeeperSession};
use sremp_relay::store::{Mailboxes as _, RedbMailboxes, StoreError as KeeperError};

use super::{Call, Node};
use crate::api::Trust;
use crate::identity::Contacts;
use crate::store::{StoreError, Tx};
use crate::transport::{SessionId, Target};

/// Mailboxes that a person's node keeps at most.
const MAX_FRIENDS: u64 = 64;
/// Request id of a part of a request; those of peers are far below.
const PART: RequestId = RequestId::MAX;
/// Bytes that all of them hold together at most.
const MAX_BYTES: u64 = 1024 * 1024 * 1024;

/// The engine, while there is anybody to keep a mailbox for.
#[derive(Debug)]
pub(super) struct Keeper {
    engine: Engine,
    allowed: BTreeSet<IdentityKey>,
}

impl Node {
    /// Starts, or ends, keeping mailboxes, as the contacts say.
    pub(super) fn load_keeper(&mut self, tx: &Tx) -> Result<(), StoreError> {
        let allowed: BTreeSet<IdentityKey> = Contacts::all(tx)?
            .into_iter()
            .filter(|contact| contact.relay_allowed && contact.trust != Trust::Rejected)
            .map(|contact| contact.key)
            .collect();
        if allowed.is_empty() {
            self.keeper = None;
            return Ok(());
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.engine.set_registration(Registration::Only(allowed.clone()));
            keeper.allowed = allowed;
            return Ok(());
        }
        let fresh = Incarnation::new(self.entropy.array());
        let incarnation = with_mailboxes(tx, |mailboxes| mailboxes.incarnation(fresh))?;
        let config = EngineConfig {
            registration: Registration::Only(allowed.clone()),
            max_mailboxes: MAX_FRIENDS,
            max_total_bytes: MAX_BYTES,
            ..EngineConfig::default()
        };
        let mut engine = Engine::new(config, self.own.key(), incarnation);
        for view in self.transport.sessions() {
            let session = KeeperSession(view.session);
            let input = engine::Input::Opened { session, caller: view.peer, observed: None };
            with_mailboxes(tx, |mailboxes| engine.handle(mailboxes, input, Now::default()))?;
        }
        self.keeper = Some(Keeper { engine, allowed });
        Ok(())
    }

    pub(super) fn keeper_opened(
        &mut self,
        tx: &Tx,
        session: SessionId,
        caller: Option<IdentityKey>,
        observed: Option<Endpoint>,
        now: Now,
    ) -> Result<(), StoreError> {
        let session = KeeperSession(session);
        self.keeper_input(tx, engine::Input::Opened { session, caller, observed }, now)
    }

    pub(super) fn keeper_closed(
        &mut self,
        tx: &Tx,
        session: SessionId,
        now: Now,
    ) -> Result<(), StoreError> {
        self.keeper_input(tx, engine::Input::Closed { session: KeeperSession(session) }, now)
    }

    /// Whether a request is for a mailbox that is kept for a friend.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a keeper serves these requests and no others"
    )]
    pub(super) fn is_for_keeper(&self, caller: Option<&IdentityKey>, message: &Message) -> bool {
        let Some(keeper) = &self.keeper else { return false };
        let own = self.own.key();
        match message {
            Message::StoreMessage(store) => {
                !store.recipients.iter().any(|recipient| recipient.identity_key == own)
            }
            Message::TakeKeyPackage(take) => take.owner != own,
            Message::RelayRegister(_)
            | Message::SetAdmission(_)
            | Message::ClaimMailbox(_)
            | Message::RetrieveMessages(_)
            | Message::PublishKeyPackages(_)
            | Message::Ack(_) => caller.is_some_and(|caller| keeper.allowed.contains(caller)),
            _ => false,
        }
    }

    pub(super) fn keeper_request(
        &mut self,
        tx: &Tx,
        session: SessionId,
        request_id: RequestId,
        message: Message,
        now: Now,
    ) -> Result<(), StoreError> {
        let session = KeeperSession(session);
        self.keeper_input(tx, engine::Input::Request { session, request_id, message }, now)
    }

    /// Stores a blob for friends, when the same request is for the owner, too.
    pub(super) fn keeper_store(
        &mut self,
        tx: &Tx,
        session: SessionId,
        store: StoreMessage,
        now: Now,
    ) -> Result<Vec<StoreResult>, StoreError> {
        let Some(keeper) = &mut self.keeper else { return Ok(Vec::new()) };
        let session = KeeperSession(session);
        let message = Message::StoreMessage(store);
        let input = engine::Input::Request { session, request_id: PART, message };
        with_mailboxes(tx, |mailboxes| {
            keeper.engine.handle(mailboxes, input, now)?;
            keeper.engine.settle(mailboxes)
        })?;
        let mut results = Vec::new();
        let mut others = Vec::new();
        while let Some(output) = keeper.engine.poll_output() {
            match output {
                engine::Output::Answer {
                    request_id: PART,
                    message: Message::StoreResponse(response),
                    ..
                } => results = response.results.into_vec(),
                other @ (engine::Output::Answer { .. } | engine::Output::Tell { .. }) => {
                    others.push(other);
                }
            }
        }
        self.release(others, now);
        Ok(results)
    }

    fn keeper_input(&mut self, tx: &Tx, input: engine::Input, now: Now) -> Result<(), StoreError> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        with_mailboxes(tx, |mailboxes| {
            keeper.engine.handle(mailboxes, input, now)?;
            keeper.engine.settle(mailboxes)
        })?;
        self.release_keeper(now);
        Ok(())
    }

    pub(super) fn move_keeper(&mut self, tx: &Tx, now: Now) -> Result<(), StoreError> {
        let Some(keeper) = &mut self.keeper else { return Ok(()) };
        if keeper.engine.poll_timeout() > now.instant {
            return Ok(());
        }
        with_mailboxes(tx, |mailboxes| keeper.engine.handle_timeout(mailboxes, now))?;
        self.release_keeper(now);
        Ok(())
    }

    pub(super) fn keeper_wakes(&self) -> Option<Instant> {
        self.keeper.as_ref().map(|keeper| keeper.engine.poll_timeout())
    }

    /// Answers leave with the commit of this batch, like everything else.
    fn release_keeper(&mut self, now: Now) {
        let mut outputs = Vec::new();
        if let Some(keeper) = &mut self.keeper {
            while let Some(output) = keeper.engine.poll_output() {
                outputs.push(output);
            }
        }
        self.release(outputs, now);
    }

    fn release(&mut self, outputs: Vec<engine::Output>, now: Now) {
        for output in outputs {
            match output {
                engine::Output::Answer { session, request_id, message } => {
                    self.transport.respond(session.0, request_id, &message, now);
                }
                engine::Output::Tell { session, message } => {
                    let owner = self
                        .transport
                        .sessions()
                        .into_iter()
                        .find(|view| view.session == session.0)
                        .and_then(|view| view.peer);
                    if let Some(owner) = owner {
                        self.call(Target::Peer(owner), &[], message, Call::Ignored, now);
                    }
                }
            }
        }
    }
}

/// The keeper's tables in the open transaction. What is written there is not undone by a refusal
/// of the node's own input: an engine checks before it writes.
fn with_mailboxes<R>(
    tx: &Tx,
    work: impl FnOnce(&mut RedbMailboxes<'_>) -> Result<R, KeeperError>,
) -> Result<R, StoreError> {
    tx.with_transaction(|transaction| RedbMailboxes::within(transaction, work))
        .map_err(|error: KeeperError| StoreError::Mailboxes(Box::new(error)))
}
