//! The tables of the node's store: a closed list, so that two modules never share one by accident.

use redb::TableDefinition;

/// Names the tables once: for the enum, the list and the database.
macro_rules! tables {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// A table of the store, from bytes to bytes. The owner of a table knows its rows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Table {
            $($(#[$doc])* $variant,)+
        }

        impl Table {
            /// All tables.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

tables! {
    /// Schema version, own settings and counters.
    Meta = "meta",
    /// People and programs that we know.
    Contacts = "contacts",
    /// Fellow members of groups who are no contacts.
    Fellows = "fellows",
    /// Conversations as shown.
    Conversations = "conversations",
    /// History.
    Messages = "messages",
    /// Message id to place in the history.
    MessageIndex = "message-index",
    /// What was done to messages after they were written: reactions, edits, deletions (`conversations`).
    Changes = "changes",
    /// Those of them whose message has not come, by who made them (`conversations`).
    EarlyChanges = "early-changes",
    /// Messages that vanish, in the order in which they do (`node`).
    Vanishing = "vanishing",
    /// What is to be delivered, and to whom.
    Outbox = "outbox",
    /// How far each blob of it has come.
    OutboxProgress = "outbox-progress",
    /// The bytes of it.
    OutboxBlobs = "outbox-blobs",
    /// How often in a row nothing has got through to somebody for whom something waits.
    Pauses = "pauses",
    /// What became of inputs.
    Verdicts = "verdicts",
    /// Inputs that wait for something.
    Deferred = "deferred",
    /// First contacts that wait for the user.
    Requests = "requests",
    /// One record for each group: its retained states and the tip (`groups`).
    Groups = "groups",
    /// One row for each retained state: its wrap keys (`groups`).
    GroupStates = "group-states",
    /// The wrapped commit that led into each retained state, for whoever misses it (`groups`).
    GroupCommits = "group-commits",
    /// The wrapped proposals that were made in each retained state: its commits may refer to them
    /// (`groups`).
    GroupProposals = "group-proposals",
    /// Epoch authenticators of states that were left behind (`groups`).
    GroupPast = "group-past",
    /// By which key former members signed last (`groups`).
    GroupFormer = "group-former",
    /// The rows of OpenMLS (`groups`).
    Mls = "mls",
    /// Our own key packages, and Welcomes that were used (`groups`).
    KeyPackages = "key-packages",
    /// Tokens that we gave away, and that we hold.
    Tokens = "tokens",
    /// Relays.
    Relays = "relays",
    /// Rendezvous servers.
    Rendezvous = "rendezvous",
    /// What `watch` shows.
    Events = "events",
    /// How peers can be reached.
    Endpoints = "endpoints",
    /// Members that are still to be added to groups.
    Invites = "invites",
    /// When members of groups were last heard.
    LastHeard = "last-heard",
    /// Members of groups who were never heard there.
    Unheard = "unheard",
    /// Their invitations, to be sent again.
    KeptWelcomes = "kept_welcomes",
    /// Own messages that are not encrypted yet.
    Intents = "intents",
}

impl Table {
    pub(super) const fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name())
    }
}
