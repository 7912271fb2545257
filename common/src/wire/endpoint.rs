//! Where somebody listens: a DNS name or an IP address, and a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limit::MAX_DNS_NAME;
use crate::public_address::is_public;

/// Ends of names that mean something inside one network only (RFC 6761, RFC 6762, RFC 8375).
const LOCAL_NAMES: [&str; 4] = [".localhost", ".local", ".internal", ".home.arpa"];

/// A DNS name (lower-case A-labels, RFC 5890) or an IP address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// Resolved by whoever dials.
    Name(String),
    /// Dialled as it is.
    Address(IpAddr),
}

/// A place to dial. Text form `host:port`, IPv6 addresses in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name or address.
    pub host: Host,
    /// TCP port, not 0 when it came through [`FromStr`].
    pub port: u16,
}

/// Why a text is not an endpoint.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is not HOST:PORT; write for example example.org:7331, 192.0.2.1:7331 or [2001:db8::1]:7331"
)]
pub struct EndpointError(String);

impl Endpoint {
    /// The socket address, when no name has to be resolved.
    #[must_use]
    pub fn socket_address(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Address(address) => Some(SocketAddr::new(address, self.port)),
            Host::Name(_) => None,
        }
    }

    /// Whether a stranger may be told to dial it: false for addresses of somebody's own network,
    /// and for names that exist only there. What another name leads to shows when it is resolved.
    #[must_use]
    pub fn may_be_public(&self) -> bool {
        match &self.host {
            Host::Address(address) => is_public(*address),
            Host::Name(name) => {
                name.contains('.') && !LOCAL_NAMES.iter().any(|end| name.ends_with(end))
            }
        }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Address(address.ip()), port: address.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = || EndpointError(text.chars().take(80).collect());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(error()) } else { Ok(address.into()) };
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or_else(error)?;
        let name = name.to_ascii_lowercase();
        if !is_dns_name(&name) {
            return Err(error());
        }
        Ok(Self { host: Host::Name(name), port })
    }
}

/// Lower-case letters, digits and hyphens in labels of 1 to 63 bytes, and not an IPv4 address in disguise.
fn is_dns_name(name: &str) -> bool {
    let label_ok = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let last_is_number =
        name.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
    name.len() <= MAX_DNS_NAME && name.split('.').all(label_ok) && !last_is_number
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => serializer.serialize_str(name),
            Self::Address(IpAddr::V4(address)) => serializer.serialize_bytes(&address.octets()),
            Self::Address(IpAddr::V6(address)) => serializer.serialize_bytes(&address.octets()),
        }
    }
}

impl<'de> Deserialize<'de> for Host {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameOrAddress;
        impl Visitor<'_> for NameOrAddress {
            type Value = Host;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a lower-case DNS name, or 4 or 16 bytes of an IP address")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Host, E> {
                if is_dns_name(name) {
                    Ok(Host::Name(name.to_owned()))
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Other("text"), &self))
                }
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Host, E> {
                if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
                    return Ok(Host::Address(Ipv4Addr::from(octets).into()));
                }
                if let Ok(octets) = <[u8; 16]>::try_from(bytes) {
                    return Ok(Host::Address(Ipv6Addr::from(octets).into()));
                }
                Err(E::invalid_length(bytes.len(), &self))
            }
        }
        deserializer.deserialize_any(NameOrAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for text in ["example.org:7331", "192.0.2.1:1", "[2001:db8::1]:65535"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_not_an_endpoint() {
        for text in ["", "x", "x:", ":1", "x:0", "x:65536", "-a:1", "a..b:1", "1.2.3:4", "a b:1"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn r10_places_inside_somebodys_network_are_told_apart() {
        for (text, may_be) in [
            ("8.8.8.8:1", true),
            ("10.0.0.1:1", false),
            ("[::ffff:10.0.0.1]:1", false),
            ("example.org:1", true),
            ("localhost:1", false),
            ("router:1", false),
            ("a.localhost:1", false),
            ("printer.local:1", false),
            ("metadata.google.internal:1", false),
            ("nas.home.arpa:1", false),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().may_be_public(), may_be, "{text}");
        }
    }
}
