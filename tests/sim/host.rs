//! Machines: a node or a relay, each with a disk that outlives its crashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use sremp_common::connection::{Caller, Connection, Event, Local};
use sremp_common::entropy::Entropy;
use sremp_common::id::{IdentityKey, Incarnation};
use sremp_common::identity::{Flags, IdentityData, RelayRecord};
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::name::Username;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{Endpoint, List, Message, RequestId, StoreResponse, StoreResult};
use sremp_node::api::{ApiError, Command, Reply};
use sremp_node::delivery::Outbox;
use sremp_node::identity::Own;
use sremp_node::node::{Input, Node, NodeConfig, Output};
use sremp_node::store::Store;
use sremp_node::transport;
use sremp_relay::engine::{self, Engine, EngineConfig, SessionId};
use sremp_relay::store::{Mailboxes as _, RedbMailboxes, RedbStore};

use crate::disk::Disk;
use crate::hostile::Hostile;
use crate::net::ConnId;
use crate::trick::Tricks;

/// What a machine wants the world to do.
#[derive(Debug)]
pub enum Want {
    /// Open a connection.
    Dial(ConnId, Endpoint),
    /// Carry bytes.
    Write(ConnId, Vec<u8>),
    /// Close a connection.
    Close(ConnId),
}

/// What the network does to a machine.
#[derive(Debug)]
pub enum Happening {
    /// Somebody connected.
    Accepted(ConnId, Endpoint),
    /// A dial reached somebody.
    Connected(ConnId),
    /// A dial reached nobody.
    DialFailed(ConnId),
    /// Bytes arrived.
    Bytes(ConnId, Vec<u8>),
    /// Bytes left.
    Written(ConnId, usize),
    /// The connection is gone.
    Eof(ConnId),
    /// Only time has passed.
    Timeout,
}

/// A person's node, and everything it needs to start again.
#[derive(Debug)]
pub struct NodeHost {
    name: String,
    disk: Disk,
    secret: IdentitySecret,
    endpoint: Endpoint,
    entropy: Entropy,
    /// How many it was handed.
    inputs: u64,
    /// At how many relays of somebody's it leaves a message, from its next start on.
    pub relay_copies: usize,
    /// Whether it tells others when its owner writes, and its owner when they do.
    pub typing: bool,
    running: Option<(Store, Node)>,
}

/// Inputs of a node after which its invariants are looked at.
const CHECKED_EVERY: u64 = 16;

impl NodeHost {
    /// A fresh node, not running.
    #[must_use]
    pub fn new(name: String, endpoint: Endpoint, mut entropy: Entropy, now: Now) -> Self {
        let secret = IdentitySecret::generate(&mut entropy);
        let disk = Disk::default();
        let store = Store::with_backend(disk.clone()).unwrap();
        let tx = store.begin().unwrap();
        let username = Username::new(&name).unwrap();
        Own::create(&tx, secret.clone(), username, &mut entropy, now).unwrap();
        tx.accept().unwrap();
        tx.commit().unwrap();
        Self {
            name,
            disk,
            secret,
            endpoint,
            entropy,
            inputs: 0,
            relay_copies: 1,
            typing: false,
            running: None,
        }
    }

    /// Another machine with a copy of this one's disk, not running.
    #[must_use]
    pub fn copy(&self, disk: &Disk, endpoint: Endpoint, entropy: Entropy) -> Self {
        let (name, secret) = (format!("copy of {}", self.name), self.secret.clone());
        let (disk, relay_copies, typing) = (disk.copy(), self.relay_copies, self.typing);
        let (inputs, running) = (0, None);
        Self { name, disk, secret, endpoint, entropy, inputs, relay_copies, typing, running }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its identity.
    #[must_use]
    pub fn key(&self) -> IdentityKey {
        self.secret.public()
    }

    /// Starts from disk.
    pub fn start(&mut self, now: Now) -> Vec<Want> {
        let store = Store::with_backend(self.disk.clone()).unwrap();
        let tx = store.begin().unwrap();
        let own = Own::load(&tx, self.secret.clone()).unwrap();
        let config = NodeConfig {
            advertise: vec![self.endpoint.clone()],
            allow_private_addresses: true,
            relay_copies: self.relay_copies,
            typing: self.typing,
            ..NodeConfig::default()
        };
        let node = Node::load(&tx, own, config, self.entropy.fork(), now).unwrap();
        tx.commit().unwrap();
        self.running = Some((store, node));
        self.outputs().0
    }

    /// Kills it: what was not committed never was.
    pub fn crash(&mut self) {
        self.running = None;
        self.disk.crash();
    }

    /// A backup of its disk; of a node that does not run.
    #[must_use]
    pub fn backup(&self) -> Disk {
        assert!(self.running.is_none(), "a backup of a running node");
        self.disk.copy()
    }

    /// Puts a backup in the place of its disk; of a node that does not run.
    pub fn restore(&mut self, backup: &Disk) {
        assert!(self.running.is_none(), "a running node is not restored");
        self.disk = backup.copy();
    }

    /// Kills it after it has handled something and before the commit.
    pub fn crash_before_commit(&mut self, happening: Happening, now: Now) {
        if let (Some((store, node)), Some(input)) = (&mut self.running, input_of(happening)) {
            let tx = store.begin().unwrap();
            node.handle(&tx, input, now).unwrap();
            node.finish(&tx, now).unwrap();
            drop(tx);
        }
        self.crash();
    }

    /// Whether it runs.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// One input, one commit, then the effects.
    pub fn handle(&mut self, happening: Happening, now: Now) -> Vec<Want> {
        let Some(input) = input_of(happening) else { return Vec::new() };
        self.input(input, now).0
    }

    /// One command of the owner, with its answer (searches aside, all are answered at once).
    pub fn command(&mut self, command: Command, now: Now) -> (Vec<Want>, Result<Reply, ApiError>) {
        let (wants, replies) = self.input(Input::Command { reply_to: 0, command }, now);
        let reply = replies.into_iter().next();
        (wants, reply.unwrap_or_else(|| Err(ApiError::failed("no answer"))))
    }

    fn input(&mut self, input: Input, now: Now) -> (Vec<Want>, Vec<Result<Reply, ApiError>>) {
        let Some((store, node)) = &mut self.running else { return (Vec::new(), Vec::new()) };
        let span = tracing::debug_span!("node", name = self.name, at = now.instant.as_millis());
        let _entered = span.enter();
        let tx = store.begin().unwrap();
        node.handle(&tx, input, now).unwrap();
        node.finish(&tx, now).unwrap();
        tx.commit().unwrap();
        // They cost as much as what they check.
        self.inputs = self.inputs.wrapping_add(1);
        if self.inputs.is_multiple_of(CHECKED_EVERY) {
            node.check_invariants();
        }
        self.outputs()
    }

    /// What waits in its outbox, in words, for whoever reads a failed run.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        let Some((store, _)) = &self.running else { return Vec::new() };
        let tx = store.begin().unwrap();
        let mut all = Vec::new();
        for recipient in Outbox::recipients(&tx).unwrap() {
            for parcel in Outbox::waiting(&tx, &recipient, 0, 4).unwrap() {
                all.push(format!("to {recipient}: {parcel:?}"));
            }
        }
        all
    }

    fn outputs(&mut self) -> (Vec<Want>, Vec<Result<Reply, ApiError>>) {
        let Some((_, node)) = &mut self.running else { return (Vec::new(), Vec::new()) };
        let mut wants = Vec::new();
        let mut replies = Vec::new();
        while let Some(output) = node.poll_output() {
            match output {
                Output::Reply { result, .. } => replies.push(result),
                Output::Event(event) => {
                    let event = serde_json::to_string(&event.body).unwrap_or_default();
                    tracing::debug!(name = self.name, event);
                }
                Output::Effect(transport::Effect::Dial { conn, to, .. }) => {
                    wants.push(Want::Dial(conn, to));
                }
                Output::Effect(transport::Effect::DialTls { conn, .. }) => {
                    panic!("no rendezvous servers here, but connection {conn} is for one");
                }
                Output::Effect(transport::Effect::Write { conn, bytes }) => {
                    wants.push(Want::Write(conn, bytes));
                }
                Output::Effect(transport::Effect::Close { conn }) => {
                    wants.push(Want::Close(conn));
                }
            }
        }
        (wants, replies)
    }

    /// When it wants to be woken.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        self.running.as_ref().and_then(|(_, node)| node.poll_timeout())
    }
}

fn input_of(happening: Happening) -> Option<Input> {
    let input = match happening {
        Happening::Accepted(conn, from) => {
            transport::Input::Accepted { conn, from: from.socket_address()? }
        }
        Happening::Connected(conn) => transport::Input::Connected { conn },
        Happening::DialFailed(conn) => {
            transport::Input::DialFailed { conn, why: transport::DialError::Refused }
        }
        Happening::Bytes(conn, bytes) => transport::Input::Bytes { conn, bytes },
        Happening::Written(conn, bytes) => transport::Input::Written { conn, bytes },
        Happening::Eof(conn) => transport::Input::Eof { conn },
        Happening::Timeout => return Some(Input::Timeout),
    };
    Some(Input::Transport(input))
}

/// A relay, and everything it needs to start again.
#[derive(Debug)]
pub struct RelayHost {
    disk: Disk,
    local: Arc<Local>,
    endpoint: Endpoint,
    entropy: Entropy,
    tricks: Tricks,
    /// What its operator decided.
    config: EngineConfig,
    /// How it lies, while it does.
    pub hostile: Option<Hostile>,
    running: Option<RunningRelay>,
}

struct RunningRelay {
    store: RedbStore,
    engine: Engine,
    connections: BTreeMap<ConnId, (Connection, Endpoint)>,
    /// Who has identified itself on which connection.
    owners: BTreeMap<ConnId, IdentityKey>,
    /// What it keeps back from somebody: to be said when its tricks end.
    held: Vec<(ConnId, RequestId, Message)>,
    tricks: Tricks,
    entropy: Entropy,
}

impl std::fmt::Debug for RunningRelay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RunningRelay({} connections)", self.connections.len())
    }
}

impl RelayHost {
    /// A fresh relay, not running.
    #[must_use]
    pub fn new(endpoint: Endpoint, mut entropy: Entropy, now: Now) -> Self {
        let identity_secret = IdentitySecret::generate(&mut entropy);
        let noise_secret = NoiseSecret::generate(&mut entropy);
        let data = IdentityData {
            username: Username::new("relay").unwrap(),
            identity_key: identity_secret.public(),
            noise_key: noise_secret.public(),
            flags: Flags { is_relay_server: true, ..Flags::default() },
            extensions: None,
            version: 1,
            created: now.wall,
        };
        let identity = data.sign(&identity_secret).unwrap();
        let local = Arc::new(Local { identity, identity_secret, noise_secret });
        let tricks = Tricks::default();
        let disk = Disk::default();
        let config = EngineConfig::default();
        Self { disk, local, endpoint, entropy, tricks, config, hostile: None, running: None }
    }

    /// From now on it lies to the owners of its mailboxes, or no longer.
    pub fn set_hostile(&mut self, hostile: bool) {
        self.hostile = hostile.then(|| Hostile::new(self.entropy.fork()));
    }

    /// Its operator decides something else from now on.
    pub fn configure(&mut self, config: EngineConfig) {
        self.config = config.clone();
        if let Some(running) = &mut self.running {
            running.engine.set_config(config);
        }
    }

    /// From now on it does this wrong. What it kept back before is said.
    pub fn play(&mut self, tricks: Tricks) -> Vec<Want> {
        self.tricks.clone_from(&tricks);
        let Some(running) = &mut self.running else { return Vec::new() };
        running.tricks = tricks;
        for (conn, request_id, message) in std::mem::take(&mut running.held) {
            if let Some((connection, _)) = running.connections.get_mut(&conn) {
                connection.respond(request_id, &message);
            }
        }
        running.transmit()
    }

    /// Everything that is written on its disk.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.disk.image()
    }

    /// How nodes find it.
    #[must_use]
    pub fn record(&self) -> RelayRecord {
        RelayRecord {
            identity_key: self.local.identity.key(),
            endpoints: List::truncated(vec![self.endpoint.clone()]),
        }
    }

    /// A new disk in place of the old one; of a relay that does not run.
    pub fn forget_all(&mut self) {
        assert!(self.running.is_none(), "a running relay has its disk");
        self.disk = Disk::default();
    }

    /// Starts from disk.
    pub fn start(&mut self) {
        let store = RedbStore::with_backend(self.disk.clone(), 1024 * 1024).unwrap();
        let transaction = store.begin().unwrap();
        let fresh = Incarnation::new(self.entropy.array());
        let incarnation =
            RedbMailboxes::within(&transaction, |mailboxes| mailboxes.incarnation(fresh)).unwrap();
        transaction.commit().unwrap();
        let engine = Engine::new(self.config.clone(), self.local.identity.key(), incarnation);
        self.running = Some(RunningRelay {
            store,
            engine,
            connections: BTreeMap::new(),
            owners: BTreeMap::new(),
            held: Vec::new(),
            tricks: self.tricks.clone(),
            entropy: self.entropy.fork(),
        });
    }

    /// Kills it.
    pub fn crash(&mut self) {
        self.running = None;
        self.disk.crash();
    }

    /// Whether it runs.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// One happening, one commit, then the effects.
    pub fn handle(&mut self, happening: Happening, now: Now) -> Vec<Want> {
        let Some(running) = &mut self.running else { return Vec::new() };
        let mut inputs = Vec::new();
        match happening {
            Happening::Accepted(conn, from) => {
                let entropy = self.entropy.fork();
                let connection = Connection::accept(Arc::clone(&self.local), entropy, now);
                running.connections.insert(conn, (connection, from));
            }
            Happening::Bytes(conn, bytes) => {
                if let Some((connection, _)) = running.connections.get_mut(&conn) {
                    connection.handle_bytes(&bytes, now);
                }
                running.collect(conn, &mut inputs);
            }
            Happening::Eof(conn) => {
                running.owners.remove(&conn);
                if running.connections.remove(&conn).is_some() {
                    inputs.push(engine::Input::Closed { session: SessionId(conn) });
                }
            }
            Happening::Timeout => {
                let all: Vec<ConnId> = running.connections.keys().copied().collect();
                for conn in all {
                    if let Some((connection, _)) = running.connections.get_mut(&conn) {
                        connection.handle_timeout(now);
                    }
                    running.collect(conn, &mut inputs);
                }
            }
            Happening::Connected(_) | Happening::DialFailed(_) | Happening::Written(..) => {}
        }
        let is_due = running.engine.poll_timeout() <= now.instant;
        if !inputs.is_empty() || is_due {
            running.apply(inputs, &mut self.hostile, now);
        }
        running.transmit()
    }

    /// When it wants to be woken.
    #[must_use]
    pub fn wake_at(&self) -> Option<Instant> {
        let running = self.running.as_ref()?;
        let connections =
            running.connections.values().filter_map(|(connection, _)| connection.poll_timeout());
        connections.chain([running.engine.poll_timeout()]).min()
    }
}

impl RunningRelay {
    fn collect(&mut self, conn: ConnId, inputs: &mut Vec<engine::Input>) {
        let session = SessionId(conn);
        let Some((connection, from)) = self.connections.get_mut(&conn) else { return };
        while let Some(event) = connection.poll_event() {
            match event {
                Event::Established(peer) => {
                    connection.set_peer_trusted(true);
                    let caller = match peer.caller {
                        Caller::Identified(identity) => Some(identity.key()),
                        Caller::Anonymous => None,
                    };
                    if let Some(caller) = caller {
                        self.owners.insert(conn, caller);
                    }
                    let observed = Some(from.clone());
                    inputs.push(engine::Input::Opened { session, caller, observed });
                }
                Event::Request { id, message }
                    if self.tricks.throws_away(&message, &mut self.entropy) =>
                {
                    connection.respond(id, &pretended(&message));
                }
                Event::Request { id, message } => {
                    inputs.push(engine::Input::Request { session, request_id: id, message });
                }
                Event::Response { .. } => {}
                Event::Closed(_) => inputs.push(engine::Input::Closed { session }),
            }
        }
    }

    fn apply(&mut self, inputs: Vec<engine::Input>, hostile: &mut Option<Hostile>, now: Now) {
        let transaction = self.store.begin().unwrap();
        RedbMailboxes::within(&transaction, |mailboxes| {
            for input in inputs {
                self.engine.handle(mailboxes, input, now)?;
            }
            self.engine.handle_timeout(mailboxes, now)?;
            self.engine.settle(mailboxes)
        })
        .unwrap();
        if self.engine.take_durability() == engine::Durability::Nothing {
            transaction.abort().unwrap();
        } else {
            transaction.commit().unwrap();
        }
        while let Some(output) = self.engine.poll_output() {
            match output {
                engine::Output::Answer { session, request_id, message } => {
                    let owner = self.owners.get(&session.0).copied();
                    let twisted = self.tricks.twist(owner, message, &mut self.entropy);
                    let held = twisted.held.map(|message| (session.0, request_id, message));
                    self.held.extend(held);
                    let Some((connection, _)) = self.connections.get_mut(&session.0) else {
                        continue;
                    };
                    for message in twisted.said {
                        let lies = match hostile {
                            Some(hostile) => hostile.instead_of(message),
                            None => vec![message],
                        };
                        for message in lies {
                            connection.respond(request_id, &message);
                        }
                    }
                }
                engine::Output::Tell { session, message } => {
                    if let Some((connection, _)) = self.connections.get_mut(&session.0) {
                        let _ = connection.request(&message);
                    }
                }
            }
        }
    }

    fn transmit(&mut self) -> Vec<Want> {
        let mut wants = Vec::new();
        let mut closed = Vec::new();
        for (conn, (connection, _)) in &mut self.connections {
            while let Some(bytes) = connection.poll_transmit() {
                wants.push(Want::Write(*conn, bytes));
            }
            if connection.is_closed() {
                wants.push(Want::Close(*conn));
                closed.push(*conn);
            }
        }
        for conn in closed {
            self.owners.remove(&conn);
            self.connections.remove(&conn);
        }
        wants
    }
}

/// The answer to a request to store, without anything being stored.
fn pretended(request: &Message) -> Message {
    let stored = StoreResult { refused: None, expires_at: None, retry_after: None };
    let count = match request {
        Message::StoreMessage(store) => store.recipients.len(),
        _ => 0,
    };
    Message::StoreResponse(StoreResponse { results: List::truncated(vec![stored; count]) })
}
