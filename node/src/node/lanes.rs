//! Parcels on their way: which path each lane may use, and what its answers mean.

use std::time::Duration;

use sremp_common::id::IdentityKey;
use sremp_common::identity::RelayRecord;
use sremp_common::time::Now;
use sremp_common::wire::{
    Admission, Bin, ErrorCode, List, Message, Recipient, StoreMessage, StoreResult,
};

use super::{Call, Node, NodeError};
use crate::api::{EventBody, MessageState, PathPolicy};
use crate::conversations::History;
use crate::delivery::outbox::PARCEL_LIFETIME;
use crate::delivery::{Lane, Means, Outbox, Parcel, Path, Purpose, Step};
use crate::identity::{Contacts, Reach};
use crate::store::Tx;
use crate::transport::{CallError, Candidate, Target};

/// Longest wait that a keeper of mailboxes can make us keep.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// Parcels that are read at once when all to one recipient are given up.
const GIVEN_UP_AT_ONCE: usize = 256;

impl Node {
    pub(super) fn load_lanes(&mut self, tx: &Tx) -> Result<(), NodeError> {
        for recipient in Outbox::recipients(tx)? {
            self.lanes.insert(recipient, Lane::default());
            self.awake.insert(recipient);
        }
        Ok(())
    }

    /// Puts a blob on its way.
    pub(super) fn post(
        &mut self,
        tx: &Tx,
        blob: Vec<u8>,
        recipients: &[IdentityKey],
        purpose: &Purpose,
        now: Now,
    ) -> Result<u64, NodeError> {
        let number = Outbox::add(tx, blob, recipients, purpose, now)?;
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
        self.lanes.insert(*recipient, lane);
        result
    }

    fn move_lane_out(
        &mut self,
        tx: &Tx,
        recipient: &IdentityKey,
        lane: &mut Lane,
        now: Now,
    ) -> Result<(), NodeError> {
        let parcels = next_parcels(tx, recipient, lane, 1)?;
        let Some(first) = parcels.first() else {
            lane.rest();
            return Ok(());
        };
        if now.wall.since(first.made) > PARCEL_LIFETIME && lane.is_quiet() {
            lane.gone(first.blob);
            self.awake.insert(*recipient);
            return self.give_up(tx, first, "no mailbox took it for 30 days", now);
        }
        let reach = Reach::of(tx, recipient)?;
        let means = self.means(tx, recipient, &reach)?;
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
                    self.send_parcel(tx, &parcel, path, &reach, lane, now)?;
                }
            }
            Step::NoPath => {
                lane.wait(Duration::ZERO, &mut self.entropy, now.instant);
                self.look_up(tx, recipient, now)?;
            }
            Step::Wait(_) => {}
        }
        Ok(())
    }

    /// What leads to a recipient, as far as policy allows.
    fn means(&self, tx: &Tx, recipient: &IdentityKey, reach: &Reach) -> Result<Means, NodeError> {
        let policy = self.path_policy(tx, recipient)?;
        let direct = policy != PathPolicy::Relay;
        Ok(Means {
            session: direct && self.transport.has_session(recipient),
            dialable: direct && !reach.addresses.is_empty(),
            relays: if policy == PathPolicy::Direct { 0 } else { reach.relays.len() },
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

    fn send_parcel(
        &mut self,
        tx: &Tx,
        parcel: &Parcel,
        path: Path,
        reach: &Reach,
        lane: &mut Lane,
        now: Now,
    ) -> Result<(), NodeError> {
        let Some(bytes) = Outbox::bytes(tx, parcel.blob)? else {
            lane.gone(parcel.blob);
            return Ok(Outbox::finish(tx, parcel, false)?);
        };
        let token = reach.token().map_or(Admission::Session, Admission::Token);
        let (target, candidates, admission) = match path {
            Path::Direct => (Target::Peer(parcel.recipient), Vec::new(), token),
            Path::Relay(place) => {
                let Some(relay) = reach.relays.get(place) else { return Ok(()) };
                let candidates = self.relay_candidates(relay);
                let conversation = conversation_tag(&parcel.recipient);
                (Target::Anonymous(relay.identity_key, conversation), candidates, token)
            }
        };
        let recipient = Recipient { identity_key: parcel.recipient, admission };
        let message = Message::StoreMessage(StoreMessage {
            blob: Bin::new(bytes).unwrap_or_default(),
            recipients: List::truncated(vec![recipient]),
        });
        lane.sent(parcel.blob, path);
        let call = Call::Store { recipient: parcel.recipient, blob: parcel.blob };
        self.call(target, &candidates, message, call, now);
        Ok(())
    }

    pub(super) fn parcel_answered(
        &mut self,
        tx: &Tx,
        recipient: IdentityKey,
        blob: u64,
        result: Result<Message, CallError>,
        now: Now,
    ) -> Result<(), NodeError> {
        let outcome = outcome(result);
        let Some(parcel) = Outbox::find(tx, &recipient, blob)? else {
            return Ok(());
        };
        match outcome {
            Outcome::Stored => {
                self.lanes.entry(recipient).or_default().stored(blob);
                Outbox::finish(tx, &parcel, true)?;
                self.parcel_stored(tx, &parcel, now)?;
            }
            Outcome::TryAgain(at_least) => {
                let expired = now.wall.since(parcel.made) > PARCEL_LIFETIME;
                let reach = Reach::of(tx, &recipient)?;
                let means = self.means(tx, &recipient, &reach)?;
                let lane = self.lanes.entry(recipient).or_default();
                lane.failed(blob, means, at_least, &mut self.entropy, now.instant);
                if expired {
                    lane.gone(blob);
                    self.give_up(tx, &parcel, "no mailbox took it for 30 days", now)?;
                }
            }
            Outcome::Hopeless(why) => {
                self.lanes.entry(recipient).or_default().stored(blob);
                self.give_up(tx, &parcel, why, now)?;
            }
        }
        self.awake.insert(recipient);
        Ok(())
    }

    fn parcel_stored(&mut self, tx: &Tx, parcel: &Parcel, now: Now) -> Result<(), NodeError> {
        match &parcel.purpose {
            Purpose::Message(id) => {
                let own = self.own.key();
                if let Some(mut row) = History::find(tx, id, &own)? {
                    let moved = row.advance(&parcel.recipient, MessageState::Sent);
                    History::update(tx, &row)?;
                    if moved {
                        self.tell_state(tx, &row, now)?;
                    }
                }
            }
            // Welcomes may have waited for this commit.
            Purpose::Commit(_) => self.release_held(parcel.blob),
            Purpose::Welcome(..) | Purpose::Receipt => {}
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
                self.give_up(tx, &parcel, why, now)?;
            }
        }
        self.lanes.remove(recipient);
        Ok(())
    }

    fn give_up(&mut self, tx: &Tx, parcel: &Parcel, why: &str, now: Now) -> Result<(), NodeError> {
        Outbox::finish(tx, parcel, false)?;
        self.release_held(parcel.blob);
        let Purpose::Message(id) = &parcel.purpose else { return Ok(()) };
        let own = self.own.key();
        let Some(mut row) = History::find(tx, id, &own)? else { return Ok(()) };
        for (key, state) in &mut row.recipients {
            if *key == parcel.recipient && *state == MessageState::Queued {
                *state = MessageState::Failed;
            }
        }
        if row.recipients.iter().all(|(_, state)| *state == MessageState::Failed) {
            row.state = MessageState::Failed;
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

/// One anonymous session for each recipient: its keeper cannot connect two of them.
fn conversation_tag(recipient: &IdentityKey) -> u64 {
    let (head, _) = recipient.as_bytes().split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*head)
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
        match Outbox::find(tx, recipient, blob)? {
            Some(parcel) => parcels.push(parcel),
            None => lane.gone(blob),
        }
    }
    if parcels.is_empty() {
        parcels = Outbox::waiting(tx, recipient, lane.next_new(), room)?;
    }
    Ok(parcels)
}

enum Outcome {
    Stored,
    TryAgain(Duration),
    Hopeless(&'static str),
}

fn outcome(result: Result<Message, CallError>) -> Outcome {
    match result {
        Ok(Message::StoreResponse(response)) => match response.results.first() {
            Some(StoreResult { refused: None, .. }) => Outcome::Stored,
            Some(StoreResult { refused: Some(ErrorCode::TooLarge), .. }) => {
                Outcome::Hopeless("it is larger than the recipient's mailboxes take")
            }
            Some(result) => Outcome::TryAgain(refused_for(result.retry_after)),
            None => Outcome::TryAgain(Duration::ZERO),
        },
        Err(CallError::Refused(error)) => Outcome::TryAgain(refused_for(error.retry_after)),
        // Answered at once, without anything having left: trying again at once would never end.
        Err(CallError::Busy | CallError::Unsendable | CallError::Rejected) => {
            Outcome::TryAgain(refused_for(None))
        }
        Ok(_)
        | Err(
            CallError::Unreachable
            | CallError::TimedOut
            | CallError::Closed
            | CallError::Misbehaved(_),
        ) => Outcome::TryAgain(Duration::ZERO),
    }
}

/// A refusal is never answered by trying the same again at once.
fn refused_for(retry_after: Option<u32>) -> Duration {
    Duration::from_secs(retry_after.unwrap_or(1).max(1).into()).min(MAX_RETRY_AFTER)
}
