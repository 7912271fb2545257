//! What follows when the tip of a group has moved: at the end of the batch, each step by itself.
//!
//! A commit that came in stands, whatever becomes of these: a step that is refused takes back nothing
//! but itself. While members race, nothing is committed or encrypted: it waits until the group was
//! quiet for a moment, so that it does not have to be done again.

use std::collections::BTreeSet;
use std::time::Duration;

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::{Instant, Now};

use super::{Node, NodeError};
use crate::conversations::{Conversation, Invites, Standing, Unheard};
use crate::groups::{Change, GroupKind, LostWork};
use crate::store::{StoreError, Table, Tx};

/// A group is settled when no rival commit came for this long,
const QUIET: Duration = Duration::from_secs(1);
/// and some time more, different on each member: those who lost do not all commit at once.
const SPREAD: Duration = Duration::from_millis(500);
/// Or when it has been unsettled for so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Groups that are followed up in one batch; the others have their turn in the next.
const MAX_FOLLOWED: usize = 1024;

/// What a moved tip brings with it.
#[derive(Debug, Default)]
pub(super) struct FollowUp {
    /// Whose leaves are new: how they are reached is learnt again.
    moved: BTreeSet<IdentityKey>,
    /// Another branch won.
    switched: bool,
    /// We ourselves had lost our state, and are back.
    lost: bool,
    /// Members who had lost their state and are back.
    returned: BTreeSet<IdentityKey>,
}

/// Members race in a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsettled {
    since: Instant,
    until: Instant,
}

impl Unsettled {
    pub(super) const fn until(&self) -> Instant {
        self.until
    }
}

impl Node {
    /// The tip of a group moved.
    pub(super) fn follow(&mut self, group: GroupId, switched: bool, moved: BTreeSet<IdentityKey>) {
        let follow_up = self.follow_ups.entry(group).or_default();
        follow_up.switched |= switched;
        follow_up.moved.extend(moved);
    }

    /// A member who had lost its state is back; or we are.
    pub(super) fn welcome_back(&mut self, group: GroupId, who: IdentityKey) {
        let follow_up = self.follow_ups.entry(group).or_default();
        if who == self.own.key() {
            follow_up.lost = true;
        } else {
            follow_up.returned.insert(who);
        }
    }

    /// Several members have committed in one epoch. A chat of two does not wait: what is lost there is
    /// sent again at once.
    pub(super) fn raced(&mut self, tx: &Tx, group: GroupId, now: Now) -> Result<(), NodeError> {
        if self.groups.summary(tx, &group)?.kind == GroupKind::Direct {
            return Ok(());
        }
        let spread = u64::try_from(SPREAD.as_millis()).unwrap_or(u64::MAX);
        let quiet = QUIET + Duration::from_millis(self.entropy.below(spread));
        let since = self.unsettled.get(&group).map_or(now.instant, |unsettled| unsettled.since);
        let until = (now.instant + quiet).min(since + PATIENCE);
        self.unsettled.insert(group, Unsettled { since, until });
        Ok(())
    }

    /// Groups that were quiet long enough go on.
    pub(super) fn settle_groups(&mut self, now: Now) {
        let settled: Vec<GroupId> = self
            .unsettled
            .iter()
            .filter(|(_, unsettled)| unsettled.until <= now.instant)
            .map(|(group, _)| *group)
            .collect();
        for group in settled {
            self.unsettled.remove(&group);
            self.follow(group, false, BTreeSet::new());
        }
    }

    /// What was not finished when the process ended.
    pub(super) fn load_follow_ups(&mut self, tx: &Tx) -> Result<(), NodeError> {
        for conversation in Conversation::all(tx)? {
            let waiting = tx.scan_prefix(Table::Intents, &conversation.id.to_key(), 1)?;
            let is_due = conversation.profile_due || conversation.timer_due;
            if conversation.redo.is_empty() && waiting.is_empty() && !is_due {
                continue;
            }
            for group in conversation.groups {
                self.follow(group, false, BTreeSet::new());
            }
        }
        Ok(())
    }

    pub(super) fn follow_up(&mut self, tx: &Tx, now: Now) -> Result<(), StoreError> {
        for _ in 0..MAX_FOLLOWED {
            let Some((group, follow_up)) = self.follow_ups.pop_first() else { break };
            // On another branch, leaves may be other ones than were last learnt.
            let only = (!follow_up.switched).then_some(&follow_up.moved);
            self.attempt(tx, |node, tx| node.learn_standing(tx, &group, only, now))?;
            let standing = Conversation::of_group(tx, &group)?.map(|it| it.standing);
            if standing == Some(Standing::Removed) {
                self.attempt(tx, |node, tx| node.release_invited(tx, &group, now))?;
            }
            if standing != Some(Standing::Active) {
                // Nothing can be said in it any more.
                continue;
            }
            for work in self.work_to_redo(tx, &group)? {
                self.attempt(tx, |node, tx| node.redo(tx, &group, work, now))?;
            }
            if follow_up.switched || follow_up.lost {
                let lost = follow_up.lost;
                self.attempt(tx, |node, tx| node.resend_lost_profile(tx, &group, lost))?;
            }
            if follow_up.switched {
                self.attempt(tx, |node, tx| node.await_turn(tx, group, now))?;
                let lost = follow_up.lost;
                self.attempt(tx, |node, tx| node.resend_lost(tx, &group, lost, now))?;
            }
            if !follow_up.returned.is_empty() {
                let returned = follow_up.returned;
                self.attempt(tx, |node, tx| node.resend_to(tx, &group, &returned, now))?;
            }
            self.attempt(tx, |node, tx| match Conversation::of_group(tx, &group)? {
                Some(mut conversation) => node.flush_intents(tx, &mut conversation, now),
                None => Ok(()),
            })?;
            self.attempt(tx, |node, tx| node.send_due_profile(tx, &group, now))?;
            self.attempt(tx, |node, tx| node.send_due_timer(tx, &group, now))?;
        }
        Ok(())
    }

    /// Who is in the group now, and whether we still want to be.
    fn learn_standing(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        only: Option<&BTreeSet<IdentityKey>>,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(conversation) = Conversation::of_group(tx, group)? else { return Ok(()) };
        if conversation.standing != Standing::Removed {
            self.learn_members(tx, group, only, now)?;
        }
        if conversation.standing == Standing::Leaving {
            self.leave_again(tx, group, now)?;
        }
        Ok(())
    }

    /// Takes what our lost commits did, once the group is settled.
    fn work_to_redo(&mut self, tx: &Tx, group: &GroupId) -> Result<Vec<LostWork>, StoreError> {
        if self.unsettled.contains_key(group) {
            return Ok(Vec::new());
        }
        let Some(mut conversation) = Conversation::of_group(tx, group)? else {
            return Ok(Vec::new());
        };
        let work = std::mem::take(&mut conversation.redo);
        if !work.is_empty() {
            conversation.save(tx)?;
            self.accept(tx)?;
        }
        Ok(work)
    }

    /// Whom we invited onto a branch that has lost, while the one that stands has removed us: nobody
    /// else knows of them, and we cannot invite them again.
    fn release_invited(&mut self, tx: &Tx, group: &GroupId, now: Now) -> Result<(), NodeError> {
        let Some(conversation) = Conversation::of_group(tx, group)? else { return Ok(()) };
        for work in &conversation.redo {
            let LostWork::Added(people) = work else { continue };
            for who in people {
                if let Some(added_in) = self.groups.added_in(tx, group, who)? {
                    self.tell_not_member(tx, group, who, added_in, now)?;
                }
            }
        }
        Ok(())
    }

    /// Does again what a commit of ours on a lost branch did, where it still makes sense.
    fn redo(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        work: LostWork,
        now: Now,
    ) -> Result<(), NodeError> {
        let summary = self.groups.summary(tx, group)?;
        let is_member = |key: &IdentityKey| summary.member(key).is_some();
        let change = match work {
            LostWork::Added(people) => {
                let (there, missing): (Vec<_>, Vec<_>) = people.into_iter().partition(&is_member);
                self.groups.hold(tx, group, LostWork::Added(there))?;
                for who in missing {
                    self.wish(tx, *group, who, now)?;
                }
                return Ok(());
            }
            LostWork::Removed(people) => {
                let mut still = Vec::new();
                let (there, gone): (Vec<_>, Vec<_>) = people.into_iter().partition(&is_member);
                self.groups.hold(tx, group, LostWork::Removed(gone))?;
                for who in there {
                    if Unheard::is_added_again(tx, group, &who)? {
                        self.invite_again(tx, *group, who, now)?;
                    } else {
                        still.push(who);
                    }
                }
                if still.is_empty() {
                    return Ok(());
                }
                Change::Remove(still)
            }
            LostWork::Renamed(name) => Change::Rename(name),
            LostWork::Promoted(who) if is_member(&who) => Change::Promote(who),
            LostWork::Demoted(who) if is_member(&who) => Change::Demote(who),
            // Somebody who is to be added again, and was an admin.
            LostWork::Promoted(who) => return Ok(Invites::make_admin(tx, group, &who)?),
            LostWork::Demoted(_) => return Ok(()),
            LostWork::Updated => {
                let Some(mut conversation) = Conversation::of_group(tx, group)? else {
                    return Ok(());
                };
                if !self.is_cut_off(tx, &conversation, group)? {
                    conversation.update_due = true;
                    conversation.save(tx)?;
                    return Ok(());
                }
                Change::Update(self.leaf_info(tx, now)?)
            }
            LostWork::LeavesCommitted(mut people) => {
                // Who has gone, and has not heard that this was undone, will not propose it again.
                let proposed = &summary.leave_proposed;
                people.retain(|who| is_member(who) && !proposed.contains(who));
                match (people.is_empty(), proposed.is_empty()) {
                    (false, _) if summary.is_admin(&self.own.key()) => Change::Remove(people),
                    (_, false) => Change::CommitProposals,
                    (_, true) => return Ok(()),
                }
            }
        };
        self.change_group(tx, group, change, now)
    }
}
