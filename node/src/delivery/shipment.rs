//! Stores that share one message: recipients who wait for the same blob and whose chosen path is the
//! same relay. One upload and one stored blob for each relay, whatever the number of members there.
//!
//! Lanes decide for each recipient what leaves over which path; what they decide in one turn is
//! collected here before it leaves, so that sharing costs no time. Only what comes back from another
//! path and has further recipients waits a moment: when a path fails, it fails for many, but each of
//! them learns of it by itself.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::identity::RelayRecord;
use sremp_common::limit::MAX_RECIPIENTS;
use sremp_common::time::Instant;
use sremp_common::wire::{Endpoint, List, Recipient};

/// Time that recipients whose first path has failed are waited for.
const GATHER: Duration = Duration::from_millis(100);

/// How a recipient joins a shipment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// With whoever goes the same way in this turn.
    Now,
    /// With whoever goes the same way soon: its first path has failed.
    Soon,
    /// With nobody: a message that was refused as a whole does not say who was the reason.
    Alone,
}

/// One store, for one or many mailboxes of one relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipment {
    /// The relay.
    pub relay: IdentityKey,
    /// Where the recipients say that it is, and how many say so.
    endpoints: BTreeMap<Endpoint, u32>,
    /// The blob's number in the outbox.
    pub blob: u64,
    /// The group that the blob belongs to: names the anonymous session.
    pub group: GroupId,
    /// For whom, and what lets it in. At most [`MAX_RECIPIENTS`].
    pub recipients: Vec<Recipient>,
    leaves_at: Instant,
}

impl Shipment {
    /// The relay, at the places that most recipients name: one who names wrong ones, or an address
    /// that was given up, does not keep the others' mail from it.
    #[must_use]
    pub fn record(&self) -> RelayRecord {
        let mut endpoints: Vec<_> = self.endpoints.iter().collect();
        endpoints.sort_by_key(|(_, count)| Reverse(**count));
        let endpoints = endpoints.into_iter().map(|(endpoint, _)| endpoint.clone()).collect();
        RelayRecord { identity_key: self.relay, endpoints: List::truncated(endpoints) }
    }

    fn add(&mut self, relay: &RelayRecord, recipient: Recipient) {
        for endpoint in relay.endpoints.iter() {
            let count = self.endpoints.entry(endpoint.clone()).or_default();
            *count = count.saturating_add(1);
        }
        self.recipients.push(recipient);
    }

    /// One anonymous session for each group: the relay cannot connect two of them. Within a group
    /// a shared blob names its recipients together anyway.
    #[must_use]
    pub fn session_tag(&self) -> u64 {
        session_tag(&self.group)
    }
}

fn session_tag(group: &GroupId) -> u64 {
    let (head, _) = group.as_bytes().split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*head)
}

/// What leaves in this turn, or soon. Bounded by the parcels that lanes may have under way.
#[derive(Debug, Default)]
pub struct Shipments {
    /// In the order of the blobs at each relay. Those that go alone have a number above 0.
    open: BTreeMap<(IdentityKey, u64, usize), Shipment>,
    alone: usize,
}

impl Shipments {
    /// Adds a recipient of a blob, at a relay of theirs.
    pub fn add(
        &mut self,
        relay: &RelayRecord,
        blob: u64,
        group: GroupId,
        recipient: Recipient,
        company: Company,
        now: Instant,
    ) {
        let place = if company == Company::Alone {
            self.alone = self.alone.saturating_add(1);
            self.alone
        } else {
            0
        };
        let relay_key = relay.identity_key;
        let new = || Shipment {
            relay: relay_key,
            endpoints: BTreeMap::new(),
            blob,
            group,
            recipients: Vec::new(),
            leaves_at: now + GATHER,
        };
        let shipment = self.open.entry((relay_key, blob, place)).or_insert_with(new);
        if company != Company::Soon {
            shipment.leaves_at = now;
        }
        shipment.add(relay, recipient);
    }

    /// The next store that leaves now, split at the wire's bound on recipients.
    pub fn pop(&mut self, now: Instant) -> Option<Shipment> {
        let key = self.open.iter().find(|(_, open)| open.leaves_at <= now).map(|(key, _)| *key)?;
        let shipment = self.open.get_mut(&key)?;
        if shipment.recipients.len() <= MAX_RECIPIENTS {
            return self.open.remove(&key);
        }
        let rest = shipment.recipients.split_off(MAX_RECIPIENTS);
        let full = std::mem::replace(&mut shipment.recipients, rest);
        Some(Shipment { recipients: full, ..shipment.clone() })
    }

    /// When the next store leaves.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.open.values().map(|open| open.leaves_at).min()
    }
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;
    use sremp_common::wire::{Admission, Host};

    use super::*;

    fn keys(count: usize) -> Vec<IdentityKey> {
        let mut entropy = Entropy::from_number(1);
        let mut keys: Vec<_> =
            (0..count).map(|_| IdentitySecret::generate(&mut entropy).public()).collect();
        keys.sort_unstable();
        keys
    }

    fn relay(identity_key: IdentityKey) -> RelayRecord {
        RelayRecord { identity_key, endpoints: List::default() }
    }

    fn recipient(identity_key: IdentityKey) -> Recipient {
        Recipient { identity_key, admission: Admission::Session }
    }

    const GROUP: GroupId = GroupId::new([3; 16]);
    const NOW: Instant = Instant::from_millis(1000);

    #[test]
    fn one_store_for_each_relay_and_blob() {
        let mut shipments = Shipments::default();
        let keys = keys(12);
        let (first, second) = (relay(keys[0]), relay(keys[1]));
        for (place, person) in keys[2..].iter().enumerate() {
            let relay = if place % 2 == 0 { &first } else { &second };
            shipments.add(relay, 7, GROUP, recipient(*person), Company::Now, NOW);
        }
        shipments.add(&first, 6, GROUP, recipient(keys[2]), Company::Now, NOW);
        shipments.add(&first, 7, GROUP, recipient(keys[2]), Company::Alone, NOW);
        shipments.add(&first, 7, GROUP, recipient(keys[3]), Company::Alone, NOW);
        let shape: Vec<_> = std::iter::from_fn(|| shipments.pop(NOW))
            .map(|one| (one.relay, one.blob, one.recipients.len()))
            .collect();
        let [first, second] = [keys[0], keys[1]];
        let expected = [(first, 6, 1), (first, 7, 5), (first, 7, 1), (first, 7, 1), (second, 7, 5)];
        assert_eq!(shape, expected);
        assert_eq!(shipments.wake_at(), None);
    }

    #[test]
    fn what_failed_elsewhere_waits_a_moment_for_others() {
        let mut shipments = Shipments::default();
        let keys = keys(4);
        let relay = relay(keys[0]);
        shipments.add(&relay, 7, GROUP, recipient(keys[1]), Company::Soon, NOW);
        let later = NOW + Duration::from_millis(30);
        shipments.add(&relay, 7, GROUP, recipient(keys[2]), Company::Soon, later);
        assert_eq!(shipments.pop(later), None);
        assert_eq!(shipments.wake_at(), Some(NOW + GATHER));
        assert_eq!(shipments.pop(NOW + GATHER).unwrap().recipients.len(), 2);
        // One who has not failed before does not wait, and takes along who does.
        shipments.add(&relay, 8, GROUP, recipient(keys[1]), Company::Soon, NOW);
        shipments.add(&relay, 8, GROUP, recipient(keys[3]), Company::Now, NOW);
        assert_eq!(shipments.pop(NOW).unwrap().recipients.len(), 2);
    }

    #[test]
    fn more_recipients_than_the_wire_allows_are_split() {
        let mut shipments = Shipments::default();
        let keys = keys(2 * MAX_RECIPIENTS + 1);
        let relay = relay(keys[0]);
        keys.iter().for_each(|person| {
            shipments.add(&relay, 7, GROUP, recipient(*person), Company::Now, NOW);
        });
        let all: Vec<_> = std::iter::from_fn(|| shipments.pop(NOW)).collect();
        let sizes: Vec<_> = all.iter().map(|one| one.recipients.len()).collect();
        assert_eq!(sizes, [MAX_RECIPIENTS, MAX_RECIPIENTS, 1]);
        let people: Vec<_> =
            all.iter().flat_map(|one| &one.recipients).map(|one| one.identity_key).collect();
        assert_eq!(people, keys);
    }

    #[test]
    fn a_relay_is_where_most_say_that_it_is() {
        let keys = keys(4);
        let at = |port| Endpoint { host: Host::Address([10, 0, 0, 1].into()), port };
        let mut shipments = Shipments::default();
        for (person, port) in keys[1..].iter().zip([1, 2, 2]) {
            let endpoints = List::truncated(vec![at(port)]);
            let relay = RelayRecord { identity_key: keys[0], endpoints };
            shipments.add(&relay, 7, GROUP, recipient(*person), Company::Now, NOW);
        }
        let record = shipments.pop(NOW).unwrap().record();
        assert_eq!(record.endpoints.to_vec(), [at(2), at(1)]);
    }

    #[test]
    fn groups_have_sessions_of_their_own() {
        assert_ne!(session_tag(&GROUP), session_tag(&GroupId::new([4; 16])));
    }
}
