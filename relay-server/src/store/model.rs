//! The contract of [`Mailboxes`] in the plainest form that could be right: maps, and counters that
//! are counted anew each time. The measure for real stores, and for nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sremp_common::id::{BlobId, IdentityKey, Incarnation, TokenHash};
use sremp_common::identity::Identity;
use sremp_common::time::Timestamp;
use sremp_common::wire::{AdmissionEntry, Bin, RelayCapabilities, StoredMessage};

use super::{
    Blob, Gone, Held, Invite, Mailbox, Mailboxes, PACKAGES_REMEMBERED, Page, PageLimit, Place,
    Publication, StoreError, Taken, TokenUse, Totals, Use,
};

mod rules;

/// A store in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    incarnation: Option<Incarnation>,
    sequence: u64,
    boxes: BTreeMap<IdentityKey, ModelBox>,
    spent: BTreeSet<(u64, IdentityKey, u64)>,
    invites: BTreeMap<TokenHash, Invite>,
    bans: BTreeSet<String>,
}

#[derive(Clone, Debug, Default)]
struct ModelBox {
    max_blob: u32,
    retention: u32,
    last_stored_at: Timestamp,
    messages: BTreeMap<u64, ModelMessage>,
    tokens: BTreeMap<TokenHash, ModelToken>,
    identity: Option<Identity>,
    stock: Vec<Vec<u8>>,
    full: u32,
    /// Oldest first.
    published: Vec<Vec<u8>>,
    last_resort: Option<Vec<u8>>,
    claim: Option<Incarnation>,
}

/// A token, and its use on one day.
#[derive(Clone, Copy, Debug)]
struct ModelToken {
    entry: AdmissionEntry,
    day: u64,
    stored: u32,
    stored_bytes: u64,
    taken: u32,
}

#[derive(Clone, Debug)]
struct ModelMessage {
    blob: Vec<u8>,
    place: Place,
    stored_at: Timestamp,
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap()
}

impl ModelBox {
    fn bytes(&self, only_strangers: bool) -> u64 {
        let counted = |message: &&ModelMessage| message.place.from_stranger || !only_strangers;
        self.messages.values().filter(counted).map(|message| length(&message.blob)).sum()
    }

    fn view(&self) -> Mailbox {
        let from_stranger = |message: &&ModelMessage| message.place.from_stranger;
        Mailbox {
            max_blob: self.max_blob,
            retention: self.retention,
            messages: u64::try_from(self.messages.len()).unwrap(),
            bytes: self.bytes(false),
            stranger_messages: u64::try_from(self.messages.values().filter(from_stranger).count())
                .unwrap(),
            stranger_bytes: self.bytes(true),
            last_stored_at: self.last_stored_at,
            key_packages: u32::try_from(self.stock.len()).unwrap(),
            key_packages_full: self.full,
        }
    }
}

impl Mailboxes for Model {
    fn incarnation(&mut self, fresh: Incarnation) -> Result<Incarnation, StoreError> {
        Ok(*self.incarnation.get_or_insert(fresh))
    }

    fn totals(&mut self) -> Result<Totals, StoreError> {
        let views = self.boxes.values().map(ModelBox::view);
        let start =
            Totals { mailboxes: u64::try_from(self.boxes.len()).unwrap(), ..Totals::default() };
        Ok(views.fold(start, |totals, view| Totals {
            messages: totals.messages + view.messages,
            bytes: totals.bytes + view.bytes,
            ..totals
        }))
    }

    fn mailbox(&mut self, owner: &IdentityKey) -> Result<Option<Mailbox>, StoreError> {
        Ok(self.boxes.get(owner).map(ModelBox::view))
    }

    fn register(
        &mut self,
        owner: &IdentityKey,
        wishes: RelayCapabilities,
    ) -> Result<Mailbox, StoreError> {
        let mailbox = self.boxes.entry(*owner).or_default();
        mailbox.max_blob = wishes.max_message_size;
        mailbox.retention = wishes.max_storage_duration;
        Ok(mailbox.view())
    }

    fn claim(&mut self, owner: &IdentityKey) -> Result<Option<Incarnation>, StoreError> {
        Ok(self.boxes.get(owner).and_then(|mailbox| mailbox.claim))
    }

    fn set_claim(&mut self, owner: &IdentityKey, claim: Incarnation) -> Result<(), StoreError> {
        self.boxes.get_mut(owner).ok_or(StoreError::NoMailbox)?.claim = Some(claim);
        Ok(())
    }

    fn remove_mailbox(&mut self, owner: &IdentityKey, limit: usize) -> Result<bool, StoreError> {
        let Some(mailbox) = self.boxes.get_mut(owner) else { return Ok(true) };
        let removed = mailbox.messages.len().min(limit);
        for _ in 0..removed {
            mailbox.messages.pop_first();
        }
        if removed == limit {
            return Ok(false);
        }
        self.boxes.remove(owner);
        Ok(true)
    }

    fn set_admission(
        &mut self,
        owner: &IdentityKey,
        entries: &[AdmissionEntry],
    ) -> Result<(), StoreError> {
        let mailbox = self.boxes.get_mut(owner).ok_or(StoreError::NoMailbox)?;
        let old = std::mem::take(&mut mailbox.tokens);
        for entry in entries {
            let fresh = ModelToken { entry: *entry, day: 0, stored: 0, stored_bytes: 0, taken: 0 };
            let known = old.get(&entry.token_hash).copied().unwrap_or(fresh);
            mailbox.tokens.insert(entry.token_hash, ModelToken { entry: *entry, ..known });
        }
        Ok(())
    }

    fn token(
        &mut self,
        owner: &IdentityKey,
        token: &TokenHash,
        day: u64,
    ) -> Result<Option<TokenUse>, StoreError> {
        let row = self.boxes.get(owner).and_then(|mailbox| mailbox.tokens.get(token));
        Ok(row.map(|row| {
            let is_today = row.day == day;
            TokenUse {
                class: row.entry.class,
                daily_quota: row.entry.daily_quota,
                stored: if is_today { row.stored } else { 0 },
                stored_bytes: if is_today { row.stored_bytes } else { 0 },
                taken: if is_today { row.taken } else { 0 },
            }
        }))
    }

    fn count_use(
        &mut self,
        owner: &IdentityKey,
        token: &TokenHash,
        day: u64,
        what: Use,
    ) -> Result<(), StoreError> {
        let row = self.boxes.get_mut(owner).and_then(|mailbox| mailbox.tokens.get_mut(token));
        let Some(row) = row else { return Ok(()) };
        if row.day != day {
            *row = ModelToken { day, stored: 0, stored_bytes: 0, taken: 0, ..*row };
        }
        match what {
            Use::Store { bytes } => {
                row.stored += 1;
                row.stored_bytes += bytes.div_ceil(1024) * 1024;
            }
            Use::Take => row.taken += 1,
        }
        Ok(())
    }

    fn spend_work(
        &mut self,
        owner: &IdentityKey,
        hour: u64,
        nonce: u64,
        limit: usize,
    ) -> Result<bool, StoreError> {
        let of_hour = self.spent.iter().filter(|spent| (spent.0, &spent.1) == (hour, owner));
        Ok(of_hour.count() < limit && self.spent.insert((hour, *owner, nonce)))
    }

    fn find(&mut self, owner: &IdentityKey, blob_id: &BlobId) -> Result<Option<Held>, StoreError> {
        let Some(mailbox) = self.boxes.get(owner) else { return Ok(None) };
        let found = mailbox.messages.iter().find(|(_, held)| held.place.blob_id == *blob_id);
        Ok(found.map(|(sequence, message)| Held {
            sequence: *sequence,
            stored_at: message.stored_at,
            expires_at: message.place.expires_at,
        }))
    }

    fn put(
        &mut self,
        blob: &mut Blob<'_>,
        place: &Place,
        now: Timestamp,
    ) -> Result<Held, StoreError> {
        let mailbox = self.boxes.get_mut(&place.owner).ok_or(StoreError::NoMailbox)?;
        self.sequence += 1;
        let stored_at = now.max(mailbox.last_stored_at + Duration::from_millis(1));
        mailbox.last_stored_at = stored_at;
        let message = ModelMessage { blob: blob.bytes().to_vec(), place: *place, stored_at };
        mailbox.messages.insert(self.sequence, message);
        Ok(Held { sequence: self.sequence, stored_at, expires_at: place.expires_at })
    }

    fn list(
        &mut self,
        owner: &IdentityKey,
        after: u64,
        limit: PageLimit,
    ) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let Some(mailbox) = self.boxes.get(owner) else { return Ok(page) };
        let mut bytes = 0;
        for (sequence, message) in mailbox.messages.iter().filter(|(number, _)| **number > after) {
            bytes += length(&message.blob);
            let fits = bytes <= limit.bytes || (limit.always_one && page.messages.is_empty());
            if page.messages.len() == limit.messages || !fits {
                page.has_more = true;
                break;
            }
            page.messages.push(StoredMessage {
                sequence: *sequence,
                blob_id: message.place.blob_id,
                stored_at: message.stored_at,
                blob: Bin::new(message.blob.clone()).unwrap(),
            });
        }
        Ok(page)
    }

    fn acknowledge(
        &mut self,
        owner: &IdentityKey,
        sequence: u64,
    ) -> Result<Option<Gone>, StoreError> {
        let removed = self.boxes.get_mut(owner).and_then(|held| held.messages.remove(&sequence));
        Ok(removed.map(|message| Gone { owner: *owner, sequence, bytes: length(&message.blob) }))
    }

    fn expire(&mut self, now: Timestamp, limit: usize) -> Result<Vec<Gone>, StoreError> {
        let mut due: Vec<_> = self
            .boxes
            .iter()
            .flat_map(|(owner, held)| held.messages.iter().map(move |(n, m)| (owner, n, m)))
            .filter(|(_, _, message)| message.place.expires_at <= now)
            .map(|(owner, sequence, message)| (message.place.expires_at, *sequence, *owner))
            .collect();
        due.sort();
        due.truncate(limit);
        self.spent.retain(|(hour, ..)| *hour >= now.hour().saturating_sub(1));
        due.into_iter()
            .filter_map(|(_, sequence, owner)| self.acknowledge(&owner, sequence).transpose())
            .collect()
    }

    fn identity(&mut self, owner: &IdentityKey) -> Result<Option<Identity>, StoreError> {
        Ok(self.boxes.get(owner).and_then(|mailbox| mailbox.identity.clone()))
    }

    fn publish(
        &mut self,
        owner: &IdentityKey,
        publication: &Publication<'_>,
        limit: u32,
    ) -> Result<u32, StoreError> {
        let mailbox = self.boxes.get_mut(owner).ok_or(StoreError::NoMailbox)?;
        if publication.replace {
            let dropped = std::mem::take(&mut mailbox.stock);
            mailbox.published.retain(|package| !dropped.contains(package));
        }
        for package in publication.key_packages {
            let is_known = mailbox.published.contains(&package.to_vec());
            if mailbox.stock.len() < usize::try_from(limit).unwrap() && !is_known {
                mailbox.stock.push(package.to_vec());
                mailbox.published.push(package.to_vec());
            }
        }
        let remembered = usize::try_from(PACKAGES_REMEMBERED).unwrap();
        let forgotten = mailbox.published.len().saturating_sub(remembered);
        mailbox.published.drain(..forgotten);
        mailbox.identity = Some(publication.identity.clone());
        if let Some(last_resort) = publication.last_resort {
            mailbox.last_resort = Some(last_resort.to_vec());
        }
        mailbox.full = u32::try_from(mailbox.stock.len()).unwrap();
        Ok(mailbox.full)
    }

    fn take_key_package(&mut self, owner: &IdentityKey) -> Result<Option<Taken>, StoreError> {
        let Some(mailbox) = self.boxes.get_mut(owner) else { return Ok(None) };
        let Some(identity) = mailbox.identity.clone() else { return Ok(None) };
        let key_package = if mailbox.stock.is_empty() {
            mailbox.last_resort.clone()
        } else {
            Some(mailbox.stock.remove(0))
        };
        let left = u32::try_from(mailbox.stock.len()).unwrap();
        let full = mailbox.full;
        Ok(key_package.map(|key_package| Taken { identity, key_package, left, full }))
    }
}
