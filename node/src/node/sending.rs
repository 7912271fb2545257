//! Own messages: durable before anything else, encrypted as soon as there is somebody to read
//! them, sent again when the branch that they were encrypted on is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use sremp_common::id::{GroupId, IdentityKey, MessageId};
use sremp_common::limit::{MAX_RECEIPT_MEMBERS, MAX_TEXT};
use sremp_common::time::Now;
use sremp_common::wire::Text;

use super::changing::kind_of_change;
use super::{Node, NodeError};
use crate::api::{ApiError, MessageState, Reply, SentView};
use crate::conversations::content::{FadingTextBody, TextBody, TimerBody};
use crate::conversations::{
    Content, Conversation, ConversationId, History, Invites, Kind, LastHeard, MessageRow, RowKind,
    Standing,
};
use crate::delivery::outbox::MAX_PARCELS;
use crate::delivery::{Outbox, Purpose};
use crate::groups::{Change, GroupKind, MAX_PAST_TIME, StateId, Suite};
use crate::identity::Contacts;
use crate::store::{Table, Tx};

/// Own messages after which the leaf keys are renewed: the promise of healing after a compromise.
const UPDATE_AFTER_MESSAGES: u32 = 100;
/// How many messages earlier some members renew them.
const UPDATE_SPREAD: u32 = 20;
/// How much earlier some do by time.
const UPDATE_SPREAD_TIME: Duration = Duration::from_secs(3600);
/// Renewals without an echo: states are kept for eight epochs.
const MAX_UNHEARD: u32 = 5;
/// Age at which they are renewed with the next message.
const UPDATE_AFTER: Duration = Duration::from_secs(7 * 86_400);
/// Messages of one conversation that may wait to be encrypted.
const MAX_INTENTS: usize = 10_000;
/// Own messages that are looked through when a branch is lost, or somebody comes back.
const MAX_RESENT: usize = 1000;
/// Those of them that may be sent again although nobody says who lacks them,
const MAX_RESENT_BLINDLY: usize = 200;
/// and copies of those to all members.
const MAX_BLIND_COPIES: usize = 20_000;

impl Node {
    pub(super) fn send(
        &mut self,
        tx: &Tx,
        to: &str,
        text: &str,
        reply_to: Option<&str>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        if text.trim().is_empty() {
            return Err(ApiError::usage("an empty message says nothing; type a text").into());
        }
        let text = Text::<MAX_TEXT>::new(text).map_err(|_| {
            ApiError::usage(format!("a message has at most {MAX_TEXT} bytes; send it in parts"))
        })?;
        self.require_room(tx)?;
        let id = self.resolve_conversation(tx, to)?;
        let mut conversation = self.writable(tx, id)?;
        let reply_to = self.resolve_reply(tx, id, reply_to)?;
        let mut row = self.own_row(&mut conversation, RowKind::Text, now);
        row.text = text.into_string();
        row.reply_to = reply_to;
        row.lifetime = conversation.lifetime();
        let sent = sent_view(&row);
        tx.put(Table::Intents, &row.key(), Vec::new());
        self.file_row(tx, &mut conversation, row, now)?;
        self.flush_intents(tx, &mut conversation, now)?;
        Ok(sent)
    }

    /// A new row of ours, which says nothing yet.
    pub(super) fn own_row(
        &mut self,
        conversation: &mut Conversation,
        kind: RowKind,
        now: Now,
    ) -> MessageRow {
        let id = MessageId::new(self.entropy.array());
        let place = (conversation.write_lamport(now.wall), self.own.key(), id);
        MessageRow {
            outgoing: true,
            receipts: true,
            ..MessageRow::new(conversation.id, place, kind, MessageState::Queued, now.wall)
        }
    }

    /// More is only taken while not too much waits.
    pub(super) fn require_room(&self, tx: &Tx) -> Result<(), NodeError> {
        if Outbox::count(tx)? < MAX_PARCELS {
            return Ok(());
        }
        Err(ApiError::refused(format!(
            "{MAX_PARCELS} messages wait for their recipients already; wait until some have gone"
        ))
        .into())
    }

    fn resolve_reply(
        &self,
        tx: &Tx,
        conversation: ConversationId,
        reply_to: Option<&str>,
    ) -> Result<Option<MessageId>, NodeError> {
        let Some(text) = reply_to else { return Ok(None) };
        let id = parse_message_id(text)?;
        match History::find_in(tx, conversation, &id)? {
            Some(_) => Ok(Some(id)),
            None => {
                Err(ApiError::not_found(format!("no message {text} in this conversation")).into())
            }
        }
    }

    /// The conversation, if we may write into it.
    pub(super) fn writable(&self, tx: &Tx, id: ConversationId) -> Result<Conversation, NodeError> {
        if let ConversationId::Contact(key) = id
            && Contacts::is_rejected(tx, &key)?
        {
            return Err(ApiError::refused(
                "you have rejected this contact; undo it with: sremp contact reset WHO",
            )
            .into());
        }
        let conversation = Conversation::find_or_new(tx, id)?;
        match conversation.standing {
            Standing::Active => Ok(conversation),
            Standing::Leaving | Standing::Left => {
                Err(ApiError::refused("you have left this group").into())
            }
            Standing::Removed => Err(ApiError::refused("you were removed from this group").into()),
        }
    }

    /// Encrypts what waits in a conversation, if there is somebody to read it. Otherwise sees to
    /// it that there will be.
    pub(super) fn flush_intents(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        now: Now,
    ) -> Result<(), NodeError> {
        let prefix = conversation.id.to_key();
        let waiting = tx.scan_prefix(Table::Intents, &prefix, MAX_INTENTS)?;
        if waiting.is_empty() {
            return Ok(());
        }
        let Some(group) = self.settled_group(tx, conversation, now)? else { return Ok(()) };
        let unsettled = self.unsettled.contains_key(&group) || self.is_unproved(now);
        if unsettled || self.groups.is_stale(tx, &group)? {
            return Ok(());
        }
        // All at once: renewing keys comes here again for what still waits.
        waiting.iter().for_each(|(key, _)| tx.delete(Table::Intents, key));
        for (key, wish) in waiting {
            if let Some(mut row) = tx.read::<MessageRow>(Table::Messages, &key)? {
                self.renew_leaf_if_due(tx, conversation, &group, now)?;
                if self.groups.member_count(tx, &group)? < 2 {
                    // That carried out a leave, and nobody else is there: it waits for whoever comes.
                    tx.put(Table::Intents, &key, wish);
                    continue;
                }
                self.seal_message(tx, &group, &mut row, now)?;
            }
        }
        if conversation.introduce {
            self.introduce_with_message(conversation, group, now);
            conversation.save(tx)?;
        }
        Ok(())
    }

    /// The MLS group that a conversation is written to, once somebody else is in it.
    pub(super) fn settled_group(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        now: Now,
    ) -> Result<Option<GroupId>, NodeError> {
        if let Some(group) = self.groups_by_proof(tx, conversation)?.first() {
            return Ok(Some(*group));
        }
        if let ConversationId::Contact(peer) = conversation.id {
            for group in &conversation.groups {
                if Invites::find(tx, group, &peer)?.is_some() {
                    return Ok(None);
                }
            }
            let group = if let Some(group) = conversation.groups.first() {
                *group
            } else {
                let leaf = self.leaf_info(tx, now)?;
                let group =
                    self.groups.create(tx, GroupKind::Direct, "", Suite::X25519, &leaf, now)?;
                conversation.stand_on(tx, group)?;
                group
            };
            // An earlier wish may have been given up.
            self.wish(tx, group, peer, now)?;
        }
        Ok(None)
    }

    /// Encrypts a message and puts it on its way; again, when its first encryption was lost.
    pub(super) fn seal_message(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        row: &mut MessageRow,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(content) = content_of(row) else { return Ok(()) };
        if row.kind == RowKind::Timer && !self.may_set_timer(tx, group)? {
            // We were one when it was set, and would be disbelieved now.
            row.state = MessageState::Failed;
            row.error = Some("only admins may set a group's timer".to_owned());
            History::update(tx, row)?;
            return self.tell_state(tx, row, now);
        }
        let sealed = self.groups.encrypt(tx, group, &content.to_bytes(), now)?;
        let recipients: Vec<IdentityKey> = sealed.recipients.iter().map(|(key, _)| *key).collect();
        row.sealed_in = Some((*group, sealed.state));
        row.receipts = recipients.len() < MAX_RECEIPT_MEMBERS;
        let before = std::mem::take(&mut row.recipients);
        if row.receipts {
            let known = |key| before.iter().find(|(other, _)| other == key);
            let state = |key| known(key).map_or(MessageState::Queued, |(_, state)| *state);
            row.recipients = recipients.iter().map(|key| (*key, state(key))).collect();
            self.watch_message(row, now);
        }
        History::update(tx, row)?;
        self.post(tx, *group, sealed.blob, &recipients, &Purpose::Message(row.message_id), now)?;
        Ok(())
    }

    /// Renews our leaf keys with the first message after joining, then after 100 messages or a
    /// week, whichever is sooner.
    fn renew_leaf_if_due(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        group: &GroupId,
        now: Now,
    ) -> Result<(), NodeError> {
        conversation.since_update = conversation.since_update.saturating_add(1);
        // A little earlier on each member and in each group: not all renew at once.
        let early = group.as_bytes().first().copied().unwrap_or(0)
            ^ self.own.key().as_bytes().first().copied().unwrap_or(0);
        let early = u32::from(early) % UPDATE_SPREAD;
        let by_count = conversation.since_update > UPDATE_AFTER_MESSAGES.saturating_sub(early)
            && (conversation.update_unheard < MAX_UNHEARD
                || self.groups.member_count(tx, group)? > MAX_RECEIPT_MEMBERS);
        let by_age = now.wall.since(self.groups.own_update_at(tx, group)?)
            > UPDATE_AFTER.saturating_sub(UPDATE_SPREAD_TIME.saturating_mul(early));
        let due = conversation.update_due || by_count || by_age;
        if due && self.groups.has_room(tx, group)? {
            conversation.update_due = false;
            conversation.since_update = 0;
            conversation.update_unheard = conversation.update_unheard.saturating_add(1);
            conversation.save(tx)?;
            let leaf = self.leaf_info(tx, now)?;
            self.change_group(tx, group, Change::Update(leaf), now)?;
        }
        Ok(conversation.save(tx)?)
    }

    /// Somebody else was heard in a state: if it is the tip, they have what made it.
    pub(super) fn heard_in(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        group: &GroupId,
        state: &StateId,
    ) -> Result<(), NodeError> {
        if conversation.update_unheard > 0 && self.groups.tip(tx, group)? == *state {
            conversation.update_unheard = 0;
            conversation.save(tx)?;
        }
        Ok(())
    }

    /// Another branch of a group won: what we wrote on the lost one is encrypted again, under the
    /// same message ids; whoever has it already shows it once. When we ourselves were `lost`, that
    /// is everything that some member has not confirmed.
    pub(super) fn resend_lost(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        lost: bool,
        now: Now,
    ) -> Result<(), NodeError> {
        let waits = |(_, state): &(IdentityKey, MessageState)| {
            matches!(state, MessageState::Queued | MessageState::Sent)
        };
        let written = self.written_in(tx, group, now)?;
        let members = self.groups.member_count(tx, group)?;
        let first = newest_unproved(&written, MAX_BLIND_COPIES.checked_div(members).unwrap_or(0));
        for (place, mut row) in written.into_iter().enumerate() {
            let Some((_, state)) = row.sealed_in.filter(|(sealed, _)| sealed == group) else {
                continue;
            };
            let is_lost = !self.groups.is_on_branch(tx, group, &state)?;
            let unconfirmed =
                if row.receipts { row.recipients.iter().any(waits) } else { place >= first };
            if is_lost || (lost && unconfirmed) {
                self.seal_message(tx, group, &mut row, now)?;
            }
        }
        Ok(())
    }

    /// Members lost their state and are back: what we wrote and they never confirmed is encrypted again,
    /// for them alone, once for all of them.
    pub(super) fn resend_to(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        returned: &BTreeSet<IdentityKey>,
        now: Now,
    ) -> Result<(), NodeError> {
        let heard = LastHeard::of_group(tx, group)?;
        let added_at =
            |who: &IdentityKey| heard.get(who).and_then(|known| known.added_at).unwrap_or_default();
        // Whoever comes back again and again is not given everything each time.
        let mut blindly = returned.clone();
        blindly.retain(|who| self.repair.may_resend_to(*group, *who, now));
        for row in self.written_in(tx, group, now)? {
            let lacks: Vec<IdentityKey> = if row.receipts {
                let unconfirmed = |(_, state): &&(IdentityKey, MessageState)| {
                    // What was given up while they were no member, too.
                    let waits = [MessageState::Queued, MessageState::Sent, MessageState::Failed];
                    waits.contains(state)
                };
                let waiting = row.recipients.iter().filter(unconfirmed).map(|(key, _)| *key);
                waiting.filter(|key| returned.contains(key)).collect()
            } else {
                // Nothing of before they were members.
                blindly.iter().filter(|who| added_at(who) <= row.sent_at).copied().collect()
            };
            if lacks.is_empty() {
                continue;
            }
            let Some(content) = content_of(&row) else { continue };
            let sealed = self.groups.encrypt(tx, group, &content.to_bytes(), now)?;
            let purpose =
                if row.receipts { Purpose::Message(row.message_id) } else { Purpose::Note };
            self.post(tx, *group, sealed.blob, &lacks, &purpose, now)?;
        }
        Ok(())
    }

    /// What we wrote lately in the conversation of a group, oldest first, in whichever of its groups it
    /// was encrypted. Of what nobody confirms, because the group is too large for it, as much as may be
    /// missed by whoever is behind by as long as states are kept.
    fn written_in(&self, tx: &Tx, group: &GroupId, now: Now) -> Result<Vec<MessageRow>, NodeError> {
        let Some(conversation) = Conversation::of_group(tx, group)? else {
            return Ok(Vec::new());
        };
        let rows = History::own(tx, conversation.id, MAX_RESENT)?;
        let first = newest_unproved(&rows, MAX_RESENT_BLINDLY);
        let is_missed = |(place, row): &(usize, MessageRow)| {
            let is_old = now.wall.since(row.sent_at) > MAX_PAST_TIME;
            let is_new = *place >= first && !is_old;
            row.sealed_in.is_some_and(|(sealed, _)| row.receipts || is_new && sealed == *group)
        };
        Ok(rows.into_iter().enumerate().filter(is_missed).map(|(_, row)| row).collect())
    }
}

/// The place of the first of the newest so many messages that nobody confirms.
fn newest_unproved(rows: &[MessageRow], most: usize) -> usize {
    let unproved = rows.iter().enumerate().rev().filter(|(_, row)| !row.receipts);
    unproved.take(most).last().map_or(rows.len(), |(place, _)| place)
}

/// What is encrypted for a message of ours; nothing when nothing of it can be sent any more.
fn content_of(row: &MessageRow) -> Option<Content> {
    if !row.can_be_sent() {
        return None;
    }
    let text = || Text::truncated(&row.text);
    let kind = match (row.kind, row.lifetime) {
        (RowKind::Text, None) => Kind::Text(TextBody { text: text(), reply_to: row.reply_to }),
        (RowKind::Text, Some(lifetime)) => {
            let reply_to = row.reply_to;
            Kind::FadingText(FadingTextBody { text: text(), reply_to, lifetime })
        }
        (RowKind::Timer, lifetime) => Kind::Timer(TimerBody { lifetime }),
        _ => kind_of_change(row)?,
    };
    Some(Content::new(row.message_id, &kind, row.lamport, row.sent_at))
}

/// The answer to whoever wrote something: it is queued.
pub(super) fn sent_view(row: &MessageRow) -> Reply {
    Reply::Sent(SentView {
        message_id: row.message_id.to_string(),
        conversation: row.conversation.text(),
        state: MessageState::Queued,
    })
}

/// A message id as a person or program writes it.
pub(super) fn parse_message_id(text: &str) -> Result<MessageId, ApiError> {
    text.parse().map_err(|_| {
        ApiError::usage(format!("`{text}` is no message id; ids have 32 hexadecimal digits"))
    })
}
