//! Who may have a mailbox here, and what its owner says about it.

use sremp_common::id::{IdentityKey, Token};
use sremp_common::time::Now;
use sremp_common::wire::{
    ClaimMailbox, Done, ErrorCode, Message, RelayCapabilities, RelayInfo, RelayLimits,
    RelayRegister, RelayRegistered, SetAdmission,
};

use super::{
    Counted, Durability, Engine, RETRY_NO_ROOM, Registration, Request, Room, SessionId, refuse,
    refuse_until,
};
use crate::store::{Mailboxes, StoreError};

/// Seconds after which a copy of a home may ask whether the other one is gone.
const RETRY_COPY: u32 = 20;

impl Engine {
    pub(super) fn register<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        request: Request,
        owner: IdentityKey,
        body: RelayRegister,
        now: Now,
    ) -> Result<Message, StoreError> {
        if owner == self.own || !self.config.registration.allows(&owner) {
            return Ok(refuse(ErrorCode::NotAllowed, "no mailboxes for this identity here"));
        }
        let known = store.mailbox(&owner)?;
        if known.is_none()
            && let Some(refused) = self.refuse_new(store, request, body.invite, now)?
        {
            return Ok(refused);
        }
        let RelayCapabilities { max_message_size, max_storage_duration } = body.capabilities;
        let wanted = (max_message_size, max_storage_duration);
        let mailbox = match known.filter(|known| (known.max_blob, known.retention) == wanted) {
            // Whoever comes back with the same wishes, as everybody does after a restart, changes
            // nothing and waits for no commit.
            Some(known) => known,
            None => {
                self.written(Durability::Now);
                store.register(&owner, body.capabilities)?
            }
        };
        let info = self.info(request.session, self.config.limits_of(&mailbox), now);
        Ok(Message::RelayRegistered(RelayRegistered {
            info,
            messages: mailbox.messages,
            bytes: mailbox.bytes,
            key_packages: mailbox.key_packages,
        }))
    }

    /// Marks which copy of the owner's home reads the mailbox. Refused when another one has been here
    /// since: with `retry_after` while that one is connected.
    pub(super) fn claim<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        session: SessionId,
        owner: IdentityKey,
        body: &ClaimMailbox,
    ) -> Result<Message, StoreError> {
        let is_known = store.claim(&owner)?.is_none_or(|stands| body.known.contains(&stands));
        let is_read = self.readers.get(&owner).is_some_and(|reader| reader.session != session);
        if is_read && (body.started || !is_known) {
            let text = "another copy of this home is connected now";
            return Ok(refuse_until(ErrorCode::Stale, RETRY_COPY, text));
        }
        if !is_known && !body.known.is_empty() {
            return Ok(refuse(ErrorCode::Stale, "another copy of this home was here since"));
        }
        store.set_claim(&owner, body.fresh)?;
        self.written(Durability::Now);
        Ok(Message::Done(Done {}))
    }

    /// Why somebody new is not let in, if there is a reason. What is used up by letting them in is
    /// used up here, the invitation last.
    fn refuse_new<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        request: Request,
        invite: Option<Token>,
        now: Now,
    ) -> Result<Option<Message>, StoreError> {
        if self.config.registration == Registration::Nobody {
            let text = "this relay takes no new mailboxes";
            return Ok(Some(refuse(ErrorCode::NotAllowed, text)));
        }
        if self.room != Room::Plenty || store.totals()?.mailboxes >= self.config.max_mailboxes {
            let text = "no room for another mailbox";
            return Ok(Some(refuse_until(ErrorCode::Unavailable, RETRY_NO_ROOM, text)));
        }
        if let Some(network) = request.network {
            let limits = self.config.rates;
            if let Err(wait) =
                self.counts.network(&limits, Counted::NewMailbox, network, now.instant)
            {
                let text = "too many new mailboxes from this network";
                return Ok(Some(refuse_until(ErrorCode::RateLimited, wait, text)));
            }
        }
        if self.config.registration == Registration::Invited {
            let is_good = match invite {
                Some(invite) => store.spend_invite(&invite.hash(), now.wall)?,
                None => false,
            };
            if !is_good {
                let text = "a new mailbox here needs an invitation that is still good: \
                            ask the operator for a link with one";
                return Ok(Some(refuse(ErrorCode::NotAdmitted, text)));
            }
        }
        Ok(None)
    }

    pub(super) fn set_admission<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        owner: IdentityKey,
        body: &SetAdmission,
    ) -> Result<Message, StoreError> {
        store.set_admission(&owner, &body.entries)?;
        self.written(Durability::Now);
        Ok(Message::Done(Done()))
    }

    pub(super) fn info(&mut self, session: SessionId, limits: RelayLimits, now: Now) -> RelayInfo {
        RelayInfo {
            limits,
            pow_difficulty: self.difficulty(now.instant),
            time: now.wall,
            incarnation: self.incarnation,
            observed: self.sessions.get(&session).and_then(|session| session.observed.clone()),
        }
    }
}
