//! What people see: conversations, their messages in one agreed order, requests of strangers.
//!
//! Rows and rules only; who must be told what is decided in [`crate::node`].

pub mod change;
pub mod content;
pub mod conversation;
pub mod history;
pub mod invite;
pub mod last_heard;
pub mod request;
pub mod unheard;

pub use change::{ChangeKind, ChangeRow, Changes, Target};
pub use content::{Content, Kind};
pub use conversation::{Conversation, ConversationId, Standing};
pub use history::{History, MessageRow, RowKind};
pub use invite::{Invite, Invites};
pub use last_heard::LastHeard;
pub use request::{Request, Requests};
pub use unheard::Unheard;
