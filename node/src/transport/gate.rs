//! How often somebody may connect: a bucket of tokens for each network (N17).
//!
//! A handshake costs its caller one packet and us a tenth of a millisecond of arithmetic; the bound
//! on half-open connections says nothing about those that are begun and dropped.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use sremp_common::time::Instant;

/// Connections that one network may open at once after a pause.
const BURST: u64 = 64;
/// Time in which one more becomes possible: ten a second.
const REFILL_MS: u64 = 100;
/// Networks that are remembered. Beyond that, those whose pause is over are forgotten first.
const MAX_NETWORKS: usize = 4096;

/// The part of an address that one customer of a provider has: /24 or /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Network {
    V4(u32),
    V6(u64),
}

/// Who has connected lately.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// For each network the moment at which its bucket is full again. A missing one is full.
    full_at: BTreeMap<Network, u64>,
}

impl Gate {
    /// Takes a token, if there is one. This host itself needs none.
    pub(super) fn admits(&mut self, from: IpAddr, now: Instant) -> bool {
        if from.to_canonical().is_loopback() {
            return true;
        }
        let now_ms = now.as_millis();
        let network = network_of(from);
        if self.full_at.len() >= MAX_NETWORKS && !self.full_at.contains_key(&network) {
            self.full_at.retain(|_, full_at| *full_at > now_ms);
            if self.full_at.len() >= MAX_NETWORKS {
                return false;
            }
        }
        let full_at = self.full_at.entry(network).or_insert(now_ms);
        let taken = (*full_at).max(now_ms).saturating_add(REFILL_MS);
        if taken.saturating_sub(now_ms) > BURST.saturating_mul(REFILL_MS) {
            return false;
        }
        *full_at = taken;
        true
    }
}

pub(super) fn network_of(address: IpAddr) -> Network {
    let upper = |address: Ipv6Addr| u64::try_from(address.to_bits() >> 64).unwrap_or_default();
    match address.to_canonical() {
        IpAddr::V4(address) => Network::V4(address.to_bits() >> 8),
        IpAddr::V6(address) => Network::V6(upper(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(gate: &mut Gate, from: &str, ms: u64, tries: u64) -> u64 {
        let from = from.parse().unwrap();
        let now = Instant::from_millis(ms);
        (0..tries).map(|_| u64::from(gate.admits(from, now))).sum()
    }

    #[test]
    fn n17_a_network_may_connect_in_bursts_and_ten_times_a_second() {
        let mut gate = Gate::default();
        assert_eq!(admitted(&mut gate, "198.51.100.1", 0, 1000), BURST);
        assert_eq!(admitted(&mut gate, "198.51.100.200", 1000, 1000), 10);
        assert_eq!(admitted(&mut gate, "::ffff:198.51.100.7", 1099, 1000), 0);
        // Others are not affected, nor is the same network after a pause.
        assert_eq!(admitted(&mut gate, "198.51.101.1", 1099, 1), 1);
        assert_eq!(admitted(&mut gate, "2a00::1", 1099, 1000), BURST);
        assert_eq!(admitted(&mut gate, "2a00::ffff:1", 1099, 1000), 0);
        assert_eq!(admitted(&mut gate, "198.51.100.1", 60_000, 1000), BURST);
        assert_eq!(admitted(&mut gate, "127.0.0.1", 0, 1000), 1000);
    }

    #[test]
    fn n17_the_memory_of_networks_is_bounded() {
        let mut gate = Gate::default();
        let mut let_in = 0;
        for i in 0..20_000_u32 {
            let from = IpAddr::V4((0x0b00_0000 + (i << 8)).into());
            let_in += usize::from(gate.admits(from, Instant::from_millis(0)));
        }
        assert_eq!(let_in, MAX_NETWORKS);
        assert_eq!(gate.full_at.len(), MAX_NETWORKS);
        // A moment later the first ones are forgotten, and there is room again.
        assert_eq!(admitted(&mut gate, "203.0.113.1", 101, 1), 1);
        assert_eq!(gate.full_at.len(), 1);
    }
}
