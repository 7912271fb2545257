//! How many connections a server has: in all, and from one network. A connection beyond is closed
//! before anything is read from it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::neighbourhood::neighbourhood;

/// Counts connections, and lets them in.
#[derive(Clone, Debug)]
pub struct Gate {
    max: u32,
    max_per_network: u32,
    inside: Arc<Mutex<Inside>>,
}

#[derive(Debug, Default)]
struct Inside {
    counts: GateCounts,
    networks: BTreeMap<IpAddr, u32>,
}

/// What the gate has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GateCounts {
    /// Connections now.
    pub open: u32,
    /// Let in since the start.
    pub accepted: u64,
    /// Turned away since the start.
    pub refused: u64,
}

/// A place inside, given back when it is dropped.
#[derive(Debug)]
pub struct Slot {
    gate: Gate,
    network: IpAddr,
}

impl Gate {
    /// A gate for `max` connections at a time, and so many from one neighbourhood.
    #[must_use]
    pub fn new(max: u32, max_per_network: u32) -> Self {
        Self { max, max_per_network, inside: Arc::default() }
    }

    /// A place for a connection from `address`, if there is one.
    #[must_use]
    pub fn enter(&self, address: IpAddr) -> Option<Slot> {
        let network = neighbourhood(address);
        let mut inside = self.inside();
        let here = inside.networks.get(&network).copied().unwrap_or(0);
        if inside.counts.open >= self.max || here >= self.max_per_network {
            inside.counts.refused = inside.counts.refused.saturating_add(1);
            return None;
        }
        inside.counts.open = inside.counts.open.saturating_add(1);
        inside.counts.accepted = inside.counts.accepted.saturating_add(1);
        inside.networks.insert(network, here.saturating_add(1));
        drop(inside);
        Some(Slot { gate: self.clone(), network })
    }

    /// What it has seen so far.
    #[must_use]
    pub fn counts(&self) -> GateCounts {
        self.inside().counts
    }

    /// Counts are whole at every moment, so a panic elsewhere does not spoil them.
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut inside = self.gate.inside();
        inside.counts.open = inside.counts.open.saturating_sub(1);
        let left = inside.networks.get(&self.network).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            inside.networks.remove(&self.network);
        } else {
            inside.networks.insert(self.network, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_places_come_back() {
        let gate = Gate::new(3, 2);
        let [a, b, c] = ["192.0.2.1", "2001:db8::1", "192.0.2.3"].map(|a| a.parse().unwrap());
        let first = gate.enter(a).unwrap();
        let second = gate.enter("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        assert!(gate.enter(a).is_none());
        let third = gate.enter(b).unwrap();
        assert!(gate.enter(c).is_none());
        assert_eq!(gate.counts(), GateCounts { open: 3, accepted: 3, refused: 2 });
        drop(first);
        drop(gate.enter(c).unwrap());
        drop(gate.enter("2001:db8::ffff".parse().unwrap()).unwrap());
        drop((second, third));
        assert_eq!(gate.counts().open, 0);
        assert!(gate.inside().networks.is_empty());
    }
}
