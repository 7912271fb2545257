//! Random legal messages of any type, from a generator: every optional field is sometimes there,
//! every list sometimes empty, every number sometimes at the edge of its encodings.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::*;
use crate::entropy::Entropy;
use crate::id::{BlobId, GroupId, Incarnation, SignatureBytes, Token, TokenHash};
use crate::identity::{Identity, RelayRecord};
use crate::key::IdentitySecret;
use crate::noise::testing::{person, sign};
use crate::time::Timestamp;

/// A message of the type with this number.
pub(super) fn sample(number: u8, e: &mut Entropy) -> Message {
    match number {
        0 => Message::Error(ErrorBody {
            code: error_code(e),
            text: Text::new(text(e)).unwrap(),
            retry_after: option(e, int32),
        }),
        1 => Message::Ping(Ping()),
        2 => Message::Pong(Pong()),
        3 => Message::Close(Close { code: error_code(e) }),
        4 => Message::Done(Done()),
        16 => Message::RelayInfoRequest(Ping()),
        17 => Message::RelayInfo(relay_info(e)),
        18 => Message::RelayRegister(RelayRegister {
            capabilities: RelayCapabilities {
                max_message_size: int32(e),
                max_storage_duration: int32(e),
            },
            invite: option(e, |e| Token::new(e.array())),
        }),
        19 => Message::RelayRegistered(RelayRegistered {
            info: relay_info(e),
            messages: int(e),
            bytes: int(e),
            key_packages: int32(e),
        }),
        31 => Message::ClaimMailbox(ClaimMailbox {
            fresh: Incarnation::new(e.array()),
            known: List::truncated((0..e.below(3)).map(|_| Incarnation::new(e.array())).collect()),
            started: e.below(2) == 1,
        }),
        20 => Message::SetAdmission(SetAdmission { entries: list(e, admission_entry) }),
        21 => {
            let blob = bin(e);
            Message::StoreMessage(StoreMessage { blob, recipients: list(e, recipient) })
        }
        22 => Message::StoreResponse(StoreResponse { results: list(e, store_result) }),
        23 => Message::RetrieveMessages(RetrieveMessages { window: int32(e) }),
        24 => {
            let messages = list(e, stored_message);
            Message::MessageBatch(MessageBatch { messages, has_more: flag(e) })
        }
        25 => Message::Ack(Ack { sequences: list(e, int) }),
        26 => Message::PublishKeyPackages(PublishKeyPackages {
            identity: identity(e),
            key_packages: list(e, bin),
            last_resort: option(e, bin),
            replace: flag(e),
        }),
        27 => Message::KeyPackageStock(KeyPackageStock { count: int32(e) }),
        28 => {
            let Recipient { identity_key, admission } = recipient(e);
            Message::TakeKeyPackage(TakeKeyPackage { owner: identity_key, admission })
        }
        29 => {
            Message::KeyPackageTaken(KeyPackageTaken { identity: identity(e), key_package: bin(e) })
        }
        30 => Message::KeyPackagesLow(KeyPackagesLow { count: int32(e) }),
        32 => Message::Typing(Typing { group: GroupId::new(e.array()), typing: flag(e) }),
        64..=69 => rendezvous(number, e),
        other => panic!("no sample of type {other}"),
    }
}

fn rendezvous(number: u8, e: &mut Entropy) -> Message {
    match number {
        64 => Message::Register(Register {
            identity: identity(e),
            registration: Registration {
                endpoints: list(e, endpoint),
                ttl: int32(e),
                listed: flag(e),
            },
            signature: SignatureBytes::new(e.array()),
            invite: option(e, |e| Token::new(e.array())),
        }),
        65 => Message::Registered(Registered {
            expires_at: time(e),
            renewal_interval: int32(e),
            observed: option(e, endpoint),
        }),
        66 => Message::Lookup(if flag(e) {
            Lookup::one(identity_key(e))
        } else {
            Lookup::listed(option(e, identity_key))
        }),
        67 => {
            let peers = list(e, |e| PeerInfo {
                identity: identity(e),
                endpoints: list(e, endpoint),
                last_seen: time(e),
                online: flag(e),
            });
            Message::LookupResponse(LookupResponse { peers, has_more: flag(e) })
        }
        68 => Message::ListServers(ListServers()),
        69 => Message::Servers(Servers { servers: list(e, endpoint), time: time(e) }),
        other => panic!("no sample of type {other}"),
    }
}

/// A name or an address.
pub(super) fn endpoint(e: &mut Entropy) -> Endpoint {
    let host = match e.below(3) {
        0 => Host::Name(format!("host-{}.example", e.below(1000))),
        1 => Host::Address(Ipv4Addr::from(e.array::<4>()).into()),
        _ => Host::Address(Ipv6Addr::from(e.array::<16>()).into()),
    };
    Endpoint { host, port: u16::try_from(1 + e.below(65_535)).unwrap() }
}

pub(super) fn identity_key(e: &mut Entropy) -> crate::id::IdentityKey {
    IdentitySecret::generate(e).public()
}

fn identity(e: &mut Entropy) -> Identity {
    let owner = person(e.below(4));
    let relay = RelayRecord { identity_key: identity_key(e), endpoints: list(e, endpoint) };
    let identity = sign(&owner.identity_secret, &owner.noise_secret, |data| {
        data.version = 1 + e.below(300);
        data.flags.prefers_async = e.below(2) == 0;
        if e.below(2) == 0 {
            data.set_relays(vec![relay]).unwrap();
        }
    });
    identity.identity().clone()
}

fn relay_info(e: &mut Entropy) -> RelayInfo {
    RelayInfo {
        limits: RelayLimits {
            max_blob: int32(e),
            max_messages: int32(e),
            max_bytes: int(e),
            retention: int32(e),
        },
        pow_difficulty: u8::try_from(e.below(256)).unwrap(),
        time: time(e),
        incarnation: Incarnation::new(e.array()),
        observed: option(e, endpoint),
    }
}

fn admission_entry(e: &mut Entropy) -> AdmissionEntry {
    AdmissionEntry {
        token_hash: TokenHash::new(e.array()),
        class: if flag(e) { AdmissionClass::Contact } else { AdmissionClass::Link },
        daily_quota: int32(e),
    }
}

fn recipient(e: &mut Entropy) -> Recipient {
    let admission = match e.below(3) {
        0 => Admission::Session,
        1 => Admission::Token(Token::new(e.array())),
        _ => Admission::ProofOfWork { hour: int(e), nonce: int(e) },
    };
    Recipient { identity_key: identity_key(e), admission }
}

fn store_result(e: &mut Entropy) -> StoreResult {
    StoreResult {
        refused: option(e, error_code),
        expires_at: option(e, time),
        retry_after: option(e, int32),
    }
}

fn stored_message(e: &mut Entropy) -> StoredMessage {
    StoredMessage {
        sequence: int(e),
        blob_id: BlobId::new(e.array()),
        stored_at: time(e),
        blob: bin(e),
    }
}

fn error_code(e: &mut Entropy) -> ErrorCode {
    let bound = if flag(e) { 20 } else { 65_536 };
    ErrorCode::from_number(u16::try_from(e.below(bound)).unwrap())
}

fn text(e: &mut Entropy) -> String {
    let words = ["", "a", "zu sp\u{e4}t", "\u{1F600}", "much longer than thirty-one bytes of text"];
    words[usize::try_from(e.below(5)).unwrap()].to_owned()
}

/// A number of any width.
fn int(e: &mut Entropy) -> u64 {
    let shift = e.below(64);
    e.number() >> shift
}

fn int32(e: &mut Entropy) -> u32 {
    u32::try_from(int(e) & 0xffff_ffff).unwrap()
}

fn time(e: &mut Entropy) -> Timestamp {
    Timestamp::from_millis(int(e))
}

fn flag(e: &mut Entropy) -> bool {
    e.below(2) == 0
}

fn bin<const MAX: usize>(e: &mut Entropy) -> Bin<MAX> {
    let lengths = [0, 1, 31, 32, 255, 256, 1000];
    let mut bytes = vec![0; lengths[usize::try_from(e.below(7)).unwrap()]];
    e.fill(&mut bytes);
    Bin::new(bytes).unwrap()
}

fn list<T, const MAX: usize>(e: &mut Entropy, make: impl Fn(&mut Entropy) -> T) -> List<T, MAX> {
    let count = if e.below(8) == 0 { 17.min(MAX) } else { usize::try_from(e.below(4)).unwrap() };
    List::new((0..count).map(|_| make(e)).collect()).ok().unwrap()
}

fn option<T>(e: &mut Entropy, make: impl Fn(&mut Entropy) -> T) -> Option<T> {
    flag(e).then(|| make(e))
}
