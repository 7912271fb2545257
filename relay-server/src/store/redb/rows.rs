//! Keys and rows of the tables as bytes: fixed widths, so that redb keeps no offsets for them.
//!
//! Numbers in keys are big-endian, because redb compares bytes; numbers in values are
//! little-endian, like every raw number of ours.

use sremp_common::id::{BlobId, IdentityKey};
use sremp_common::time::Timestamp;
use sremp_common::wire::AdmissionClass;

use crate::store::{Invite, Mailbox, StoreError, TokenUse, Totals, Use};

/// Owner, then something of 8 bytes.
pub(super) type OwnerNumber = [u8; 40];
/// Owner, then something of 16 bytes.
pub(super) type OwnerName = [u8; 48];
/// Owner, then a token hash.
pub(super) type OwnerToken = [u8; 64];
/// Two numbers.
pub(super) type NumberNumber = [u8; 16];
/// Hour, owner, nonce.
pub(super) type WorkKey = [u8; 48];

/// Bytes of [`MailboxRow`].
pub(super) const MAILBOX_ROW: usize = 56;
/// Bytes of [`MessageRow`].
pub(super) const MESSAGE_ROW: usize = 48;
/// Bytes of [`TokenRow`].
pub(super) const TOKEN_ROW: usize = 24;
/// Bytes of [`InviteRow`].
pub(super) const INVITE_ROW: usize = 12;
/// Bytes of [`StateRow`].
pub(super) const STATE_ROW: usize = 40;

/// Puts parts one after the other. Parts that are too long are cut, and room that is left is zero;
/// the callers' types leave neither.
pub(super) fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut out = [0; N];
    out.iter_mut().zip(parts.iter().copied().flatten()).for_each(|(to, from)| *to = *from);
    out
}

pub(super) fn owner_number(owner: &IdentityKey, number: u64) -> OwnerNumber {
    join(&[owner.as_bytes(), &number.to_be_bytes()])
}

pub(super) fn owner_name(owner: &IdentityKey, name: &[u8; 16]) -> OwnerName {
    join(&[owner.as_bytes(), name])
}

pub(super) fn owner_token(owner: &IdentityKey, token: &[u8; 32]) -> OwnerToken {
    join(&[owner.as_bytes(), token])
}

pub(super) fn number_number(first: u64, second: u64) -> NumberNumber {
    join(&[&first.to_be_bytes(), &second.to_be_bytes()])
}

pub(super) fn work_key(hour: u64, owner: &IdentityKey, nonce: u64) -> WorkKey {
    join(&[&hour.to_be_bytes(), owner.as_bytes(), &nonce.to_be_bytes()])
}

/// The last 8 bytes of a key as the number that they are.
pub(super) fn number_at_end(key: &[u8]) -> u64 {
    key.last_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// Reads a row from its start. Reading past the end gives zeros and is remembered.
struct Reader<'r> {
    rest: &'r [u8],
    short: bool,
}

impl<'r> Reader<'r> {
    const fn new(row: &'r [u8]) -> Self {
        Self { rest: row, short: false }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                *head
            }
            None => {
                self.short = true;
                [0; N]
            }
        }
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    /// The row, if there were enough bytes for it.
    fn end<T>(&self, row: T, what: &'static str) -> Result<T, StoreError> {
        if self.short { Err(StoreError::Corrupt(what)) } else { Ok(row) }
    }
}

/// One row of the mailbox table.
pub(super) struct MailboxRow(pub(super) Mailbox);

impl MailboxRow {
    pub(super) fn encode(&self) -> [u8; MAILBOX_ROW] {
        let mailbox = &self.0;
        join(&[
            &mailbox.max_blob.to_le_bytes(),
            &mailbox.retention.to_le_bytes(),
            &mailbox.messages.to_le_bytes(),
            &mailbox.bytes.to_le_bytes(),
            &mailbox.stranger_messages.to_le_bytes(),
            &mailbox.stranger_bytes.to_le_bytes(),
            &mailbox.last_stored_at.as_millis().to_le_bytes(),
            &mailbox.key_packages.to_le_bytes(),
            &mailbox.key_packages_full.to_le_bytes(),
        ])
    }

    pub(super) fn decode(row: &[u8]) -> Result<Mailbox, StoreError> {
        let mut reader = Reader::new(row);
        let mailbox = Mailbox {
            max_blob: reader.u32(),
            retention: reader.u32(),
            messages: reader.u64(),
            bytes: reader.u64(),
            stranger_messages: reader.u64(),
            stranger_bytes: reader.u64(),
            last_stored_at: Timestamp::from_millis(reader.u64()),
            key_packages: reader.u32(),
            key_packages_full: reader.u32(),
        };
        reader.end(mailbox, "mailbox row")
    }
}

/// One row of the message index. The blob is elsewhere, under `blob`.
#[derive(Clone, Copy)]
pub(super) struct MessageRow {
    pub(super) blob: u64,
    pub(super) blob_id: BlobId,
    pub(super) stored_at: Timestamp,
    pub(super) expires_at: Timestamp,
    /// Bytes of the blob.
    pub(super) length: u32,
    pub(super) from_stranger: bool,
}

impl MessageRow {
    /// Bit of the length's word that says "from a stranger". Blobs are shorter than 2^31.
    const STRANGER: u64 = 1 << 63;

    pub(super) fn encode(&self) -> [u8; MESSAGE_ROW] {
        let stranger = if self.from_stranger { Self::STRANGER } else { 0 };
        join(&[
            &self.blob.to_le_bytes(),
            self.blob_id.as_bytes(),
            &self.stored_at.as_millis().to_le_bytes(),
            &self.expires_at.as_millis().to_le_bytes(),
            &(u64::from(self.length) | stranger).to_le_bytes(),
        ])
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row);
        let blob = reader.u64();
        let blob_id = BlobId::new(reader.take());
        let stored_at = Timestamp::from_millis(reader.u64());
        let expires_at = Timestamp::from_millis(reader.u64());
        let word = reader.u64();
        let length = u32::try_from(word & !Self::STRANGER)
            .map_err(|_| StoreError::Corrupt("length in message row"))?;
        let from_stranger = word & Self::STRANGER != 0;
        let row = Self { blob, blob_id, stored_at, expires_at, length, from_stranger };
        reader.end(row, "message row")
    }
}

/// One row of the token table: what the owner set, and the use of one day.
#[derive(Clone, Copy)]
pub(super) struct TokenRow {
    pub(super) class: AdmissionClass,
    pub(super) daily_quota: u32,
    pub(super) day: u64,
    pub(super) stored: u32,
    /// KiB of the blobs that were stored; at most [`Self::MAX_KIB`].
    pub(super) stored_kib: u32,
    pub(super) taken: u32,
}

impl TokenRow {
    /// The class has a word of 32 bits, of which it needs one byte; the KiB have the others.
    const MAX_KIB: u32 = (1 << 24) - 1;

    pub(super) fn encode(&self) -> [u8; TOKEN_ROW] {
        let class: u32 = match self.class {
            AdmissionClass::Contact => 0,
            AdmissionClass::Link => 1,
        };
        let word = class | (self.stored_kib.min(Self::MAX_KIB) << 8);
        join(&[
            &word.to_le_bytes(),
            &self.daily_quota.to_le_bytes(),
            &self.day.to_le_bytes(),
            &self.stored.to_le_bytes(),
            &self.taken.to_le_bytes(),
        ])
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row);
        let word = reader.u32();
        let class = match word & 0xFF {
            0 => AdmissionClass::Contact,
            1 => AdmissionClass::Link,
            _ => return Err(StoreError::Corrupt("class in token row")),
        };
        let row = Self {
            class,
            daily_quota: reader.u32(),
            day: reader.u64(),
            stored: reader.u32(),
            stored_kib: word >> 8,
            taken: reader.u32(),
        };
        reader.end(row, "token row")
    }

    /// The use on `day`.
    pub(super) fn on(&self, day: u64) -> TokenUse {
        let same = self.day == day;
        TokenUse {
            class: self.class,
            daily_quota: self.daily_quota,
            stored: if same { self.stored } else { 0 },
            stored_bytes: if same { u64::from(self.stored_kib).saturating_mul(1024) } else { 0 },
            taken: if same { self.taken } else { 0 },
        }
    }

    /// The row after one more use on `day`.
    pub(super) fn used(mut self, day: u64, what: Use) -> Self {
        if self.day != day {
            self = Self { day, stored: 0, stored_kib: 0, taken: 0, ..self };
        }
        match what {
            Use::Store { bytes } => {
                let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
                self.stored = self.stored.saturating_add(1);
                self.stored_kib = self.stored_kib.saturating_add(kib).min(Self::MAX_KIB);
            }
            Use::Take => self.taken = self.taken.saturating_add(1),
        }
        self
    }
}

/// One row of the table of invitations.
pub(super) struct InviteRow(pub(super) Invite);

impl InviteRow {
    pub(super) fn encode(&self) -> [u8; INVITE_ROW] {
        join(&[&self.0.uses.to_le_bytes(), &self.0.expires_at.as_millis().to_le_bytes()])
    }

    pub(super) fn decode(row: &[u8]) -> Result<Invite, StoreError> {
        let mut reader = Reader::new(row);
        let invite =
            Invite { uses: reader.u32(), expires_at: Timestamp::from_millis(reader.u64()) };
        reader.end(invite, "invitation row")
    }
}

/// The one row about the whole store.
#[derive(Clone, Copy, Default)]
pub(super) struct StateRow {
    /// The highest sequence that was ever used.
    pub(super) sequence: u64,
    pub(super) totals: Totals,
}

impl StateRow {
    /// Layout of all tables. Raised when an older program would misread them.
    ///
    /// 2: the use of a token counts KiB in the upper bits of its class.
    /// 3: a relay's store may be completed by a journal, which an older program would pass over.
    const LAYOUT: u64 = 3;

    pub(super) fn encode(&self) -> [u8; STATE_ROW] {
        join(&[
            &Self::LAYOUT.to_le_bytes(),
            &self.sequence.to_le_bytes(),
            &self.totals.mailboxes.to_le_bytes(),
            &self.totals.messages.to_le_bytes(),
            &self.totals.bytes.to_le_bytes(),
        ])
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let mut reader = Reader::new(row);
        let layout = reader.u64();
        if layout > Self::LAYOUT {
            return Err(StoreError::Newer { found: layout, known: Self::LAYOUT });
        }
        let sequence = reader.u64();
        let totals =
            Totals { mailboxes: reader.u64(), messages: reader.u64(), bytes: reader.u64() };
        reader.end(Self { sequence, totals }, "state row")
    }
}

/// The owner at the start of a key.
pub(super) fn owner_of(key: &[u8]) -> Result<IdentityKey, StoreError> {
    key.first_chunk::<32>()
        .and_then(|bytes| IdentityKey::from_bytes(*bytes).ok())
        .ok_or(StoreError::Corrupt("owner in a key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_and_fill_their_width() {
        let mailbox = Mailbox {
            max_blob: 1,
            retention: 2,
            messages: 3,
            bytes: 4,
            stranger_messages: 5,
            stranger_bytes: 6,
            last_stored_at: Timestamp::from_millis(7),
            key_packages: 8,
            key_packages_full: u32::MAX,
        };
        let row = MailboxRow(mailbox).encode();
        assert_eq!(MailboxRow::decode(&row).unwrap(), mailbox);
        assert_eq!(row.last_chunk::<4>().unwrap(), &[255; 4], "nothing is cut off");
        let token = TokenRow {
            class: AdmissionClass::Link,
            daily_quota: 1,
            day: 2,
            stored: 3,
            stored_kib: TokenRow::MAX_KIB,
            taken: u32::MAX,
        };
        let row = token.encode();
        assert_eq!(TokenRow::decode(&row).unwrap().encode(), row);
        assert_eq!(row.last_chunk::<4>().unwrap(), &[255; 4]);
        let message = MessageRow {
            blob: 1,
            blob_id: BlobId::new([2; 16]),
            stored_at: Timestamp::from_millis(3),
            expires_at: Timestamp::from_millis(4),
            length: u32::MAX,
            from_stranger: true,
        };
        let row = message.encode();
        let again = MessageRow::decode(&row).unwrap();
        assert_eq!((again.encode(), again.length, again.from_stranger), (row, u32::MAX, true));
        let totals = Totals { mailboxes: 1, messages: 2, bytes: u64::MAX };
        let row = StateRow { sequence: 9, totals }.encode();
        let again = StateRow::decode(&row).unwrap();
        assert_eq!((again.sequence, again.totals), (9, totals));
    }

    #[test]
    fn short_rows_and_newer_layouts_are_errors() {
        assert!(matches!(MailboxRow::decode(&[0; 55]), Err(StoreError::Corrupt(_))));
        assert!(matches!(MessageRow::decode(&[]), Err(StoreError::Corrupt(_))));
        assert!(matches!(TokenRow::decode(&[9; 24]), Err(StoreError::Corrupt(_))));
        assert!(matches!(StateRow::decode(&[9; 40]), Err(StoreError::Newer { .. })));
    }
}
