//! Who may register, and with which endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use sremp_common::id::{IdentityKey, SoughtKey};
use sremp_common::limit::MAX_ENDPOINTS;
use sremp_common::public_address::{is_foreign_port, is_public};
use sremp_common::wire::{Endpoint, ErrorBody, ErrorCode, List};

/// Seconds after which somebody who may not register may ask again.
const ADMISSION_RETRY: u32 = 600;

/// Who may register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// Everybody.
    #[default]
    Everybody,
    /// These identities, and nobody else.
    Only(BTreeSet<IdentityKey>),
    /// Whoever shows an invitation; whoever is known goes on without.
    Invited,
    /// Nobody new; whoever is known goes on.
    Known,
}

/// What of somebody who would register matters for whether he may.
#[derive(Clone, Copy, Debug)]
pub(super) struct Applicant<'k> {
    pub(super) key: &'k IdentityKey,
    /// He is registered here, or was not long ago.
    pub(super) is_known: bool,
    /// He has shown an invitation that is good.
    pub(super) is_invited: bool,
}

/// Whether somebody may register. Whoever may not is told when to ask again, because operators change
/// their minds, and their lists.
pub(super) fn admitted(
    admission: &Admission,
    banned: &BTreeSet<SoughtKey>,
    applicant: Applicant<'_>,
) -> Result<(), ErrorBody> {
    let refused = |text| {
        let error = ErrorBody::new(ErrorCode::NotAdmitted, text);
        Err(ErrorBody { retry_after: Some(ADMISSION_RETRY), ..error })
    };
    let Applicant { key, is_known, is_invited } = applicant;
    if banned.contains(&SoughtKey::of(key)) {
        return refused("this identity is banned here");
    }
    match admission {
        Admission::Everybody => Ok(()),
        Admission::Only(keys) if keys.contains(key) => Ok(()),
        Admission::Invited | Admission::Known if is_known => Ok(()),
        Admission::Invited if is_invited => Ok(()),
        Admission::Invited => refused(
            "this server wants an invitation that is still good; ask its operator for one, and add \
             the server with it",
        ),
        Admission::Only(_) | Admission::Known => {
            refused("this server does not take this identity; its operator can allow it")
        }
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
