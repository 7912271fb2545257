//! A network of queues: delivers bytes with a latency, loses nothing unless told to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sremp_common::connection::Local;
use sremp_common::entropy::Entropy;
use sremp_common::id::{IdentityKey, Incarnation};
use sremp_common::identity::{Flags, IdentityData, VerifiedIdentity};
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::name::Username;
use sremp_common::time::{Instant, Now, Timestamp};
use sremp_common::wire::{
    Endpoint, List, Message, Ping, RelayInfo, RelayLimits, StoreResponse, StoreResult,
};

use crate::transport::{
    CallError, Candidate, ConnId, DialError, Effect, Event, Input, Target, Transport,
    TransportConfig,
};

/// Wall-clock time at the start: any will do.
const EPOCH_MS: u64 = 1_750_000_000_000;

pub(super) struct World {
    pub(super) now: Now,
    pub(super) nodes: Vec<Node>,
    /// One-way delay in milliseconds, by sender.
    pub(super) latency_ms: BTreeMap<usize, u64>,
    /// Dials to these are refused at once; to any other unknown place they get no answer.
    pub(super) refusing: BTreeSet<Endpoint>,
    /// Nobody reports these nodes' writes as done, as if their peers did not read.
    pub(super) stuck_writers: BTreeSet<usize>,
    wires: BTreeMap<(usize, ConnId), (usize, ConnId)>,
    queue: BTreeMap<(u64, u64), (usize, Input)>,
    /// When the last delivery on a wire is due, so that nothing overtakes.
    last: BTreeMap<(usize, ConnId), u64>,
    sequence: u64,
}

pub(super) struct Node {
    pub(super) transport: Transport,
    pub(super) identity: VerifiedIdentity,
    pub(super) address: SocketAddr,
    /// Whether requests are answered at once.
    pub(super) answers: bool,
    pub(super) events: Vec<Event>,
    pub(super) dials: Vec<(u64, Endpoint)>,
    next_accepted: ConnId,
}

pub(super) fn local(seed: u64) -> Arc<Local> {
    let mut entropy = Entropy::from_number(seed);
    let identity_secret = IdentitySecret::generate(&mut entropy);
    let noise_secret = NoiseSecret::generate(&mut entropy);
    let data = IdentityData {
        username: Username::new("somebody").unwrap(),
        identity_key: identity_secret.public(),
        noise_key: noise_secret.public(),
        flags: Flags::default(),
        extensions: None,
        version: 1,
        created: Timestamp::from_millis(EPOCH_MS),
    };
    let identity = data.sign(&identity_secret).unwrap();
    Arc::new(Local { identity, identity_secret, noise_secret })
}

pub(super) fn at(ms: u64) -> Now {
    Now { instant: Instant::from_millis(ms), wall: Timestamp::from_millis(EPOCH_MS + ms) }
}

pub(super) fn ask() -> Message {
    Message::RelayInfoRequest(Ping())
}

pub(super) fn relay_info() -> Message {
    let limits = RelayLimits { max_blob: 1, max_messages: 1, max_bytes: 1, retention: 1 };
    Message::RelayInfo(RelayInfo {
        limits,
        pow_difficulty: 0,
        time: Timestamp::from_millis(0),
        incarnation: Incarnation::new([0; 16]),
        observed: None,
    })
}

impl World {
    /// `count` nodes whose keys ascend with their place.
    pub(super) fn new(count: usize, seed: u64) -> Self {
        let mut locals: Vec<_> =
            (0..count).map(|i| local(seed * 100 + u64::try_from(i).unwrap())).collect();
        locals.sort_by_key(|local| local.identity.key());
        let nodes = locals.into_iter().enumerate().map(|(i, local)| Node::new(i, local)).collect();
        Self {
            now: at(0),
            nodes,
            latency_ms: BTreeMap::new(),
            refusing: BTreeSet::new(),
            stuck_writers: BTreeSet::new(),
            wires: BTreeMap::new(),
            queue: BTreeMap::new(),
            last: BTreeMap::new(),
            sequence: 0,
        }
    }

    pub(super) fn key(&self, node: usize) -> IdentityKey {
        self.nodes[node].identity.key()
    }

    pub(super) fn candidate(&self, node: usize) -> Candidate {
        Candidate::told(self.nodes[node].address.into())
    }

    pub(super) fn call(&mut self, from: usize, to: usize, tag: u64) {
        let target = Target::Peer(self.key(to));
        let candidates = [self.candidate(to)];
        self.call_with(from, target, &candidates, ask(), tag);
    }

    pub(super) fn call_with(
        &mut self,
        from: usize,
        target: Target,
        candidates: &[Candidate],
        message: Message,
        tag: u64,
    ) {
        let now = self.now;
        self.with(from, |transport| transport.call(target, candidates, message, tag, now));
    }

    /// Does something to a node's transport, and carries out what it asks for.
    pub(super) fn with<R>(&mut self, node: usize, act: impl FnOnce(&mut Transport) -> R) -> R {
        let result = act(&mut self.nodes[node].transport);
        self.drain(node);
        result
    }

    /// Runs for a while of virtual time.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        while let Some(next) = self.next_moment().filter(|next| *next <= end) {
            self.now = at(next.max(self.now.instant).as_millis());
            self.step();
        }
        self.now = at(end.as_millis());
    }

    fn next_moment(&self) -> Option<Instant> {
        let delivery = self.queue.keys().next().map(|(ms, _)| Instant::from_millis(*ms));
        let timers = self.nodes.iter().filter_map(|node| node.transport.poll_timeout());
        delivery.into_iter().chain(timers).min()
    }

    fn step(&mut self) {
        let now_ms = self.now.instant.as_millis();
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= now_ms) {
            let (node, input) = entry.remove();
            let now = self.now;
            self.with(node, |transport| transport.handle(input, now));
        }
        for node in 0..self.nodes.len() {
            let is_due = |transport: &Transport, now: Now| {
                transport.poll_timeout().is_some_and(|at| at <= now.instant)
            };
            for round in 0.. {
                if !is_due(&self.nodes[node].transport, self.now) {
                    break;
                }
                assert!(round < 8, "a timer that does not move");
                let now = self.now;
                self.with(node, |transport| transport.handle_timeout(now));
            }
        }
    }

    fn drain(&mut self, node: usize) {
        loop {
            if let Some(effect) = self.nodes[node].transport.poll_effect() {
                self.carry_out(node, effect);
            } else if let Some(event) = self.nodes[node].transport.poll_event() {
                self.hear(node, event);
            } else {
                break;
            }
        }
        self.nodes[node].transport.check_invariants();
    }

    fn hear(&mut self, node: usize, event: Event) {
        if let Event::Incoming { session, request_id, message, .. } = &event
            && self.nodes[node].answers
        {
            let answer = match message {
                Message::StoreMessage(store) => {
                    let result = StoreResult { refused: None, expires_at: None, retry_after: None };
                    let results = vec![result; store.recipients.len()];
                    Message::StoreResponse(StoreResponse { results: List::truncated(results) })
                }
                _ => relay_info(),
            };
            let now = self.now;
            self.nodes[node].transport.respond(*session, *request_id, &answer, now);
        }
        self.nodes[node].events.push(event);
    }

    fn carry_out(&mut self, node: usize, effect: Effect) {
        match effect {
            Effect::Dial { conn, to, .. } => self.dial(node, conn, to),
            Effect::DialTls { .. } => {}
            Effect::Write { conn, bytes } => {
                let written = bytes.len();
                if let Some((peer, peer_conn)) = self.wires.get(&(node, conn)).copied() {
                    self.deliver(node, peer, peer_conn, Input::Bytes { conn: peer_conn, bytes });
                }
                if !self.stuck_writers.contains(&node) {
                    let input = Input::Written { conn, bytes: written };
                    self.push(self.now.instant.as_millis(), node, input);
                }
            }
            Effect::Close { conn } => {
                if let Some((peer, peer_conn)) = self.wires.remove(&(node, conn)) {
                    self.deliver(node, peer, peer_conn, Input::Eof { conn: peer_conn });
                }
            }
        }
    }

    fn dial(&mut self, node: usize, conn: ConnId, to: Endpoint) {
        let now_ms = self.now.instant.as_millis();
        self.nodes[node].dials.push((now_ms, to.clone()));
        if self.refusing.contains(&to) {
            return self.push(
                now_ms + 1,
                node,
                Input::DialFailed { conn, why: DialError::Refused },
            );
        }
        let Some(peer) = self.nodes.iter().position(|peer| Endpoint::from(peer.address) == to)
        else {
            return;
        };
        let peer_conn = self.nodes[peer].next_accepted;
        self.nodes[peer].next_accepted += 2;
        self.wires.insert((node, conn), (peer, peer_conn));
        self.wires.insert((peer, peer_conn), (node, conn));
        let from = self.nodes[node].address;
        self.deliver(node, peer, peer_conn, Input::Accepted { conn: peer_conn, from });
        let there_and_back = self.latency(node) + self.latency(peer);
        self.push(now_ms + there_and_back, node, Input::Connected { conn });
    }

    /// Both ends go on believing in a connection over which nothing comes any more.
    pub(super) fn cut_silently(&mut self) {
        self.wires.clear();
        self.queue.clear();
    }

    /// Everything that a host has connections for sees them end.
    pub(super) fn crash(&mut self, node: usize) {
        let ends: Vec<_> = self.wires.iter().filter(|(end, _)| end.0 == node).collect();
        let ends: Vec<_> = ends.into_iter().map(|(end, peer)| (*end, *peer)).collect();
        for (end, (peer, peer_conn)) in ends {
            self.wires.remove(&end);
            self.wires.remove(&(peer, peer_conn));
            self.deliver(node, peer, peer_conn, Input::Eof { conn: peer_conn });
        }
    }

    fn latency(&self, node: usize) -> u64 {
        self.latency_ms.get(&node).copied().unwrap_or(1)
    }

    fn deliver(&mut self, from: usize, to: usize, conn: ConnId, input: Input) {
        let due = self.now.instant.as_millis() + self.latency(from);
        let due = due.max(self.last.get(&(to, conn)).copied().unwrap_or(0));
        self.last.insert((to, conn), due);
        self.push(due, to, input);
    }

    fn push(&mut self, due: u64, node: usize, input: Input) {
        self.sequence += 1;
        self.queue.insert((due, self.sequence), (node, input));
    }

    /// The answers to one call: there must never be more than one.
    pub(super) fn answer(&self, node: usize, tag: u64) -> Option<Result<Message, CallError>> {
        let mut answers = self.nodes[node].events.iter().filter_map(|event| match event {
            Event::Answer { tag: answered, result } if *answered == tag => Some(result.clone()),
            _ => None,
        });
        let first = answers.next();
        assert!(answers.next().is_none(), "a call was answered twice");
        first
    }

    /// The other end of a connection.
    pub(super) fn wire_of(&self, node: usize, conn: ConnId) -> Option<(usize, ConnId)> {
        self.wires.get(&(node, conn)).copied()
    }
}

impl Node {
    fn new(place: usize, local: Arc<Local>) -> Self {
        let identity = local.identity.clone();
        let entropy = Entropy::from_number(u64::try_from(place).unwrap() + 1);
        let address = format!("192.0.2.{}:7330", place + 1).parse().unwrap();
        let transport = Transport::new(local, entropy, TransportConfig::default());
        let (events, dials) = (Vec::new(), Vec::new());
        Self { transport, identity, address, answers: true, events, dials, next_accepted: 2 }
    }

    pub(super) fn sessions_up(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::SessionUp { .. })).count()
    }

    pub(super) fn sessions_down(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::SessionDown { .. })).count()
    }

    pub(super) fn incoming(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Incoming { .. })).count()
    }
}
