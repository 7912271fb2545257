//! What others wrote, once it is decrypted: filed in the history, or done to what is there. Nothing
//! here depends on the order in which contents come.

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::Now;

use super::changing::Change;
use super::{Node, NodeError};
use crate::api::MessageState;
use crate::conversations::{Content, Conversation, History, Kind, MessageRow, RowKind};
use crate::delivery::Verdict;
use crate::groups::StateId;
use crate::store::Tx;

/// Where a content came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The author, as MLS authenticated it.
    pub(super) sender: IdentityKey,
    /// The group and the state that it came under.
    pub(super) sealed_in: (GroupId, StateId),
    /// Its author is told that it came.
    pub(super) receipts: bool,
}

impl Node {
    /// Files a content that has not come before; whatever comes again changes nothing.
    pub(super) fn file_content(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        origin: Origin,
        content: &Content,
        kind: Kind,
        now: Now,
    ) -> Result<Verdict, NodeError> {
        if let Some(change) = Change::read(conversation.id, &origin.sender, &kind) {
            conversation.witness_lamport(content.lamport, now.wall);
            conversation.save(tx)?;
            return self.change(tx, &origin.sender, change, content.into(), now);
        }
        if History::has_seen(tx, &content.message_id, &origin.sender)? {
            // Sent again, because its first copy was lost on a branch or its receipt on the way:
            // the ratchet has moved, so this is applied, but shown once.
            return Ok(Verdict::Applied);
        }
        let lamport = conversation.witness_lamport(content.lamport, now.wall);
        let place = (lamport, origin.sender, content.message_id);
        let (unknown, state) = (RowKind::Unknown, MessageState::Delivered);
        let mut row = MessageRow {
            received_at: Some(now.wall),
            sealed_in: Some(origin.sealed_in),
            receipts: origin.receipts,
            ..MessageRow::new(conversation.id, place, unknown, state, content.sent_at)
        };
        match kind {
            Kind::Text(body) => {
                row.kind = RowKind::Text;
                row.text = body.text.into_string();
                row.reply_to = body.reply_to;
            }
            Kind::FadingText(body) => {
                row.kind = RowKind::Text;
                row.text = body.text.into_string();
                row.reply_to = body.reply_to;
                row.lifetime = Some(body.lifetime);
            }
            Kind::Timer(body) => {
                row.kind = RowKind::Timer;
                row.lifetime = body.lifetime;
            }
            Kind::Reaction(_)
            | Kind::Edit(_)
            | Kind::Delete(_)
            | Kind::Profile(_)
            | Kind::Unknown(_) => {}
        }
        self.file_row(tx, conversation, row, now)?;
        Ok(Verdict::Applied)
    }

    /// Writes a line of the history that is new, ours or another's, and tells of it.
    pub(super) fn file_row(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        mut row: MessageRow,
        now: Now,
    ) -> Result<(), NodeError> {
        if row.kind == RowKind::Timer {
            conversation.set_timer(&row);
        } else if let Some(lifetime) = row.lifetime {
            let received_at = row.received_at.unwrap_or(row.sent_at);
            row.vanishes_at = Some(lifetime.end(row.sent_at, received_at));
        }
        conversation.save(tx)?;
        self.meet_changes(tx, &mut row)?;
        History::save(tx, &row)?;
        self.let_vanish(tx, &row, now);
        if row.kind == RowKind::Deleted {
            return Ok(());
        }
        if !row.outgoing {
            self.has_written(tx, row.conversation, row.from, now)?;
        }
        row.told.push(self.tell_message(tx, &row, now)?);
        Ok(History::update(tx, &row)?)
    }
}
