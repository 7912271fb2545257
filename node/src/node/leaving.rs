//! Leaving a group: our own wish, until somebody has carried it out, and the wishes of others.
//!
//! Nobody can commit their own removal (RFC 9420 section 12.2), so whoever leaves proposes it, in each
//! epoch anew, and another member commits it: the first one almost at once, each further one a minute
//! later than the one before, unless somebody has done so by then. So no two race, and nobody has to
//! wait for a member that is away. Admins come first, then leaf order: a commit of an admin that came
//! back and raced with another member's would beat it, and all that was done since. Whoever comes back
//! itself waits for a moment more, because it has not read yet what was done while it was away.

use std::collections::BTreeMap;
use std::time::Duration;

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::{Instant, Now};

use super::healing::up_to;
use super::{Node, NodeError};
use crate::api::{self, ApiError, Reply};
use crate::conversations::{Conversation, Invites, Standing, Unheard};
use crate::delivery::Purpose;
use crate::groups::policy::PolicyError;
use crate::groups::{Change, GroupError, Role, StateId, Summary};
use crate::store::{StoreError, Tx};

/// Time that each member has to carry out a leave before it is on the next one.
const TURN: Duration = Duration::from_secs(60);
/// Pause of the first one: what was sent with the proposal is read by then.
const SOON: Duration = Duration::from_secs(1);
/// The same for whoever came back lately: what was done meanwhile is read by then.
const BACK: Duration = Duration::from_secs(15);
/// Places that have turns of their own. All behind them share one, at random moments of it.
const MAX_PLACES: u32 = 15;
/// Groups in which a leave waits for our turn. In others the next commit of anybody carries it out.
const MAX_WAITING: usize = 1024;

/// Groups in which somebody wants to leave, and when it is on us to carry it out.
#[derive(Debug, Default)]
pub(super) struct Leaves {
    /// With the state in which it was proposed.
    turns: BTreeMap<GroupId, (StateId, Instant)>,
    /// Until then we may not have read what was done while we were away.
    back_until: Option<Instant>,
}

impl Leaves {
    /// A turn in a state: the earlier one, if there is one already, so that nobody can put it off by
    /// proposing again and again.
    fn wait(&mut self, group: GroupId, state: StateId, until: Instant) {
        let known = self.turns.get(&group).filter(|(known, _)| *known == state);
        let until = known.map_or(until, |(_, earlier)| (*earlier).min(until));
        if self.turns.len() < MAX_WAITING || self.turns.contains_key(&group) {
            self.turns.insert(group, (state, until));
        }
    }

    /// A mailbox is being read from now on.
    pub(super) fn back(&mut self, now: Now) {
        self.back_until = Some(now.instant + BACK);
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.turns.values().map(|(_, at)| *at).min()
    }
}

impl Node {
    pub(super) fn group_leave(
        &mut self,
        tx: &Tx,
        group: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let group = self.writable_group(tx, group)?;
        let Some(mut conversation) = Conversation::of_group(tx, &group)? else {
            return Err(ApiError::not_found("no such group").into());
        };
        let invites = Invites::of_group(tx, &group)?;
        for invite in &invites {
            // We took them out to add them anew; nobody else knows that this is still to be done.
            if Unheard::is_added_again(tx, &group, &invite.who)? {
                let name = self.name_of(tx, &invite.who)?;
                return Err(ApiError::refused(format!(
                    "{name} is being invited again and would stay out; leave when that is done, or \
                     take the invitation back with: sremp group remove GROUP {name}"
                ))
                .into());
            }
        }
        for invite in &invites {
            Invites::remove(tx, &group, &invite.who);
        }
        if self.groups.member_count(tx, &group)? < 2 {
            conversation.standing = Standing::Left;
        } else {
            let sealed = self.groups.propose_leave(tx, &group, now)?;
            let recipients: Vec<_> = sealed.recipients.iter().map(|(key, _)| *key).collect();
            self.post(tx, group, sealed.blob, &recipients, &Purpose::Commit(group), now)?;
            conversation.standing = Standing::Leaving;
            self.watch_group(tx, &group, now)?;
        }
        conversation.save(tx)?;
        self.people_changed = true;
        let own = self.own.key();
        self.tell_group(tx, &conversation, api::Change::Left, Some(own), Some(own), now)?;
        Ok(Reply::Done {})
    }

    /// A proposal to leave ends with its epoch: in the next one it is made again.
    pub(super) fn leave_again(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        now: Now,
    ) -> Result<(), NodeError> {
        if !self.groups.summary(tx, group)?.leaving {
            return Ok(());
        }
        let sealed = match self.groups.propose_leave(tx, group, now) {
            Ok(sealed) => sealed,
            Err(GroupError::Store(error)) => return Err(error.into()),
            Err(GroupError::Policy(PolicyError::LastAdmin)) => return self.stay(tx, group, now),
            // Proposed in this epoch already, or not allowed in it: the commit that brought us
            // here stands all the same.
            Err(error) => {
                tracing::debug!(%error, "leaving is not proposed again");
                return Ok(());
            }
        };
        let recipients: Vec<_> = sealed.recipients.iter().map(|(key, _)| *key).collect();
        self.post(tx, *group, sealed.blob, &recipients, &Purpose::Commit(*group), now)?;
        Ok(())
    }

    /// We wanted to leave, and have become the last admin before anybody carried it out: without us
    /// nobody could change the group any more.
    fn stay(&mut self, tx: &Tx, group: &GroupId, now: Now) -> Result<(), NodeError> {
        self.refuse(tx);
        self.groups.stay(tx, group)?;
        let Some(mut conversation) = Conversation::of_group(tx, group)? else { return Ok(()) };
        conversation.standing = Standing::Active;
        self.people_changed = true;
        let own = self.own.key();
        let text = "you are the last admin now and stay; promote somebody, then leave again";
        self.notice(tx, &mut conversation, own, text.to_owned(), now)?;
        self.tell_group(tx, &conversation, api::Change::Added, Some(own), Some(own), now)
    }

    /// Nobody has carried out that we leave: a relay may have lost it. Whoever has it knows it.
    pub(super) fn propose_leave_once_more(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        now: Now,
    ) -> Result<(), NodeError> {
        let summary = self.groups.summary(tx, group)?;
        if !summary.leaving {
            return Ok(());
        }
        let own = self.own.key();
        let keys = summary.members.iter().map(|member| member.identity_key);
        let others: Vec<IdentityKey> = keys.filter(|key| *key != own).collect();
        if let Some(proposal) = self.groups.own_proposal(tx, group)? {
            self.post(tx, *group, proposal, &others, &Purpose::Note, now)?;
        }
        Ok(())
    }

    /// Somebody wants to leave, as far as we can see: our turn to carry it out comes by our place.
    pub(super) fn await_turn(
        &mut self,
        tx: &Tx,
        group: GroupId,
        now: Now,
    ) -> Result<(), NodeError> {
        let is_back = self.leaves.back_until.is_some_and(|until| now.instant < until);
        self.await_turn_after(tx, group, if is_back { BACK } else { SOON }, now)
    }

    fn await_turn_after(
        &mut self,
        tx: &Tx,
        group: GroupId,
        pause: Duration,
        now: Now,
    ) -> Result<(), NodeError> {
        // It may have come after a commit that does not carry it out: its author proposes it anew.
        if !self.groups.anybody_leaves(tx, &group)? {
            return Ok(());
        }
        let summary = self.groups.summary(tx, &group)?;
        if !summary.active || summary.leaving {
            return Ok(());
        }
        let place = place_of(&self.own.key(), &summary);
        let turns = TURN.saturating_mul(place.min(MAX_PLACES));
        let spread =
            if place < MAX_PLACES { Duration::ZERO } else { up_to(turns, &mut self.entropy) };
        self.leaves.wait(group, summary.state, now.instant + pause + turns + spread);
        Ok(())
    }

    /// After a restart: wishes to leave that nobody had carried out.
    pub(super) fn load_leaves(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        self.leaves.back(now);
        for conversation in Conversation::all(tx)? {
            if conversation.standing == Standing::Active {
                for group in conversation.groups {
                    self.await_turn(tx, group, now)?;
                }
            }
        }
        Ok(())
    }

    /// Carries out what nobody has before it was our turn.
    pub(super) fn take_turns(&mut self, tx: &Tx, now: Now) -> Result<(), StoreError> {
        let due = |(group, (_, at)): (&GroupId, &(StateId, Instant))| {
            (*at <= now.instant).then_some(*group)
        };
        let due: Vec<GroupId> = self.leaves.turns.iter().filter_map(due).collect();
        for group in due {
            if let Some(unsettled) = self.unsettled.get(&group) {
                if let Some((_, at)) = self.leaves.turns.get_mut(&group) {
                    *at = unsettled.until();
                }
                continue;
            }
            self.leaves.turns.remove(&group);
            self.attempt(tx, |node, tx| node.carry_out_leaves(tx, &group, now))?;
            // If it could not be done: again, a turn later.
            self.attempt(tx, |node, tx| node.await_turn_after(tx, group, TURN, now))?;
        }
        Ok(())
    }

    fn carry_out_leaves(&mut self, tx: &Tx, group: &GroupId, now: Now) -> Result<(), NodeError> {
        let summary = self.groups.summary(tx, group)?;
        let usable = summary.active && !summary.leaving && !self.groups.is_stale(tx, group)?;
        if !usable || summary.leave_proposed.is_empty() {
            return Ok(());
        }
        self.change_group(tx, group, Change::CommitProposals, now)
    }
}

/// How many members have their turn before somebody: those that stay, admins first.
fn place_of(who: &IdentityKey, group: &Summary) -> u32 {
    let is_admin = group.is_admin(who);
    let place = group.members.iter().position(|member| member.identity_key == *who);
    let place = place.unwrap_or(usize::MAX);
    let before = group.members.iter().enumerate().filter(|(at, member)| {
        let stays = !group.leave_proposed.contains(&member.identity_key);
        let admin = member.role == Role::Admin;
        stays && (admin && !is_admin || admin == is_admin && *at < place)
    });
    u32::try_from(before.count()).unwrap_or(u32::MAX)
}
