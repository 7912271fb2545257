//! Telling others who we are: a new version of our identity, and introductions between members of a
//! group who need not be each other's contacts.
//!
//! ```text
//!   identity changed, or small group joined or joined by others ─→ due ─→ sent when the group is quiet
//!   large group joined, or joined by others ─→ sent with the next message ─┘    └─ branch lost: due again
//! ```
//! A profile has no row in the history; that it is due, and where it was sent, stands in the
//! conversation, so that neither a crash nor a lost branch takes it away.

use std::time::Duration;

use sremp_common::id::{GroupId, IdentityKey, MessageId};
use sremp_common::identity::Identity;
use sremp_common::time::Now;

use super::{Node, NodeError};
use crate::api::Trust;
use crate::conversations::content::ProfileBody;
use crate::conversations::conversation::ProfileSent;
use crate::conversations::{Content, Conversation, ConversationId, Kind};
use crate::delivery::Purpose;
use crate::identity::{Contacts, Fellows};
use crate::store::Tx;

/// In groups up to this size everybody introduces itself at once; in larger ones only who writes.
const MAX_INTRODUCED_AT_ONCE: usize = 16;
/// Pause between two introductions in a large group, however many join meanwhile.
const INTRODUCED_AGAIN: Duration = Duration::from_secs(86_400);

impl Node {
    /// Members of a group are new to each other: we among them, or others to us.
    pub(super) fn introduce(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        group: &GroupId,
    ) -> Result<(), NodeError> {
        if matches!(conversation.id, ConversationId::Contact(_)) {
            // Whoever invites shows its identity, and whose key package is taken does, too.
            return Ok(());
        }
        if self.groups.member_count(tx, group)? <= MAX_INTRODUCED_AT_ONCE {
            conversation.profile_due = true;
        } else {
            conversation.introduce = true;
        }
        Ok(())
    }

    /// We write in a conversation: whoever is to be introduced with the next message is.
    pub(super) fn introduce_with_message(
        &mut self,
        conversation: &mut Conversation,
        group: GroupId,
        now: Now,
    ) {
        let lately = |sent: &ProfileSent| now.wall.since(sent.at) < INTRODUCED_AGAIN;
        if conversation.introduce && !conversation.profile_sent.as_ref().is_some_and(lately) {
            conversation.introduce = false;
            conversation.profile_due = true;
            self.follow(group, false, std::collections::BTreeSet::new());
        }
    }

    /// Everybody with whom we are in a conversation is to hear of our new identity.
    pub(super) fn profile_changed(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
    ) -> Result<(), NodeError> {
        conversation.profile_due = true;
        conversation.save(tx)?;
        if let Some(group) = conversation.groups.first() {
            self.follow(*group, false, std::collections::BTreeSet::new());
        }
        Ok(())
    }

    /// The branch on which our profile was sent last may have lost.
    pub(super) fn resend_lost_profile(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        lost: bool,
    ) -> Result<(), NodeError> {
        let Some(mut conversation) = Conversation::of_group(tx, group)? else { return Ok(()) };
        let Some(sent) = conversation.profile_sent.filter(|sent| sent.group == *group) else {
            return Ok(());
        };
        if lost || !self.groups.is_on_branch(tx, group, &sent.state)? {
            conversation.profile_due = true;
            conversation.save(tx)?;
        }
        Ok(())
    }

    /// Sends what is due, once it can be read by those for whom it is.
    pub(super) fn send_due_profile(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(mut conversation) = Conversation::of_group(tx, group)? else { return Ok(()) };
        if !conversation.profile_due || Self::is_with_rejected(tx, &conversation)? {
            return Ok(());
        }
        let Some(group) = self.groups_by_proof(tx, &conversation)?.first().copied() else {
            return Ok(());
        };
        let unsettled = self.unsettled.contains_key(&group) || self.is_unproved(now);
        if unsettled || self.groups.is_stale(tx, &group)? {
            return Ok(());
        }
        let identity = self.own.identity().identity().clone();
        let kind = Kind::Profile(ProfileBody { identity });
        let id = MessageId::new(self.entropy.array());
        let content = Content::new(id, &kind, 0, now.wall);
        let sealed = self.groups.encrypt(tx, &group, &content.to_bytes(), now)?;
        let recipients: Vec<IdentityKey> = sealed.recipients.iter().map(|(key, _)| *key).collect();
        self.post(tx, group, sealed.blob, &recipients, &Purpose::Receipt, now)?;
        conversation.profile_due = false;
        conversation.profile_sent = Some(ProfileSent { group, state: sealed.state, at: now.wall });
        Ok(conversation.save(tx)?)
    }

    /// A rejected, or forgotten, contact hears nothing of us any more.
    pub(super) fn is_with_rejected(
        tx: &Tx,
        conversation: &Conversation,
    ) -> Result<bool, NodeError> {
        let ConversationId::Contact(key) = conversation.id else { return Ok(false) };
        let contact = Contacts::find(tx, &key)?;
        Ok(contact.is_none_or(|contact| contact.trust == Trust::Rejected))
    }

    /// A member's identity came inside a conversation.
    pub(super) fn learn_profile(
        &mut self,
        tx: &Tx,
        sender: &IdentityKey,
        identity: &Identity,
        now: Now,
    ) -> Result<(), NodeError> {
        match identity.verify() {
            Ok(identity) if identity.key() == *sender => {
                if Contacts::find(tx, sender)?.is_none() {
                    Fellows::learn(tx, &identity)?;
                }
                self.learn_mailed_identity(tx, &identity, now)?;
                Ok(())
            }
            Ok(_) | Err(_) => {
                tracing::debug!("a profile update carries no identity of its author");
                Ok(())
            }
        }
    }

    /// Forgets fellow members with whom we share no group any more, and those who are contacts now.
    pub(super) fn forget_fellows(&mut self, tx: &Tx) -> Result<(), NodeError> {
        let is_fellow = |key: &IdentityKey| {
            Ok(self.fellows.contains(key) && Contacts::find(tx, key)?.is_none())
        };
        Ok(Fellows::retain(tx, is_fellow)?)
    }
}
