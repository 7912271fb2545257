//! How often one network address may do something: a bound for each kind of it, on the monotonic
//! clock. What is counted is the address's neighbourhood (an IPv4 address, an IPv6 /64), because
//! whoever has one address of it has all.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::id::IdentityKey;
use crate::neighbourhood::neighbourhood;
use crate::time::Instant;

/// Neighbourhoods that are counted one by one; those beyond share one count.
const MAX_COUNTED: usize = 65_536;

/// So many in each span of time; the whole amount may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many; at least 1.
    pub count: u32,
    /// In which time.
    pub per: Duration,
}

/// Remembers, for each neighbourhood and kind `K`, when its allowance will be whole again (the
/// generic cell rate algorithm, ITU-T I.371 annex A). Times are in microseconds.
#[derive(Debug)]
pub struct Rates<K> {
    whole_again: BTreeMap<(K, IpAddr), u64>,
}

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self { whole_again: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> Rates<K> {
    /// Takes one from the allowance of `address`, or says how long to wait for the next.
    ///
    /// # Errors
    /// Seconds to wait, at least 1. Nothing is taken then.
    pub fn take(&mut self, kind: K, address: IpAddr, rate: Rate, now: Instant) -> Result<(), u32> {
        let span = micros(rate.per);
        let cost = span.checked_div(rate.count.into()).unwrap_or(span).max(1);
        let now = now.as_millis().saturating_mul(1_000);
        let key = (kind, self.counted_as(kind, address, now));
        let debt = self.whole_again.get(&key).map_or(0, |at| at.saturating_sub(now));
        let after = debt.saturating_add(cost);
        if after > span.max(cost) {
            let seconds = after.saturating_sub(span).div_ceil(1_000_000);
            return Err(u32::try_from(seconds).unwrap_or(u32::MAX).max(1));
        }
        self.whole_again.insert(key, now.saturating_add(after));
        Ok(())
    }

    /// The key under which an address is counted: its own neighbourhood as long as there is room.
    fn counted_as(&mut self, kind: K, address: IpAddr, now: u64) -> IpAddr {
        let own = neighbourhood(address);
        if self.whole_again.len() < MAX_COUNTED || self.whole_again.contains_key(&(kind, own)) {
            return own;
        }
        self.whole_again.retain(|_, at| *at > now);
        if self.whole_again.len() < MAX_COUNTED { own } else { Ipv6Addr::UNSPECIFIED.into() }
    }
}

/// The address under which an identity is counted, where identities are: counts are kept by networks
/// of 64 bits, and as many bits of a key tell identities apart. Not together with addresses.
#[must_use]
pub fn address_of(key: &IdentityKey) -> IpAddr {
    let bits = key.as_bytes().first_chunk::<16>().copied().unwrap_or_default();
    Ipv6Addr::from(bits).into()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Kind {
        Lookup,
        Register,
    }

    const RATE: Rate = Rate { count: 6, per: Duration::from_secs(60) };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_allowance_comes_at_once_and_grows_back() {
        let mut rates = Rates::default();
        let a = address("192.0.2.1");
        let at = |seconds: u64| Instant::from_millis(seconds * 1_000);
        for _ in 0..6 {
            rates.take(Kind::Lookup, a, RATE, at(5)).unwrap();
        }
        assert_eq!(rates.take(Kind::Lookup, a, RATE, at(5)), Err(10));
        assert_eq!(rates.take(Kind::Lookup, a, RATE, at(14)), Err(1));
        rates.take(Kind::Lookup, a, RATE, at(15)).unwrap();
        assert_eq!(rates.take(Kind::Lookup, a, RATE, at(15)), Err(10));
        // Others, and other kinds, are not concerned.
        rates.take(Kind::Register, a, RATE, at(15)).unwrap();
        rates.take(Kind::Lookup, address("192.0.2.2"), RATE, at(15)).unwrap();
        // However long the pause, there is never more than one allowance.
        for _ in 0..6 {
            rates.take(Kind::Lookup, a, RATE, at(100_000)).unwrap();
        }
        assert!(rates.take(Kind::Lookup, a, RATE, at(100_000)).is_err());
    }

    #[test]
    fn a_network_counts_as_one() {
        let mut rates = Rates::default();
        for i in 0..6 {
            let a = Ipv6Addr::new(0x2001, 0xdb8, 1, 2, i, 0, 0, 1).into();
            rates.take(Kind::Lookup, a, RATE, Instant::default()).unwrap();
        }
        let a = address("2001:db8:1:2:ffff::1");
        assert!(rates.take(Kind::Lookup, a, RATE, Instant::default()).is_err());
        rates.take(Kind::Lookup, address("2001:db8:1:3::1"), RATE, Instant::default()).unwrap();
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let mut rates = Rates::default();
        let at = Instant::from_millis(1);
        for i in 0..u32::try_from(MAX_COUNTED).unwrap() + 1_000 {
            let _ = rates.take(Kind::Lookup, std::net::Ipv4Addr::from(i).into(), RATE, at);
        }
        assert!(rates.whole_again.len() <= MAX_COUNTED + 1);
        // The ones beyond shared an allowance, which is used up.
        let late = address("203.0.113.1");
        assert!(rates.take(Kind::Lookup, late, RATE, at).is_err());
        // Once the first ones have theirs back, there is room again.
        let later = Instant::from_millis(70_000);
        rates.take(Kind::Lookup, late, RATE, later).unwrap();
        assert_eq!(rates.whole_again.len(), 1);
    }
}
