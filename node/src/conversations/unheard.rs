//! Members who were added to a group while we were in it and of whom nothing has come since: they may
//! never have joined.
//!
//! An invitation can be declined, or lie unanswered until it is gone; whoever sent it is not told. So
//! a member counts as one who reads only after something of theirs came in the group. A row stands
//! from the commit that adds somebody until then; it outlives their removal, because they may be added
//! anew.

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey};

use crate::store::{StoreError, Table, Tx};

/// How it stands with somebody who was never heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Row {
    /// Added.
    Added,
    /// Taken out by us, to be added anew.
    Again,
    /// Taken out, perhaps to be added anew.
    Gone,
}

/// The table of members who were never heard.
#[derive(Debug)]
pub struct Unheard;

impl Unheard {
    /// Somebody was added. Answers whether they had been a member before who was never heard.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn added(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<bool, StoreError> {
        let before = tx.read::<Row>(Table::Unheard, &key(group, who))?;
        tx.write(Table::Unheard, &key(group, who), &Row::Added)?;
        Ok(matches!(before, Some(Row::Again | Row::Gone)))
    }

    /// Somebody was taken out. Who was never heard may come again, and lack what was said meanwhile.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn removed(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<(), StoreError> {
        match tx.read::<Row>(Table::Unheard, &key(group, who))? {
            Some(Row::Added) => tx.write(Table::Unheard, &key(group, who), &Row::Gone),
            Some(Row::Again | Row::Gone) | None => Ok(()),
        }
    }

    /// Somebody is taken out, to be added anew.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn add_again(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<(), StoreError> {
        tx.write(Table::Unheard, &key(group, who), &Row::Again)
    }

    /// Whether somebody is to be added anew.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_added_again(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<bool, StoreError> {
        Ok(tx.read::<Row>(Table::Unheard, &key(group, who))? == Some(Row::Again))
    }

    /// Whether a member was never heard.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn contains(tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<bool, StoreError> {
        Ok(tx.get(Table::Unheard, &key(group, who))?.is_some())
    }

    /// Somebody was heard, or will not come.
    pub fn remove(tx: &Tx, group: &GroupId, who: &IdentityKey) {
        tx.delete(Table::Unheard, &key(group, who));
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

    #[test]
    fn who_was_added_is_unheard_until_heard_and_being_added_anew_is_not_forgotten_on_the_way() {
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let who = IdentitySecret::generate(&mut Entropy::from_number(1)).public();
        let (one, two) = (GroupId::new([1; 16]), GroupId::new([2; 16]));
        assert!(!Unheard::contains(&tx, &one, &who).unwrap(), "whoever was there before");
        assert!(!Unheard::added(&tx, &one, &who).unwrap());
        assert!(Unheard::contains(&tx, &one, &who).unwrap());
        assert!(!Unheard::contains(&tx, &two, &who).unwrap());
        Unheard::add_again(&tx, &one, &who).unwrap();
        assert!(Unheard::added(&tx, &one, &who).unwrap());
        assert!(!Unheard::added(&tx, &one, &who).unwrap(), "once");
        Unheard::removed(&tx, &one, &who).unwrap();
        assert!(!Unheard::is_added_again(&tx, &one, &who).unwrap(), "nobody wishes for it");
        assert!(Unheard::added(&tx, &one, &who).unwrap());
        Unheard::remove(&tx, &one, &who);
        assert!(!Unheard::contains(&tx, &one, &who).unwrap());
        Unheard::removed(&tx, &one, &who).unwrap();
        assert!(!Unheard::added(&tx, &one, &who).unwrap(), "whoever was heard has what was said");
    }
}
