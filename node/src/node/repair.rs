//! Messages that a mailbox took and nobody confirmed, although later ones were confirmed: sent again.
//!
//! A blob can come too late to be read: it lay at a relay that was down, while more than 256 others
//! of its epoch took another path, and its key is gone. Its author still has the text. What was
//! acknowledged is never lost: it is encrypted again under the same message id, and whoever has it
//! already shows it once.

use std::collections::BTreeMap;
use std::time::Duration;

use sremp_common::id::IdentityKey;
use sremp_common::time::Now;

use super::{Node, NodeError};
use crate::api::MessageState;
use crate::conversations::{Conversation, ConversationId, History, Standing};
use crate::store::Tx;

/// Age at which an unconfirmed message is sent again, and the pause between two looks.
const REPAIR_AFTER: Duration = Duration::from_secs(10);
/// Messages of a conversation that one look goes through.
const LOOKED_AT: usize = 2000;
/// Messages that one look sends again.
const MAX_RESENT: usize = 200;

impl Node {
    /// Receipts came in a conversation: its other messages are looked at a little later.
    pub(super) fn confirmed_in(&mut self, conversation: ConversationId, now: Now) {
        self.confirmed.insert(conversation);
        self.repair_at.get_or_insert(now.instant + REPAIR_AFTER);
    }

    /// Looks at the conversations in which receipts came. Without receipts nothing is sent again:
    /// whoever is away needs no second copy.
    pub(super) fn repair(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        if self.repair_at.is_none_or(|at| at > now.instant) {
            return Ok(());
        }
        self.repair_at = None;
        for id in std::mem::take(&mut self.confirmed) {
            if let Some(conversation) = Conversation::find(tx, id)?
                && conversation.standing == Standing::Active
            {
                self.repair_conversation(tx, &conversation, now)?;
            }
        }
        Ok(())
    }

    fn repair_conversation(
        &mut self,
        tx: &Tx,
        conversation: &Conversation,
        now: Now,
    ) -> Result<(), NodeError> {
        let rows = History::page(tx, conversation.id, None, LOOKED_AT)?;
        let mut newest: BTreeMap<IdentityKey, u64> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.outgoing) {
            for (key, state) in &row.recipients {
                if matches!(state, MessageState::Delivered | MessageState::Read) {
                    newest.insert(*key, row.lamport);
                }
            }
        }
        let mut resent = 0_usize;
        for mut row in rows {
            let Some((group, _)) = row.sealed_in else { continue };
            let old = now.wall.since(row.sent_at) > REPAIR_AFTER;
            if !row.outgoing || !row.receipts || !old || resent >= MAX_RESENT {
                continue;
            }
            let members = self.groups.summary(tx, &group)?;
            let missed = row.recipients.iter().any(|(key, state)| {
                *state == MessageState::Sent
                    && members.member(key).is_some()
                    && newest.get(key).is_some_and(|lamport| *lamport > row.lamport)
            });
            if missed {
                resent = resent.saturating_add(1);
                self.seal_message(tx, &group, &mut row, now)?;
            }
        }
        if resent > 0 {
            tracing::info!(resent, "messages that were not confirmed were sent again");
        }
        Ok(())
    }
}
