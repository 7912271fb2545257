//! Where the relay can be reached: what is advertised, and a note of it beside the key, so that
//! the link can be shown while the relay does not run.

use std::net::SocketAddr;
use std::path::Path;

use sremp_common::id::IdentityKey;
use sremp_common::identity::RelayRecord;
use sremp_common::io::private::{PrivateError, read_private, replace_private};
use sremp_common::limit::MAX_ENDPOINTS;
use sremp_common::text::{decode_relay_link, encode_relay_link};
use sremp_common::wire::{Endpoint, List};

/// Name of the file that holds the link of the last start.
const LINK_FILE: &str = "relay.link";
/// Bytes that a link may have.
const MAX_LINK: usize = sremp_common::limit::MAX_TEXT_FORM;

/// Where clients reach a relay that advertises `advertised` and listens on `listening`: without
/// the former, the latter, if it is an address that can be dialled at all.
pub(super) fn endpoints(
    advertised: List<Endpoint, MAX_ENDPOINTS>,
    listening: SocketAddr,
) -> List<Endpoint, MAX_ENDPOINTS> {
    if advertised.is_empty() && !listening.ip().is_unspecified() {
        return List::truncated(vec![Endpoint::from(listening)]);
    }
    advertised
}

/// The link of a relay, if it can be reached anywhere.
pub(super) fn link(key: IdentityKey, endpoints: List<Endpoint, MAX_ENDPOINTS>) -> Option<String> {
    let record = RelayRecord { identity_key: key, endpoints };
    (!record.endpoints.is_empty()).then(|| encode_relay_link(&record.into()))
}

/// Notes the link, unless it is noted already.
pub(super) fn note(directory: &Path, link: &str) -> Result<(), PrivateError> {
    let path = directory.join(LINK_FILE);
    let known =
        read_private(&path, MAX_LINK).is_ok_and(|known| known.as_slice() == link.as_bytes());
    if known { Ok(()) } else { replace_private(&path, link.as_bytes()) }
}

/// The link of the last start, if it was of this relay.
pub(super) fn noted(directory: &Path, key: &IdentityKey) -> Option<String> {
    let bytes = read_private(&directory.join(LINK_FILE), MAX_LINK).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    let record = decode_relay_link(text).ok()?;
    (record.identity_key == *key).then(|| text.to_owned())
}
