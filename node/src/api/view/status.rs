//! The node at a glance: sessions, relays, servers, and what waits.

use serde::{Deserialize, Serialize};
use sremp_common::time::Timestamp;

use super::{Direction, RelayView, RendezvousView};

/// How the node is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// Own id.
    pub id: String,
    /// Own name.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Where it listens, as bound (`HOST:PORT`).
    pub listening: Vec<String>,
    /// Where it says that it can be dialled.
    pub advertised: Vec<String>,
    /// Open sessions with peers and relays.
    pub sessions: Vec<SessionView>,
    /// Relays that hold mailboxes for this node.
    pub relays: Vec<RelayView>,
    /// Rendezvous servers, without those that are only suggested.
    pub rendezvous: Vec<RendezvousView>,
    /// Messages that have not reached a mailbox of each of their recipients.
    pub outbox: u64,
    /// Strangers' first contacts that wait for a decision.
    pub requests: u64,
    /// Since the start: edits and deletions of what their authors had not written. They had no effect.
    pub refused_changes: u64,
    /// Proofs of work that relays of strangers want before they take a first message.
    pub work: Vec<WorkView>,
    /// Since when this process runs.
    pub started_at: Timestamp,
}

/// A proof of work that is searched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkView {
    /// Whose mailbox it opens.
    pub id: String,
    /// How they are called here.
    pub name: String,
    /// The relay that wants it.
    pub relay: String,
    /// Zero bits that it wants.
    pub difficulty: u8,
    /// Hashes tried so far.
    pub tried: u64,
    /// Hashes that it takes on average; it may be more, or fewer.
    pub expected: u64,
}

/// One open session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Who is at the other end.
    pub id: String,
    /// What they call themselves.
    pub name: String,
    /// What the owner calls them.
    pub alias: Option<String>,
    /// They are a bot.
    pub is_machine_account: bool,
    /// Whether it is a session with a mailbox keeper of ours.
    pub relay: bool,
    /// Who dialled.
    pub direction: Direction,
}
