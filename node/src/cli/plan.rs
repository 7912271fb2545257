//! From words to work: what a command line asks for, as data. Reads no file and asks nobody.

use std::path::{Path, PathBuf};

use super::{
    Action, After, Contact, Edit, Group, History, Identity, Init, Link, LinkAction, React, Relay,
    Rendezvous, Requests, Send, Server, Switch, WaitFor,
};
use crate::api::{Command, InitOptions, ServerOptions};

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan {
    /// Make a home.
    Init(InitOptions),
    /// Be the node.
    Run,
    /// Look at configuration and data directory.
    Check,
    /// Ask the running node, and show its answer.
    Ask {
        /// What.
        command: Command,
        /// How the answer is shown.
        show: Show,
    },
    /// Send a text, and perhaps wait.
    Send {
        /// A contact or a group.
        to: String,
        /// The text; [`None`]: standard input.
        text: Option<String>,
        /// Id of the message that this one answers.
        reply_to: Option<String>,
        /// What to wait for.
        wait: Option<WaitFor>,
        /// How many seconds.
        timeout: u32,
    },
    /// Give a message another text.
    Edit {
        /// A contact or a group.
        with: String,
        /// Id of the message.
        message: String,
        /// The text; [`None`]: standard input.
        text: Option<String>,
    },
    /// Follow events.
    Watch {
        /// First what happened after this one.
        after: Option<u64>,
    },
    /// Set the picture to a file's content.
    Picture {
        /// Which file.
        file: PathBuf,
    },
    /// The terminal user interface.
    Chat {
        /// A contact or a group.
        with: Option<String>,
    },
    /// Write the identity to a file.
    Export {
        /// Which file.
        file: PathBuf,
    },
    /// Make a home from a file.
    Import {
        /// Which file.
        file: PathBuf,
    },
}

/// What else a person wants to see of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Show {
    /// A link as a QR code.
    pub qr: bool,
    /// Ids of messages.
    pub ids: bool,
}

impl From<Command> for Plan {
    fn from(command: Command) -> Self {
        Self::Ask { command, show: Show::default() }
    }
}

/// The work that an action asks for. Relative paths that the node will read are made absolute
/// from `here`: it runs elsewhere.
#[must_use]
pub fn plan(action: Action, here: &Path) -> Plan {
    match action {
        Action::Init(options) => Plan::Init(init(options, here)),
        Action::Run => Plan::Run,
        Action::Check => Plan::Check,
        Action::Status => Command::Status.into(),
        Action::Link(link) => self::link(&link),
        Action::Contact(action) => contact(action).into(),
        Action::Peers { name } => Command::Peers { name }.into(),
        Action::Requests(Requests::List) => Command::RequestsList.into(),
        Action::Requests(Requests::Accept { who }) => Command::RequestsAccept { who }.into(),
        Action::Requests(Requests::Decline { who }) => Command::RequestsDecline { who }.into(),
        Action::Send(Send { to, text, wait, timeout, reply_to }) => {
            Plan::Send { to, text, reply_to, wait, timeout }
        }
        Action::Message { id } => Plan::Ask {
            command: Command::MessageShow { id },
            show: Show { ids: true, ..Show::default() },
        },
        Action::History(History { with, limit, before, ids }) => Plan::Ask {
            command: Command::History { with, limit, before },
            show: Show { ids, ..Show::default() },
        },
        Action::React(React { with, message, reaction, none: _ }) => {
            Command::React { with, message, reaction }.into()
        }
        Action::Edit(Edit { with, message, text }) => Plan::Edit { with, message, text },
        Action::Delete { with, message } => Command::Delete { with, message }.into(),
        Action::Timer { with, after: None } => Command::TimerShow { with }.into(),
        Action::Timer { with, after: Some(After(seconds)) } => {
            Command::TimerSet { with, seconds }.into()
        }
        Action::Typing { with, value: None } => Command::TypingShow { with }.into(),
        Action::Typing { with, value: Some(value) } => {
            Command::TypingTell { with, typing: value == Switch::On }.into()
        }
        Action::Read { with } => Command::MarkRead { with }.into(),
        Action::Watch { after } => Plan::Watch { after },
        Action::Group(action) => group(action).into(),
        Action::Relay(action) => relay(action).into(),
        Action::Rendezvous(action) => rendezvous(action, here).into(),
        Action::Identity(action) => identity(action),
        Action::Chat { with } => Plan::Chat { with },
    }
}

fn init(options: Init, here: &Path) -> InitOptions {
    let Init { name, listen, advertise, rendezvous, relay } = options;
    let rendezvous = rendezvous.into_iter().map(|server| absolute(server, here)).collect();
    InitOptions { name, listen, advertise, rendezvous, relays: relay }
}

fn absolute(server: Server, here: &Path) -> ServerOptions {
    let Server { endpoint, ca, invite } = server;
    ServerOptions { server: endpoint, ca: ca.map(|ca| here.join(ca)), invite }
}

fn link(link: &Link) -> Plan {
    match link.action {
        Some(LinkAction::Revoke) => Command::LinkRevoke.into(),
        None => Plan::Ask {
            command: Command::Link { once: link.once },
            show: Show { qr: link.qr, ..Show::default() },
        },
    }
}

fn contact(action: Contact) -> Command {
    match action {
        Contact::Add { what, alias } => Command::ContactAdd { what, alias },
        Contact::List => Command::ContactList,
        Contact::Show { who } => Command::ContactShow { who },
        Contact::Alias { who, alias } => Command::ContactAlias { who, alias },
        Contact::Trust { who } => Command::ContactTrust { who },
        Contact::Verify { who } => Command::ContactVerify { who },
        Contact::Reject { who } => Command::ContactReject { who },
        Contact::Reset { who } => Command::ContactReset { who },
        Contact::Path { who, policy } => Command::ContactPath { who, path: policy.into() },
        Contact::Remove { who } => Command::ContactRemove { who },
    }
}

fn group(action: Group) -> Command {
    match action {
        Group::Create { name, who, suite } => Command::GroupCreate { name, members: who, suite },
        Group::List => Command::GroupList,
        Group::Show { group } => Command::GroupShow { group },
        Group::Add { group, who } => Command::GroupAdd { group, who },
        Group::Remove { group, who } => Command::GroupRemove { group, who },
        Group::Promote { group, who } => Command::GroupPromote { group, who },
        Group::Demote { group, who } => Command::GroupDemote { group, who },
        Group::Rename { group, name } => Command::GroupRename { group, name },
        Group::Leave { group } => Command::GroupLeave { group },
    }
}

fn relay(action: Relay) -> Command {
    match action {
        Relay::Add { link } => Command::RelayAdd { link },
        Relay::Migrate { relay, link } => Command::RelayMigrate { relay, link },
        Relay::Remove { relay } => Command::RelayRemove { relay },
        Relay::List => Command::RelayList,
        Relay::Allow { who } => Command::RelayAllow { who },
        Relay::Disallow { who } => Command::RelayDisallow { who },
    }
}

fn rendezvous(action: Rendezvous, here: &Path) -> Command {
    match action {
        Rendezvous::Add { server } => Command::RendezvousAdd(absolute(server, here)),
        Rendezvous::Remove { server } => Command::RendezvousRemove { server: server.endpoint },
        Rendezvous::List => Command::RendezvousList,
    }
}

fn identity(action: Identity) -> Plan {
    match action {
        Identity::Show => Command::IdentityShow.into(),
        Identity::Rename { name } => Command::IdentityRename { name }.into(),
        Identity::Set { flag, value } => {
            Command::IdentityFlag { flag, on: value == Switch::On }.into()
        }
        Identity::Picture { file } => Plan::Picture { file },
        Identity::RotateNoiseKey => Command::IdentityRotateNoiseKey.into(),
        Identity::RotateTokens => Command::IdentityRotateTokens.into(),
        Identity::Export { file } => Plan::Export { file },
        Identity::Import { file } => Plan::Import { file },
    }
}
