//! Why a parcel has not arrived yet, in words from which its owner can tell what to expect.

use sremp_common::wire::ErrorCode;

use crate::transport::{CallError, DialError};

/// What became of the last attempt to store into one kind of mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// There was no session, and none could be had.
    #[error("not reachable ({0})")]
    Unreachable(DialError),
    /// The session ended before the answer.
    #[error("the connection was lost")]
    Lost,
    /// No answer in time.
    #[error("connected, but does not answer")]
    Silent,
    /// We are nobody whom it lets in.
    #[error("does not let us in: they have not accepted us yet, or no longer do")]
    NotAdmitted,
    /// No room, or too many at a time.
    #[error("has no room at the moment")]
    Full,
    /// It asks to come back later.
    #[error("asks to wait")]
    Later,
    /// Any other refusal.
    #[error("refuses")]
    Refused,
    /// It does not do as the protocol says.
    #[error("gives answers that make no sense")]
    Broken,
}

impl Trouble {
    /// What a refusal means.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "the others say nothing to a person")]
    pub const fn of_refusal(code: ErrorCode) -> Self {
        match code {
            ErrorCode::NotAdmitted | ErrorCode::NotAllowed => Self::NotAdmitted,
            ErrorCode::QuotaExceeded => Self::Full,
            ErrorCode::RateLimited | ErrorCode::Unavailable => Self::Later,
            _ => Self::Refused,
        }
    }

    /// What a call without an answer means.
    #[must_use]
    pub const fn of_call(error: &CallError) -> Self {
        match error {
            CallError::Unreachable(why) => Self::Unreachable(*why),
            CallError::Refused(body) => Self::of_refusal(body.code),
            CallError::TimedOut => Self::Silent,
            CallError::Closed => Self::Lost,
            CallError::Misbehaved(_) => Self::Broken,
            CallError::Rejected => Self::NotAdmitted,
            CallError::Busy => Self::Later,
            CallError::Unsendable => Self::Refused,
        }
    }
}
