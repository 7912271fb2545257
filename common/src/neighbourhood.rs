//! Which part of a network address stands for its holder, where connections and requests are
//! counted.

use std::net::{IpAddr, Ipv6Addr};

/// The part of an address that its holder cannot change at will: an IPv4 address, an IPv6 /64.
#[must_use]
pub fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// A network address as logs show it: enough to tell a network from others, too little to tell
/// a person (the first 24 bits of IPv4, 48 of IPv6).
#[must_use]
pub fn blurred(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            format!("{a}.{b}.{c}.x")
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:x")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_show_networks_and_nobody() {
        for (address, shown) in [
            ("192.0.2.77", "192.0.2.x"),
            ("::ffff:192.0.2.77", "192.0.2.x"),
            ("2001:db8:1:2:3::4", "2001:db8:1:x"),
        ] {
            assert_eq!(blurred(address.parse().unwrap()), shown);
        }
    }

    #[test]
    fn a_neighbourhood_is_an_ipv4_address_or_an_ipv6_64() {
        for (address, counted_as) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(neighbourhood(address), counted_as.parse::<IpAddr>().unwrap());
        }
    }
}
