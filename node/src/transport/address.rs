//! Which addresses may be dialled, and in which order. Pure: names are resolved by the shell,
//! which asks [`is_public`] about every address before it connects to that very address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sremp_common::wire::{Endpoint, Host};

/// Who named an endpoint. Somebody else may name an address inside our network, to have us knock
/// there (R10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The user, by typing it or in the configuration: dialled whatever it is.
    User,
    /// A registry, a link, another peer: dialled only when public, unless the configuration allows
    /// private addresses.
    Told,
}

/// A place where a target may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    /// Where.
    pub endpoint: Endpoint,
    /// Who says so.
    pub origin: Origin,
}

impl Candidate {
    /// A place that the user named.
    #[must_use]
    pub const fn user(endpoint: Endpoint) -> Self {
        Self { endpoint, origin: Origin::User }
    }

    /// A place that somebody else named.
    #[must_use]
    pub const fn told(endpoint: Endpoint) -> Self {
        Self { endpoint, origin: Origin::Told }
    }
}

/// Whether an address belongs to a host of the public Internet.
///
/// False for everything in the registries of special-purpose addresses (RFC 6890) that can lead
/// into somebody's own network, to this host, or to many hosts, and for every IPv6 form that
/// carries an IPv4 address inside. Documentation ranges count as public: nobody is there.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let bits = address.to_bits();
            !SPECIAL_V4.iter().any(|(network, length)| {
                same_prefix(bits.into(), network.to_bits().into(), 32, *length)
            })
        }
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            let within = |(network, length): &(Ipv6Addr, u32)| {
                same_prefix(bits, network.to_bits(), 128, *length)
            };
            within(&GLOBAL_V6) && !SPECIAL_V6.iter().any(within)
        }
    }
}

/// Puts the candidates that may be dialled in the order of dialling: one IPv6 address, one other,
/// and so on (RFC 8305 section 4), so that a host whose IPv6 is broken costs one delay, not many.
pub(super) fn in_dialling_order(candidates: &[Candidate], allow_private: bool) -> Vec<Candidate> {
    let may_dial = |candidate: &&Candidate| {
        let private_is_fine = allow_private || candidate.origin == Origin::User;
        candidate.endpoint.port != 0
            && match &candidate.endpoint.host {
                Host::Name(_) => true,
                Host::Address(address) => private_is_fine || is_public(*address),
            }
    };
    let (mut first, mut second): (Vec<_>, Vec<_>) = candidates
        .iter()
        .filter(may_dial)
        .cloned()
        .partition(|candidate| matches!(candidate.endpoint.host, Host::Address(IpAddr::V6(_))));
    first.reverse();
    second.reverse();
    let mut ordered = Vec::with_capacity(first.len().saturating_add(second.len()));
    while !(first.is_empty() && second.is_empty()) {
        ordered.extend(first.pop());
        ordered.extend(second.pop());
    }
    ordered
}

fn same_prefix(left: u128, right: u128, width: u32, length: u32) -> bool {
    let shift = width.saturating_sub(length);
    left.checked_shr(shift) == right.checked_shr(shift)
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u32) -> (Ipv4Addr, u32) {
    (Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(a: u16, b: u16, c: u16, length: u32) -> (Ipv6Addr, u32) {
    (Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length)
}

const SPECIAL_V4: [(Ipv4Addr, u32); 12] = [
    v4(0, 0, 0, 0, 8),      // this network
    v4(10, 0, 0, 0, 8),     // private
    v4(100, 64, 0, 0, 10),  // shared by customers of a provider
    v4(127, 0, 0, 0, 8),    // this host
    v4(169, 254, 0, 0, 16), // link-local; metadata services of clouds
    v4(172, 16, 0, 0, 12),  // private
    v4(192, 0, 0, 0, 24),   // protocol assignments
    v4(192, 88, 99, 0, 24), // 6to4 relays
    v4(192, 168, 0, 0, 16), // private
    v4(198, 18, 0, 0, 15),  // benchmarks inside a network
    v4(224, 0, 0, 0, 4),    // multicast
    v4(240, 0, 0, 0, 4),    // reserved, broadcast
];

/// All global unicast addresses assigned so far. Outside are ::, ::1, ::ffff:0:0/96 (mapped),
/// ::/96 (compatible), 64:ff9b::/96 (translated), fc00::/7, fe80::/10, fec0::/10 and ff00::/8.
const GLOBAL_V6: (Ipv6Addr, u32) = v6(0x2000, 0, 0, 3);

const SPECIAL_V6: [(Ipv6Addr, u32); 2] = [
    v6(0x2001, 0, 0, 23), // protocol assignments: Teredo and others
    v6(0x2002, 0, 0, 16), // 6to4: an IPv4 address inside
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r10_special_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.127.255.254",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "169.254.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.88.99.1",
            "192.168.0.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:1ff::1",
            "2002:a00:1::1",
            "2002::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "4000::1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn r10_neighbours_of_special_addresses_are_public() {
        for text in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2003::1",
            "2606:4700::1111",
            "2a00:1450::1",
            "3fff:ffff::1",
        ] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn r10_only_the_user_names_private_addresses_unless_they_are_allowed() {
        let private: Endpoint = "127.0.0.1:7330".parse().unwrap();
        let told = [Candidate::told(private.clone())];
        assert!(in_dialling_order(&told, false).is_empty());
        assert_eq!(in_dialling_order(&told, true).len(), 1);
        assert_eq!(in_dialling_order(&[Candidate::user(private)], false).len(), 1);
    }

    #[test]
    fn ipv6_comes_first_and_families_take_turns() {
        let texts = ["192.0.2.1:1", "192.0.2.2:1", "example.org:1", "[2a00::1]:1", "[2a00::2]:1"];
        let candidates: Vec<_> =
            texts.iter().map(|text| Candidate::told(text.parse().unwrap())).collect();
        let order: Vec<_> = in_dialling_order(&candidates, false)
            .into_iter()
            .map(|candidate| candidate.endpoint.to_string())
            .collect();
        assert_eq!(
            order,
            ["[2a00::1]:1", "192.0.2.1:1", "[2a00::2]:1", "192.0.2.2:1", "example.org:1"]
        );
    }

    #[test]
    fn port_zero_is_never_dialled() {
        let nowhere = Endpoint { host: Host::Address([8, 8, 8, 8].into()), port: 0 };
        assert!(in_dialling_order(&[Candidate::user(nowhere)], true).is_empty());
    }
}
