//! Members who were added to a group while we were in it and of whom nothing has come since: they may
//! never have joined.
//!
//! An invitation can be declined, or lie unanswered until it is gone; whoever sent it is not told. So
//! a member counts as one who reads only after something of theirs came in the group. A row stands
//! from the commit that adds somebody until then; it outlives their removal, because they may be added
//! anew.
//!
//! Whoever invited them keeps the invitation as long: a relay may have lost what it acknowledged, and
//! nobody else can send it once more.

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};
use sremp_common::id::{GroupId, IdentityKey};

use crate::store::{StoreError, Table, Tx, decode_row};

/// How it stands with somebody who was never heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Row {
    /// Added, in this epoch, by somebody: what was written in an earlier one does not show that they
    /// are back.
    Added(u64, IdentityKey),
    /// The same, and our invitation could not be delivered: but may be once they were heard in a chat.
    Undelivered(u64, IdentityKey),
    /// Taken out by us, to be added anew.
    Again,
    /// Taken out, perhaps to be added anew.
    Gone,
}

/// Bytes of an invitation that are kept; a longer one is not sent again by itself.
pub const MAX_KEPT_WELCOME: usize = 64 * 1024;
/// Invitations that are kept.
const MAX_KEPT: usize = 256;
/// How many are.
const ROW_KEPT: &[u8] = b"kept-welcomes";

/// The table of members who were never heard.
#[derive(Debug)]
pub struct Unheard;

impl Unheard {
    /// Somebody was added, in this epoch, `by` another member. Answers whether they had been a member
    /// before who was never heard.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn added(
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        (epoch, by): (u64, IdentityKey),
    ) -> Result<bool, StoreError> {
        let before = tx.read::<Row>(Table::Unheard, &key(group, who))?;
        tx.write(Table::Unheard, &key(group, who), &Row::Added(epoch, by))?;
        Ok(matches!(before, Some(Row::Again | Row::Gone)))
    }

    /// Somebody was taken out. Who was never heard may come again, and lack what was said meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn removed(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<(), StoreError> {
        Self::forget_welcome(tx, group, who)?;
        match tx.read::<Row>(Table::Unheard, &key(group, who))? {
            Some(Row::Added(..) | Row::Undelivered(..)) => {
                tx.write(Table::Unheard, &key(group, who), &Row::Gone)
            }
            Some(Row::Again | Row::Gone) | None => Ok(()),
        }
    }

    /// Somebody is taken out, to be added anew.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_again(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<(), StoreError> {
        Self::forget_welcome(tx, group, who)?;
        tx.write(Table::Unheard, &key(group, who), &Row::Again)
    }

    /// Whether somebody is to be added anew.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_added_again(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<bool, StoreError> {
        Ok(tx.read::<Row>(Table::Unheard, &key(group, who))? == Some(Row::Again))
    }

    /// Something came that somebody made in this epoch. Answers whether it is the first since they were
    /// added.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn hear(
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        epoch: u64,
    ) -> Result<bool, StoreError> {
        let is_first = match tx.read::<Row>(Table::Unheard, &key(group, who))? {
            Some(Row::Added(since, _) | Row::Undelivered(since, _)) => epoch >= since,
            Some(Row::Again | Row::Gone) | None => false,
        };
        if is_first {
            Self::remove(tx, group, who)?;
        }
        Ok(is_first)
    }

    /// Members of a group who were never heard, and who added each.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn added_by(
        tx: &Tx,
        group: &GroupId,
    ) -> Result<Vec<(IdentityKey, IdentityKey)>, StoreError> {
        let mut all = Vec::new();
        for (key, value) in tx.scan_prefix(Table::Unheard, group.as_bytes(), usize::MAX)? {
            let who = key.last_chunk::<32>().and_then(|who| IdentityKey::from_bytes(*who).ok());
            let row = decode_row(Table::Unheard, &value)?;
            if let (Some(who), Row::Added(_, by) | Row::Undelivered(_, by)) = (who, row) {
                all.push((who, by));
            }
        }
        Ok(all)
    }

    /// Our invitation of somebody could not be delivered. Answers whether that is news: they were not
    /// heard, and not taken out.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn undelivered(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<bool, StoreError> {
        let Some(Row::Added(epoch, by)) = tx.read(Table::Unheard, &key(group, who))? else {
            return Ok(false);
        };
        tx.write(Table::Unheard, &key(group, who), &Row::Undelivered(epoch, by))?;
        Ok(true)
    }

    /// Whether our invitation of somebody could not be delivered.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_undelivered(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<bool, StoreError> {
        let row = tx.read(Table::Unheard, &key(group, who))?;
        Ok(matches!(row, Some(Row::Undelivered(..))))
    }

    /// Whether a member was never heard.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn contains(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<bool, StoreError> {
        Ok(tx.get(Table::Unheard, &key(group, who))?.is_some())
    }

    /// Keeps the invitation that we sent to somebody, in place of an earlier one: its blobs, as they
    /// left.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keep_welcome(
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        blobs: &[&[u8]],
    ) -> Result<(), StoreError> {
        Self::forget_welcome(tx, group, who)?;
        let length: usize = blobs.iter().map(|blob| blob.len()).sum();
        let kept = Self::kept(tx)?;
        if length > MAX_KEPT_WELCOME || kept >= MAX_KEPT {
            return Ok(());
        }
        tx.write(Table::Meta, ROW_KEPT, &kept.saturating_add(1))?;
        let blobs: Vec<&Bytes> = blobs.iter().copied().map(Bytes::new).collect();
        tx.write(Table::KeptWelcomes, &key(group, who), &blobs)
    }

    fn forget_welcome(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<(), StoreError> {
        let key = key(group, who);
        if tx.get(Table::KeptWelcomes, &key)?.is_none() {
            return Ok(());
        }
        tx.delete(Table::KeptWelcomes, &key);
        tx.write(Table::Meta, ROW_KEPT, &Self::kept(tx)?.saturating_sub(1))
    }

    fn kept(tx: &Tx) -> Result<usize, StoreError> {
        Ok(tx.read(Table::Meta, ROW_KEPT)?.unwrap_or_default())
    }

    /// The blobs of the invitation that we sent to somebody who was never heard, if it is kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn kept_welcome(
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let blobs: Option<Vec<ByteBuf>> = tx.read(Table::KeptWelcomes, &key(group, who))?;
        Ok(blobs.into_iter().flatten().map(ByteBuf::into_vec).collect())
    }

    /// Whose invitations to a group are kept.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn with_welcome(tx: &Tx, group: &GroupId) -> Result<Vec<IdentityKey>, StoreError> {
        let rows = tx.scan_prefix(Table::KeptWelcomes, group.as_bytes(), MAX_KEPT)?;
        let owner = |(key, _): (Vec<u8>, Vec<u8>)| {
            let who = key.last_chunk::<32>().copied()?;
            IdentityKey::from_bytes(who).ok()
        };
        Ok(rows.into_iter().filter_map(owner).collect())
    }

    /// Somebody was heard, or will not come.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn remove(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<(), StoreError> {
        Self::forget_welcome(tx, group, who)?;
        tx.delete(Table::Unheard, &key(group, who));
        Ok(())
    }
}

fn key(group: &GroupId, who: &IdentityKey) -> Vec<u8> {
    [group.as_bytes().as_slice(), who.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;

    use super::*;
    use crate::store::Store;

    /// Who adds.
    fn by() -> IdentityKey {
        IdentitySecret::generate(&mut Entropy::from_number(2)).public()
    }

    #[test]
    fn an_invitation_is_kept_until_its_member_is_heard_or_taken_out() {
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let mut entropy = Entropy::from_number(1);
        let group = GroupId::new([1; 16]);
        let mut somebody = || IdentitySecret::generate(&mut entropy).public();
        let (one, two) = (somebody(), somebody());
        for who in [&one, &two] {
            Unheard::added(&tx, &group, who, (7, by())).unwrap();
            Unheard::keep_welcome(&tx, &group, who, &[&[1], &[2, 3]]).unwrap();
        }
        assert_eq!(Unheard::kept_welcome(&tx, &group, &one).unwrap(), [vec![1], vec![2, 3]]);
        Unheard::keep_welcome(&tx, &group, &one, &[&[4]]).unwrap();
        assert_eq!(Unheard::kept_welcome(&tx, &group, &one).unwrap(), [vec![4]], "the newer");
        assert_eq!(Unheard::with_welcome(&tx, &group).unwrap().len(), 2);
        for other in [0, 2] {
            assert!(Unheard::with_welcome(&tx, &GroupId::new([other; 16])).unwrap().is_empty());
        }
        assert_eq!(Unheard::kept(&tx).unwrap(), 2);
        Unheard::remove(&tx, &group, &one).unwrap();
        Unheard::removed(&tx, &group, &two).unwrap();
        assert!(Unheard::with_welcome(&tx, &group).unwrap().is_empty());
        assert_eq!(Unheard::kept(&tx).unwrap(), 0);
        let long = vec![0; MAX_KEPT_WELCOME + 1];
        Unheard::keep_welcome(&tx, &group, &one, &[&long]).unwrap();
        assert!(Unheard::kept_welcome(&tx, &group, &one).unwrap().is_empty());
    }

    #[test]
    fn who_was_added_is_unheard_until_heard_and_being_added_anew_is_not_forgotten_on_the_way() {
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let who = IdentitySecret::generate(&mut Entropy::from_number(1)).public();
        let (one, two) = (GroupId::new([1; 16]), GroupId::new([2; 16]));
        assert!(!Unheard::contains(&tx, &one, &who).unwrap(), "whoever was there before");
        assert!(!Unheard::added(&tx, &one, &who, (7, by())).unwrap());
        assert!(Unheard::contains(&tx, &one, &who).unwrap());
        assert!(!Unheard::contains(&tx, &two, &who).unwrap());
        Unheard::add_again(&tx, &one, &who).unwrap();
        assert!(Unheard::added(&tx, &one, &who, (7, by())).unwrap());
        assert!(!Unheard::added(&tx, &one, &who, (7, by())).unwrap(), "once");
        Unheard::removed(&tx, &one, &who).unwrap();
        assert!(!Unheard::is_added_again(&tx, &one, &who).unwrap(), "nobody wishes for it");
        assert!(Unheard::added(&tx, &one, &who, (7, by())).unwrap());
        Unheard::remove(&tx, &one, &who).unwrap();
        assert!(!Unheard::contains(&tx, &one, &who).unwrap());
        Unheard::removed(&tx, &one, &who).unwrap();
        assert!(
            !Unheard::added(&tx, &one, &who, (7, by())).unwrap(),
            "whoever was heard has what was said"
        );
    }

    #[test]
    fn what_somebody_wrote_before_being_taken_out_does_not_show_that_they_are_back() {
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let who = IdentitySecret::generate(&mut Entropy::from_number(1)).public();
        let group = GroupId::new([1; 16]);
        assert!(!Unheard::hear(&tx, &group, &who, 3).unwrap(), "there from the beginning");
        Unheard::added(&tx, &group, &who, (7, by())).unwrap();
        Unheard::keep_welcome(&tx, &group, &who, &[&[1]]).unwrap();
        assert!(!Unheard::hear(&tx, &group, &who, 6).unwrap());
        assert_eq!(Unheard::kept_welcome(&tx, &group, &who).unwrap(), [vec![1]]);
        assert!(Unheard::hear(&tx, &group, &who, 7).unwrap());
        assert!(!Unheard::contains(&tx, &group, &who).unwrap());
        assert!(Unheard::kept_welcome(&tx, &group, &who).unwrap().is_empty());
        assert!(!Unheard::hear(&tx, &group, &who, 8).unwrap(), "once");
        Unheard::added(&tx, &group, &who, (9, by())).unwrap();
        Unheard::add_again(&tx, &group, &who).unwrap();
        assert!(!Unheard::hear(&tx, &group, &who, 9).unwrap(), "while they are out");
        assert!(Unheard::is_added_again(&tx, &group, &who).unwrap());
    }
}
