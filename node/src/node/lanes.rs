//! Parcels on their way: which path each lane may use, and what its answers mean.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::identity::RelayRecord;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{Admission, Bin, List, Message, Recipient, StoreMessage};

use super::outcome::{Outcome, is_refused_as_a_whole, outcomes};
use super::{Call, Node, NodeError};
use crate::api::{EventBody, MessageState, PathPolicy};
use crate::conversations::{History, Invites};
use crate::delivery::{
    Company, Lane, Means, Outbox, Parcel, Path, Pauses, Purpose, Shipment, Step, Way,
};
use crate::identity::{Contacts, Reach};
use crate::store::Tx;
use crate::transport::{CallError, Candidate, Target};

/// As fast as this is a slow uplink at least: 32 KiB a second, as calls are timed.
const BYTES_PER_MILLISECOND: usize = 32;
/// Why a parcel is given up after its lifetime.
const TOO_OLD: &str = "no mailbox took it for 30 days";

/// What was tried for as long is not tried again for somebody with whom we do not share the group any
/// more: what opened their mailboxes to its members ends soon.
const FORMER_LIFETIME: Duration = Duration::from_secs(3600);
/// Why it is given up then.
const FORMER: &str = "they are no member of the group any more";

/// Parcels that are read at once when all to one recipient are given up.
const GIVEN_UP_AT_ONCE: usize = 256;

impl Node {
    pub(super) fn load_lanes(&mut self, tx: &Tx) -> Result<(), NodeError> {
        let recipients = Outbox::recipients(tx)?;
        Outbox::drop_old_pauses(tx, &recipients)?;
        for recipient in recipients {
            self.lanes.insert(recipient, Lane::resumed(Outbox::pauses(tx, &recipient)?));
            self.awake.insert(recipient);
        }
        Ok(())
    }

    /// Why a parcel that no mailbox took is not worth another attempt, if it is not.
    fn is_moot(
        &mut self,
        tx: &Tx,
        parcel: &Parcel,
        recipient: &IdentityKey,
        tried: Duration,
        now: Now,
    ) -> Result<Option<&'static str>, NodeError> {
        if parcel.is_too_old(now) {
            return Ok(Some(TOO_OLD));
        }
        // Nothing was tried while we were off.
        let is_new = now.wall.since(parcel.made).min(tried) <= FORMER_LIFETIME;
        if is_new || Invites::find(tx, &parcel.group, recipient)?.is_some() {
            return Ok(None);
        }
        let both_are_in = self.is_in_with_us(tx, &parcel.group, recipient)?;
        Ok((!both_are_in).then_some(FORMER))
    }

    /// Puts a blob of a group on its way.
    pub(super) fn post(
        &mut self,
        tx: &Tx,
        group: GroupId,
        blob: Vec<u8>,
        recipients: &[IdentityKey],
        purpose: &Purpose,
        now: Now,
    ) -> Result<u64, NodeError> {
        let number = Outbox::add(tx, group, blob, recipients, purpose, now)?;
        for recipient in recipients {
            self.lanes.entry(*recipient).or_default();
            self.awake.insert(*recipient);
        }
        Ok(number)
    }

    /// Lets a lane do what it can do now.
    pub(super) fn move_lane(
        &mut self,
        tx: &Tx,
        recipient: &IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(mut lane) = self.lanes.remove(recipient) else { return Ok(()) };
        let result = self.move_lane_out(tx, recipient, &mut lane, now);
        let pauses = lane.changed_pauses();
        self.lanes.insert(*recipient, lane);
        result?;
        Ok(pauses.map_or(Ok(()), |pauses| Outbox::keep_pauses(tx, recipient, pauses))?)
    }

    fn move_lane_out(
        &mut self,
        tx: &Tx,
        recipient: &IdentityKey,
        lane: &mut Lane,
        now: Now,
    ) -> Result<(), NodeError> {
        if lane.is_silent(now.instant) {
            self.copy_to_relay(tx, recipient, lane, now)?;
        }
        let parcels = next_parcels(tx, recipient, lane, 1)?;
        let Some(first) = parcels.first() else {
            lane.rest();
            return Ok(());
        };
        if first.is_too_old(now) && lane.is_quiet() {
            lane.gone(first.blob);
            self.awake.insert(*recipient);
            return self.give_up(tx, first, &[*recipient], TOO_OLD, now);
        }
        let reach = Reach::of(tx, recipient)?;
        let relays = usable(&reach, lane, now.instant);
        let keys = keys(&relays);
        let means = self.means(tx, recipient, &reach, &keys)?;
        if !means.session && means.dialable && lane.probe_is_due(&mut self.entropy, now.instant) {
            self.transport.probe_peer(*recipient, &reach.candidates(), now);
        }
        match lane.step(means, now.instant) {
            Step::Send(path, room) => {
                for parcel in next_parcels(tx, recipient, lane, room)? {
                    if let Some(commit) = Outbox::waits_for(tx, &parcel)? {
                        // What comes after it need not wait with it.
                        lane.gone(parcel.blob);
                        self.held.entry(commit).or_default().insert((*recipient, parcel.blob));
                        self.awake.insert(*recipient);
                        continue;
                    }
                    self.send_parcel(tx, &parcel, recipient, path, &relays, &reach, lane, now)?;
                }
            }
            Step::NoPath => {
                let tried = lane.in_vain_for(now.instant);
                if let Some(why) = self.is_moot(tx, first, recipient, tried, now)? {
                    lane.gone(first.blob);
                    self.awake.insert(*recipient);
                    return self.give_up(tx, first, &[*recipient], why, now);
                }
                let at_least = lane.told_to_wait(now.instant);
                lane.wait(at_least, &mut self.entropy, now.instant);
                self.look_up(tx, recipient, now)?;
            }
            Step::Wait(_) => {}
        }
        Ok(())
    }

    /// What an open session does not answer goes to a relay of the recipient as well.
    fn copy_to_relay(
        &mut self,
        tx: &Tx,
        recipient: &IdentityKey,
        lane: &mut Lane,
        now: Now,
    ) -> Result<(), NodeError> {
        let reach = Reach::of(tx, recipient)?;
        let relays = usable(&reach, lane, now.instant);
        let keys = keys(&relays);
        let means = self.means(tx, recipient, &reach, &keys)?;
        for (blob, path) in lane.silent(means, now.instant) {
            match Outbox::parcel(tx, blob)? {
                Some(parcel) if Outbox::waits(tx, recipient, blob)? => {
                    self.send_parcel(tx, &parcel, recipient, path, &relays, &reach, lane, now)?;
                }
                Some(_) | None => lane.gone(blob),
            }
        }
        Ok(())
    }

    /// What leads to a recipient, as far as policy allows.
    fn means<'r>(
        &self,
        tx: &Tx,
        recipient: &IdentityKey,
        reach: &Reach,
        relays: &'r [IdentityKey],
    ) -> Result<Means<'r>, NodeError> {
        let policy = self.path_policy(tx, recipient)?;
        let direct = policy != PathPolicy::Relay;
        Ok(Means {
            session: direct && self.transport.has_session(recipient),
            dialable: direct && !reach.addresses.is_empty(),
            relays: if policy == PathPolicy::Direct { &[] } else { relays },
            relay_first: reach.prefers_async || policy == PathPolicy::Relay,
        })
    }

    /// Where a relay may be dialled. One that is ours, too, is where its owner, the user, says.
    pub(super) fn relay_candidates(&self, relay: &RelayRecord) -> Vec<Candidate> {
        let ours = self.mailboxes.contains_key(&relay.identity_key);
        let candidate = if ours { Candidate::user } else { Candidate::told };
        relay.endpoints.iter().cloned().map(candidate).collect()
    }

    pub(super) fn path_policy(&self, tx: &Tx, peer: &IdentityKey) -> Result<PathPolicy, NodeError> {
        let of_contact = Contacts::find(tx, peer)?.and_then(|contact| contact.path);
        Ok(of_contact.unwrap_or(self.config.path))
    }

    /// Sends a parcel over a session of its recipient, or adds it to what goes to a relay of theirs.
    #[expect(clippy::too_many_arguments, reason = "one parcel, one recipient, one path")]
    fn send_parcel(
        &mut self,
        tx: &Tx,
        parcel: &Parcel,
        recipient: &IdentityKey,
        path: Path,
        relays: &[RelayRecord],
        reach: &Reach,
        lane: &mut Lane,
        now: Now,
    ) -> Result<(), NodeError> {
        let has_failed = lane.has_failed(parcel.blob);
        let token = match self.token_for_long(tx, parcel, recipient, reach, has_failed)? {
            Some(token) => Some(token),
            // One that was refused is not the last word: another group's may open the mailbox.
            None if has_failed => reach.token(),
            None => reach.token_in(&parcel.group),
        };
        let admission = token.map_or(Admission::Session, Admission::Token);
        let addressed = Recipient { identity_key: *recipient, admission };
        match path {
            Path::Direct => {
                let people = vec![addressed];
                let target = Target::Peer(*recipient);
                match self.store(tx, target, None, &[], parcel.blob, people, now)? {
                    Some(bytes) => lane.sent(parcel.blob, path, time_for(bytes), now.instant),
                    None => lane.gone(parcel.blob),
                }
            }
            Path::Relay(key) => {
                let Some(relay) = relays.iter().find(|relay| relay.identity_key == key) else {
                    return Ok(());
                };
                let came_back = lane.has_failed(parcel.blob) || lane.has_under_way(parcel.blob);
                let company = if lane.alone {
                    Company::Alone
                } else if parcel.has_others() && came_back {
                    Company::Soon
                } else {
                    Company::Now
                };
                lane.sent(parcel.blob, path, Duration::ZERO, now.instant);
                let Parcel { blob, group, .. } = *parcel;
                // A further copy that is on its way there becomes the one that counts.
                if !lane.copy_answered(blob, key) {
                    self.shipments.add(relay, blob, group, addressed, company, now.instant);
                }
                let others = relays.iter().filter(|other| other.identity_key != key);
                for other in others.take(self.config.relay_copies.saturating_sub(1)) {
                    if lane.copied(blob, other.identity_key) {
                        self.shipments.add(other, blob, group, addressed, company, now.instant);
                    }
                }
            }
        }
        Ok(())
    }

    /// Sends what the lanes have let go: one message for each relay and blob.
    pub(super) fn send_shipments(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        while let Some(shipment) = self.shipments.pop(now.instant) {
            let candidates = self.relay_candidates(&shipment.record());
            let target = Target::Anonymous(shipment.relay, shipment.session_tag());
            let Shipment { relay, blob, recipients, .. } = shipment;
            self.store(tx, target, Some(relay), &candidates, blob, recipients, now)?;
        }
        Ok(())
    }

    /// Sends a blob; answers how many bytes it has, nothing when it is gone.
    #[expect(clippy::too_many_arguments, reason = "one blob, its recipients, and the way there")]
    fn store(
        &mut self,
        tx: &Tx,
        target: Target,
        relay: Option<IdentityKey>,
        candidates: &[Candidate],
        blob: u64,
        recipients: Vec<Recipient>,
        now: Now,
    ) -> Result<Option<usize>, NodeError> {
        let people: Vec<_> = recipients.iter().map(|recipient| recipient.identity_key).collect();
        let Some(bytes) = Outbox::bytes(tx, blob)? else {
            for recipient in &people {
                self.lanes.entry(*recipient).or_default().gone(blob);
            }
            Outbox::finish(tx, blob, &people, false)?;
            return Ok(None);
        };
        let length = bytes.len();
        let message = Message::StoreMessage(StoreMessage {
            blob: Bin::new(bytes).unwrap_or_default(),
            recipients: List::truncated(recipients),
        });
        let call = Call::Store { relay, recipients: people, blob };
        self.call(target, candidates, message, call, now);
        Ok(Some(length))
    }

    /// The answer to a store, for each of its recipients.
    pub(super) fn store_answered(
        &mut self,
        tx: &Tx,
        blob: u64,
        relay: Option<IdentityKey>,
        recipients: Vec<IdentityKey>,
        result: Result<Message, CallError>,
        now: Now,
    ) -> Result<(), NodeError> {
        let way = if relay.is_some() { Way::Relay } else { Way::Direct };
        let mut copies = BTreeSet::new();
        if let Some(relay) = relay {
            for recipient in &recipients {
                let lane = self.lanes.get_mut(recipient);
                if lane.is_some_and(|lane| lane.copy_answered(blob, relay)) {
                    copies.insert(*recipient);
                }
            }
        }
        let parcel = Outbox::parcel(tx, blob)?;
        let alone = recipients.len() > 1 && is_refused_as_a_whole(&result);
        let outcomes = outcomes(result, recipients.len());
        let mut stored = Vec::new();
        let mut given_up: BTreeMap<&'static str, Vec<IdentityKey>> = BTreeMap::new();
        for (recipient, outcome) in recipients.into_iter().zip(outcomes) {
            self.awake.insert(recipient);
            let waits = Outbox::waits(tx, &recipient, blob)?;
            let Some(parcel) = parcel.as_ref().filter(|_| waits) else {
                // It is settled: another mailbox had it first, or it was given up.
                if let Some(lane) = self.lanes.get_mut(&recipient) {
                    match outcome {
                        Outcome::Stored => lane.stored(blob, way, now.instant),
                        Outcome::TryAgain(..) | Outcome::Hopeless(_) => lane.gone(blob),
                    }
                }
                continue;
            };
            match outcome {
                Outcome::Stored => {
                    self.lanes.entry(recipient).or_default().stored(blob, way, now.instant);
                    stored.push(recipient);
                }
                // The first copy decides; that this relay wants to be left alone holds all the same.
                Outcome::TryAgain(at_least, _) if copies.contains(&recipient) => {
                    let lane = self.lanes.entry(recipient).or_default();
                    if let Some(relay) = relay.filter(|_| !at_least.is_zero()) {
                        lane.relay_waits(relay, at_least, now.instant);
                    }
                }
                Outcome::Hopeless(_) if copies.contains(&recipient) => {}
                Outcome::TryAgain(at_least, trouble) => {
                    let tried = self.lanes.entry(recipient).or_default().in_vain_for(now.instant);
                    let moot = self.is_moot(tx, parcel, &recipient, tried, now)?;
                    let reach = Reach::of(tx, &recipient)?;
                    let lane = self.lanes.entry(recipient).or_default();
                    let relays = keys(&usable(&reach, lane, now.instant));
                    let means = self.means(tx, &recipient, &reach, &relays)?;
                    let lane = self.lanes.entry(recipient).or_default();
                    if let Some(relay) = relay.filter(|_| !at_least.is_zero()) {
                        lane.relay_waits(relay, at_least, now.instant);
                    }
                    lane.note_trouble(way, trouble);
                    lane.failed(blob, way, means, at_least, &mut self.entropy, now.instant);
                    lane.alone |= alone;
                    if let Some(why) = moot {
                        lane.gone(blob);
                        given_up.entry(why).or_default().push(recipient);
                    }
                }
                Outcome::Hopeless(why) => {
                    let lane = self.lanes.entry(recipient).or_default();
                    if !lane.is_elsewhere(blob, way) {
                        lane.stored(blob, way, now.instant);
                        given_up.entry(why).or_default().push(recipient);
                    }
                }
            }
        }
        let Some(parcel) = parcel else { return Ok(()) };
        let parcel = Outbox::finish(tx, blob, &stored, true)?.unwrap_or(parcel);
        self.parcel_stored(tx, &parcel, &stored, now)?;
        for (why, recipients) in given_up {
            self.give_up(tx, &parcel, &recipients, why, now)?;
        }
        Ok(())
    }

    fn parcel_stored(
        &mut self,
        tx: &Tx,
        parcel: &Parcel,
        recipients: &[IdentityKey],
        now: Now,
    ) -> Result<(), NodeError> {
        if recipients.is_empty() {
            return Ok(());
        }
        match &parcel.purpose {
            Purpose::Message(id) => {
                let own = self.own.key();
                if let Some(mut row) = History::find(tx, id, &own)? {
                    let moved = if row.receipts {
                        row.advance(recipients, MessageState::Sent)
                    } else {
                        row.finish(parcel)
                    };
                    History::update(tx, &row)?;
                    if moved {
                        self.tell_state(tx, &row, now)?;
                    }
                }
            }
            // Welcomes may have waited for this commit.
            Purpose::Commit(_) => self.release_held(parcel.blob),
            Purpose::Welcome(..) | Purpose::Receipt | Purpose::Note => {}
        }
        Ok(())
    }

    /// Lets go the Welcomes that waited for a commit.
    fn release_held(&mut self, commit: u64) {
        for (recipient, welcome) in self.held.remove(&commit).unwrap_or_default() {
            self.lanes.entry(recipient).or_default().again(welcome);
            self.awake.insert(recipient);
        }
    }

    /// Ends everything that is on its way to somebody.
    pub(super) fn give_up_all(
        &mut self,
        tx: &Tx,
        recipient: &IdentityKey,
        why: &str,
        now: Now,
    ) -> Result<(), NodeError> {
        loop {
            let parcels = Outbox::waiting(tx, recipient, 0, GIVEN_UP_AT_ONCE)?;
            if parcels.is_empty() {
                break;
            }
            for parcel in parcels {
                self.give_up(tx, &parcel, &[*recipient], why, now)?;
            }
        }
        self.lanes.remove(recipient);
        Ok(Outbox::keep_pauses(tx, recipient, Pauses::default())?)
    }

    fn give_up(
        &mut self,
        tx: &Tx,
        parcel: &Parcel,
        recipients: &[IdentityKey],
        why: &str,
        now: Now,
    ) -> Result<(), NodeError> {
        let parcel =
            &Outbox::finish(tx, parcel.blob, recipients, false)?.unwrap_or_else(|| parcel.clone());
        self.release_held(parcel.blob);
        if let Purpose::Welcome(group, _) = &parcel.purpose {
            return self.welcome_given_up(tx, group, recipients, why, now);
        }
        let Purpose::Message(id) = &parcel.purpose else { return Ok(()) };
        let own = self.own.key();
        let Some(mut row) = History::find(tx, id, &own)? else { return Ok(()) };
        for (key, state) in &mut row.recipients {
            if *state == MessageState::Queued && recipients.contains(key) {
                *state = MessageState::Failed;
            }
        }
        if row.receipts {
            if row.recipients.iter().all(|(_, state)| *state == MessageState::Failed) {
                row.state = MessageState::Failed;
            } else {
                // The others may have had it long ago.
                row.advance(&[], MessageState::Queued);
            }
        } else {
            row.finish(parcel);
        }
        if row.state == MessageState::Failed {
            row.error = Some(why.to_owned());
        }
        History::update(tx, &row)?;
        self.tell(
            tx,
            EventBody::State {
                message_id: row.message_id.to_string(),
                conversation: row.conversation.text(),
                state: row.state,
                error: row.error,
            },
            now,
        )
    }
}

/// The relays of a recipient that may be asked now, in order of preference.
fn usable(reach: &Reach, lane: &Lane, now: Instant) -> Vec<RelayRecord> {
    let relays = reach.relays.iter();
    relays.filter(|relay| !lane.must_wait(&relay.identity_key, now)).cloned().collect()
}

fn keys(relays: &[RelayRecord]) -> Vec<IdentityKey> {
    relays.iter().map(|relay| relay.identity_key).collect()
}

/// The parcels that a lane sends next, failed ones first.
fn next_parcels(
    tx: &Tx,
    recipient: &IdentityKey,
    lane: &mut Lane,
    room: usize,
) -> Result<Vec<Parcel>, NodeError> {
    let mut parcels = Vec::new();
    for blob in lane.failed_first(room) {
        match Outbox::parcel(tx, blob)? {
            Some(parcel) if Outbox::waits(tx, recipient, blob)? => parcels.push(parcel),
            Some(_) | None => lane.gone(blob),
        }
    }
    if parcels.is_empty() {
        parcels = Outbox::waiting(tx, recipient, lane.next_new(), room)?;
    }
    Ok(parcels)
}

/// Time more that an answer may take for so many bytes: a large blob on a slow uplink is not a silent
/// peer, and would only be slower if it went out twice.
fn time_for(bytes: usize) -> Duration {
    Duration::from_millis(u64::try_from(bytes / BYTES_PER_MILLISECOND).unwrap_or(u64::MAX))
}
