//! How rows look from outside: the plain data of the local interface.

use std::collections::BTreeMap;

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::text::decode_identity_key;
use sremp_common::time::Now;

use super::changing::target_of;
use super::{Node, NodeError};
use crate::api::{
    ContactView, Direction, DoubtView, GroupRow, GroupState, GroupView, IdentityView, MemberView,
    MessageKind, MessageState, MessageView, PathPolicy, PathState, PersonView, ReactionView,
    RecipientView, RelayRecordView, Reply, Role, SessionView, StatusView,
};
use crate::conversations::{
    ChangeKind, Changes, Conversation, Invites, LastHeard, MessageRow, Requests, RowKind, Standing,
};
use crate::delivery::Outbox;
use crate::groups;
use crate::identity::{Contact, Contacts, Fellows, Lookalikes, Reach};
use crate::store::Tx;

/// Different reactions to a message that a history shows.
const MAX_REACTIONS_SHOWN: usize = 16;

impl Node {
    /// What somebody calls themselves, as far as known: from the contact, or as a fellow member of a
    /// group; else nothing.
    pub(super) fn plain_name_of(&self, tx: &Tx, key: &IdentityKey) -> Result<String, NodeError> {
        if *key == self.own.key() {
            return Ok(self.own.identity().data().username.to_string());
        }
        if let Some(contact) = Contacts::find(tx, key)? {
            return Ok(contact.name().to_owned());
        }
        Ok(Fellows::find(tx, key)?.map(|fellow| fellow.name).unwrap_or_default())
    }

    /// How somebody is called here: alias, else name, else the beginning of the id. Whoever is no
    /// contact may call themselves as one that is: the beginning of the id stands beside the name.
    pub(super) fn name_of(&self, tx: &Tx, key: &IdentityKey) -> Result<String, NodeError> {
        let contact = Contacts::find(tx, key)?;
        let is_known = contact.is_some() || *key == self.own.key();
        if let Some(alias) = contact.and_then(|contact| contact.alias) {
            return Ok(alias);
        }
        let name = self.plain_name_of(tx, key)?;
        Ok(match (name.is_empty(), is_known) {
            (true, _) => key.short(),
            (false, true) => name,
            (false, false) => format!("{name} ({})", key.short()),
        })
    }

    /// Whether somebody says of itself that it is a bot.
    fn is_machine(&self, tx: &Tx, key: &IdentityKey) -> Result<bool, NodeError> {
        if *key == self.own.key() {
            return Ok(self.own.identity().data().flags.is_machine_account);
        }
        if let Some(contact) = Contacts::find(tx, key)? {
            return Ok(contact.is_machine_account());
        }
        Ok(Fellows::find(tx, key)?.is_some_and(|fellow| fellow.is_machine_account))
    }

    pub(super) fn message_view(
        &self,
        tx: &Tx,
        row: &MessageRow,
        with_recipients: bool,
    ) -> Result<MessageView, NodeError> {
        let mut recipients = Vec::new();
        if with_recipients {
            for (key, state) in &row.recipients {
                let waits = row.outgoing && *state == MessageState::Queued;
                recipients.push(RecipientView {
                    id: key.to_string(),
                    name: self.name_of(tx, key)?,
                    is_machine_account: self.is_machine(tx, key)?,
                    state: *state,
                    error: if waits { self.waits_at(tx, key)? } else { None },
                });
            }
        }
        let kind = match row.kind {
            RowKind::Text => MessageKind::Text,
            RowKind::Notice => MessageKind::Notice,
            RowKind::Timer => MessageKind::Timer,
            RowKind::Deleted => MessageKind::Deleted,
            RowKind::Reaction => MessageKind::Reaction,
            RowKind::Edit => MessageKind::Edit,
            RowKind::Delete => MessageKind::Delete,
            RowKind::Unknown => MessageKind::Unsupported,
        };
        let final_state = match (row.receipts, row.is_shown()) {
            (false, _) => MessageState::Sent,
            (true, true) => MessageState::Read,
            // Nobody reads a change by itself.
            (true, false) => MessageState::Delivered,
        };
        let outgoing = row.outgoing;
        Ok(MessageView {
            message_id: row.message_id.to_string(),
            conversation: row.conversation.text(),
            kind,
            from: row.from.to_string(),
            from_name: self.name_of(tx, &row.from)?,
            from_is_machine_account: self.is_machine(tx, &row.from)?,
            direction: if outgoing { Direction::Out } else { Direction::In },
            text: row.text.clone(),
            reply_to: row.reply_to.map(|id| id.to_string()),
            sent_at: row.sent_at,
            received_at: row.received_at,
            state: row.state,
            error: match &row.error {
                Some(error) => Some(error.clone()),
                None => self.waits_for(tx, row)?,
            },
            final_state,
            edited_at: row.edited_at,
            reactions: self.reaction_views(tx, row, with_recipients)?,
            lifetime: row.lifetime.map(u32::from),
            vanishes_at: row.vanishes_at,
            recipients,
        })
    }

    /// What people think of a message, the most frequent first.
    fn reaction_views(
        &self,
        tx: &Tx,
        row: &MessageRow,
        with_people: bool,
    ) -> Result<Vec<ReactionView>, NodeError> {
        let mut views: BTreeMap<String, ReactionView> = BTreeMap::new();
        if !row.is_written() {
            return Ok(Vec::new());
        }
        for (kind, actor, change) in Changes::of(tx, &target_of(row))? {
            if kind != ChangeKind::Reaction || change.value.is_empty() {
                continue;
            }
            let view = views.entry(change.value.clone()).or_insert_with(|| ReactionView {
                reaction: change.value,
                count: 0,
                mine: false,
                from: Vec::new(),
            });
            view.count = view.count.saturating_add(1);
            view.mine |= actor == self.own.key();
            if with_people {
                view.from
                    .push(PersonView { id: actor.to_string(), name: self.name_of(tx, &actor)? });
            }
        }
        let mut views: Vec<ReactionView> = views.into_values().collect();
        views.sort_by(|a, b| (b.count, &a.reaction).cmp(&(a.count, &b.reaction)));
        if !with_people {
            views.truncate(MAX_REACTIONS_SHOWN);
        }
        Ok(views)
    }

    pub(super) fn contact_view(
        &self,
        tx: &Tx,
        contact: &Contact,
    ) -> Result<ContactView, NodeError> {
        self.contact_view_among(tx, contact, &Lookalikes::of(&Contacts::all(tx)?))
    }

    pub(super) fn contact_view_among(
        &self,
        tx: &Tx,
        contact: &Contact,
        names: &Lookalikes,
    ) -> Result<ContactView, NodeError> {
        let identity = contact.verified_identity();
        let data = identity.as_ref().map(|identity| identity.data());
        let reach = Reach::of(tx, &contact.key)?;
        let relayed = self.lanes.get(&contact.key).is_some_and(|lane| lane.relayed);
        // A friend's node that is a relay of ours has a session all the same.
        let direct = self.path_policy(tx, &contact.key)? != PathPolicy::Relay;
        let path = if direct && self.transport.has_session(&contact.key) {
            PathState::Direct
        } else if relayed {
            PathState::Relay
        } else {
            PathState::None
        };
        Ok(ContactView {
            id: contact.key.to_string(),
            name: contact.name().to_owned(),
            alias: contact.alias.clone(),
            trust: contact.trust,
            verified: contact.verified,
            flags: data.map(|data| data.flags.into()).unwrap_or_default(),
            version: data.map_or(0, |data| data.version),
            created: data.map(|data| data.created),
            first_seen: contact.first_seen,
            last_seen: contact.last_seen,
            relays: reach.relays.iter().map(RelayRecordView::from).collect(),
            path,
            path_policy: contact.path,
            endpoints: reach.addresses.iter().map(|address| address.endpoint.to_string()).collect(),
            safety_number: crate::identity::safety_number(&self.own.key(), &contact.key),
            relay_allowed: contact.relay_allowed,
            name_is_shared: self.name_is_shared(tx, contact)?,
            looks_like: names
                .other_than(&contact.key, contact.name())
                .map(|other| other.to_string()),
            alias_hides: Self::hidden_by_alias(tx, contact)?,
            doubt: contact.doubt.map(|doubt| DoubtView {
                kind: doubt.kind,
                version: doubt.version,
                at: doubt.at,
            }),
        })
    }

    pub(super) fn name_is_shared(&self, tx: &Tx, contact: &Contact) -> Result<bool, NodeError> {
        let name = contact.name();
        Ok(Contacts::all(tx)?.iter().any(|other| {
            other.key != contact.key
                && !name.is_empty()
                && (other.name() == name || other.alias.as_deref() == Some(name))
        }))
    }

    /// Another contact whose name is this one's alias: from now on the word means this one.
    fn hidden_by_alias(tx: &Tx, contact: &Contact) -> Result<Option<String>, NodeError> {
        let Some(alias) = &contact.alias else { return Ok(None) };
        let hidden = |other: &Contact| other.key != contact.key && other.name() == alias;
        Ok(Contacts::all(tx)?.iter().find(|other| hidden(other)).map(|other| other.key.to_string()))
    }

    pub(super) fn group_view(&mut self, tx: &Tx, group: GroupId) -> Result<Reply, NodeError> {
        let summary = self.groups.summary(tx, &group)?;
        let own = self.own.key();
        let standing = Conversation::of_group(tx, &group)?
            .map_or(Standing::Active, |conversation| conversation.standing);
        let healing = self.healing_view(&group);
        let mut members = Vec::new();
        for member in summary.members.iter() {
            members.push(self.member_view(tx, member.identity_key, role(member.role), false)?);
        }
        for invite in Invites::of_group(tx, &group)? {
            members.push(self.member_view(tx, invite.who, Role::Member, true)?);
        }
        members.iter_mut().for_each(|member| member.is_me = member.id == own.to_string());
        self.note_last_seen(tx, &group, &mut members)?;
        Ok(Reply::Group(Box::new(GroupView {
            id: group.to_string(),
            name: summary.name,
            epoch: summary.epoch,
            epoch_authenticator: sremp_common::id::hex(&summary.epoch_authenticator),
            suite: summary.suite,
            state: group_state(standing, healing.is_some()),
            members,
            healing,
        })))
    }

    fn member_view(
        &self,
        tx: &Tx,
        key: IdentityKey,
        role: Role,
        pending: bool,
    ) -> Result<MemberView, NodeError> {
        Ok(MemberView {
            id: key.to_string(),
            name: self.plain_name_of(tx, &key)?,
            alias: Contacts::find(tx, &key)?.and_then(|contact| contact.alias),
            is_machine_account: self.is_machine(tx, &key)?,
            role,
            is_me: key == self.own.key(),
            pending,
            last_seen: None,
            keys_since: None,
        })
    }

    /// When each member of a group was last heard, there or as a contact, and since when they have the
    /// keys that they have.
    fn note_last_seen(
        &self,
        tx: &Tx,
        group: &GroupId,
        members: &mut [MemberView],
    ) -> Result<(), NodeError> {
        let heard = LastHeard::of_group(tx, group)?;
        for member in members.iter_mut().filter(|member| !member.is_me) {
            let Ok(key) = decode_identity_key(&member.id) else { continue };
            let contact = Contacts::find(tx, &key)?;
            let heard = heard.get(&key).copied().unwrap_or_default();
            member.last_seen = contact.and_then(|contact| contact.last_seen).max(heard.at);
            member.keys_since = heard.keys_at;
        }
        Ok(())
    }

    pub(super) fn group_row(
        &mut self,
        tx: &Tx,
        conversation: &Conversation,
        group: &GroupId,
    ) -> Result<GroupRow, NodeError> {
        let summary = self.groups.summary(tx, group)?;
        let own = self.own.key();
        Ok(GroupRow {
            id: group.to_string(),
            name: conversation.name.clone(),
            state: group_state(conversation.standing, self.healing_view(group).is_some()),
            members: u32::try_from(summary.members.len()).unwrap_or(u32::MAX),
            role: summary.member(&own).map_or(Role::Member, |member| role(member.role)),
        })
    }

    pub(super) fn status(&self, tx: &Tx, _now: Now) -> Result<Reply, NodeError> {
        let mut sessions = Vec::new();
        for session in self.transport.sessions() {
            let Some(peer) = session.peer else { continue };
            let contact = Contacts::find(tx, &peer)?;
            sessions.push(SessionView {
                id: peer.to_string(),
                name: self.plain_name_of(tx, &peer)?,
                alias: contact.and_then(|contact| contact.alias),
                is_machine_account: self.is_machine(tx, &peer)?,
                relay: self.mailboxes.contains_key(&peer),
                direction: match session.direction {
                    crate::transport::Direction::Incoming => Direction::In,
                    crate::transport::Direction::Outgoing => Direction::Out,
                },
            });
        }
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Ok(Reply::Status(Box::new(StatusView {
            id: self.own.key().to_string(),
            name: self.own.identity().data().username.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listening: self.config.listening.iter().map(ToString::to_string).collect(),
            advertised: self.config.advertise.iter().map(ToString::to_string).collect(),
            sessions,
            relays: self.relay_views(tx)?,
            rendezvous: self.server_views(),
            outbox: Outbox::count(tx)?,
            requests: count(Requests::open(tx)?.len()),
            refused_changes: self.changes_refused,
            work: self.work_views(tx)?,
            started_at: self.started_at,
        })))
    }

    pub(super) fn identity_view(&self) -> Reply {
        let data = self.own.identity().data();
        let picture = data.extensions.as_ref().and_then(|ext| ext.profile_picture.as_ref());
        Reply::Identity(Box::new(IdentityView {
            id: self.own.key().to_string(),
            name: data.username.to_string(),
            version: data.version,
            created: data.created,
            flags: data.flags.into(),
            noise_key: data.noise_key.to_string(),
            relays: data.relays().iter().map(RelayRecordView::from).collect(),
            picture_bytes: picture
                .map_or(0, |picture| u32::try_from(picture.len()).unwrap_or(u32::MAX)),
        }))
    }
}

const fn role(role: groups::Role) -> Role {
    match role {
        groups::Role::Admin => Role::Admin,
        groups::Role::Member => Role::Member,
    }
}

const fn group_state(standing: Standing, is_healing: bool) -> GroupState {
    match standing {
        Standing::Active if is_healing => GroupState::Recovering,
        Standing::Active => GroupState::Active,
        Standing::Leaving | Standing::Left => GroupState::Left,
        Standing::Removed => GroupState::Removed,
    }
}
