//! Contents of application messages.

use serde_json::{Value, json};
use sremp_common::id::{MessageId, hex};
use sremp_common::wire::{Bin, Text, encode};
use sremp_node::conversations::content::{Content, Kind, ProfileBody, TextBody};

use super::super::cast::{NOW, alice};
use super::super::file::File;
use super::super::mutate::{extended, truncated};

const ID: MessageId = MessageId::new([0x3D; 16]);

pub(super) fn add(file: &mut File) {
    let text = |text: &str, reply_to: Option<MessageId>| {
        let body = json!({ "text": text, "reply_to": reply_to.map(|id| id.to_string()) });
        (Kind::Text(TextBody { text: Text::new(text).unwrap(), reply_to }), body)
    };
    let profile = ProfileBody { identity: alice().identity.identity().clone() };
    let profile_fields = json!({ "identity": hex(&encode(&profile.identity)) });
    for (name, (kind, body)) in [
        ("text", text("Grüezi!\nHow are you?", None)),
        ("reply", text("Fine.", Some(MessageId::new([0x0F; 16])))),
        ("empty text", text("", None)),
        ("profile", (Kind::Profile(profile), profile_fields)),
        ("unknown kind", (Kind::Unknown(40_000), Value::Null)),
    ] {
        let bytes = Content::new(ID, &kind, 300, NOW).to_bytes();
        assert_eq!(Content::from_bytes(&bytes).unwrap().1, kind);
        file.valid(
            &format!("content, {name}"),
            json!({
                "kind": "content",
                "bytes": hex(&bytes),
                "fields": {
                    "message_id": ID.to_string(),
                    "kind": kind.number(),
                    "lamport": 300,
                    "sent_at": NOW.as_millis(),
                },
                "body": body,
            }),
        );
    }
    let mut refuse = |name: &str, why: &str, bytes: &[u8]| {
        assert!(Content::from_bytes(bytes).is_err(), "{name} is accepted");
        file.mutated(
            &format!("content, {name}"),
            why,
            json!({ "kind": "content", "bytes": hex(bytes) }),
        );
    };
    let bytes = Content::new(ID, &text("x", None).0, 1, NOW).to_bytes();
    refuse("truncated", "the last byte is missing", &truncated(&bytes));
    refuse("extended", "a byte follows", &extended(&bytes));
    refuse("text without reply", "a text has two fields", &raw(1, b"\x91\xA1x"));
    refuse("text as bytes", "a text is text", &raw(1, b"\x92\xC4\x01x\xC0"));
    refuse("text and a byte", "a byte follows the body", &raw(1, b"\x92\xA1x\xC0\xC0"));
    refuse("reply to a short id", "a message id has 16 bytes", &raw(1, b"\x92\xA1x\xC4\x01\x00"));
    refuse("profile without identity", "an identity is an array of two", &raw(2, b"\x91\xC0"));
}

/// Any body.
fn raw(kind: u16, body: &[u8]) -> Vec<u8> {
    encode(&(ID, kind, 1_u64, NOW, Bin::<1000>::new(body.to_vec()).unwrap()))
}
