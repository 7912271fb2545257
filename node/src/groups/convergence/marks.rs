//! Where members stand, as they tell each other in pairs, and what follows from a comparison.
//!
//! A mark names a state without giving anything away but to members: two members have the same
//! `epoch_authenticator` exactly when they are in the same state (RFC 9420 section 8.7).

use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sremp_common::wire::List;

use super::branch;
use super::record::Record;
use crate::groups::StateId;

/// Marks that one member tells another: more than the epochs that anybody keeps.
pub(super) const MAX_MARKS: usize = 72;
/// Rival commits that are brought to whoever chooses otherwise than we.
const MAX_RIVALS: usize = 64;

/// One state of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// Its epoch.
    pub epoch: u64,
    /// Its epoch authenticator.
    pub authenticator: ByteArray<32>,
}

/// The tip of a member, then the retained states that it came through, youngest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks(pub List<Mark, MAX_MARKS>);

impl Marks {
    /// Where the member stands; none in an empty list.
    #[must_use]
    pub fn tip(&self) -> Option<Mark> {
        self.0.first().copied()
    }
}

/// What a comparison of our tree with another member's marks shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Both stand in one state.
    Same,
    /// They stand where we came through, and need our commits from this state on.
    TheyMiss(StateId),
    /// They stand on a branch that has lost here: they need ours from this state on, and whatever else
    /// it lost to.
    OnLostBranch(StateId),
    /// We need theirs.
    WeMiss,
    /// Each needs the other's, from this state on: the rules will settle it.
    Diverged(StateId),
    /// They stand where we once were, and we keep no state from which they could follow: they have to
    /// come back from outside.
    TheyAreLost,
    /// No state in common: one of both has to come back from outside.
    Unrelated,
}

impl Record {
    /// What we tell other members.
    pub(in crate::groups) fn marks(&self) -> Marks {
        let path = branch::path(&self.branches(), self.tip());
        let marks =
            path.into_iter().filter_map(|id| self.state(id)).map(super::record::State::mark);
        Marks(List::truncated(marks.collect()))
    }

    /// Compares with what another member told. `was_ours` says whether their tip is one that we came
    /// through and do not keep any more.
    pub(in crate::groups) fn compare(&self, theirs: &Marks, was_ours: bool) -> Standing {
        let Some(their_tip) = theirs.tip() else { return Standing::Unrelated };
        let path = branch::path(&self.branches(), self.tip());
        let on_path = path.iter().filter_map(|id| self.state(*id));
        let common = on_path.into_iter().find(|state| theirs.0.contains(&state.mark()));
        let known = self.states().iter().any(|state| state.mark() == their_tip);
        match common {
            Some(common) if common.id == self.tip() && common.mark() == their_tip => Standing::Same,
            Some(common) if common.id == self.tip() => Standing::WeMiss,
            Some(common) if common.mark() == their_tip => Standing::TheyMiss(common.id),
            Some(common) if known => Standing::OnLostBranch(common.id),
            Some(common) => Standing::Diverged(common.id),
            None if was_ours => Standing::TheyAreLost,
            // Also when we keep their tip as a rival: they cannot follow the rules that it lost by, so
            // both choose by who stands where.
            None => Standing::Unrelated,
        }
    }

    /// The states that descend from `from` on branches that have lost, oldest first. A commit can
    /// decide between others and lose itself: two who removed each other both lose to a third.
    pub(in crate::groups) fn rivals_after(&self, from: StateId) -> Vec<StateId> {
        let branches = self.branches();
        let way = branch::path(&branches, self.tip());
        let mut rivals: Vec<_> = branches
            .iter()
            .filter(|rival| !way.contains(&rival.id))
            .filter(|rival| branch::is_ancestor(&branches, from, rival.id))
            .map(|rival| {
                let by_admin = rival.commit.is_some_and(|commit| commit.by_admin);
                let removes = rival.commit.is_some_and(|commit| !commit.removes.is_empty());
                // What decides by itself first: nobody without rights can push it out.
                (!(by_admin && removes), !by_admin, rival.epoch, rival.id)
            })
            .collect();
        rivals.sort_unstable();
        rivals.truncate(MAX_RIVALS);
        rivals.sort_unstable_by_key(|(_, _, epoch, id)| (*epoch, *id));
        rivals.into_iter().map(|(_, _, _, id)| id).collect()
    }

    /// The states from below `from` up to the tip, oldest first.
    pub(in crate::groups) fn after(&self, from: StateId) -> Vec<StateId> {
        let mut path = branch::path(&self.branches(), self.tip());
        path.truncate(path.iter().position(|id| *id == from).unwrap_or(0));
        path.reverse();
        path
    }
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;
    use sremp_common::time::Timestamp;

    use super::super::branch::Commit;
    use super::super::record::State;
    use super::*;

    fn state(number: u8, parent: Option<u8>, epoch: u64) -> State {
        let id = |number| StateId::new([number; 16]);
        let time = Timestamp::default();
        let mut state = State::entered(id(number), parent.map(id), epoch, [number; 32], time);
        state.commit = Some(Commit {
            committer: IdentitySecret::generate(&mut Entropy::from_number(1)).public(),
            by_admin: true,
            removes: Vec::new(),
            digest: ByteArray::new([number; 32]),
        });
        state
    }

    fn mark(number: u8, epoch: u64) -> Mark {
        Mark { epoch, authenticator: ByteArray::new([number; 32]) }
    }

    fn marks(list: &[(u8, u64)]) -> Marks {
        Marks(List::truncated(list.iter().map(|(number, epoch)| mark(*number, *epoch)).collect()))
    }

    #[test]
    fn every_way_to_stand_to_each_other_is_told_apart() {
        let mut record = Record::new(state(1, None, 4));
        record.add(state(2, Some(1), 5), Timestamp::default());
        record.add(state(3, Some(2), 6), Timestamp::default());
        let from = StateId::new;
        assert_eq!(record.marks(), marks(&[(3, 6), (2, 5), (1, 4)]));
        let cases = [
            (marks(&[(3, 6), (2, 5)]), false, Standing::Same),
            (marks(&[(2, 5), (1, 4)]), false, Standing::TheyMiss(from([2; 16]))),
            (marks(&[(9, 7), (3, 6)]), false, Standing::WeMiss),
            (marks(&[(9, 6), (8, 5), (1, 4)]), false, Standing::Diverged(from([1; 16]))),
            (marks(&[(7, 2), (6, 1)]), true, Standing::TheyAreLost),
            (marks(&[(7, 2), (6, 1)]), false, Standing::Unrelated),
            (marks(&[]), false, Standing::Unrelated),
        ];
        for (theirs, was_ours, standing) in cases {
            assert_eq!(record.compare(&theirs, was_ours), standing, "{theirs:?}");
        }
        assert_eq!(record.after(from([1; 16])), [from([2; 16]), from([3; 16])]);
        assert_eq!(record.after(from([3; 16])), []);

        // A branch of two commits beats one of one, which is kept.
        record.add(state(5, Some(2), 6), Timestamp::default());
        record.add(state(4, Some(3), 7), Timestamp::default());
        let rival = marks(&[(5, 6), (2, 5), (1, 4)]);
        assert_eq!(record.compare(&rival, false), Standing::OnLostBranch(from([2; 16])));
        assert_eq!(record.rivals_after(from([2; 16])), [from([5; 16])]);
        assert_eq!(record.rivals_after(from([3; 16])), []);
    }
}
