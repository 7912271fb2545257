//! Invitations on their way: sealed to each who is invited, and what is the same for all of them kept
//! once by each relay.
//!
//! ```text
//!   few, or strangers:   seal(identity, whole Welcome)                            one blob for each
//!   many who know us:    seal(identity, own part of the Welcome, key)             a small one for each
//!                        wrap(key, encrypted GroupInfo with the ratchet tree)     one for all of them
//! ```
//! The parts may come in any order; the one that comes first waits among the blobs that cannot be read
//! yet. A stranger's blobs are bounded and do not wait, so whoever may not know us gets a whole one.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sremp_common::id::{BlobId, GroupId, IdentityKey, Token};
use sremp_common::identity::Identity;
use sremp_common::limit::MAX_BLOB_STRANGER;
use sremp_common::time::Now;
use sremp_common::wire::{Bin, decode, encode};

use super::receive::{SEALED_WELCOME, welcome_bytes};
use super::{Node, NodeError};
use crate::api::ApiError;
use crate::conversations::Unheard;
use crate::delivery::{Inbox, Parcel, Purpose, Verdict};
use crate::groups::{Changed, MAX_TREE, Welcomes};
use crate::identity::{Reach, TokenSource};
use crate::store::Tx;

/// Kind of a sealed blob that is one member's part of a Welcome.
pub(super) const SEALED_PART: u8 = 2;
/// A Welcome for one member without its GroupInfo, also of a post-quantum suite.
const MAX_PART: usize = 16 * 1024;
/// Bytes that those who are invited together may have in common, times their number, for that to be
/// kept for each of them.
const MAX_KEPT_SHARED: usize = 512 * 1024;
/// Below this many bytes in common, sharing them is not worth a blob.
const MIN_SHARED: usize = 4096;

/// What is sealed to somebody who is invited together with others.
#[derive(Serialize, Deserialize)]
struct PartBody {
    identity: Identity,
    part: Bin<MAX_PART>,
    key: ByteArray<32>,
}

impl Node {
    /// Invites whom a commit added; `after` is the number of its blob, if anybody waits for it.
    pub(super) fn send_welcomes(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        changed: &Changed,
        after: Option<u64>,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(welcomes) = changed.welcomes() else { return Ok(()) };
        let mut sharing = BTreeSet::new();
        for (who, _) in &changed.joined {
            if self.knows_us(tx, group, who)? {
                sharing.insert(*who);
            }
        }
        if sharing.len() < 2 || welcomes.shared.len() < MIN_SHARED {
            sharing.clear();
        }
        let identity = self.own.identity().identity().clone();
        let purpose = Purpose::Welcome(*group, after);
        let key: [u8; 32] = self.entropy.array();
        let shared = if sharing.is_empty() {
            Vec::new()
        } else {
            self.groups.wrap_shared(&key, &welcomes.shared)?
        };
        // What is the same for many is not kept for each of them when it is long.
        let is_kept_for_all = sharing.len().saturating_mul(shared.len()) <= MAX_KEPT_SHARED;
        for (place, (who, leaf)) in changed.joined.iter().enumerate() {
            let too_large = || ApiError::refused("the group is too large for an invitation");
            let shares = sharing.contains(who);
            let sealed = if shares {
                let part = welcomes.parts.get(place).cloned().unwrap_or_default();
                let part = Bin::new(part).map_err(|_| too_large())?;
                let body = PartBody { identity: identity.clone(), part, key: ByteArray::new(key) };
                self.groups.seal(&leaf.seal_key, SEALED_PART, &encode(&body))?
            } else {
                let whole = welcomes.whole(place).ok_or_else(too_large)?;
                let body = welcome_bytes(&identity, whole).ok_or_else(too_large)?;
                self.groups.seal(&leaf.seal_key, SEALED_WELCOME, &body)?
            };
            if shares && is_kept_for_all {
                Unheard::keep_welcome(tx, group, who, &[&sealed, &shared])?;
            } else if !shares {
                Unheard::keep_welcome(tx, group, who, &[&sealed])?;
            }
            self.post(tx, *group, sealed, &[*who], &purpose, now)?;
        }
        if !sharing.is_empty() {
            let sharing: Vec<_> = sharing.into_iter().collect();
            self.post(tx, *group, shared, &sharing, &purpose, now)?;
        }
        self.watch_group(tx, group, now)
    }

    /// Sends an invitation once more, as it was, to somebody who was never heard: a relay may have lost
    /// it. Whoever has it already knows it by its name. Answers whether there is one.
    pub(super) fn send_welcome_again(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        now: Now,
    ) -> Result<bool, NodeError> {
        let blobs = Unheard::kept_welcome(tx, group, who)?;
        let any = !blobs.is_empty();
        if any {
            tracing::debug!("an invitation is sent again");
        }
        for blob in blobs {
            self.post(tx, *group, blob, &[*who], &Purpose::Note, now)?;
        }
        Ok(any)
    }

    /// Whether somebody was heard in another group that they share with us, a chat of two for example:
    /// then we are no stranger to them, nor to their mailboxes.
    fn knows_us(&mut self, tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<bool, NodeError> {
        Ok(!self.proven_tokens(tx, group, who, &Reach::of(tx, who)?)?.is_empty())
    }

    /// By which token an invitation is let in that is too long for strangers: its own leaf is one's until
    /// it was read, so it takes that of another group; the oldest, when the newest was refused.
    pub(super) fn token_for_long(
        &mut self,
        tx: &Tx,
        parcel: &Parcel,
        who: &IdentityKey,
        reach: &Reach,
        has_failed: bool,
    ) -> Result<Option<Token>, NodeError> {
        let is_invitation = matches!(parcel.purpose, Purpose::Welcome(..));
        if !is_invitation || parcel.length <= MAX_BLOB_STRANGER {
            return Ok(None);
        }
        let tokens = self.proven_tokens(tx, &parcel.group, who, reach)?;
        let chosen = if has_failed { tokens.last() } else { tokens.first() };
        Ok(chosen.copied())
    }

    /// The tokens of other groups in which somebody is, and was heard: they use those leaves. The newest
    /// first.
    fn proven_tokens(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        reach: &Reach,
    ) -> Result<Vec<Token>, NodeError> {
        let mut tokens = Vec::new();
        for (source, token) in &reach.tokens {
            if let TokenSource::Group(other) = source
                && other != group
                && !Unheard::contains(tx, other, who)?
                && self.is_in_with_us(tx, other, who)?
            {
                tokens.push(*token);
            }
        }
        Ok(tokens)
    }

    /// One member's part of a Welcome came: what all share is here already, or is waited for.
    pub(super) fn apply_part(
        &mut self,
        tx: &Tx,
        body: &[u8],
        from_stranger: bool,
        now: Now,
    ) -> Result<Verdict, NodeError> {
        let body: PartBody = match decode(body) {
            Ok(body) => body,
            Err(error) => return Ok(Verdict::Invalid(error.to_string())),
        };
        for (id, deferred) in Inbox::deferred(tx)? {
            let Some(shared) = self.groups.unwrap_shared(&body.key, &deferred.bytes) else {
                continue;
            };
            return self.apply_both(tx, &body, &shared, &id, now);
        }
        if from_stranger {
            return Ok(Verdict::NoInvitation);
        }
        self.awaits_shared = true;
        Ok(Verdict::Deferred)
    }

    fn apply_both(
        &mut self,
        tx: &Tx,
        body: &PartBody,
        shared: &[u8],
        shared_id: &BlobId,
        now: Now,
    ) -> Result<Verdict, NodeError> {
        let whole = Welcomes::join(&body.part, shared);
        let Some(welcome) = whole.and_then(|whole| Bin::<MAX_TREE>::new(whole).ok()) else {
            return Ok(Verdict::Invalid("a part of an invitation is malformed".into()));
        };
        let body = super::receive::WelcomeBody { identity: body.identity.clone(), welcome };
        let verdict = self.apply_welcome(tx, &body, now)?;
        if verdict == Verdict::Applied {
            Inbox::record(tx, shared_id, Verdict::Applied, now)?;
        }
        Ok(verdict)
    }
}
