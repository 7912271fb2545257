//! What a keeper remembers about who may come in: invitations, and who is banned. As with
//! [`Mailboxes`](super::Mailboxes), one value lives for one transaction, and what the rules mean is
//! decided in [`crate::engine`].

use sremp_common::id::TokenHash;
pub use sremp_common::invite::Invite;
use sremp_common::time::Timestamp;

use super::StoreError;

/// Bans that a store keeps.
pub const MAX_BANS: usize = 10_000;
/// Bytes of the text of a ban.
pub const MAX_BAN: usize = 128;

/// The operations on the rules. Every method fails only with a [`StoreError`].
pub trait Rules {
    /// Keeps an invitation, known by its token's hash only. False when there is no room for it.
    fn add_invite(&mut self, token: &TokenHash, invite: Invite) -> Result<bool, StoreError>;

    /// Every invitation, in the order of the hashes.
    fn invites(&mut self) -> Result<Vec<(TokenHash, Invite)>, StoreError>;

    /// Takes an invitation back. False when there was none.
    fn remove_invite(&mut self, token: &TokenHash) -> Result<bool, StoreError>;

    /// Uses an invitation up by one owner; with the last one it is gone. False when there is none
    /// that is good at `now`.
    fn spend_invite(&mut self, token: &TokenHash, now: Timestamp) -> Result<bool, StoreError>;

    /// Drops invitations whose time is over at `now`.
    fn expire_invites(&mut self, now: Timestamp) -> Result<(), StoreError>;

    /// Writes down a ban, as a text that the caller understands. False when there is no room.
    fn ban(&mut self, whom: &str) -> Result<bool, StoreError>;

    /// Takes a ban back. False when there was none.
    fn unban(&mut self, whom: &str) -> Result<bool, StoreError>;

    /// Every ban, in order.
    fn bans(&mut self) -> Result<Vec<String>, StoreError>;
}
