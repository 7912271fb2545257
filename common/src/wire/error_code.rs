//! The one list of error codes, for both protocols. It fills the specification's error gap (10.4).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What went wrong, as a number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorCode {
    /// The request could not be decoded, or broke a rule of its type.
    Malformed,
    /// The request's type is unknown here, or not served.
    Unsupported,
    /// Not allowed in this kind of session, or before something else.
    NotAllowed,
    /// Signature, proof, token or proof of work is wrong.
    AuthenticationFailed,
    /// The admission does not open this mailbox.
    NotAdmitted,
    /// No such mailbox, identity or key package.
    NotFound,
    /// Longer than this server takes.
    TooLarge,
    /// Too many requests; try again after `retry_after`.
    RateLimited,
    /// The mailbox, or a quota of it, is full.
    QuotaExceeded,
    /// The server has no room or is shutting down; try again elsewhere or later.
    Unavailable,
    /// An older version, or another content under the same version, of what is known already.
    Stale,
    /// The server failed; nothing was stored.
    Internal,
    /// Normal end of a session.
    Goodbye,
    /// A second session of the same pair won.
    Duplicate,
    /// The major version differs.
    VersionMismatch,
    /// Too slow, too silent, or too long in the handshake.
    TimedOut,
    /// A code that this version does not know.
    Other(u16),
}

impl ErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Malformed => 1,
            Self::Unsupported => 2,
            Self::NotAllowed => 3,
            Self::AuthenticationFailed => 4,
            Self::NotAdmitted => 5,
            Self::NotFound => 6,
            Self::TooLarge => 7,
            Self::RateLimited => 8,
            Self::QuotaExceeded => 9,
            Self::Unavailable => 10,
            Self::Stale => 11,
            Self::Internal => 12,
            Self::Goodbye => 13,
            Self::Duplicate => 14,
            Self::VersionMismatch => 15,
            Self::TimedOut => 16,
            Self::Other(number) => number,
        }
    }

    /// The code of a number; unknown numbers are kept.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::Malformed,
            2 => Self::Unsupported,
            3 => Self::NotAllowed,
            4 => Self::AuthenticationFailed,
            5 => Self::NotAdmitted,
            6 => Self::NotFound,
            7 => Self::TooLarge,
            8 => Self::RateLimited,
            9 => Self::QuotaExceeded,
            10 => Self::Unavailable,
            11 => Self::Stale,
            12 => Self::Internal,
            13 => Self::Goodbye,
            14 => Self::Duplicate,
            15 => Self::VersionMismatch,
            16 => Self::TimedOut,
            other => Self::Other(other),
        }
    }

    /// Whether the same request may succeed later, unchanged.
    #[must_use]
    pub const fn is_temporary(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::QuotaExceeded
                | Self::Unavailable
                | Self::Internal
                | Self::TimedOut
        )
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(self.number())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u16::deserialize(deserializer).map(Self::from_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_codes_are_one_to_one() {
        for number in 0..64 {
            assert_eq!(ErrorCode::from_number(number).number(), number);
        }
    }
}
