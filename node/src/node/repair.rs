//! Messages that a mailbox took and nobody confirmed: sent again.
//!
//! A blob can come too late to be read: it lay at a relay that was down, while more than 256 others
//! of its epoch took another path, and its key is gone. Or a relay has lost what it acknowledged. Its
//! author still has the text. What was acknowledged is never lost: it is encrypted again under the same
//! message id, and whoever has it already shows it once.
//!
//! ```text
//!   later messages were confirmed ────────────────────────────────┐
//!   not confirmed for long ─→ asked where they stand ─→ answered ─┴─→ sent again
//! ```
//! Whoever is away needs no second copy: a question is small, and asked more and more rarely. Who was
//! invited and never heard gets the invitation again, with a question, or, if whoever invited them is
//! gone, a new one by an admin. Whoever wants to leave says so as rarely, until somebody has carried it
//! out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sremp_common::id::{GroupId, IdentityKey, MessageId};
use sremp_common::time::{Instant, Now};

use super::{Node, NodeError};
use crate::api::MessageState;
use crate::conversations::{Conversation, ConversationId, History, MessageRow, Standing, Unheard};
use crate::groups::{Role, Wants};
use crate::identity::Contacts;
use crate::store::Tx;

/// Age at which an unconfirmed message is sent again, doubled with each time that it was, and the pause
/// between two looks.
const REPAIR_AFTER: Duration = Duration::from_secs(10);
/// Messages of a conversation that one look goes through.
const LOOKED_AT: usize = 2000;
/// Messages that one look sends again.
const MAX_RESENT: usize = 200;
/// Age at which the recipients of an unconfirmed message are asked where they stand, and the time after
/// which a message may be sent once more; doubled with each question,
const ASK_AFTER: Duration = Duration::from_secs(600);
/// up to this.
const LONGEST_SILENCE: Duration = Duration::from_secs(24 * 3600);
/// Messages of a conversation in which unconfirmed ones are looked for before somebody is asked.
const ASKED_ABOUT: usize = 200;
/// Members that are asked at a time.
const ASKED_AT_ONCE: usize = 8;
/// Time in which somebody who is back so many times gets what they may have missed.
const RETURNED_AGAIN: Duration = Duration::from_secs(3600);
/// See [`RETURNED_AGAIN`].
const MAX_RETURNS: u32 = 3;
/// Conversations that are watched, and members and messages that are remembered, at a time.
const MAX_WATCHED: usize = 4096;

/// Questions at most that an admin lets pass for those before it, until it invites somebody again whose
/// inviter has gone: the silence is doubled with each.
const LAST_TURN: usize = 3;

/// A member who was never heard and whose inviter has gone.
struct Orphan {
    group: GroupId,
    who: IdentityKey,
    /// Turns that pass before ours: one for each admin with a lower identity key, or, if they are no
    /// contact of ours, one for each admin. To a stranger's invitation they would have to say yes, and
    /// others may know them.
    turn: usize,
}

/// What repair keeps in memory. After a restart every conversation is watched again.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// Conversations in which somebody confirmed, or answered, since the last look.
    confirmed: BTreeSet<ConversationId>,
    look_at: Option<Instant>,
    /// Conversations with messages that may be unconfirmed: when to ask, and after which silence again.
    watched: BTreeMap<ConversationId, (Instant, Duration)>,
    /// Members who answered, and when.
    alive: BTreeMap<(ConversationId, IdentityKey), Instant>,
    /// When messages were encrypted last, and how often. By no wall clock: one that was wrong must not
    /// keep a message from being sent again.
    sealed: BTreeMap<MessageId, (Instant, u32)>,
    /// Members whose inviter has gone, and how often they were asked whether they are there.
    orphans: BTreeMap<(GroupId, IdentityKey), usize>,
    /// Members who were back, to whom what may be missed was sent: since when, and how often.
    returned: BTreeMap<(GroupId, IdentityKey), (Instant, u32)>,
    /// Members who are invited again now.
    again: BTreeSet<(GroupId, IdentityKey)>,
}

impl Repair {
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let at_once = (!self.again.is_empty()).then_some(Instant::default());
        self.watched.values().map(|(at, _)| *at).chain(self.look_at).chain(at_once).min()
    }

    /// Whether somebody who is back gets what they may have missed: a few times an hour at most.
    pub(super) fn may_resend_to(&mut self, group: GroupId, who: IdentityKey, now: Now) -> bool {
        self.returned.retain(|_, (since, _)| *since + RETURNED_AGAIN > now.instant);
        if self.returned.len() >= MAX_WATCHED {
            return false;
        }
        let (_, times) = self.returned.entry((group, who)).or_insert((now.instant, 0));
        *times = times.saturating_add(1);
        *times <= MAX_RETURNS
    }

    /// Somebody is invited again, in a step of its own.
    pub(super) fn invite_again(&mut self, group: GroupId, who: IdentityKey) {
        if self.again.len() < MAX_WATCHED {
            self.again.insert((group, who));
        }
    }

    /// Whether a message was encrypted so long before a moment. When that is not remembered, its wall
    /// clock counts, and one in the future is wrong.
    fn is_older(&self, row: &MessageRow, age: Duration, at: Instant, now: Now) -> bool {
        match self.sealed.get(&row.message_id) {
            Some((sealed, _)) => *sealed + age < at,
            None => row.sent_at > now.wall || now.wall.since(row.sent_at) > age,
        }
    }

    /// Age at which an unconfirmed message is sent once more.
    fn patience(&self, row: &MessageRow) -> Duration {
        let times = self.sealed.get(&row.message_id).map_or(0, |(_, times)| *times);
        let doubled = 2_u32.saturating_pow(times.saturating_sub(1).min(16));
        REPAIR_AFTER.saturating_mul(doubled).min(LONGEST_SILENCE)
    }

    /// Whether somebody was alive so long after a message was encrypted that it should have come.
    fn should_have_come(&self, row: &MessageRow, who: &IdentityKey, now: Now) -> bool {
        let alive = self.alive.get(&(row.conversation, *who));
        alive.is_some_and(|at| self.is_older(row, ASK_AFTER, *at, now))
    }
}

impl Node {
    /// Receipts came in a conversation: its other messages are looked at a little later.
    pub(super) fn confirmed_in(&mut self, conversation: ConversationId, now: Now) {
        self.repair.confirmed.insert(conversation);
        self.repair.look_at.get_or_insert(now.instant + REPAIR_AFTER);
    }

    /// Somebody answered where they stand: what they should have, and have not confirmed, is sent again.
    pub(super) fn answered_in(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(conversation) = Conversation::of_group(tx, group)? else { return Ok(()) };
        if self.repair.watched.contains_key(&conversation.id) {
            if self.repair.alive.len() >= MAX_WATCHED {
                self.repair.alive.clear();
            }
            self.repair.alive.insert((conversation.id, who), now.instant);
            self.confirmed_in(conversation.id, now);
        }
        Ok(())
    }

    /// A message is encrypted: should nobody confirm it, they are asked.
    pub(super) fn watch_message(&mut self, row: &MessageRow, now: Now) {
        if self.repair.sealed.len() < MAX_WATCHED {
            let sealed = self.repair.sealed.entry(row.message_id).or_insert((now.instant, 0));
            *sealed = (now.instant, sealed.1.saturating_add(1));
        }
        self.watch(row.conversation, now);
    }

    /// Invitations left, or our wish to leave: whoever does not answer gets them again.
    pub(super) fn watch_group(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        now: Now,
    ) -> Result<(), NodeError> {
        if let Some(conversation) = Conversation::of_group(tx, group)? {
            self.watch(conversation.id, now);
        }
        Ok(())
    }

    pub(super) fn watch(&mut self, conversation: ConversationId, now: Now) {
        if self.repair.watched.len() < MAX_WATCHED {
            let silence = (now.instant + ASK_AFTER, ASK_AFTER);
            self.repair.watched.entry(conversation).or_insert(silence);
        }
    }

    /// After a restart: what was not confirmed before is still not.
    pub(super) fn load_repair(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        for conversation in Conversation::all(tx)? {
            self.watch(conversation.id, now);
            if conversation.moved {
                self.confirmed_in(conversation.id, now);
            }
            if let ConversationId::Contact(who) = conversation.id {
                self.attempt(tx, |node, tx| node.invite_undelivered(tx, &who))?;
            }
        }
        Ok(())
    }

    /// Looks at the conversations in which receipts came, and asks in those in which none came.
    pub(super) fn repair(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        self.ask_the_silent(tx, now)?;
        for (group, who) in std::mem::take(&mut self.repair.again) {
            self.accept(tx)?;
            self.attempt(tx, |node, tx| node.invite_again(tx, group, who, now))?;
        }
        if self.repair.look_at.is_none_or(|at| at > now.instant) {
            return Ok(());
        }
        self.repair.look_at = None;
        self.repair.sealed.retain(|_, (at, _)| *at + 2 * LONGEST_SILENCE > now.instant);
        for id in std::mem::take(&mut self.repair.confirmed) {
            if let Some(mut conversation) = Conversation::find(tx, id)?
                && conversation.standing == Standing::Active
            {
                self.repair_conversation(tx, &conversation, now)?;
                if conversation.moved && self.move_over(tx, &mut conversation, now)? {
                    self.confirmed_in(id, now);
                }
            }
        }
        Ok(())
    }

    fn ask_the_silent(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        let due = |(id, (at, silence)): (&ConversationId, &(Instant, Duration))| {
            (*at <= now.instant).then_some((*id, *silence))
        };
        let due: Vec<_> = self.repair.watched.iter().filter_map(due).collect();
        for (id, silence) in due {
            self.repair.watched.remove(&id);
            let Some(conversation) = Conversation::find(tx, id)? else { continue };
            let leaving = conversation.standing == Standing::Leaving;
            let (silent, orphans) = match conversation.standing {
                Standing::Active => {
                    (self.silent_members(tx, &conversation)?, self.orphans(tx, &conversation)?)
                }
                Standing::Leaving | Standing::Left | Standing::Removed => Default::default(),
            };
            if silent.is_empty() && orphans.is_empty() && !leaving {
                continue;
            }
            let silence = silence.saturating_mul(2).min(LONGEST_SILENCE);
            self.repair.watched.insert(id, (now.instant + silence, silence));
            for orphan in orphans.into_iter().take(ASKED_AT_ONCE) {
                self.adopt(tx, orphan, now)?;
            }
            for group in conversation.groups.iter().filter(|_| leaving) {
                self.propose_leave_once_more(tx, group, now)?;
            }
            for (group, who) in silent.into_iter().take(ASKED_AT_ONCE) {
                // Who has the invitation and writes nothing is heard by the answer.
                self.send_welcome_again(tx, &group, &who, now)?;
                self.ask_again(tx, &group, &who, Wants::Answer, now)?;
            }
        }
        Ok(())
    }

    /// Those to whom a mailbox has taken messages that they have not confirmed for long, and those whom
    /// we invited and nobody has heard.
    fn silent_members(
        &mut self,
        tx: &Tx,
        conversation: &Conversation,
    ) -> Result<BTreeSet<(GroupId, IdentityKey)>, NodeError> {
        let mut silent = BTreeSet::new();
        for group in &conversation.groups {
            let unheard = Unheard::with_welcome(tx, group)?;
            silent.extend(unheard.into_iter().map(|who| (*group, who)));
        }
        for row in History::page(tx, conversation.id, None, ASKED_ABOUT)? {
            let Some((group, _)) = row.sealed_in else { continue };
            if !row.can_be_sent() || !row.receipts {
                continue;
            }
            let members = self.groups.summary(tx, &group)?;
            let sent = row.recipients.iter().filter(|(_, state)| *state == MessageState::Sent);
            let listed = sent.filter(|(who, _)| members.member(who).is_some());
            silent.extend(listed.map(|(who, _)| (group, *who)));
        }
        Ok(silent)
    }

    /// Members who were never heard and whose inviter has gone since, if it may be on us to invite
    /// them again; of each group as many as are asked at a time.
    fn orphans(&mut self, tx: &Tx, conversation: &Conversation) -> Result<Vec<Orphan>, NodeError> {
        let mut orphans = Vec::new();
        for group in &conversation.groups {
            let unheard = Unheard::added_by(tx, group)?;
            if unheard.is_empty() || self.unsettled.contains_key(group) {
                continue;
            }
            let Some(summary) = self.acting_admin(tx, group)? else { continue };
            let admins = summary.members.iter().filter(|member| member.role == Role::Admin);
            let lower = admins.clone().filter(|admin| admin.identity_key < self.own.key()).count();
            let all = admins.count();
            let is_in = |who: &IdentityKey| summary.member(who).is_some();
            let leaves = |who: &IdentityKey| summary.leave_proposed.contains(who);
            let unheard = unheard.into_iter();
            let orphaned = unheard.filter(|(who, by)| is_in(who) && !leaves(who) && !is_in(by));
            for (who, _) in orphaned.take(ASKED_AT_ONCE) {
                let turn = if Contacts::find(tx, &who)?.is_some() { lower } else { all };
                orphans.push(Orphan { group: *group, who, turn: turn.min(LAST_TURN) });
            }
        }
        Ok(orphans)
    }

    /// Asks a member whose inviter has gone, or invites them again when those before us have had their
    /// turns.
    fn adopt(&mut self, tx: &Tx, orphan: Orphan, now: Now) -> Result<(), NodeError> {
        let Orphan { group, who, turn } = orphan;
        if self.repair.orphans.len() >= MAX_WATCHED {
            self.repair.orphans.clear();
        }
        let asked = self.repair.orphans.entry((group, who)).or_default();
        // Many read, and write nothing that we would hear: they are asked first.
        if *asked <= turn {
            *asked = asked.saturating_add(1);
            return self.ask_again(tx, &group, &who, Wants::Answer, now);
        }
        self.repair.orphans.remove(&(group, who));
        // A refusal undoes no more than this.
        self.accept(tx)?;
        self.attempt(tx, |node, tx| node.invite_again(tx, group, who, now))?;
        Ok(())
    }

    fn repair_conversation(
        &mut self,
        tx: &Tx,
        conversation: &Conversation,
        now: Now,
    ) -> Result<(), NodeError> {
        let rows = History::page(tx, conversation.id, None, LOOKED_AT)?;
        let mut newest: BTreeMap<IdentityKey, u64> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.outgoing) {
            for (key, state) in &row.recipients {
                if matches!(state, MessageState::Delivered | MessageState::Read) {
                    newest.insert(*key, row.lamport);
                }
            }
        }
        let mut resent = 0_usize;
        for mut row in rows {
            let Some((group, _)) = row.sealed_in else { continue };
            let old = self.repair.is_older(&row, self.repair.patience(&row), now.instant, now);
            if !row.can_be_sent() || !row.receipts || !old || resent >= MAX_RESENT {
                continue;
            }
            let members = self.groups.summary(tx, &group)?;
            let missed = row.recipients.iter().any(|(key, state)| {
                *state == MessageState::Sent
                    && members.member(key).is_some()
                    && (newest.get(key).is_some_and(|lamport| *lamport > row.lamport)
                        || self.repair.should_have_come(&row, key, now))
            });
            if missed {
                resent = resent.saturating_add(1);
                self.seal_message(tx, &group, &mut row, now)?;
            }
        }
        if resent > 0 {
            tracing::info!(resent, "messages that were not confirmed were sent again");
        }
        Ok(())
    }
}
