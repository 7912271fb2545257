//! Who is really there: members are taken for readers once something of theirs came.
//!
//! An invitation can be declined, or be gone before its answer; its author is not told. Therefore a chat
//! of two is written to in a group in which the other side was heard, if there is one, and what was
//! encrypted elsewhere before is encrypted again there; and whoever never answered can be added anew.
//!
//! ```text
//!   added ─→ unheard ─→ heard: written to here
//!               ├─ undelivered: invited into a chat, and again when heard there
//!               └─ invited again: removed, added by a new key package, resent ─→ unheard
//! ```

use std::collections::BTreeSet;

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::Now;

use super::{Node, NodeError};
use crate::api::{MessageState, Trust};
use crate::conversations::{Conversation, ConversationId, History, Invites, LastHeard, Unheard};
use crate::groups::{Change, GroupError};
use crate::identity::Contacts;
use crate::store::Tx;

/// Messages of a chat that are looked through when the other side is heard in another group.
const LOOKED_THROUGH: usize = 2000;
/// Messages that one look encrypts again.
const MAX_RESENT: usize = 200;

impl Node {
    /// Something of a member's came that was made in an epoch of a group.
    pub(super) fn heard(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        epoch: u64,
        now: Now,
    ) -> Result<(), NodeError> {
        LastHeard::note(tx, group, who, now.wall)?;
        if !Unheard::hear(tx, group, who, epoch)? {
            return Ok(());
        }
        self.invite_undelivered(tx, who)?;
        match Conversation::of_group(tx, group)? {
            Some(mut conversation) => self.heard_elsewhere(tx, &mut conversation, now),
            None => Ok(()),
        }
    }

    /// An invitation will never arrive. Mostly it is longer than what mailboxes take from somebody who is
    /// in no group with their owner: so a contact is invited into a chat first, which is short, and again
    /// when it was heard there.
    pub(super) fn welcome_given_up(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        recipients: &[IdentityKey],
        why: &str,
        now: Now,
    ) -> Result<(), NodeError> {
        for who in recipients {
            if !self.is_in_with_us(tx, group, who)? || !Unheard::contains(tx, group, who)? {
                continue;
            }
            // Once is enough: what is refused although they were heard would be refused again.
            let may_help = !self.is_heard_in_chat(tx, who)?;
            if may_help && !Unheard::undelivered(tx, group, who)? {
                continue;
            }
            let name = self.name_of(tx, who)?;
            if let Some(mut conversation) = Conversation::of_group(tx, group)? {
                let text = if may_help {
                    format!(
                        "{name} could not be invited yet: {why}; they are invited again once they \
                         have answered in a chat with you"
                    )
                } else {
                    format!("{name} could not be invited: {why}; add them again later")
                };
                let own = self.own.key();
                self.notice(tx, &mut conversation, own, text, now)?;
            }
            let is_contact = Contacts::find(tx, who)?.is_some_and(|it| it.trust != Trust::Rejected);
            if is_contact && may_help {
                let mut chat = Conversation::find_or_new(tx, ConversationId::Contact(*who))?;
                self.settled_group(tx, &mut chat, now)?;
                chat.save(tx)?;
            }
        }
        Ok(())
    }

    /// Invites somebody again, soon, into the groups that no invitation of ours reached them for: they
    /// were heard in a chat, and take longer ones now.
    pub(super) fn invite_undelivered(
        &mut self,
        tx: &Tx,
        who: &IdentityKey,
    ) -> Result<(), NodeError> {
        if !self.is_heard_in_chat(tx, who)? {
            return Ok(());
        }
        for conversation in Conversation::all(tx)? {
            if let ConversationId::Group(group) = conversation.id
                && Unheard::is_undelivered(tx, &group, who)?
            {
                self.repair.invite_again(group, *who);
            }
        }
        Ok(())
    }

    fn is_heard_in_chat(&mut self, tx: &Tx, who: &IdentityKey) -> Result<bool, NodeError> {
        let Some(chat) = Conversation::find(tx, ConversationId::Contact(*who))? else {
            return Ok(false);
        };
        for group in &chat.groups {
            if self.is_in_with_us(tx, group, who)? && !Unheard::contains(tx, group, who)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether we and somebody else are both in a group. Nobody is in one that is not known here.
    pub(super) fn is_in_with_us(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
    ) -> Result<bool, NodeError> {
        match self.groups.summary(tx, group) {
            Ok(summary) => Ok(summary.active && summary.member(who).is_some()),
            Err(GroupError::NoSuchGroup) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The other side of a chat was heard in one of its groups. What is on its way in others may
    /// still be confirmed: it is looked at a little later.
    pub(super) fn heard_elsewhere(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        now: Now,
    ) -> Result<(), NodeError> {
        let ConversationId::Contact(peer) = conversation.id else { return Ok(()) };
        if conversation.groups.len() > 1 {
            conversation.moved = true;
            if let Some(sent) = conversation.profile_sent
                && Unheard::contains(tx, &sent.group, &peer)?
            {
                conversation.profile_due = true;
                self.follow(sent.group, false, BTreeSet::new());
            }
            conversation.save(tx)?;
            self.confirmed_in(conversation.id, now);
        }
        Ok(())
    }

    /// The groups of a conversation that others are in, those in which they were heard first.
    pub(super) fn groups_by_proof(
        &mut self,
        tx: &Tx,
        conversation: &Conversation,
    ) -> Result<Vec<GroupId>, NodeError> {
        let (mut proved, mut unproved) = (Vec::new(), Vec::new());
        for group in &conversation.groups {
            if self.groups.member_count(tx, group)? < 2 {
                continue;
            }
            let unheard = match conversation.id {
                ConversationId::Contact(peer) => Unheard::contains(tx, group, &peer)?,
                ConversationId::Group(_) => false,
            };
            if unheard {
                unproved.push(*group);
            } else {
                proved.push(*group);
            }
        }
        proved.append(&mut unproved);
        Ok(proved)
    }

    /// Encrypts again, where the other side was heard, what it has not confirmed from where it never
    /// was. Answers whether there may be more.
    pub(super) fn move_over(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        now: Now,
    ) -> Result<bool, NodeError> {
        let ConversationId::Contact(peer) = conversation.id else { return Ok(false) };
        let Some(settled) = self.groups_by_proof(tx, conversation)?.first().copied() else {
            return Ok(true);
        };
        let unsettled = self.unsettled.contains_key(&settled) || self.is_unproved(now);
        if unsettled || self.groups.is_stale(tx, &settled)? {
            return Ok(true);
        }
        let mut unproved = BTreeSet::new();
        for group in &conversation.groups {
            if *group != settled && Unheard::contains(tx, group, &peer)? {
                unproved.insert(*group);
            }
        }
        let waits = |(_, state): &(IdentityKey, MessageState)| {
            matches!(state, MessageState::Queued | MessageState::Sent)
        };
        let mut resent = 0_usize;
        for mut row in History::page(tx, conversation.id, None, LOOKED_THROUGH)? {
            let lost = row.sealed_in.is_some_and(|(group, _)| unproved.contains(&group));
            if row.can_be_sent() && lost && row.recipients.iter().any(waits) && resent < MAX_RESENT
            {
                resent = resent.saturating_add(1);
                self.seal_message(tx, &settled, &mut row, now)?;
            }
        }
        if resent > 0 {
            tracing::info!(resent, "messages to where nobody was heard were sent again");
        }
        conversation.moved = resent >= MAX_RESENT;
        conversation.save(tx)?;
        Ok(conversation.moved)
    }

    /// Adds somebody anew who was added and never heard: their invitation was declined, or is gone.
    pub(super) fn invite_again(
        &mut self,
        tx: &Tx,
        group: GroupId,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        Unheard::add_again(tx, &group, &who)?;
        let was_admin = self.groups.summary(tx, &group)?.is_admin(&who);
        self.change_group(tx, &group, Change::Remove(vec![who]), now)?;
        self.wish(tx, group, who, now)?;
        if was_admin {
            Invites::make_admin(tx, &group, &who)?;
        }
        Ok(())
    }

    /// A contact's link was given once more, and they were never heard: it takes the place of an
    /// invitation that they may not have any more.
    pub(super) fn invite_again_by_link(
        &mut self,
        tx: &Tx,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(conversation) = Conversation::find(tx, ConversationId::Contact(who))? else {
            return Ok(());
        };
        let groups = self.groups_by_proof(tx, &conversation)?;
        let Some(group) = groups.first() else { return Ok(()) };
        if !self.groups.summary(tx, group)?.active || self.groups.is_stale(tx, group)? {
            return Ok(());
        }
        if Unheard::contains(tx, group, &who)? && Invites::find(tx, group, &who)?.is_none() {
            self.invite_again(tx, *group, who, now)?;
        }
        Ok(())
    }
}
