//! One sample of every message type, with its fields as the protocol names them.

use serde_json::{Value, json};
use sremp_common::id::{BlobId, GroupId, Incarnation, SignatureBytes, Token, hex};
use sremp_common::identity::Identity;
use sremp_common::wire::{
    Ack, Admission, AdmissionClass, AdmissionEntry, Bin, ClaimMailbox, Close, Done, ErrorBody,
    ErrorCode, KeyPackageStock, KeyPackageTaken, KeyPackagesLow, List, ListServers, Lookup,
    LookupResponse, Message, MessageBatch, PeerInfo, Ping, Pong, PublishKeyPackages, Recipient,
    Register, Registered, Registration, RelayCapabilities, RelayInfo, RelayLimits, RelayRegister,
    RelayRegistered, RetrieveMessages, Servers, SetAdmission, StoreMessage, StoreResponse,
    StoreResult, StoredMessage, TakeKeyPackage, Text, Typing, encode,
};

use super::cast::{NOW, alice, bob, endpoint_list};

/// A name, the message, and its fields.
pub(super) type Sample = (&'static str, Message, Value);

pub(super) fn all() -> Vec<Sample> {
    let mut samples = both();
    samples.extend(keeper());
    samples.extend(storing());
    samples.extend(key_packages());
    samples.extend(registrations());
    samples.extend(rendezvous());
    samples.extend(between_nodes());
    samples
}

fn both() -> Vec<Sample> {
    let error = ErrorBody::new(ErrorCode::NotAdmitted, "not admitted");
    let waiting = ErrorBody {
        code: ErrorCode::RateLimited,
        text: Text::new("später").unwrap(),
        retry_after: Some(70_000),
    };
    let unknown = ErrorBody::new(ErrorCode::Other(999), "");
    vec![
        (
            "error",
            Message::Error(error),
            json!({ "code": 5, "text": "not admitted", "retry_after": null }),
        ),
        (
            "error with a time",
            Message::Error(waiting),
            json!({ "code": 8, "text": "später", "retry_after": 70_000 }),
        ),
        (
            "error of an unknown code",
            Message::Error(unknown),
            json!({ "code": 999, "text": "", "retry_after": null }),
        ),
        ("ping", Message::Ping(Ping()), json!({})),
        ("pong", Message::Pong(Pong()), json!({})),
        ("close", Message::Close(Close { code: ErrorCode::Goodbye }), json!({ "code": 13 })),
        ("done", Message::Done(Done()), json!({})),
    ]
}

fn relay_info() -> (RelayInfo, Value) {
    let info = RelayInfo {
        limits: RelayLimits {
            max_blob: 3_932_160,
            max_messages: 10_000,
            max_bytes: 67_108_864,
            retention: 2_592_000,
        },
        pow_difficulty: 20,
        time: NOW,
        incarnation: Incarnation::new([0x1C; 16]),
        observed: Some("[2001:db8::9]:50123".parse().unwrap()),
    };
    let fields = json!({
        "limits": { "max_blob": 3_932_160, "max_messages": 10_000, "max_bytes": 67_108_864, "retention": 2_592_000 },
        "pow_difficulty": 20,
        "time": NOW.as_millis(),
        "incarnation": "1c".repeat(16),
        "observed": "[2001:db8::9]:50123",
    });
    (info, fields)
}

fn keeper() -> Vec<Sample> {
    let (info, info_fields) = relay_info();
    let hidden = RelayInfo { observed: None, pow_difficulty: 0, ..info };
    let mut hidden_fields = info_fields.clone();
    hidden_fields["observed"] = Value::Null;
    hidden_fields["pow_difficulty"] = 0.into();
    let capabilities =
        RelayCapabilities { max_message_size: 65_536, max_storage_duration: 604_800 };
    let registered =
        RelayRegistered { info: info.clone(), messages: 3, bytes: 5_000_000_000, key_packages: 64 };
    let token = Token::new([0x42; 16]);
    let entries = vec![
        AdmissionEntry { token_hash: token.hash(), class: AdmissionClass::Contact, daily_quota: 0 },
        AdmissionEntry {
            token_hash: Token::new([0x43; 16]).hash(),
            class: AdmissionClass::Link,
            daily_quota: 3,
        },
    ];
    let entries_fields = json!({ "entries": [
        { "token_hash": entries.first().unwrap().token_hash.to_string(), "class": 0, "daily_quota": 0 },
        { "token_hash": entries.last().unwrap().token_hash.to_string(), "class": 1, "daily_quota": 3 },
    ]});
    vec![
        ("relay info request", Message::RelayInfoRequest(Ping()), json!({})),
        ("relay info", Message::RelayInfo(info), info_fields.clone()),
        ("relay info, nothing optional", Message::RelayInfo(hidden), hidden_fields),
        (
            "relay register",
            Message::RelayRegister(RelayRegister { capabilities, invite: None }),
            json!({ "capabilities": { "max_message_size": 65_536, "max_storage_duration": 604_800 }, "invite": null }),
        ),
        (
            "relay register, with an invitation",
            Message::RelayRegister(RelayRegister { capabilities, invite: Some(token) }),
            json!({
                "capabilities": { "max_message_size": 65_536, "max_storage_duration": 604_800 },
                "invite": "42".repeat(16),
            }),
        ),
        (
            "relay registered",
            Message::RelayRegistered(registered),
            json!({ "info": info_fields, "messages": 3, "bytes": 5_000_000_000_u64, "key_packages": 64 }),
        ),
        (
            "claim mailbox",
            Message::ClaimMailbox(ClaimMailbox {
                fresh: Incarnation::new([0x51; 16]),
                known: List::truncated(vec![
                    Incarnation::new([0x52; 16]),
                    Incarnation::new([0x53; 16]),
                ]),
                started: true,
            }),
            json!({ "fresh": "51".repeat(16), "known": ["52".repeat(16), "53".repeat(16)], "started": true }),
        ),
        (
            "set admission",
            Message::SetAdmission(SetAdmission { entries: List::new(entries).unwrap() }),
            entries_fields,
        ),
        (
            "set admission, nobody",
            Message::SetAdmission(SetAdmission { entries: List::default() }),
            json!({ "entries": [] }),
        ),
    ]
}

fn storing() -> Vec<Sample> {
    let (alice, bob) = (alice().identity.key(), bob().identity.key());
    let blob: Vec<u8> = (0..=255).cycle().take(300).collect();
    let recipients = vec![
        Recipient { identity_key: alice, admission: Admission::Token(Token::new([0x42; 16])) },
        Recipient {
            identity_key: bob,
            admission: Admission::ProofOfWork { hour: NOW.hour(), nonce: u64::MAX },
        },
        Recipient { identity_key: bob, admission: Admission::Session },
    ];
    let store = StoreMessage {
        blob: Bin::new(blob.clone()).unwrap(),
        recipients: List::new(recipients).unwrap(),
    };
    let store_fields = json!({ "blob": hex(&blob), "recipients": [
        { "identity_key": hex(alice.as_bytes()), "admission": { "token": "42".repeat(16) } },
        { "identity_key": hex(bob.as_bytes()), "admission": { "proof_of_work": { "hour": NOW.hour(), "nonce": u64::MAX } } },
        { "identity_key": hex(bob.as_bytes()), "admission": { "session": null } },
    ]});
    let results = vec![
        StoreResult { refused: None, expires_at: Some(NOW), retry_after: None },
        StoreResult { refused: None, expires_at: None, retry_after: None },
        StoreResult {
            refused: Some(ErrorCode::QuotaExceeded),
            expires_at: None,
            retry_after: Some(60),
        },
    ];
    let results_fields = json!({ "results": [
        { "refused": null, "expires_at": NOW.as_millis(), "retry_after": null },
        { "refused": null, "expires_at": null, "retry_after": null },
        { "refused": 9, "expires_at": null, "retry_after": 60 },
    ]});
    let batch = MessageBatch { messages: List::new(stored(&blob)).unwrap(), has_more: true };
    let batch_fields = json!({ "has_more": true, "messages": stored(&blob).iter().map(|message| json!({
        "sequence": message.sequence,
        "blob_id": message.blob_id.to_string(),
        "stored_at": message.stored_at.as_millis(),
        "blob": hex(&message.blob),
    })).collect::<Vec<_>>() });
    let sequences = vec![1, 127, 128, 65_535, 65_536, 4_294_967_295, 4_294_967_296, u64::MAX];
    vec![
        ("store message", Message::StoreMessage(store), store_fields),
        (
            "store response",
            Message::StoreResponse(StoreResponse { results: List::new(results).unwrap() }),
            results_fields,
        ),
        (
            "retrieve messages",
            Message::RetrieveMessages(RetrieveMessages { window: 1_048_576 }),
            json!({ "window": 1_048_576 }),
        ),
        ("message batch", Message::MessageBatch(batch), batch_fields),
        (
            "message batch, empty",
            Message::MessageBatch(MessageBatch { messages: List::default(), has_more: false }),
            json!({ "messages": [], "has_more": false }),
        ),
        (
            "ack",
            Message::Ack(Ack { sequences: List::new(sequences.clone()).unwrap() }),
            json!({ "sequences": sequences }),
        ),
    ]
}

fn stored(blob: &[u8]) -> Vec<StoredMessage> {
    let recipient = alice().identity.key();
    let message = |sequence: u64, blob: &[u8]| StoredMessage {
        sequence,
        blob_id: BlobId::of(&recipient, blob),
        stored_at: NOW,
        blob: Bin::new(blob.to_vec()).unwrap(),
    };
    vec![message(7, b"short"), message(300, blob)]
}

fn identity_fields(identity: &Identity) -> Value {
    hex(&encode(identity)).into()
}

/// What nodes say to each other, beside what they say to keepers.
fn between_nodes() -> Vec<Sample> {
    let typing = Typing { group: GroupId::new([0x47; 16]), typing: true };
    vec![("typing", Message::Typing(typing), json!({ "group": "47".repeat(16), "typing": true }))]
}

fn key_packages() -> Vec<Sample> {
    let alice = alice();
    let package = |byte: u8| Bin::new(vec![byte; 300]).unwrap();
    let publish = PublishKeyPackages {
        identity: alice.identity.identity().clone(),
        key_packages: List::new(vec![package(1), package(2)]).unwrap(),
        last_resort: Some(package(3)),
        replace: true,
    };
    let publish_fields = json!({
        "identity": identity_fields(alice.identity.identity()),
        "key_packages": [hex(&[1; 300]), hex(&[2; 300])],
        "last_resort": hex(&[3; 300]),
        "replace": true,
    });
    let take = TakeKeyPackage {
        owner: alice.identity.key(),
        admission: Admission::Token(Token::new([0x77; 16])),
    };
    let take_fields = json!({
        "owner": hex(alice.identity.key().as_bytes()),
        "admission": { "token": "77".repeat(16) },
    });
    let taken =
        KeyPackageTaken { identity: alice.identity.identity().clone(), key_package: package(1) };
    let taken_fields = json!({
        "identity": identity_fields(alice.identity.identity()),
        "key_package": hex(&[1; 300]),
    });
    vec![
        ("publish key packages", Message::PublishKeyPackages(publish), publish_fields),
        (
            "key package stock",
            Message::KeyPackageStock(KeyPackageStock { count: 64 }),
            json!({ "count": 64 }),
        ),
        ("take key package", Message::TakeKeyPackage(take), take_fields),
        ("key package taken", Message::KeyPackageTaken(taken), taken_fields),
        (
            "key packages low",
            Message::KeyPackagesLow(KeyPackagesLow { count: 12 }),
            json!({ "count": 12 }),
        ),
    ]
}

/// Where alice is.
const AT: [&str; 3] = ["192.0.2.1:7330", "[2001:db8::1]:7330", "alice.example.org:7330"];

fn registrations() -> Vec<Sample> {
    let alice = alice();
    let registration = Registration { endpoints: endpoint_list(&AT), ttl: 3_600, listed: true };
    let register = Register {
        identity: alice.identity.identity().clone(),
        registration,
        signature: SignatureBytes::new([0x5A; 64]),
        invite: None,
    };
    let register_fields = |invite: Option<String>| {
        json!({
            "identity": identity_fields(alice.identity.identity()),
            "registration": { "endpoints": AT, "ttl": 3_600, "listed": true },
            "signature": "5a".repeat(64),
            "invite": invite,
        })
    };
    let invited = Register { invite: Some(Token::new([0x43; 16])), ..register.clone() };
    let registered = Registered {
        expires_at: NOW,
        renewal_interval: 1_200,
        observed: Some("192.0.2.1:50000".parse().unwrap()),
    };
    vec![
        ("register", Message::Register(register), register_fields(None)),
        (
            "register, with an invitation",
            Message::Register(invited),
            register_fields(Some("43".repeat(16))),
        ),
        (
            "registered",
            Message::Registered(registered),
            json!({ "expires_at": NOW.as_millis(), "renewal_interval": 1_200, "observed": "192.0.2.1:50000" }),
        ),
    ]
}

fn rendezvous() -> Vec<Sample> {
    let alice = alice();
    let key = alice.identity.key();
    let peer = |online: bool| PeerInfo {
        identity: alice.identity.identity().clone(),
        endpoints: if online { endpoint_list(&AT) } else { List::default() },
        last_seen: NOW,
        online,
    };
    let peer_fields = |online: bool| {
        json!({
            "identity": identity_fields(alice.identity.identity()),
            "endpoints": if online { AT.to_vec() } else { Vec::new() },
            "last_seen": NOW.as_millis(),
            "online": online,
        })
    };
    let found =
        LookupResponse { peers: List::new(vec![peer(true), peer(false)]).unwrap(), has_more: true };
    let servers = ["rendezvous.example.org:7332", "192.0.2.3:7332"];
    let key_text = hex(key.as_bytes());
    vec![
        (
            "lookup of one",
            Message::Lookup(Lookup::one(key)),
            json!({ "target": key_text, "list_all": false, "after": null }),
        ),
        (
            "lookup, first page",
            Message::Lookup(Lookup::listed(None)),
            json!({ "target": null, "list_all": true, "after": null }),
        ),
        (
            "lookup, next page",
            Message::Lookup(Lookup::listed(Some(key))),
            json!({ "target": null, "list_all": true, "after": key_text }),
        ),
        (
            "lookup response",
            Message::LookupResponse(found),
            json!({ "peers": [peer_fields(true), peer_fields(false)], "has_more": true }),
        ),
        (
            "lookup response, nobody",
            Message::LookupResponse(LookupResponse { peers: List::default(), has_more: false }),
            json!({ "peers": [], "has_more": false }),
        ),
        ("list servers", Message::ListServers(ListServers()), json!({})),
        (
            "servers",
            Message::Servers(Servers { servers: endpoint_list(&servers), time: NOW }),
            json!({ "servers": servers, "time": NOW.as_millis() }),
        ),
    ]
}
