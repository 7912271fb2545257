//! Who is no member any more: how they are told, and what they tell.
//!
//! Whoever was removed may never get the commit, or not be able to read what its branch won by; only a
//! word can tell it. Whoever left in a state that nobody else came to is a member for all others, and
//! says so. A word of either kind names what it is about, so that an old one, kept by a relay, says
//! nothing.

use sremp_common::id::{GroupId, IdentityKey, Token};
use sremp_common::time::Now;

use super::Telling;
use super::case::Doubt;
use crate::conversations::Invites;
use crate::groups::{Change, GroupEvent, Mark, NoteBody, Probe, Standing, Wants};
use crate::identity::Tokens;
use crate::node::{Node, NodeError};
use crate::store::Tx;

impl Node {
    /// Somebody asks who is no member where we stand: it is brought the commits that it misses, and told
    /// that it is none. Its word decides nothing here, but may show that we are behind.
    pub(super) fn asked_by_outsider(
        &mut self,
        tx: &Tx,
        group: GroupId,
        from: IdentityKey,
        (probe, standing): (&Probe, Standing),
        now: Now,
    ) -> Result<(), NodeError> {
        let (Some(theirs), Some(ours)) = (probe.marks.tip(), self.groups.mark(tx, &group)?) else {
            return Ok(());
        };
        if probe.wants == Wants::Nothing {
            return Ok(());
        }
        if let Some(way) = &probe.way {
            self.learn_leaf(tx, &group, &from, way)?;
        }
        self.bring_commits(tx, &group, &from, standing, now)?;
        let leads_on = matches!(standing, Standing::WeMiss | Standing::Diverged(_));
        let may_be_ahead = leads_on || theirs.epoch > ours.epoch;
        if may_be_ahead && self.healing.may_tell(&group, &from, Telling::Doubted, Some(theirs), now)
        {
            // It may have been added since.
            self.doubt(group, Doubt::Behind, now);
        }
        match standing {
            Standing::WeMiss | Standing::Diverged(_) => {
                self.answer(tx, &group, &from, now)?;
                self.ask(tx, &group, &from, Wants::Answer, now)
            }
            Standing::Same | Standing::TheyMiss(_) => Ok(()),
            Standing::OnLostBranch(_) | Standing::TheyAreLost | Standing::Unrelated => {
                self.tell_to_be_gone(tx, group, from, theirs, now)
            }
        }
    }

    /// Somebody who is no member any more cannot find out by itself: it keeps no state from which it
    /// could follow to its removal, or cannot read what makes that branch the deeper one. Unless it is to
    /// be added again, or we are in doubt ourselves, it is told.
    fn tell_to_be_gone(
        &mut self,
        tx: &Tx,
        group: GroupId,
        who: IdentityKey,
        theirs: Mark,
        now: Now,
    ) -> Result<(), NodeError> {
        let usable =
            self.groups.summary(tx, &group)?.active && !self.groups.is_stale(tx, &group)?;
        let sure = usable && !self.healing.cases.contains_key(&group);
        if !sure || Invites::find(tx, &group, &who)?.is_some() {
            return Ok(());
        }
        self.tell_not_member(tx, &group, &who, theirs, now)
    }

    /// Says to somebody who stands in a state that they are no member, where we know that they are none.
    pub(in crate::node) fn tell_not_member(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        theirs: Mark,
        now: Now,
    ) -> Result<(), NodeError> {
        let listed = self.groups.summary(tx, group)?.member(who).is_some();
        if listed || !self.healing.may_tell(group, who, Telling::Gone, Some(theirs), now) {
            return Ok(());
        }
        self.send_note(tx, group, who, &NoteBody::NotMember(theirs), now)
    }

    /// A member says that we are none any more, in a state that we came through. It is believed of whoever
    /// invited us, as long as we have heard of nothing since; and by whoever is lost, if an admin, or more
    /// than half of the others, have said so for long, and no admin is known to stand where we do.
    pub(super) fn told_to_be_gone(
        &mut self,
        tx: &Tx,
        group: GroupId,
        from: IdentityKey,
        in_state: Mark,
        now: Now,
    ) -> Result<(), NodeError> {
        let summary = self.groups.summary(tx, &group)?;
        let is_ours = self.groups.marks(tx, &group)?.0.contains(&in_state);
        if !summary.active || !is_ours || summary.member(&from).is_none() {
            return Ok(());
        }
        if !(summary.is_admin(&from) && self.groups.was_invited_by(tx, &group, &from)?) {
            // Others are asked, and asked again.
            self.doubt(group, Doubt::Behind, now);
            let own_mark = self.groups.mark(tx, &group)?;
            let Some(case) = self.healing.cases.get_mut(&group) else { return Ok(()) };
            let tellers = case.told_gone(from, &summary.state, now);
            let with_us = case
                .heard
                .iter()
                .any(|(who, mark)| Some(*mark) == own_mark && summary.is_admin(who));
            let others = summary.members.len().saturating_sub(1);
            let believed = tellers.iter().any(|who| summary.is_admin(who))
                || tellers.iter().filter(|who| summary.member(who).is_some()).count() > others / 2;
            if with_us || !believed {
                return Ok(());
            }
        }
        self.healing.cases.remove(&group);
        self.groups.give_up(tx, &group)?;
        self.group_changed(tx, group, from, vec![GroupEvent::MeRemoved], now)
    }

    /// Whoever asks takes us for a member, and we are none: they get the commits that say so, if they can
    /// follow them; else they are told, unless their leaf of ours is of a key package that nobody has
    /// used here: then an invitation is on its way. Answers whether that is all that a note means to us.
    pub(super) fn answered_from_outside(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        to: &IdentityKey,
        asked: &NoteBody,
        now: Now,
    ) -> Result<bool, NodeError> {
        // Without a commit that takes us out: we left last, or took somebody's word for it.
        let own = self.own.key();
        let without_commit = self.groups.summary(tx, group)?.member(&own).is_some();
        let NoteBody::Probe(probe) = asked else { return Ok(without_commit) };
        let standing = self.groups.compare(tx, group, &probe.marks)?;
        if let Some(way) = probe.way.as_ref().filter(|_| standing == Standing::Unrelated) {
            self.learn_leaf(tx, group, to, way)?;
        }
        match standing {
            Standing::TheyMiss(_) | Standing::OnLostBranch(_) | Standing::Diverged(_)
                if without_commit =>
            {
                self.bring_commits(tx, group, to, standing, now)?;
                Ok(true)
            }
            Standing::Unrelated | Standing::TheyAreLost => {
                if let Some(leaf) = probe.leaf
                    && !Tokens::is_offered(tx, &leaf)?
                    && self.healing.may_tell(group, to, Telling::Out, probe.marks.tip(), now)
                {
                    self.send_note(tx, group, to, &NoteBody::Out(leaf), now)?;
                }
                Ok(true)
            }
            Standing::Same
            | Standing::WeMiss
            | Standing::TheyMiss(_)
            | Standing::OnLostBranch(_)
            | Standing::Diverged(_) => Ok(without_commit),
        }
    }

    /// Somebody left, or was removed, on a branch that we do not know: as an admin we carry it out. The
    /// word is about one leaf: whoever was added anew has another.
    pub(super) fn told_to_be_out(
        &mut self,
        tx: &Tx,
        group: GroupId,
        who: IdentityKey,
        leaf: Token,
        now: Now,
    ) -> Result<(), NodeError> {
        if let Some(case) = self.healing.cases.get_mut(&group) {
            case.heard.remove(&who);
        }
        let Some(summary) = self.acting_admin(tx, &group)? else { return Ok(()) };
        let is_that_leaf = summary.member(&who).is_some_and(|member| member.leaf.token == leaf);
        if is_that_leaf && !self.unsettled.contains_key(&group) {
            self.change_group(tx, &group, Change::Remove(vec![who]), now)?;
        }
        Ok(())
    }
}
