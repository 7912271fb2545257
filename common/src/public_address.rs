//! Which addresses belong to hosts of the public Internet, and which lead into somebody's own
//! network, to this host, or to many hosts at once; and which ports belong to others' services.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// Whether a port belongs to a service that is none of ours, and that may take a stranger's bytes
/// for a command, or a stranger's connection for an attack (R12).
#[must_use]
pub fn is_foreign_port(port: u16) -> bool {
    FOREIGN_PORTS.binary_search(&port).is_ok()
}

/// Remote shells, mail, names, directories, files, databases, chat, printers; ascending. The core
/// of the "bad ports" of the Fetch standard, and databases that listen without a password.
const FOREIGN_PORTS: [u16; 45] = [
    7, 9, 13, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 79, 110, 111, 119, 123, 135, 139, 143,
    161, 179, 389, 445, 465, 512, 513, 514, 515, 587, 636, 993, 995, 2_049, 3_306, 3_389, 5_060,
    5_432, 6_379, 6_667, 9_200, 11_211, 27_017,
];

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
    fn r12_ports_of_other_services_are_known() {
        assert!(FOREIGN_PORTS.is_sorted());
        for port in [22, 25, 53, 445, 587, 6_379, 6_667] {
            assert!(is_foreign_port(port), "{port}");
        }
        for port in [80, 443, 7_330, 7_331, 7_332, 8_080, 40_000] {
            assert!(!is_foreign_port(port), "{port}");
        }
    }
}
