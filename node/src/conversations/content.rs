//! What is inside an MLS application message: `[message_id, kind, lamport, sent_at, bin body]`.
//!
//! `lamport` is higher than every number that the author had seen in the conversation, and not
//! below the author's clock in milliseconds (a hybrid logical clock: somebody who has just joined
//! has seen nothing yet). It puts the messages into one order on every member, whatever path they
//! took, and an answer always after what it answers, whatever the clocks say.

use serde::{Deserialize, Serialize};
use sremp_common::id::MessageId;
use sremp_common::identity::Identity;
use sremp_common::limit::MAX_TEXT;
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

/// What a content says, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kind 1.
    Text(TextBody),
    /// Kind 2.
    Profile(ProfileBody),
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
            Self::Unknown(number) => *number,
        }
    }

    /// The kind's name for people and scripts.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Profile(_) => "profile",
            Self::Unknown(_) => "unknown",
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
}
