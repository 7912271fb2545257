//! The directory of key packages: each is handed out once, and nobody learns who has a stock.

use sremp_common::id::IdentityKey;
use sremp_common::identity::Succession;
use sremp_common::limit::MAX_KEY_PACKAGES;
use sremp_common::time::Now;
use sremp_common::wire::{
    Admission, Bin, ErrorBody, ErrorCode, KeyPackageStock, KeyPackageTaken, KeyPackagesLow,
    Message, PublishKeyPackages, TakeKeyPackage,
};

use super::storing::{Admitted, Refusal};
use super::{
    Counted, Durability, Engine, Output, RETRY_NO_ROOM, Request, Room, refuse, refuse_until,
};
use crate::store::{Mailboxes, Publication, StoreError, Use};

/// Key packages that one token takes in a day, when its owner set no quota.
const TAKES_OF_TOKEN: u32 = 64;
/// Key packages of one owner that proofs of work take in an hour.
const TAKES_BY_WORK: usize = 16;
/// A stock is low when at most one in so many is left of it.
const LOW: u32 = 5;

impl Engine {
    pub(super) fn publish<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        owner: IdentityKey,
        body: &PublishKeyPackages,
    ) -> Result<Message, StoreError> {
        if self.room == Room::NoNewMessages {
            let text = "no room for key packages";
            return Ok(refuse_until(ErrorCode::Unavailable, RETRY_NO_ROOM, text));
        }
        let Ok(identity) = body.identity.verify() else {
            return Ok(refuse(ErrorCode::AuthenticationFailed, "the identity does not verify"));
        };
        if identity.key() != owner {
            return Ok(refuse(ErrorCode::NotAllowed, "the identity of somebody else"));
        }
        let mut packages = body.key_packages.iter().chain(&body.last_resort);
        if packages.any(|package| package.is_empty()) {
            return Ok(refuse(ErrorCode::Malformed, "an empty key package"));
        }
        // What is stored was verified when it came; if it does not verify now it is replaced.
        let known = store.identity(&owner)?.and_then(|known| known.verify().ok());
        if let Some(known) = known {
            match known.compare(&identity) {
                Succession::Newer | Succession::Same => {}
                Succession::Equivocation | Succession::Rollback => {
                    return Ok(refuse(ErrorCode::Stale, "a newer identity is known"));
                }
            }
        }
        let publication = Publication {
            identity: &body.identity,
            key_packages: &body.key_packages,
            last_resort: body.last_resort.as_deref(),
            replace: body.replace,
        };
        let limit = u32::try_from(MAX_KEY_PACKAGES).unwrap_or(u32::MAX);
        let count = store.publish(&owner, &publication, limit)?;
        self.written(Durability::Now);
        Ok(Message::KeyPackageStock(KeyPackageStock { count }))
    }

    pub(super) fn take<S: Mailboxes + ?Sized>(
        &mut self,
        store: &mut S,
        request: Request,
        body: &TakeKeyPackage,
        now: Now,
    ) -> Result<Message, StoreError> {
        let owner = body.owner;
        let limits = self.config.rates;
        if let Some(network) = request.network
            && let Err(wait) =
                self.counts.network(&limits, Counted::KeyPackage, network, now.instant)
        {
            return Ok(refuse_until(ErrorCode::RateLimited, wait, "too many key packages"));
        }
        let admitted = self.admit(store, request.caller, &owner, body.admission, None, now)?;
        let Some(admitted) = admitted else { return Ok(refused(Refusal::NOT_ADMITTED)) };
        if store.mailbox(&owner)?.is_none() || self.banned.contains(&owner) {
            return Ok(refused(Refusal::NOT_ADMITTED));
        }
        if let Err(refusal) = self.spend(store, &owner, body.admission, admitted, now)? {
            return Ok(refused(refusal));
        }
        if matches!(admitted, Admitted::Worked) {
            self.demand.count(&self.config, now.instant);
        }
        self.written(Durability::Now);
        let Some(taken) = store.take_key_package(&owner)? else {
            return Ok(refuse(ErrorCode::NotFound, "no key package in stock"));
        };
        if taken.left.saturating_mul(LOW) <= taken.full {
            self.warn(owner, taken.left);
        }
        let Ok(key_package) = Bin::new(taken.key_package) else {
            return Err(StoreError::Corrupt("key package beyond the bound"));
        };
        Ok(Message::KeyPackageTaken(KeyPackageTaken { identity: taken.identity, key_package }))
    }

    /// Uses up what lets somebody take a key package.
    fn spend<S: Mailboxes + ?Sized>(
        &self,
        store: &mut S,
        owner: &IdentityKey,
        admission: Admission,
        admitted: Admitted,
        now: Now,
    ) -> Result<Result<(), Refusal>, StoreError> {
        match (admitted, admission) {
            (Admitted::Token(hash, token), _) => {
                let quota = if token.daily_quota == 0 { TAKES_OF_TOKEN } else { token.daily_quota };
                if token.taken >= quota {
                    return Ok(Err(Refusal::until_tomorrow(now.wall)));
                }
                store.count_use(owner, &hash, now.wall.day(), Use::Take)?;
            }
            // A proof for a blob is good for that blob; one for a key package is good once.
            (Admitted::Worked, Admission::ProofOfWork { hour, nonce }) => {
                if !store.spend_work(owner, hour, nonce, TAKES_BY_WORK)? {
                    return Ok(Err(Refusal::NOT_ADMITTED));
                }
            }
            (Admitted::Owner | Admitted::Worked, _) => {}
        }
        Ok(Ok(()))
    }

    /// Tells the owner, if it reads its mailbox now, that the stock runs low. The count at
    /// registration tells it otherwise.
    fn warn(&mut self, owner: IdentityKey, count: u32) {
        if let Some(reader) = self.readers.get(&owner) {
            let message = Message::KeyPackagesLow(KeyPackagesLow { count });
            self.outputs.push_back(Output::Tell { session: reader.session, message });
        }
    }
}

fn refused(refusal: Refusal) -> Message {
    let is_quota = refusal.code == ErrorCode::RateLimited;
    let text = if is_quota { "the quota of the day is used up" } else { "not admitted" };
    let retry_after = refusal.retry_after;
    Message::Error(ErrorBody { retry_after, ..ErrorBody::new(refusal.code, text) })
}
