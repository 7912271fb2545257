//! The disk below the store: how much of it is free, and a reserve for the day when nothing is.
//!
//! Even to delete, the store needs a few pages before it gives any back. So new mailboxes are
//! refused first, then new messages, while there is still room to drain; and when others have
//! filled the disk to the last byte, a file that only kept bytes occupied is removed.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::StoreSection;
use crate::engine::Room;
use crate::store::Totals;
use crate::store::journal::occupy;

/// Name of the file that keeps bytes occupied.
const RESERVE_FILE: &str = "reserve";
/// Bytes of a block as `stat` counts them (POSIX).
const BLOCK: u64 = 512;
/// What the store needs for a message beside its blob, at most.
const PER_MESSAGE: u64 = 1024;
/// What the database needs for a byte of the journal, at most: pages of a power of two, and rows.
const PER_JOURNALED: u64 = 3;
/// What the store needs for itself, at most.
const FIXED: u64 = 4 << 20;

/// The place of the store.
#[derive(Debug)]
pub(super) struct Disk {
    store: PathBuf,
    reserve: PathBuf,
    marks: StoreSection,
}

/// What a look at the disk shows, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Space {
    /// Free on the file system.
    pub(super) free: u64,
    /// Taken by the store's file.
    pub(super) file: u64,
    /// Free within that file, at least.
    pub(super) slack: u64,
}

impl Disk {
    pub(super) fn new(store: &Path, marks: StoreSection) -> Self {
        let directory = store.parent().unwrap_or(Path::new("."));
        Self { store: store.to_owned(), reserve: directory.join(RESERVE_FILE), marks }
    }

    pub(super) fn set_marks(&mut self, marks: StoreSection) {
        self.marks = marks;
    }

    /// How much is free. The store's file never shrinks by itself: what was deleted is free inside
    /// it, and new messages go there.
    pub(super) fn space(&self, totals: Totals) -> io::Result<Space> {
        let system = rustix::fs::statvfs(self.store.parent().unwrap_or(Path::new(".")))?;
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        let file = fs::metadata(&self.store)?.blocks().saturating_mul(BLOCK);
        Ok(Space { free, file, slack: slack(file, totals) })
    }

    /// What may be taken with so much space.
    pub(super) fn room(&self, space: Space) -> Room {
        let usable = space.free.saturating_add(space.slack);
        if usable < self.marks.free_for_messages {
            Room::NoNewMessages
        } else if usable < self.marks.free_for_mailboxes {
            Room::NoNewOwners
        } else {
            Room::Plenty
        }
    }

    /// Whether the journal may go on, of which so many bytes are not in the database yet: written there,
    /// they must not take what is kept for those who drain. Near the first mark every batch is committed.
    pub(super) fn has_room_to_journal(&self, space: Space, journaled: u64) -> bool {
        let usable = space.free.saturating_add(space.slack);
        let taken = journaled.saturating_mul(PER_JOURNALED);
        usable.saturating_sub(taken) >= self.marks.free_for_mailboxes
    }

    /// Bytes of blobs that may be stored before the disk is looked at again: with their rows, and the
    /// copies that a transaction makes of what it touches, they take less than what is above the
    /// mark.
    pub(super) fn budget(&self, space: Space) -> u64 {
        let usable = space.free.saturating_add(space.slack);
        usable.saturating_sub(self.marks.free_for_messages) / 4
    }

    /// Gives the reserve up. True when there was one.
    pub(super) fn release_reserve(&self) -> bool {
        fs::remove_file(&self.reserve).is_ok()
    }

    /// Makes the reserve, unless it is there already, or would itself fill the disk.
    pub(super) fn keep_reserve(&self, space: Space) {
        let wanted = self.marks.reserve_bytes;
        let has = fs::metadata(&self.reserve).map_or(0, |file| file.len());
        let needed = self.marks.free_for_messages.max(wanted).saturating_add(wanted);
        if has == wanted || (has < wanted && space.free < needed) {
            return;
        }
        if let Err(error) = keep(&self.reserve, wanted) {
            tracing::warn!(%error, "no reserve could be kept on the disk");
            // Half of it would be none.
            let _ = fs::remove_file(&self.reserve);
        }
    }
}

/// What is certainly free in a file of this size. A blob lies in pages whose number is a power of
/// two, and so takes twice its length at most.
fn slack(file: u64, totals: Totals) -> u64 {
    let blobs = totals.bytes.saturating_mul(2);
    let rows = totals.messages.saturating_add(totals.mailboxes).saturating_mul(PER_MESSAGE);
    file.saturating_sub(blobs).saturating_sub(rows).saturating_sub(FIXED)
}

/// A file of this length with every byte of it on the disk.
fn keep(path: &Path, length: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    occupy(&mut file, length)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn marks_come_one_after_the_other() {
        let (free_for_mailboxes, free_for_messages) = (20 * MIB, 10 * MIB);
        let marks =
            StoreSection { free_for_mailboxes, free_for_messages, ..StoreSection::default() };
        let disk = Disk::new(Path::new("/nowhere/relay.redb"), marks);
        let room = |free, slack| disk.room(Space { free, slack, file: 0 });
        assert_eq!(room(20 * MIB, 0), Room::Plenty);
        assert_eq!(room(20 * MIB - 1, 0), Room::NoNewOwners);
        assert_eq!(room(10 * MIB - 1, 0), Room::NoNewMessages);
        assert_eq!(room(0, 0), Room::NoNewMessages);
        assert_eq!(disk.budget(Space { free: 14 * MIB, slack: 0, file: 0 }), MIB);
        assert_eq!(disk.budget(Space { free: 9 * MIB, slack: 0, file: 0 }), 0);
        assert_eq!(room(0, 15 * MIB), Room::NoNewOwners, "free inside the file counts");
        let space = Space { free: 32 * MIB, slack: 0, file: 0 };
        assert!(disk.has_room_to_journal(space, 4 * MIB));
        assert!(!disk.has_room_to_journal(space, 4 * MIB + 1));
    }

    #[test]
    fn a_store_that_was_drained_has_room_again() {
        let full = Totals { mailboxes: 10, messages: 1000, bytes: 100 * MIB };
        let drained = Totals { messages: 0, bytes: 0, ..full };
        assert_eq!(slack(130 * MIB, full), 0, "not more than is certain");
        assert!(slack(130 * MIB, drained) > 125 * MIB);
    }

    #[test]
    fn the_reserve_is_kept_given_up_and_kept_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("relay.redb");
        fs::write(&store, vec![1; 10_000]).unwrap();
        let marks = StoreSection {
            reserve_bytes: 100_000,
            free_for_messages: 0,
            ..StoreSection::default()
        };
        let mut disk = Disk::new(&store, marks.clone());
        let space = disk.space(Totals::default()).unwrap();
        assert!(space.free > 0 && space.file >= 10_000, "{space:?}");
        let reserve = directory.path().join(RESERVE_FILE);
        disk.keep_reserve(Space { free: 100, ..space });
        assert!(!reserve.exists(), "it would fill the disk");
        disk.keep_reserve(space);
        assert!(fs::metadata(&reserve).unwrap().blocks() * BLOCK >= 100_000, "really occupied");
        assert!(disk.release_reserve() && !disk.release_reserve());
        disk.keep_reserve(space);
        disk.set_marks(StoreSection { reserve_bytes: 10, ..marks });
        disk.keep_reserve(Space { free: 0, ..space });
        assert_eq!(fs::metadata(&reserve).unwrap().len(), 10, "a smaller one always fits");
    }
}
