//! What every fuzz target does with its bytes: hands them to one decoder, and checks what a
//! decoder promises. It never panics; what it accepts has exactly one form.
//!
//! This file is compiled twice: here, and in the workspace's tests, which run the same functions
//! over the golden vectors and many perturbations of them on a stable toolchain.

mod programs;

use std::sync::{Arc, LazyLock};

use sremp_common::chunk::Incoming;
use sremp_common::entropy::Entropy;
use sremp_common::frame::{FrameDecoder, append_frame};
use sremp_common::identity::{Flags, Identity, IdentityData};
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::label::VERSION_HEADER;
use sremp_common::limit::{MAX_MESSAGE_STRANGER, MAX_NOISE_MESSAGE};
use sremp_common::long_frame::{LongFrameReader, encode_long_frame};
use sremp_common::name::Username;
use sremp_common::noise::{Called, Calling, Local, check_header};
use sremp_common::text::{
    decode_contact_link, decode_identity_key, decode_invite, decode_relay_link,
    encode_contact_link, encode_identity_key, encode_invite, encode_relay_link,
};
use sremp_common::time::{Instant, Timestamp};
use sremp_common::wire::{Endpoint, Message, decode, encode};

pub use programs::{
    config, connection, content, group_blob, key_package, leaf_certificate, leaf_info,
    rendezvous_session, sealed_blob, welcome,
};

/// A decoder under test.
pub type Body = fn(&[u8]);

/// Every decoder, by the name of its fuzz target.
pub const BODIES: &[(&str, Body)] = &[
    ("version_header", version_header),
    ("frame", frame),
    ("long_frame", long_frame),
    ("chunk", chunk),
    ("handshake", handshake),
    ("message", message),
    ("identity", identity),
    ("text_form", text_form),
    ("username", username),
    ("endpoint", endpoint),
    ("connection", connection),
    ("rendezvous_session", rendezvous_session),
    ("config", config),
    ("content", content),
    ("leaf_certificate", leaf_certificate),
    ("leaf_info", leaf_info),
    ("sealed_blob", sealed_blob),
    ("group_blob", group_blob),
    ("welcome", welcome),
    ("key_package", key_package),
];

/// The first bytes of a connection.
pub fn version_header(data: &[u8]) {
    if let Some(header) = data.first_chunk() {
        let accepted = check_header(header).is_ok();
        assert_eq!(
            accepted,
            header[..6] == VERSION_HEADER[..6],
            "only the minor version may differ"
        );
    }
}

/// Frames of a Noise connection, arriving in pieces whose length the first byte chooses.
pub fn frame(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let mut decoder = FrameDecoder::default();
    let mut again = Vec::new();
    for mut input in stream.chunks(usize::from(*piece).max(1)) {
        loop {
            match decoder.pull(&mut input, MAX_NOISE_MESSAGE) {
                Ok(Some(message)) => append_frame(&mut again, &message).expect("it was one before"),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    assert!(stream.starts_with(&again), "frames are what the stream says");
}

/// Frames of a rendezvous connection, arriving in pieces in the same way.
pub fn long_frame(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let mut reader = LongFrameReader::new();
    let mut again = Vec::new();
    for mut input in stream.chunks(usize::from(*piece).max(1)) {
        loop {
            match reader.read(&mut input) {
                Ok(Some(message)) => {
                    again.extend(encode_long_frame(&message).expect("it was one before"));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    let messages = stream.get(VERSION_HEADER.len()..).unwrap_or_default();
    assert!(messages.starts_with(&again), "messages are what the stream says");
}

/// Chunks of one connection; each is preceded by its length in one byte, in units of 64 bytes when
/// the top bit is set.
pub fn chunk(mut data: &[u8]) {
    let mut incoming = Incoming::default();
    while let Some((length, rest)) = data.split_first() {
        let length = usize::from(length & 0x7F) * if length & 0x80 == 0 { 1 } else { 64 };
        let (chunk, rest) = rest.split_at(length.min(rest.len()));
        data = rest;
        match incoming.handle_chunk(chunk, MAX_MESSAGE_STRANGER, Instant::default()) {
            Ok(Some(message)) => assert!(message.len() <= MAX_MESSAGE_STRANGER),
            Ok(None) => assert!(incoming.buffered_bytes() <= 8 * MAX_MESSAGE_STRANGER),
            Err(_) => return,
        }
    }
}

/// Both sides of a handshake, each with bytes in place of the other side's message.
pub fn handshake(data: &[u8]) {
    let mut entropy = Entropy::from_number(7);
    if let Ok(called) = Called::start(local(), &VERSION_HEADER, &mut entropy)
        && let Ok((answered, _)) = called.answer(data)
    {
        assert!(answered.finish(data).is_err(), "nobody has proved anything");
    }
    let (calling, first) = Calling::start(local(), None, false, &mut entropy).expect("a message 1");
    assert!(calling.finish(&VERSION_HEADER, data).is_err(), "nobody has proved anything");
    if let Ok(called) = Called::start(local(), &VERSION_HEADER, &mut entropy)
        && let Ok((answered, _)) = called.answer(&first)
    {
        assert!(answered.finish(data).is_err(), "nobody has proved anything");
    }
}

/// Every message of both protocols.
pub fn message(data: &[u8]) {
    if let Ok((request_id, message)) = Message::decode(data) {
        assert_eq!(message.encode(request_id), data, "a message has one form");
    }
}

/// An identity: nothing but its owner's signature makes one.
pub fn identity(data: &[u8]) {
    if let Ok(identity) = decode::<Identity>(data) {
        assert_eq!(encode(&identity), data, "an identity has one form");
        if let Ok(verified) = identity.verify() {
            assert!(verified.version() > 0);
            let _ = (verified.data().relays(), verified.data().seal_key());
        }
    }
    // The signature hides the parser of the signed part from a fuzzer: here it is without.
    if let Ok(signed) = decode::<IdentityData>(data) {
        assert_eq!(encode(&signed), data, "signed data has one form");
        let _ = (signed.relays(), signed.seal_key());
    }
}

/// Ids and links.
pub fn text_form(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let plain = text.trim().to_ascii_lowercase();
    if let Ok(key) = decode_identity_key(text) {
        assert_eq!(encode_identity_key(&key), plain);
    }
    if let Ok(link) = decode_contact_link(text) {
        assert_eq!(encode_contact_link(&link), plain);
    }
    if let Ok(link) = decode_relay_link(text) {
        assert_eq!(encode_relay_link(&link), plain);
    }
    if let Ok(token) = decode_invite(text) {
        assert_eq!(encode_invite(&token), plain);
    }
}

/// Names, as they come from the wire and from a keyboard.
pub fn username(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = Username::from_input(text) {
        assert_eq!(Username::new(&name).as_ref(), Ok(&name), "typed names are legal on the wire");
    }
    if let Ok(name) = Username::new(text) {
        assert_eq!(&*name, text, "names from the wire are not changed");
        assert_eq!(Username::from_input(text).as_ref(), Ok(&name));
    }
}

/// `HOST:PORT`.
pub fn endpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        assert_eq!(endpoint.to_string().parse().as_ref(), Ok(&endpoint));
        assert_eq!(decode::<Endpoint>(&encode(&endpoint)).as_ref(), Ok(&endpoint));
    }
}

/// Somebody who is spoken to.
fn local() -> Arc<Local> {
    static LOCAL: LazyLock<Arc<Local>> = LazyLock::new(|| {
        let mut entropy = Entropy::from_number(1);
        let identity_secret = IdentitySecret::generate(&mut entropy);
        let noise_secret = NoiseSecret::generate(&mut entropy);
        let data = IdentityData {
            username: Username::new("fuzz").expect("a legal name"),
            identity_key: identity_secret.public(),
            noise_key: noise_secret.public(),
            flags: Flags::default(),
            extensions: None,
            version: 1,
            created: Timestamp::from_millis(1_700_000_000_000),
        };
        let identity = data.sign(&identity_secret).expect("a legal identity");
        Arc::new(Local { identity, identity_secret, noise_secret })
    });
    Arc::clone(&LOCAL)
}
