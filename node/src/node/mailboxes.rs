//! Our mailboxes at relays: opened, told whom to let in, stocked with key packages, read.
//!
//! ```text
//!   session up ─→ register ─→ claim ─→ admission ─→ key packages ─→ retrieve ─→ (live)
//! ```
//! Every step starts when the one before was answered, so that a key package is never handed out
//! before its token opens the mailbox.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::{IdentityKey, Incarnation, Token};
use sremp_common::identity::RelayRecord;
use sremp_common::limit::{MAX_BLOB, MAX_WINDOW};
use sremp_common::time::{Now, Timestamp};
use sremp_common::wire::{
    Ack, Bin, ClaimMailbox, ErrorCode, List, Message, MessageBatch, PublishKeyPackages,
    RelayCapabilities, RelayRegister, RetrieveMessages, SetAdmission,
};

use super::outcome::wait_of;
use super::{Call, Node, NodeError};
use crate::api::{RelayRecordView, RelayView};
use crate::delivery::Verdict;
use crate::identity::Tokens;
use crate::store::{StoreError, Table, Tx, decode_row};
use crate::transport::{CallError, DialError, Origin, Target};

/// Relays that a node uses, retired ones included.
pub(super) const MAX_MAILBOXES: usize = 16;
/// Time that a retired relay is still read: contacts may not know of the change yet.
pub(super) const RETIRED_FOR: Duration = Duration::from_secs(30 * 86_400);
/// Key packages that a relay shall have in stock.
const STOCK: usize = 20;
/// Age at which the stock is replaced: well before its key packages expire.
const STOCK_LIFETIME: Duration = Duration::from_secs(30 * 86_400);
/// Between two fillings that a relay asks for.
const PUBLISH_PAUSE: Duration = Duration::from_secs(600);
/// Below this many it is filled up.
const LOW_STOCK: u32 = 5;
/// Seconds that we want blobs to be kept.
const STORAGE_DURATION: u32 = 30 * 86_400;

/// Time after the start for which messages wait until a relay has said that no other copy of this
/// home was there since.
const PROOF_AWAITED: Duration = Duration::from_secs(1);

/// A relay of ours, as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RelayRow {
    pub(super) record: RelayRecord,
    /// Place in the order of preference.
    pub(super) place: u32,
    /// Still read, but not announced, since this moment.
    pub(super) retired_at: Option<Timestamp>,
    /// When its stock of key packages was last made anew.
    #[serde(default)]
    pub(super) published_at: Option<Timestamp>,
    /// The claim that the relay confirmed last, and the one that is on its way. A relay that is new
    /// here is taken over: whatever stands there is from before it was removed.
    #[serde(default)]
    pub(super) claims: (Option<Incarnation>, Option<Incarnation>),
    /// The invitation that came with the relay's link: shown whenever the mailbox is opened.
    #[serde(default)]
    pub(super) invite: Option<Token>,
}

/// Where a mailbox stands in this run.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// Registered, and being read.
    pub(super) open: bool,
    /// The list of tokens has left for it: from now on it is told of every change, also before it is
    /// open.
    pub(super) told: bool,
    pub(super) error: Option<String>,
    /// See [`RelayRow::invite`].
    invite: Option<Token>,
    stocked: u32,
    /// Blobs were left at the relay, because there was no room for what waits for its epoch.
    left_behind: bool,
    /// Claimed in this run.
    claimed: bool,
    /// Another copy of this home reads it.
    pub(super) taken: bool,
}

/// What a call to a relay of ours was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Register,
    Claim,
    Admission,
    Publish,
    Retrieve,
    /// The list of tokens changed while the mailbox was open.
    Refresh,
}

impl Node {
    pub(super) fn relay_rows(tx: &Tx) -> Result<Vec<RelayRow>, StoreError> {
        let mut rows: Vec<RelayRow> = tx
            .scan(Table::Relays, &[], None, MAX_MAILBOXES)?
            .into_iter()
            .map(|(_, value)| decode_row(Table::Relays, &value))
            .collect::<Result<_, _>>()?;
        rows.sort_by_key(|row| row.place);
        Ok(rows)
    }

    pub(super) fn load_mailboxes(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        for row in Self::relay_rows(tx)? {
            self.unproved_until = Some(now.instant + PROOF_AWAITED);
            self.keep_mailbox(&row.record, row.invite, now);
        }
        Ok(())
    }

    pub(super) fn keep_mailbox(&mut self, record: &RelayRecord, invite: Option<Token>, now: Now) {
        self.mailboxes.insert(record.identity_key, Mailbox { invite, ..Mailbox::default() });
        self.transport.keep_relay(record, Origin::User, now);
        // A friend's node may be connected already: then no new session comes up.
        if self.transport.has_session(&record.identity_key) {
            self.open_mailbox(record.identity_key, now);
        }
    }

    /// A session with a relay of ours is open: the mailbox is opened anew.
    pub(super) fn open_mailbox(&mut self, relay: IdentityKey, now: Now) {
        let capabilities = RelayCapabilities {
            max_message_size: u32::try_from(MAX_BLOB).unwrap_or(u32::MAX),
            max_storage_duration: STORAGE_DURATION,
        };
        let invite = self.mailboxes.get(&relay).and_then(|mailbox| mailbox.invite);
        let message = Message::RelayRegister(RelayRegister { capabilities, invite });
        self.call_relay(relay, Step::Register, message, now);
    }

    fn call_relay(&mut self, relay: IdentityKey, step: Step, message: Message, now: Now) {
        let call = Call::Mailbox { relay, step };
        self.call(Target::OwnRelay(relay), &[], message, call, now);
    }

    pub(super) fn mailbox_answered(
        &mut self,
        tx: &Tx,
        relay: IdentityKey,
        step: Step,
        result: Result<Message, CallError>,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(mailbox) = self.mailboxes.get_mut(&relay) else { return Ok(()) };
        match (step, result) {
            // The list is told again after a pause; the mailbox stands as it is.
            (Step::Refresh, Err(CallError::Refused(_))) => self.admission_changed = true,
            (Step::Claim, Err(CallError::Refused(refused)))
                if refused.code == ErrorCode::Stale && refused.retry_after.is_none() =>
            {
                self.distrust_all(tx, now)?;
                self.claim_mailbox(tx, relay, true, now)?;
            }
            (_, Err(error)) => {
                mailbox.error = Some(if let CallError::Refused(body) = &error {
                    format!("refused: {}", &*body.text)
                } else {
                    error.to_string()
                });
                mailbox.open = false;
                mailbox.told = false;
                if let (Step::Claim, CallError::Refused(refused)) = (step, &error) {
                    mailbox.taken = refused.code == ErrorCode::Stale;
                }
                if let CallError::Refused(body) = &error
                    && let Some(seconds) = body.retry_after
                {
                    self.transport.relay_waits(&relay, now.instant + wait_of(seconds));
                }
                // A relay that refuses, or does not answer, is dialled anew, with growing pauses.
                if !matches!(error, CallError::Closed | CallError::Unreachable(_)) {
                    let code = ErrorCode::Goodbye;
                    self.transport.close_peer(&relay, code, now);
                }
            }
            (Step::Register, Ok(Message::RelayRegistered(registered))) => {
                mailbox.stocked = registered.key_packages;
                self.claim_mailbox(tx, relay, false, now)?;
            }
            (Step::Claim, Ok(_)) => {
                mailbox.claimed = true;
                mailbox.taken = false;
                mailbox.told = true;
                Self::claim_confirmed(tx, &relay)?;
                self.unproved_until = None;
                Tokens::fill_spares(tx, &mut self.entropy, now)?;
                let message = Self::admission_for(tx, &relay)?;
                self.call_relay(relay, Step::Admission, message, now);
            }
            (Step::Admission, Ok(_))
                if mailbox.stocked < LOW_STOCK || Self::stock_is_old(tx, &relay, now)? =>
            {
                self.publish_key_packages(tx, relay, now)?;
            }
            (Step::Admission | Step::Publish, Ok(_)) if !mailbox.open => {
                mailbox.open = true;
                self.leaves.back(now);
                mailbox.error = None;
                let message = Message::RetrieveMessages(RetrieveMessages { window: MAX_WINDOW });
                self.call_relay(relay, Step::Retrieve, message, now);
                let change = true;
                self.tell_connection(tx, &relay, crate::api::ConnectionKind::Relay, change, now)?;
            }
            (_, Ok(_)) => {}
        }
        Ok(())
    }

    /// Says that it is this copy of the home that reads the mailbox.
    fn claim_mailbox(
        &mut self,
        tx: &Tx,
        relay: IdentityKey,
        take_over: bool,
        now: Now,
    ) -> Result<(), NodeError> {
        let key = relay.as_bytes();
        let Some(mut row) = tx.read::<RelayRow>(Table::Relays, key)? else { return Ok(()) };
        let known: Vec<Incarnation> = match row.claims {
            _ if take_over => Vec::new(),
            (confirmed, under_way) => confirmed.into_iter().chain(under_way).collect(),
        };
        // One that was not confirmed may stand or not: it is used again until it is.
        let fresh = row.claims.1.unwrap_or_else(|| Incarnation::new(self.entropy.array()));
        row.claims.1 = Some(fresh);
        tx.write(Table::Relays, key, &row)?;
        let started = self.mailboxes.get(&relay).is_some_and(|mailbox| !mailbox.claimed);
        let claim = ClaimMailbox { fresh, known: List::truncated(known), started };
        self.call_relay(relay, Step::Claim, Message::ClaimMailbox(claim), now);
        Ok(())
    }

    fn claim_confirmed(tx: &Tx, relay: &IdentityKey) -> Result<(), StoreError> {
        let Some(mut row) = tx.read::<RelayRow>(Table::Relays, relay.as_bytes())? else {
            return Ok(());
        };
        if let Some(fresh) = row.claims.1.take() {
            row.claims.0 = Some(fresh);
        }
        tx.write(Table::Relays, relay.as_bytes(), &row)
    }

    /// Whether it is not certain yet that no other copy of this home has sent since: a relay would
    /// know. For a moment after the start this is waited for.
    pub(super) fn is_unproved(&self, now: Now) -> bool {
        self.mailboxes.values().any(|mailbox| mailbox.taken)
            || self.unproved_until.is_some_and(|until| now.instant < until)
    }

    /// What waited for that word goes on as soon as nothing speaks against it any more.
    pub(super) fn go_on_when_proved(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        // However this ends, it is not waited for any longer.
        self.unproved_until = self.unproved_until.filter(|until| now.instant < *until);
        if self.is_unproved(now) {
            self.was_unproved = true;
            return Ok(());
        }
        if std::mem::take(&mut self.was_unproved) {
            self.load_follow_ups(tx)?;
        }
        Ok(())
    }

    /// Key packages do not live for ever, and the sealing key that they name is replaced.
    fn stock_is_old(tx: &Tx, relay: &IdentityKey, now: Now) -> Result<bool, NodeError> {
        let row: Option<RelayRow> = tx.read(Table::Relays, relay.as_bytes())?;
        let published = row.and_then(|row| row.published_at);
        Ok(published.is_none_or(|at| now.wall.since(at) > STOCK_LIFETIME))
    }

    /// Fills the stock of a relay. The tokens of the new key packages are announced first.
    fn publish_key_packages(
        &mut self,
        tx: &Tx,
        relay: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let mut packages = Vec::with_capacity(STOCK);
        for _ in 0..STOCK {
            let leaf = self.stocked_leaf(tx, now)?;
            let bytes = self.groups.make_key_packages(tx, &leaf, false, now)?;
            packages.push(Bin::new(bytes).unwrap_or_default());
        }
        let leaf = self.stocked_leaf(tx, now)?;
        let last_resort = self.groups.make_key_packages(tx, &leaf, true, now)?;
        self.call_relay(relay, Step::Refresh, Self::admission_for(tx, &relay)?, now);
        let publish = PublishKeyPackages {
            identity: self.own.identity().identity().clone(),
            key_packages: List::truncated(packages),
            last_resort: Bin::new(last_resort).ok(),
            replace: Self::stock_is_old(tx, &relay, now)?,
        };
        let key = relay.as_bytes();
        if let Some(mut row) = tx.read::<RelayRow>(Table::Relays, key)? {
            row.published_at = Some(now.wall);
            tx.write(Table::Relays, key, &row)?;
        }
        if let Some(mailbox) = self.mailboxes.get_mut(&relay) {
            mailbox.stocked = u32::try_from(STOCK).unwrap_or(u32::MAX);
        }
        self.call_relay(relay, Step::Publish, Message::PublishKeyPackages(publish), now);
        Ok(())
    }

    /// Key packages in stock were made by another copy of this home: their keys may not be here.
    pub(super) fn replace_stocks(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        for mut row in Self::relay_rows(tx)? {
            row.published_at = None;
            let relay = row.record.identity_key;
            tx.write(Table::Relays, relay.as_bytes(), &row)?;
            if self.mailboxes.get(&relay).is_some_and(|mailbox| mailbox.open) {
                self.publish_key_packages(tx, relay, now)?;
            }
        }
        Ok(())
    }

    fn told_relays(&self) -> Vec<IdentityKey> {
        let told = self.mailboxes.iter().filter(|(_, mailbox)| mailbox.told);
        told.map(|(relay, _)| *relay).collect()
    }

    /// The identity changed: relays hand out the new one with what they have in stock.
    pub(super) fn republish_identity(&mut self, now: Now) {
        let relays = self.told_relays();
        for relay in relays {
            let publish = PublishKeyPackages {
                identity: self.own.identity().identity().clone(),
                key_packages: List::default(),
                last_resort: None,
                replace: false,
            };
            let message = Message::PublishKeyPackages(publish);
            self.call_relay(relay, Step::Refresh, message, now);
        }
    }

    pub(super) fn tell_relays_of_tokens(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        let relays = self.told_relays();
        if relays.is_empty() {
            return Ok(());
        }
        Tokens::fill_spares(tx, &mut self.entropy, now)?;
        for relay in relays {
            self.call_relay(relay, Step::Refresh, Self::admission_for(tx, &relay)?, now);
        }
        Ok(())
    }

    /// Whom a relay of ours is to let in.
    fn admission_for(tx: &Tx, relay: &IdentityKey) -> Result<Message, StoreError> {
        let rows = Self::relay_rows(tx)?;
        let first = rows.iter().find(|row| row.retired_at.is_none());
        let is_first = first.is_some_and(|row| row.record.identity_key == *relay);
        let entries = List::truncated(Tokens::admission_list(tx, is_first)?);
        Ok(Message::SetAdmission(SetAdmission { entries }))
    }

    /// A relay sends something by itself.
    #[expect(clippy::wildcard_enum_match_arm, reason = "only these two come unasked")]
    pub(super) fn pushed(
        &mut self,
        tx: &Tx,
        relay: IdentityKey,
        message: Message,
        now: Now,
    ) -> Result<(), StoreError> {
        if !self.mailboxes.contains_key(&relay) {
            return Ok(());
        }
        match message {
            Message::MessageBatch(batch) => self.read_batch(tx, relay, batch, now),
            Message::KeyPackagesLow(_) => {
                let row: Option<RelayRow> = tx.read(Table::Relays, relay.as_bytes())?;
                let published = row.and_then(|row| row.published_at);
                if published.is_some_and(|at| now.wall.since(at) < PUBLISH_PAUSE) {
                    return Ok(());
                }
                self.attempt(tx, |node, tx| node.publish_key_packages(tx, relay, now))
            }
            _ => Ok(()),
        }
    }

    /// Each message of a batch gets its verdict; what has one is acknowledged after the commit.
    fn read_batch(
        &mut self,
        tx: &Tx,
        relay: IdentityKey,
        batch: MessageBatch,
        now: Now,
    ) -> Result<(), StoreError> {
        let mut done = Vec::with_capacity(batch.messages.len());
        for message in batch.messages {
            let verdict = self.take_blob(tx, &message.blob, false, now)?;
            if verdict == Verdict::TooManyRequests {
                // Left there, strangers' invitations would fill the window in which all others come.
                self.requests_dropped = self.requests_dropped.saturating_add(1);
                let dropped = self.requests_dropped;
                tracing::warn!(dropped, "an invitation by a stranger was dropped: too many wait");
            }
            if verdict != Verdict::Refused {
                done.push(message.sequence);
            } else if let Some(mailbox) = self.mailboxes.get_mut(&relay) {
                mailbox.left_behind = true;
            }
        }
        if !done.is_empty() {
            let message = Message::Ack(Ack { sequences: List::truncated(done) });
            self.call(Target::OwnRelay(relay), &[], message, Call::Ignored, now);
        }
        Ok(())
    }

    /// There is room again for blobs that wait: what was left at relays is read anew.
    pub(super) fn read_left_behind(&mut self, now: Now) {
        let mut relays = Vec::new();
        for (relay, mailbox) in &mut self.mailboxes {
            if mailbox.open && std::mem::take(&mut mailbox.left_behind) {
                relays.push(*relay);
            }
        }
        for relay in relays {
            let message = Message::RetrieveMessages(RetrieveMessages { window: MAX_WINDOW });
            self.call_relay(relay, Step::Retrieve, message, now);
        }
    }

    /// A relay of ours could not be dialled: its owner is told why.
    pub(super) fn relay_unreached(&mut self, relay: &IdentityKey, why: DialError) {
        if let Some(mailbox) = self.mailboxes.get_mut(relay).filter(|mailbox| !mailbox.open) {
            mailbox.error = Some(CallError::Unreachable(why).to_string());
        }
    }

    pub(super) fn relay_views(&self, tx: &Tx) -> Result<Vec<RelayView>, NodeError> {
        let view = |row: RelayRow| {
            let mailbox = self.mailboxes.get(&row.record.identity_key);
            let RelayRecordView { id, endpoints } = (&row.record).into();
            RelayView {
                id,
                endpoints,
                connected: mailbox.is_some_and(|mailbox| mailbox.open),
                retired_until: row.retired_at.map(|at| at + RETIRED_FOR),
                error: mailbox.and_then(|mailbox| mailbox.error.clone()),
            }
        };
        Ok(Self::relay_rows(tx)?.into_iter().map(view).collect())
    }
}
