//! Work for strangers: a relay takes a first contact from somebody without a token when they have
//! worked for it. What is worked for is a key package; the token in it opens the mailbox.
//!
//! ```text
//!   ask the price ─→ work, a little at a time ─→ take a key package, showing the proof
//! ```
//! The search goes on in small pieces between everything else that the node does, and is seen in
//! `sremp status` and at the message that waits for it. It is not written down: work is luck, so
//! beginning anew after a restart loses nothing on average.

use std::time::Duration;

use sremp_common::id::IdentityKey;
use sremp_common::identity::RelayRecord;
use sremp_common::pow::Work;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{Admission, Message, Ping, TakeKeyPackage};

use super::invites::TAKE_TAG;
use super::{Call, Node, NodeError};
use crate::api::{PathPolicy, WorkView};
use crate::store::Tx;
use crate::transport::{CallError, Target};

/// Hashes at a time: a few milliseconds, in which nothing else happens.
const PIECE: u64 = 2_048;
/// Between two pieces.
const PAUSE: Duration = Duration::from_millis(1);
/// The most that a relay can make us pay: five minutes or so. Beyond it the message waits for
/// another relay, or for the price to fall.
const MAX_DIFFICULTY: u8 = 28;

/// A search under way.
#[derive(Debug)]
pub(super) struct Labour {
    relay: RelayRecord,
    /// Of the relay's clock when it named the price.
    hour: u64,
    began: Instant,
    difficulty: u8,
    next_nonce: u64,
    tried: u64,
    wake_at: Instant,
}

impl Labour {
    pub(super) const fn wake_at(&self) -> Instant {
        self.wake_at
    }

    /// Hashes that it takes on average.
    fn expected(&self) -> u64 {
        1_u64.checked_shl(self.difficulty.into()).unwrap_or(u64::MAX)
    }

    /// For people.
    pub(super) fn progress(&self) -> String {
        let per_cent = self.tried.saturating_mul(100).checked_div(self.expected()).unwrap_or(0);
        format!(
            "their relay wants a proof of work from strangers; {per_cent} % of what it takes on average is \
             done"
        )
    }

    /// Whether the hour that the work is for is about to be too old.
    fn is_stale(&self, now: Now) -> bool {
        // The relay takes its present hour and the one before.
        now.instant.since(self.began) > Duration::from_secs(3_600)
    }
}

impl Node {
    /// Asks a relay of somebody's what it wants from whoever has no token.
    pub(super) fn ask_price(&mut self, who: IdentityKey, relay: &RelayRecord, now: Now) {
        if let Some(fetch) = self.fetches.get_mut(&who) {
            fetch.ask(relay.identity_key);
        }
        let candidates = self.relay_candidates(relay);
        let target = Target::Anonymous(relay.identity_key, TAKE_TAG);
        let call = Call::Price { who, relay: relay.clone() };
        self.call(target, &candidates, Message::RelayInfoRequest(Ping()), call, now);
    }

    pub(super) fn price_answered(
        &mut self,
        tx: &Tx,
        who: IdentityKey,
        relay: RelayRecord,
        result: Result<Message, CallError>,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(fetch) = self.fetches.get_mut(&who) else { return Ok(()) };
        fetch.answered();
        if let Err(CallError::Refused(error)) = &result {
            fetch.wait_for(relay.identity_key, error, now);
        }
        match result {
            Ok(Message::RelayInfo(info)) if (1..=MAX_DIFFICULTY).contains(&info.pow_difficulty) => {
                fetch.labour = Some(Labour {
                    relay,
                    hour: info.time.hour(),
                    began: now.instant,
                    difficulty: info.pow_difficulty,
                    // Not the same numbers again when the search is begun anew.
                    next_nonce: u64::from_le_bytes(self.entropy.array()) >> 1,
                    tried: 0,
                    wake_at: now.instant,
                });
                Ok(())
            }
            Ok(Message::RelayInfo(_)) => {
                fetch.needs_link();
                self.ask_next(tx, who, now)
            }
            Ok(_) | Err(_) => self.ask_next(tx, who, now),
        }
    }

    /// Works a little for somebody's key package, and takes it when the proof is found.
    pub(super) fn work_for(
        &mut self,
        tx: &Tx,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let is_unwanted = self.path_policy(tx, &who)? == PathPolicy::Direct;
        let Some(fetch) = self.fetches.get_mut(&who) else { return Ok(()) };
        if is_unwanted {
            // The owner wants no relay any more.
            fetch.labour = None;
            return self.start_fetch(tx, who, now);
        }
        let Some(labour) = &mut fetch.labour else { return Ok(()) };
        if labour.is_stale(now) {
            let relay = labour.relay.clone();
            fetch.labour = None;
            self.ask_price(who, &relay, now);
            return Ok(());
        }
        let own = &labour.relay.identity_key;
        let work = Work { relay: own, recipient: &who, blob: None, hour: labour.hour };
        let found = work.search(labour.difficulty, labour.next_nonce, PIECE);
        labour.tried = labour.tried.saturating_add(PIECE);
        labour.next_nonce = labour.next_nonce.saturating_add(PIECE);
        labour.wake_at = now.instant + PAUSE;
        let Some(nonce) = found else { return Ok(()) };
        let (relay, hour) = (labour.relay.clone(), labour.hour);
        fetch.ask(relay.identity_key);
        let admission = Admission::ProofOfWork { hour, nonce };
        let request = Message::TakeKeyPackage(TakeKeyPackage { owner: who, admission });
        let candidates = self.relay_candidates(&relay);
        let target = Target::Anonymous(relay.identity_key, TAKE_TAG);
        self.call(target, &candidates, request, Call::KeyPackage { who }, now);
        Ok(())
    }

    /// What is worked for at the moment.
    pub(super) fn work_views(&self, tx: &Tx) -> Result<Vec<WorkView>, NodeError> {
        let mut views = Vec::new();
        for (who, fetch) in &self.fetches {
            let Some(labour) = &fetch.labour else { continue };
            views.push(WorkView {
                id: who.to_string(),
                name: self.name_of(tx, who)?,
                relay: labour.relay.identity_key.to_string(),
                difficulty: labour.difficulty,
                tried: labour.tried,
                expected: labour.expected(),
            });
        }
        Ok(views)
    }
}
