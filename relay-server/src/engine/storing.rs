//! Who may put what into a mailbox.
//!
//! The unadmitted learn nothing: no mailbox, a wrong token, too little work, and whatever a mailbox
//! has against a blob of somebody who has only worked, are one answer. Whoever holds a token
//! already knows the mailbox, and is told what is wrong.
//!
//! Classes have shares that nest, so that no class is crowded out by a cheaper one: the owner fills
//! all of its mailbox; one token of a contact at most a share in a day, once the mailbox is half
//! full; links a tenth; work half of that.

use std::time::Duration;

use sremp_common::id::{BlobId, IdentityKey, TokenHash};
use sremp_common::limit::MAX_BLOB_STRANGER;
use sremp_common::pow::Work;
use sremp_common::time::{Now, Timestamp};
use sremp_common::wire::{
    Admission, AdmissionClass, ErrorCode, List, Message, Recipient, StoreMessage, StoreResponse,
    StoreResult,
};

use super::{Counted, Durability, Engine, RETRY_NO_ROOM, Request, Room};
use crate::store::{Blob, Held, Mailbox, Mailboxes, Place, StoreError, TokenUse, Use};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// How somebody was let in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Admitted {
    /// The owner itself.
    Owner,
    /// By a token.
    Token(TokenHash, TokenUse),
    /// By work.
    Worked,
}

impl Admitted {
    const fn is_stranger(self) -> bool {
        match self {
            Self::Owner => false,
            Self::Token(_, token) => matches!(token.class, AdmissionClass::Link),
            Self::Worked => true,
        }
    }

    /// What of a refusal may be told.
    const fn told(self, refusal: Refusal) -> Refusal {
        match self {
            // Nobody can buy with work what a mailbox would tell: that it is there, what its owner
            // wishes, or that the owner is away.
            Self::Worked => Refusal::NOT_ADMITTED,
            Self::Owner | Self::Token(..) => refusal,
        }
    }
}

/// Why something was not let in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) code: ErrorCode,
    pub(super) retry_after: Option<u32>,
}

impl Refusal {
    pub(super) const NOT_ADMITTED: Self = Self::of(ErrorCode::NotAdmitted);

    const fn of(code: ErrorCode) -> Self {
        Self { code, retry_after: None }
    }

    /// The quota of the day is used up.
    pub(super) fn until_tomorrow(now: Timestamp) -> Self {
        let into_the_day = (now.as_millis() / 1000) % DAY;
        let rest = u32::try_from(DAY.saturating_sub(into_the_day)).unwrap_or(u32::MAX);
        Self { code: ErrorCode::RateLimited, retry_after: Some(rest) }
    }

    const fn no_room(code: ErrorCode) -> Self {
        Self { code, retry_after: Some(RETRY_NO_ROOM) }
    }

    /// Asked too often.
    pub(super) const fn too_often(seconds: u32) -> Self {
        Self { code: ErrorCode::RateLimited, retry_after: Some(seconds) }
    }
}

impl Engine {
    pub(super) fn store<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        request: Request,
        body: &StoreMessage,
        now: Now,
    ) -> Result<Message, StoreError> {
        let mut blob = Blob::new(&body.blob);
        let mut results = Vec::with_capacity(body.recipients.len());
        for recipient in body.recipients.iter() {
            // The owner's own notes are counted by what the mailbox holds.
            let is_own = request.caller == Some(recipient.identity_key);
            let network = request.network.filter(|_| !is_own);
            let limits = self.config.rates;
            let counted = network
                .map(|network| self.counts.network(&limits, Counted::Store, network, now.instant));
            results.push(match counted {
                Some(Err(wait)) => refused(Refusal::too_often(wait)),
                Some(Ok(())) | None => {
                    self.store_one(store, request.caller, &mut blob, recipient, now)?
                }
            });
        }
        Ok(Message::StoreResponse(StoreResponse { results: List::truncated(results) }))
    }

    /// Stores a blob into one mailbox, and says what became of it. `caller` is the identity of
    /// the session, if it has one. The result holds once the transaction is durable.
    ///
    /// For a node, which holds mailboxes of contacts here and takes its owner's blobs itself.
    ///
    /// # Errors
    /// [`StoreError`]: the transaction must be given up.
    pub fn store_one<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        caller: Option<IdentityKey>,
        blob: &mut Blob<'_>,
        recipient: &Recipient,
        now: Now,
    ) -> Result<StoreResult, StoreError> {
        let stored = self.try_store(store, caller, blob, recipient, now)?;
        Ok(match stored {
            Ok(held) => {
                StoreResult { refused: None, expires_at: Some(held.expires_at), retry_after: None }
            }
            Err(refusal) => refused(refusal),
        })
    }

    fn try_store<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        caller: Option<IdentityKey>,
        blob: &mut Blob<'_>,
        recipient: &Recipient,
        now: Now,
    ) -> Result<Result<Held, Refusal>, StoreError> {
        let owner = recipient.identity_key;
        let is_worked = matches!(recipient.admission, Admission::ProofOfWork { .. });
        if is_worked && blob.bytes().len() > MAX_BLOB_STRANGER {
            return Ok(Err(Refusal::of(ErrorCode::TooLarge)));
        }
        // Admission before anything that costs: the blob of somebody unadmitted is not even hashed.
        let Some(admitted) =
            self.admit(store, caller, &owner, recipient.admission, Some(blob.bytes()), now)?
        else {
            return Ok(Err(Refusal::NOT_ADMITTED));
        };
        let is_full = self.is_full(store, blob.len())?;
        // The same for every mailbox, and for none.
        if is_full && matches!(admitted, Admitted::Worked) {
            return Ok(Err(Refusal::no_room(ErrorCode::Unavailable)));
        }
        let mailbox = store.mailbox(&owner)?.filter(|_| !self.banned.contains(&owner));
        let Some(mailbox) = mailbox else { return Ok(Err(Refusal::NOT_ADMITTED)) };
        let blob_id = BlobId::of(&owner, blob.bytes());
        // The same blob again, because an answer was lost: it is here, and uses nothing up.
        if let Some(held) = store.find(&owner, &blob_id)? {
            return Ok(Ok(held));
        }
        if let Err(refusal) = self.check_room(&mailbox, admitted, blob.len(), now) {
            return Ok(Err(admitted.told(refusal)));
        }
        if is_full {
            return Ok(Err(Refusal::no_room(ErrorCode::Unavailable)));
        }
        match admitted {
            Admitted::Token(token, _) => {
                let what = Use::Store { bytes: blob.len() };
                store.count_use(&owner, &token, now.wall.day(), what)?;
            }
            Admitted::Worked => self.demand.count(&self.config, now.instant),
            Admitted::Owner => {}
        }
        let retention = Duration::from_secs(self.config.limits_of(&mailbox).retention.into());
        let expires_at = now.wall + retention;
        let from_stranger = admitted.is_stranger();
        let place = Place { owner, blob_id, expires_at, from_stranger };
        let held = store.put(blob, &place, now.wall)?;
        self.budget = self.budget.saturating_sub(blob.len());
        self.written(Durability::Now);
        self.mark_due(owner);
        Ok(Ok(held))
    }

    /// What opens the mailbox, if anything does. Work is done for a blob, or without one for a key
    /// package.
    pub(super) fn admit<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        caller: Option<IdentityKey>,
        owner: &IdentityKey,
        admission: Admission,
        blob: Option<&[u8]>,
        now: Now,
    ) -> Result<Option<Admitted>, StoreError> {
        Ok(match admission {
            Admission::Session => (caller == Some(*owner)).then_some(Admitted::Owner),
            Admission::Token(token) => {
                let hash = token.hash();
                let token = store.token(owner, &hash, now.wall.day())?;
                token.map(|token| Admitted::Token(hash, token))
            }
            Admission::ProofOfWork { hour, nonce } => {
                let is_timely = matches!(now.wall.hour().checked_sub(hour), Some(0 | 1));
                if self.config.pow_difficulty == 0 || !is_timely {
                    return Ok(None);
                }
                let blob = blob.map(|blob| BlobId::of(owner, blob));
                let work = Work { relay: &self.own, recipient: owner, blob, hour };
                let is_enough = self.demand.takes(&self.config, work.zero_bits(nonce), now.instant);
                is_enough.then_some(Admitted::Worked)
            }
        })
    }

    /// Whether a blob of this length has a place.
    fn check_room(
        &self,
        mailbox: &Mailbox,
        admitted: Admitted,
        bytes: u64,
        now: Now,
    ) -> Result<(), Refusal> {
        if bytes == 0 {
            return Err(Refusal::of(ErrorCode::Malformed));
        }
        let all = self.config.limits_of(mailbox);
        let strangers = match admitted {
            Admitted::Worked => self.config.limits_of_work(mailbox),
            Admitted::Owner | Admitted::Token(..) => self.config.limits_of_strangers(mailbox),
        };
        let is_stranger = admitted.is_stranger();
        let longest = if is_stranger { strangers.max_blob } else { all.max_blob };
        if bytes > longest.into() {
            return Err(Refusal::of(ErrorCode::TooLarge));
        }
        if let Admitted::Token(_, token) = admitted
            && token.daily_quota != 0
            && token.stored >= token.daily_quota
        {
            return Err(Refusal::until_tomorrow(now.wall));
        }
        let fits = |messages: u64, held: u64, max_messages: u32, max_bytes: u64| {
            messages < max_messages.into() && held.saturating_add(bytes) <= max_bytes
        };
        let has_room = fits(mailbox.messages, mailbox.bytes, all.max_messages, all.max_bytes)
            && (!is_stranger
                || fits(
                    mailbox.stranger_messages,
                    mailbox.stranger_bytes,
                    strangers.max_messages,
                    strangers.max_bytes,
                ));
        if has_room && !self.takes_too_much(mailbox, admitted, bytes) {
            return Ok(());
        }
        Err(Refusal::no_room(ErrorCode::QuotaExceeded))
    }

    /// Whether one token would fill more of a mailbox than its share of a day, so that nothing
    /// would be left for the others.
    fn takes_too_much(&self, mailbox: &Mailbox, admitted: Admitted, bytes: u64) -> bool {
        let Admitted::Token(_, token) = admitted else { return false };
        let all = self.config.limits_of(mailbox);
        let max_messages = u64::from(all.max_messages);
        let is_beyond = |used: u64, whole: u64, per_cent: u64| {
            used.saturating_mul(100) > whole.saturating_mul(per_cent)
        };
        let is_half_full = is_beyond(mailbox.messages.saturating_add(1), max_messages, 50)
            || is_beyond(mailbox.bytes.saturating_add(bytes), all.max_bytes, 50);
        let share = u64::from(self.config.sender_share);
        share < 100
            && is_half_full
            && (is_beyond(u64::from(token.stored).saturating_add(1), max_messages, share)
                || is_beyond(token.stored_bytes.saturating_add(bytes), all.max_bytes, share))
    }

    /// Whether the keeper has no room for so many bytes, whoever they are for.
    fn is_full<S: Mailboxes + ?Sized>(
        &self,
        store: &mut S,
        bytes: u64,
    ) -> Result<bool, StoreError> {
        let total = store.totals()?.bytes.saturating_add(bytes);
        let is_full = self.room == Room::NoNewMessages || bytes > self.budget;
        Ok(is_full || total > self.config.max_total_bytes)
    }
}

const fn refused(refusal: Refusal) -> StoreResult {
    let Refusal { code, retry_after } = refusal;
    StoreResult { refused: Some(code), expires_at: None, retry_after }
}
