//! What an operator decides about mailboxes: quotas, and who may have one.

use std::collections::BTreeSet;

use sremp_common::id::IdentityKey;
use sremp_common::limit::{MAX_BLOB, MAX_BLOB_STRANGER};
use sremp_common::wire::RelayLimits;

use crate::store::Mailbox;

/// Messages are kept at least this long, whatever their owner wishes.
const MIN_RETENTION: u32 = 3600;

/// Who may open a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// Whoever proves an identity: a relay server.
    Everyone,
    /// These identities: a node that holds mailboxes for contacts.
    Only(BTreeSet<IdentityKey>),
}

impl Registration {
    /// Whether this identity may open a mailbox.
    #[must_use]
    pub fn allows(&self, key: &IdentityKey) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(keys) => keys.contains(key),
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
            registration: Registration::Everyone,
            max_mailboxes: 100_000,
            max_total_bytes: 64 * 1024 * 1024 * 1024,
            max_window: 1024 * 1024,
            stranger_share: 10,
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
        let limits = self.limits_of(mailbox);
        let share = u64::from(self.stranger_share.min(100));
        let of = |whole: u64| whole.saturating_mul(share) / 100;
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
