//! The node: one of each layer, and everything that passes between them.
//!
//! ```text
//!   commands ─→ conversations ─→ groups ─→ delivery ─→ transport ─→ effects
//!   events   ←─ conversations ←─ groups ←─ verdicts ←─ transport ←─ bytes
//! ```
//! One input at a time goes through [`Node::handle`]. What it changes in the store stands in the
//! overlay of the transaction until it is accepted; a refused input leaves nothing behind. At the
//! end of a batch [`Node::finish`] makes what the batch owes (receipts, retries of blobs that
//! waited), then the shell commits, and only then drains [`Node::poll_output`]. Batches that let
//! nothing out may share a transaction with the next.

mod changing;
mod commands;
mod contacts;
mod events;
mod filing;
mod follow;
mod friends;
mod groups;
mod handing_out;
mod healing;
mod hearing;
mod housekeeping;
mod identity;
mod incoming;
mod invites;
mod lanes;
mod leaving;
mod mailboxes;
mod outcome;
mod profiles;
mod reading;
mod receive;
mod registry;
mod repair;
mod sending;
mod settings;
#[cfg(test)]
mod tests;
mod typing;
mod vanishing;
mod views;
mod waiting;
mod welcomes;
mod work;

pub use settings::{check_invite, check_relay_link};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sremp_common::entropy::Entropy;
use sremp_common::id::{GroupId, IdentityKey, MessageId};
use sremp_common::identity::RelayRecord;
use sremp_common::time::{Instant, Now, Timestamp};
use sremp_common::wire::Endpoint;

use crate::api::{ApiError, Command, Event, PathPolicy, Reply};
use crate::delivery::{Lane, Shipments, Trouble, Way};
use crate::groups::{GroupError, Groups, Roster, StateId, Workers};
use crate::identity::{Own, OwnError};
use crate::store::{StoreError, Tx};
use crate::transport::{self, Effect, Transport, TransportConfig};

use invites::{Fetch, Gathered};
use mailboxes::Mailbox;
use registry::{PeerSearch, Server};

/// Between two lists of tokens that relays are told.
const ADMISSION_PAUSE: Duration = Duration::from_secs(2);

/// What may differ between nodes, from the configuration.
#[derive(Clone, Debug, Default)]
pub struct NodeConfig {
    /// Where the node listens, as bound.
    pub listening: Vec<SocketAddr>,
    /// Where others may dial it.
    pub advertise: Vec<Endpoint>,
    /// Which paths are used unless a contact says otherwise.
    pub path: PathPolicy,
    /// At how many of a recipient's relays a message is left; at least one.
    pub relay_copies: usize,
    /// Dial private addresses whoever told them.
    pub allow_private_addresses: bool,
    /// Shown in the listings of rendezvous servers.
    pub listed: bool,
    /// Others are told when the owner writes, and the owner when they do.
    pub typing: bool,
}

/// What the outside world did.
#[derive(Debug)]
pub enum Input {
    /// The owner asks for something; answered by one [`Output::Reply`] with the same number.
    Command {
        /// Chosen by the shell.
        reply_to: u64,
        /// What.
        command: Command,
    },
    /// Something happened on a connection.
    Transport(transport::Input),
    /// [`Node::poll_timeout`] has come. Early or twice is harmless.
    Timeout,
}

/// What the shell has to do, after the commit, in this order.
#[derive(Debug)]
pub enum Output {
    /// The answer to a command.
    Reply {
        /// As in the input.
        reply_to: u64,
        /// The answer.
        result: Result<Reply, ApiError>,
    },
    /// Something to tell whoever watches.
    Event(Event),
    /// Something to do on a connection.
    Effect(Effect),
}

/// Why an input changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The store failed: the process has to start again from disk.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// The owner asked for something that cannot be.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The group's rules, or its state, do not allow it.
    #[error(transparent)]
    Group(GroupError),
}

impl From<GroupError> for NodeError {
    fn from(error: GroupError) -> Self {
        if let GroupError::Store(error) = error { Self::Store(error) } else { Self::Group(error) }
    }
}

impl From<OwnError> for NodeError {
    fn from(error: OwnError) -> Self {
        if let OwnError::Store(error) = error {
            Self::Store(error)
        } else {
            Self::Api(ApiError::refused(error.to_string()))
        }
    }
}

/// What a call was made for: where its answer belongs.
#[derive(Debug)]
enum Call {
    /// A blob on its way to recipients over one path.
    Store { relay: Option<IdentityKey>, recipients: Vec<IdentityKey>, blob: u64 },
    /// Somebody's key package.
    KeyPackage { who: IdentityKey },
    /// What a relay asks of whoever has no token for somebody's mailbox.
    Price { who: IdentityKey, relay: RelayRecord },
    /// The steps of opening a mailbox at a relay of ours.
    Mailbox { relay: IdentityKey, step: mailboxes::Step },
    /// A registration at a rendezvous server.
    Register { server: usize },
    /// Looking for somebody at a rendezvous server.
    Lookup { who: IdentityKey, server: usize },
    /// A page of the listed identities.
    Listing { search: u64, server: usize },
    /// Other rendezvous servers.
    ListServers { server: usize },
    /// Nothing depends on the answer.
    Ignored,
}

/// A person's node, without sockets, clocks, files.
#[derive(Debug)]
pub struct Node {
    own: Own,
    config: NodeConfig,
    entropy: Entropy,
    transport: Transport,
    groups: Groups,
    started_at: Timestamp,

    calls: BTreeMap<u64, Call>,
    next_tag: u64,
    lanes: BTreeMap<IdentityKey, Lane>,
    fetches: BTreeMap<IdentityKey, Fetch>,
    gathered: BTreeMap<GroupId, Gathered>,
    mailboxes: BTreeMap<IdentityKey, Mailbox>,
    servers: Vec<Server>,
    /// Until when messages wait for a relay's word that no other copy of this home has sent.
    unproved_until: Option<Instant>,
    was_unproved: bool,
    keeper: Option<friends::Keeper>,
    searches: BTreeMap<u64, PeerSearch>,
    suggested: registry::Suggested,
    listed: bool,
    /// Members of our groups, contacts or not.
    fellows: BTreeSet<IdentityKey>,
    /// Members of each group that we are in, as of when it last changed.
    fellows_of: BTreeMap<GroupId, Arc<Roster>>,
    /// Key packages made for takers today.
    handed_out: handing_out::HandedOut,
    /// The day on which the tokens in our leaves were last looked through.
    leaves_seen_on: Option<u64>,

    /// Receipts that the current batch owes.
    receipts: BTreeMap<(GroupId, StateId, IdentityKey), Vec<MessageId>>,
    /// The current batch entered new states: blobs that waited may be readable now.
    retry_deferred: bool,
    /// A part of an invitation waits for what all who are invited have in common.
    awaits_shared: bool,
    /// The list of tokens changed: relays have to be told.
    admission_changed: bool,
    /// Not before this moment: relays allow so many changes a minute.
    admission_at: Instant,
    /// Contacts or members changed: the transport has to be told.
    people_changed: bool,
    /// By the number of a commit's blob: whose Welcomes wait until somebody has the commit.
    held: BTreeMap<u64, BTreeSet<(IdentityKey, u64)>>,
    /// Groups whose tip moved in the current batch.
    follow_ups: BTreeMap<GroupId, follow::FollowUp>,
    /// Groups in which members race.
    unsettled: BTreeMap<GroupId, follow::Unsettled>,
    leaves: leaving::Leaves,
    healing: healing::Healing,
    repair: repair::Repair,
    /// Recipients whose lanes have to be looked at.
    awake: BTreeSet<IdentityKey>,
    /// What the lanes that were looked at send to relays.
    shipments: Shipments,
    /// Invitations by strangers for which there was no room.
    requests_dropped: u64,
    /// Changes to what their author had not written.
    changes_refused: u64,
    typists: typing::Typists,
    /// When the next message vanishes.
    vanishing_at: Option<Instant>,
    housekeeping_at: Instant,
    verdict_cursor: Vec<u8>,

    /// Events of what is not accepted yet, and the number of the next one.
    untold: Vec<Event>,
    outputs: VecDeque<Output>,
}

impl Node {
    /// Loads a node from its store and picks up every unfinished thing.
    ///
    /// # Errors
    /// [`NodeError`] when the store cannot be read.
    pub fn load(
        tx: &Tx,
        own: Own,
        config: NodeConfig,
        mut entropy: Entropy,
        now: Now,
    ) -> Result<Self, NodeError> {
        let transport = Transport::new(
            own.local(),
            entropy.fork(),
            TransportConfig { allow_private_addresses: config.allow_private_addresses },
        );
        let groups = Groups::new(own.leaf_signer()?, own.key(), entropy.fork());
        let mut node = Self {
            own,
            config,
            transport,
            groups,
            started_at: now.wall,
            calls: BTreeMap::new(),
            next_tag: 1,
            lanes: BTreeMap::new(),
            fetches: BTreeMap::new(),
            gathered: BTreeMap::new(),
            mailboxes: BTreeMap::new(),
            servers: Vec::new(),
            unproved_until: None,
            was_unproved: false,
            keeper: None,
            searches: BTreeMap::new(),
            suggested: registry::Suggested::default(),
            listed: false,
            fellows: BTreeSet::new(),
            fellows_of: BTreeMap::new(),
            handed_out: handing_out::HandedOut::default(),
            leaves_seen_on: None,
            receipts: BTreeMap::new(),
            retry_deferred: true,
            awaits_shared: false,
            admission_changed: false,
            admission_at: now.instant,
            people_changed: true,
            held: BTreeMap::new(),
            follow_ups: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            leaves: leaving::Leaves::default(),
            healing: healing::Healing::default(),
            repair: repair::Repair::default(),
            awake: BTreeSet::new(),
            shipments: Shipments::default(),
            requests_dropped: 0,
            changes_refused: 0,
            typists: typing::Typists::default(),
            vanishing_at: None,
            housekeeping_at: now.instant,
            verdict_cursor: Vec::new(),
            untold: Vec::new(),
            outputs: VecDeque::new(),
            entropy,
        };
        node.load_settings(tx, now)?;
        node.load_keeper(tx)?;
        node.load_mailboxes(tx, now)?;
        node.load_servers(tx)?;
        node.load_lanes(tx)?;
        node.load_fetches(tx, now)?;
        node.load_follow_ups(tx)?;
        node.load_healing(tx, now)?;
        node.load_repair(tx, now)?;
        node.load_leaves(tx, now)?;
        node.wake_for_vanishing(tx, now)?;
        node.finish(tx, now)?;
        Ok(node)
    }

    /// From now on these do what can be done side by side: by default nobody but the caller.
    pub fn set_workers(&mut self, workers: Arc<dyn Workers>) {
        self.groups.set_workers(workers);
    }

    /// Takes in what happened. What it changes is accepted into the transaction, or nothing is.
    ///
    /// # Errors
    /// Only the store's: the process has to start again from disk then.
    pub fn handle(&mut self, tx: &Tx, input: Input, now: Now) -> Result<(), StoreError> {
        match input {
            Input::Command { reply_to, command } => {
                self.handle_command(tx, reply_to, command, now)?
            }
            Input::Transport(input) => self.transport.handle(input, now),
            Input::Timeout => {
                self.transport.handle_timeout(now);
                self.attempt(tx, |node, tx| node.handle_timers(tx, now))?;
                self.attempt(tx, |node, tx| node.vanish(tx, now))?;
                self.attempt(tx, |node, tx| node.forget_typists(tx, now))?;
                self.attempt(tx, |node, tx| node.repair(tx, now))?;
                self.attempt(tx, |node, tx| node.heal(tx, now))?;
                self.settle_groups(now);
                self.take_turns(tx, now)?;
                self.move_keeper(tx, now)?;
            }
        }
        self.drain_transport(tx, now)
    }

    /// Ends a batch: makes what it owes. To be followed by the commit.
    ///
    /// # Errors
    /// Only the store's.
    pub fn finish(&mut self, tx: &Tx, now: Now) -> Result<(), StoreError> {
        if std::mem::take(&mut self.retry_deferred) {
            self.retry_waiting_blobs(tx, now)?;
        }
        self.attempt(tx, |node, tx| node.go_on_when_proved(tx, now))?;
        self.follow_up(tx, now)?;
        if std::mem::take(&mut self.retry_deferred) {
            self.retry_waiting_blobs(tx, now)?;
            self.follow_up(tx, now)?;
        }
        self.attempt(tx, |node, tx| node.make_receipts(tx, now))?;
        if std::mem::take(&mut self.people_changed) {
            self.attempt(tx, |node, tx| node.tell_transport_of_people(tx, now))?;
        }
        if self.admission_changed && self.admission_at <= now.instant {
            self.admission_changed = false;
            self.admission_at = now.instant + ADMISSION_PAUSE;
            self.attempt(tx, |node, tx| node.tell_relays_of_tokens(tx, now))?;
        }
        self.drain_transport(tx, now)?;
        loop {
            while let Some(recipient) = self.awake.pop_first() {
                self.attempt(tx, |node, tx| node.move_lane(tx, &recipient, now))?;
                self.drain_transport(tx, now)?;
            }
            if self.shipments.wake_at().is_none_or(|at| at > now.instant) {
                break;
            }
            self.attempt(tx, |node, tx| node.send_shipments(tx, now))?;
            self.drain_transport(tx, now)?;
        }
        while let Some(effect) = self.transport.poll_effect() {
            self.outputs.push_back(Output::Effect(effect));
        }
        Ok(())
    }

    /// What the shell has to do next; only after the commit of the batch that asked for it.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether [`Self::poll_output`] would give something: somebody waits for the commit then.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// When [`Input::Timeout`] is due; may move with every other input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lanes = self.lanes.values().filter_map(Lane::wake_at);
        let fetches = self.fetches.values().filter_map(Fetch::wake_at);
        let servers = self.servers.iter().filter_map(Server::wake_at);
        let searches = self.searches.values().map(PeerSearch::wake_at);
        lanes
            .chain(fetches)
            .chain(servers)
            .chain(searches)
            .chain(self.transport.poll_timeout())
            .chain(self.keeper_wakes())
            .chain(self.repair.wake_at())
            .chain(self.shipments.wake_at())
            .chain(self.gathered.values().map(Gathered::wake_at))
            .chain(self.healing.wake_at())
            .chain(self.leaves.wake_at())
            .chain(self.unproved_until)
            .chain(self.vanishing_at)
            .chain(self.typists.wake_at())
            .chain(self.unsettled.values().map(follow::Unsettled::until))
            .chain(self.admission_changed.then_some(self.admission_at))
            .chain(self.retry_deferred.then_some(Instant::default()))
            .chain([self.housekeeping_at])
            .min()
    }

    /// Ends every session in an orderly way, before the program ends.
    pub fn shut_down(&mut self, now: Now) {
        self.transport.shut_down(now);
        while let Some(effect) = self.transport.poll_effect() {
            self.outputs.push_back(Output::Effect(effect));
        }
    }

    /// Our own identity.
    #[must_use]
    pub const fn own(&self) -> &Own {
        &self.own
    }

    /// Panics when an invariant is broken: for debug builds and the simulator.
    pub fn check_invariants(&self) {
        self.transport.check_invariants();
    }

    /// One step that changes all it wants to change, or nothing.
    fn attempt(
        &mut self,
        tx: &Tx,
        step: impl FnOnce(&mut Self, &Tx) -> Result<(), NodeError>,
    ) -> Result<(), StoreError> {
        match step(self, tx) {
            Ok(()) => self.accept(tx),
            Err(NodeError::Store(error)) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a step was refused");
                self.refuse(tx);
                Ok(())
            }
        }
    }

    fn accept(&mut self, tx: &Tx) -> Result<(), StoreError> {
        tx.accept()?;
        self.groups.accepted();
        self.outputs.extend(self.untold.drain(..).map(Output::Event));
        Ok(())
    }

    fn refuse(&mut self, tx: &Tx) {
        tx.refuse();
        self.groups.refused();
        self.untold.clear();
    }

    fn handle_timers(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        for (recipient, lane) in &self.lanes {
            if lane.wake_at().is_some_and(|at| at <= now.instant) {
                self.awake.insert(*recipient);
            }
        }
        self.move_fetches(tx, now)?;
        self.renew_registrations(now);
        self.end_searches(tx, now)?;
        if self.housekeeping_at <= now.instant {
            self.keep_house(tx, now)?;
        }
        Ok(())
    }

    fn drain_transport(&mut self, tx: &Tx, now: Now) -> Result<(), StoreError> {
        while let Some(event) = self.transport.poll_event() {
            self.handle_transport_event(tx, event, now)?;
        }
        Ok(())
    }

    fn handle_transport_event(
        &mut self,
        tx: &Tx,
        event: transport::Event,
        now: Now,
    ) -> Result<(), StoreError> {
        match event {
            transport::Event::SessionUp { session, peer, relay, from, .. } => {
                let caller = peer.as_ref().map(|peer| peer.key());
                self.keeper_opened(tx, session, caller, from.map(Endpoint::from), now)?;
                let Some(peer) = peer else { return Ok(()) };
                self.attempt(tx, |node, tx| node.session_up(tx, &peer, relay, now))
            }
            transport::Event::SessionDown { session, peer } => {
                self.keeper_closed(tx, session, now)?;
                let Some(peer) = peer else { return Ok(()) };
                self.attempt(tx, |node, tx| node.session_down(tx, &peer, now))
            }
            transport::Event::Incoming { session, caller, request_id, message } => {
                self.incoming(tx, session, caller.as_deref(), request_id, message, now)
            }
            transport::Event::Answer { tag, result } => match self.calls.remove(&tag) {
                Some(call) => self.attempt(tx, |node, tx| node.answered(tx, call, result, now)),
                None => Ok(()),
            },
            transport::Event::Pushed { from, message, .. } => self.pushed(tx, from, message, now),
            transport::Event::Unreached { peer, why } => {
                self.relay_unreached(&peer, why);
                if let Some(lane) = self.lanes.get_mut(&peer) {
                    lane.note_trouble(Way::Direct, Trouble::Unreachable(why));
                    self.attempt(tx, |node, tx| node.look_up(tx, &peer, now))?;
                    self.awake.insert(peer);
                }
                Ok(())
            }
        }
    }

    fn answered(
        &mut self,
        tx: &Tx,
        call: Call,
        result: Result<sremp_common::wire::Message, transport::CallError>,
        now: Now,
    ) -> Result<(), NodeError> {
        match call {
            Call::Store { relay, recipients, blob } => {
                self.store_answered(tx, blob, relay, recipients, result, now)
            }
            Call::KeyPackage { who } => self.key_package_answered(tx, who, result, now),
            Call::Price { who, relay } => self.price_answered(tx, who, relay, result, now),
            Call::Mailbox { relay, step } => self.mailbox_answered(tx, relay, step, result, now),
            Call::Register { server } => self.registration_answered(tx, server, result, now),
            Call::Lookup { who, server } => self.lookup_answered(tx, who, server, result, now),
            Call::Listing { search, server } => {
                self.listing_answered(tx, search, server, result, now)
            }
            Call::ListServers { server } => {
                self.servers_answered(server, result, now);
                Ok(())
            }
            Call::Ignored => Ok(()),
        }
    }

    /// Makes a call whose answer comes back to [`Self::answered`].
    fn call(
        &mut self,
        target: transport::Target,
        candidates: &[transport::Candidate],
        message: sremp_common::wire::Message,
        call: Call,
        now: Now,
    ) {
        let tag = self.new_tag();
        self.calls.insert(tag, call);
        self.transport.call(target, candidates, message, tag, now);
    }

    const fn new_tag(&mut self) -> u64 {
        let tag = self.next_tag;
        self.next_tag = tag.wrapping_add(1);
        tag
    }
}
