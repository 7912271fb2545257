//! Members that fell out of step with their group are noticed and mended, one step after the other.
//!
//! ```text
//!   doubt ─→ checking: members are asked where they stand, missing commits come, branches settle
//!              └─ no state in common ─→ rejoining: an external commit, by the offer of a member
//!                     └─ nobody offers ─→ waiting: an admin is asked to remove and add us
//!   agreed ←───┴────────────────────────────┘
//! ```
//! The last step, a new group in place of one that nothing mends, is left to people.
//!
//! Doubts come from blobs that no state opens, from members who write in states that were left long
//! ago, from what members tell when a session opens, and from signs that this home is an old copy.
//! Cases are in memory: after a restart the same signs lead to the same doubts. What must not be
//! forgotten, that an old copy must not send, is in the group's record.

mod case;
mod notes;
mod outsiders;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::time::{Instant, Now};

use self::case::{Case, pause};
pub(super) use self::case::{Doubt, up_to};
use super::{Node, NodeError};
use crate::api::{self, HealingStep, HealingView};
use crate::conversations::{Conversation, Standing, Unheard};
use crate::delivery::Inbox;
use crate::groups::{Mark, NoteBody, Role, StateId, Wants};
use crate::store::Tx;

/// Groups that are healed at a time.
const MAX_CASES: usize = 256;
/// What fits no state gets this long to be explained by what is still on its way.
const FIRST_LOOK: Duration = Duration::from_secs(3);
/// Members that are asked at a time.
const ASKED_AT_ONCE: usize = 8;
/// Groups that are asked about when a blob fits no state: it does not say which group it is of.
const GROUPS_AT_ONCE: usize = 4;
/// Looks for the group of what cannot be read, before it is left alone until something new comes.
const MAX_LOOKS: u32 = 6;
/// Questions after which admins are asked to add us anew.
const PATIENCE: u32 = 5;
/// The first way back is taken after a pause of up to this, different on each member: many who are
/// lost by one cause would else make rival commits, and all but one of them be lost again.
const FIRST_SPREAD: Duration = Duration::from_secs(2);
/// Offers that are kept in one case.
pub(super) const MAX_OFFERS: usize = 4;
/// Age of the newest state after which whoever writes in an older one has missed something.
const LATE: Duration = Duration::from_secs(30);
/// Time after which a member who was told something may be told it again.
const TOLD_AGAIN: Duration = Duration::from_secs(600);
/// Time after which the same word of somebody who is no member here is looked into again. Longer than
/// the pauses of who asks in vain: what was looked into is answered when it is asked once more.
const DOUBTED_AGAIN: Duration = Duration::from_secs(24 * 3600);
/// Time after which what is of no use if it was lost on the way may be told again.
const BROUGHT_AGAIN: Duration = Duration::from_secs(20);
/// Time for which a session must last before members compare where they stand.
const SETTLED_SESSION: Duration = Duration::from_secs(5);
/// Groups that are compared when a session opens.
const COMPARED_AT_ONCE: usize = 8;
/// Time for which an offer may take effect before a member is added anew instead.
const OFFER_PATIENCE: Duration = Duration::from_secs(60);
/// Members who wait to be added anew.
const MAX_READD: usize = 256;
/// What members were told is remembered for so many.
const MAX_TOLD: usize = 8192;

/// What one member was told last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    at: Instant,
    mark: Option<Mark>,
}

/// What was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Telling {
    /// Asked where they stand, because a session opened.
    Compared,
    /// Asked where they stand.
    Asked,
    /// Asked for a way back.
    AskedBack,
    /// Sent the commits that they miss.
    Commits,
    /// And those that lost to them.
    Rivals,
    /// In doubt ourselves, by the word of somebody who is no member here.
    Doubted,
    /// Offered a way back.
    Offered,
    /// Asked to add us anew, or did so.
    Readd,
    /// That they are no member any more.
    Gone,
    /// That we are none.
    Out,
    /// Told of, to our own user: they broke the group's rules.
    Forbidden,
}

impl Telling {
    /// After this long the same may be told again.
    const fn pause(self) -> Duration {
        match self {
            Self::Asked | Self::Readd | Self::Forbidden => TOLD_AGAIN,
            Self::Doubted => DOUBTED_AGAIN,
            Self::Compared
            | Self::AskedBack
            | Self::Commits
            | Self::Rivals
            | Self::Offered
            | Self::Gone
            | Self::Out => BROUGHT_AGAIN,
        }
    }
}

/// All that healing keeps in memory.
#[derive(Debug, Default)]
pub(super) struct Healing {
    cases: BTreeMap<GroupId, Case>,
    told: BTreeMap<(GroupId, IdentityKey, Telling), Told>,
    /// Sessions that opened, and when to compare.
    sessions: BTreeMap<IdentityKey, Instant>,
    /// Members who asked to be added anew, and have not said since where they stand.
    readd: BTreeSet<(GroupId, IdentityKey)>,
    /// When to look for the group of what cannot be read.
    unread_at: Option<Instant>,
    looks: u32,
    /// The group after which the next look starts.
    looked_at: Option<GroupId>,
}

impl Healing {
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let cases = self.cases.values().map(|case| case.next_at);
        cases.chain(self.sessions.values().copied()).chain(self.unread_at).min()
    }

    /// Whether to tell a member something: not the same again and again.
    pub(super) fn may_tell(
        &mut self,
        group: &GroupId,
        to: &IdentityKey,
        kind: Telling,
        mark: Option<Mark>,
        now: Now,
    ) -> bool {
        let key = (*group, *to, kind);
        let again = |told: &Told| told.mark == mark && now.instant < told.at + kind.pause();
        if self.told.get(&key).is_some_and(again) {
            return false;
        }
        if self.told.len() >= MAX_TOLD {
            self.told
                .retain(|(_, _, kind), told| now.instant < told.at + kind.pause().max(TOLD_AGAIN));
            if self.told.len() >= MAX_TOLD {
                return false;
            }
        }
        self.told.insert(key, Told { at: now.instant, mark });
        true
    }

    /// A member asks to be added anew. Its word may be old: it is asked first where it stands now.
    fn note_readd(&mut self, group: GroupId, who: IdentityKey) {
        if self.readd.len() < MAX_READD {
            self.readd.insert((group, who));
        }
    }

    /// Whether a member that is still lost has to be added anew: it asked for that, and an offer has
    /// not helped.
    fn takes_readd(&mut self, group: &GroupId, who: &IdentityKey, now: Now) -> bool {
        let offered = self.told.get(&(*group, *who, Telling::Offered));
        let had_its_chance = offered.is_some_and(|told| told.at + OFFER_PATIENCE < now.instant);
        had_its_chance && self.readd.remove(&(*group, *who))
    }

    /// A member may be asked again at once.
    fn forget_asked(&mut self, group: &GroupId, who: &IdentityKey) {
        self.told.remove(&(*group, *who, Telling::Asked));
    }

    /// Whether a member was asked not long ago.
    fn was_asked(&self, group: &GroupId, who: &IdentityKey, now: Now) -> bool {
        let asked = self.told.get(&(*group, *who, Telling::Asked));
        asked.is_some_and(|told| now.instant < told.at + TOLD_AGAIN)
    }
}

impl Node {
    /// A blob came that no state opens. What explains it is mostly on its way.
    pub(super) fn unread(&mut self, now: Now) {
        self.healing.looks = 0;
        self.healing.unread_at.get_or_insert(now.instant + FIRST_LOOK);
    }

    /// A session with somebody opened: a little later both compare where they stand in the groups
    /// that they share.
    pub(super) fn compare_later(&mut self, who: IdentityKey, now: Now) {
        if self.fellows.contains(&who) {
            self.healing.sessions.insert(who, now.instant + SETTLED_SESSION);
        }
    }

    /// Something does not fit in a group.
    pub(super) fn doubt(&mut self, group: GroupId, doubt: Doubt, now: Now) {
        let crowded = self.healing.cases.len() >= MAX_CASES;
        if let Some(case) = self.healing.cases.get_mut(&group) {
            if case.doubt < doubt {
                case.doubt = doubt;
                case.next_at = case.next_at.min(now.instant + FIRST_LOOK);
            }
        } else if !crowded {
            let case = Case::new(doubt, now);
            self.healing.cases.insert(group, case);
        }
    }

    /// A member has commits that we miss, and brings them.
    pub(super) fn note_behind(&mut self, group: GroupId) {
        if let Some(case) = self.healing.cases.get_mut(&group) {
            case.behind = true;
        }
    }

    /// We were added anew to a group in which something was in doubt.
    pub(super) fn restart_healing(&mut self, group: &GroupId, now: Now) {
        if let Some(case) = self.healing.cases.get_mut(group) {
            case.restart(now);
        }
    }

    /// Whether a way back may be taken now. Many members may be lost by one cause, and only one of
    /// several who come back at the same moment is back: so each waits for a while of its own, longer
    /// with each attempt, and takes the way that is offered then.
    fn may_rejoin(&mut self, group: &GroupId, now: Now) -> bool {
        let Some(case) = self.healing.cases.get_mut(group) else { return false };
        let spread = FIRST_SPREAD.saturating_mul(2_u32.saturating_pow(case.rejoins.min(8)));
        let entropy = &mut self.entropy;
        let at = *case.rejoin_at.get_or_insert_with(|| now.instant + up_to(spread, entropy));
        if at > now.instant {
            case.next_at = case.next_at.min(at);
            return false;
        }
        true
    }

    /// A member wrote in a state that is not the tip: when the tip is not new, it has missed commits.
    pub(super) fn look_after(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        state: &StateId,
        who: &IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        if self.groups.tip(tx, group)? == *state {
            return Ok(());
        }
        let entered_at = self.groups.summary(tx, group)?.entered_at;
        if now.wall.since(entered_at) > LATE {
            self.ask(tx, group, who, Wants::Answer, now)?;
        }
        Ok(())
    }

    /// Goes on with whatever is due.
    pub(super) fn heal(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        self.look_for_unread(tx, now)?;
        self.compare_with_sessions(tx, now)?;
        let due =
            |(group, case): (&GroupId, &Case)| (case.next_at <= now.instant).then_some(*group);
        let due: Vec<GroupId> = self.healing.cases.iter().filter_map(due).collect();
        for group in due {
            self.heal_group(tx, group, now)?;
        }
        self.tell_steps(tx, now)
    }

    /// Tells of groups in which another step of the ladder is taken now.
    fn tell_steps(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        let mut news = Vec::new();
        for (group, case) in &mut self.healing.cases {
            let step = case.step();
            if std::mem::replace(&mut case.told, step) != step {
                news.extend(step.map(|step| (*group, step)));
            }
        }
        for (group, step) in news {
            let change = match step {
                HealingStep::Checking => api::Change::Checking,
                HealingStep::Rejoining => api::Change::Rejoining,
                HealingStep::WaitingForAdmin => api::Change::WaitingForAdmin,
            };
            self.tell_healing(tx, &group, change, now)?;
        }
        Ok(())
    }

    /// Something waits that no state opens: any group may be the one that it is of.
    fn look_for_unread(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        if self.healing.unread_at.is_none_or(|at| at > now.instant) {
            return Ok(());
        }
        self.healing.unread_at = None;
        if !Inbox::anything_waits(tx)? {
            return Ok(());
        }
        let groups = self.live_groups(tx)?;
        let after = self.healing.looked_at;
        let start = groups.iter().position(|group| Some(*group) > after).unwrap_or(0);
        let turn = groups.iter().cycle().skip(start).take(GROUPS_AT_ONCE.min(groups.len()));
        let turn: Vec<GroupId> = turn.copied().collect();
        self.healing.looked_at = turn.last().copied();
        for group in turn {
            self.doubt(group, Doubt::Unread, now);
            if let Some(case) = self.healing.cases.get_mut(&group) {
                case.next_at = now.instant;
            }
        }
        self.healing.looks = self.healing.looks.saturating_add(1);
        if self.healing.looks < MAX_LOOKS {
            self.healing.unread_at = Some(now.instant + pause(self.healing.looks));
        }
        Ok(())
    }

    fn live_groups(&self, tx: &Tx) -> Result<Vec<GroupId>, NodeError> {
        let mut groups = Vec::new();
        for conversation in Conversation::all(tx)? {
            if matches!(conversation.standing, Standing::Active | Standing::Leaving) {
                groups.extend(conversation.groups);
            }
        }
        groups.sort_unstable();
        Ok(groups)
    }

    fn compare_with_sessions(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        let due = |(who, at): (&IdentityKey, &Instant)| (*at <= now.instant).then_some(*who);
        let due: Vec<IdentityKey> = self.healing.sessions.iter().filter_map(due).collect();
        for who in due {
            self.healing.sessions.remove(&who);
            if !self.transport.has_session(&who) {
                continue;
            }
            let mut compared = 0_usize;
            for group in self.live_groups(tx)? {
                if compared >= COMPARED_AT_ONCE {
                    break;
                }
                if self.is_in_with_us(tx, &group, &who)? {
                    compared = compared.saturating_add(1);
                    self.compare(tx, &group, &who, now)?;
                }
            }
        }
        Ok(())
    }

    /// A member is there: it gets its invitation again if it was never heard, and else the one with the
    /// lower key asks where the other stands. So does whoever has heard of nothing since the other
    /// invited them: they may be out again, and then the other does not know that it has to be asked.
    fn compare(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let begins = self.own.key() < *who || self.groups.was_invited_by(tx, group, who)?;
        if !begins && !Unheard::contains(tx, group, who)? {
            return Ok(());
        }
        let mark = self.groups.mark(tx, group)?;
        if !self.healing.may_tell(group, who, Telling::Compared, mark, now) {
            return Ok(());
        }
        if self.send_welcome_again(tx, group, who, now)? || !begins {
            return Ok(());
        }
        self.ask_again(tx, group, who, Wants::Answer, now)
    }

    /// One step of one group.
    fn heal_group(&mut self, tx: &Tx, group: GroupId, now: Now) -> Result<(), NodeError> {
        let summary = self.groups.summary(tx, &group)?;
        let own = self.own.key();
        let Some(case) = self.healing.cases.get_mut(&group) else { return Ok(()) };
        let over = case.doubt == Doubt::Unread && !Inbox::anything_waits(tx)?;
        let alone = summary.members.len() < 2;
        if over || alone || !summary.active {
            // What could not be read was of this group, if asking about it has moved it on.
            let helped = over && case.rounds > 0 && case.state != summary.state;
            self.healing.cases.remove(&group);
            return if helped {
                self.tell_healing(tx, &group, api::Change::Recovered, now)
            } else {
                Ok(())
            };
        }
        if case.wakes_to_rejoin(now) {
            case.next_at = case.round_at;
            return self.decide(tx, group, now);
        }
        case.begin_round(summary.state, now, &mut self.entropy);
        let (doubt, rounds) = (case.doubt, case.rounds);
        // Whoever is merely behind, or cut off, needs no new leaf.
        case.waiting |= doubt >= Doubt::Forked && !case.heard.is_empty() && rounds > PATIENCE;
        let is_waiting = case.waiting;
        let is_stuck = case.is_stuck();
        if doubt == Doubt::Unread && rounds > 2 {
            // Nobody in this group knew of anything: it was of another one.
            self.healing.cases.remove(&group);
            return Ok(());
        }
        let wants = if is_stuck { Wants::Offer } else { Wants::Answer };
        let mut members: Vec<(IdentityKey, bool)> = summary
            .members
            .iter()
            .filter(|member| member.identity_key != own)
            .map(|member| (member.identity_key, member.role == Role::Admin))
            .collect();
        let turn = usize::try_from(rounds.saturating_sub(1)).unwrap_or(0);
        let shift = turn.saturating_mul(ASKED_AT_ONCE).checked_rem(members.len()).unwrap_or(0);
        members.rotate_left(shift);
        members.sort_by_key(|(who, _)| !self.transport.has_session(who));
        for (who, _) in members.iter().take(ASKED_AT_ONCE) {
            self.ask_again(tx, &group, who, wants, now)?;
        }
        if is_waiting && !summary.leaving {
            for (who, _) in members.iter().filter(|(_, admin)| *admin).take(ASKED_AT_ONCE) {
                let mark = self.groups.mark(tx, &group)?;
                if self.healing.may_tell(&group, who, Telling::Readd, mark, now) {
                    self.send_note(tx, &group, who, &NoteBody::ReaddMe, now)?;
                }
            }
        }
        self.decide(tx, group, now)
    }

    /// The group agrees with another member: whatever was in doubt is mended.
    fn agreed(&mut self, tx: &Tx, group: &GroupId, now: Now) -> Result<(), NodeError> {
        let Some(case) = self.healing.cases.get(group) else { return Ok(()) };
        let own = self.groups.mark(tx, group)?;
        let summary = self.groups.summary(tx, group)?;
        if case.is_behind(&summary.state) {
            // Those who agree with us miss the same.
            return Ok(());
        }
        if case.say_gone(&summary.state, now).any(|who| summary.is_admin(&who)) {
            // Those who agree with us may be as lost as we.
            return Ok(());
        }
        let mut others_differ = false;
        for (who, mark) in &case.heard {
            // Somebody who has gone since, or where we were a moment ago, is on no other side.
            let differs = Some(*mark) != own && !self.groups.knows(tx, group, mark)?;
            others_differ |= differs && summary.member(who).is_some();
        }
        if case.doubt == Doubt::OldCopy && self.groups.is_stale(tx, group)? || others_differ {
            return Ok(());
        }
        let was_lost = case.doubt != Doubt::Unread;
        self.healing.cases.remove(group);
        if was_lost {
            self.tell_healing(tx, group, api::Change::Recovered, now)?;
        }
        Ok(())
    }

    fn tell_healing(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        change: api::Change,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(conversation) = Conversation::of_group(tx, group)? else { return Ok(()) };
        if conversation.standing == Standing::Leaving {
            // For its owner it is over.
            return Ok(());
        }
        let own = self.own.key();
        self.tell_group(tx, &conversation, change, Some(own), None, now)
    }

    /// This home is an old copy: in no group may its keys be used any more.
    pub(super) fn distrust_all(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        tracing::warn!("this home is an old copy of itself: every group is joined anew");
        for group in self.live_groups(tx)? {
            self.distrust(tx, group, now)?;
        }
        self.replace_stocks(tx, now)
    }

    /// Our state of a group may have been used elsewhere since: nothing is sent in it any more.
    fn distrust(&mut self, tx: &Tx, group: GroupId, now: Now) -> Result<(), NodeError> {
        let summary = self.groups.summary(tx, &group)?;
        if summary.active && summary.members.len() > 1 {
            self.groups.distrust(tx, &group)?;
            self.doubt(group, Doubt::OldCopy, now);
            if let Some(case) = self.healing.cases.get_mut(&group) {
                case.next_at = now.instant;
            }
        }
        Ok(())
    }

    /// After a restart: groups that may not be written in go on being healed.
    pub(super) fn load_healing(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        for group in self.live_groups(tx)? {
            if self.groups.is_stale(tx, &group)? {
                self.doubt(group, Doubt::OldCopy, now);
            }
        }
        if Inbox::anything_waits(tx)? {
            self.unread(now);
        }
        Ok(())
    }

    /// What the user is shown of it.
    pub(super) fn healing_view(&self, group: &GroupId) -> Option<HealingView> {
        let case = self.healing.cases.get(group)?;
        let step = case.step()?;
        let why = match (case.waiting, case.doubt) {
            (true, _) => {
                "no member offers a way back in; admins are asked to remove and add this node: \
                 if none of them is there, ask one yourself"
            }
            (false, Doubt::Unread) => "something came that cannot be read yet",
            (false, Doubt::Behind) => "other members have changes that are missing here",
            (false, Doubt::Forked) => "other members are in another state of the group",
            (false, Doubt::OldCopy) => {
                "this home is an old copy; nothing is sent until it has rejoined"
            }
        };
        Some(HealingView { step, why: why.to_owned(), since: case.since })
    }
}
