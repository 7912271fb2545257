//! Blobs that came in, by whatever path: each ends in one verdict, recorded with what it changed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sremp_common::id::{BlobId, GroupId, IdentityKey, MessageId};
use sremp_common::identity::Identity;
use sremp_common::limit::MAX_RECEIPT_MEMBERS;
use sremp_common::time::Now;
use sremp_common::wire::{Bin, decode, encode};

use super::filing::Origin;
use super::healing::Doubt;
use super::welcomes::SEALED_PART;
use super::{Node, NodeError};
use crate::api::{EventBody, MessageState, Trust};
use crate::conversations::{
    Content, Conversation, ConversationId, History, Kind, Request, Requests, Standing, Unheard,
};
use crate::delivery::inbox::Deferred;
use crate::delivery::{Inbox, Purpose, Verdict};
use crate::groups::{
    CredentialError, GroupKind, LeafInfo, MAX_TREE, OpenError, Opened, ReceiptBody, ReceiptKind,
    SEALED_NOTE, StateId, WelcomeError,
};
use crate::identity::{Contact, Contacts, Reach, TokenSource, Tokens};
use crate::store::{StoreError, Tx};

/// Kind of a sealed blob that is a Welcome.
pub(super) const SEALED_WELCOME: u8 = 1;
/// Times that blobs which waited are looked through for one batch of inputs.
const MAX_RETRY_PASSES: usize = 16;
/// Blobs that waited and come to a verdict in one look; the next batch goes on. Whoever has made
/// thousands wait does not hold up what the others say.
const MAX_RETRIED: usize = 256;

/// What is sealed to somebody who is invited: who invites, and the Welcome.
#[derive(Serialize, Deserialize)]
pub(super) struct WelcomeBody {
    pub(super) identity: Identity,
    pub(super) welcome: Bin<MAX_TREE>,
}

/// How a blob is looked at.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// It came through an admission that was meant for strangers.
    from_stranger: bool,
    /// It has not waited yet.
    is_new: bool,
    /// It may be sealed for us.
    unseal: bool,
}

impl Node {
    /// Takes one blob. Afterwards everything is accepted or refused: the caller only tells the
    /// sender.
    pub(super) fn take_blob(
        &mut self,
        tx: &Tx,
        blob: &[u8],
        from_stranger: bool,
        now: Now,
    ) -> Result<Verdict, StoreError> {
        let id = BlobId::of(&self.own.key(), blob);
        match Inbox::verdict(tx, &id)? {
            Some(Verdict::Deferred) => return Ok(Verdict::Deferred),
            Some(_) if self.misses_commit(tx, blob)? => {}
            Some(_) => return Ok(Verdict::Duplicate),
            None => {}
        }
        let look = Look { from_stranger, is_new: true, unseal: true };
        self.judge(tx, &id, blob, look, now)
    }

    fn misses_commit(&mut self, tx: &Tx, blob: &[u8]) -> Result<bool, StoreError> {
        match self.groups.misses_commit(tx, blob) {
            Ok(misses) => Ok(misses),
            Err(OpenError::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn judge(
        &mut self,
        tx: &Tx,
        id: &BlobId,
        blob: &[u8],
        look: Look,
        now: Now,
    ) -> Result<Verdict, StoreError> {
        let opened = self.groups.open(tx, blob, now);
        let forbidden = opened.as_ref().err().and_then(OpenError::forbidden);
        let verdict = match self.apply(tx, blob, opened, look, now) {
            Ok(Verdict::Applied) => Verdict::Applied,
            Ok(verdict) => {
                // Whatever was written on the way does not stand; the verdict does.
                self.refuse(tx);
                verdict
            }
            Err(NodeError::Store(error)) => return Err(error),
            Err(error) => {
                self.refuse(tx);
                Verdict::Invalid(error.to_string())
            }
        };
        if let Some((group, by)) = forbidden {
            self.attempt(tx, |node, tx| node.tell_forbidden(tx, group, by, now))?;
        }
        let mut verdict = verdict;
        if !verdict.is_recorded() {
            return Ok(verdict);
        }
        if verdict == Verdict::Deferred {
            if !look.is_new {
                return Ok(verdict);
            }
            self.unread(now);
            let sealed = self.groups.unseal(&self.own.seal_secrets(), blob).is_some();
            let from_stranger = look.from_stranger;
            let bytes = blob.to_vec();
            let received_at = now.wall;
            let deferred = Deferred { received_at, number: 0, from_stranger, sealed, bytes };
            if !Inbox::defer(tx, id, deferred)? {
                verdict = Verdict::Refused;
            }
            // It may be what a part of an invitation waits for.
            self.retry_deferred |= self.awaits_shared;
        }
        if let Verdict::Invalid(why) = &verdict {
            tracing::debug!(why, "a blob is invalid");
        }
        Inbox::record(tx, id, verdict.clone(), now)?;
        self.accept(tx)?;
        Ok(verdict)
    }

    /// Looks again at blobs that waited, as long as that leads further.
    pub(super) fn retry_waiting_blobs(&mut self, tx: &Tx, now: Now) -> Result<(), StoreError> {
        let mut settled = 0_usize;
        self.awaits_shared = false;
        let mut waiting = Inbox::deferred(tx)?;
        for _ in 0..MAX_RETRY_PASSES {
            let before = waiting.len();
            let mut still = Vec::with_capacity(before);
            for (id, deferred) in waiting {
                if settled >= MAX_RETRIED {
                    self.retry_deferred = true;
                    break;
                }
                // Another one may have taken it with it.
                if !Inbox::still_waits(tx, &id)? {
                    continue;
                }
                let from_stranger = deferred.from_stranger;
                let look = Look { from_stranger, is_new: false, unseal: deferred.sealed };
                let verdict = self.judge(tx, &id, &deferred.bytes, look, now)?;
                if verdict == Verdict::Deferred || !verdict.is_recorded() {
                    still.push((id, deferred));
                } else {
                    settled = settled.saturating_add(1);
                }
            }
            let progress = still.len() < before;
            waiting = still;
            if !progress || settled >= MAX_RETRIED {
                break;
            }
        }
        if settled > 0 {
            self.read_left_behind(now);
        }
        Ok(())
    }

    fn apply(
        &mut self,
        tx: &Tx,
        blob: &[u8],
        opened: Result<Opened, OpenError>,
        look: Look,
        now: Now,
    ) -> Result<Verdict, NodeError> {
        let opened = match opened {
            Ok(opened) => opened,
            Err(OpenError::UnknownState) if !look.unseal => return Ok(Verdict::Deferred),
            Err(OpenError::UnknownState) => {
                return self.apply_sealed(tx, blob, look.from_stranger, now);
            }
            Err(OpenError::Early(_)) => return Ok(Verdict::Deferred),
            Err(OpenError::Duplicate(_)) => return Ok(Verdict::Duplicate),
            Err(OpenError::TooManyRivals(_)) => return Ok(Verdict::Crowded),
            Err(OpenError::Store(error)) => return Err(error.into()),
            Err(error) => {
                if let OpenError::Outdone(group) = error {
                    // Others may stand on it, and bring it again and again: we cannot follow them.
                    self.doubt(group, Doubt::Behind, now);
                    self.note_behind(group);
                }
                return Ok(Verdict::Invalid(error.to_string()));
            }
        };
        match opened {
            // What somebody wrote before it was removed cannot be told from what it writes
            // afterwards in an old epoch: neither is taken any more.
            Opened::Message { former: true, .. } => {
                Ok(Verdict::Invalid("its author is no member any more".into()))
            }
            Opened::Message { group, state, epoch, sender, content, former: false } => {
                self.heard(tx, &group, &sender, epoch, now)?;
                self.apply_message(tx, group, state, sender, &content, now)
            }
            Opened::Receipt { group, epoch, from, ids, kind, .. } => {
                self.heard(tx, &group, &from, epoch, now)?;
                self.apply_receipt(tx, group, from, &ids, kind, now)
            }
            Opened::Changed { group, epoch, by, events, raced } => {
                self.retry_deferred = true;
                if raced {
                    self.raced(tx, group, now)?;
                }
                self.group_changed(tx, group, by, events, now)?;
                self.heard(tx, &group, &by, epoch, now)?;
                Ok(Verdict::Applied)
            }
            Opened::LeaveProposed { group, .. } => {
                // The commit that carries it out may have come first.
                self.retry_deferred = true;
                self.await_turn(tx, group, now)?;
                Ok(Verdict::Applied)
            }
        }
    }

    fn apply_message(
        &mut self,
        tx: &Tx,
        group: GroupId,
        state: StateId,
        sender: IdentityKey,
        content: &[u8],
        now: Now,
    ) -> Result<Verdict, NodeError> {
        let Some(mut conversation) = Conversation::of_group(tx, &group)? else {
            return Ok(Verdict::Invalid("no conversation stands on this group".into()));
        };
        let contact = Contacts::find(tx, &sender)?;
        if contact.as_ref().is_some_and(|contact| contact.trust == Trust::Rejected) {
            return Ok(Verdict::Invalid("its author is rejected".into()));
        }
        let (content, kind) = match Content::from_bytes(content) {
            Ok(parsed) => parsed,
            Err(error) => return Ok(Verdict::Invalid(error.to_string())),
        };
        if let Some(mut contact) = contact {
            contact.last_seen = Some(now.wall);
            Contacts::save(tx, &contact)?;
        }
        self.heard_in(tx, &mut conversation, &group, &state)?;
        self.look_after(tx, &group, &state, &sender, now)?;
        if let Kind::Profile(profile) = &kind {
            self.learn_profile(tx, &sender, &profile.identity, now)?;
            return Ok(Verdict::Applied);
        }
        if matches!(kind, Kind::Timer(_)) && !self.groups.was_admin(tx, &group, state, &sender)? {
            return Ok(Verdict::Invalid("only admins may set a group's timer".into()));
        }
        let receipts = self.groups.member_count(tx, &group)? <= MAX_RECEIPT_MEMBERS;
        let origin = Origin { sender, sealed_in: (group, state), receipts };
        let verdict = self.file_content(tx, &mut conversation, origin, &content, kind, now)?;
        if receipts && verdict == Verdict::Applied {
            self.receipts.entry((group, state, sender)).or_default().push(content.message_id);
        }
        Ok(verdict)
    }

    /// Makes the receipts that the batch owes: one for each author and state.
    pub(super) fn make_receipts(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        for ((group, state, author), ids) in std::mem::take(&mut self.receipts) {
            self.send_receipt(tx, group, state, author, &ids, ReceiptKind::Delivered, now)?;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one receipt")]
    pub(super) fn send_receipt(
        &mut self,
        tx: &Tx,
        group: GroupId,
        state: StateId,
        author: IdentityKey,
        ids: &[MessageId],
        kind: ReceiptKind,
        now: Now,
    ) -> Result<(), NodeError> {
        for ids in ids.chunks(sremp_common::limit::MAX_RECEIPT_IDS) {
            let ids = sremp_common::wire::List::truncated(ids.to_vec());
            let body = ReceiptBody { group, state, author, ids, kind, time: now.wall };
            match self.groups.receipt(tx, &body, now) {
                Ok((blob, _)) => {
                    self.post(tx, group, blob, &[author], &Purpose::Receipt, now)?;
                }
                Err(crate::groups::GroupError::Store(error)) => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "a receipt cannot be made"),
            }
        }
        Ok(())
    }

    fn apply_receipt(
        &mut self,
        tx: &Tx,
        group: GroupId,
        from: IdentityKey,
        ids: &[MessageId],
        kind: ReceiptKind,
        now: Now,
    ) -> Result<Verdict, NodeError> {
        let own = self.own.key();
        let to = match kind {
            ReceiptKind::Delivered => MessageState::Delivered,
            ReceiptKind::Read => MessageState::Read,
        };
        let Some(mut conversation) = Conversation::of_group(tx, &group)? else {
            return Ok(Verdict::Applied);
        };
        self.confirmed_in(conversation.id, now);
        let rejected = Contacts::is_rejected(tx, &from)?;
        for id in ids.iter().filter(|_| !rejected) {
            let Some(mut row) = History::find(tx, id, &own)? else { continue };
            if conversation.id != row.conversation {
                continue;
            }
            if let Some((_, state)) = &row.sealed_in {
                self.heard_in(tx, &mut conversation, &group, state)?;
            }
            let moved = row.advance(&[from], to);
            History::update(tx, &row)?;
            if moved {
                self.tell_state(tx, &row, now)?;
            }
        }
        Ok(Verdict::Applied)
    }

    fn apply_sealed(
        &mut self,
        tx: &Tx,
        blob: &[u8],
        from_stranger: bool,
        now: Now,
    ) -> Result<Verdict, NodeError> {
        let Some((kind, body)) = self.groups.unseal(&self.own.seal_secrets(), blob) else {
            // Nobody but a member could make a blob of a state that is still to come.
            return Ok(if from_stranger { Verdict::NoInvitation } else { Verdict::Deferred });
        };
        match kind {
            SEALED_WELCOME => {}
            SEALED_PART => return self.apply_part(tx, &body, from_stranger, now),
            SEALED_NOTE if !from_stranger => return self.apply_note(tx, &body, now),
            _ => return Ok(Verdict::Invalid("a sealed blob of unknown kind".into())),
        }
        let body: WelcomeBody = match decode(&body) {
            Ok(body) => body,
            Err(error) => return Ok(Verdict::Invalid(error.to_string())),
        };
        self.apply_welcome(tx, &body, now)
    }

    pub(super) fn apply_welcome(
        &mut self,
        tx: &Tx,
        body: &WelcomeBody,
        now: Now,
    ) -> Result<Verdict, NodeError> {
        let identity = match body.identity.verify() {
            Ok(identity) => identity,
            Err(error) => return Ok(Verdict::Invalid(error.to_string())),
        };
        let joined = match self.groups.join(tx, &body.welcome, now) {
            Ok(joined) => joined,
            Err(crate::groups::GroupError::Store(error)) => return Err(error.into()),
            Err(crate::groups::GroupError::Welcome(WelcomeError::Replayed)) => {
                return Ok(Verdict::Duplicate);
            }
            // The commits that explain it may still come.
            Err(crate::groups::GroupError::Welcome(WelcomeError::UnknownAdmin(_))) => {
                return Ok(Verdict::Deferred);
            }
            // One of two clocks is wrong, perhaps ours: it waits until that has changed.
            Err(crate::groups::GroupError::Credential(CredentialError::NotYetValid)) => {
                return Ok(Verdict::Deferred);
            }
            Err(error) => return Ok(Verdict::Invalid(error.to_string())),
        };
        if joined.inviter != identity.key() {
            return Ok(Verdict::Invalid("the invitation carries another's identity".into()));
        }
        let Some(mut contact) = Contacts::find(tx, &joined.inviter)? else {
            // A stranger: nothing of the group is kept but the Welcome, until the user says yes.
            self.refuse(tx);
            let request = Request {
                from: identity.key(),
                identity: body.identity.clone(),
                group: joined.group,
                direct: joined.kind == GroupKind::Direct,
                name: joined.name,
                received_at: now.wall,
                declined_at: None,
                welcome: body.welcome.to_vec(),
            };
            if !Requests::add(tx, &request)? {
                return Ok(Verdict::TooManyRequests);
            }
            self.tell(
                tx,
                EventBody::Request {
                    id: identity.key().to_string(),
                    name: identity.data().username.to_string(),
                    flags: identity.data().flags.into(),
                    group: (!request.direct).then(|| request.name.clone()),
                },
                now,
            )?;
            return Ok(Verdict::Applied);
        };
        if contact.trust == Trust::Rejected {
            return Ok(Verdict::Invalid("its author is rejected".into()));
        }
        contact.last_seen = Some(now.wall);
        Contacts::save(tx, &contact)?;
        if self.learn_mailed_identity(tx, &identity, now)? {
            self.learn_reach(tx, &identity)?;
        }
        self.entered(tx, &joined, now)?;
        Ok(Verdict::Applied)
    }

    /// A group was joined: its conversation stands, and what waited for it can go on.
    pub(super) fn entered(
        &mut self,
        tx: &Tx,
        joined: &crate::groups::Joined,
        now: Now,
    ) -> Result<(), NodeError> {
        let id = match joined.kind {
            GroupKind::Direct => ConversationId::Contact(joined.inviter),
            GroupKind::Group => ConversationId::Group(joined.group),
        };
        let mut conversation = Conversation::find(tx, id)?
            .unwrap_or_else(|| Conversation::new(id, joined.name.clone()));
        conversation.standing = Standing::Active;
        conversation.name.clone_from(&joined.name);
        conversation.update_due = true;
        conversation.stand_on(tx, joined.group)?;
        // The token of the key package that was used is a member's from now on.
        self.admission_changed = true;
        self.fellows_of.remove(&joined.group);
        self.restart_healing(&joined.group, now);
        self.learn_members(tx, &joined.group, None, now)?;
        self.retry_deferred = true;
        self.people_changed = true;
        // Whoever invites is there.
        Unheard::remove(tx, &joined.group, &joined.inviter)?;
        self.invite_undelivered(tx, &joined.inviter)?;
        if joined.kind == GroupKind::Direct {
            crate::conversations::Invites::remove_all_of(tx, &conversation.groups, &joined.inviter);
            self.heard_elsewhere(tx, &mut conversation, now)?;
            self.flush_intents(tx, &mut conversation, now)?;
        } else {
            self.introduce(tx, &mut conversation, &joined.group)?;
            self.follow(joined.group, false, BTreeSet::new());
            let text = format!("{} invited you to this group", self.name_of(tx, &joined.inviter)?);
            self.notice(tx, &mut conversation, joined.inviter, text, now)?;
            let change = crate::api::Change::Joined;
            self.tell_group(tx, &conversation, change, Some(joined.inviter), None, now)?;
        }
        Ok(())
    }

    /// Takes over how the members of a group can be reached: all of them, or those in `only`.
    pub(super) fn learn_members(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        only: Option<&BTreeSet<IdentityKey>>,
        now: Now,
    ) -> Result<(), NodeError> {
        let own = self.own.key();
        for member in self.groups.summary(tx, group)?.members.iter() {
            if member.identity_key == own {
                self.admission_changed |= Tokens::carry(tx, &member.leaf.token, now)?;
                continue;
            }
            if only.is_some_and(|only| !only.contains(&member.identity_key)) {
                continue;
            }
            self.learn_leaf(tx, group, &member.identity_key, &member.leaf)?;
        }
        Ok(())
    }

    /// How a member can be reached, as their leaf in a group says.
    pub(super) fn learn_leaf(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        leaf: &LeafInfo,
    ) -> Result<(), NodeError> {
        let mut reach = Reach::of(tx, who)?;
        reach.learn_token(TokenSource::Group(*group), leaf.token);
        if !reach.from_identity {
            reach.learn_relays(&leaf.relays);
            reach.seal_key = Some(leaf.seal_key);
        }
        reach.save(tx, who)?;
        if let Some(lane) = self.lanes.get_mut(who) {
            lane.wake();
            self.awake.insert(*who);
        }
        Ok(())
    }
}

/// The bytes that are sealed to whoever is invited.
pub(super) fn welcome_bytes(identity: &Identity, welcome: Vec<u8>) -> Option<Vec<u8>> {
    let welcome = Bin::new(welcome).ok()?;
    Some(encode(&WelcomeBody { identity: identity.clone(), welcome }))
}

/// A contact made from a request.
pub(super) fn contact_of(request: &Request, now: Now) -> Contact {
    let mut contact = Contact::new(request.from, now);
    if let Ok(identity) = request.identity.verify() {
        contact.learn(&identity);
    }
    contact.last_seen = Some(request.received_at);
    contact
}
