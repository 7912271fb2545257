//! Encrypting content, and receipts.

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey, MessageId, SignatureBytes};
use sremp_common::label::SignatureLabel;
use sremp_common::limit::MAX_RECEIPT_IDS;
use sremp_common::signed;
use sremp_common::time::{Now, Timestamp};
use sremp_common::wire::{Bin, List, decode, encode};

use super::index::Entry;
use super::states::Loaded;
use super::wrap::{Blob, WrapKeys};
use super::{
    GroupError, Groups, LeafInfo, MAX_CONTENT, OpenError, Opened, ReceiptBody, ReceiptKind, Sealed,
    StateId,
};
use crate::store::Tx;

/// An MLS private message is inside the wrap.
pub(super) const KIND_MLS: u8 = 1;

/// A receipt is inside the wrap.
pub(super) const KIND_RECEIPT: u8 = 2;

/// What the new members of a group have in common is inside the wrap: the GroupInfo of their Welcomes.
const KIND_SHARED: u8 = 3;
/// The commit of a member that comes back from outside is inside the wrap.
pub(super) const KIND_REJOIN: u8 = 4;

/// What MLS adds to content, generously.
const MLS_OVERHEAD: usize = 1024;

/// A receipt with the most ids.
const MAX_RECEIPT: usize = 128 + MAX_RECEIPT_IDS * 18;

/// What a leaf key signs under the label `delivery`, with `ctx = [group id, epoch]`.
#[derive(Serialize, Deserialize)]
struct Receipt {
    author: IdentityKey,
    ids: List<MessageId, MAX_RECEIPT_IDS>,
    kind: u8,
    time: Timestamp,
}

/// A receipt as it travels inside the wrap.
#[derive(Serialize, Deserialize)]
struct SignedReceipt {
    from: IdentityKey,
    body: Bin<MAX_RECEIPT>,
    signature: SignatureBytes,
}

fn context(group: &GroupId, epoch: u64) -> Vec<u8> {
    encode(&(group, epoch))
}

impl Groups {
    /// Wraps what the new members of a group have in common under a key that each of them gets.
    ///
    /// # Errors
    /// [`GroupError::TooLong`].
    pub fn wrap_shared(&self, key: &[u8; 32], bytes: &[u8]) -> Result<Vec<u8>, GroupError> {
        let keys = WrapKeys::derive(key);
        keys.wrap(self.engine.random(), KIND_SHARED, bytes).ok_or(GroupError::TooLong(MAX_CONTENT))
    }

    /// What [`Self::wrap_shared`] made under this key; none for any other bytes.
    #[must_use]
    pub fn unwrap_shared(&self, key: &[u8; 32], blob: &[u8]) -> Option<Vec<u8>> {
        let (keys, blob) = (WrapKeys::derive(key), Blob::parse(blob)?);
        let (kind, bytes) = keys.matches(&blob).then(|| keys.unwrap(&blob))??;
        (kind == KIND_SHARED).then_some(bytes)
    }

    /// Encrypts content for all other members, in the tip's state.
    ///
    /// # Errors
    /// [`GroupError::TooLong`], [`GroupError::NotMember`], [`GroupError::Leaving`],
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`], [`GroupError::Mls`].
    pub fn encrypt(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        content: &[u8],
        _now: Now,
    ) -> Result<Sealed, GroupError> {
        if content.len() > MAX_CONTENT - MLS_OVERHEAD {
            return Err(GroupError::TooLong(MAX_CONTENT - MLS_OVERHEAD));
        }
        let tip = self.acting_tip(tx, group)?;
        let mut loaded = self.take(tx, group, tip)?;
        let provider = self.engine.provider(tx, tip);
        let message = loaded
            .mls
            .create_message(&provider, &self.signer, content)
            .map_err(|_| GroupError::Mls("encryption"))?
            .to_bytes()
            .map_err(|_| GroupError::Mls("message encoding"))?;
        let sealed = self.seal_for_members(&loaded, tip, KIND_MLS, &message)?;
        self.put_changed(tip, loaded);
        Ok(sealed)
    }

    /// Wraps bytes for all other members of a state.
    pub(super) fn seal_for_members(
        &self,
        loaded: &Loaded,
        state: StateId,
        kind: u8,
        bytes: &[u8],
    ) -> Result<Sealed, GroupError> {
        let keys = loaded.keys.ok_or(GroupError::NotMember)?;
        let blob = keys.wrap(self.engine.random(), kind, bytes);
        Ok(Sealed {
            blob: blob.ok_or(GroupError::TooLong(MAX_CONTENT))?,
            recipients: std::sync::Arc::clone(&loaded.view.others),
            state,
            epoch: loaded.mls.epoch().as_u64(),
        })
    }

    /// Makes a receipt, wrapped under the state in which the messages were opened, for their author alone;
    /// and how the author is reached.
    ///
    /// # Errors
    /// [`GroupError::StateGone`] when that state is not kept any more, [`GroupError::NotMemberThen`] when the
    /// author or we ourselves are no members in it, [`GroupError::Store`].
    pub fn receipt(
        &mut self,
        tx: &Tx,
        receipt: &ReceiptBody,
        _now: Now,
    ) -> Result<(Vec<u8>, LeafInfo), GroupError> {
        let loaded = self.take(tx, &receipt.group, receipt.state)?;
        let (view, keys) = (std::sync::Arc::clone(&loaded.view), loaded.keys);
        let epoch = loaded.mls.epoch().as_u64();
        self.put(receipt.state, loaded);
        let author = view.member(&receipt.author);
        let author = author.ok_or(GroupError::NotMemberThen(receipt.author))?;
        let keys = keys.filter(|_| view.member(&self.own).is_some());
        let keys = keys.ok_or(GroupError::NotMemberThen(self.own))?;
        let body = encode(&Receipt {
            author: receipt.author,
            ids: receipt.ids.clone(),
            kind: match receipt.kind {
                ReceiptKind::Delivered => 0,
                ReceiptKind::Read => 1,
            },
            time: receipt.time,
        });
        let ctx = context(&receipt.group, epoch);
        let signature = self.signer.sign_labelled(SignatureLabel::Delivery, &ctx, &body);
        let body = Bin::new(body).map_err(|_| GroupError::TooLong(MAX_RECEIPT))?;
        let signed = encode(&SignedReceipt { from: self.own, body, signature });
        let blob = keys.wrap(self.engine.random(), KIND_RECEIPT, &signed);
        Ok((blob.ok_or(GroupError::TooLong(MAX_CONTENT))?, author.leaf.clone()))
    }

    pub(super) fn open_receipt(
        &mut self,
        tx: &Tx,
        entry: &Entry,
        bytes: &[u8],
    ) -> Result<Opened, OpenError> {
        let group = entry.group;
        let invalid = |why| OpenError::Invalid { group, why };
        let signed: SignedReceipt = decode(bytes).map_err(|_| invalid("malformed receipt"))?;
        let loaded = self.take(tx, &group, entry.state).map_err(|error| fail(group, error))?;
        let (view, epoch) = (std::sync::Arc::clone(&loaded.view), loaded.mls.epoch().as_u64());
        self.put(entry.state, loaded);
        let member =
            view.member(&signed.from).ok_or(invalid("a receipt from somebody who is no member"))?;
        let ctx = context(&group, epoch);
        signed::verify(
            &member.leaf_key,
            SignatureLabel::Delivery,
            &ctx,
            &signed.body,
            &signed.signature,
        )
        .map_err(|_| invalid("the receipt's signature does not hold"))?;
        let receipt: Receipt = decode(&signed.body).map_err(|_| invalid("malformed receipt"))?;
        if receipt.author != self.own {
            return Err(invalid("a receipt for somebody else"));
        }
        let kind = match receipt.kind {
            0 => ReceiptKind::Delivered,
            1 => ReceiptKind::Read,
            _ => return Err(invalid("an unknown kind of receipt")),
        };
        Ok(Opened::Receipt {
            group,
            epoch,
            from: signed.from,
            ids: receipt.ids.into_vec(),
            kind,
            time: receipt.time,
        })
    }
}

/// An error of our own bookkeeping while a blob was opened.
pub(super) fn fail(group: GroupId, error: GroupError) -> OpenError {
    match error {
        GroupError::Store(error) => OpenError::Store(error),
        GroupError::Mls(why) => OpenError::Invalid { group, why },
        GroupError::Credential(source) => OpenError::Credential { group, by: None, source },
        GroupError::NotMember | GroupError::Leaving => OpenError::NotMember(group),
        GroupError::NoSuchGroup
        | GroupError::StateGone
        | GroupError::NothingToCommit
        | GroupError::TooManyRivals
        | GroupError::NotMemberThen(_)
        | GroupError::TooLong(_)
        | GroupError::Policy(_)
        | GroupError::KeyPackage(_)
        | GroupError::Stale
        | GroupError::Offer(_)
        | GroupError::Welcome(_) => {
            OpenError::Invalid { group, why: "the group's record is broken" }
        }
    }
}
