//! The local interface as plain data: what can be asked of a running node, what it answers, and
//! what it tells unasked. No I/O, no formatting for people; both ends of the socket share it.
//!
//! [`Command`] goes in, [`Reply`] or [`ApiError`] comes out, [`Event`] flows on its own. The JSON
//! of every view is fixed by the command line's grammar; fields may be added, none renamed.

mod command;
pub mod event;
pub mod json;
pub mod route;
#[cfg(test)]
pub(crate) mod sample;
pub mod view;
pub mod who;
pub mod word;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sremp_common::name::Username;
use sremp_common::wire::Endpoint;

pub use command::Command;
pub use event::{Change, ConnectionKind, Event, EventBody, EventKind, MessageChange};
pub use view::{
    ContactView, Direction, DoubtKind, DoubtView, EventPage, FlagsView, GroupRow, GroupState,
    GroupView, HealingStep, HealingView, IdentityView, InitReply, LinkKind, LinkView, MemberView,
    MessageKind, MessageView, PathState, PeerView, PersonView, ReactionView, RecipientView,
    RelayRecordView, RelayView, RemovedView, RendezvousView, Reply, RequestView, Role, SentView,
    SessionView, StatusView, TimerView, Trust, WorkView,
};

/// Rows of history in one answer, at most.
pub const MAX_HISTORY: u32 = 1000;
/// Rows of history when nobody says how many.
pub const DEFAULT_HISTORY: u32 = 50;
/// Events in one page of a replay.
pub const MAX_EVENT_PAGE: u32 = 256;
/// Bytes of an alias, a group's name, or whatever names somebody on the command line.
pub const MAX_WHO: usize = 256;
/// Members that one command may add to a group.
pub const MAX_ADDED: usize = 256;

/// What a new home is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// What its owner is called.
    pub name: Username,
    /// Where the node will listen; [`None`]: the default.
    pub listen: Option<SocketAddr>,
    /// Where others may dial it.
    pub advertise: Vec<Endpoint>,
    /// Rendezvous servers.
    pub rendezvous: Vec<ServerOptions>,
    /// Relay links.
    pub relays: Vec<String>,
}

/// A rendezvous server as its user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Where.
    pub server: Endpoint,
    /// Absolute path of the certificate authority to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// An invitation, for a server that takes nobody new without.
    pub invite: Option<String>,
}

/// How far a message has come. Only ever moves forward.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum MessageState {
    /// Durable here.
    Queued,
    /// A mailbox of the recipient holds it durably.
    Sent,
    /// The recipient's node has processed it, and signed that. Received messages start here.
    Delivered,
    /// It was read.
    Read,
    /// It will not arrive; the error says why.
    Failed,
}

impl MessageState {
    /// Whether waiting for `wanted` is over: reached, passed, or hopeless.
    #[must_use]
    pub fn ends_wait_for(self, wanted: Self) -> bool {
        self >= wanted
    }

    /// Whether a message in this state has come as far as `wanted`.
    #[must_use]
    pub fn has_reached(self, wanted: Self) -> bool {
        self != Self::Failed && self >= wanted
    }
}

word::text_form!(MessageState, "a state of a message", {
    Queued = "queued", Sent = "sent", Delivered = "delivered", Read = "read", Failed = "failed",
});

/// Which paths may be used to reach somebody.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum PathPolicy {
    /// Direct when possible, through a relay otherwise.
    #[default]
    Auto,
    /// No third party ever sees a message.
    Direct,
    /// The own address is never shown to a peer.
    Relay,
}

word::text_form!(PathPolicy, "a path policy", { Auto = "auto", Direct = "direct", Relay = "relay" });

/// What an owner may say about the own identity. The other flags follow from what the node does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Flag {
    /// A bot.
    #[value(alias = "machine_account", alias = "is-machine-account", alias = "machine-account")]
    IsMachineAccount,
    /// Senders should start the relay path at once.
    #[value(alias = "prefers-async")]
    PrefersAsync,
}

word::text_form!(Flag, "a flag", {
    IsMachineAccount = "is_machine_account", PrefersAsync = "prefers_async",
});

/// What kind of failure: decides the exit code of the command line and the status over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It was tried, and failed.
    Failed,
    /// The request itself is wrong, or ambiguous.
    Usage,
    /// No node is running.
    NoDaemon,
    /// No such contact, conversation, message or server.
    NotFound,
    /// It is not allowed, here or there.
    Refused,
    /// It took too long.
    TimedOut,
}

impl ErrorKind {
    /// Exit code of the command line.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoDaemon => 3,
            Self::NotFound => 4,
            Self::Refused => 5,
            Self::TimedOut => 6,
        }
    }

    /// Status code over HTTP.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Failed => 500,
            Self::Usage => 400,
            Self::NoDaemon => 503,
            Self::NotFound => 404,
            Self::Refused => 403,
            Self::TimedOut => 504,
        }
    }
}

word::text_form!(ErrorKind, "a kind of error", {
    Failed = "failed", Usage = "usage", NoDaemon = "no_daemon", NotFound = "not_found",
    Refused = "refused", TimedOut = "timed_out",
});

/// Why a command was not carried out. The message says what happened and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub code: ErrorKind,
    /// For people: one sentence or two, without a full stop at the end.
    pub message: String,
}

impl ApiError {
    /// An error of a kind.
    #[must_use]
    pub fn new(code: ErrorKind, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// [`ErrorKind::Failed`].
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// [`ErrorKind::Usage`].
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, message)
    }

    /// [`ErrorKind::NotFound`].
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// [`ErrorKind::Refused`].
    #[must_use]
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// [`ErrorKind::TimedOut`].
    #[must_use]
    pub fn timed_out(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::TimedOut, message)
    }
}

/// `{"error": {"code", "message"}}`, on standard error and as the body of every HTTP error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

#[cfg(test)]
mod tests;
