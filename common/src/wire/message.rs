//! `[type, request_id, body]`: every message of both protocols, and which type number it has.

use serde::{Deserialize, Serialize};

use super::bounded::Text;
use super::error_code::ErrorCode;
use super::relay::{
    Ack, ClaimMailbox, KeyPackageStock, KeyPackageTaken, KeyPackagesLow, MessageBatch,
    PublishKeyPackages, RelayInfo, RelayRegister, RelayRegistered, RetrieveMessages, SetAdmission,
    StoreMessage, StoreResponse, TakeKeyPackage, Typing,
};
use super::rendezvous::{ListServers, Lookup, LookupResponse, Register, Registered, Servers};
use super::{WireError, decode, encode};
use crate::limit::{MAX_ERROR_TEXT, MAX_MESSAGE};

/// Number of a request within its connection: even from the initiator, odd from the responder.
/// An answer carries the number of its request.
pub type RequestId = u64;

/// Probe of a silent session. Answered by [`Pong`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping();

/// Answer to [`Ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong();

/// The request is carried out, durably where it changes something; there is nothing else to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done();

/// Orderly end of a session: whoever sees the stream end without it was cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// Why.
    pub code: ErrorCode,
}

/// A request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub code: ErrorCode,
    /// The same for a person; never trusted, never interpreted.
    pub text: Text<MAX_ERROR_TEXT>,
    /// Seconds after which the same request may succeed.
    pub retry_after: Option<u32>,
}

impl ErrorBody {
    /// An error without a time to wait.
    #[must_use]
    pub fn new(code: ErrorCode, text: &str) -> Self {
        Self { code, text: Text::truncated(text), retry_after: None }
    }
}

/// Declares the enum with its type numbers, once for encoding and decoding.
macro_rules! messages {
    ($($(#[$doc:meta])* $number:literal $name:ident($body:ty),)+) => {
        /// One message of either protocol, without its request id.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Message {
            $($(#[$doc])* $name($body),)+
        }

        impl Message {
            /// The type number on the wire.
            #[must_use]
            pub const fn type_number(&self) -> u8 {
                match self {
                    $(Self::$name(_) => $number,)+
                }
            }

            /// All type numbers, for tests and fuzzers.
            pub const TYPE_NUMBERS: &[u8] = &[$($number),+];

            fn encode_body(&self) -> Vec<u8> {
                match self {
                    $(Self::$name(body) => encode(body),)+
                }
            }

            fn decode_body(number: u8, body: &[u8]) -> Result<Self, WireError> {
                match number {
                    $($number => decode(body).map(Self::$name),)+
                    unknown => Err(WireError::UnknownType(unknown)),
                }
            }
        }
    };
}

messages! {
    /// A request was refused.
    0 Error(ErrorBody),
    /// Are you there?
    1 Ping(Ping),
    /// Yes.
    2 Pong(Pong),
    /// The session ends here.
    3 Close(Close),
    /// The request is carried out.
    4 Done(Done),

    /// What does this mailbox keeper offer? Answered by `RelayInfo`.
    16 RelayInfoRequest(Ping),
    /// Limits and features of a mailbox keeper.
    17 RelayInfo(RelayInfo),
    /// Opens or renews the mailbox of the session's identity. Answered by `RelayRegistered`.
    18 RelayRegister(RelayRegister),
    /// The mailbox is open.
    19 RelayRegistered(RelayRegistered),
    /// Replaces the list of tokens that open the mailbox. Answered by `Done`.
    20 SetAdmission(SetAdmission),
    /// Stores one blob into one or many mailboxes. Answered by `StoreResponse`.
    21 StoreMessage(StoreMessage),
    /// What became of it, for each recipient, after the durable commit.
    22 StoreResponse(StoreResponse),
    /// Everything unacknowledged, then live push. Answered by `MessageBatch`, again and again.
    23 RetrieveMessages(RetrieveMessages),
    /// Some stored messages, in sequence.
    24 MessageBatch(MessageBatch),
    /// Deletes messages from the own mailbox. Not answered.
    25 Ack(Ack),
    /// Adds to the stock of key packages. Answered by `KeyPackageStock`.
    26 PublishKeyPackages(PublishKeyPackages),
    /// What the stock holds now.
    27 KeyPackageStock(KeyPackageStock),
    /// Asks for one key package of somebody. Answered by `KeyPackageTaken`.
    28 TakeKeyPackage(TakeKeyPackage),
    /// The identity and one key package, never to be handed out again.
    29 KeyPackageTaken(KeyPackageTaken),
    /// Tells the owner that the stock runs low. Not answered.
    30 KeyPackagesLow(KeyPackagesLow),
    /// Marks which copy of the owner's home reads the mailbox. Answered by `Done`.
    31 ClaimMailbox(ClaimMailbox),
    /// Somebody writes in a group at this moment. Not answered.
    32 Typing(Typing),

    /// Says where the session's identity can be reached. Answered by `Registered`.
    64 Register(Register),
    /// The registration stands.
    65 Registered(Registered),
    /// Asks where somebody is. Answered by `LookupResponse`.
    66 Lookup(Lookup),
    /// Who was found.
    67 LookupResponse(LookupResponse),
    /// Asks for other rendezvous servers. Answered by `Servers`.
    68 ListServers(ListServers),
    /// Suggestions of other rendezvous servers.
    69 Servers(Servers),
}

impl Message {
    /// `[type, request_id, body]`.
    #[must_use]
    pub fn encode(&self, request_id: RequestId) -> Vec<u8> {
        let body = self.encode_body();
        let mut bytes = Vec::with_capacity(body.len().saturating_add(12));
        // Writing into a Vec cannot fail.
        let _ = rmp::encode::write_array_len(&mut bytes, 3);
        let _ = rmp::encode::write_uint(&mut bytes, self.type_number().into());
        let _ = rmp::encode::write_uint(&mut bytes, request_id);
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The message and its request id.
    ///
    /// # Errors
    /// [`WireError::UnknownType`] when only the type is not known: then `request_id` of the
    /// refused message is in [`Undecodable`], so that it can be answered.
    pub fn decode(bytes: &[u8]) -> Result<(RequestId, Self), Undecodable> {
        let unnumbered = |error| Undecodable { request_id: None, error };
        if bytes.len() > MAX_MESSAGE {
            return Err(unnumbered(WireError::TooLong(MAX_MESSAGE)));
        }
        let malformed = || unnumbered(WireError::Malformed("not [type, request_id, body]".into()));
        let mut rest = bytes;
        let length = rmp::decode::read_array_len(&mut rest).map_err(|_| malformed())?;
        let number: u64 = rmp::decode::read_int(&mut rest).map_err(|_| malformed())?;
        let request_id: u64 = rmp::decode::read_int(&mut rest).map_err(|_| malformed())?;
        let number = u8::try_from(number).map_err(|_| malformed())?;
        if length != 3 {
            return Err(malformed());
        }
        let message = Self::decode_body(number, rest)
            .map_err(|error| Undecodable { request_id: Some(request_id), error })?;
        // The header, too, has only one form.
        let mut head = Vec::with_capacity(12);
        let _ = rmp::encode::write_array_len(&mut head, 3);
        let _ = rmp::encode::write_uint(&mut head, number.into());
        let _ = rmp::encode::write_uint(&mut head, request_id);
        if !bytes.starts_with(&head) || head.len().saturating_add(rest.len()) != bytes.len() {
            return Err(Undecodable { request_id: None, error: WireError::NotCanonical });
        }
        Ok((request_id, message))
    }
}

/// A message that could not be decoded, with its request id if that much was legible.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{error}")]
pub struct Undecodable {
    /// Present when the header was well-formed.
    pub request_id: Option<RequestId>,
    /// What was wrong.
    pub error: WireError,
}
