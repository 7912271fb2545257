//! Who may do what: the group-context extension, and the judgement over every commit.

/// Which rule a change breaks.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// Only admins may do this.
    #[error("only admins may do this")]
    NotAdmin,
}
