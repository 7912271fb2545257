//! Who may register, and with which endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sremp_common::id::{IdentityKey, SoughtKey};
use sremp_common::limit::MAX_ENDPOINTS;
use sremp_common::public_address::{is_foreign_port, is_public};
use sremp_common::wire::{Endpoint, ErrorBody, ErrorCode, List};

/// Who may register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Everybody.
    #[default]
    Everybody,
    /// These identities, and nobody else.
    Only(BTreeSet<IdentityKey>),
    /// Nobody new; whoever is known goes on.
    Known,
}

/// Whether somebody may register.
pub(super) fn admitted(
    admission: &Admission,
    banned: &BTreeSet<SoughtKey>,
    key: &IdentityKey,
    is_known: bool,
) -> Result<(), ErrorBody> {
    let refused = |text| Err(ErrorBody::new(ErrorCode::NotAdmitted, text));
    let allowed = match admission {
        Admission::Everybody => true,
        Admission::Only(keys) => keys.contains(key),
        Admission::Known => is_known,
    };
    if banned.contains(&SoughtKey::of(key)) {
        refused("this identity is banned here")
    } else if !allowed {
        refused("this server does not take this identity; its operator can allow it")
    } else {
        Ok(())
    }
}

/// Whether endpoints may be told to others: nobody may send the users of this server to services
/// that are none of ours (R12), or, from outside, into somebody's own network (R10). Whoever is in
/// such a network himself may name it.
pub(super) fn endpoints_allowed(
    endpoints: &List<Endpoint, MAX_ENDPOINTS>,
    client: IpAddr,
    allow_private: bool,
) -> Result<(), ErrorBody> {
    let is_outside = is_public(client.to_canonical()) && !allow_private;
    for endpoint in endpoints.iter() {
        if endpoint.port == 0 {
            return Err(ErrorBody::new(ErrorCode::Malformed, "an endpoint has port 0"));
        }
        if is_foreign_port(endpoint.port) {
            let text = format!("port {} belongs to another service; use another", endpoint.port);
            return Err(ErrorBody::new(ErrorCode::NotAllowed, &text));
        }
        if is_outside && !endpoint.may_be_public() {
            let text = format!("{endpoint} is inside a private network, where others cannot go");
            return Err(ErrorBody::new(ErrorCode::NotAllowed, &text));
        }
    }
    Ok(())
}

/// The endpoints that a client is told: from outside, none that are inside a private network.
pub(super) fn endpoints_shown(
    endpoints: List<Endpoint, MAX_ENDPOINTS>,
    client: IpAddr,
    allow_private: bool,
) -> List<Endpoint, MAX_ENDPOINTS> {
    if allow_private || !is_public(client.to_canonical()) {
        return endpoints;
    }
    List::truncated(endpoints.into_vec().into_iter().filter(Endpoint::may_be_public).collect())
}
