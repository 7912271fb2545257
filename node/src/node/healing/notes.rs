//! Notes between members: what is asked, what is answered, and what follows from an answer.

use std::collections::BTreeSet;

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::Now;

use super::case::Doubt;
use super::{MAX_OFFERS, Telling};
use crate::conversations::{Conversation, History, Invites, RowKind, Standing as Place};
use crate::delivery::{Purpose, Verdict};
use crate::groups::{
    Change, GroupError, Mark, Note, NoteBody, Offer, Probe, Role, Split, Standing, Summary, Wants,
    choose,
};
use crate::identity::Reach;
use crate::node::{Node, NodeError};
use crate::store::Tx;

/// History rows in which the last message of a member is looked for.
const LOOKED_THROUGH: usize = 500;

impl Node {
    /// A note came, sealed for us.
    pub(in crate::node) fn apply_note(
        &mut self,
        tx: &Tx,
        bytes: &[u8],
        now: Now,
    ) -> Result<Verdict, NodeError> {
        let Some(note) = self.groups.open_note(tx, bytes)? else {
            return Ok(Verdict::Invalid("a note by nobody who is in such a group".into()));
        };
        let Note { group, from, body } = note;
        if from == self.own.key() {
            return Ok(Verdict::Invalid("a note of our own".into()));
        }
        let place = Conversation::of_group(tx, &group)?.map(|conversation| conversation.standing);
        let is_out = matches!(place, Some(Place::Left | Place::Removed));
        if is_out && self.answered_from_outside(tx, &group, &from, &body, now)? {
            return Ok(Verdict::Applied);
        }
        match body {
            NoteBody::Probe(probe) => self.probed(tx, group, from, &probe, now)?,
            NoteBody::Offer(offer) => self.offered(tx, group, from, *offer, now)?,
            NoteBody::ReaddMe => {
                self.healing.note_readd(group, from);
                self.ask_again(tx, &group, &from, Wants::Answer, now)?;
            }
            NoteBody::NotMember(mark) => self.told_to_be_gone(tx, group, from, mark, now)?,
            NoteBody::Out(leaf) => self.told_to_be_out(tx, group, from, leaf, now)?,
        }
        Ok(Verdict::Applied)
    }

    /// A member says where it stands.
    fn probed(
        &mut self,
        tx: &Tx,
        group: GroupId,
        from: IdentityKey,
        probe: &Probe,
        now: Now,
    ) -> Result<(), NodeError> {
        let standing = self.groups.compare(tx, &group, &probe.marks)?;
        tracing::debug!(?standing, ?from, wants = ?probe.wants, "somebody says where they stand");
        if self.groups.summary(tx, &group)?.member(&from).is_none() {
            return self.asked_by_outsider(tx, group, from, (probe, standing), now);
        }
        self.check_memory(tx, &group, probe.yours, now)?;
        // Of whoever stands where we came through we know that leaf, or a newer one.
        let is_news = matches!(
            standing,
            Standing::OnLostBranch(_)
                | Standing::WeMiss
                | Standing::Diverged(_)
                | Standing::Unrelated
        );
        if let Some(way) = probe.way.as_ref().filter(|_| is_news) {
            self.learn_leaf(tx, &group, &from, way)?;
        }
        self.answered_in(tx, &group, from, now)?;
        let stale = self.groups.is_stale(tx, &group)?;
        if let Some(theirs) = probe.marks.tip() {
            self.hear(&group, from, theirs, standing, stale);
            if matches!(standing, Standing::Same | Standing::TheyMiss(_) | Standing::WeMiss) {
                self.heard(tx, &group, &from, theirs.epoch, now)?;
            }
        }
        // The answer before what it explains: whoever is behind shall know it.
        if probe.wants != Wants::Nothing && standing != Standing::WeMiss {
            self.answer(tx, &group, &from, now)?;
        }
        match standing {
            Standing::Same => {
                if let Some(case) = self.healing.cases.get_mut(&group)
                    && self.groups.summary(tx, &group)?.is_admin(&from)
                {
                    case.forget_gone();
                }
                self.agreed(tx, &group, now)?;
            }
            Standing::TheyMiss(_) | Standing::OnLostBranch(_) => {
                self.bring_commits(tx, &group, &from, standing, now)?;
            }
            Standing::Diverged(_) => {
                self.bring_commits(tx, &group, &from, standing, now)?;
                self.doubt(group, Doubt::Behind, now);
                self.ask(tx, &group, &from, Wants::Answer, now)?;
            }
            Standing::WeMiss => {
                self.doubt(group, Doubt::Behind, now);
                self.note_behind(group);
                self.ask(tx, &group, &from, Wants::Answer, now)?;
            }
            Standing::TheyAreLost if self.healing.takes_readd(&group, &from, now) => {
                return self.readd(tx, group, from, now);
            }
            Standing::TheyAreLost => self.make_offer(tx, &group, &from, true, now)?,
            Standing::Unrelated if self.healing.takes_readd(&group, &from, now) => {
                return self.readd(tx, group, from, now);
            }
            Standing::Unrelated => self.doubt(group, Doubt::Forked, now),
        }
        if probe.wants == Wants::Offer && standing != Standing::TheyAreLost {
            let is_ahead = matches!(standing, Standing::TheyMiss(_));
            self.make_offer(tx, &group, &from, is_ahead, now)?;
        }
        self.decide(tx, group, now)
    }

    /// The group at our tip, if we decide there: an admin that stays, and is no old copy.
    pub(in crate::node) fn acting_admin(
        &mut self,
        tx: &Tx,
        group: &GroupId,
    ) -> Result<Option<Summary>, NodeError> {
        let summary = self.groups.summary(tx, group)?;
        let usable = summary.active && !summary.leaving && !self.groups.is_stale(tx, group)?;
        Ok((usable && summary.is_admin(&self.own.key())).then_some(summary))
    }

    /// A member has a message of ours that we never wrote: this home is an old copy. What it has lost
    /// is noted, so that it is found out once.
    fn check_memory(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        theirs: u64,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(mut conversation) = Conversation::of_group(tx, group)? else { return Ok(()) };
        let own = self.last_number(tx, group, &self.own.key())?.max(conversation.written);
        if theirs <= own.max(conversation.forgotten) {
            return Ok(());
        }
        conversation.forgotten = theirs;
        conversation.save(tx)?;
        if !self.groups.is_stale(tx, group)? {
            self.distrust(tx, *group, now)?;
        }
        Ok(())
    }

    /// Notes where a member stands, if that may decide where we go.
    fn hear(
        &mut self,
        group: &GroupId,
        from: IdentityKey,
        theirs: Mark,
        standing: Standing,
        stale: bool,
    ) {
        let Some(case) = self.healing.cases.get_mut(group) else { return };
        match standing {
            Standing::Same | Standing::Unrelated => {
                case.heard.insert(from, theirs);
            }
            _ if stale => {
                case.heard.insert(from, theirs);
            }
            Standing::TheyMiss(_)
            | Standing::OnLostBranch(_)
            | Standing::WeMiss
            | Standing::Diverged(_)
            | Standing::TheyAreLost => {
                case.heard.remove(&from);
            }
        }
    }

    /// A member offers a way back. It counts only if we asked.
    fn offered(
        &mut self,
        tx: &Tx,
        group: GroupId,
        from: IdentityKey,
        offer: Offer,
        now: Now,
    ) -> Result<(), NodeError> {
        if !self.healing.was_asked(&group, &from, now) {
            tracing::debug!("an offer that nobody asked for");
            return Ok(());
        }
        self.doubt(group, Doubt::Forked, now);
        if let Some(case) = self.healing.cases.get_mut(&group) {
            case.heard.insert(from, offer.mark);
            if offer.is_ahead {
                case.ahead.insert(from);
            }
            case.offers.insert(offer.mark, offer);
            if case.offers.len() > MAX_OFFERS {
                // The one of the oldest epoch: the group has moved on since.
                case.offers.pop_first();
            }
        }
        self.decide(tx, group, now)
    }

    /// Goes over to another side of a split, if that is where we belong.
    pub(super) fn decide(&mut self, tx: &Tx, group: GroupId, now: Now) -> Result<(), NodeError> {
        let summary = self.groups.summary(tx, &group)?;
        let stale = self.groups.is_stale(tx, &group)?;
        let own_mark = self.groups.mark(tx, &group)?;
        let Some(case) = self.healing.cases.get(&group) else { return Ok(()) };
        if case.doubt < Doubt::Forked {
            return Ok(());
        }
        let admins: BTreeSet<IdentityKey> = summary
            .members
            .iter()
            .filter(|member| member.role == Role::Admin)
            .map(|member| member.identity_key)
            .collect();
        let chosen = choose(&Split {
            own: self.own.key(),
            mark: own_mark.filter(|_| !stale),
            admins: &admins,
            others: summary.members.len().saturating_sub(1),
            heard: &case.heard,
            ahead: &case.ahead,
        });
        let Some(mark) = chosen else { return Ok(()) };
        if let Some(offer) = case.offers.get(&mark).cloned() {
            if !self.may_rejoin(&group, now) {
                return Ok(());
            }
            return self.rejoin(tx, group, &offer, now);
        }
        let there = case.heard.iter().find(|(_, other)| **other == mark).map(|(who, _)| *who);
        match there {
            Some(who) => self.ask(tx, &group, &who, Wants::Offer, now),
            None => Ok(()),
        }
    }

    fn rejoin(
        &mut self,
        tx: &Tx,
        group: GroupId,
        offer: &Offer,
        now: Now,
    ) -> Result<(), NodeError> {
        if let Some(case) = self.healing.cases.get_mut(&group) {
            // Whatever comes of it: the next decision is made on what is heard from now on.
            case.rejoins = case.rejoins.saturating_add(1);
            case.restart(now);
        }
        let leaf = self.leaf_info(tx, now)?;
        let changed = match self.groups.rejoin(tx, &group, offer, &leaf, now) {
            Ok(changed) => changed,
            Err(GroupError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::info!(%error, "a way back into a group was refused");
                return Err(error.into());
            }
        };
        let recipients: Vec<_> = changed.recipients.iter().map(|(key, _)| *key).collect();
        self.post(tx, group, changed.commit, &recipients, &Purpose::Commit(group), now)?;
        self.retry_deferred = true;
        let own = self.own.key();
        self.group_changed(tx, group, own, changed.events, now)
    }

    /// A member cannot come back by itself: as an admin we remove it, and add it when it has handed us
    /// a key package.
    fn readd(
        &mut self,
        tx: &Tx,
        group: GroupId,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(summary) = self.acting_admin(tx, &group)? else { return Ok(()) };
        if summary.member(&who).is_none() {
            return Ok(());
        }
        let was_admin = summary.is_admin(&who);
        if !self.healing.may_tell(&group, &who, Telling::Readd, None, now) {
            return Ok(());
        }
        let leaves = summary.leave_proposed.contains(&who);
        self.change_group(tx, &group, Change::Remove(vec![who]), now)?;
        if leaves {
            return Ok(());
        }
        self.wish(tx, group, who, now)?;
        if was_admin {
            Invites::make_admin(tx, &group, &who)?;
        }
        Ok(())
    }

    /// Sends the very commits that a member misses, as they were.
    pub(super) fn bring_commits(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        to: &IdentityKey,
        standing: Standing,
        now: Now,
    ) -> Result<(), NodeError> {
        let (from_state, has_lost) = match standing {
            Standing::TheyMiss(state) | Standing::Diverged(state) => (state, false),
            Standing::OnLostBranch(state) => (state, true),
            Standing::Same | Standing::WeMiss | Standing::TheyAreLost | Standing::Unrelated => {
                return Ok(());
            }
        };
        let mark = self.groups.mark(tx, group)?;
        let telling = if has_lost { Telling::Rivals } else { Telling::Commits };
        if !self.healing.may_tell(group, to, telling, mark, now) {
            return Ok(());
        }
        for commit in self.groups.commits_after(tx, group, from_state)?.iter() {
            self.post(tx, *group, commit.clone(), &[*to], &Purpose::Note, now)?;
        }
        if has_lost {
            for commit in self.groups.rivals_after(tx, group, from_state)? {
                self.post(tx, *group, commit, &[*to], &Purpose::Note, now)?;
            }
        }
        Ok(())
    }

    fn make_offer(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        to: &IdentityKey,
        is_ahead: bool,
        now: Now,
    ) -> Result<(), NodeError> {
        let summary = self.groups.summary(tx, group)?;
        if summary.member(to).is_none() {
            return Ok(());
        }
        let mark = self.groups.mark(tx, group)?;
        if !self.healing.may_tell(group, to, Telling::Offered, mark, now) {
            return Ok(());
        }
        let offer = match self.groups.offer(tx, group, is_ahead) {
            Ok(offer) => offer,
            Err(GroupError::Store(error)) => return Err(error.into()),
            Err(error) => {
                tracing::debug!(%error, "no way back can be offered");
                return Ok(());
            }
        };
        self.send_note(tx, group, to, &NoteBody::Offer(Box::new(offer)), now)
    }

    /// Asks a member where it stands, unless it was asked the same not long ago.
    pub(super) fn ask(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        to: &IdentityKey,
        wants: Wants,
        now: Now,
    ) -> Result<(), NodeError> {
        let mark = self.groups.mark(tx, group)?;
        let kind = if wants == Wants::Offer { Telling::AskedBack } else { Telling::Asked };
        if !self.healing.may_tell(group, to, kind, mark, now) {
            return Ok(());
        }
        self.ask_again(tx, group, to, wants, now)
    }

    /// Asks a member, whenever it was asked last.
    pub(in crate::node) fn ask_again(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        to: &IdentityKey,
        wants: Wants,
        now: Now,
    ) -> Result<(), NodeError> {
        let mark = self.groups.mark(tx, group)?;
        self.healing.forget_asked(group, to);
        self.healing.may_tell(group, to, Telling::Asked, mark, now);
        self.send_probe(tx, group, to, wants, now)
    }

    pub(super) fn answer(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        to: &IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        self.send_probe(tx, group, to, Wants::Nothing, now)
    }

    fn send_probe(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        to: &IdentityKey,
        wants: Wants,
        now: Now,
    ) -> Result<(), NodeError> {
        let marks = self.groups.marks(tx, group)?;
        let yours = self.last_number(tx, group, to)?;
        // They are members where we stand, and may be ones who know us by a leaf of long ago.
        let summary = self.groups.summary(tx, group)?;
        let asks = wants != Wants::Nothing && summary.member(to).is_some();
        let own = summary.member(&self.own.key()).filter(|_| asks && summary.active);
        let way = own.map(|own| own.leaf.clone());
        let leaf = summary.member(to).filter(|_| asks).map(|member| member.leaf.token);
        let probe = Probe { marks, wants, yours, way, leaf };
        self.send_note(tx, group, to, &NoteBody::Probe(probe), now)
    }

    pub(super) fn send_note(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        to: &IdentityKey,
        body: &NoteBody,
        now: Now,
    ) -> Result<(), NodeError> {
        let summary = self.groups.summary(tx, group)?;
        let from_leaf = summary.member(to).map(|member| member.leaf.seal_key);
        let Some(seal_key) = Reach::of(tx, to)?.seal_key.or(from_leaf) else { return Ok(()) };
        let blob = self.groups.note(group, (to, &seal_key), body)?;
        self.post(tx, *group, blob, &[*to], &Purpose::Note, now)?;
        Ok(())
    }

    /// The highest number of a message that somebody wrote in the conversation of a group.
    fn last_number(&self, tx: &Tx, group: &GroupId, who: &IdentityKey) -> Result<u64, NodeError> {
        let Some(conversation) = Conversation::of_group(tx, group)? else { return Ok(0) };
        let rows = History::page(tx, conversation.id, None, LOOKED_THROUGH)?;
        let theirs = rows.iter().filter(|row| row.from == *who && row.kind == RowKind::Text);
        Ok(theirs.map(|row| row.lamport).max().unwrap_or(0))
    }
}
