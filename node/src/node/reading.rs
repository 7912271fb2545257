//! Commands that read the history, and the one that says that it was read.

use std::collections::BTreeMap;

use sremp_common::id::{GroupId, IdentityKey, MessageId};
use sremp_common::time::Now;

use super::sending::parse_message_id;
use super::{Node, NodeError};
use crate::api::{ApiError, MAX_HISTORY, MessageState, Reply};
use crate::conversations::{Conversation, ConversationId, History};
use crate::groups::{ReceiptKind, StateId};
use crate::store::Tx;

/// Messages that one `read` looks through.
const MAX_READ: usize = 1000;

impl Node {
    pub(super) fn message_show(&self, tx: &Tx, id: &str) -> Result<Reply, NodeError> {
        let parsed = parse_message_id(id)?;
        let row = History::find_any(tx, &parsed)?
            .ok_or_else(|| ApiError::not_found(format!("no message has the id {id}")))?;
        Ok(Reply::Message(Box::new(self.message_view(tx, &row, true)?)))
    }

    pub(super) fn history(
        &self,
        tx: &Tx,
        with: &str,
        limit: u32,
        before: Option<&str>,
    ) -> Result<Reply, NodeError> {
        let id = self.resolve_conversation(tx, with)?;
        let before = match before {
            Some(text) => {
                Some(History::find_in(tx, id, &parse_message_id(text)?)?.ok_or_else(|| {
                    ApiError::not_found(format!("no message {text} in this conversation"))
                })?)
            }
            None => None,
        };
        let limit = usize::try_from(limit.min(MAX_HISTORY)).unwrap_or(0);
        let mut views = Vec::new();
        for row in History::page_shown(tx, id, before.as_ref(), limit)? {
            views.push(self.message_view(tx, &row, false)?);
        }
        Ok(Reply::Messages(views))
    }

    /// Everything received so far in a conversation was read: its authors are told.
    pub(super) fn mark_read(&mut self, tx: &Tx, with: &str, now: Now) -> Result<Reply, NodeError> {
        let id = self.resolve_conversation(tx, with)?;
        let mut read: BTreeMap<(GroupId, StateId, IdentityKey), Vec<MessageId>> = BTreeMap::new();
        for mut row in History::page(tx, id, None, MAX_READ)? {
            if row.outgoing || row.state >= MessageState::Read {
                continue;
            }
            row.state = MessageState::Read;
            History::update(tx, &row)?;
            if let (true, Some((group, state))) = (row.receipts, row.sealed_in) {
                read.entry((group, state, row.from)).or_default().push(row.message_id);
            }
        }
        for ((group, state, author), ids) in read {
            self.send_receipt(tx, group, state, author, &ids, ReceiptKind::Read, now)?;
        }
        Ok(Reply::Done {})
    }

    pub(super) fn group_list(&mut self, tx: &Tx) -> Result<Reply, NodeError> {
        let mut rows = Vec::new();
        for conversation in Conversation::all(tx)? {
            if let ConversationId::Group(group) = conversation.id {
                rows.push(self.group_row(tx, &conversation, &group)?);
            }
        }
        Ok(Reply::Groups(rows))
    }
}
