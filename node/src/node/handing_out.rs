//! Key packages for whoever asks this node itself: one is made for each taker, within quotas.
//!
//! Relays hand out from the stock that `mailboxes` fills.

use std::collections::BTreeMap;

use sremp_common::identity::VerifiedIdentity;
use sremp_common::time::Now;
use sremp_common::wire::{Admission, Bin, ErrorCode, KeyPackageTaken, Message, TakeKeyPackage};

use super::incoming::{Admitted, refusal};
use super::{Node, NodeError};
use crate::identity::Tokens;
use crate::store::{StoreError, Tx};

/// Key packages made for takers on a day; each costs two key pairs and a row.
pub(super) const MAX_HANDED_OUT: u32 = 1000;
/// Of those, the share of one taker.
const MAX_FOR_ONE: u32 = 50;

/// Who took how many key packages today. In memory: a restart forgets it.
#[derive(Debug, Default)]
pub(super) struct HandedOut {
    day: u64,
    total: u32,
    /// By identity key, or by hash of the token for the anonymous. Bounded by [`MAX_HANDED_OUT`].
    each: BTreeMap<[u8; 32], u32>,
}

impl HandedOut {
    /// Counts one more for this taker; false when that is too many.
    fn count(&mut self, taker: [u8; 32], now: Now) -> bool {
        let today = now.wall.day();
        if self.day != today {
            *self = Self { day: today, ..Self::default() };
        }
        let taken = self.each.get(&taker).copied().unwrap_or(0);
        if self.total >= MAX_HANDED_OUT || taken >= MAX_FOR_ONE {
            return false;
        }
        self.total = self.total.saturating_add(1);
        self.each.insert(taker, taken.saturating_add(1));
        true
    }
}

impl Node {
    pub(super) fn take_key_package(
        &mut self,
        tx: &Tx,
        caller: Option<&VerifiedIdentity>,
        take: &TakeKeyPackage,
        now: Now,
    ) -> Result<Message, StoreError> {
        match self.hand_out_key_package(tx, caller, take, now) {
            Ok(message) => {
                self.accept(tx)?;
                Ok(message)
            }
            Err(error) => {
                let code = self.unless_store(tx, error)?;
                Ok(refusal(code, "no key package can be had"))
            }
        }
    }

    /// Makes a key package for exactly this taker: each is handed out once.
    fn hand_out_key_package(
        &mut self,
        tx: &Tx,
        caller: Option<&VerifiedIdentity>,
        take: &TakeKeyPackage,
        now: Now,
    ) -> Result<Message, NodeError> {
        let refused = Ok(refusal(ErrorCode::NotAdmitted, "a link or an introduction is needed"));
        if take.owner != self.own.key() {
            return refused;
        }
        let admitted = self.admit(tx, caller, take.admission, now)?;
        match admitted {
            Some(Admitted::Known | Admitted::Link) => {}
            // An owner who listens for strangers would be drained of key packages by them, and
            // one key package is not worth another.
            Some(Admitted::Stranger | Admitted::Offered) | None => return refused,
        }
        let taker = match (caller, take.admission) {
            (Some(caller), _) => *caller.key().as_bytes(),
            (None, Admission::Token(token)) => *token.hash().as_bytes(),
            (None, Admission::Session | Admission::ProofOfWork { .. }) => return refused,
        };
        if !self.handed_out.count(taker, now) {
            return Ok(refusal(ErrorCode::RateLimited, "too many key packages were taken today"));
        }
        if let (Some(Admitted::Link), Admission::Token(token)) = (admitted, take.admission) {
            Tokens::spend_once(tx, &token)?;
            self.admission_changed = true;
        }
        let leaf = self.offered_leaf(tx, now)?;
        let key_package = self.groups.make_key_packages(tx, &leaf, false, now)?;
        Ok(Message::KeyPackageTaken(KeyPackageTaken {
            identity: self.own.identity().identity().clone(),
            key_package: Bin::new(key_package).unwrap_or_default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sremp_common::time::Timestamp;

    #[test]
    fn one_taker_does_not_use_up_the_day_for_all() {
        let at =
            |day: u64| Now { wall: Timestamp::from_millis(day * 86_400_000), ..Now::default() };
        let mut handed_out = HandedOut::default();
        let taken = (0..200).filter(|_| handed_out.count([1; 32], at(1))).count();
        assert_eq!(taken, 50);
        assert!(handed_out.count([2; 32], at(1)));
        let others = (0..2000_u32).filter(|taker| {
            let mut name = [3; 32];
            name[..4].copy_from_slice(&taker.to_le_bytes());
            handed_out.count(name, at(1))
        });
        assert_eq!(others.count(), 1000 - 51);
        assert!(!handed_out.count([4; 32], at(1)));
        assert!(handed_out.count([1; 32], at(2)));
    }
}
