//! How often networks and owners may ask for what costs: counted in memory, forgotten at a restart.

use std::net::IpAddr;
use std::time::Duration;

use sremp_common::id::IdentityKey;
use sremp_common::rate::{Rate, Rates, address_of};
use sremp_common::time::Instant;

use super::RateLimits;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Counted {
    /// A mailbox is opened.
    NewMailbox,
    /// A blob is to be stored, once for each recipient.
    Store,
    /// A key package is asked for.
    KeyPackage,
    /// An owner changes its mailbox, or begins to read it anew.
    Change,
}

/// All counts.
#[derive(Debug, Default)]
pub(super) struct Counts(Rates<Counted>);

impl Counts {
    /// Counts one more for a network.
    ///
    /// # Errors
    /// Seconds to wait, when there were too many.
    pub(super) fn network(
        &mut self,
        limits: &RateLimits,
        what: Counted,
        network: IpAddr,
        now: Instant,
    ) -> Result<(), u32> {
        let (count, per) = match what {
            Counted::NewMailbox => (limits.new_mailboxes_per_hour, HOUR),
            Counted::Store => (limits.stores_per_minute, MINUTE),
            Counted::KeyPackage => (limits.key_packages_per_minute, MINUTE),
            Counted::Change => (limits.changes_per_minute, MINUTE),
        };
        if count == 0 {
            return Ok(());
        }
        self.0.take(what, network, Rate { count, per }, now)
    }

    /// Counts one more change of an owner.
    ///
    /// # Errors
    /// As [`Self::network`].
    pub(super) fn change(
        &mut self,
        limits: &RateLimits,
        owner: &IdentityKey,
        now: Instant,
    ) -> Result<(), u32> {
        self.network(limits, Counted::Change, address_of(owner), now)
    }
}
