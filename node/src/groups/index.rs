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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::wrap::TAGS;

    /// Conversations, each with a tip and eight states behind it.
    const CONVERSATIONS: u8 = 250;
    const STATES: u8 = 9;

    fn keys(group: u8, state: u8) -> WrapKeys {
        WrapKeys::derive(&[group, state])
    }

    /// What is in the index does not depend on the store: whatever is not in it costs a short hash for each
    /// state that is kept (some 20 nanoseconds), and whoever is heard often costs one.
    #[test]
    fn finding_a_state_costs_one_short_hash_for_each_that_is_kept() {
        let mut index = TagIndex::default();
        for (group, state) in
            (0..CONVERSATIONS).flat_map(|group| (0..STATES).map(move |s| (group, s)))
        {
            let id = StateId::new([group, state, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let (group, keys) = (GroupId::new([group; 16]), keys(group, state));
            index.add(Entry { state: id, group, keys });
        }
        let all = usize::from(CONVERSATIONS) * usize::from(STATES);
        let mut cost = |blob: &[u8]| {
            TAGS.set(0);
            let found = index.find(&Blob::parse(blob).unwrap()).map(|entry| entry.group);
            (found, TAGS.get())
        };
        assert_eq!(cost(&[5; 256]), (None, all), "a blob of no state");
        let [first, second] = [1, 2].map(|nonce| keys(0, 0).wrap([nonce; 24], 1, b"text").unwrap());
        let group = Some(GroupId::new([0; 16]));
        assert_eq!(cost(&first), (group, all), "of the state that was not heard for longest");
        assert_eq!(cost(&second), (group, 1), "and again");
        let newest = keys(CONVERSATIONS - 1, STATES - 1).wrap([3; 24], 1, b"text").unwrap();
        assert_eq!(cost(&newest), (Some(GroupId::new([CONVERSATIONS - 1; 16])), 2));
    }
}
