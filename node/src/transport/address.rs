//! Which addresses may be dialled, and in which order. Pure: names are resolved by the shell,
//! which asks [`is_public`] about every address before it connects to that very address.

use std::net::IpAddr;

use sremp_common::public_address::is_foreign_port;
pub use sremp_common::public_address::is_public;
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

/// Puts the candidates that may be dialled in the order of dialling: one IPv6 address, one other,
/// and so on (RFC 8305 section 4), so that a host whose IPv6 is broken costs one delay, not many.
pub(super) fn in_dialling_order(candidates: &[Candidate], allow_private: bool) -> Vec<Candidate> {
    let may_dial = |candidate: &&Candidate| {
        let private_is_fine = allow_private || candidate.origin == Origin::User;
        let is_user = candidate.origin == Origin::User;
        candidate.endpoint.port != 0
            && (is_user || !is_foreign_port(candidate.endpoint.port))
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn r12_nobody_else_names_a_port_of_another_service() {
        let mail: Endpoint = "192.0.2.1:25".parse().unwrap();
        assert!(in_dialling_order(&[Candidate::told(mail.clone())], true).is_empty());
        assert_eq!(in_dialling_order(&[Candidate::user(mail)], false).len(), 1);
    }

    #[test]
    fn port_zero_is_never_dialled() {
        let nowhere = Endpoint { host: Host::Address([8, 8, 8, 8].into()), port: 0 };
        assert!(in_dialling_order(&[Candidate::user(nowhere)], true).is_empty());
    }
}
