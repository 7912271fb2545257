//! What is inside an MLS application message: `[message_id, kind, lamport, sent_at, bin body]`.
//!
//! `lamport` is higher than every number that the author had seen in the conversation, and not
//! below the author's clock in milliseconds (a hybrid logical clock: somebody who has just joined
//! has seen nothing yet). It puts the messages into one order on every member, whatever path they
//! took, and an answer always after what it answers, whatever the clocks say.

use serde::{Deserialize, Serialize};
use sremp_common::id::{IdentityKey, MessageId};
use sremp_common::identity::Identity;
use sremp_common::limit::{MAX_LIFETIME, MAX_REACTION, MAX_TEXT, MIN_LIFETIME};
use sremp_common::time::Timestamp;
use sremp_common::wire::{Bin, Text, WireError, decode, encode};

/// Body of any kind: a text with what surrounds it.
const MAX_BODY: usize = MAX_TEXT + 1024;

/// An application message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The same wherever and however often the message is sent.
    pub message_id: MessageId,
    kind: u16,
    /// See the module.
    pub lamport: u64,
    /// The author's wall clock.
    pub sent_at: Timestamp,
    body: Bin<MAX_BODY>,
}

/// A text, perhaps an answer to another message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextBody {
    /// UTF-8, as typed.
    pub text: Text<MAX_TEXT>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
}

/// The author's identity has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileBody {
    /// The new version; to be verified.
    pub identity: Identity,
}

/// How long a message stays after it was sent, in seconds: within the bounds of the protocol, so that
/// nothing vanishes before it can be read, or pretends to vanish and never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Lifetime(u32);

/// A lifetime outside of the bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message stays for {MIN_LIFETIME} to {MAX_LIFETIME} seconds, not for {0}")]
pub struct LifetimeError(u32);

impl TryFrom<u32> for Lifetime {
    type Error = LifetimeError;

    fn try_from(seconds: u32) -> Result<Self, LifetimeError> {
        let is_bounded = (MIN_LIFETIME..=MAX_LIFETIME).contains(&seconds);
        if is_bounded { Ok(Self(seconds)) } else { Err(LifetimeError(seconds)) }
    }
}

impl From<Lifetime> for u32 {
    fn from(lifetime: Lifetime) -> Self {
        lifetime.0
    }
}

impl Lifetime {
    /// Seconds.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        self.0
    }

    /// When a message is to vanish here. Its author's clock counts from when it was sent; but a clock
    /// that is ahead keeps nothing for longer than its lifetime after it came, and one that is behind,
    /// or a long way through relays, leaves at least half of its lifetime to read it.
    #[must_use]
    pub fn end(self, sent_at: Timestamp, received_at: Timestamp) -> Timestamp {
        let lifetime = u64::from(self.0).saturating_mul(1000);
        let earliest = received_at.as_millis().saturating_sub(lifetime / 2);
        let sent = sent_at.as_millis().clamp(earliest, received_at.as_millis());
        Timestamp::from_millis(sent.saturating_add(lifetime))
    }
}

/// What the author of this content thinks of a message, in as little as one character.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReactionBody {
    /// Who wrote the message: two authors may have chosen one id.
    pub author: IdentityKey,
    /// The message.
    pub target: MessageId,
    /// Most often an emoji; empty: the earlier one is taken back.
    pub reaction: Text<MAX_REACTION>,
}

/// Another text for a message of the same author.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditBody {
    /// The message.
    pub target: MessageId,
    /// What it says from now on.
    pub text: Text<MAX_TEXT>,
    /// The message's, so that whoever waits for the message does not keep its text for longer.
    pub lifetime: Option<Lifetime>,
}

/// A message of the same author is to be shown no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteBody {
    /// The message.
    pub target: MessageId,
}

/// From now on messages of the conversation vanish after some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimerBody {
    /// After how long; nothing: they stay.
    pub lifetime: Option<Lifetime>,
}

/// A text that vanishes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FadingTextBody {
    /// UTF-8, as typed.
    pub text: Text<MAX_TEXT>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// After how long.
    pub lifetime: Lifetime,
}

/// What a content says, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kind 1.
    Text(TextBody),
    /// Kind 2.
    Profile(ProfileBody),
    /// Kind 3.
    Reaction(ReactionBody),
    /// Kind 4.
    Edit(EditBody),
    /// Kind 5.
    Delete(DeleteBody),
    /// Kind 6.
    Timer(TimerBody),
    /// Kind 7.
    FadingText(FadingTextBody),
    /// A kind of a newer version: kept, and shown as "not supported yet".
    Unknown(u16),
}

impl Kind {
    /// The kind's number on the wire.
    #[must_use]
    pub const fn number(&self) -> u16 {
        match self {
            Self::Text(_) => 1,
            Self::Profile(_) => 2,
            Self::Reaction(_) => 3,
            Self::Edit(_) => 4,
            Self::Delete(_) => 5,
            Self::Timer(_) => 6,
            Self::FadingText(_) => 7,
            Self::Unknown(number) => *number,
        }
    }
}

impl Content {
    /// A message of a known kind.
    #[must_use]
    pub fn new(message_id: MessageId, kind: &Kind, lamport: u64, sent_at: Timestamp) -> Self {
        let body = match kind {
            Kind::Text(body) => encode(body),
            Kind::Profile(body) => encode(body),
            Kind::Reaction(body) => encode(body),
            Kind::Edit(body) => encode(body),
            Kind::Delete(body) => encode(body),
            Kind::Timer(body) => encode(body),
            Kind::FadingText(body) => encode(body),
            Kind::Unknown(_) => Vec::new(),
        };
        // The bodies' own bounds add up to less than this one's.
        let body = Bin::new(body).unwrap_or_default();
        Self { message_id, kind: kind.number(), lamport, sent_at, body }
    }

    /// The bytes that MLS encrypts.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what MLS decrypted: the message, and what it says.
    ///
    /// # Errors
    /// [`WireError`] when it is not a content, or not what its kind promises.
    pub fn from_bytes(bytes: &[u8]) -> Result<(Self, Kind), WireError> {
        let content: Self = decode(bytes)?;
        let kind = match content.kind {
            1 => Kind::Text(decode(&content.body)?),
            2 => Kind::Profile(decode(&content.body)?),
            3 => Kind::Reaction(decode(&content.body)?),
            4 => Kind::Edit(decode(&content.body)?),
            5 => Kind::Delete(decode(&content.body)?),
            6 => Kind::Timer(decode(&content.body)?),
            7 => Kind::FadingText(decode(&content.body)?),
            unknown => Kind::Unknown(unknown),
        };
        Ok((content, kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_kinds_are_kept() {
        let id = MessageId::new([7; 16]);
        let now = Timestamp::from_millis(5);
        let content = Content::new(id, &Kind::Unknown(77), 3, now);
        let (read, kind) = Content::from_bytes(&content.to_bytes()).unwrap();
        assert_eq!((read, kind), (content, Kind::Unknown(77)));
    }

    #[test]
    fn a_text_round_trips_and_nothing_else_does() {
        let kind = Kind::Text(TextBody { text: Text::new("hi").unwrap(), reply_to: None });
        let content = Content::new(MessageId::new([1; 16]), &kind, 1, Timestamp::from_millis(9));
        let bytes = content.to_bytes();
        assert_eq!(Content::from_bytes(&bytes).unwrap().1, kind);
        for cut in 0..bytes.len() {
            assert!(Content::from_bytes(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn every_kind_round_trips() {
        let target = MessageId::new([9; 16]);
        let lifetime = Lifetime::try_from(MIN_LIFETIME).unwrap();
        let author = sremp_common::key::IdentitySecret::generate(
            &mut sremp_common::entropy::Entropy::from_number(1),
        );
        let text = |text: &str| Text::new(text).unwrap();
        let reaction = |reaction: &str| ReactionBody {
            author: author.public(),
            target,
            reaction: Text::new(reaction).unwrap(),
        };
        for kind in [
            Kind::Reaction(reaction("+1")),
            Kind::Reaction(reaction("")),
            Kind::Edit(EditBody { target, text: text("better"), lifetime: None }),
            Kind::Edit(EditBody { target, text: text("better"), lifetime: Some(lifetime) }),
            Kind::Delete(DeleteBody { target }),
            Kind::Timer(TimerBody { lifetime: Some(lifetime) }),
            Kind::Timer(TimerBody { lifetime: None }),
            Kind::FadingText(FadingTextBody { text: text("x"), reply_to: Some(target), lifetime }),
        ] {
            let id = MessageId::new([1; 16]);
            let content = Content::new(id, &kind, 1, Timestamp::from_millis(9));
            let bytes = content.to_bytes();
            assert_eq!(Content::from_bytes(&bytes).unwrap(), (content, kind));
        }
    }

    #[test]
    fn lifetimes_are_bounded_and_no_clock_stretches_or_voids_them() {
        assert!(Lifetime::try_from(MIN_LIFETIME - 1).is_err());
        assert!(Lifetime::try_from(MAX_LIFETIME + 1).is_err());
        let lifetime = Lifetime::try_from(100).unwrap();
        let end = |sent, received| {
            let end = lifetime.end(Timestamp::from_millis(sent), Timestamp::from_millis(received));
            end.as_millis()
        };
        assert_eq!(end(1_000_000, 1_000_500), 1_100_000, "from when it was sent");
        assert_eq!(end(u64::MAX, 1_000_000), 1_100_000, "a clock in the future");
        assert_eq!(end(0, 1_000_000), 1_050_000, "half of it is left at least");
    }
}
