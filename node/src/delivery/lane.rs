//! A lane: what is under way to one recipient, over which path, and what is tried next. In memory
//! only; after a restart it is made anew from the outbox.
//!
//! ```text
//!            session up                          a mailbox has it
//!   idle ───────────────→ direct ──────────────→ (row gone)
//!     │ 500 ms without one                │ failed
//!     └───────────────→ relay 1, 2, ... ──┴─ all failed ──→ wait (backoff) ──→ idle
//! ```
//! Parcels leave in order, several under way at a time. A parcel that failed goes first again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sremp_common::entropy::Entropy;
use sremp_common::id::IdentityKey;
use sremp_common::time::Instant;

use super::backoff::Backoff;

/// Parcels of one recipient that may be under way unanswered.
pub const WINDOW: usize = 128;
/// Time that a direct path is waited for before the relay path starts.
const RELAY_AFTER: Duration = Duration::from_millis(500);

/// Over what a parcel was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// To the mailbox in the recipient's own node.
    Direct,
    /// To the relay at this place of the recipient's list.
    Relay(usize),
}

/// What a lane may use at the moment; looked up by the caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct Means {
    /// A session with the recipient's node is open, and may be used.
    pub session: bool,
    /// Its node may be dialled.
    pub dialable: bool,
    /// How many of its relays may be used.
    pub relays: usize,
    /// The relay path starts at once.
    pub relay_first: bool,
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

/// See the module.
#[derive(Debug, Default)]
pub struct Lane {
    /// Blobs from this number on have not been sent in this run.
    next: u64,
    /// To be sent again, before anything new.
    again: BTreeSet<u64>,
    under_way: BTreeMap<u64, Path>,
    relay_at: Option<Instant>,
    relay: usize,
    /// Relays that failed since something last worked.
    failed_relays: usize,
    wait_until: Option<Instant>,
    backoff: Backoff,
    probe_at: Option<Instant>,
    probes: Backoff,
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
    /// A store that was shared with others was refused as a whole: the next ones go alone, until a
    /// mailbox has taken one.
    pub alone: bool,
}

impl Lane {
    /// What to do now.
    pub fn step(&mut self, means: Means, now: Instant) -> Step {
        let step = self.next_step(means, now);
        self.wake_at = if let Step::Wait(until) = step { until } else { None };
        step
    }

    fn next_step(&mut self, means: Means, now: Instant) -> Step {
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
        if means.session && !(self.avoid_direct && means.relays > 0) {
            self.relay_at = None;
            return Step::Send(Path::Direct, room);
        }
        if means.relays == 0 {
            return Step::NoPath;
        }
        let at_once = means.relay_first || !means.dialable || self.relayed;
        let relay_at = *self.relay_at.get_or_insert(if at_once { now } else { now + RELAY_AFTER });
        if now < relay_at {
            return Step::Wait(Some(relay_at));
        }
        self.relay = self.relay.checked_rem(means.relays).unwrap_or(0);
        Step::Send(Path::Relay(self.relay), room)
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

    /// New parcels have at least this number.
    #[must_use]
    pub const fn next_new(&self) -> u64 {
        self.next
    }

    /// A parcel left.
    pub fn sent(&mut self, blob: u64, path: Path) {
        self.again.remove(&blob);
        self.next = self.next.max(blob.saturating_add(1));
        self.under_way.insert(blob, path);
    }

    /// A further copy of a parcel left to this relay: its failure does not bring the parcel back.
    pub fn copied(&mut self, blob: u64, relay: IdentityKey) {
        self.copies.insert((blob, relay));
    }

    /// This relay answered: whether what it had was a further copy.
    pub fn copy_answered(&mut self, blob: u64, relay: IdentityKey) -> bool {
        self.copies.remove(&(blob, relay))
    }

    /// A parcel turned out to be gone.
    pub fn gone(&mut self, blob: u64) {
        self.again.remove(&blob);
        self.under_way.remove(&blob);
        self.next = self.next.max(blob.saturating_add(1));
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
    pub fn stored(&mut self, blob: u64) {
        if let Some(path) = self.under_way.remove(&blob) {
            self.relayed = path != Path::Direct;
        }
        self.backoff.reset();
        self.failed_relays = 0;
        self.wait_until = None;
        self.alone = false;
    }

    /// A parcel came back. Moves on to the next path; when all have failed, waits, at least
    /// `at_least` (zero when it was not refused, but the connection failed).
    pub fn failed(
        &mut self,
        blob: u64,
        means: Means,
        at_least: Duration,
        entropy: &mut Entropy,
        now: Instant,
    ) {
        let Some(path) = self.under_way.remove(&blob) else { return };
        self.again.insert(blob);
        match path {
            Path::Direct => {
                self.relay_at = Some(now);
                self.avoid_direct = !at_least.is_zero();
                if self.avoid_direct && means.relays == 0 {
                    self.wait(at_least, entropy, now);
                }
            }
            // Several parcels that were under way over one relay fail together: count it once.
            Path::Relay(relay) if relay == self.relay => {
                self.relay = self.relay.saturating_add(1);
                self.failed_relays = self.failed_relays.saturating_add(1);
                if self.failed_relays >= means.relays {
                    self.wait(at_least, entropy, now);
                }
            }
            Path::Relay(_) => {}
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

    /// Nothing leads to the recipient at the moment.
    pub fn wait(&mut self, at_least: Duration, entropy: &mut Entropy, now: Instant) {
        if self.wait_until.is_none_or(|until| until <= now) {
            let wait = self.backoff.fail(entropy).max(at_least);
            self.wait_until = Some(now + wait);
        }
        self.wake_at = self.wait_until;
        self.failed_relays = 0;
        self.relayed = false;
    }

    /// The recipient came in sight, or another way to it became known: try at once.
    pub fn wake(&mut self) {
        self.wait_until = None;
        self.backoff.reset();
        self.probe_at = None;
        self.avoid_direct = false;
        self.probes.reset();
    }

    /// Whether it is time to dial the recipient's own node; answers yes once for each wait.
    pub fn probe_is_due(&mut self, entropy: &mut Entropy, now: Instant) -> bool {
        if self.probe_at.is_some_and(|at| now < at) {
            return false;
        }
        self.probe_at = Some(now + self.probes.fail(entropy));
        true
    }

    /// Whether nothing is under way or marked to be sent again.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.under_way.is_empty() && self.again.is_empty()
    }

    /// When the lane wants to be looked at again.
    #[must_use]
    pub const fn wake_at(&self) -> Option<Instant> {
        self.wake_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELAYS: Means = Means { session: false, dialable: true, relays: 2, relay_first: false };

    #[test]
    fn relay_path_starts_after_half_a_second() {
        let mut lane = Lane::default();
        let start = Instant::from_millis(1000);
        assert_eq!(lane.step(RELAYS, start), Step::Wait(Some(start + RELAY_AFTER)));
        assert_eq!(lane.step(RELAYS, start + RELAY_AFTER), Step::Send(Path::Relay(0), WINDOW));
    }

    #[test]
    fn a_session_goes_before_everything() {
        let mut lane = Lane::default();
        let means = Means { session: true, ..RELAYS };
        assert_eq!(lane.step(means, Instant::default()), Step::Send(Path::Direct, WINDOW));
    }

    #[test]
    fn all_relays_are_tried_before_waiting() {
        let mut entropy = Entropy::from_number(1);
        let mut lane = Lane::default();
        let now = Instant::from_millis(0);
        let means = Means { dialable: false, ..RELAYS };
        for relay in [0, 1] {
            assert_eq!(lane.step(means, now), Step::Send(Path::Relay(relay), WINDOW));
            lane.sent(7, Path::Relay(relay));
            lane.failed(7, means, Duration::ZERO, &mut entropy, now);
            assert_eq!(lane.failed_first(9), [7]);
        }
        let Step::Wait(Some(until)) = lane.step(means, now) else { panic!() };
        assert_eq!(lane.step(means, until), Step::Send(Path::Relay(0), WINDOW));
    }

    #[test]
    fn a_window_is_kept() {
        let mut lane = Lane::default();
        let means = Means { session: true, ..Means::default() };
        for blob in 0..u64::try_from(WINDOW).unwrap() {
            lane.sent(blob, Path::Direct);
        }
        assert_eq!(lane.step(means, Instant::default()), Step::Wait(None));
        lane.stored(0);
        assert_eq!(lane.step(means, Instant::default()), Step::Send(Path::Direct, 1));
    }
}
