//! Former members: the key by which each of them signed last.
//!
//! Whoever is removed while it is away may come back when nobody keeps a state in which it was a member
//! any more, and asks where everybody is. By this its question is told from a stranger's, and can be
//! answered. It proves nothing else: no message, commit or other note is taken by it.

use serde_bytes::ByteArray;
use sremp_common::id::{GroupId, IdentityKey};

use super::view::View;
use super::{GroupError, GroupEvent, Groups};
use crate::store::{StoreError, Table, Tx, decode_row};

/// Former members of a group that are remembered; those who went first are forgotten first.
const MAX_FORMER: usize = 256;

/// When a member went, by the epoch of our tip, and its last leaf key.
type Row = (u64, ByteArray<32>);

fn former_key(group: &GroupId, who: &IdentityKey) -> Vec<u8> {
    [group.as_bytes().as_slice(), who.as_bytes()].concat()
}

impl Groups {
    /// The tip moved between two states that differ by `events`.
    pub(super) fn note_former(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        before: &View,
        events: &[GroupEvent],
    ) -> Result<(), GroupError> {
        let mut any_gone = false;
        for event in events {
            if let GroupEvent::Removed(who) | GroupEvent::Left(who) = event
                && let Some(member) = before.member(who)
            {
                let epoch = self.mark(tx, group)?.map_or(0, |mark| mark.epoch);
                let row: Row = (epoch, ByteArray::new(member.leaf_key));
                tx.write(Table::GroupFormer, &former_key(group, who), &row)?;
                any_gone = true;
            } else if let GroupEvent::Added(who) = event {
                tx.delete(Table::GroupFormer, &former_key(group, who));
            }
        }
        if any_gone { Ok(Self::forget_former(tx, group, MAX_FORMER)?) } else { Ok(()) }
    }

    /// The key by which a former member signed last, if it is remembered.
    pub(super) fn former_leaf_key(
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
    ) -> Result<Option<[u8; 32]>, StoreError> {
        let row: Option<Row> = tx.read(Table::GroupFormer, &former_key(group, who))?;
        Ok(row.map(|(_, leaf_key)| leaf_key.into_array()))
    }

    /// Forgets all but so many, those who went first.
    pub(super) fn forget_former(tx: &Tx, group: &GroupId, but: usize) -> Result<(), StoreError> {
        let mut kept = Vec::new();
        for (key, value) in tx.scan_prefix(Table::GroupFormer, group.as_bytes(), usize::MAX)? {
            let (epoch, _): Row = decode_row(Table::GroupFormer, &value)?;
            kept.push((epoch, key));
        }
        kept.sort_unstable();
        let too_many = kept.len().saturating_sub(but);
        for (_, key) in kept.into_iter().take(too_many) {
            tx.delete(Table::GroupFormer, &key);
        }
        Ok(())
    }
}
