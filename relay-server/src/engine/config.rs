//! What an operator decides about mailboxes: quotas, and who may have one.

use std::collections::BTreeSet;

use serde::Serialize;
use sremp_common::id::IdentityKey;
use sremp_common::limit::{MAX_BLOB, MAX_BLOB_STRANGER};
use sremp_common::wire::RelayLimits;

use crate::store::Mailbox;

/// Messages are kept at least this long, whatever their owner wishes.
const MIN_RETENTION: u32 = 3600;

/// Who may open a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Whoever proves an identity: an open relay.
    Everyone,
    /// Whoever shows an invitation; those who have a mailbox keep it.
    Invited,
    /// These identities: a node that holds mailboxes for contacts.
    Only(BTreeSet<IdentityKey>),
    /// Nobody new; those who have a mailbox keep it.
    Nobody,
}

impl Registration {
    /// Whether this identity may have a mailbox, if nothing but its name were asked.
    #[must_use]
    pub fn allows(&self, key: &IdentityKey) -> bool {
        match self {
            Self::Everyone | Self::Invited | Self::Nobody => true,
            Self::Only(keys) => keys.contains(key),
        }
    }
}

/// How much room there is below the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Room {
    /// Enough.
    #[default]
    Plenty,
    /// No new mailboxes.
    NoNewOwners,
    /// No new messages and key packages either. What is there can be read and deleted.
    NoNewMessages,
}

/// How often something may be asked; 0 for as often as anybody likes. A network is an IPv4 address
/// or an IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Mailboxes that one network may open in an hour.
    pub new_mailboxes_per_hour: u32,
    /// Blobs that one network may store in a minute, each counted for each recipient.
    pub stores_per_minute: u32,
    /// Key packages that one network may ask for in a minute.
    pub key_packages_per_minute: u32,
    /// Times in a minute that one owner may register, set its tokens, publish key packages or
    /// begin to read.
    pub changes_per_minute: u32,
}

impl Default for RateLimits {
    /// Only owners are bounded: right where everybody is known.
    fn default() -> Self {
        Self {
            new_mailboxes_per_hour: 0,
            stores_per_minute: 0,
            key_packages_per_minute: 0,
            changes_per_minute: 60,
        }
    }
}

/// Quotas and policy. Every number is a bound that somebody could otherwise exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Quotas of each mailbox.
    pub limits: RelayLimits,
    /// Leading zero bits of a proof of work; 0 accepts none.
    pub pow_difficulty: u8,
    /// Proofs in a minute beyond which they become dearer; 0 for a fixed price.
    pub pow_per_minute: u32,
    /// Who may open a mailbox.
    pub registration: Registration,
    /// Mailboxes in all.
    pub max_mailboxes: u64,
    /// Bytes of blobs in all mailboxes.
    pub max_total_bytes: u64,
    /// Bytes that may be under way to one reader.
    pub max_window: u32,
    /// Percentage of a mailbox that blobs of strangers may fill.
    pub stranger_share: u8,
    /// Percentage of a mailbox that one token may fill in a day, once the mailbox is half full; 100
    /// for no bound.
    pub sender_share: u8,
    /// How often something may be asked.
    pub rates: RateLimits,
}

impl Default for EngineConfig {
    /// 10,000 messages or 64 MiB a mailbox for 30 days, a tenth of it for strangers.
    fn default() -> Self {
        Self {
            limits: RelayLimits {
                max_blob: u32::try_from(MAX_BLOB).unwrap_or(u32::MAX),
                max_messages: 10_000,
                max_bytes: 64 * 1024 * 1024,
                retention: 30 * 24 * 3600,
            },
            pow_difficulty: 0,
            pow_per_minute: 60,
            registration: Registration::Everyone,
            max_mailboxes: 100_000,
            max_total_bytes: 64 * 1024 * 1024 * 1024,
            max_window: 1024 * 1024,
            stranger_share: 10,
            sender_share: 25,
            rates: RateLimits::default(),
        }
    }
}

impl EngineConfig {
    /// The limits of one mailbox: the lower of the keeper's and the owner's.
    #[must_use]
    pub fn limits_of(&self, mailbox: &Mailbox) -> RelayLimits {
        RelayLimits {
            max_blob: self.limits.max_blob.min(mailbox.max_blob),
            retention: self.limits.retention.min(mailbox.retention.max(MIN_RETENTION)),
            ..self.limits
        }
    }

    /// What strangers may fill of one mailbox. One of their largest blobs always has a place.
    #[must_use]
    pub(super) fn limits_of_strangers(&self, mailbox: &Mailbox) -> RelayLimits {
        self.share_for_strangers(mailbox, u64::from(self.stranger_share.min(100)), 100)
    }

    /// What strangers may have filled when somebody who has nothing but work comes: half of their
    /// share, so that whoever has a link still finds the other half.
    #[must_use]
    pub(super) fn limits_of_work(&self, mailbox: &Mailbox) -> RelayLimits {
        self.share_for_strangers(mailbox, u64::from(self.stranger_share.min(100)), 200)
    }

    fn share_for_strangers(&self, mailbox: &Mailbox, share: u64, of: u64) -> RelayLimits {
        let limits = self.limits_of(mailbox);
        let of = |whole: u64| whole.saturating_mul(share).checked_div(of).unwrap_or(0);
        let largest = u32::try_from(MAX_BLOB_STRANGER).unwrap_or(u32::MAX);
        let messages = of(limits.max_messages.into()).max(1);
        RelayLimits {
            max_blob: limits.max_blob.min(largest),
            max_messages: u32::try_from(messages).unwrap_or(u32::MAX),
            max_bytes: of(limits.max_bytes).max(largest.into()).min(limits.max_bytes),
            ..limits
        }
    }
}
