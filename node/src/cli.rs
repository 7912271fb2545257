//! The command line: what can be typed. The grammar is fixed, so that others can script against it.
//!
//! This file says what words there are; [`plan`] turns them into work, [`run`] does it, [`mod@print`]
//! shows the result to a person, [`safe`] keeps other people's text from acting on the terminal.

mod log;
pub mod plan;
pub mod print;
pub mod qr;
pub mod run;
pub mod safe;
mod talk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sremp_common::name::Username;
use sremp_common::wire::Endpoint;

pub use talk::{After, Edit, React};

use crate::api::{DEFAULT_HISTORY, Flag, MAX_HISTORY, MessageState, PathPolicy};

/// A messenger whose users own every part of the path.
#[derive(Debug, Parser)]
#[command(name = "sremp", version, about, disable_help_subcommand = true)]
#[command(
    after_help = "WHO, TO, WITH and GROUP are an alias, a name, an id or the beginning of one; \
`contact:` or `group:` in front says which is meant.\n\
Exit codes: 0 done, 1 failed, 2 usage, 3 no node running, 4 not found, 5 refused, 6 timed out."
)]
pub struct CommandLine {
    /// The node's directory; default: the platform's data directory
    #[arg(long, global = true, env = "SREMP_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Print JSON, on standard output and for errors on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Make an identity and a home for it
    Init(Init),
    /// Run the node in the foreground
    Run,
    /// Validate the configuration and the data directory
    Check,
    /// How the node is doing
    Status,
    /// My contact link, for others to add me
    Link(Link),
    /// People I know
    #[command(subcommand)]
    Contact(Contact),
    /// Browse the rendezvous servers' listed identities
    Peers {
        /// Only this name
        name: Option<String>,
    },
    /// First contacts from strangers
    #[command(subcommand)]
    Requests(Requests),
    /// Send a text to a contact or group
    Send(Send),
    /// One message, and how far it has come for each recipient
    Message {
        /// Its id
        id: String,
    },
    /// Messages of a conversation, oldest first
    History(History),
    /// React to a message
    React(React),
    /// Give a message of mine another text
    Edit(Edit),
    /// Delete a message of mine, here and at everybody who has it
    Delete {
        /// A contact or a group
        #[arg(value_name = "CONVERSATION")]
        with: String,
        /// The message's id
        message: String,
    },
    /// After which time new messages of a conversation vanish; without one, say how it stands
    Timer {
        /// A contact or a group
        #[arg(value_name = "CONVERSATION")]
        with: String,
        /// 90s, 30m, 12h, 7d or 4w; `off`: they stay
        after: Option<After>,
    },
    /// Tell that I write in a conversation, for a few seconds; without a word, say who does
    Typing {
        /// A contact or a group
        #[arg(value_name = "CONVERSATION")]
        with: String,
        /// on or off
        value: Option<Switch>,
    },
    /// Mark everything received in a conversation as read
    Read {
        /// A contact or a group
        with: String,
    },
    /// Follow what happens, one JSON object a line
    Watch {
        /// First what happened after this event
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
    },
    /// Conversations of many
    #[command(subcommand)]
    Group(Group),
    /// Relays that hold messages for me, and mailboxes that I hold for contacts
    #[command(subcommand)]
    Relay(Relay),
    /// Rendezvous servers that know where I am
    #[command(subcommand)]
    Rendezvous(Rendezvous),
    /// Who I am
    #[command(subcommand)]
    Identity(Identity),
    /// The terminal user interface
    #[command(hide = true)]
    Chat {
        /// A contact or a group
        with: Option<String>,
    },
}

/// `init`
#[derive(Debug, Args)]
pub struct Init {
    /// What I am called
    #[arg(long, value_parser = name)]
    pub name: Username,
    /// Where the node listens; port 0 takes any free one
    #[arg(long, value_name = "HOST:PORT", value_parser = listen)]
    pub listen: Option<SocketAddr>,
    /// Where others may dial it
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Vec<Endpoint>,
    /// A rendezvous server
    #[arg(long, value_name = "HOST:PORT[,ca=FILE][,invite=WORD]")]
    pub rendezvous: Vec<Server>,
    /// A relay
    #[arg(long, value_name = "LINK")]
    pub relay: Vec<String>,
}

/// `link`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Link {
    /// Draw it as a QR code, too
    #[arg(long)]
    pub qr: bool,
    /// A link for a single use
    #[arg(long)]
    pub once: bool,
    /// What else to do with links.
    #[command(subcommand)]
    pub action: Option<LinkAction>,
}

/// What else to do with links.
#[derive(Debug, Subcommand)]
pub enum LinkAction {
    /// Make every link given out so far worthless
    Revoke,
}

/// `contact`
#[derive(Debug, Subcommand)]
pub enum Contact {
    /// Add somebody
    Add {
        /// Their link, or their id, with or without an address
        #[arg(value_name = "LINK|ID@HOST:PORT|ID")]
        what: String,
        /// What I call them
        #[arg(long)]
        alias: Option<String>,
    },
    /// Everybody
    List,
    /// Everything about one of them
    Show {
        /// Whom
        who: String,
    },
    /// Call them something else; an empty alias takes it away
    Alias {
        /// Whom
        who: String,
        /// What I call them
        alias: String,
    },
    /// Accept their keys as good enough
    Trust {
        /// Whom
        who: String,
    },
    /// Record that I compared safety numbers with them
    Verify {
        /// Whom
        who: String,
    },
    /// No session, no message, no receipt any more
    Reject {
        /// Whom
        who: String,
    },
    /// Back to unknown
    Reset {
        /// Whom
        who: String,
    },
    /// Which paths may be used to reach them
    Path {
        /// Whom
        who: String,
        /// auto, direct or relay; `default` follows the node's own policy
        policy: PolicyArg,
    },
    /// Forget them
    Remove {
        /// Whom
        who: String,
    },
}

/// `requests`
#[derive(Debug, Subcommand)]
pub enum Requests {
    /// Everybody who asks
    List,
    /// Take the request: they become a contact
    Accept {
        /// Whom
        who: String,
    },
    /// Drop the request
    Decline {
        /// Whom
        who: String,
    },
}

/// `send`
#[derive(Debug, Args)]
pub struct Send {
    /// A contact or a group
    pub to: String,
    /// The text; without it, standard input
    pub text: Option<String>,
    /// Return only when the message has come that far
    #[arg(long, value_name = "STATE")]
    pub wait: Option<WaitFor>,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = crate::api::route::DEFAULT_WAIT)]
    pub timeout: u32,
    /// The message that this one answers
    #[arg(long, value_name = "ID")]
    pub reply_to: Option<String>,
}

/// What `send --wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WaitFor {
    /// A mailbox of the recipient holds it
    Sent,
    /// The recipient's node has it
    Delivered,
    /// The recipient has read it
    Read,
}

impl From<WaitFor> for MessageState {
    fn from(wait: WaitFor) -> Self {
        match wait {
            WaitFor::Sent => Self::Sent,
            WaitFor::Delivered => Self::Delivered,
            WaitFor::Read => Self::Read,
        }
    }
}

/// `history`
#[derive(Debug, Args)]
pub struct History {
    /// A contact or a group
    pub with: String,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = DEFAULT_HISTORY,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_HISTORY)))]
    pub limit: u32,
    /// Only what is older than this message
    #[arg(long, value_name = "ID")]
    pub before: Option<String>,
    /// Show the ids of messages
    #[arg(long)]
    pub ids: bool,
}

/// `group`
#[derive(Debug, Subcommand)]
pub enum Group {
    /// Start one
    Create {
        /// What it is called
        name: String,
        /// Whom to invite at once
        who: Vec<String>,
        /// Cipher suite by name or number: x25519 (0x0001) or mlkem768x25519 (0x004F)
        #[arg(long)]
        suite: Option<String>,
    },
    /// All of them
    List,
    /// Everything about one of them
    Show {
        /// Which
        group: String,
    },
    /// Invite more members
    Add {
        /// Which
        group: String,
        /// Whom
        #[arg(required = true)]
        who: Vec<String>,
    },
    /// Remove a member
    Remove {
        /// Which
        group: String,
        /// Whom
        who: String,
    },
    /// Make a member an admin
    Promote {
        /// Which
        group: String,
        /// Whom
        who: String,
    },
    /// Make an admin a member
    Demote {
        /// Which
        group: String,
        /// Whom
        who: String,
    },
    /// Call it something else
    Rename {
        /// Which
        group: String,
        /// What it is called
        name: String,
    },
    /// Leave it
    Leave {
        /// Which
        group: String,
    },
}

/// `relay`
#[derive(Debug, Subcommand)]
pub enum Relay {
    /// Let a relay hold messages for me
    Add {
        /// The relay's link, or the contact link of a friend who allowed it
        link: String,
    },
    /// Give up a relay
    Remove {
        /// Its id, link or address
        #[arg(value_name = "LINK")]
        relay: String,
    },
    /// Move my mailbox to another relay; the old one is still read for 30 days
    Migrate {
        /// The old one: its id, link or address
        #[arg(value_name = "OLD")]
        relay: String,
        /// The new one's link
        link: String,
    },
    /// All relays that I use
    List,
    /// Hold a mailbox for a contact
    Allow {
        /// Whom
        who: String,
    },
    /// Hold none for them any more
    Disallow {
        /// Whom
        who: String,
    },
}

/// `rendezvous`
#[derive(Debug, Subcommand)]
pub enum Rendezvous {
    /// Register with a server
    Add {
        /// Where, its certificate authority if it has one of its own, and the invitation if it asks for
        /// one
        #[arg(value_name = "HOST:PORT[,ca=FILE][,invite=WORD]")]
        server: Server,
    },
    /// Register there no longer
    Remove {
        /// Where
        #[arg(value_name = "HOST:PORT")]
        server: Server,
    },
    /// All of them, and what they suggest
    List,
}

/// `identity`
#[derive(Debug, Subcommand)]
pub enum Identity {
    /// Everything that others can know about me
    Show,
    /// Call myself something else
    Rename {
        /// What I am called
        #[arg(value_parser = name)]
        name: Username,
    },
    /// Set a flag
    Set {
        /// Which
        flag: Flag,
        /// on or off
        value: Switch,
    },
    /// Show another picture
    Picture {
        /// The image; an empty file takes the picture away
        file: PathBuf,
    },
    /// Take a new key for connections
    RotateNoiseKey,
    /// Cut off everybody who could write to you, but the contacts and groups that you have
    RotateTokens,
    /// Write the identity to a file, encrypted under a passphrase
    #[command(hide = true)]
    Export {
        /// Where to
        file: PathBuf,
    },
    /// Make a home from an exported identity
    #[command(hide = true)]
    Import {
        /// Where from
        file: PathBuf,
    },
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Set
    On,
    /// Not set
    Off,
}

/// A path policy, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PolicyArg {
    /// Directly when possible
    Auto,
    /// Never through a relay
    Direct,
    /// Never directly
    Relay,
    /// As the node does
    Default,
}

impl From<PolicyArg> for Option<PathPolicy> {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::Auto => Some(PathPolicy::Auto),
            PolicyArg::Direct => Some(PathPolicy::Direct),
            PolicyArg::Relay => Some(PathPolicy::Relay),
            PolicyArg::Default => None,
        }
    }
}

/// A rendezvous server: `HOST:PORT[,ca=FILE][,invite=WORD]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where.
    pub endpoint: Endpoint,
    /// Its certificate authority, as typed.
    pub ca: Option<PathBuf>,
    /// The invitation to it, as typed.
    pub invite: Option<String>,
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (endpoint, options) = match text.split_once(',') {
            None => (text, None),
            Some((endpoint, options)) => (endpoint, Some(options)),
        };
        let endpoint = endpoint.parse().map_err(|error| format!("{error}"))?;
        let mut server = Self { endpoint, ca: None, invite: None };
        let mut rest = options;
        while let Some(options) = rest {
            // The name of a file may have a comma in it, an invitation has none.
            let end = match options.strip_prefix("ca=") {
                Some(_) => options.rfind(",invite="),
                None => options.find(','),
            };
            let (option, more) = match end.and_then(|end| options.split_at_checked(end)) {
                Some((option, more)) => (option, more.strip_prefix(',')),
                None => (options, None),
            };
            match option.split_once('=') {
                Some(("ca", file)) if !file.is_empty() && server.ca.is_none() => {
                    server.ca = Some(file.into());
                }
                Some(("invite", word)) if !word.is_empty() && server.invite.is_none() => {
                    server.invite = Some(word.to_owned());
                }
                _ => return Err(format!("`{option}` is neither ca=FILE nor invite=WORD")),
            }
            rest = more;
        }
        Ok(server)
    }
}

fn name(text: &str) -> Result<Username, String> {
    Username::from_input(text).map_err(|error| error.to_string())
}

/// An address of this machine; `localhost` and a missing host are understood.
fn listen(text: &str) -> Result<SocketAddr, String> {
    let full = match text.rsplit_once(':') {
        Some(("" | "*", port)) => format!("[::]:{port}"),
        Some(("localhost", port)) => format!("127.0.0.1:{port}"),
        _ => text.to_owned(),
    };
    full.parse().map_err(|_| {
        format!("`{text}` is not an address of this machine; write for example 0.0.0.0:7330 or [::]:7330")
    })
}

#[cfg(test)]
mod tests;
