//! Invitations: what an operator gives away so that somebody new may come in, where not everybody may.
//!
//! An invitation is a token that nobody can guess. The server keeps its hash, for how many people it
//! is good, and until when; where it keeps them is its own concern.

use crate::time::Timestamp;

/// Invitations that a server keeps; one more is refused.
pub const MAX_INVITES: usize = 10_000;

/// New people for whom one invitation is good at most.
pub const MAX_USES: u32 = 1_000_000;

/// Seconds for which one invitation is good at most: ten years.
pub const MAX_LASTS: u64 = 10 * 365 * 86_400;

/// What is known of an invitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invite {
    /// New people whom it still lets in.
    pub uses: u32,
    /// When it is worth nothing any more.
    pub expires_at: Timestamp,
}

impl Invite {
    /// Whether it lets somebody in.
    #[must_use]
    pub fn is_good(&self, now: Timestamp) -> bool {
        now < self.expires_at && self.uses > 0
    }

    /// What is left of it when one more has come in: nothing to keep, when it has no uses then.
    /// `None` when it lets nobody in.
    #[must_use]
    pub fn spent(self, now: Timestamp) -> Option<Self> {
        self.is_good(now).then(|| Self { uses: self.uses.saturating_sub(1), ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_used_up_and_grows_old() {
        let at = Timestamp::from_millis;
        let twice = Invite { uses: 2, expires_at: at(100) };
        let once = twice.spent(at(99)).unwrap();
        assert_eq!((once.uses, once.expires_at), (1, at(100)));
        let none = once.spent(at(0)).unwrap();
        assert_eq!(none.uses, 0);
        assert!(!none.is_good(at(0)) && none.spent(at(0)).is_none());
        assert!(!twice.is_good(at(100)) && twice.spent(at(100)).is_none());
    }
}
