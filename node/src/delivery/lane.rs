//! A lane: what is under way to one recipient, over which path, and what is tried next. In memory
//! only, but for the number of failures; after a restart it is made anew from the outbox.
//!
//! ```text
//!            session up                          a mailbox has it
//!   idle ───────────────→ direct ──────────────→ (row gone)
//!     │ 500 ms without one                │ failed
//!     └───────────────→ relay 1, 2, ... ──┴─ all failed ──→ wait (backoff) ──→ idle
//! ```
//! Parcels leave in order, several under way at a time. A parcel that failed goes first again.
//!
//! A session that is open need not lead anywhere: a machine may be asleep, or a network gone. What
//! was sent over it and is not answered for a second goes to a relay as well. Whichever mailbox has
//! it first counts; the recipient takes the second copy for what it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::entropy::Entropy;
use sremp_common::id::IdentityKey;
use sremp_common::time::Instant;

use super::backoff::Backoff;
use super::trouble::Trouble;

/// Parcels of one recipient that may be under way unanswered.
pub const WINDOW: usize = 128;
/// Time that a direct path is waited for before the relay path starts.
const RELAY_AFTER: Duration = Duration::from_millis(500);

/// Time that a session may be silent before what was sent over it goes to a relay as well: with the
/// time that a relay takes, a message is in a durable mailbox within two seconds.
const SILENT_AFTER: Duration = Duration::from_secs(1);

/// Over what a parcel was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// To the mailbox in the recipient's own node.
    Direct,
    /// To this relay of the recipient. By its name, not by a place in a list: the list shrinks while a
    /// relay has asked to be left alone, and grows again.
    Relay(IdentityKey),
}

/// From where an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The recipient's own node.
    Direct,
    /// A relay of theirs.
    Relay,
}

/// What a lane may use at the moment; looked up by the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Means<'r> {
    /// A session with the recipient's node is open, and may be used.
    pub session: bool,
    /// Its node may be dialled.
    pub dialable: bool,
    /// Those of its relays that may be used, in order of preference.
    pub relays: &'r [IdentityKey],
    /// The relay path starts at once.
    pub relay_first: bool,
}

/// Failed attempts in a row, which outlive a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pauses {
    /// Rounds through all paths in which nothing could be stored.
    sending: Backoff,
    /// Dials of the recipient's own node since it last took something.
    dialling: Backoff,
}

/// What a lane wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send up to so many parcels over this path.
    Send(Path, usize),
    /// Nothing before this moment, unless something happens.
    Wait(Option<Instant>),
    /// Nothing leads to the recipient: find a way, and wait with [`Lane::wait`].
    NoPath,
}

/// Where a parcel is under way.
#[derive(Clone, Debug, Default)]
struct UnderWay {
    /// Over the session, since when; until when silence is no sign.
    direct: Option<Instant>,
    /// To this relay.
    relay: Option<IdentityKey>,
    /// Relays that got a copy while the session had it: as many as somebody has.
    copied: BTreeSet<IdentityKey>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Lane {
    /// Blobs from this number on have not been sent in this run.
    next: u64,
    /// To be sent again, before anything new.
    again: BTreeSet<u64>,
    under_way: BTreeMap<u64, UnderWay>,
    /// The last answer that came over a session: while they come, it is slow, not silent.
    heard_at: Option<Instant>,
    /// Not before this moment has a session been silent for too long.
    silent_at: Option<Instant>,
    relay_at: Option<Instant>,
    /// The relay in use.
    relay: Option<IdentityKey>,
    /// Relays that failed since something last worked, or all had failed.
    failed_relays: BTreeSet<IdentityKey>,
    wait_until: Option<Instant>,
    /// When an attempt failed for the first time since something last worked, in this run.
    in_vain_since: Option<Instant>,
    pauses: Pauses,
    /// As they were kept last.
    kept_pauses: Pauses,
    probe_at: Option<Instant>,
    /// The recipient's node refused the last parcel: use its relays until something changes.
    avoid_direct: bool,
    /// Relays that refused, and when they are worth asking again: as many as somebody has, and some
    /// of before.
    told_to_wait: BTreeMap<IdentityKey, Instant>,
    /// Further copies that were left at other relays, unanswered: by blob and relay.
    copies: BTreeSet<(u64, IdentityKey)>,
    /// What the last step waits for.
    wake_at: Option<Instant>,
    /// A relay took the last parcel: what contacts are shown as their path.
    pub relayed: bool,
    /// What went wrong last with the recipient's own node.
    direct_trouble: Option<Trouble>,
    /// What went wrong last with its relays.
    relay_trouble: Option<Trouble>,
    /// A store that was shared with others was refused as a whole: the next ones go alone, until a
    /// mailbox has taken one.
    pub alone: bool,
}

impl Lane {
    /// A lane after a restart: tries at once, and pauses as long as before when that is in vain.
    #[must_use]
    pub fn resumed(pauses: Pauses) -> Self {
        Self { pauses, kept_pauses: pauses, ..Self::default() }
    }

    /// The pauses, if they have changed since they were last kept.
    pub fn changed_pauses(&mut self) -> Option<Pauses> {
        let changed = self.pauses != self.kept_pauses;
        self.kept_pauses = self.pauses;
        changed.then_some(self.pauses)
    }

    /// What to do now.
    pub fn step(&mut self, means: Means<'_>, now: Instant) -> Step {
        let step = self.next_step(means, now);
        self.wake_at = if let Step::Wait(until) = step { until } else { None };
        step
    }

    fn next_step(&mut self, means: Means<'_>, now: Instant) -> Step {
        let room = WINDOW.saturating_sub(self.under_way.len());
        if room == 0 {
            return Step::Wait(None);
        }
        if let Some(until) = self.wait_until {
            if now < until {
                return Step::Wait(Some(until));
            }
            self.wait_until = None;
            self.relay_at = None;
            self.avoid_direct = false;
        }
        if means.session && (!self.avoid_direct || means.relays.is_empty()) {
            self.relay_at = None;
            return Step::Send(Path::Direct, room);
        }
        let Some(relay) = self.relay_to_use(means, &BTreeSet::new()) else { return Step::NoPath };
        let at_once = means.relay_first || !means.dialable || self.relayed;
        let relay_at = *self.relay_at.get_or_insert(if at_once { now } else { now + RELAY_AFTER });
        if now < relay_at {
            return Step::Wait(Some(relay_at));
        }
        self.relay = Some(relay);
        Step::Send(Path::Relay(relay), room)
    }

    /// The relay that is in use, else the first that has not failed, else the first; none of `but`.
    fn relay_to_use(&self, means: Means<'_>, but: &BTreeSet<IdentityKey>) -> Option<IdentityKey> {
        let usable = || means.relays.iter().filter(|relay| !but.contains(relay));
        let in_use = usable().find(|relay| self.relay.as_ref() == Some(*relay));
        let good = || usable().find(|relay| !self.failed_relays.contains(relay));
        in_use.or_else(good).or_else(|| usable().next()).copied()
    }

    /// Parcels that failed, at most `room` of them, lowest number first.
    #[must_use]
    pub fn failed_first(&self, room: usize) -> Vec<u64> {
        self.again.iter().take(room).copied().collect()
    }

    /// Whether a parcel came back from another path.
    #[must_use]
    pub fn has_failed(&self, blob: u64) -> bool {
        self.again.contains(&blob)
    }

    /// Whether a parcel is under way somewhere.
    #[must_use]
    pub fn has_under_way(&self, blob: u64) -> bool {
        self.under_way.contains_key(&blob)
    }

    /// New parcels have at least this number.
    #[must_use]
    pub const fn next_new(&self) -> u64 {
        self.next
    }

    /// A parcel left; over a session its answer may take `at_least`, for its size.
    pub fn sent(&mut self, blob: u64, path: Path, at_least: Duration, now: Instant) {
        self.again.remove(&blob);
        self.next = self.next.max(blob.saturating_add(1));
        let under_way = self.under_way.entry(blob).or_default();
        match path {
            Path::Direct => {
                let since = now + at_least;
                under_way.direct = Some(since);
                let silent_at = since + SILENT_AFTER;
                self.silent_at = Some(self.silent_at.map_or(silent_at, |at| at.min(silent_at)));
            }
            Path::Relay(relay) => {
                if under_way.direct.is_some() {
                    under_way.copied.insert(relay);
                }
                under_way.relay = Some(relay);
            }
        }
    }

    /// Whether a session may have been silent for too long: see [`Self::silent`].
    #[must_use]
    pub fn is_silent(&self, now: Instant) -> bool {
        self.silent_at.is_some_and(|at| at <= now)
    }

    /// What was sent over a session that has been silent since, and which relay gets it, too.
    pub fn silent(&mut self, means: Means<'_>, now: Instant) -> Vec<(u64, Path)> {
        if !self.is_silent(now) {
            return Vec::new();
        }
        self.silent_at = None;
        self.relay = self.relay_to_use(means, &BTreeSet::new());
        let mut silent = Vec::new();
        for (blob, under_way) in &self.under_way {
            let Some(since) = under_way.direct else { continue };
            if under_way.relay.is_some() {
                continue;
            }
            let Some(relay) = self.relay_to_use(means, &under_way.copied) else { continue };
            let silent_at = self.heard_at.map_or(since, |at| at.max(since)) + SILENT_AFTER;
            if silent_at <= now {
                silent.push((*blob, Path::Relay(relay)));
            } else {
                self.silent_at = Some(self.silent_at.map_or(silent_at, |at| at.min(silent_at)));
            }
        }
        silent
    }

    /// A further copy of a parcel is to leave to this relay: its failure does not bring the parcel
    /// back. False when one is on its way there already.
    pub fn copied(&mut self, blob: u64, relay: IdentityKey) -> bool {
        self.copies.insert((blob, relay))
    }

    /// This relay answered, or what it has is to count: whether what it had was a further copy.
    pub fn copy_answered(&mut self, blob: u64, relay: IdentityKey) -> bool {
        self.copies.remove(&(blob, relay))
    }

    /// A parcel turned out to be gone.
    pub fn gone(&mut self, blob: u64) {
        self.again.remove(&blob);
        self.under_way.remove(&blob);
        self.next = self.next.max(blob.saturating_add(1));
        self.rest_if_quiet();
    }

    /// A parcel that was passed over may leave now.
    pub fn again(&mut self, blob: u64) {
        self.again.insert(blob);
    }

    /// Nothing waits: nothing to wake up for.
    pub const fn rest(&mut self) {
        self.wake_at = None;
    }

    /// A mailbox has the parcel.
    pub fn stored(&mut self, blob: u64, way: Way, now: Instant) {
        self.heard(way, now);
        self.again.remove(&blob);
        if self.under_way.remove(&blob).is_some() {
            self.relayed = way == Way::Relay;
        }
        self.rest_if_quiet();
        *self.trouble_of(way) = None;
        if way == Way::Direct {
            self.probe_at = None;
            self.pauses.dialling.reset();
        }
        self.pauses.sending.reset();
        self.failed_relays.clear();
        self.wait_until = None;
        self.in_vain_since = None;
        self.alone = false;
    }

    /// A parcel came back. Moves on to the next path, unless another one still has it; when all have
    /// failed, waits, at least `at_least` (zero when it was not refused, but the connection failed).
    pub fn failed(
        &mut self,
        blob: u64,
        way: Way,
        means: Means<'_>,
        at_least: Duration,
        entropy: &mut Entropy,
        now: Instant,
    ) {
        if !at_least.is_zero() {
            self.heard(way, now);
        }
        let Some(under_way) = self.under_way.get_mut(&blob) else { return };
        let relay = under_way.relay;
        match way {
            Way::Direct if under_way.direct.is_some() => under_way.direct = None,
            Way::Relay if relay.is_some() => under_way.relay = None,
            Way::Direct | Way::Relay => return,
        }
        let is_last = under_way.direct.is_none() && under_way.relay.is_none();
        if is_last {
            self.under_way.remove(&blob);
            self.again.insert(blob);
        }
        match way {
            Way::Direct => {
                self.relay_at = Some(now);
                self.avoid_direct = !at_least.is_zero();
                if self.avoid_direct && means.relays.is_empty() {
                    self.wait(at_least, entropy, now);
                }
            }
            // Several parcels that were under way over one relay fail together: count it once.
            Way::Relay if relay == self.relay => {
                self.relay = None;
                self.failed_relays.extend(relay);
                let has_failed = |relay| self.failed_relays.contains(relay);
                if means.relays.iter().all(has_failed) && is_last {
                    self.wait(at_least, entropy, now);
                }
            }
            Way::Relay => {}
        }
        // The session still has it, and is still silent: to the next relay.
        if !is_last && way == Way::Relay {
            self.silent_at = Some(now);
        }
        self.rest_if_quiet();
    }

    /// A parcel that one way refuses for good: whether another one still has it.
    pub fn is_elsewhere(&mut self, blob: u64, way: Way) -> bool {
        let Some(under_way) = self.under_way.get_mut(&blob) else { return false };
        match way {
            Way::Direct => {
                under_way.direct = None;
                under_way.relay.is_some()
            }
            Way::Relay => {
                under_way.relay = None;
                under_way.direct.is_some()
            }
        }
    }

    fn heard(&mut self, way: Way, now: Instant) {
        if way == Way::Direct {
            self.heard_at = Some(now);
        }
    }

    fn rest_if_quiet(&mut self) {
        if self.under_way.is_empty() {
            self.silent_at = None;
        }
    }

    /// A relay refused, and said when it is worth asking again.
    pub fn relay_waits(&mut self, relay: IdentityKey, wait: Duration, now: Instant) {
        self.told_to_wait.retain(|_, until| now < *until);
        self.told_to_wait.insert(relay, now + wait);
    }

    /// Whether it is too early to ask this relay.
    #[must_use]
    pub fn must_wait(&self, relay: &IdentityKey, now: Instant) -> bool {
        self.told_to_wait.get(relay).is_some_and(|until| now < *until)
    }

    /// Time until the first of the relays that refused is worth asking again.
    #[must_use]
    pub fn told_to_wait(&self, now: Instant) -> Duration {
        let first = self.told_to_wait.values().min();
        first.map_or(Duration::ZERO, |until| until.since(now))
    }

    /// An attempt has failed: for how long all have, in this run.
    pub fn in_vain_for(&mut self, now: Instant) -> Duration {
        now.since(*self.in_vain_since.get_or_insert(now))
    }

    /// Nothing leads to the recipient at the moment.
    pub fn wait(&mut self, at_least: Duration, entropy: &mut Entropy, now: Instant) {
        if self.wait_until.is_none_or(|until| until <= now) {
            let wait = self.pauses.sending.fail(entropy).max(at_least);
            self.wait_until = Some(now + wait);
        }
        self.wake_at = self.wait_until;
        self.failed_relays.clear();
        self.relayed = false;
    }

    /// Another way to the recipient became known: try at once.
    pub fn wake(&mut self) {
        self.in_sight();
        self.probe_at = None;
        self.pauses.dialling.reset();
    }

    /// What went wrong, for whoever asks why nothing has arrived yet.
    pub const fn note_trouble(&mut self, way: Way, trouble: Trouble) {
        *self.trouble_of(way) = Some(trouble);
    }

    /// What went wrong last over one way, since it last worked.
    #[must_use]
    pub const fn trouble(&self, way: Way) -> Option<Trouble> {
        match way {
            Way::Direct => self.direct_trouble,
            Way::Relay => self.relay_trouble,
        }
    }

    const fn trouble_of(&mut self, way: Way) -> &mut Option<Trouble> {
        match way {
            Way::Direct => &mut self.direct_trouble,
            Way::Relay => &mut self.relay_trouble,
        }
    }

    /// The recipient came in sight: send at once. How often its node is dialled stays as it is until
    /// that node has taken something: one that closes every session must not be dialled for ever.
    pub const fn in_sight(&mut self) {
        self.wait_until = None;
        self.pauses.sending.reset();
        self.avoid_direct = false;
    }

    /// Whether it is time to dial the recipient's own node; answers yes once for each wait.
    pub fn probe_is_due(&mut self, entropy: &mut Entropy, now: Instant) -> bool {
        if self.probe_at.is_some_and(|at| now < at) {
            return false;
        }
        self.probe_at = Some(now + self.pauses.dialling.fail(entropy));
        true
    }

    /// Whether nothing is under way or marked to be sent again.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.under_way.is_empty() && self.again.is_empty()
    }

    /// When the lane wants to be looked at again.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        [self.wake_at, self.silent_at].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
