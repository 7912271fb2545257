//! Records and states between store and memory: loading, caching, copying, deleting.

use std::collections::BTreeMap;
use std::sync::Arc;

use openmls::prelude::{GroupId as MlsGroupId, MlsGroup};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use sremp_common::hash::{labelled_hash, sha256};
use sremp_common::id::GroupId;
use sremp_common::label::{HashLabel, MLS_EXPORTER};
use sremp_common::time::{Now, Timestamp};

use super::convergence::branch::Commit;
use super::convergence::marks::Mark;
use super::convergence::record::{MAX_STATES, Record, Room, State};
use super::index::{Entry, TagIndex};
use super::message::fail;
use super::storage::Storage;
use super::view::View;
use super::wrap::WrapKeys;
use super::{GroupError, Groups, MAX_GROUPS, OpenError, StateId};
use crate::store::{StoreError, Table, Tx, decode_row};

/// Loaded states.
const MAX_LOADED: usize = 256;

/// Members of all loaded states together. A state takes some kilobytes for each member.
const MAX_LOADED_MEMBERS: usize = 4096;

/// Proposals that are kept of one state.
const MAX_PROPOSALS: usize = 64;

/// Epochs whose marks are remembered.
const MAX_MARKED_EPOCHS: u64 = 4096;
/// Epochs behind the tip whose marks are told to whoever comes back.
pub(super) const LINEAGE: usize = 64;

/// Records in memory.
const MAX_RECORDS: usize = 1024;

/// A state in memory.
pub(super) struct Loaded {
    pub(super) mls: MlsGroup,
    pub(super) view: Arc<View>,
    /// None once we were removed: there is no exporter then.
    pub(super) keys: Option<WrapKeys>,
    used: u64,
}

/// OpenMLS shows the leaves' extensions as bytes, and with them the members' tokens.
impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("view", &self.view).finish_non_exhaustive()
    }
}

/// Row of table `GroupStates`.
#[derive(Serialize, Deserialize)]
struct StateRow {
    group: ByteArray<16>,
    keys: WrapKeys,
}

/// The id of the state that `commit` makes of `parent`.
pub(super) fn child_id(parent: StateId, commit: &[u8]) -> StateId {
    state_id(parent.as_bytes(), commit)
}

/// The id of a state that no commit of ours leads to: the one that we created (`context` is empty), or
/// that a Welcome led us into (`context` is the MLS group context, different in every state).
pub(super) fn root_id(group: &GroupId, context: &[u8]) -> StateId {
    state_id(group.as_bytes(), context)
}

fn state_id(ctx: &[u8], body: &[u8]) -> StateId {
    let mut id = [0; 16];
    let hash = labelled_hash(HashLabel::StateId, ctx, body);
    id.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    StateId::new(id)
}

/// A state as it was entered just now.
pub(super) fn entered(id: StateId, parent: Option<StateId>, mls: &MlsGroup, now: Now) -> State {
    let mark = mark_of(mls);
    State::entered(id, parent, mark.epoch, mark.authenticator.into_array(), now.wall)
}

/// Epoch and epoch authenticator; zeros in place of the latter when we are no member.
fn mark_of(mls: &MlsGroup) -> Mark {
    let authenticator = mls.is_active().then(|| mls.epoch_authenticator().as_slice());
    let authenticator = authenticator.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
    Mark { epoch: mls.epoch().as_u64(), authenticator: ByteArray::new(authenticator) }
}

fn past_key(group: &GroupId, epoch: u64) -> Vec<u8> {
    [group.as_bytes().as_slice(), &epoch.to_be_bytes()].concat()
}

/// The row of our own proposal in a state; those of others have their digest in place of the zeros.
pub(super) fn own_proposal(state: StateId) -> Vec<u8> {
    [state.as_bytes().as_slice(), &[0; 32]].concat()
}

/// Our id of a group as MLS has it.
pub(super) fn mls_id(group: &GroupId) -> MlsGroupId {
    MlsGroupId::from_slice(group.as_bytes())
}

impl Groups {
    /// The group's record.
    pub(super) fn record(&mut self, tx: &Tx, group: &GroupId) -> Result<&Record, GroupError> {
        self.find_record(tx, group)?.ok_or(GroupError::NoSuchGroup)
    }

    /// The group's record, if there is one.
    pub(super) fn find_record(
        &mut self,
        tx: &Tx,
        group: &GroupId,
    ) -> Result<Option<&Record>, StoreError> {
        if !self.records.contains_key(group) {
            let Some(record) = tx.read(Table::Groups, group.as_bytes())? else { return Ok(None) };
            if self.records.len() >= MAX_RECORDS {
                let touched = &self.touched_records;
                self.records.retain(|group, _| touched.contains(group));
            }
            self.records.insert(*group, record);
        }
        Ok(self.records.get(group))
    }

    /// Writes the group's record, in memory and in the store.
    pub(super) fn save_record(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        record: Record,
    ) -> Result<(), StoreError> {
        tx.write(Table::Groups, group.as_bytes(), &record)?;
        self.touched_records.insert(*group);
        self.records.insert(*group, record);
        Ok(())
    }

    /// Takes a state out of memory, or loads it. Whoever takes it puts it back ([`Self::put`] when it was
    /// only read, [`Self::put_changed`] otherwise), unless an operation on it failed.
    pub(super) fn take(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        state: StateId,
    ) -> Result<Loaded, GroupError> {
        match self.loaded.remove(&state) {
            Some(loaded) => Ok(loaded),
            None => {
                let storage = Storage::new(tx, state);
                let mls = MlsGroup::load(&storage, &mls_id(group))?.ok_or(GroupError::StateGone)?;
                let noted = self.record(tx, group)?.state(state).map(State::mark);
                if noted.is_some_and(|noted| noted != mark_of(&mls)) {
                    return Err(GroupError::Mls("a stored state is not the one that was stored"));
                }
                self.loaded_from(mls)
            }
        }
    }

    /// A group that OpenMLS has just made, with what we derive from it.
    pub(super) fn loaded_from(&self, mls: MlsGroup) -> Result<Loaded, GroupError> {
        let view = Arc::new(View::of(&mls, &self.own, &self.certificates)?);
        let keys = if mls.is_active() {
            let exported = mls.export_secret(&self.engine.crypto, MLS_EXPORTER, &[], 32);
            Some(WrapKeys::derive(&exported.map_err(|_| GroupError::Mls("exporter"))?))
        } else {
            None
        };
        Ok(Loaded { mls, view, keys, used: 0 })
    }

    /// Puts a state back that was only read.
    pub(super) fn put(&mut self, state: StateId, mut loaded: Loaded) {
        self.uses = self.uses.saturating_add(1);
        loaded.used = self.uses;
        while self.is_crowded(loaded.view.members.len())
            && let Some(oldest) = self.loaded.iter().min_by_key(|(_, loaded)| loaded.used)
        {
            // What is in the store is as new: every operation writes through.
            let oldest = *oldest.0;
            self.loaded.remove(&oldest);
        }
        self.loaded.insert(state, loaded);
    }

    fn is_crowded(&self, more: usize) -> bool {
        let members = self.loaded.values().map(|loaded| loaded.view.members.len());
        self.loaded.len() >= MAX_LOADED
            || members.sum::<usize>().saturating_add(more) > MAX_LOADED_MEMBERS
    }

    /// Puts a state back that was changed: dropped again when the input is refused.
    pub(super) fn put_changed(&mut self, state: StateId, loaded: Loaded) {
        self.touched_states.insert(state);
        self.put(state, loaded);
    }

    /// Members and rules of a state.
    pub(super) fn view(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        state: StateId,
    ) -> Result<Arc<View>, GroupError> {
        let loaded = self.take(tx, group, state)?;
        let view = Arc::clone(&loaded.view);
        self.put(state, loaded);
        Ok(view)
    }

    /// Makes a new state findable by its tags, and keeps it in memory.
    pub(super) fn enter(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        state: StateId,
        loaded: Loaded,
    ) -> Result<(), StoreError> {
        if let Some(keys) = loaded.keys {
            self.index(tx)?.add(Entry { state, group: *group, keys });
            let row = StateRow { group: ByteArray::new(*group.as_bytes()), keys };
            tx.write(Table::GroupStates, state.as_bytes(), &row)?;
        }
        self.put_changed(state, loaded);
        Ok(())
    }

    /// The tag index, read from the store at its first use.
    pub(super) fn index(&mut self, tx: &Tx) -> Result<&mut TagIndex, StoreError> {
        if self.index.is_none() {
            let limit = MAX_GROUPS.saturating_mul(MAX_STATES);
            let mut entries = Vec::new();
            for (key, value) in tx.scan(Table::GroupStates, &[], None, limit)? {
                let damaged = || StoreError::Row(Table::GroupStates);
                let state = StateId::new(key.try_into().map_err(|_| damaged())?);
                let row: StateRow = rmp_serde::from_slice(&value).map_err(|_| damaged())?;
                let group = GroupId::new(row.group.into_array());
                entries.push(Entry { state, group, keys: row.keys });
            }
            self.index = Some(TagIndex::new(entries));
        }
        Ok(self.index.get_or_insert_default())
    }

    /// Adds the state of a commit to the record, drops what is too far behind, and says what that did
    /// to the tip.
    pub(super) fn settle(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        state: State,
        now: Timestamp,
    ) -> Result<super::convergence::record::Settled, GroupError> {
        let mut record = self.record(tx, group)?.clone();
        let settled = record.add(state, now);
        let gone = record.expire(now);
        self.save_record(tx, group, record)?;
        self.leave_behind(tx, group, &gone)?;
        Ok(settled)
    }

    /// Makes room for the state of another's commit, if there can be any.
    pub(super) fn make_room(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        commit: &Commit,
        parent: StateId,
    ) -> Result<(), OpenError> {
        let record = self.record(tx, group).map_err(|error| fail(*group, error))?;
        match record.room_for(commit, parent) {
            Room::Free => Ok(()),
            Room::Full => Err(OpenError::TooManyRivals(*group)),
            Room::Outdone => Err(OpenError::Outdone(*group)),
            Room::InPlaceOf(other) => {
                let mut record = record.clone();
                record.take_out(other);
                self.save_record(tx, group, record)?;
                Ok(self.delete_states(tx, &[other])?)
            }
        }
    }

    pub(super) fn expire_states(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        now: Timestamp,
    ) -> Result<(), GroupError> {
        let mut record = self.record(tx, group)?.clone();
        let gone = record.expire(now);
        if !gone.is_empty() {
            self.save_record(tx, group, record)?;
            self.leave_behind(tx, group, &gone)?;
        }
        Ok(())
    }

    /// Deletes states, and remembers the marks of those that the tip came through: so that it is
    /// known of whoever still stands there that they are behind.
    fn leave_behind(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        gone: &[(StateId, Option<Mark>)],
    ) -> Result<(), StoreError> {
        for mark in gone.iter().filter_map(|(_, past)| *past) {
            tx.write(Table::GroupPast, &past_key(group, mark.epoch), &mark.authenticator)?;
            if let Some(long_ago) = mark.epoch.checked_sub(MAX_MARKED_EPOCHS) {
                tx.delete(Table::GroupPast, &past_key(group, long_ago));
            }
        }
        let states: Vec<StateId> = gone.iter().map(|(state, _)| *state).collect();
        self.delete_states(tx, &states)
    }

    /// Keeps a wrapped proposal that was made in a state, for whoever misses it.
    pub(super) fn keep_proposal(tx: &Tx, state: StateId, wrapped: &[u8]) -> Result<(), StoreError> {
        let kept = tx.scan_prefix(Table::GroupProposals, state.as_bytes(), MAX_PROPOSALS)?;
        if kept.len() < MAX_PROPOSALS {
            let key = [state.as_bytes().as_slice(), &sha256(wrapped)].concat();
            tx.put(Table::GroupProposals, &key, wrapped.to_vec());
        }
        Ok(())
    }

    /// Keeps our own proposal to leave: to be said again, and for whoever misses it.
    pub(super) fn keep_own_proposal(tx: &Tx, state: StateId, wrapped: &[u8]) {
        tx.put(Table::GroupProposals, &own_proposal(state), wrapped.to_vec());
    }

    /// Whether the group came through this state and does not keep it any more.
    pub(super) fn was_ours(tx: &Tx, group: &GroupId, mark: &Mark) -> Result<bool, StoreError> {
        let known = tx.read::<ByteArray<32>>(Table::GroupPast, &past_key(group, mark.epoch))?;
        Ok(known == Some(mark.authenticator))
    }

    /// What the tip came through, youngest first: what is in memory, and then what is noted of states
    /// that are gone. Not the tip itself.
    pub(super) fn lineage(
        tx: &Tx,
        group: &GroupId,
        known: Vec<Mark>,
    ) -> Result<Vec<Mark>, StoreError> {
        let mut marks: BTreeMap<u64, Mark> = BTreeMap::new();
        let tip = known.first().map_or(0, |mark| mark.epoch);
        for mark in known {
            marks.entry(mark.epoch).or_insert(mark);
        }
        let oldest = tip.saturating_sub(u64::try_from(LINEAGE).unwrap_or(u64::MAX));
        let from = past_key(group, oldest);
        let until = past_key(group, tip);
        for (key, value) in tx.scan(Table::GroupPast, &from, Some(&until), usize::MAX)? {
            let epoch = key.last_chunk().copied().map_or(0, u64::from_be_bytes);
            let authenticator = decode_row(Table::GroupPast, &value)?;
            marks.entry(epoch).or_insert(Mark { epoch, authenticator });
        }
        Ok(marks.into_values().rev().filter(|mark| mark.epoch < tip).collect())
    }

    /// Forgets what the tip came through.
    pub(super) fn forget_past(tx: &Tx, group: &GroupId) -> Result<(), StoreError> {
        for (key, _) in tx.scan_prefix(Table::GroupPast, group.as_bytes(), usize::MAX)? {
            tx.delete(Table::GroupPast, &key);
        }
        Ok(())
    }

    fn delete_states(&mut self, tx: &Tx, states: &[StateId]) -> Result<(), StoreError> {
        for state in states {
            // First, because the index may be read from the rows here.
            self.index(tx)?.remove(*state);
            tx.delete(Table::GroupStates, state.as_bytes());
            tx.delete(Table::GroupCommits, state.as_bytes());
            for (key, _) in tx.scan_prefix(Table::GroupProposals, state.as_bytes(), usize::MAX)? {
                tx.delete(Table::GroupProposals, &key);
            }
            Storage::new(tx, *state).delete_all()?;
            self.loaded.remove(state);
        }
        Ok(())
    }

    /// Deletes everything about a group. Welcomes that were used stay known as used.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn forget(&mut self, tx: &Tx, group: &GroupId) -> Result<(), GroupError> {
        let states: Vec<StateId> =
            self.record(tx, group)?.states().iter().map(|state| state.id).collect();
        self.delete_states(tx, &states)?;
        Self::forget_past(tx, group)?;
        Self::forget_former(tx, group, 0)?;
        tx.delete(Table::Groups, group.as_bytes());
        self.records.remove(group);
        Ok(())
    }
}
