//! `messages.json`: every message type, field by field, and encodings that must be refused.

use std::collections::BTreeSet;

use serde_json::json;
use sremp_common::id::hex;
use sremp_common::wire::Message;

use super::cast::alice;
use super::file::File;
use super::mutate::{extended, position, replaced, truncated};
use super::samples;

pub(super) fn file() -> File {
    let mut file = File::new(
        "messages.json",
        "[type, request_id, body] with the fields of the body. Protocol sections 2, 7 and 8.",
    );
    let request_ids = [0, 1, 127, 128, 255, 256, 65_536, 1 << 32, u64::MAX];
    let mut seen = BTreeSet::new();
    for ((name, message, fields), request_id) in
        samples::all().into_iter().zip(request_ids.into_iter().cycle())
    {
        let bytes = message.encode(request_id);
        assert_eq!(Message::decode(&bytes), Ok((request_id, message.clone())));
        file.valid(
            name,
            json!({
                "type": message.type_number(),
                "request_id": request_id,
                "fields": fields,
                "bytes": hex(&bytes),
            }),
        );
        refuse(
            &mut file,
            &format!("{name}, truncated"),
            "the last byte is missing",
            &truncated(&bytes),
        );
        refuse(&mut file, &format!("{name}, extended"), "a byte follows", &extended(&bytes));
        if seen.insert(message.type_number()) {
            add_wrong_count(&mut file, name, &message);
        }
    }
    assert_eq!(seen, Message::TYPE_NUMBERS.iter().copied().collect(), "a type has no sample");
    add_heads(&mut file);
    add_second_forms(&mut file);
    add_broken_bounds(&mut file);
    file
}

fn refuse(file: &mut File, name: &str, why: &str, bytes: &[u8]) {
    assert!(Message::decode(bytes).is_err(), "{name} is accepted");
    file.mutated(name, why, json!({ "bytes": hex(bytes) }));
}

/// The body with one field more, so that a decoder that ignores what it does not know shows.
fn add_wrong_count(file: &mut File, name: &str, message: &Message) {
    let bytes = message.encode(2);
    let body_header = bytes.get(head_length(&bytes)).copied().unwrap();
    assert_eq!(body_header & 0xF0, 0x90, "a body is a short array");
    let longer =
        replaced(&extended(&bytes), head_length(&bytes), 1, &[body_header.checked_add(1).unwrap()]);
    refuse(file, &format!("{name}, one field more"), "a struct has exactly its fields", &longer);
}

/// Array header, type and a request id below 128.
fn head_length(bytes: &[u8]) -> usize {
    assert_eq!(bytes.first(), Some(&0x93));
    if bytes.get(1) == Some(&0xCC) { 4 } else { 3 }
}

/// The envelope itself.
fn add_heads(file: &mut File) {
    let ping = b"\x93\x01\x00\x90";
    assert!(Message::decode(ping).is_ok());
    refuse(file, "no bytes", "nothing at all", b"");
    refuse(file, "unknown type", "type 99 is unassigned", b"\x93\x63\x00\x90");
    refuse(file, "type beyond u8", "a type is a u8", b"\x93\xCD\x01\x00\x00\x90");
    refuse(file, "type in two bytes", "not the shortest form", b"\x93\xCC\x01\x00\x90");
    refuse(file, "request id in two bytes", "not the shortest form", b"\x93\x01\xCC\x00\x90");
    refuse(file, "request id signed", "int 8 instead of positive fixint", b"\x93\x01\xD0\x00\x90");
    refuse(file, "request id negative", "request ids are unsigned", b"\x93\x01\xFF\x90");
    refuse(file, "envelope in array 16", "not the shortest form", b"\xDC\x00\x03\x01\x00\x90");
    refuse(file, "envelope of two", "the body is missing", b"\x92\x01\x00");
    refuse(file, "envelope of four", "a fourth element", b"\x94\x01\x00\x90\x90");
    refuse(file, "body nil", "a struct without fields is an empty array", b"\x93\x01\x00\xC0");
    refuse(file, "body a map", "structs are arrays", b"\x93\x01\x00\x80");
    refuse(file, "body in array 16", "not the shortest form", b"\x93\x01\x00\xDC\x00\x00");
}

/// Other encodings of a value that is fine.
fn add_second_forms(file: &mut File) {
    refuse(file, "code in three bytes", "not the shortest form", b"\x93\x03\x00\x91\xCD\x00\x0D");
    refuse(file, "code as float", "floats do not occur", b"\x93\x03\x00\x91\xCA\x41\x50\x00\x00");
    refuse(file, "text in str 8", "not the shortest form", b"\x93\x00\x00\x93\x05\xD9\x01x\xC0");
    refuse(file, "text as bin", "a text is not bytes", b"\x93\x00\x00\x93\x05\xC4\x01x\xC0");
    refuse(file, "text not UTF-8", "0xff is not UTF-8", b"\x93\x00\x00\x93\x05\xA1\xFF\xC0");
    let sample = |wanted: &str| {
        let (_, message, _) =
            samples::all().into_iter().find(|(name, ..)| *name == wanted).unwrap();
        message.encode(0)
    };
    let key = *alice().identity.key().as_bytes();
    let take = sample("take key package");
    let key_at = position(&take, &key).checked_sub(2).unwrap();
    let in_bin_16 = replaced(&take, key_at, 2, &[0xC5, 0x00, 0x20]);
    refuse(file, "key in bin 16", "not the shortest form", &in_bin_16);
    let as_str = replaced(&take, key_at, 2, &[0xD9, 0x20]);
    refuse(file, "key as text", "a key is bytes", &as_str);
    let numbers: Vec<u8> = key
        .iter()
        .flat_map(|byte| if *byte < 128 { vec![*byte] } else { vec![0xCC, *byte] })
        .collect();
    let as_list = replaced(&take, key_at, 34, &[&[0xDC, 0x00, 0x20], numbers.as_slice()].concat());
    refuse(file, "key as list", "a key is bytes", &as_list);
    let short = replaced(&take, key_at, 3, &[0xC4, 0x1F]);
    refuse(file, "key of 31 bytes", "an identity key has 32 bytes", &short);
    let weak = replaced(&take, key_at.checked_add(2).unwrap(), 32, &[0; 32]);
    refuse(file, "key of small order", "not an identity key", &weak);
    let with_nil = replaced(&sample("list servers"), 3, 1, &[0x91, 0xC0]);
    refuse(file, "nil in an empty struct", "a struct without fields is an empty array", &with_nil);
}

/// Values beyond the bounds of their fields.
fn add_broken_bounds(file: &mut File) {
    let error = |length: u16| {
        [
            b"\x93\x00\x00\x93\x05\xDA".as_slice(),
            &length.to_be_bytes(),
            &vec![b'x'; length.into()],
            b"\xC0",
        ]
        .concat()
    };
    assert!(Message::decode(&error(256)).is_ok());
    refuse(file, "error text of 257 bytes", "at most 256 bytes", &error(257));
    refuse(file, "code beyond u16", "a code is a u16", b"\x93\x03\x00\x91\xCE\x00\x01\x00\x00");
    refuse(file, "difficulty beyond u8", "a pow_difficulty is a u8", &{
        let (_, message, _) =
            samples::all().into_iter().find(|(name, ..)| *name == "relay info").unwrap();
        let bytes = message.encode(0);
        let at = position(&bytes, b"\xCE\x00\x27\x8D\x00\x14").checked_add(5).unwrap();
        replaced(&bytes, at, 1, &[0xCD, 0x01, 0x00])
    });
    refuse(
        file,
        "announced bytes that do not come",
        "4 GiB announced",
        b"\x93\x15\x00\x92\xC6\xFF\xFF\xFF\xFF",
    );
    refuse(
        file,
        "announced list that does not come",
        "4,294,967,295 elements announced",
        b"\x93\x19\x00\x91\xDD\xFF\xFF\xFF\xFF",
    );
    let acks = |count: u16| {
        [b"\x93\x19\x00\x91\xDC".as_slice(), &count.to_be_bytes(), &vec![1; count.into()]].concat()
    };
    assert!(Message::decode(&acks(4_096)).is_ok());
    refuse(file, "4,097 acknowledgements", "at most 4,096", &acks(4_097));
    refuse(
        file,
        "port 65,536",
        "a port is a u16",
        b"\x93\x45\x00\x92\x91\x92\xA1x\xCE\x00\x01\x00\x00\x00",
    );
    add_admissions(file);
    add_hosts(file);
}

/// What lets somebody in, in other forms than the three.
fn add_admissions(file: &mut File) {
    let take = |admission: &[u8]| {
        [b"\x93\x1C\x00\x92\xC4\x20".as_slice(), alice().identity.key().as_bytes(), admission]
            .concat()
    };
    assert!(Message::decode(&take(b"\x92\x00\xC0")).is_ok());
    refuse(file, "admission of an unknown tag", "tags are 0, 1 and 2", &take(b"\x92\x03\xC0"));
    refuse(file, "admission session with a value", "the value is nil", &take(b"\x92\x00\x01"));
    refuse(file, "admission without value", "an array of two", &take(b"\x91\x00"));
    refuse(
        file,
        "admission with a token of 15 bytes",
        "a token has 16 bytes",
        &take(&[b"\x92\x01\xC4\x0F".as_slice(), &[1; 15]].concat()),
    );
    refuse(
        file,
        "admission with a proof of one number",
        "hour and nonce",
        &take(b"\x92\x02\x91\x01"),
    );
    let class = |class: u8| {
        [b"\x93\x14\x00\x91\x91\x93\xC4\x20".as_slice(), &[9; 32], &[class, 0]].concat()
    };
    assert!(Message::decode(&class(1)).is_ok());
    refuse(file, "admission class 2", "classes are 0 and 1", &class(2));
}

/// Names that are none.
fn add_hosts(file: &mut File) {
    let server = |host: &[u8]| [b"\x93\x45\x00\x92\x91\x92".as_slice(), host, b"\x01\x00"].concat();
    assert!(Message::decode(&server(b"\xA1x")).is_ok());
    for (name, host) in [
        ("in upper case", b"\xA1X".as_slice()),
        ("empty", b"\xA0"),
        ("with an underscore", b"\xA3a_b"),
        ("with a hyphen in front", b"\xA2-a"),
        ("with an empty label", b"\xA4a..b"),
        ("that ends with a dot", b"\xA2a."),
        ("that looks like an address", b"\xA71.2.3.4"),
        ("not in ASCII", b"\xA2\xC3\xA4"),
        ("of five bytes", b"\xC4\x05abcde"),
        ("that is a number", b"\x07"),
    ] {
        refuse(file, &format!("host {name}"), "a DNS name, or 4 or 16 bytes", &server(host));
    }
}
