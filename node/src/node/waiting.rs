//! Why an own message has not arrived yet: what happened, and what will. Words for its owner, made
//! when they are asked for; nothing here decides anything.

use sremp_common::id::IdentityKey;

use super::{Node, NodeError};
use crate::api::{MessageState, PathPolicy};
use crate::conversations::{Conversation, ConversationId, MessageRow};
use crate::delivery::Way;
use crate::identity::Reach;
use crate::store::Tx;

/// What all reasons end with: nothing has to be done for a retry.
const BY_ITSELF: &str = "it is tried again by itself";

impl Node {
    /// What an own message waits for, as far as there is something to say.
    pub(super) fn waits_for(&self, tx: &Tx, row: &MessageRow) -> Result<Option<String>, NodeError> {
        if !row.outgoing || row.state != MessageState::Queued {
            return Ok(None);
        }
        if row.sealed_in.is_none() {
            return self.waits_to_be_sealed(tx, row);
        }
        let mut first = None;
        let mut others = 0_usize;
        for (who, state) in &row.recipients {
            if *state != MessageState::Queued {
                continue;
            }
            match (self.waits_at(tx, who)?, &first) {
                (Some(why), None) => first = Some((*who, why)),
                (Some(_), Some(_)) => others = others.saturating_add(1),
                (None, _) => {}
            }
        }
        let Some((who, why)) = first else { return Ok(None) };
        if matches!(row.conversation, ConversationId::Contact(_)) {
            return Ok(Some(why));
        }
        let name = self.name_of(tx, &who)?;
        Ok(Some(match others {
            0 => format!("{name}: {why}"),
            1 => format!("{name}: {why} (and 1 other)"),
            _ => format!("{name}: {why} (and {others} others)"),
        }))
    }

    /// Why nothing gets through to somebody; nothing to say while an attempt is under way.
    pub(super) fn waits_at(&self, tx: &Tx, who: &IdentityKey) -> Result<Option<String>, NodeError> {
        let Some(lane) = self.lanes.get(who) else { return Ok(None) };
        let reach = Reach::of(tx, who)?;
        let policy = self.path_policy(tx, who)?;
        let node = match (policy, lane.trouble(Way::Direct)) {
            (PathPolicy::Relay, _) => {
                "their node: not used, because the path is `relay`".to_owned()
            }
            (_, Some(trouble)) => format!("their node: {trouble}"),
            (_, None) if reach.addresses.is_empty() && !self.transport.has_session(who) => {
                "their node: no address is known".to_owned()
            }
            (_, None) => return Ok(None),
        };
        let relays = match (policy, lane.trouble(Way::Relay)) {
            (PathPolicy::Direct, _) => "relays: not used, because the path is `direct`".to_owned(),
            (_, _) if reach.relays.is_empty() => "relays: they have none".to_owned(),
            (_, Some(trouble)) => format!("their relay: {trouble}"),
            (_, None) => return Ok(None),
        };
        Ok(Some(format!("{node}; {relays}; {BY_ITSELF}")))
    }

    /// What a message waits for that could not even be encrypted yet.
    fn waits_to_be_sealed(&self, tx: &Tx, row: &MessageRow) -> Result<Option<String>, NodeError> {
        if self.unproved_until.is_some() || self.mailboxes.values().any(|mailbox| mailbox.taken) {
            let why = "a relay is asked whether another copy of this home has sent since; it goes out after that";
            return Ok(Some(why.to_owned()));
        }
        if let ConversationId::Contact(peer) = row.conversation
            && let Some(fetch) = self.fetches.get(&peer)
        {
            return Ok(Some(fetch.reason()));
        }
        let groups = Conversation::find(tx, row.conversation)?.map(|found| found.groups);
        for group in groups.unwrap_or_default() {
            if let Some(healing) = self.healing_view(&group) {
                return Ok(Some(format!("{}; it goes out when that is healed", healing.why)));
            }
            if self.unsettled.contains_key(&group) {
                let why = "members change the group at this moment; it goes out after that";
                return Ok(Some(why.to_owned()));
            }
        }
        let waits_for_members = matches!(row.conversation, ConversationId::Group(_));
        Ok(waits_for_members
            .then(|| "nobody has joined yet; it goes out when somebody has".to_owned()))
    }
}
