//! Contacts: trust on first use, and never a second guess in silence.
//!
//! A contact is its identity key. A name never merges or replaces anything: somebody with the
//! same name and another key is somebody else.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::IdentityKey;
use sremp_common::identity::{Identity, Succession, VerifiedIdentity};
use sremp_common::text::ContactLink;
use sremp_common::time::{Now, Timestamp};

use crate::api::{DoubtKind, PathPolicy, Trust};
use crate::store::{StoreError, Table, Tx};

/// Contacts that a node keeps at most.
pub const MAX_CONTACTS: usize = 10_000;

/// The same identity that is refused again is no news before this time is over.
const SAME_DOUBT: Duration = Duration::from_secs(86_400);

/// What is kept about a contact.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contact {
    /// Who.
    pub key: IdentityKey,
    /// The user's own name for them.
    pub alias: Option<String>,
    /// The newest identity that was seen and verified.
    pub identity: Option<Identity>,
    /// What they call themselves: by their identity, or by their link until that is known.
    name: String,
    /// They say that they are a bot.
    is_machine_account: bool,
    /// The user's judgement (specification 3.2). Rejected: no session, no row, no receipt.
    pub trust: Trust,
    /// The safety number was compared.
    pub verified: bool,
    /// When the contact was made.
    pub first_seen: Timestamp,
    /// When something from them last arrived.
    pub last_seen: Option<Timestamp>,
    /// Which paths may be used; nil for the node's own policy.
    pub path: Option<PathPolicy>,
    /// May keep a mailbox at this node.
    pub relay_allowed: bool,
    /// The last identity of theirs that was refused.
    #[serde(default)]
    pub doubt: Option<Doubt>,
}

/// An identity that was refused although its signature is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// An older version, or a second form of the one that is known.
    pub kind: DoubtKind,
    /// Its version.
    pub version: u64,
    /// When it was shown.
    pub at: Timestamp,
}

impl Contact {
    /// A contact about whom nothing but the key is known.
    #[must_use]
    pub const fn new(key: IdentityKey, now: Now) -> Self {
        Self {
            key,
            alias: None,
            identity: None,
            name: String::new(),
            is_machine_account: false,
            trust: Trust::Unknown,
            verified: false,
            first_seen: now.wall,
            last_seen: None,
            path: None,
            relay_allowed: false,
            doubt: None,
        }
    }

    /// The identity, parsed. It was verified before it was stored.
    #[must_use]
    pub fn verified_identity(&self) -> Option<VerifiedIdentity> {
        self.identity.as_ref().and_then(|identity| identity.verify().ok())
    }

    /// What they call themselves, as far as known; else nothing.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether they say of themselves that they are a bot.
    #[must_use]
    pub const fn is_machine_account(&self) -> bool {
        self.is_machine_account
    }

    /// Takes a newer identity of this contact; anything else leaves what is known.
    pub fn learn(&mut self, identity: &VerifiedIdentity) -> Succession {
        let succession =
            self.verified_identity().map_or(Succession::Newer, |known| known.compare(identity));
        if succession == Succession::Newer {
            self.identity = Some(identity.identity().clone());
            self.name = identity.data().username.to_string();
            self.is_machine_account = identity.data().flags.is_machine_account;
        }
        succession
    }

    /// Notes that an identity was refused. Answers whether that is news: the same is told once a day.
    pub fn doubt(&mut self, kind: DoubtKind, version: u64, now: Now) -> bool {
        let known = self.doubt.filter(|known| known.kind == kind && known.version == version);
        if known.is_some_and(|known| now.wall.since(known.at) < SAME_DOUBT) {
            return false;
        }
        self.doubt = Some(Doubt { kind, version, at: now.wall });
        true
    }

    /// Takes over what a link says where nothing better is known.
    pub fn learn_link(&mut self, link: &ContactLink) {
        if self.identity.is_none() {
            self.name = link.name.to_string();
        }
    }
}

/// The contacts table.
#[derive(Debug)]
pub struct Contacts;

impl Contacts {
    /// One contact.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn find(tx: &Tx, key: &IdentityKey) -> Result<Option<Contact>, StoreError> {
        tx.read(Table::Contacts, key.as_bytes())
    }

    /// Whether somebody is a contact with whom nothing is to be exchanged.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn is_rejected(tx: &Tx, key: &IdentityKey) -> Result<bool, StoreError> {
        Ok(Self::find(tx, key)?.is_some_and(|contact| contact.trust == Trust::Rejected))
    }

    /// Writes a contact.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn save(tx: &Tx, contact: &Contact) -> Result<(), StoreError> {
        tx.write(Table::Contacts, contact.key.as_bytes(), contact)
    }

    /// Forgets a contact; what was written with them stays in the history.
    pub fn remove(tx: &Tx, key: &IdentityKey) {
        tx.delete(Table::Contacts, key.as_bytes());
    }

    /// All contacts, by id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all(tx: &Tx) -> Result<Vec<Contact>, StoreError> {
        tx.scan(Table::Contacts, &[], None, MAX_CONTACTS)?
            .into_iter()
            .map(|(_, value)| crate::store::decode_row(Table::Contacts, &value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::identity::{Flags, IdentityData};
    use sremp_common::key::{IdentitySecret, NoiseSecret};
    use sremp_common::name::Username;

    use super::*;

    #[test]
    fn c02_an_older_or_a_second_identity_is_never_taken() {
        let mut entropy = Entropy::from_number(2);
        let secret = IdentitySecret::generate(&mut entropy);
        let now = Now::default();
        let data = IdentityData {
            username: Username::new("ann").unwrap(),
            identity_key: secret.public(),
            noise_key: NoiseSecret::generate(&mut entropy).public(),
            flags: Flags::default(),
            extensions: None,
            version: 5,
            created: now.wall,
        };
        let rename = |name: &str, version| IdentityData {
            username: Username::new(name).unwrap(),
            version,
            ..data.clone()
        };
        let five = data.clone().sign(&secret).unwrap();
        let mut contact = Contact::new(secret.public(), now);
        assert_eq!(contact.learn(&five), Succession::Newer);
        for (name, version, verdict) in [
            ("ann", 5, Succession::Same),
            ("mallory", 5, Succession::Equivocation),
            ("mallory", 4, Succession::Rollback),
        ] {
            let other = rename(name, version).sign(&secret).unwrap();
            assert_eq!(contact.learn(&other), verdict);
            assert_eq!(contact.name(), "ann");
        }
        assert_eq!(contact.learn(&rename("anne", 6).sign(&secret).unwrap()), Succession::Newer);
        assert_eq!(contact.name(), "anne");
    }
}
