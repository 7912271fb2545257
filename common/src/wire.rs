//! Encoding profile: MessagePack with one byte string for each value.
//!
//! Structs are arrays in field order with exact length; integers have the shortest form; byte
//! strings are `bin`; an absent value is nil. Decoding is bounded (depth, and each list and byte
//! string by its type, before allocation) and strict: what was decoded is encoded again, and the
//! bytes must be the same. What is signed travels as opaque `bin` (see [`crate::signed`]).

mod bounded;
mod endpoint;
mod error_code;
mod message;
mod relay;
mod rendezvous;

pub use bounded::{Bin, List, Text};
pub use endpoint::{Endpoint, EndpointError, Host};
pub use error_code::ErrorCode;
pub use message::{Close, Done, ErrorBody, Message, Ping, Pong, RequestId, Undecodable};
pub use relay::{
    Ack, Admission, AdmissionClass, AdmissionEntry, ClaimMailbox, KeyPackageStock, KeyPackageTaken,
    KeyPackagesLow, MessageBatch, PublishKeyPackages, Recipient, RelayCapabilities, RelayInfo,
    RelayLimits, RelayRegister, RelayRegistered, RetrieveMessages, SetAdmission, StoreMessage,
    StoreResponse, StoreResult, StoredMessage, TakeKeyPackage, Typing,
};
pub use rendezvous::{
    ListServers, Lookup, LookupResponse, LookupTarget, PeerInfo, Register, Registered,
    Registration, Servers, registration_body,
};

pub(crate) use bounded::fixed_bytes;

use serde::{Serialize, de::DeserializeOwned};

use crate::limit::MAX_DEPTH;

/// Why bytes are not a value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum WireError {
    /// Not MessagePack, not this type, or beyond a bound of it.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Decodes, but is not the one encoding of its value.
    #[error("not in canonical form")]
    NotCanonical,
    /// A message type that this version does not know.
    #[error("unknown message type {0}")]
    UnknownType(u8),
    /// Longer than allowed here.
    #[error("longer than {0} bytes")]
    TooLong(usize),
}

/// Encodes a value. Cannot fail for the types of this crate; an error is a defect of ours.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap_or_default()
}

/// Decodes exactly the bytes that [`encode`] gives for a value of `T`.
///
/// # Errors
/// [`WireError`] for anything else: wrong type, too deep, too long, trailing bytes, a second form.
pub fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
    deserializer.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut deserializer)
        .map_err(|error| WireError::Malformed(short(&error.to_string())))?;
    if encode(&value) != bytes {
        return Err(WireError::NotCanonical);
    }
    Ok(value)
}

/// Error texts may quote the peer's bytes: keep them short.
fn short(text: &str) -> String {
    text.chars().take(120).collect()
}

#[cfg(test)]
mod tests;
