//! Requests from outside to the mailbox in this node: the same protocol that a relay speaks.
//!
//! A store for the owner is processed at once, in the transaction that is acknowledged: there is
//! no row in between. Nobody but the owner and friends whom the owner allows has a mailbox here.

use sremp_common::id::{IdentityKey, Incarnation};
use sremp_common::identity::VerifiedIdentity;
use sremp_common::limit::{MAX_BLOB, MAX_BLOB_STRANGER};
use sremp_common::time::Now;
use sremp_common::wire::{
    Admission, ErrorBody, ErrorCode, List, Message, Recipient, RelayInfo, RelayLimits, RequestId,
    StoreMessage, StoreResponse, StoreResult,
};

use super::{Node, NodeError};
use crate::api::Trust;
use crate::delivery::Verdict;
use crate::identity::{Contacts, TokenPurpose, Tokens};
use crate::store::{StoreError, Tx};
use crate::transport::SessionId;

/// Seconds after which a refused store may be tried again.
const RETRY_AFTER: u32 = 60;

/// As what somebody is let into the owner's mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// A contact, a fellow member, or the holder of a leaf's token.
    Known,
    /// The holder of a link: good for an invitation.
    Link,
    /// Somebody who has taken a key package, and has not used it: good for an invitation.
    Offered,
    /// Nobody in particular: good for an invitation, while there is room.
    Stranger,
}

impl Node {
    pub(super) fn incoming(
        &mut self,
        tx: &Tx,
        session: SessionId,
        caller: Option<&VerifiedIdentity>,
        request_id: RequestId,
        message: Message,
        now: Now,
    ) -> Result<(), StoreError> {
        let caller_key = caller.map(VerifiedIdentity::key);
        if self.is_for_keeper(caller_key.as_ref(), &message) {
            return self.keeper_request(tx, session, request_id, message, now);
        }
        let answer = match message {
            Message::StoreMessage(store) => {
                Some(self.store_message(tx, session, caller, store, now)?)
            }
            Message::TakeKeyPackage(take) => Some(self.take_key_package(tx, caller, &take, now)?),
            Message::RelayInfoRequest(_) => Some(Message::RelayInfo(self.relay_info(now))),
            Message::RelayRegister(_)
            | Message::SetAdmission(_)
            | Message::ClaimMailbox(_)
            | Message::RetrieveMessages(_)
            | Message::PublishKeyPackages(_) => {
                Some(refusal(ErrorCode::NotAllowed, "this node keeps no mailbox for you"))
            }
            Message::Typing(typing) => {
                if let Some(caller) = caller_key {
                    self.attempt(tx, |node, tx| node.hear_typing(tx, caller, typing, now))?;
                }
                None
            }
            Message::Ack(_) | Message::KeyPackagesLow(_) | Message::Close(_) => None,
            Message::Register(_)
            | Message::Lookup(_)
            | Message::ListServers(_)
            | Message::Error(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Done(_)
            | Message::RelayInfo(_)
            | Message::RelayRegistered(_)
            | Message::StoreResponse(_)
            | Message::MessageBatch(_)
            | Message::KeyPackageStock(_)
            | Message::KeyPackageTaken(_)
            | Message::Registered(_)
            | Message::LookupResponse(_)
            | Message::Servers(_) => {
                Some(refusal(ErrorCode::Unsupported, "not a request that a node serves"))
            }
        };
        if let Some(answer) = answer {
            self.transport.respond(session, request_id, &answer, now);
        }
        Ok(())
    }

    fn relay_info(&self, now: Now) -> RelayInfo {
        let blob = u32::try_from(MAX_BLOB).unwrap_or(u32::MAX);
        RelayInfo {
            limits: RelayLimits {
                max_blob: blob,
                max_messages: u32::MAX,
                max_bytes: u64::MAX,
                retention: u32::MAX,
            },
            pow_difficulty: 0,
            time: now.wall,
            incarnation: Incarnation::new([0; 16]),
            observed: None,
        }
    }

    fn store_message(
        &mut self,
        tx: &Tx,
        session: SessionId,
        caller: Option<&VerifiedIdentity>,
        store: StoreMessage,
        now: Now,
    ) -> Result<Message, StoreError> {
        let own = self.own.key();
        let friends: Vec<Recipient> = store
            .recipients
            .iter()
            .filter(|recipient| recipient.identity_key != own)
            .copied()
            .collect();
        let mut kept = Vec::new();
        if !friends.is_empty() {
            let recipients = List::truncated(friends);
            let part = StoreMessage { blob: store.blob.clone(), recipients };
            kept = self.keeper_store(tx, session, part, now)?;
        }
        let mut kept = kept.into_iter();
        let mut results = Vec::with_capacity(store.recipients.len());
        for recipient in store.recipients.iter() {
            results.push(if recipient.identity_key == own {
                self.store_for(tx, caller, recipient, &store.blob, now)?
            } else {
                kept.next().unwrap_or(refused(ErrorCode::NotAdmitted))
            });
        }
        Ok(Message::StoreResponse(StoreResponse { results: List::truncated(results) }))
    }

    fn store_for(
        &mut self,
        tx: &Tx,
        caller: Option<&VerifiedIdentity>,
        recipient: &Recipient,
        blob: &[u8],
        now: Now,
    ) -> Result<StoreResult, StoreError> {
        let admitted = match self.admit(tx, caller, recipient.admission, now) {
            Ok(Some(admitted)) => admitted,
            Ok(None) => {
                self.refuse(tx);
                return Ok(refused(ErrorCode::NotAdmitted));
            }
            Err(error) => return self.unless_store(tx, error).map(refused),
        };
        self.accept(tx)?;
        let from_stranger = admitted != Admitted::Known;
        if from_stranger && blob.len() > MAX_BLOB_STRANGER {
            return Ok(refused(ErrorCode::TooLarge));
        }
        let verdict = self.take_blob(tx, blob, from_stranger, now)?;
        Ok(match verdict {
            Verdict::Applied | Verdict::Duplicate | Verdict::Deferred => {
                StoreResult { refused: None, expires_at: None, retry_after: None }
            }
            Verdict::Crowded => StoreResult {
                refused: Some(ErrorCode::QuotaExceeded),
                expires_at: None,
                retry_after: Some(RETRY_AFTER),
            },
            // To somebody we know it is said that the blob has come to its end, so that it is not
            // sent again; a stranger learns that it was of no use.
            Verdict::NoInvitation => refused(ErrorCode::NotAdmitted),
            Verdict::Invalid(_) if from_stranger => refused(ErrorCode::Malformed),
            Verdict::Invalid(_) => {
                StoreResult { refused: None, expires_at: None, retry_after: None }
            }
            Verdict::Refused | Verdict::TooManyRequests => StoreResult {
                refused: Some(ErrorCode::QuotaExceeded),
                expires_at: None,
                retry_after: Some(RETRY_AFTER),
            },
        })
    }

    /// Whether, and as what, somebody is let in.
    pub(super) fn admit(
        &mut self,
        tx: &Tx,
        caller: Option<&VerifiedIdentity>,
        admission: Admission,
        now: Now,
    ) -> Result<Option<Admitted>, NodeError> {
        if let Some(caller) = caller
            && Contacts::is_rejected(tx, &caller.key())?
        {
            return Ok(None);
        }
        let mut is_offered = false;
        if let Admission::Token(token) = admission {
            match Tokens::admit(tx, &token, now)? {
                Some(TokenPurpose::Leaf) => return Ok(Some(Admitted::Known)),
                Some(TokenPurpose::Link | TokenPurpose::Once) => return Ok(Some(Admitted::Link)),
                Some(TokenPurpose::Offered) => is_offered = true,
                Some(TokenPurpose::Spare) | None => {}
            }
        }
        // Whoever is known does not become a stranger by what it shows besides.
        match caller {
            Some(caller) if self.is_known(tx, &caller.key())? => Ok(Some(Admitted::Known)),
            Some(_) | None if is_offered => Ok(Some(Admitted::Offered)),
            Some(_) => Ok(Some(Admitted::Stranger)),
            None => Ok(None),
        }
    }

    /// A contact, not rejected, or a fellow member of some group.
    fn is_known(&self, tx: &Tx, key: &IdentityKey) -> Result<bool, NodeError> {
        if let Some(contact) = Contacts::find(tx, key)? {
            return Ok(contact.trust != Trust::Rejected);
        }
        Ok(self.fellows.contains(key))
    }

    /// Drops what a step has written. A failed store ends the process; other errors have a code.
    pub(super) fn unless_store(
        &mut self,
        tx: &Tx,
        error: NodeError,
    ) -> Result<ErrorCode, StoreError> {
        match error {
            NodeError::Store(error) => Err(error),
            error @ (NodeError::Api(_) | NodeError::Group(_)) => {
                tracing::debug!(%error, "a request failed");
                self.refuse(tx);
                Ok(ErrorCode::Internal)
            }
        }
    }
}

fn refused(code: ErrorCode) -> StoreResult {
    StoreResult { refused: Some(code), expires_at: None, retry_after: None }
}

pub(super) fn refusal(code: ErrorCode, text: &str) -> Message {
    Message::Error(ErrorBody::new(code, text))
}
