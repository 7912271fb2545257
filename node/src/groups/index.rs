//! Which state wrapped a blob: all retained states of all groups, the one that matched last first.

use sremp_common::id::GroupId;

use super::StateId;
use super::wrap::{Blob, WrapKeys};

/// One retained state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) state: StateId,
    pub(super) group: GroupId,
    pub(super) keys: WrapKeys,
}

/// The states in the order in which they are tried. Bounded by the groups, of which each has at most
/// [`super::convergence::record::MAX_STATES`] states.
///
/// A miss costs one short hash for each state. Moving what matched to the front keeps the states that
/// are in use near the front, and the past ones at the end.
#[derive(Debug, Default)]
pub(super) struct TagIndex {
    entries: Vec<Entry>,
    /// Undoes what was changed since the last accepted input: entries that came, and that went.
    added: Vec<StateId>,
    removed: Vec<Entry>,
}

impl TagIndex {
    pub(super) fn new(entries: Vec<Entry>) -> Self {
        Self { entries, ..Self::default() }
    }

    pub(super) fn find(&mut self, blob: &Blob<'_>) -> Option<Entry> {
        let position = self.entries.iter().position(|entry| entry.keys.matches(blob))?;
        self.entries.get_mut(..=position)?.rotate_right(1);
        self.entries.first().copied()
    }

    pub(super) fn add(&mut self, entry: Entry) {
        self.added.push(entry.state);
        self.entries.insert(0, entry);
    }

    pub(super) fn remove(&mut self, state: StateId) {
        if let Some(position) = self.entries.iter().position(|entry| entry.state == state) {
            self.removed.push(self.entries.remove(position));
        }
    }

    pub(super) fn accepted(&mut self) {
        self.added.clear();
        self.removed.clear();
    }

    pub(super) fn refused(&mut self) {
        self.entries.append(&mut self.removed);
        let added = std::mem::take(&mut self.added);
        if !added.is_empty() {
            self.entries.retain(|entry| !added.contains(&entry.state));
        }
    }
}
