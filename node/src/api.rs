//! The local interface as plain data: what can be asked of a running node, what it answers, and
//! what it tells unasked. No I/O, no formatting for people; both ends of the socket share it.
//!
//! [`Command`] goes in, [`Reply`] or [`ApiError`] comes out, [`Event`] flows on its own. The JSON
//! of every view is fixed by the command line's grammar; fields may be added, none renamed.

pub mod event;
pub mod json;
pub mod route;
#[cfg(test)]
pub(crate) mod sample;
pub mod view;
pub mod who;
pub mod word;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sremp_common::name::Username;
use sremp_common::wire::Endpoint;

pub use event::{Change, ConnectionKind, Event, EventBody, EventKind};
pub use view::{
    ContactView, Direction, DoubtKind, DoubtView, EventPage, FlagsView, GroupRow, GroupState,
    GroupView, HealingStep, HealingView, IdentityView, InitReply, LinkKind, LinkView, MemberView,
    MessageKind, MessageView, PathState, PeerView, RecipientView, RelayRecordView, RelayView,
    RemovedView, RendezvousView, Reply, RequestView, Role, SentView, SessionView, StatusView,
    Trust, WorkView,
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

/// One request to a running node. Text that names somebody (`who`, `to`, `with`, `group`) is as
/// typed: the core resolves it, see [`who`].
#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    /// How the node is doing. Answer: [`Reply::Status`].
    Status,
    /// The contact link. Answer: [`Reply::Link`].
    Link {
        /// A link for a single use instead of the standing one.
        once: bool,
    },
    /// Makes every link given out so far worthless. Answer: [`Reply::Done`].
    LinkRevoke,

    /// Adds a contact. Answer: [`Reply::Contact`].
    ContactAdd {
        /// `LINK`, `ID@HOST:PORT` or `ID`.
        what: String,
        /// The owner's own name for them.
        alias: Option<String>,
    },
    /// All contacts. Answer: [`Reply::Contacts`].
    ContactList,
    /// One contact. Answer: [`Reply::Contact`].
    ContactShow {
        /// Who.
        who: String,
    },
    /// Gives a contact another alias; the empty one takes it away. Answer: [`Reply::Contact`].
    ContactAlias {
        /// Who.
        who: String,
        /// The owner's own name for them.
        alias: String,
    },
    /// Accepts the contact's keys as good enough. Answer: [`Reply::Contact`].
    ContactTrust {
        /// Who.
        who: String,
    },
    /// Records that safety numbers were compared. Answer: [`Reply::Contact`].
    ContactVerify {
        /// Who.
        who: String,
    },
    /// No session, no message, no receipt from now on. Answer: [`Reply::Contact`].
    ContactReject {
        /// Who.
        who: String,
    },
    /// Back to unknown. Answer: [`Reply::Contact`].
    ContactReset {
        /// Who.
        who: String,
    },
    /// Which paths may be used to reach them. Answer: [`Reply::Contact`].
    ContactPath {
        /// Who.
        who: String,
        /// Which paths; [`None`] follows the node's own policy.
        path: Option<PathPolicy>,
    },
    /// Forgets a contact. Answer: [`Reply::Done`].
    ContactRemove {
        /// Who.
        who: String,
    },

    /// Listed identities of the rendezvous servers. Answer: [`Reply::Peers`].
    Peers {
        /// Only these names.
        name: Option<String>,
    },
    /// First contacts from strangers that wait for a decision. Answer: [`Reply::Requests`].
    RequestsList,
    /// Takes a stranger's request. Answer: [`Reply::Contact`].
    RequestsAccept {
        /// Who.
        who: String,
    },
    /// Drops a stranger's request. Answer: [`Reply::Done`].
    RequestsDecline {
        /// Who.
        who: String,
    },

    /// Sends a text. Answer, once it is queued durably: [`Reply::Sent`].
    Send {
        /// A contact or a group.
        to: String,
        /// At most [`sremp_common::limit::MAX_TEXT`] bytes.
        text: String,
        /// Id of the message that this one answers.
        reply_to: Option<String>,
    },
    /// One message. Answer: [`Reply::Message`].
    MessageShow {
        /// Its id.
        id: String,
    },
    /// Messages of one conversation, oldest first; marks nothing. Answer: [`Reply::Messages`].
    History {
        /// A contact or a group.
        with: String,
        /// The newest so many, at most [`MAX_HISTORY`].
        limit: u32,
        /// Only what is older than this message.
        before: Option<String>,
    },
    /// Everything received in the conversation so far has been read. Answer: [`Reply::Done`].
    MarkRead {
        /// A contact or a group.
        with: String,
    },
    /// Recorded events. Answer: [`Reply::Events`].
    Events {
        /// Only what came after this sequence number; [`None`]: no events, only the numbers.
        after: Option<u64>,
        /// At most so many, and at most [`MAX_EVENT_PAGE`].
        limit: u32,
    },

    /// Starts a group. Answer: [`Reply::Group`].
    GroupCreate {
        /// What it is called.
        name: String,
        /// Who is invited at once.
        members: Vec<String>,
        /// Name or number of the MLS cipher suite; the default depends on the size.
        suite: Option<String>,
    },
    /// All groups. Answer: [`Reply::Groups`].
    GroupList,
    /// One group. Answer: [`Reply::Group`].
    GroupShow {
        /// Which.
        group: String,
    },
    /// Invites more members. Answer: [`Reply::Group`].
    GroupAdd {
        /// Which.
        group: String,
        /// Whom.
        who: Vec<String>,
    },
    /// Removes a member. Answer: [`Reply::Group`].
    GroupRemove {
        /// Which.
        group: String,
        /// Whom.
        who: String,
    },
    /// Makes a member an admin. Answer: [`Reply::Group`].
    GroupPromote {
        /// Which.
        group: String,
        /// Whom.
        who: String,
    },
    /// Makes an admin a member. Answer: [`Reply::Group`].
    GroupDemote {
        /// Which.
        group: String,
        /// Whom.
        who: String,
    },
    /// Gives the group another name. Answer: [`Reply::Group`].
    GroupRename {
        /// Which.
        group: String,
        /// The new name.
        name: String,
    },
    /// Leaves a group. Answer: [`Reply::Done`].
    GroupLeave {
        /// Which.
        group: String,
    },

    /// Opens a mailbox at a relay. Answer: [`Reply::Relay`].
    RelayAdd {
        /// A relay link, or a contact link of a friend whose node holds mailboxes.
        link: String,
    },
    /// Moves a mailbox to another relay: the new one takes the place of the old one, which is still
    /// read for 30 days. Answer: [`Reply::Relay`].
    RelayMigrate {
        /// The old one: the beginning of its id, an address or its link.
        relay: String,
        /// The new one's link.
        link: String,
    },
    /// Gives up a relay. Answer: [`Reply::Done`].
    RelayRemove {
        /// Its id, a unique prefix of it, or an address.
        relay: String,
    },
    /// All relays that hold mailboxes for this node. Answer: [`Reply::Relays`].
    RelayList,
    /// Holds a mailbox for a contact from now on. Answer: [`Reply::Contact`].
    RelayAllow {
        /// Whom.
        who: String,
    },
    /// Holds none any more. Answer: [`Reply::Contact`].
    RelayDisallow {
        /// Whom.
        who: String,
    },

    /// Registers with a rendezvous server. Answer: [`Reply::Rendezvous`] with one row.
    RendezvousAdd(ServerOptions),
    /// Registers there no longer. Answer: [`Reply::Done`].
    RendezvousRemove {
        /// Where.
        server: Endpoint,
    },
    /// All rendezvous servers, then those that are only suggested. Answer: [`Reply::Rendezvous`].
    RendezvousList,

    /// The own identity. Answer: [`Reply::Identity`].
    IdentityShow,
    /// Another name for oneself. Answer: [`Reply::Identity`].
    IdentityRename {
        /// The new name.
        name: Username,
    },
    /// Sets a flag. Answer: [`Reply::Identity`].
    IdentityFlag {
        /// Which.
        flag: Flag,
        /// Its new value.
        on: bool,
    },
    /// Another picture; no bytes take it away. Answer: [`Reply::Identity`].
    IdentityPicture {
        /// The image, at most [`sremp_common::limit::MAX_PICTURE`] bytes.
        bytes: Vec<u8>,
    },
    /// A new static key for Noise sessions. Answer: [`Reply::Identity`].
    IdentityRotateNoiseKey,
    /// Every token that was given away opens nothing any more; the members of our groups get new
    /// ones. Answer: [`Reply::Done`].
    IdentityRotateTokens,
}

impl Command {
    /// What is asked, without any of its content: fit for a log.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Link { .. } => "link",
            Self::LinkRevoke => "link revoke",
            Self::ContactAdd { .. } => "contact add",
            Self::ContactList => "contact list",
            Self::ContactShow { .. } => "contact show",
            Self::ContactAlias { .. } => "contact alias",
            Self::ContactTrust { .. } => "contact trust",
            Self::ContactVerify { .. } => "contact verify",
            Self::ContactReject { .. } => "contact reject",
            Self::ContactReset { .. } => "contact reset",
            Self::ContactPath { .. } => "contact path",
            Self::ContactRemove { .. } => "contact remove",
            Self::Peers { .. } => "peers",
            Self::RequestsList => "requests list",
            Self::RequestsAccept { .. } => "requests accept",
            Self::RequestsDecline { .. } => "requests decline",
            Self::Send { .. } => "send",
            Self::MessageShow { .. } => "message show",
            Self::History { .. } => "history",
            Self::MarkRead { .. } => "read",
            Self::Events { .. } => "events",
            Self::GroupCreate { .. } => "group create",
            Self::GroupList => "group list",
            Self::GroupShow { .. } => "group show",
            Self::GroupAdd { .. } => "group add",
            Self::GroupRemove { .. } => "group remove",
            Self::GroupPromote { .. } => "group promote",
            Self::GroupDemote { .. } => "group demote",
            Self::GroupRename { .. } => "group rename",
            Self::GroupLeave { .. } => "group leave",
            Self::RelayAdd { .. } => "relay add",
            Self::RelayRemove { .. } => "relay remove",
            Self::RelayMigrate { .. } => "relay migrate",
            Self::RelayList => "relay list",
            Self::RelayAllow { .. } => "relay allow",
            Self::RelayDisallow { .. } => "relay disallow",
            Self::RendezvousAdd(_) => "rendezvous add",
            Self::RendezvousRemove { .. } => "rendezvous remove",
            Self::RendezvousList => "rendezvous list",
            Self::IdentityShow => "identity show",
            Self::IdentityRename { .. } => "identity rename",
            Self::IdentityFlag { .. } => "identity set",
            Self::IdentityPicture { .. } => "identity picture",
            Self::IdentityRotateNoiseKey => "identity rotate-noise-key",
            Self::IdentityRotateTokens => "identity rotate-tokens",
        }
    }
}

/// The name alone: texts and link tokens do not belong into logs.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({})", self.name())
    }
}

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
