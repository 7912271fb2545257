//! Who may connect to a server: how many in all, from one network, unfinished, how often, and who
//! not at all. A connection that is turned away is closed before anything is read from it.
//!
//! Networks whose clients have shown who they are keep a share of the unfinished connections to
//! themselves, so that they get through a flood of strangers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::Clock;
use super::bans::Bans;
use super::metrics::{Family, Page};
use crate::neighbourhood::neighbourhood;
use crate::rate::{Rate, Rates};
use crate::time::Instant;

/// Networks that are remembered as known; the one that was seen longest ago makes room.
const MAX_KNOWN: usize = 65_536;

/// How long a network stays known without a visit.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3_600);

/// Connections now.
pub const OPEN: Family = Family::gauge("sremp_connections_open", "Connections now.");
/// Connections whose other end has not shown who it is.
pub const HALF_OPEN: Family =
    Family::gauge("sremp_connections_half_open", "Connections before the end of their handshake.");
/// Connections let in.
pub const ACCEPTED: Family =
    Family::counter("sremp_connections_accepted_total", "Connections let in.");
/// Connections turned away.
pub const REFUSED: Family =
    Family::counter("sremp_connections_refused_total", "Connections turned away.").by("reason");

/// All figures of this file.
pub const FAMILIES: [Family; 4] = [OPEN, HALF_OPEN, ACCEPTED, REFUSED];

/// How many, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLimits {
    /// Connections at a time.
    pub max: u32,
    /// Connections at a time from one neighbourhood.
    pub max_per_network: u32,
    /// Connections at a time whose handshake is not done; a quarter is kept for known networks.
    pub max_half_open: u32,
    /// New connections from one neighbourhood.
    pub arrivals: Rate,
}

/// Counts connections, and lets them in. Clones are of the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    bans: Bans,
    clock: Clock,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug)]
struct Inside {
    limits: GateLimits,
    counts: GateCounts,
    next: u64,
    guests: BTreeMap<u64, Guest>,
    networks: BTreeMap<IpAddr, u32>,
    arrivals: Rates<()>,
    known: BTreeMap<IpAddr, Instant>,
    /// The same, by the time of the last visit.
    visits: BTreeSet<(Instant, IpAddr)>,
}

#[derive(Debug)]
struct Guest {
    address: SocketAddr,
    since: Instant,
    is_established: bool,
}

/// Why a connection is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// All places are taken.
    Full,
    /// All places of its network are taken.
    Network,
    /// Too many handshakes are going on.
    HalfOpen,
    /// Its network comes too often.
    Rate,
    /// Its network is banned.
    Banned,
}

/// Connections turned away since the start, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RefusedCounts {
    /// See [`TurnedAway::Full`].
    pub full: u64,
    /// See [`TurnedAway::Network`].
    pub network: u64,
    /// See [`TurnedAway::HalfOpen`].
    pub half_open: u64,
    /// See [`TurnedAway::Rate`].
    pub rate: u64,
    /// See [`TurnedAway::Banned`].
    pub banned: u64,
}

/// What the gate has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GateCounts {
    /// Connections now.
    pub open: u32,
    /// Those of them whose handshake is not done.
    pub half_open: u32,
    /// Let in since the start.
    pub accepted: u64,
    /// Turned away since the start.
    pub refused: RefusedCounts,
}

/// One connection, as its operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConnectionView {
    /// Number of the connection since the start.
    pub number: u64,
    /// Its other end.
    pub address: SocketAddr,
    /// Seconds since it came.
    pub seconds: u64,
    /// Whether its handshake is done.
    pub established: bool,
}

/// A place inside, given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    gate: Gate,
    number: u64,
}

impl Gate {
    /// A gate with these bounds, for everybody whom `bans` does not name.
    #[must_use]
    pub fn new(limits: GateLimits, bans: Bans, clock: Clock) -> Self {
        let inside = Inside {
            limits,
            counts: GateCounts::default(),
            next: 0,
            guests: BTreeMap::new(),
            networks: BTreeMap::new(),
            arrivals: Rates::default(),
            known: BTreeMap::new(),
            visits: BTreeSet::new(),
        };
        Self { bans, clock, inside: Arc::new(Mutex::new(inside)) }
    }

    /// A place for a connection from `address`, if there is one.
    ///
    /// # Errors
    /// [`TurnedAway`]: the connection should be closed without a word.
    pub fn enter(&self, address: SocketAddr) -> Result<Slot, TurnedAway> {
        let now = self.clock.now().instant;
        let is_banned = self.bans.contains(address.ip());
        let mut inside = self.inside();
        let allowed =
            if is_banned { Err(TurnedAway::Banned) } else { inside.allows(address.ip(), now) };
        match allowed {
            Ok(()) => {
                let number = inside.admit(address, now);
                drop(inside);
                Ok(Slot { gate: self.clone(), number })
            }
            Err(reason) => {
                inside.counts.refused.count(reason);
                Err(reason)
            }
        }
    }

    /// Other bounds from now on. Who is inside stays.
    pub fn set_limits(&self, limits: GateLimits) {
        let mut inside = self.inside();
        // Allowances were counted by the old measure.
        inside.arrivals = Rates::default();
        inside.limits = limits;
    }

    /// What it has seen so far.
    #[must_use]
    pub fn counts(&self) -> GateCounts {
        self.inside().counts
    }

    /// The first connections, by their number.
    #[must_use]
    pub fn connections(&self, limit: usize) -> Vec<ConnectionView> {
        let now = self.clock.now().instant;
        let inside = self.inside();
        let guests = inside.guests.iter().take(limit);
        guests
            .map(|(number, guest)| ConnectionView {
                number: *number,
                address: guest.address,
                seconds: now.since(guest.since).as_secs(),
                established: guest.is_established,
            })
            .collect()
    }

    /// Puts what it has seen on a page.
    pub fn put(&self, page: &mut Page) {
        let GateCounts { open, half_open, accepted, refused } = self.counts();
        page.put(&OPEN, open.into());
        page.put(&HALF_OPEN, half_open.into());
        page.put(&ACCEPTED, accepted);
        let reasons = [
            ("full", refused.full),
            ("network", refused.network),
            ("half_open", refused.half_open),
            ("rate", refused.rate),
            ("banned", refused.banned),
        ];
        page.put_each(&REFUSED, reasons);
    }

    /// Counts are whole at every moment, so a panic elsewhere does not spoil them.
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn allows(&mut self, address: IpAddr, now: Instant) -> Result<(), TurnedAway> {
        let network = neighbourhood(address);
        let GateLimits { max, max_per_network, max_half_open, arrivals } = self.limits;
        if self.counts.open >= max {
            return Err(TurnedAway::Full);
        }
        if self.networks.get(&network).is_some_and(|count| *count >= max_per_network) {
            return Err(TurnedAway::Network);
        }
        let is_known = self.known.get(&network).is_some_and(|seen| now.since(*seen) < KNOWN_FOR);
        let kept = if is_known { 0 } else { max_half_open.div_ceil(4) };
        // With a bound of one there is nothing to keep.
        let half_open = max_half_open.saturating_sub(kept).max(1);
        if self.counts.half_open >= half_open {
            return Err(TurnedAway::HalfOpen);
        }
        self.arrivals.take((), address, arrivals, now).map_err(|_| TurnedAway::Rate)
    }

    fn admit(&mut self, address: SocketAddr, now: Instant) -> u64 {
        let number = self.next;
        self.next = self.next.saturating_add(1);
        self.guests.insert(number, Guest { address, since: now, is_established: false });
        let here = self.networks.entry(neighbourhood(address.ip())).or_default();
        *here = here.saturating_add(1);
        self.counts.open = self.counts.open.saturating_add(1);
        self.counts.half_open = self.counts.half_open.saturating_add(1);
        self.counts.accepted = self.counts.accepted.saturating_add(1);
        number
    }

    fn establish(&mut self, number: u64, is_known: bool, now: Instant) {
        let Some(guest) = self.guests.get_mut(&number) else { return };
        let network = neighbourhood(guest.address.ip());
        if !std::mem::replace(&mut guest.is_established, true) {
            self.counts.half_open = self.counts.half_open.saturating_sub(1);
        }
        if is_known {
            self.remember(network, now);
        }
    }

    fn remember(&mut self, network: IpAddr, now: Instant) {
        if let Some(before) = self.known.insert(network, now) {
            self.visits.remove(&(before, network));
        }
        self.visits.insert((now, network));
        if self.known.len() > MAX_KNOWN
            && let Some((_, oldest)) = self.visits.pop_first()
        {
            self.known.remove(&oldest);
        }
    }

    fn leave(&mut self, number: u64) {
        let Some(guest) = self.guests.remove(&number) else { return };
        self.counts.open = self.counts.open.saturating_sub(1);
        if !guest.is_established {
            self.counts.half_open = self.counts.half_open.saturating_sub(1);
        }
        let network = neighbourhood(guest.address.ip());
        let left = self.networks.get(&network).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            self.networks.remove(&network);
        } else {
            self.networks.insert(network, left);
        }
    }
}

impl RefusedCounts {
    const fn count(&mut self, reason: TurnedAway) {
        let counter = match reason {
            TurnedAway::Full => &mut self.full,
            TurnedAway::Network => &mut self.network,
            TurnedAway::HalfOpen => &mut self.half_open,
            TurnedAway::Rate => &mut self.rate,
            TurnedAway::Banned => &mut self.banned,
        };
        *counter = counter.saturating_add(1);
    }

    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        let Self { full, network, half_open, rate, banned } = *self;
        full.saturating_add(network)
            .saturating_add(half_open)
            .saturating_add(rate)
            .saturating_add(banned)
    }
}

impl Slot {
    /// Number of the connection since the start of the server.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The handshake is done. `is_known`: the other end has shown that it belongs here, so its
    /// network keeps its way in when strangers crowd the gate.
    pub fn established(&self, is_known: bool) {
        let now = self.gate.clock.now().instant;
        self.gate.inside().establish(self.number, is_known, now);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.gate.inside().leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFTEN: Rate = Rate { count: 1_000_000, per: Duration::from_secs(60) };

    fn gate(max: u32, max_per_network: u32, max_half_open: u32, arrivals: Rate) -> Gate {
        let limits = GateLimits { max, max_per_network, max_half_open, arrivals };
        Gate::new(limits, Bans::default(), Clock::start())
    }

    fn at(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn bounds_hold_and_places_come_back() {
        let gate = gate(3, 2, 100, OFTEN);
        let [a, b, c] = ["192.0.2.1", "2001:db8::1", "192.0.2.3"].map(at);
        let first = gate.enter(a).unwrap();
        let second = gate.enter(at("::ffff:192.0.2.1")).unwrap();
        assert_eq!(gate.enter(a).unwrap_err(), TurnedAway::Network);
        let third = gate.enter(b).unwrap();
        assert_eq!(gate.enter(c).unwrap_err(), TurnedAway::Full);
        let counts = gate.counts();
        assert_eq!((counts.open, counts.half_open, counts.accepted), (3, 3, 3));
        assert_eq!((counts.refused.network, counts.refused.full), (1, 1));
        assert_eq!(counts.refused.total(), 2);
        third.established(false);
        let seen = gate.connections(2);
        assert_eq!(
            seen.iter().map(|view| view.address).collect::<Vec<_>>(),
            [a, at("::ffff:192.0.2.1")]
        );
        assert!(gate.connections(10)[2].established && gate.counts().half_open == 2);
        drop(first);
        drop(gate.enter(c).unwrap());
        drop(gate.enter(at("2001:db8::ffff")).unwrap());
        drop((second, third));
        assert_eq!((gate.counts().open, gate.counts().half_open), (0, 0));
        assert!(gate.inside().networks.is_empty() && gate.inside().guests.is_empty());
    }

    #[test]
    fn who_is_known_gets_through_a_flood_of_strangers() {
        let gate = gate(1_000, 1_000, 8, OFTEN);
        let known = at("192.0.2.1");
        let before = gate.enter(known).unwrap();
        before.established(true);
        let strangers = (1..=6).map(|n| gate.enter(at(&format!("198.51.100.{n}"))));
        let strangers: Vec<Slot> = strangers.map(Result::unwrap).collect();
        assert_eq!(gate.enter(at("198.51.100.7")).unwrap_err(), TurnedAway::HalfOpen);
        let again = gate.enter(known).unwrap();
        let last = gate.enter(known).unwrap();
        assert_eq!(gate.enter(known).unwrap_err(), TurnedAway::HalfOpen);
        again.established(true);
        // A handshake that is done makes room for one, and a stranger's end too.
        drop(strangers);
        gate.enter(at("198.51.100.7")).unwrap();
        drop(last);
    }

    #[test]
    fn a_network_that_comes_too_often_waits() {
        let gate = gate(1_000, 1_000, 1_000, Rate { count: 2, per: Duration::from_secs(3_600) });
        drop(gate.enter(at("2001:db8::1")).unwrap());
        drop(gate.enter(at("2001:db8::2")).unwrap());
        assert_eq!(gate.enter(at("2001:db8::3")).unwrap_err(), TurnedAway::Rate);
        drop(gate.enter(at("2001:db8:0:1::3")).unwrap());
        let limits = gate.inside().limits;
        gate.set_limits(GateLimits { arrivals: OFTEN, ..limits });
        drop(gate.enter(at("2001:db8::3")).unwrap());
    }

    #[test]
    fn who_is_banned_stays_outside() {
        let gate = gate(10, 10, 10, OFTEN);
        drop(gate.enter(at("192.0.2.1")).unwrap());
        gate.bans.configure(vec!["192.0.2.0/24".parse().unwrap()]);
        assert_eq!(gate.enter(at("192.0.2.1")).unwrap_err(), TurnedAway::Banned);
        assert_eq!(gate.enter(at("::ffff:192.0.2.9")).unwrap_err(), TurnedAway::Banned);
        drop(gate.enter(at("192.0.3.1")).unwrap());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let gate = gate(10, 10, 10, OFTEN);
        let mut inside = gate.inside();
        for number in 0..u32::try_from(MAX_KNOWN).unwrap() + 10 {
            let network = std::net::Ipv4Addr::from(number).into();
            inside.remember(network, Instant::from_millis(number.into()));
        }
        assert_eq!((inside.known.len(), inside.visits.len()), (MAX_KNOWN, MAX_KNOWN));
    }
}
