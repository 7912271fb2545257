//! What can be asked of a running node.

use std::fmt;

use sremp_common::name::Username;
use sremp_common::wire::Endpoint;

use super::{Flag, PathPolicy, ServerOptions};
#[expect(unused_imports, reason = "named in documentation")]
use super::{MAX_EVENT_PAGE, MAX_HISTORY, Reply};

/// One request to a running node. Text that names somebody (`who`, `to`, `with`, `group`) is as
/// typed: the core resolves it, see [`super::who`].
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
    /// A reaction to a message. Answer: [`Reply::Sent`], of the reaction itself.
    React {
        /// A contact or a group.
        with: String,
        /// Id of the message.
        message: String,
        /// An emoji or a short word; [`None`] takes the reaction back.
        reaction: Option<String>,
    },
    /// Another text for a message of one's own. Answer: [`Reply::Sent`], of the edit itself.
    Edit {
        /// A contact or a group.
        with: String,
        /// Id of the message.
        message: String,
        /// At most [`sremp_common::limit::MAX_TEXT`] bytes.
        text: String,
    },
    /// Deletes a message of one's own, everywhere. Answer: [`Reply::Sent`], of the deletion itself.
    Delete {
        /// A contact or a group.
        with: String,
        /// Id of the message.
        message: String,
    },
    /// Who writes in a conversation at this moment. Answer: [`Reply::Typing`].
    TypingShow {
        /// A contact or a group.
        with: String,
    },
    /// The owner writes at this moment: to be said again every few seconds. Answer: [`Reply::Done`].
    TypingTell {
        /// A contact or a group.
        with: String,
        /// Whether; false: not any more.
        typing: bool,
    },
    /// After which time messages of a conversation vanish. Answer: [`Reply::Timer`].
    TimerShow {
        /// A contact or a group.
        with: String,
    },
    /// Lets messages that are written from now on vanish. Answer: [`Reply::Sent`].
    TimerSet {
        /// A contact or a group.
        with: String,
        /// After how many seconds; [`None`]: not at all.
        seconds: Option<u32>,
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
            Self::React { .. } => "react",
            Self::Edit { .. } => "edit",
            Self::Delete { .. } => "delete",
            Self::TypingShow { .. } => "typing show",
            Self::TypingTell { .. } => "typing tell",
            Self::TimerShow { .. } => "timer show",
            Self::TimerSet { .. } => "timer set",
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
