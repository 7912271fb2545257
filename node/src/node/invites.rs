//! Getting key packages of those who are to join: from their own node, else from a relay of
//! theirs, else after asking the rendezvous servers where they are.
//!
//! ```text
//!   start ─→ own node ──→ relay 1 ──→ relay 2 ... ──→ rendezvous, wait ─→ start
//!               └────────────┴─ key package ─→ gathered ─→ commit, Welcome
//! ```
//! A relay wants a token; whoever has none asks for the price and works for it (`work.rs`).
//! What comes in for one group while others of it are still asked for is gathered, for a short while:
//! one commit adds them all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::identity::VerifiedIdentity;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{
    Admission, ErrorBody, ErrorCode, KeyPackageTaken, Message, TakeKeyPackage,
};

use super::outcome::wait_of;
use super::work::Labour;
use super::{Call, Node, NodeError};
use crate::api::{Change as Told, DoubtKind, EventBody, MessageState, PathPolicy};
use crate::conversations::invite::INVITE_LIFETIME;
use crate::conversations::{Conversation, ConversationId, History, Invites, Unheard};
use crate::delivery::{Backoff, Trouble};
use crate::groups::{Change, CheckedKeyPackage, GroupError, KeyPackageError};
use crate::identity::{Contact, Contacts, Fellows, Reach};
use crate::store::{Table, Tx};
use crate::transport::{CallError, Target};

/// Tag of the anonymous sessions over which key packages are taken.
pub(super) const TAKE_TAG: u64 = u64::MAX;

/// Time for which the first key package of a group waits for the others that were asked for.
const GATHER: Duration = Duration::from_secs(2);

/// Key packages of those who are to join one group, until one commit adds them.
#[derive(Debug)]
pub(super) struct Gathered {
    packages: BTreeMap<IdentityKey, CheckedKeyPackage>,
    commit_at: Instant,
}

impl Gathered {
    /// When they are added, whether all have come or not.
    pub(super) const fn wake_at(&self) -> Instant {
        self.commit_at
    }
}

/// What became of key packages that were taken.
enum Taken {
    /// One of them fits the group.
    Fits(Box<CheckedKeyPackage>),
    /// They are good, but for other suites.
    OtherSuites,
    /// They are no good.
    Useless,
}

/// Where the search for one person's key package stands.
#[derive(Debug, Default)]
pub(super) struct Fetch {
    /// The groups that they are to join; a wish may have been given up since.
    groups: BTreeSet<GroupId>,
    /// Whom was asked and has not answered yet.
    asked: Option<IdentityKey>,
    /// Next to be asked: 0 for the own node, then the relays.
    place: usize,
    wait_until: Option<Instant>,
    backoff: Backoff,
    /// Somebody who keeps their mailbox did not let us in.
    refused: bool,
    /// There is no link of theirs here, and no work is taken in its place.
    needs_link: bool,
    /// Keepers that said when they are worth asking again. As many as somebody has relays, and some
    /// of before.
    told_to_wait: BTreeMap<IdentityKey, Instant>,
    /// What is worked for at a relay, because no token opens the mailbox there.
    pub(super) labour: Option<Labour>,
    /// What the last place that was asked came to.
    trouble: Option<Trouble>,
}

impl Fetch {
    /// What the first message to somebody waits for.
    pub(super) fn reason(&self) -> String {
        if let Some(labour) = &self.labour {
            return format!("{}; it goes out by itself afterwards", labour.progress());
        }
        if self.needs_link {
            "you have no link of theirs, and nobody takes work in its place; ask them for a link"
                .to_owned()
        } else if self.refused {
            "they do not accept the link that you have; ask them for a new one".to_owned()
        } else {
            let why = self.trouble.map(|trouble| format!(" ({trouble})")).unwrap_or_default();
            format!("they have not been reached yet{why}; it goes out by itself when they are")
        }
    }

    /// When the search goes on by itself.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        if self.asked.is_some() {
            return None;
        }
        self.labour.as_ref().map_or(self.wait_until, |labour| Some(labour.wake_at()))
    }

    /// Waits for this keeper's answer.
    pub(super) const fn ask(&mut self, keeper: IdentityKey) {
        self.asked = Some(keeper);
    }

    /// The answer has come: whose it is.
    pub(super) const fn answered(&mut self) -> Option<IdentityKey> {
        self.asked.take()
    }

    /// Nothing but a link leads to them.
    pub(super) const fn needs_link(&mut self) {
        self.needs_link = true;
    }

    /// Notes when a keeper that refused wants to be asked again.
    pub(super) fn wait_for(&mut self, keeper: IdentityKey, error: &ErrorBody, now: Now) {
        self.told_to_wait.retain(|_, until| now.instant < *until);
        if let Some(seconds) = error.retry_after {
            self.told_to_wait.insert(keeper, now.instant + wait_of(seconds));
        }
    }

    /// Whether it is too early to ask this keeper.
    fn must_wait(&self, keeper: &IdentityKey, now: Now) -> bool {
        self.told_to_wait.get(keeper).is_some_and(|until| now.instant < *until)
    }
}

impl Node {
    pub(super) fn load_fetches(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        for invite in Invites::all(tx)? {
            self.fetches.entry(invite.who).or_default().groups.insert(invite.group);
            self.start_fetch(tx, invite.who, now)?;
        }
        Ok(())
    }

    /// Somebody is to join a group, as soon as a key package of theirs can be had.
    pub(super) fn wish(
        &mut self,
        tx: &Tx,
        group: GroupId,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        Invites::add(tx, group, who, now)?;
        self.fetches.entry(who).or_default().groups.insert(group);
        self.start_fetch(tx, who, now)
    }

    /// The groups that somebody is to join and for which no key package is here yet.
    fn wanted_in(&self, tx: &Tx, who: &IdentityKey) -> Result<Vec<GroupId>, NodeError> {
        let mut wanted = Vec::new();
        for group in self.fetches.get(who).into_iter().flat_map(|fetch| &fetch.groups) {
            let gathered = self.gathered.get(group);
            let is_here = gathered.is_some_and(|gathered| gathered.packages.contains_key(who));
            if !is_here && Invites::find(tx, group, who)?.is_some() {
                wanted.push(*group);
            }
        }
        Ok(wanted)
    }

    /// Starts, or hurries, the search for somebody's key package.
    pub(super) fn start_fetch(
        &mut self,
        tx: &Tx,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let fetch = self.fetches.entry(who).or_default();
        // Work goes on, unless they are there themselves.
        let is_working = fetch.labour.is_some() && !self.transport.has_session(&who);
        if fetch.asked.is_some() || is_working {
            return Ok(());
        }
        fetch.labour = None;
        fetch.place = 0;
        fetch.wait_until = None;
        self.ask_next(tx, who, now)
    }

    pub(super) fn move_fetches(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        let due: Vec<IdentityKey> = self
            .fetches
            .iter()
            .filter(|(_, fetch)| fetch.wake_at().is_some_and(|at| at <= now.instant))
            .map(|(who, _)| *who)
            .collect();
        for who in due {
            if self.fetches.get(&who).is_some_and(|fetch| fetch.labour.is_some()) {
                self.work_for(tx, who, now)?;
            } else {
                self.start_fetch(tx, who, now)?;
            }
        }
        let due: Vec<GroupId> = self
            .gathered
            .iter()
            .filter(|(_, gathered)| gathered.commit_at <= now.instant)
            .map(|(group, _)| *group)
            .collect();
        for group in due {
            self.add_gathered(tx, group, now)?;
        }
        Ok(())
    }

    /// Asks at the next place; after the last one, waits and asks where else to look.
    pub(super) fn ask_next(
        &mut self,
        tx: &Tx,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let reach = Reach::of(tx, &who)?;
        let policy = self.path_policy(tx, &who)?;
        let mut fetch = self.fetches.remove(&who).unwrap_or_default();
        let admission = reach.token().map_or(Admission::Session, Admission::Token);
        let request = Message::TakeKeyPackage(TakeKeyPackage { owner: who, admission });
        loop {
            let place = fetch.place;
            fetch.place = place.saturating_add(1);
            let (keeper, target, candidates) = if let Some(relay) = place.checked_sub(1) {
                let Some(relay) = reach.relays.get(relay) else { break };
                if policy == PathPolicy::Direct {
                    break;
                }
                if fetch.must_wait(&relay.identity_key, now) {
                    continue;
                }
                if reach.token().is_none() {
                    let relay = relay.clone();
                    self.fetches.insert(who, fetch);
                    self.ask_price(who, &relay, now);
                    return Ok(());
                }
                let candidates = self.relay_candidates(relay);
                let keeper = relay.identity_key;
                (keeper, Target::Anonymous(keeper, TAKE_TAG), candidates)
            } else {
                let candidates = reach.candidates();
                let reachable = !candidates.is_empty() || self.transport.has_session(&who);
                if policy == PathPolicy::Relay || !reachable || fetch.must_wait(&who, now) {
                    continue;
                }
                (who, Target::Peer(who), candidates)
            };
            fetch.ask(keeper);
            self.fetches.insert(who, fetch);
            self.call(target, &candidates, request, Call::KeyPackage { who }, now);
            return Ok(());
        }
        fetch.wait_until = Some(now.instant + fetch.backoff.fail(&mut self.entropy));
        self.fetches.insert(who, fetch);
        self.give_up_old_invites(tx, who, now)?;
        self.look_up(tx, &who, now)
    }

    pub(super) fn key_package_answered(
        &mut self,
        tx: &Tx,
        who: IdentityKey,
        result: Result<Message, CallError>,
        now: Now,
    ) -> Result<(), NodeError> {
        let has_link = Reach::of(tx, &who)?.token().is_some();
        let (mut asked, mut is_worked) = (None, false);
        if let Some(fetch) = self.fetches.get_mut(&who) {
            asked = fetch.answered();
            is_worked = fetch.labour.take().is_some();
        }
        let wanted = self.wanted_in(tx, &who)?;
        let Some(group) = wanted.first().copied() else {
            self.fetches.remove(&who);
            return self.add_gathered_if_complete(tx, now);
        };
        if let (Err(CallError::Refused(error)), Some(fetch)) = (&result, self.fetches.get_mut(&who))
        {
            // Whoever worked showed no link.
            fetch.refused = error.code == ErrorCode::NotAdmitted && !is_worked;
            fetch.needs_link = fetch.refused && !has_link;
            fetch.wait_for(asked.unwrap_or(who), error, now);
        }
        if let (Err(error), Some(fetch)) = (&result, self.fetches.get_mut(&who)) {
            fetch.trouble = Some(Trouble::of_call(error));
        }
        let package = match result {
            Ok(Message::KeyPackageTaken(taken)) => {
                match self.check_taken(tx, who, &taken, &group, now)? {
                    Taken::Fits(package) => Some(*package),
                    Taken::Useless => None,
                    Taken::OtherSuites => return self.cannot_join(tx, group, who, now),
                }
            }
            Ok(_) | Err(_) => None,
        };
        let Some(package) = package else {
            self.ask_next(tx, who, now)?;
            return self.add_gathered_if_complete(tx, now);
        };
        let commit_at = now.instant + GATHER;
        let new = || Gathered { packages: BTreeMap::new(), commit_at };
        self.gathered.entry(group).or_insert_with(new).packages.insert(who, package);
        if wanted.len() > 1 {
            self.start_fetch(tx, who, now)?;
        } else {
            self.fetches.remove(&who);
        }
        self.add_gathered_if_complete(tx, now)
    }

    /// Adds those of whom a key package came, in each group for which nobody else is being asked.
    fn add_gathered_if_complete(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        let is_asked_for = |group: &GroupId| {
            self.fetches.values().any(|fetch| fetch.asked.is_some() && fetch.groups.contains(group))
        };
        let complete: Vec<GroupId> =
            self.gathered.keys().filter(|group| !is_asked_for(group)).copied().collect();
        for group in complete {
            self.add_gathered(tx, group, now)?;
        }
        Ok(())
    }

    /// Adds those of whom a key package came, in one commit.
    fn add_gathered(&mut self, tx: &Tx, group: GroupId, now: Now) -> Result<(), NodeError> {
        let Some(gathered) = self.gathered.remove(&group) else { return Ok(()) };
        let mut packages = Vec::new();
        let mut admins = Vec::new();
        for (who, package) in gathered.packages {
            if let Some(invite) = Invites::find(tx, &group, &who)? {
                packages.push(package);
                admins.extend(invite.as_admin.then_some(who));
            }
            Invites::remove(tx, &group, &who);
        }
        if packages.is_empty() {
            return Ok(());
        }
        // From here on nothing that came before is undone with a commit that cannot be made.
        self.accept(tx)?;
        if packages.len() > 1 && self.add_to(tx, &group, packages.clone(), now)? {
            packages.clear();
        }
        // One who cannot be added is no reason to leave out the others.
        for package in packages {
            self.add_to(tx, &group, vec![package], now)?;
        }
        for who in admins {
            self.attempt(tx, |node, tx| node.change_group(tx, &group, Change::Promote(who), now))?;
        }
        if let Some(mut conversation) = Conversation::of_group(tx, &group)? {
            self.flush_intents(tx, &mut conversation, now)?;
        }
        Ok(())
    }

    /// One commit that adds people; whether it could be made.
    fn add_to(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        packages: Vec<CheckedKeyPackage>,
        now: Now,
    ) -> Result<bool, NodeError> {
        match self.change_group(tx, group, Change::Add(packages), now) {
            Ok(()) => {
                self.accept(tx)?;
                Ok(true)
            }
            Err(NodeError::Store(error)) => Err(error.into()),
            Err(error) => {
                // The wish cannot be fulfilled any more: the group is left, or the role is lost.
                tracing::debug!(%error, "invited members cannot be added");
                self.refuse(tx);
                Ok(false)
            }
        }
    }

    fn check_taken(
        &mut self,
        tx: &Tx,
        who: IdentityKey,
        taken: &KeyPackageTaken,
        group: &GroupId,
        now: Now,
    ) -> Result<Taken, NodeError> {
        let Ok(identity) = taken.identity.verify() else { return Ok(Taken::Useless) };
        if identity.key() != who {
            return Ok(Taken::Useless);
        }
        self.learn_identity(tx, &identity, now)?;
        let suite = self.groups.suite(tx, group)?;
        match self.groups.check_key_package(&taken.key_package, &who, suite, now) {
            Ok(package) => Ok(Taken::Fits(Box::new(package))),
            Err(GroupError::KeyPackage(KeyPackageError::Suite)) => Ok(Taken::OtherSuites),
            Err(error) => {
                tracing::debug!(%error, "a key package is refused");
                Ok(Taken::Useless)
            }
        }
    }

    /// Somebody's program lacks the group's suite: the wish ends, and its owner reads why.
    fn cannot_join(
        &mut self,
        tx: &Tx,
        group: GroupId,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        Invites::remove(tx, &group, &who);
        let suite = self.groups.suite(tx, &group)?;
        let name = self.name_of(tx, &who)?;
        let why = format!(
            "{name} cannot join: their program does not support the group's cipher suite {suite} (0x{:04x})",
            suite.number()
        );
        if let Some(mut conversation) = Conversation::of_group(tx, &group)? {
            self.fail_intents(tx, conversation.id, &why, now)?;
            let own = self.own.key();
            self.notice(tx, &mut conversation, own, why, now)?;
        }
        if self.wanted_in(tx, &who)?.is_empty() {
            self.fetches.remove(&who);
        } else {
            self.start_fetch(tx, who, now)?;
        }
        self.add_gathered_if_complete(tx, now)
    }

    /// A wish that nobody could fulfil for a month ends, and the messages that waited for it fail.
    fn give_up_old_invites(
        &mut self,
        tx: &Tx,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let groups = self.fetches.get(&who).map(|fetch| fetch.groups.clone()).unwrap_or_default();
        for group in groups {
            let Some(invite) = Invites::find(tx, &group, &who)? else { continue };
            if now.wall.since(invite.made) < INVITE_LIFETIME {
                continue;
            }
            Invites::remove(tx, &invite.group, &who);
            Unheard::remove(tx, &invite.group, &who)?;
            self.fetches.remove(&who);
            let why = "they could not be reached for 30 days";
            self.fail_intents(tx, ConversationId::Contact(who), why, now)?;
        }
        Ok(())
    }

    /// The messages that wait for somebody to read them fail, in a chat of two: nobody will come.
    fn fail_intents(
        &mut self,
        tx: &Tx,
        id: ConversationId,
        why: &str,
        now: Now,
    ) -> Result<(), NodeError> {
        if matches!(id, ConversationId::Group(_)) {
            return Ok(());
        }
        for (key, _) in tx.scan_prefix(Table::Intents, &id.to_key(), usize::MAX)? {
            tx.delete(Table::Intents, &key);
            let Some(mut row) =
                tx.read::<crate::conversations::MessageRow>(Table::Messages, &key)?
            else {
                continue;
            };
            row.state = MessageState::Failed;
            row.error = Some(why.to_owned());
            History::update(tx, &row)?;
            self.tell_state(tx, &row, now)?;
        }
        Ok(())
    }

    /// A verified identity came in, by whatever way: takes it if it is newer (C02). Answers whether it
    /// is the one that stands: of one that was refused nothing else may be taken either.
    pub(super) fn learn_identity(
        &mut self,
        tx: &Tx,
        identity: &VerifiedIdentity,
        now: Now,
    ) -> Result<bool, NodeError> {
        let Some(mut contact) = Contacts::find(tx, &identity.key())? else {
            if self.fellows.contains(&identity.key()) {
                Fellows::learn(tx, identity)?;
            }
            return Ok(true);
        };
        let first = contact.identity.is_none();
        let before = contact.name().to_owned();
        let succession = contact.learn(identity);
        match succession {
            sremp_common::identity::Succession::Newer => {
                Contacts::save(tx, &contact)?;
                self.learn_reach(tx, identity)?;
                self.tell(
                    tx,
                    EventBody::Contact {
                        id: contact.key.to_string(),
                        name: contact.name().to_owned(),
                        alias: contact.alias.clone(),
                        change: Told::Updated,
                    },
                    now,
                )?;
                // Somebody who is trusted may take another one's name later on.
                if first || contact.name() != before {
                    self.warn_of_shared_name(tx, &contact, now)?;
                }
                Ok(true)
            }
            sremp_common::identity::Succession::Same => Ok(true),
            sremp_common::identity::Succession::Equivocation => {
                self.refuse_identity(tx, contact, identity, DoubtKind::SecondIdentity, now)?;
                Ok(false)
            }
            sremp_common::identity::Succession::Rollback => {
                self.refuse_identity(tx, contact, identity, DoubtKind::OldIdentity, now)?;
                Ok(false)
            }
        }
    }

    /// An identity that came by mail: it was the present one when it was written, so that an older
    /// one is no wonder.
    pub(super) fn learn_mailed_identity(
        &mut self,
        tx: &Tx,
        identity: &VerifiedIdentity,
        now: Now,
    ) -> Result<bool, NodeError> {
        let contact = Contacts::find(tx, &identity.key())?;
        let known = contact.and_then(|contact| contact.verified_identity());
        if known.is_some_and(|known| known.data().version > identity.data().version) {
            return Ok(false);
        }
        self.learn_identity(tx, identity, now)
    }

    /// An identity was refused: its owner's contact is told, who can ask them.
    fn refuse_identity(
        &mut self,
        tx: &Tx,
        mut contact: Contact,
        identity: &VerifiedIdentity,
        kind: DoubtKind,
        now: Now,
    ) -> Result<(), NodeError> {
        if !contact.doubt(kind, identity.data().version, now) {
            return Ok(());
        }
        tracing::warn!(kind = kind.word(), "an identity of a contact was refused; see the contact");
        Contacts::save(tx, &contact)?;
        let change = match kind {
            DoubtKind::OldIdentity => Told::OldIdentity,
            DoubtKind::SecondIdentity => Told::SecondIdentity,
        };
        self.tell_contact(tx, &contact, change, now)
    }

    /// Takes over from an identity how its owner can be reached.
    pub(super) fn learn_reach(
        &mut self,
        tx: &Tx,
        identity: &VerifiedIdentity,
    ) -> Result<(), NodeError> {
        let mut reach = Reach::of(tx, &identity.key())?;
        // An identity that lists none has none any more.
        reach.relays = identity.data().relays();
        reach.from_identity = true;
        reach.seal_key = identity.data().seal_key().or(reach.seal_key);
        reach.prefers_async = identity.data().flags.prefers_async;
        reach.save(tx, &identity.key())?;
        Ok(())
    }
}
