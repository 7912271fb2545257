//! Fellow members of our groups who are no contacts: what they call themselves.
//!
//! Learnt from identities that were verified, wherever they came from. A name is what its holder chose
//! and nothing more: whoever is no contact is always shown with a part of its id. Rows go when nobody
//! shares a group with us any more, or has become a contact.

use serde::{Deserialize, Serialize};
use sremp_common::id::IdentityKey;
use sremp_common::identity::VerifiedIdentity;

use crate::store::{StoreError, Table, Tx};

/// Fellow members that are known by name: ten groups of the largest size.
pub const MAX_FELLOWS: usize = 10_000;

/// What is kept about a fellow member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fellow {
    /// What they call themselves.
    pub name: String,
    /// They say that they are a bot.
    pub is_machine_account: bool,
    /// The version of the identity that said so.
    version: u64,
}

/// The table of fellow members.
#[derive(Debug)]
pub struct Fellows;

impl Fellows {
    /// What is known of somebody.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(tx: &Tx, key: &IdentityKey) -> Result<Option<Fellow>, StoreError> {
        tx.read(Table::Fellows, key.as_bytes())
    }

    /// Takes a newer identity of a fellow member, if there is room. Answers whether it said anything new.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn learn(tx: &Tx, identity: &VerifiedIdentity) -> Result<bool, StoreError> {
        let data = identity.data();
        let known = Self::find(tx, &identity.key())?;
        if known.as_ref().is_some_and(|known| known.version >= data.version) {
            return Ok(false);
        }
        let mut count = tx.read::<usize>(Table::Meta, COUNT)?.unwrap_or(0);
        if known.is_none() {
            if count >= MAX_FELLOWS {
                return Ok(false);
            }
            count = count.saturating_add(1);
            tx.write(Table::Meta, COUNT, &count)?;
        }
        let fellow = Fellow {
            name: data.username.to_string(),
            is_machine_account: data.flags.is_machine_account,
            version: data.version,
        };
        tx.write(Table::Fellows, identity.key().as_bytes(), &fellow)?;
        Ok(true)
    }

    /// Forgets those of whom `is_fellow` says that they are none any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn retain(
        tx: &Tx,
        mut is_fellow: impl FnMut(&IdentityKey) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut count = 0_usize;
        for (key, _) in tx.scan(Table::Fellows, &[], None, MAX_FELLOWS)? {
            let who = <[u8; 32]>::try_from(key.as_slice()).ok();
            let who = who.and_then(|bytes| IdentityKey::from_bytes(bytes).ok());
            if let Some(who) = who
                && is_fellow(&who)?
            {
                count = count.saturating_add(1);
            } else {
                tx.delete(Table::Fellows, &key);
            }
        }
        tx.write(Table::Meta, COUNT, &count)
    }
}

/// How many rows there are.
const COUNT: &[u8] = b"fellows";

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::identity::{Flags, IdentityData};
    use sremp_common::key::{IdentitySecret, NoiseSecret};
    use sremp_common::name::Username;
    use sremp_common::time::Now;

    use super::*;
    use crate::store::Store;

    #[test]
    fn c02_only_newer_identities_are_taken_and_rows_go_with_the_last_group() {
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let mut entropy = Entropy::from_number(3);
        let secret = IdentitySecret::generate(&mut entropy);
        let noise_key = NoiseSecret::generate(&mut entropy).public();
        let identity = |name: &str, version| {
            let data = IdentityData {
                username: Username::new(name).unwrap(),
                identity_key: secret.public(),
                noise_key,
                flags: Flags::default(),
                extensions: None,
                version,
                created: Now::default().wall,
            };
            data.sign(&secret).unwrap()
        };
        for (name, version, shown) in [
            ("dan", 5, "dan"),
            ("mallory", 5, "dan"),
            ("mallory", 4, "dan"),
            ("daniel", 6, "daniel"),
        ] {
            Fellows::learn(&tx, &identity(name, version)).unwrap();
            assert_eq!(Fellows::find(&tx, &secret.public()).unwrap().unwrap().name, shown);
        }
        Fellows::retain(&tx, |_| Ok(true)).unwrap();
        assert!(Fellows::find(&tx, &secret.public()).unwrap().is_some());
        Fellows::retain(&tx, |_| Ok(false)).unwrap();
        assert_eq!(Fellows::find(&tx, &secret.public()).unwrap(), None);
    }

    #[test]
    fn there_is_a_bound_and_whoever_is_known_is_learnt_beyond_it() {
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let mut entropy = Entropy::from_number(4);
        let mut identity = |name: &str| {
            let secret = IdentitySecret::generate(&mut entropy);
            let data = IdentityData {
                username: Username::new(name).unwrap(),
                identity_key: secret.public(),
                noise_key: NoiseSecret::generate(&mut entropy).public(),
                flags: Flags::default(),
                extensions: None,
                version: 1,
                created: Now::default().wall,
            };
            data.sign(&secret).unwrap()
        };
        let known = identity("known");
        assert!(Fellows::learn(&tx, &known).unwrap());
        tx.write(Table::Meta, COUNT, &MAX_FELLOWS).unwrap();
        assert!(!Fellows::learn(&tx, &identity("one too many")).unwrap());
        // Counted anew.
        Fellows::retain(&tx, |_| Ok(true)).unwrap();
        assert!(Fellows::learn(&tx, &identity("has room")).unwrap());
    }
}
