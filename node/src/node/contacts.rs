//! Commands about contacts, links and requests of strangers.

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::text::{
    ContactLink, TextError, decode_contact_link, decode_identity_key, encode_contact_link, role_of,
};
use sremp_common::time::Now;
use sremp_common::wire::{Endpoint, ErrorCode, List};

use super::receive::contact_of;
use super::{Node, NodeError};
use crate::api::{
    self, ApiError, Change, LinkKind, LinkView, PathPolicy, RemovedView, Reply, RequestView, Trust,
};
use crate::conversations::{Conversation, ConversationId, Invites, Request, Requests};
use crate::groups::Change as GroupChange;
use crate::identity::contact::MAX_CONTACTS;
use crate::identity::{Contact, Contacts, Lookalikes, Reach, TokenPurpose, TokenSource, Tokens};
use crate::store::Tx;

/// Bytes of an alias.
const MAX_ALIAS: usize = 160;

impl Node {
    pub(super) fn link(&mut self, tx: &Tx, once: bool, now: Now) -> Result<Reply, NodeError> {
        let token = if once {
            Tokens::make(tx, TokenPurpose::Once, &mut self.entropy, now)?
        } else {
            Tokens::standing_link(tx, &mut self.entropy, now)?
        };
        self.admission_changed = true;
        let data = self.own.identity().data();
        let servers = self.servers.iter().map(|server| server.row.endpoint.clone()).collect();
        let link = ContactLink {
            identity_key: self.own.key(),
            name: data.username.clone(),
            addresses: List::truncated(self.config.advertise.clone()),
            relays: List::truncated(data.relays()),
            rendezvous: List::truncated(servers),
            token: Some(token),
        };
        let kind = if once { LinkKind::Once } else { LinkKind::Standing };
        Ok(Reply::Link(LinkView { link: encode_contact_link(&link), kind }))
    }

    pub(super) fn contact_add(
        &mut self,
        tx: &Tx,
        what: &str,
        alias: Option<&str>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let added = parse_contact(what)?;
        let key = added.key;
        if key == self.own.key() {
            return Err(ApiError::usage("this is your own id; share it with others instead").into());
        }
        let known = Contacts::find(tx, &key)?;
        let is_new = known.is_none();
        if is_new && Contacts::all(tx)?.len() >= MAX_CONTACTS {
            return Err(ApiError::refused(format!(
                "there are {MAX_CONTACTS} contacts already; remove one first"
            ))
            .into());
        }
        let mut contact = known.unwrap_or_else(|| Contact::new(key, now));
        let mut reach = Reach::of(tx, &key)?;
        if let Some(link) = &added.link {
            contact.learn_link(link);
            reach.learn_relays(&link.relays);
            if let Some(token) = link.token {
                reach.learn_token(TokenSource::Link, token);
            }
        }
        for endpoint in added.addresses.into_iter().rev() {
            reach.learn_address(endpoint, true);
        }
        if let Some(alias) = alias {
            contact.alias = self.checked_alias(tx, &key, alias)?;
        }
        Contacts::save(tx, &contact)?;
        reach.save(tx, &key)?;
        self.people_changed = true;
        if is_new {
            self.tell_contact(tx, &contact, Change::Added, now)?;
            self.warn_of_shared_name(tx, &contact, now)?;
            self.take_waiting_requests(tx, &key, now)?;
            if added.link.is_none() {
                // Whoever added a bare id wants to see whom.
                self.look_up(tx, &key, now)?;
            }
        } else if added.link.is_some() {
            self.invite_again_by_link(tx, key, now)?;
        }
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.wake();
            self.awake.insert(key);
        }
        Ok(Reply::Contact(Box::new(self.contact_view(tx, &contact)?)))
    }

    pub(super) fn warn_of_shared_name(
        &mut self,
        tx: &Tx,
        contact: &Contact,
        now: Now,
    ) -> Result<(), NodeError> {
        if self.name_is_shared(tx, contact)? {
            return self.tell_contact(tx, contact, Change::NameClash, now);
        }
        let names = Lookalikes::of(&Contacts::all(tx)?);
        if names.other_than(&contact.key, contact.name()).is_some() {
            self.tell_contact(tx, contact, Change::NameLookalike, now)?;
        }
        Ok(())
    }

    fn checked_alias(
        &self,
        tx: &Tx,
        key: &IdentityKey,
        alias: &str,
    ) -> Result<Option<String>, NodeError> {
        let alias = alias.trim();
        if alias.is_empty() {
            return Ok(None);
        }
        if alias.len() > MAX_ALIAS || alias.chars().any(char::is_control) || alias.contains(':') {
            return Err(ApiError::usage(format!(
                "an alias has at most {MAX_ALIAS} bytes, no colon and no control characters"
            ))
            .into());
        }
        let taken = Contacts::all(tx)?
            .iter()
            .any(|other| other.key != *key && other.alias.as_deref() == Some(alias));
        if taken {
            return Err(ApiError::refused(format!("`{alias}` is another contact's alias")).into());
        }
        Ok(Some(alias.to_owned()))
    }

    pub(super) fn contact_edit(
        &mut self,
        tx: &Tx,
        who: &str,
        edit: impl FnOnce(&Self, &mut Contact) -> Result<(), NodeError>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let key = self.resolve_contact(tx, who)?;
        let Some(mut contact) = Contacts::find(tx, &key)? else {
            return Err(ApiError::not_found("no such contact").into());
        };
        edit(self, &mut contact)?;
        Contacts::save(tx, &contact)?;
        self.people_changed = true;
        self.tell_contact(tx, &contact, Change::Edited, now)?;
        if contact.trust == Trust::Rejected {
            self.load_keeper(tx)?;
            self.transport.close_peer(&key, ErrorCode::Goodbye, now);
        } else {
            self.awake.insert(key);
        }
        Ok(Reply::Contact(Box::new(self.contact_view(tx, &contact)?)))
    }

    pub(super) fn contact_alias(
        &mut self,
        tx: &Tx,
        who: &str,
        alias: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        self.contact_edit(
            tx,
            who,
            |node, contact| {
                contact.alias = node.checked_alias(tx, &contact.key, alias)?;
                Ok(())
            },
            now,
        )
    }

    pub(super) fn contact_trust(
        &mut self,
        tx: &Tx,
        who: &str,
        trust: Trust,
        verified: Option<bool>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let key = self.resolve_contact(tx, who)?;
        let before = Contacts::find(tx, &key)?.map(|contact| contact.trust);
        let reply = self.contact_edit(
            tx,
            who,
            |_, contact| {
                contact.trust = trust;
                // The owner has seen what there was, and judged.
                contact.doubt = None;
                contact.verified = verified.unwrap_or(contact.verified);
                Ok(())
            },
            now,
        )?;
        match (before == Some(Trust::Rejected), trust == Trust::Rejected) {
            (false, true) => self.shut_out(tx, &key, now)?,
            (true, false) => self.let_in_again(tx, &key, now)?,
            (true, true) | (false, false) => {}
        }
        Ok(reply)
    }

    /// Somebody is rejected: the tokens that the chats of two gave them open nothing any more, and
    /// what was on its way to them ends.
    fn shut_out(&mut self, tx: &Tx, key: &IdentityKey, now: Now) -> Result<(), NodeError> {
        let own = self.own.key();
        for group in self.direct_groups(tx, key)? {
            if let Some(member) = self.groups.summary(tx, &group)?.member(&own) {
                Tokens::revoke(tx, &member.leaf.token);
                self.admission_changed = true;
            }
            Invites::remove(tx, &group, key);
        }
        self.fetches.remove(key);
        self.give_up_all(tx, key, "you rejected them", now)
    }

    /// Somebody is not rejected any more: they get a new token with our new leaf.
    fn let_in_again(&mut self, tx: &Tx, key: &IdentityKey, now: Now) -> Result<(), NodeError> {
        for group in self.direct_groups(tx, key)? {
            if self.groups.member_count(tx, &group)? > 1 {
                let leaf = self.leaf_info(tx, now)?;
                self.change_group(tx, &group, GroupChange::Update(leaf), now)?;
            }
        }
        Ok(())
    }

    fn direct_groups(&self, tx: &Tx, key: &IdentityKey) -> Result<Vec<GroupId>, NodeError> {
        let conversation = Conversation::find(tx, ConversationId::Contact(*key))?;
        Ok(conversation.map(|conversation| conversation.groups).unwrap_or_default())
    }

    pub(super) fn contact_path(
        &mut self,
        tx: &Tx,
        who: &str,
        path: Option<PathPolicy>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        self.contact_edit(
            tx,
            who,
            |_, contact| {
                contact.path = path;
                Ok(())
            },
            now,
        )
    }

    pub(super) fn contact_remove(
        &mut self,
        tx: &Tx,
        who: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let key = self.resolve_contact(tx, who)?;
        let Some(contact) = Contacts::find(tx, &key)? else {
            return Err(ApiError::not_found("no such contact").into());
        };
        Contacts::remove(tx, &key);
        self.people_changed = true;
        self.load_keeper(tx)?;
        self.tell_contact(tx, &contact, Change::Removed, now)?;
        self.transport.close_peer(&key, ErrorCode::Goodbye, now);
        let rejection_lifted = contact.trust == Trust::Rejected;
        Ok(Reply::Removed(RemovedView { rejection_lifted }))
    }

    pub(super) fn requests_list(&self, tx: &Tx) -> Result<Reply, NodeError> {
        let mut views = Vec::new();
        let names = Lookalikes::of(&Contacts::all(tx)?);
        for request in Requests::open(tx)? {
            let Ok(identity) = request.identity.verify() else { continue };
            let name = &identity.data().username;
            views.push(RequestView {
                id: request.from.to_string(),
                name: name.to_string(),
                looks_like: names.other_than(&request.from, name).map(|other| other.to_string()),
                flags: identity.data().flags.into(),
                group: (!request.direct).then_some(request.name),
                received_at: request.received_at,
            });
        }
        views.sort_by_key(|view| view.received_at);
        Ok(Reply::Requests(views))
    }

    fn resolve_requests(&self, tx: &Tx, who: &str) -> Result<Vec<Request>, NodeError> {
        let all = Requests::open(tx)?;
        let candidates = all.iter().map(|request| api::who::Candidate {
            kind: api::who::Kind::Contact,
            id: request.from.to_string(),
            name: request
                .identity
                .verify()
                .map(|identity| identity.data().username.to_string())
                .unwrap_or_default(),
            alias: None,
            value: request.from,
        });
        // One stranger may have sent several requests: they are answered together.
        let mut seen = std::collections::BTreeSet::new();
        let candidates = candidates.filter(|candidate| seen.insert(candidate.value));
        let from =
            api::who::resolve(who, Some(api::who::Kind::Contact), candidates).map_err(|error| {
                ApiError::new(
                    error.code,
                    format!("no request of `{who}` waits; see them with: sremp requests list"),
                )
            })?;
        Ok(all.into_iter().filter(|request| request.from == from).collect())
    }

    pub(super) fn request_accept(
        &mut self,
        tx: &Tx,
        who: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let requests = self.resolve_requests(tx, who)?;
        let Some(first) = requests.first() else {
            return Err(ApiError::not_found("no such request").into());
        };
        let contact = contact_of(first, now);
        let key = contact.key;
        Contacts::save(tx, &contact)?;
        self.people_changed = true;
        self.tell_contact(tx, &contact, Change::Added, now)?;
        self.warn_of_shared_name(tx, &contact, now)?;
        self.take_waiting_requests(tx, &key, now)?;
        self.read_left_behind(now);
        let contact = Contacts::find(tx, &key)?.unwrap_or(contact);
        Ok(Reply::Contact(Box::new(self.contact_view(tx, &contact)?)))
    }

    /// Somebody became a contact: the invitations of theirs that wait are taken.
    fn take_waiting_requests(
        &mut self,
        tx: &Tx,
        key: &IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        // Each invitation is a step of its own: one that fails does not take the others with it.
        self.accept(tx)?;
        let mut unusable = false;
        for request in Requests::all(tx)? {
            if request.from != *key {
                continue;
            }
            Requests::remove(tx, &request);
            if let Ok(identity) = request.identity.verify()
                && self.learn_mailed_identity(tx, &identity, now)?
            {
                self.learn_reach(tx, &identity)?;
            }
            match self.groups.join(tx, &request.welcome, now) {
                Ok(joined) if joined.inviter == *key => self.entered(tx, &joined, now)?,
                Err(crate::groups::GroupError::Store(error)) => return Err(error.into()),
                // Of no use any more: the next one may be.
                Ok(_) | Err(_) => {
                    self.refuse(tx);
                    Requests::remove(tx, &request);
                    unusable = true;
                }
            }
            self.accept(tx)?;
        }
        if unusable {
            return Err(ApiError::failed(
                "they are a contact now, but an invitation of theirs cannot be used any more; ask to be invited again",
            )
            .into());
        }
        Ok(())
    }

    /// Somebody is told no, without hearing of it. Their invitations are kept for as long as others,
    /// and taken should they become a contact after all: only then can be read what they write.
    pub(super) fn request_decline(
        &mut self,
        tx: &Tx,
        who: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        for request in self.resolve_requests(tx, who)? {
            Requests::decline(tx, request, now)?;
        }
        self.read_left_behind(now);
        Ok(Reply::Done {})
    }

    /// A contact by alias, name or id.
    pub(super) fn resolve_contact(&self, tx: &Tx, who: &str) -> Result<IdentityKey, NodeError> {
        let candidates = contact_candidates(tx)?;
        Ok(api::who::resolve(who, Some(api::who::Kind::Contact), candidates)?)
    }

    /// A group by name or id.
    pub(super) fn resolve_group(&self, tx: &Tx, word: &str) -> Result<GroupId, NodeError> {
        let id = self.resolve_among(tx, word, Some(api::who::Kind::Group))?;
        match id {
            ConversationId::Group(group) => Ok(group),
            ConversationId::Contact(_) => Err(ApiError::not_found("no such group").into()),
        }
    }

    /// A conversation by the word for its contact or group.
    pub(super) fn resolve_conversation(
        &self,
        tx: &Tx,
        word: &str,
    ) -> Result<ConversationId, NodeError> {
        self.resolve_among(tx, word, None)
    }

    fn resolve_among(
        &self,
        tx: &Tx,
        word: &str,
        wanted: Option<api::who::Kind>,
    ) -> Result<ConversationId, NodeError> {
        let people = contact_candidates(tx)?.into_iter().map(|candidate| api::who::Candidate {
            kind: candidate.kind,
            id: candidate.id,
            name: candidate.name,
            alias: candidate.alias,
            value: ConversationId::Contact(candidate.value),
        });
        let mut candidates: Vec<_> = people.collect();
        for conversation in Conversation::all(tx)? {
            if let ConversationId::Group(group) = conversation.id {
                candidates.push(api::who::Candidate {
                    kind: api::who::Kind::Group,
                    id: group.to_string(),
                    name: conversation.name,
                    alias: None,
                    value: ConversationId::Group(group),
                });
            }
        }
        Ok(api::who::resolve(word, wanted, candidates)?)
    }
}

fn contact_candidates(tx: &Tx) -> Result<Vec<api::who::Candidate<IdentityKey>>, NodeError> {
    let candidate = |contact: Contact| api::who::Candidate {
        kind: api::who::Kind::Contact,
        id: contact.key.to_string(),
        name: contact.name().to_owned(),
        alias: contact.alias,
        value: contact.key,
    };
    Ok(Contacts::all(tx)?.into_iter().map(candidate).collect())
}

/// What `contact add` was given.
struct Added {
    key: IdentityKey,
    link: Option<ContactLink>,
    addresses: Vec<Endpoint>,
}

/// `LINK`, `ID@HOST:PORT` or `ID`.
fn parse_contact(what: &str) -> Result<Added, ApiError> {
    let what = what.trim();
    let usage = |error: TextError| ApiError::usage(error.to_string());
    if role_of(what) == Some("a contact link") {
        let link = decode_contact_link(what).map_err(usage)?;
        let addresses = link.addresses.to_vec();
        return Ok(Added { key: link.identity_key, link: Some(link), addresses });
    }
    let (id, address) = match what.split_once('@') {
        Some((id, address)) => (id, Some(address)),
        None => (what, None),
    };
    let key = decode_identity_key(id).map_err(usage)?;
    let addresses = match address {
        Some(address) => {
            vec![address.parse::<Endpoint>().map_err(|error| ApiError::usage(error.to_string()))?]
        }
        None => Vec::new(),
    };
    Ok(Added { key, link: None, addresses })
}
