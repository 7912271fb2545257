//! The journal's file: records at rising positions, each with a checksum over where it belongs.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use sremp_common::hash::labelled_hash;
use sremp_common::id::Incarnation;
use sremp_common::label::HashLabel;

use super::MAX_JOURNAL;
use crate::store::StoreError;

/// Bytes of a record's checksum.
const CHECKSUM: usize = 32;
/// Bytes in front of a record's entries: their length, and the checksum.
const HEAD: u64 = 4 + 32;

/// The end of a journal, where records are appended.
pub struct Journal {
    /// Nothing when there is no journal.
    file: Option<File>,
    capacity: u64,
    incarnation: Incarnation,
    generation: u64,
    end: u64,
    /// A record on its way to the file; kept for its room.
    record: Vec<u8>,
}

impl Journal {
    /// No journal: every record finds it full.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            file: None,
            capacity: 0,
            incarnation: Incarnation::new([0; 16]),
            generation: 0,
            end: 0,
            record: Vec::new(),
        }
    }

    /// The empty journal of this generation, in a file of which every byte is on the disk. What is in
    /// the file must have been taken over before.
    ///
    /// # Errors
    /// [`StoreError::Database`] when the file cannot be written for another reason than room.
    pub fn create(
        path: &Path,
        capacity: u64,
        incarnation: Incarnation,
        generation: u64,
    ) -> Result<Self, StoreError> {
        if capacity == 0 {
            // Whatever is in it is in the database.
            return match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
                Ok(()) | Err(_) => Ok(Self::none()),
            };
        }
        let capacity = capacity.min(MAX_JOURNAL);
        match occupied(path, capacity) {
            Ok(file) => {
                Ok(Self { file: Some(file), capacity, incarnation, generation, ..Self::none() })
            }
            Err(error) if is_full(&error) => {
                tracing::warn!("the disk has no room for a journal: everything is slower without");
                // Half a file would be none.
                let _ = fs::remove_file(path);
                Ok(Self::none())
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Makes entries durable. False when there is no room for them: then only a commit of the
    /// database does, and [`Self::restart`] after it.
    ///
    /// # Errors
    /// When the disk fails: whether the record is there is not known then.
    pub fn append(&mut self, entries: &[u8]) -> Result<bool, StoreError> {
        let Some(file) = &self.file else { return Ok(false) };
        let Ok(length) = u32::try_from(entries.len()) else { return Ok(false) };
        let all = u64::from(length).saturating_add(HEAD);
        if self.end.saturating_add(all) > self.capacity {
            return Ok(false);
        }
        let sum = checksum(self.incarnation, self.generation, self.end, entries);
        self.record.clear();
        self.record.extend_from_slice(&length.to_le_bytes());
        self.record.extend_from_slice(&sum);
        self.record.extend_from_slice(entries);
        file.write_all_at(&self.record, self.end).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        self.end = self.end.saturating_add(all);
        Ok(true)
    }

    /// Bytes of records that are not in the database yet.
    #[must_use]
    pub const fn used(&self) -> u64 {
        self.end
    }

    /// Bytes of entries that the next record may have.
    #[must_use]
    pub fn room(&self) -> usize {
        let left = self.capacity.saturating_sub(self.end).saturating_sub(HEAD);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// The generation that the database must know with its next commit, if that makes records
    /// superfluous.
    #[must_use]
    pub fn next_generation(&self) -> Option<u64> {
        (self.end > 0).then_some(self.generation.saturating_add(1))
    }

    /// Begins anew: everything is in the database, which knows [`Self::next_generation`].
    pub fn restart(&mut self) {
        if let Some(next) = self.next_generation() {
            self.generation = next;
            self.end = 0;
        }
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacity, generation, end, .. } = self;
        write!(f, "Journal({end} of {capacity} bytes, generation {generation})")
    }
}

/// The entries of every whole record of this store and generation; nothing when there is no file.
///
/// # Errors
/// [`StoreError::Database`] when there is one that cannot be read.
pub(super) fn read(
    path: &Path,
    incarnation: Incarnation,
    generation: u64,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(MAX_JOURNAL).read_to_end(&mut bytes).map_err(failed)?,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(failed(error)),
    };
    let mut records = Vec::new();
    let mut position = 0_u64;
    let mut rest = bytes.as_slice();
    while let Some((entries, after)) = first(rest, incarnation, generation, position) {
        let length = u64::try_from(entries.len()).unwrap_or(u64::MAX);
        position = position.saturating_add(HEAD).saturating_add(length);
        records.push(entries.to_vec());
        rest = after;
    }
    Ok(records)
}

/// The entries of the record in front, if it is whole, and what follows it.
fn first(
    bytes: &[u8],
    incarnation: Incarnation,
    generation: u64,
    position: u64,
) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (sum, rest) = rest.split_first_chunk::<CHECKSUM>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (entries, rest) = rest.split_at_checked(length)?;
    (checksum(incarnation, generation, position, entries) == *sum).then_some((entries, rest))
}

/// Strangers choose what is stored, so a sum that they can compute with would not do: they do not
/// choose where it is torn, but may try often.
fn checksum(
    incarnation: Incarnation,
    generation: u64,
    position: u64,
    entries: &[u8],
) -> [u8; CHECKSUM] {
    let place =
        [&incarnation.as_bytes()[..], &generation.to_le_bytes(), &position.to_le_bytes()].concat();
    labelled_hash(HashLabel::RelayJournal, &place, entries)
}

/// The file with this length, every byte of it and its name on the disk.
fn occupied(path: &Path, capacity: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(path)?;
    if file.metadata()?.len() != capacity {
        file.set_len(0)?;
        occupy(&mut file, capacity)?;
    }
    file.sync_all()?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(file)
}

/// Writes so many bytes, so that they are the file's whatever becomes of the disk.
pub(crate) fn occupy(file: &mut File, length: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(length), file)?;
    Ok(())
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

fn failed(error: io::Error) -> StoreError {
    if is_full(&error) {
        return StoreError::Full(Box::new(error));
    }
    StoreError::Database(Box::new(error))
}
