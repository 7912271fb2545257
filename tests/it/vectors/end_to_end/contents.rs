//! Contents of application messages.

use serde_json::{Value, json};
use sremp_common::id::{MessageId, hex};
use sremp_common::limit::{MAX_LIFETIME, MIN_LIFETIME};
use sremp_common::wire::{Bin, Text, encode};
use sremp_node::conversations::content::{
    Content, DeleteBody, EditBody, FadingTextBody, Kind, Lifetime, ProfileBody, ReactionBody,
    TextBody, TimerBody,
};

use super::super::cast::{NOW, alice};
use super::super::file::File;
use super::super::mutate::{extended, truncated};

const ID: MessageId = MessageId::new([0x3D; 16]);
const OTHER: MessageId = MessageId::new([0x0F; 16]);

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
    ]
    .into_iter()
    .chain(changes())
    {
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
    let target = [b"\xC4\x10".as_slice(), OTHER.as_bytes()].concat();
    let body = |head: &[u8], tail: &[u8]| [head, &target, tail].concat();
    let nobody = [b"\x93\xC4\x20".as_slice(), &[0; 32], &target, b"\xA1x"].concat();
    refuse("reaction to nobody", "an author is a valid key", &raw(3, &nobody));
    let key = alice().identity.key();
    let long = [b"\x93\xC4\x20".as_slice(), key.as_bytes(), &target, b"\xD9\x41"];
    let long = [long.concat(), vec![b'x'; 65]].concat();
    refuse("long reaction", "a reaction has at most 64 bytes", &raw(3, &long));
    refuse("edit without lifetime", "an edit has three fields", &raw(4, &body(b"\x92", b"\xA1x")));
    let short = body(b"\x93", b"\xA1x\x3B");
    refuse("edit with a short lifetime", "a lifetime has at least 60 seconds", &raw(4, &short));
    refuse("delete with text", "a deletion has one field", &raw(5, &body(b"\x92", b"\xA1x")));
    refuse("timer of 59 s", "a lifetime has at least 60 seconds", &raw(6, b"\x91\x3B"));
    let endless = raw(6, b"\x91\xCE\x01\xE1\x33\x81");
    refuse("timer above a year", "a lifetime has at most 31,536,000 seconds", &endless);
    let stays = raw(7, b"\x93\xA1x\xC0\xC0");
    refuse("fading text that stays", "it has a lifetime", &stays);
    refuse("profile without identity", "an identity is an array of two", &raw(2, b"\x91\xC0"));
}

/// What is done to messages after they were written, and what vanishes.
fn changes() -> Vec<(&'static str, (Kind, Value))> {
    let author = alice().identity.key();
    let reaction = |reaction: &str| {
        let reaction = Text::new(reaction).unwrap();
        let body = json!({
            "author": hex(author.as_bytes()),
            "target": OTHER.to_string(),
            "reaction": reaction.to_string(),
        });
        (Kind::Reaction(ReactionBody { author, target: OTHER, reaction }), body)
    };
    let edit = |seconds: Option<u32>| {
        let text = Text::new("Fine, thanks.").unwrap();
        let fields = json!({
            "target": OTHER.to_string(), "text": text.to_string(), "lifetime": seconds,
        });
        let lifetime = seconds.map(|seconds| Lifetime::try_from(seconds).unwrap());
        (Kind::Edit(EditBody { target: OTHER, text, lifetime }), fields)
    };
    let timer = |seconds: Option<u32>| {
        let lifetime = seconds.map(|seconds| Lifetime::try_from(seconds).unwrap());
        (Kind::Timer(TimerBody { lifetime }), json!({ "lifetime": seconds }))
    };
    let fading = FadingTextBody {
        text: Text::new("Burn this.").unwrap(),
        reply_to: None,
        lifetime: Lifetime::try_from(3600).unwrap(),
    };
    let fading_fields = json!({ "text": "Burn this.", "reply_to": null, "lifetime": 3600 });
    vec![
        ("reaction", reaction("👍🏽")),
        ("reaction taken back", reaction("")),
        ("edit", edit(None)),
        ("edit of a fading text", edit(Some(MIN_LIFETIME))),
        (
            "delete",
            (Kind::Delete(DeleteBody { target: OTHER }), json!({ "target": OTHER.to_string() })),
        ),
        ("timer", timer(Some(MAX_LIFETIME))),
        ("timer off", timer(None)),
        ("fading text", (Kind::FadingText(fading), fading_fields)),
    ]
}

/// Any body.
fn raw(kind: u16, body: &[u8]) -> Vec<u8> {
    encode(&(ID, kind, 1_u64, NOW, Bin::<1000>::new(body.to_vec()).unwrap()))
}
