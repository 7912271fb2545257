//! The record of one group: its retained states as a tree, and which of them is the tip.
//!
//! Plain data and pure rules; the rows of each state's MLS secrets are elsewhere (`storage`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sremp_common::id::IdentityKey;
use sremp_common::time::Timestamp;

use super::branch::{self, Branch, Commit};
use super::marks::Mark;
use crate::groups::{LostWork, StateId};

/// Epochs behind the tip whose states are kept: for late messages, and for rival commits.
pub const MAX_PAST_EPOCHS: u64 = 8;

/// Time for which a state is kept after it was left, however many epochs have followed: so that a
/// member who commits without end cannot push an admin's commit, which is on its way, out of reach.
const MIN_PAST_TIME: Duration = Duration::from_secs(600);

/// Epochs behind the tip beyond which a state is not kept for that.
const MAX_RECENT_EPOCHS: u64 = 64;

/// States that ordinary members cannot fill: room for an admin's commit.
const ADMINS_SHARE: usize = 64;

/// States beside the branch that one ordinary member may have made, of which those with the lowest
/// digests are kept: so that it cannot take the others' room, and all keep the same ones, whatever came
/// first. An honest member makes few: it renews its keys a few times without an echo, comes back, and
/// lets others go.
const MEMBERS_SHARE: usize = 32;

/// How long a state is kept after it was left.
pub const MAX_PAST_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// States of one group: the retained epochs with many rivals each. More are refused, so that a
/// hostile member cannot fill the disk with commits.
pub(in crate::groups) const MAX_STATES: usize = 256;

/// Own commits whose states are gone that are remembered: for when another side of a split wins.
const MAX_DONE: usize = 64;

/// What own commits did, by the states that they made.
pub(in crate::groups) type OwnWork = Vec<(Mark, LostWork)>;

/// One group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::groups) struct Record {
    /// Where the choice of the branch starts: the oldest retained ancestor of the tip.
    root: StateId,
    /// The state that we act in.
    tip: StateId,
    /// Epoch at which we came in: Welcomes into earlier ones are late or replayed.
    pub(in crate::groups) joined_epoch: u64,
    /// We want to leave.
    pub(in crate::groups) leaving: bool,
    /// Our state may have been used elsewhere (a restored copy): nothing is sent in it any more.
    pub(in crate::groups) stale: bool,
    states: Vec<State>,
    /// Whose Welcome we came in by; none when we made the group.
    #[serde(default)]
    pub(in crate::groups) joined_by: Option<IdentityKey>,
    /// What the state that we came back to had come through, as whoever offered the way back says.
    #[serde(default)]
    came_by: Vec<Mark>,
    /// What our own commits did, by the states that they made, where those are not kept any more.
    #[serde(default)]
    done: OwnWork,
}

/// One retained state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::groups) struct State {
    pub(in crate::groups) id: StateId,
    pub(in crate::groups) parent: Option<StateId>,
    pub(in crate::groups) epoch: u64,
    /// Its epoch authenticator; zero when we are no member in it.
    pub(in crate::groups) authenticator: ByteArray<32>,
    /// The commit that made the state; none for the state that we created or were welcomed into.
    pub(in crate::groups) commit: Option<Commit>,
    /// False when the commit removed us.
    pub(in crate::groups) active: bool,
    pub(in crate::groups) entered_at: Timestamp,
    /// Since when it is not the tip.
    pub(in crate::groups) left_at: Option<Timestamp>,
    /// When our own leaf in this state was renewed; 0 for never.
    pub(in crate::groups) own_update_at: Timestamp,
    /// What the commit did of what we wanted: all of it if it is ours, or the same by another's.
    pub(in crate::groups) work: Vec<LostWork>,
    /// Who proposed to leave in this state.
    pub(in crate::groups) leaves: Vec<IdentityKey>,
    /// We ourselves proposed to leave in this state.
    pub(in crate::groups) leave_sent: bool,
}

impl State {
    /// A state that was entered just now. What its commit was is filled in by whoever has it.
    pub(in crate::groups) fn entered(
        id: StateId,
        parent: Option<StateId>,
        epoch: u64,
        authenticator: [u8; 32],
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            parent,
            epoch,
            authenticator: ByteArray::new(authenticator),
            commit: None,
            active: true,
            entered_at: now,
            left_at: None,
            own_update_at: Timestamp::default(),
            work: Vec::new(),
            leaves: Vec::new(),
            leave_sent: false,
        }
    }

    pub(in crate::groups) const fn mark(&self) -> Mark {
        Mark { epoch: self.epoch, authenticator: self.authenticator }
    }

    /// What its commit did of what we wanted, by its mark.
    fn marked_work(&self) -> impl Iterator<Item = (Mark, LostWork)> + '_ {
        self.work.iter().map(|work| (self.mark(), work.clone()))
    }
}

/// Whether the state of a commit is kept.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::groups) enum Room {
    /// It is.
    Free,
    /// It is, if this one of the same member is given up.
    InPlaceOf(StateId),
    /// It is not: its author has made enough others beside the branch.
    Outdone,
    /// It is not, as long as others take all the room.
    Full,
}

/// What adding a state did to the tip.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::groups) enum Settled {
    /// Another state of the tree stands: the new one is kept as a rival.
    Unchanged,
    /// The tip moved forward on its branch.
    Advanced,
    /// The tip is on another branch. Our own commits on the branch that lost, oldest first.
    Switched(Vec<LostWork>),
}

impl Record {
    /// A group with one state.
    pub(in crate::groups) fn new(state: State) -> Self {
        Self {
            root: state.id,
            tip: state.id,
            joined_epoch: state.epoch,
            leaving: false,
            stale: false,
            states: vec![state],
            joined_by: None,
            came_by: Vec::new(),
            done: Vec::new(),
        }
    }

    /// A Welcome replaced our branch: its state is the tip, and the choice starts there.
    pub(in crate::groups) fn replace(&mut self, state: State, now: Timestamp) {
        let old = self.tip;
        if let Some(old) = self.state_mut(old) {
            old.left_at.get_or_insert(now);
        }
        self.root = state.id;
        self.tip = state.id;
        self.joined_epoch = state.epoch;
        self.leaving = false;
        self.joined_by = None;
        self.came_by.clear();
        self.done.clear();
        self.stale = false;
        self.states.push(state);
    }

    pub(in crate::groups) const fn tip(&self) -> StateId {
        self.tip
    }

    pub(in crate::groups) fn states(&self) -> &[State] {
        &self.states
    }

    pub(in crate::groups) fn state(&self, id: StateId) -> Option<&State> {
        self.states.iter().find(|state| state.id == id)
    }

    pub(in crate::groups) fn state_mut(&mut self, id: StateId) -> Option<&mut State> {
        self.states.iter_mut().find(|state| state.id == id)
    }

    /// Whether there is no room for one more state.
    pub(in crate::groups) fn is_full(&self, by_admin: bool) -> bool {
        let kept_free = if by_admin { 0 } else { ADMINS_SHARE };
        self.states.len().saturating_add(kept_free) >= MAX_STATES
    }

    /// Where the state of another's commit, which leaves `parent`, finds room.
    pub(in crate::groups) fn room_for(&self, commit: &Commit, parent: StateId) -> Room {
        let path = branch::path(&self.branches(), self.tip);
        let is_rival = |state: &&State| !path.contains(&state.id);
        let mut theirs: Vec<(&Commit, StateId)> = self
            .states
            .iter()
            .filter(is_rival)
            .filter_map(|state| Some((state.commit.as_ref()?, state.id)))
            .filter(|(other, _)| other.committer == commit.committer && !other.by_admin)
            .collect();
        // What leads on is no rival.
        if commit.by_admin || parent == self.tip || theirs.len() < MEMBERS_SHARE {
            return if self.is_full(commit.by_admin) { Room::Full } else { Room::Free };
        }
        // What something builds on stays.
        theirs.retain(|(_, id)| {
            *id != parent && !self.states.iter().any(|state| state.parent == Some(*id))
        });
        match theirs.into_iter().max_by_key(|(other, _)| other.digest) {
            Some((other, id)) if other.digest > commit.digest => Room::InPlaceOf(id),
            _ => Room::Outdone,
        }
    }

    /// Takes out one state beside the branch, on which nothing builds.
    pub(in crate::groups) fn take_out(&mut self, id: StateId) {
        self.states.retain(|state| state.id != id);
    }

    /// Adds the state of a commit, and decides anew which state is the tip.
    pub(in crate::groups) fn add(&mut self, mut state: State, now: Timestamp) -> Settled {
        let old = self.tip;
        state.left_at = Some(now);
        self.states.push(state);
        let branches = self.branches();
        let tip = branch::tip(&branches, self.root);
        let settled = if tip == old {
            Settled::Unchanged
        } else if branch::is_ancestor(&branches, old, tip) {
            Settled::Advanced
        } else {
            let standing = branch::path(&branches, tip);
            let mut lost = branch::path(&branches, old);
            lost.retain(|state| !standing.contains(state));
            let work = |id: &StateId| self.state(*id).map(|state| state.work.clone());
            Settled::Switched(lost.iter().rev().filter_map(work).flatten().collect())
        };
        self.tip = tip;
        if tip != old {
            if let Some(old) = self.state_mut(old) {
                old.left_at = Some(now);
            }
            if let Some(tip) = self.state_mut(tip) {
                tip.left_at = None;
            }
        }
        settled
    }

    /// What our own commits on the way to the tip did, as far as it is known, by the states that they
    /// made; oldest first.
    pub(in crate::groups) fn own_work(&self) -> OwnWork {
        let path = branch::path(&self.branches(), self.tip);
        let kept = path.iter().rev().filter_map(|id| self.state(*id)).flat_map(State::marked_work);
        self.done.iter().cloned().chain(kept).collect()
    }

    /// We came back from outside: what the new tip had come through, and what of our own work is in it.
    pub(in crate::groups) fn come_by(&mut self, past: Vec<Mark>, done: OwnWork) {
        self.came_by = past;
        self.done = done;
        self.forget_oldest_work();
    }

    fn forget_oldest_work(&mut self) {
        let surplus = self.done.len().saturating_sub(MAX_DONE);
        self.done.drain(..surplus);
    }

    /// The marks of the tip and of what it came through, youngest first, as far as they are in memory.
    pub(in crate::groups) fn lineage(&self) -> impl Iterator<Item = Mark> + '_ {
        let path = branch::path(&self.branches(), self.tip);
        let kept: Vec<Mark> =
            path.into_iter().filter_map(|id| self.state(id)).map(State::mark).collect();
        kept.into_iter().chain(self.came_by.iter().copied())
    }

    /// Whether `state` is the tip or one of its ancestors; states that are not kept count as such.
    pub(in crate::groups) fn is_on_branch(&self, state: StateId) -> bool {
        self.state(state).is_none() || branch::is_ancestor(&self.branches(), state, self.tip)
    }

    /// The state itself, or the one with the same mark that the tip came through.
    pub(in crate::groups) fn standing_twin(&self, id: StateId) -> StateId {
        let Some(state) = self.state(id) else { return id };
        let path = branch::path(&self.branches(), self.tip);
        if path.contains(&id) {
            return id;
        }
        let is_twin = |other: &&StateId| {
            self.state(**other).is_some_and(|other| other.active && other.mark() == state.mark())
        };
        path.iter().find(is_twin).copied().unwrap_or(id)
    }

    /// Takes out the states that are not kept any longer, with the marks of those that the tip came
    /// through.
    pub(in crate::groups) fn expire(&mut self, now: Timestamp) -> Vec<(StateId, Option<Mark>)> {
        let tip = self.tip;
        let tip_epoch = self.state(tip).map_or(0, |state| state.epoch);
        let is_gone = |state: &State| {
            let behind = tip_epoch.saturating_sub(state.epoch);
            let age = state.left_at.map(|left| now.since(left)).unwrap_or_default();
            let recent = age < MIN_PAST_TIME && behind <= MAX_RECENT_EPOCHS;
            state.id != tip && ((behind > MAX_PAST_EPOCHS && !recent) || age >= MAX_PAST_TIME)
        };
        let path = branch::path(&self.branches(), tip);
        let past = |state: &State| path.contains(&state.id).then(|| state.mark());
        let gone: Vec<(StateId, Option<Mark>)> = self
            .states
            .iter()
            .filter(|state| is_gone(state))
            .map(|state| (state.id, past(state)))
            .collect();
        if gone.is_empty() {
            return gone;
        }
        // A new leaf is nothing that has to be done again.
        let passed = self.states.iter().filter(|state| is_gone(state) && path.contains(&state.id));
        let done = passed.flat_map(State::marked_work);
        self.done.extend(done.filter(|(_, work)| *work != LostWork::Updated));
        self.forget_oldest_work();
        self.states.retain(|state| !gone.iter().any(|(id, _)| *id == state.id));
        // The choice starts at the oldest ancestor of the tip that is still here.
        let mut root = tip;
        while let Some(parent) = self.state(root).and_then(|state| state.parent)
            && root != self.root
            && self.state(parent).is_some()
        {
            root = parent;
        }
        self.root = root;
        gone
    }

    pub(super) fn branches(&self) -> Vec<Branch<'_>> {
        self.states
            .iter()
            .map(|state| Branch {
                id: state.id,
                parent: state.parent,
                epoch: state.epoch,
                commit: state.commit.as_ref(),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;

    use super::*;

    const ROOT: StateId = StateId::new([0; 16]);
    const NOW: Timestamp = Timestamp::from_millis(1);

    fn somebody(seed: u64) -> IdentityKey {
        IdentitySecret::generate(&mut Entropy::from_number(seed)).public()
    }

    fn commit(committer: IdentityKey, digest: u8, by_admin: bool) -> Commit {
        let digest = ByteArray::new([digest; 32]);
        Commit { committer, by_admin, removes: Vec::new(), digest }
    }

    #[test]
    fn m06_room_for_a_members_rivals() {
        let (admin, member) = (somebody(1), somebody(2));
        let mut record = Record::new(State::entered(ROOT, None, 0, [0; 32], NOW));
        let mut add = |id: u8, commit: Commit| {
            let mut state = State::entered(StateId::new([id; 16]), Some(ROOT), 1, [id; 32], NOW);
            state.commit = Some(commit);
            record.add(state, NOW);
        };
        add(100, commit(admin, 100, true));
        (1..=32).for_each(|digest| add(digest, commit(member, digest, false)));
        let (highest, next) = (StateId::new([32; 16]), StateId::new([31; 16]));
        let room =
            |digest, by_admin, parent| record.room_for(&commit(member, digest, by_admin), parent);
        assert_eq!(room(0, false, ROOT), Room::InPlaceOf(highest), "the one that would lose goes");
        assert_eq!(room(33, false, ROOT), Room::Outdone);
        assert_eq!(room(0, false, highest), Room::InPlaceOf(next), "what it builds on stays");
        assert_eq!(room(33, false, record.tip()), Room::Free, "what leads on is no rival");
        assert_eq!(room(33, true, ROOT), Room::Free, "admins have room of their own");
        assert_eq!(record.room_for(&commit(somebody(3), 33, false), ROOT), Room::Free);
    }
}
