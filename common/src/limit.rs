//! Every bound on size, count and time that the protocol knows, with its reason.
//!
//! Bounds of one program only live beside the code that they bound, as named constants.

use std::time::Duration;

/// A Noise message, with its tag (Noise specification section 3).
pub const MAX_NOISE_MESSAGE: usize = 65_535;
/// Tag of ChaCha20-Poly1305.
pub const NOISE_TAG: usize = 16;
/// Payload of one chunk. 16 KiB records are the sweet spot of throughput, and a small message
/// waits at most this long behind a large one.
pub const CHUNK_PAYLOAD: usize = 16 * 1024;
/// A reassembled message between peers that know each other.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// A reassembled message from a stranger: a Welcome for a small group fits.
pub const MAX_MESSAGE_STRANGER: usize = 96 * 1024;
/// Messages of one connection that may be incomplete at a time.
pub const MAX_OPEN_REASSEMBLIES: usize = 4;
/// Bytes that incomplete messages of one connection may hold.
pub const MAX_REASSEMBLY_BYTES: usize = MAX_MESSAGE + 64 * 1024;
/// Time for an incomplete message to become whole.
pub const REASSEMBLY_TIMEOUT: Duration = Duration::from_secs(30);
/// Header, handshake and authentication together.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes accepted on a connection before its handshake is done.
pub const MAX_HANDSHAKE_BYTES: usize = 128 * 1024;
/// Silence after which a session is probed; jittered by a fifth either way.
pub const PING_AFTER: Duration = Duration::from_secs(60);
/// A session without any byte for this long is dead.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(150);
/// Frames under one key, far below Noise's 2^64 - 1: then the session is closed and dialled anew.
pub const MAX_FRAMES_PER_SESSION: u64 = 1 << 32;
/// Age of a session at which it is closed and dialled anew.
pub const MAX_SESSION_AGE: Duration = Duration::from_secs(24 * 3600);
/// Requests of one connection that may wait for an answer.
pub const MAX_OPEN_REQUESTS: usize = 1024;

/// A length-prefixed message to or from a rendezvous server.
pub const MAX_RENDEZVOUS_MESSAGE: usize = 64 * 1024;

/// Nesting of a decoded value.
pub const MAX_DEPTH: usize = 8;
/// An identity on the wire.
pub const MAX_IDENTITY: usize = 32 * 1024;
/// Characters (Unicode scalar values) of a user name (specification 3.1.1).
pub const MAX_NAME_CHARS: usize = 40;
/// Bytes of a user name.
pub const MAX_NAME_BYTES: usize = 160;
/// Combining marks in a row in a user name.
pub const MAX_COMBINING_MARKS: usize = 2;
/// A profile picture.
pub const MAX_PICTURE: usize = 16 * 1024;
/// Entries of an identity's metadata.
pub const MAX_METADATA_ENTRIES: usize = 16;
/// Bytes of a metadata key.
pub const MAX_METADATA_KEY: usize = 64;
/// Bytes of a metadata value.
pub const MAX_METADATA_VALUE: usize = 1024;
/// Relays that an identity may list.
pub const MAX_RELAYS: usize = 4;
/// Endpoints of one registration, link or relay.
pub const MAX_ENDPOINTS: usize = 8;
/// Bytes of a DNS name (RFC 1035 section 2.3.4).
pub const MAX_DNS_NAME: usize = 253;
/// A text form: id or link.
pub const MAX_TEXT_FORM: usize = 4096;

/// A blob in a mailbox: leaves room for the rest of its message.
pub const MAX_BLOB: usize = MAX_MESSAGE - 256 * 1024;
/// A blob from somebody who is neither contact nor fellow member: a Welcome.
pub const MAX_BLOB_STRANGER: usize = 64 * 1024;
/// Mailboxes of one relay that one blob may be stored into at once.
pub const MAX_RECIPIENTS: usize = 1024;
/// Tokens that a mailbox may admit.
pub const MAX_ADMISSIONS: usize = 8192;
/// Incarnations that a claim of a mailbox names: the one that was confirmed, and the one after it.
pub const MAX_KNOWN_CLAIMS: usize = 2;
/// Messages of one batch.
pub const MAX_BATCH: usize = 256;
/// Acknowledgements in one message.
pub const MAX_ACKS: usize = 4096;
/// Bytes of unacknowledged messages that may be under way to a reader.
pub const MAX_WINDOW: u32 = 4 * 1024 * 1024;
/// A key package (hybrid post-quantum ones are 2.7 KiB).
pub const MAX_KEY_PACKAGE: usize = 16 * 1024;
/// Key packages that an owner may keep in stock at one relay.
pub const MAX_KEY_PACKAGES: usize = 128;

/// Registration lifetimes that a rendezvous server accepts; others are clamped.
pub const REGISTRATION_TTL_MIN: u32 = 60;
/// Upper end of the same.
pub const REGISTRATION_TTL_MAX: u32 = 86_400;
/// Entries of one page of a listing.
pub const MAX_LIST_PAGE: usize = 16;
/// Entries of a list of rendezvous servers.
pub const MAX_SERVERS: usize = 64;
/// Bytes of an error's text.
pub const MAX_ERROR_TEXT: usize = 256;

/// Bytes of the text of one message.
pub const MAX_TEXT: usize = 64 * 1024;
/// A reaction to a message: an emoji of many code points, or a short word.
pub const MAX_REACTION: usize = 64;
/// Seconds that a message of a conversation with a timer stays at least: enough to read it.
pub const MIN_LIFETIME: u32 = 60;
/// And at most: a year. Whoever wants to keep messages for longer keeps them.
pub const MAX_LIFETIME: u32 = 365 * 86_400;
/// Members of a group that still confirm delivery: receipts grow with the square.
pub const MAX_RECEIPT_MEMBERS: usize = 50;
/// Message ids in one receipt.
pub const MAX_RECEIPT_IDS: usize = 512;

/// Default ports, changed here and nowhere else.
pub const PORT_NODE: u16 = 7330;
/// Default port of a relay.
pub const PORT_RELAY: u16 = 7331;
/// Default port of a rendezvous server.
pub const PORT_RENDEZVOUS: u16 = 7332;
