//! What the node answers. Every optional field is present, as `null` when there is nothing to say;
//! times are milliseconds since the Unix epoch; ids are in their text form.
//!
//! Messages are recorded with their events: what is added to them later needs a default.

mod contact;
mod message;
mod status;

use std::fmt;

use serde::{Deserialize, Serialize};
use sremp_common::identity::{Flags, RelayRecord};
use sremp_common::time::Timestamp;

use super::{Event, word};

pub use self::contact::{ContactView, DoubtKind, DoubtView, RemovedView};
pub use self::message::{
    Direction, MessageKind, MessageView, PersonView, ReactionView, RecipientView, SentView,
    TimerView,
};
pub use self::status::{SessionView, StatusView, WorkView};

/// The answer to a command.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// It is done, and there is nothing to tell: `{}`.
    Done {},
    /// How the node is doing.
    Status(Box<StatusView>),
    /// A contact link.
    Link(LinkView),
    /// One contact.
    Contact(Box<ContactView>),
    /// All contacts.
    Contacts(Vec<ContactView>),
    /// A contact that is none any more.
    Removed(RemovedView),
    /// Listed identities.
    Peers(Vec<PeerView>),
    /// Strangers that wait.
    Requests(Vec<RequestView>),
    /// A message was queued.
    Sent(SentView),
    /// One message.
    Message(Box<MessageView>),
    /// Messages, oldest first.
    Messages(Vec<MessageView>),
    /// After which time messages of a conversation vanish.
    Timer(TimerView),
    /// Who writes at this moment.
    Typing(Vec<PersonView>),
    /// Recorded events.
    Events(EventPage),
    /// One group.
    Group(Box<GroupView>),
    /// All groups.
    Groups(Vec<GroupRow>),
    /// One relay.
    Relay(RelayView),
    /// All relays.
    Relays(Vec<RelayView>),
    /// Rendezvous servers.
    Rendezvous(Vec<RendezvousView>),
    /// The own identity.
    Identity(Box<IdentityView>),
}

impl Reply {
    /// The kind of answer, without any of its content: fit for a log.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Done {} => "done",
            Self::Status(_) => "status",
            Self::Link(_) => "link",
            Self::Contact(_) => "contact",
            Self::Removed(_) => "removed",
            Self::Contacts(_) => "contacts",
            Self::Peers(_) => "peers",
            Self::Requests(_) => "requests",
            Self::Sent(_) => "sent",
            Self::Message(_) => "message",
            Self::Messages(_) => "messages",
            Self::Timer(_) => "timer",
            Self::Typing(_) => "typing",
            Self::Events(_) => "events",
            Self::Group(_) => "group",
            Self::Groups(_) => "groups",
            Self::Relay(_) => "relay",
            Self::Relays(_) => "relays",
            Self::Rendezvous(_) => "rendezvous",
            Self::Identity(_) => "identity",
        }
    }
}

/// The name alone: texts and link tokens do not belong into logs.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({})", self.name())
    }
}

/// What `init` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitReply {
    /// Id of the new identity.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its standing contact link.
    pub link: String,
}

/// A contact link.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkView {
    /// `sremplink1...`
    pub link: String,
    /// How often it may be used.
    pub kind: LinkKind,
}

/// A link carries a token: it is shown to the owner, never to a log.
impl fmt::Debug for LinkView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkView([redacted])")
    }
}

/// How often a link may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// Until it is revoked.
    Standing,
    /// Once.
    Once,
}

/// What an identity says about itself, each flag by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlagsView {
    /// Its relays are listed.
    pub uses_relay: bool,
    /// A bot.
    pub is_machine_account: bool,
    /// A relay server.
    pub is_relay_server: bool,
    /// Senders should start the relay path at once.
    pub prefers_async: bool,
}

impl From<Flags> for FlagsView {
    fn from(flags: Flags) -> Self {
        let Flags { uses_relay, is_machine_account, is_relay_server, prefers_async } = flags;
        Self { uses_relay, is_machine_account, is_relay_server, prefers_async }
    }
}

/// What the owner thinks of a contact's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Nothing was decided.
    #[default]
    Unknown,
    /// Good enough.
    Trusted,
    /// Never again.
    Rejected,
}

word::text_form!(Trust, "a trust level", {
    Unknown = "unknown", Trusted = "trusted", Rejected = "rejected",
});

/// How somebody is reached at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathState {
    /// A session with their own node is open.
    Direct,
    /// What was sent last went into a mailbox at a relay.
    Relay,
    /// Neither.
    #[default]
    None,
}

word::text_form!(PathState, "a path", { Direct = "direct", Relay = "relay", None = "none" });

/// A relay that an identity lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecordView {
    /// Id.
    pub id: String,
    /// Where it listens.
    pub endpoints: Vec<String>,
}

impl From<&RelayRecord> for RelayRecordView {
    fn from(record: &RelayRecord) -> Self {
        Self {
            id: record.identity_key.to_string(),
            endpoints: record.endpoints.iter().map(ToString::to_string).collect(),
        }
    }
}

/// An identity that a rendezvous server lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Id.
    pub id: String,
    /// What they call themselves.
    pub name: String,
    /// What the owner calls them, when they are a contact.
    pub alias: Option<String>,
    /// What they say about themselves.
    pub flags: FlagsView,
    /// Registered at the moment.
    pub online: bool,
    /// Day of the last registration.
    pub last_seen: Option<Timestamp>,
    /// Which server said so (`HOST:PORT`).
    pub server: String,
    /// Id of somebody else, a contact, whose name or alias is this name, or looks like it.
    pub looks_like: Option<String>,
}

/// A stranger's first contact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestView {
    /// Id of the stranger.
    pub id: String,
    /// What they call themselves.
    pub name: String,
    /// What they say about themselves.
    pub flags: FlagsView,
    /// Name of the group that they invite to; [`None`]: a conversation of two.
    pub group: Option<String>,
    /// When it came.
    pub received_at: Timestamp,
    /// Id of a contact whose name or alias is this name, or looks like it.
    pub looks_like: Option<String>,
}

/// Some recorded events, and where the record begins and ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// In order of their sequence numbers.
    pub events: Vec<Event>,
    /// Oldest event that is still recorded; `last + 1` when there is none.
    pub first: u64,
    /// Newest event so far; 0 when there never was one.
    pub last: u64,
    /// The node's clock.
    pub at: Timestamp,
}

/// Whether a group can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupState {
    /// It can.
    Active,
    /// The members disagree about its state, or it is out of step here; being healed.
    Recovering,
    /// The owner left.
    Left,
    /// Somebody removed the owner.
    Removed,
}

word::text_form!(GroupState, "a state of a group", {
    Active = "active", Recovering = "recovering", Left = "left", Removed = "removed",
});

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Change membership and name, too.
    Admin,
    /// Send, and leave.
    Member,
}

word::text_form!(Role, "a role", { Admin = "admin", Member = "member" });

/// One group in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRow {
    /// Id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Whether it can be used.
    pub state: GroupState,
    /// How many are in it, the owner too.
    pub members: u32,
    /// What the owner may do.
    pub role: Role,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// MLS epoch.
    pub epoch: u64,
    /// Hexadecimal; equal on all members that are in the same state.
    pub epoch_authenticator: String,
    /// Number of the MLS cipher suite (RFC 9420 section 17.1).
    pub suite: u16,
    /// Whether it can be used.
    pub state: GroupState,
    /// Who is in it, the owner too.
    pub members: Vec<MemberView>,
    /// What is being done when the group is out of step here; null when nothing is.
    pub healing: Option<HealingView>,
}

/// How far the healing of a group is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealingView {
    /// What is being done.
    pub step: HealingStep,
    /// What is wrong, for people.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
}

/// What is done about a group that is out of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealingStep {
    /// Members are asked where they stand; what is missing comes from them.
    Checking,
    /// A way back in is looked for: this node joins its group anew.
    Rejoining,
    /// Nobody offers one: an admin is asked to remove and add this node.
    WaitingForAdmin,
}

word::text_form!(HealingStep, "a step of healing", {
    Checking = "checking", Rejoining = "rejoining", WaitingForAdmin = "waiting_for_admin",
});

/// One member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Id.
    pub id: String,
    /// What they call themselves.
    pub name: String,
    /// What the owner calls them.
    pub alias: Option<String>,
    /// They are a bot, as far as known here.
    pub is_machine_account: bool,
    /// What they may do.
    pub role: Role,
    /// The owner of this node.
    pub is_me: bool,
    /// Invited, but the invitation has not left yet.
    pub pending: bool,
    /// When this node last heard of them; null for the owner, and for whoever was never heard.
    pub last_seen: Option<Timestamp>,
    /// Since when they have the keys that they have in the group: whoever writes nothing renews none.
    /// Null for the owner, and where none have changed since this node is in the group.
    pub keys_since: Option<Timestamp>,
}

/// A relay that holds a mailbox for this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayView {
    /// Id.
    pub id: String,
    /// Where it listens.
    pub endpoints: Vec<String>,
    /// The session is open and the mailbox registered.
    pub connected: bool,
    /// Still read, but no longer told to contacts, until then.
    pub retired_until: Option<Timestamp>,
    /// What went wrong last, while it is not connected.
    pub error: Option<String>,
}

/// A rendezvous server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RendezvousView {
    /// `HOST:PORT`.
    pub server: String,
    /// Certificate authority that is trusted for it instead of the system's.
    pub ca: Option<String>,
    /// Registered at the moment.
    pub registered: bool,
    /// Until when that holds.
    pub expires_at: Option<Timestamp>,
    /// The node's address as the server sees it.
    pub observed: Option<String>,
    /// Only suggested by another server; nothing is sent to it unless the owner adds it.
    pub suggested: bool,
    /// What went wrong last, while it is not registered.
    pub error: Option<String>,
}

/// The own identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Version of the identity.
    pub version: u64,
    /// When that version was made.
    pub created: Timestamp,
    /// Flags.
    pub flags: FlagsView,
    /// Public key of Noise sessions, in hexadecimal.
    pub noise_key: String,
    /// Relays that it lists.
    pub relays: Vec<RelayRecordView>,
    /// Bytes of the picture; 0: none.
    pub picture_bytes: u32,
}
