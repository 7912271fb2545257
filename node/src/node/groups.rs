//! What happens to groups: our own changes, those of others, and what people are told of them.

use std::collections::BTreeSet;

use sremp_common::id::{GroupId, IdentityKey, MessageId, Token};
use sremp_common::limit::MAX_RELAYS;
use sremp_common::time::Now;
use sremp_common::wire::List;

use super::{Node, NodeError};
use crate::api::{self, ApiError, MessageState, Reply};
use crate::conversations::{
    Conversation, ConversationId, History, Invites, LastHeard, MessageRow, RowKind, Standing,
    Unheard,
};
use crate::delivery::Purpose;
use crate::groups::{Change, GroupEvent, GroupKind, LeafInfo, Role, Suite};
use crate::identity::{Contacts, TokenPurpose, Tokens};
use crate::store::Tx;

/// Own commits of lost branches that wait to be done again.
const MAX_REDO: usize = 256;
/// Bytes of a group's name.
const MAX_GROUP_NAME: usize = 160;

impl Node {
    /// How fellow members reach us: with a token of its own for each leaf.
    pub(super) fn leaf_info(&mut self, tx: &Tx, now: Now) -> Result<LeafInfo, NodeError> {
        let token = Tokens::hand_out(tx, TokenPurpose::Leaf, &mut self.entropy, now)?;
        self.leaf_with(token)
    }

    /// How whoever takes a key package from us reaches us, until the key package is used.
    pub(super) fn offered_leaf(&mut self, tx: &Tx, now: Now) -> Result<LeafInfo, NodeError> {
        let token = Tokens::hand_out(tx, TokenPurpose::Offered, &mut self.entropy, now)?;
        self.leaf_with(token)
    }

    /// As [`Self::offered_leaf`], for a key package in the stock of a relay, which is told of the
    /// token before.
    pub(super) fn stocked_leaf(&mut self, tx: &Tx, now: Now) -> Result<LeafInfo, NodeError> {
        let token = Tokens::make(tx, TokenPurpose::Offered, &mut self.entropy, now)?;
        self.leaf_with(token)
    }

    fn leaf_with(&mut self, token: Token) -> Result<LeafInfo, NodeError> {
        let data = self.own.identity().data();
        let relays: List<_, MAX_RELAYS> = List::truncated(data.relays());
        let seal_key = data.seal_key().ok_or_else(|| {
            ApiError::failed("the identity has no sealing key; restore the home from a backup")
        })?;
        self.admission_changed = true;
        Ok(LeafInfo { relays, seal_key, token })
    }

    pub(super) fn group_create(
        &mut self,
        tx: &Tx,
        name: &str,
        members: &[String],
        suite: Option<&str>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let name = group_name(name)?;
        let suite = suite_of(suite, members.len())?;
        let mut invited = Vec::new();
        for who in members {
            invited.push(self.resolve_contact(tx, who)?);
        }
        let leaf = self.leaf_info(tx, now)?;
        let group = self.groups.create(tx, GroupKind::Group, &name, suite, &leaf, now)?;
        let mut conversation = Conversation::new(ConversationId::Group(group), name);
        conversation.stand_on(tx, group)?;
        for who in invited {
            self.invite(tx, group, who, now)?;
        }
        self.tell_group(tx, &conversation, api::Change::Joined, None, None, now)?;
        self.group_view(tx, group)
    }

    pub(super) fn group_add(
        &mut self,
        tx: &Tx,
        group: &str,
        who: &[String],
        now: Now,
    ) -> Result<Reply, NodeError> {
        let group = self.writable_group(tx, group)?;
        self.require_admin(tx, &group)?;
        let members = self.groups.summary(tx, &group)?;
        for who in who {
            let who = self.resolve_contact(tx, who)?;
            if members.member(&who).is_none() {
                self.invite(tx, group, who, now)?;
            } else if Unheard::contains(tx, &group, &who)? {
                self.invite_again(tx, group, who, now)?;
            } else {
                let name = self.name_of(tx, &who)?;
                return Err(ApiError::refused(format!("{name} is a member already")).into());
            }
        }
        self.group_view(tx, group)
    }

    fn invite(
        &mut self,
        tx: &Tx,
        group: GroupId,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        if who == self.own.key() {
            return Err(ApiError::usage("you are a member of your own group").into());
        }
        self.wish(tx, group, who, now)
    }

    pub(super) fn group_remove(
        &mut self,
        tx: &Tx,
        group: &str,
        who: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let group = self.writable_group(tx, group)?;
        let who = self.resolve_member(tx, &group, who)?;
        if self.groups.summary(tx, &group)?.member(&who).is_none() {
            // Invited, but not yet a member: the wish is taken back.
            Invites::remove(tx, &group, &who);
            Unheard::remove(tx, &group, &who)?;
            return self.group_view(tx, group);
        }
        self.change_group(tx, &group, Change::Remove(vec![who]), now)?;
        self.group_view(tx, group)
    }

    pub(super) fn group_edit(
        &mut self,
        tx: &Tx,
        group: &str,
        change: impl FnOnce(&mut Self, &GroupId) -> Result<Change, NodeError>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let group = self.writable_group(tx, group)?;
        let change = change(self, &group)?;
        self.change_group(tx, &group, change, now)?;
        self.group_view(tx, group)
    }

    /// A change of role that changes nothing is refused in words, not as an empty commit.
    pub(super) fn refuse_role(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        role: Role,
        why: &str,
    ) -> Result<(), NodeError> {
        let has = self.groups.summary(tx, group)?.member(who).map(|member| member.role);
        if has == Some(role) {
            let name = self.name_of(tx, who)?;
            return Err(ApiError::refused(format!("{name} {why}")).into());
        }
        Ok(())
    }

    pub(super) fn group_rename(
        &mut self,
        tx: &Tx,
        group: &str,
        name: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let name = group_name(name)?;
        self.group_edit(tx, group, |_, _| Ok(Change::Rename(name)), now)
    }

    /// Makes a commit and puts it, and the Welcome that belongs to it, on their way.
    pub(super) fn change_group(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        change: Change,
        now: Now,
    ) -> Result<(), NodeError> {
        let changed = self.groups.change(tx, group, change, now)?;
        let recipients: Vec<IdentityKey> = changed.recipients.iter().map(|(key, _)| *key).collect();
        let blob = self.post(
            tx,
            *group,
            changed.commit.clone(),
            &recipients,
            &Purpose::Commit(*group),
            now,
        )?;
        self.retry_deferred = true;
        let joined = changed.joined.iter().map(|(key, _)| *key).collect();
        self.learn_members(tx, group, Some(&joined), now)?;
        let after = (!recipients.is_empty()).then_some(blob);
        self.send_welcomes(tx, group, &changed, after, now)?;
        let own = self.own.key();
        self.group_changed(tx, *group, own, changed.events, now)
    }

    /// The tip of a group has moved: by our commit or another's.
    pub(super) fn group_changed(
        &mut self,
        tx: &Tx,
        group: GroupId,
        by: IdentityKey,
        events: Vec<GroupEvent>,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(mut conversation) = Conversation::of_group(tx, &group)? else { return Ok(()) };
        if by != self.own.key() {
            // Somebody else has committed in what was the tip, and makes what is.
            conversation.update_unheard = 0;
        }
        let switched = events.iter().any(|event| matches!(event, GroupEvent::Switched { .. }));
        let mut newcomers = false;
        let mut moved = BTreeSet::new();
        self.fellows_of.remove(&group);
        if events.iter().any(|event| !matches!(event, GroupEvent::Added(_))) {
            // Whatever does more than add has a path, with new keys of its author.
            LastHeard::renewed(tx, &group, &by, now.wall)?;
        }
        for event in events {
            if let GroupEvent::Added(who) = event {
                moved.insert(who);
                LastHeard::added(tx, &group, &who, now.wall)?;
            }
            if let GroupEvent::Updated(who) = event {
                moved.insert(who);
                LastHeard::renewed(tx, &group, &who, now.wall)?;
            }
            if let GroupEvent::Removed(who) | GroupEvent::Left(who) = event {
                LastHeard::forget(tx, &group, &who);
                // Whom they invited may have to be invited by another.
                self.watch(conversation.id, now);
            }
            if !switched {
                conversation.redo.retain_mut(|work| work.outlives(&event));
            }
            if let GroupEvent::Switched { lost } = event {
                conversation.redo.extend(lost);
                conversation.redo.truncate(MAX_REDO);
                self.tell_group(tx, &conversation, api::Change::Switched, Some(by), None, now)?;
            } else {
                newcomers |= matches!(event, GroupEvent::Added(who) if who != self.own.key());
                self.group_event(tx, &mut conversation, group, by, &event, now)?;
            }
        }
        // Whoever invites has shown its identity with the invitation.
        if newcomers && by != self.own.key() {
            self.introduce(tx, &mut conversation, &group)?;
        }
        // Whoever adds tells them how long messages stay: they have not seen when that was set.
        conversation.timer_due |=
            newcomers && by == self.own.key() && conversation.lifetime().is_some();
        conversation.save(tx)?;
        self.follow(group, switched, moved);
        Ok(())
    }

    fn group_event(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        group: GroupId,
        by: IdentityKey,
        event: &GroupEvent,
        now: Now,
    ) -> Result<(), NodeError> {
        let actor = self.name_of(tx, &by)?;
        let (change, who, text) = match event {
            GroupEvent::Added(who) if *who == self.own.key() => {
                // The branch that we were taken out on has lost. Who wanted to go still does.
                self.people_changed = true;
                let left = conversation.standing == Standing::Left;
                conversation.standing = if left { Standing::Leaving } else { Standing::Active };
                (api::Change::Added, Some(*who), "you are a member again".to_owned())
            }
            GroupEvent::Added(who) => {
                self.people_changed = true;
                Invites::remove(tx, &group, who);
                let epoch = self.groups.summary(tx, &group)?.epoch;
                if Unheard::added(tx, &group, who, (epoch, by))? {
                    // What we wrote and they have not confirmed is encrypted again for them.
                    self.welcome_back(group, *who);
                }
                (
                    api::Change::Added,
                    Some(*who),
                    format!("{actor} added {}", self.name_of(tx, who)?),
                )
            }
            GroupEvent::Removed(who) => {
                self.people_changed = true;
                Invites::remove(tx, &group, who);
                let name = self.name_of(tx, who)?;
                let text = if Unheard::is_added_again(tx, &group, who)? {
                    format!("{name} has not been heard here; they are invited again")
                } else {
                    Unheard::removed(tx, &group, who)?;
                    format!("{actor} removed {name}")
                };
                (api::Change::Removed, Some(*who), text)
            }
            GroupEvent::Left(who) => {
                Unheard::remove(tx, &group, who)?;
                (api::Change::Left, Some(*who), format!("{} left", self.name_of(tx, who)?))
            }
            GroupEvent::Renamed(name) => {
                conversation.name.clone_from(name);
                (api::Change::Renamed, None, format!("{actor} renamed the group to {name}"))
            }
            GroupEvent::Promoted(who) => {
                let text = format!("{actor} made {} an admin", self.name_of(tx, who)?);
                (api::Change::Promoted, Some(*who), text)
            }
            GroupEvent::Demoted(who) => {
                let text = format!("{} is no admin any more", self.name_of(tx, who)?);
                (api::Change::Demoted, Some(*who), text)
            }
            GroupEvent::Updated(who) => {
                return self.tell_group(
                    tx,
                    conversation,
                    api::Change::Updated,
                    Some(by),
                    Some(*who),
                    now,
                );
            }
            GroupEvent::MeRemoved => {
                self.people_changed = true;
                let left = conversation.standing == Standing::Leaving;
                conversation.standing = if left { Standing::Left } else { Standing::Removed };
                let own = self.own.key();
                let text =
                    if left { "you left".to_owned() } else { format!("{actor} removed you") };
                (api::Change::Removed, Some(own), text)
            }
            GroupEvent::Rejoined(who) => {
                self.welcome_back(group, *who);
                let change = api::Change::Rejoined;
                return self.tell_group(tx, conversation, change, Some(by), Some(*who), now);
            }
            GroupEvent::Switched { .. } => return Ok(()),
        };
        if let ConversationId::Group(_) = conversation.id {
            self.notice(tx, conversation, by, text, now)?;
        }
        self.tell_group(tx, conversation, change, Some(by), who, now)
    }

    /// Writes into the history that something happened to the conversation.
    pub(super) fn notice(
        &mut self,
        tx: &Tx,
        conversation: &mut Conversation,
        by: IdentityKey,
        text: String,
        now: Now,
    ) -> Result<(), NodeError> {
        let id = MessageId::new(self.entropy.array());
        let place = (conversation.next_lamport(now.wall), by, id);
        let (kind, state) = (RowKind::Notice, MessageState::Read);
        let row = MessageRow {
            text,
            received_at: Some(now.wall),
            ..MessageRow::new(conversation.id, place, kind, state, now.wall)
        };
        History::save(tx, &row)?;
        conversation.save(tx)?;
        Ok(())
    }

    fn require_admin(&mut self, tx: &Tx, group: &GroupId) -> Result<(), NodeError> {
        if self.groups.summary(tx, group)?.is_admin(&self.own.key()) {
            return Ok(());
        }
        Err(ApiError::refused("only admins of the group may do this").into())
    }

    /// A group by its word, if we may still change it.
    pub(super) fn writable_group(&mut self, tx: &Tx, word: &str) -> Result<GroupId, NodeError> {
        let group = self.resolve_group(tx, word)?;
        let standing = Conversation::of_group(tx, &group)?
            .map_or(Standing::Left, |conversation| conversation.standing);
        match standing {
            Standing::Active => Ok(group),
            Standing::Leaving | Standing::Left => {
                Err(ApiError::refused("you have left this group").into())
            }
            Standing::Removed => Err(ApiError::refused("you were removed from this group").into()),
        }
    }

    /// A member by alias, name or id: members need not be contacts.
    pub(super) fn resolve_member(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        word: &str,
    ) -> Result<IdentityKey, NodeError> {
        let mut people: Vec<IdentityKey> = self
            .groups
            .summary(tx, group)?
            .members
            .iter()
            .map(|member| member.identity_key)
            .collect();
        people.extend(Invites::of_group(tx, group)?.into_iter().map(|invite| invite.who));
        let mut candidates = Vec::new();
        for key in people {
            let contact = Contacts::find(tx, &key)?;
            candidates.push(api::who::Candidate {
                kind: api::who::Kind::Contact,
                id: key.to_string(),
                name: self.plain_name_of(tx, &key)?,
                alias: contact.and_then(|contact| contact.alias),
                value: key,
            });
        }
        Ok(api::who::resolve(word, Some(api::who::Kind::Contact), candidates).map_err(|error| {
            if error.code != api::ErrorKind::NotFound {
                return error;
            }
            ApiError::not_found(format!(
                "no member of this group is called `{word}`; see them with: sremp group show GROUP"
            ))
        })?)
    }
}

/// The suite that was asked for, or the one for a group of this size.
fn suite_of(word: Option<&str>, _invited: usize) -> Result<Suite, ApiError> {
    let Some(word) = word else { return Ok(Suite::X25519) };
    word.parse().map_err(|_| {
        let known = Suite::ALL.map(|suite| format!("{suite} (0x{:04x})", suite.number()));
        ApiError::usage(format!("`{word}` is no cipher suite; there are: {}", known.join(", ")))
    })
}

/// A group's name: one line, not empty, bounded.
fn group_name(name: &str) -> Result<String, ApiError> {
    let name = name.trim();
    if name.is_empty() || name.len() > MAX_GROUP_NAME || name.chars().any(char::is_control) {
        return Err(ApiError::usage(format!(
            "a group's name has 1 to {MAX_GROUP_NAME} bytes and no control characters"
        )));
    }
    Ok(name.to_owned())
}
