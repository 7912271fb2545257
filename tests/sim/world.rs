//! The world: machines, one virtual clock, one queue of what happens next.

use std::collections::BTreeMap;

use sremp_common::entropy::Entropy;
use sremp_common::text::encode_relay_link;
use sremp_common::time::{Instant, Now, Timestamp};
use sremp_common::wire::{Endpoint, Host};
use sremp_node::api::{ApiError, Command, EventBody, Reply};
use sremp_node::groups::Suite;

use sremp_relay::engine::EngineConfig;

use crate::disk::Disk;
use crate::host::{Happening, NodeHost, RelayHost, Want};
use crate::net::{End, HostId, Net};
use crate::trick::Tricks;

/// Virtual time at which every world begins: the clocks of its machines may differ from it.
const WALL_START: u64 = 1_700_000_000_000;
const PORT: u16 = 7330;
/// Of so many lives, by their seeds, one has groups with the post-quantum suite.
const HYBRID_LIVES: u64 = 4;

/// Names the suite of all groups for which none is asked: so that tests run once more with another one.
pub const SUITE_VARIABLE: &str = "SREMP_TEST_SUITE";

/// A machine of either kind.
#[derive(Debug)]
enum Machine {
    Node(Box<NodeHost>),
    Relay(Box<RelayHost>),
}

/// See the module.
#[derive(Debug)]
pub struct World {
    now: u64,
    /// The world's own choices.
    pub entropy: Entropy,
    machines: Vec<Machine>,
    /// How far each machine's wall clock is off, in milliseconds.
    clock_error: Vec<i64>,
    /// Connections between them.
    pub net: Net,
    queue: BTreeMap<(u64, u64), (HostId, Happening)>,
    /// When each machine wants to be woken, as it said after its last input.
    wakes: Vec<Option<u64>>,
    sequence: u64,
    next_accepted: u64,
    nodes: usize,
    /// Bytes that one machine wrote to another.
    carried: BTreeMap<(HostId, HostId), u64>,
    /// Groups for which no suite is asked get this one; the nodes' own choice when it is none.
    pub suite: Option<String>,
    /// What happened, in virtual time, for whoever reads a failed run.
    pub trace: Vec<String>,
}

impl World {
    /// So many nodes and relays, all running, knowing nobody.
    #[must_use]
    pub fn new(seed: u64, nodes: usize, relays: usize) -> Self {
        let mut world = Self {
            now: 1,
            entropy: Entropy::from_number(seed),
            machines: Vec::new(),
            clock_error: vec![0; nodes + relays],
            net: Net::with_latency(1, 40),
            queue: BTreeMap::new(),
            wakes: vec![None; nodes + relays],
            sequence: 0,
            next_accepted: 2,
            nodes,
            carried: BTreeMap::new(),
            suite: std::env::var(SUITE_VARIABLE).ok(),
            trace: Vec::new(),
        };
        for host in 0..nodes + relays {
            let entropy = world.entropy.fork();
            let now = world.clock_of(host);
            let machine = if host < nodes {
                let name = format!("node{}", host + 1);
                Machine::Node(Box::new(NodeHost::new(name, endpoint(host), entropy, now)))
            } else {
                Machine::Relay(Box::new(RelayHost::new(endpoint(host), entropy, now)))
            };
            world.machines.push(machine);
        }
        (0..nodes + relays).for_each(|host| world.start(host));
        world
    }

    /// In every so many lives groups have the post-quantum suite, unless one is named for all.
    pub fn choose_suite(&mut self, seed: u64) {
        if self.suite.is_none() && seed % HYBRID_LIVES == HYBRID_LIVES - 1 {
            self.suite = Some(Suite::MlKem768X25519.name().to_owned());
        }
    }

    /// How many nodes there are; relays have the numbers after them.
    #[must_use]
    pub const fn nodes(&self) -> usize {
        self.nodes
    }

    /// Virtual milliseconds since the beginning.
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// A node.
    #[must_use]
    pub fn node(&self, host: HostId) -> &NodeHost {
        match &self.machines[host] {
            Machine::Node(node) => node,
            Machine::Relay(_) => panic!("machine {host} is a relay"),
        }
    }

    /// The link of a relay.
    #[must_use]
    pub fn relay_link(&self, host: HostId) -> String {
        match &self.machines[host] {
            Machine::Relay(relay) => encode_relay_link(&relay.record().into()),
            Machine::Node(_) => panic!("machine {host} is a node"),
        }
    }

    /// A relay lies to the owners of its mailboxes from now on, or no longer.
    pub fn set_hostile(&mut self, host: HostId, hostile: bool) {
        match &mut self.machines[host] {
            Machine::Relay(relay) => relay.set_hostile(hostile),
            Machine::Node(_) => panic!("machine {host} is a node"),
        }
    }

    /// A node leaves messages at so many relays of somebody's, from its next start on.
    pub fn set_relay_copies(&mut self, host: HostId, copies: usize) {
        match &mut self.machines[host] {
            Machine::Node(node) => node.relay_copies = copies,
            Machine::Relay(_) => panic!("machine {host} is a relay"),
        }
    }

    /// A node tells others when its owner writes, from its next start on.
    pub fn set_typing(&mut self, host: HostId, typing: bool) {
        match &mut self.machines[host] {
            Machine::Node(node) => node.typing = typing,
            Machine::Relay(_) => panic!("machine {host} is a relay"),
        }
    }

    /// The operator of a relay decides something else from now on.
    pub fn configure_relay(&mut self, host: HostId, config: EngineConfig) {
        match &mut self.machines[host] {
            Machine::Relay(relay) => relay.configure(config),
            Machine::Node(_) => panic!("machine {host} is a node"),
        }
    }

    /// Batches that a hostile relay made up.
    #[must_use]
    pub fn lies(&self, host: HostId) -> u64 {
        match &self.machines[host] {
            Machine::Relay(relay) => relay.hostile.as_ref().map_or(0, |hostile| hostile.lies),
            Machine::Node(_) => panic!("machine {host} is a node"),
        }
    }

    /// Everything that is written on a relay's disk.
    #[must_use]
    pub fn relay_image(&self, host: HostId) -> Vec<u8> {
        match &self.machines[host] {
            Machine::Relay(relay) => relay.image(),
            Machine::Node(_) => panic!("machine {host} is a node"),
        }
    }

    /// Bytes that one machine has written to another so far, encrypted and framed.
    #[must_use]
    pub fn bytes_carried(&self, from: HostId, to: HostId) -> u64 {
        self.carried.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Gives every node every relay, and every other node's link under the alias `node1`, `node2`, ...
    ///
    /// # Panics
    /// When a node refuses.
    pub fn introduce_all(&mut self) {
        self.introduce_to(self.nodes);
    }

    /// The same, but only the first so many nodes know everybody, and everybody knows them.
    ///
    /// # Panics
    /// When a node refuses.
    pub fn introduce_to(&mut self, hosts: usize) {
        for node in 0..self.nodes {
            self.use_relays(node);
        }
        self.pass(2_000);
        for host in 0..hosts {
            for other in (0..self.nodes).filter(|other| *other != host) {
                self.introduce(host, other);
                if other >= hosts {
                    self.introduce(other, host);
                }
            }
        }
    }

    /// Everything that happened at a node, from the beginning.
    ///
    /// # Panics
    /// When the node refuses.
    pub fn events(&mut self, host: HostId) -> Vec<EventBody> {
        let mut all = Vec::new();
        let mut after = 0;
        loop {
            let command = Command::Events { after: Some(after), limit: 256 };
            let Ok(Reply::Events(page)) = self.command(host, command) else { panic!("no events") };
            let Some(last) = page.events.last() else { return all };
            after = last.seq;
            all.extend(page.events.into_iter().map(|event| event.body));
        }
    }

    /// Opens a mailbox for a node at every relay.
    ///
    /// # Panics
    /// When the node refuses.
    pub fn use_relays(&mut self, node: HostId) {
        for relay in self.nodes..self.machines.len() {
            let link = self.relay_link(relay);
            self.command(node, Command::RelayAdd { link }).unwrap();
        }
    }

    /// `who` hands its link to `to`, who adds it.
    ///
    /// # Panics
    /// When either refuses.
    pub fn introduce(&mut self, who: HostId, to: HostId) {
        let Ok(Reply::Link(view)) = self.command(who, Command::Link { once: false }) else {
            panic!("no link")
        };
        let alias = Some(format!("node{}", who + 1));
        self.command(to, Command::ContactAdd { what: view.link, alias }).unwrap();
    }

    /// Whether a machine runs.
    #[must_use]
    pub fn is_running(&self, host: HostId) -> bool {
        match &self.machines[host] {
            Machine::Node(node) => node.is_running(),
            Machine::Relay(relay) => relay.is_running(),
        }
    }

    /// Starts a machine from its disk.
    pub fn start(&mut self, host: HostId) {
        if self.is_running(host) {
            return;
        }
        self.note(host, "starts");
        let now = self.clock_of(host);
        match &mut self.machines[host] {
            Machine::Node(node) => {
                let wants = node.start(now);
                self.carry_out(host, wants);
            }
            Machine::Relay(relay) => relay.start(),
        }
        self.look_when_to_wake(host);
    }

    /// From now on a relay does this wrong.
    ///
    /// # Panics
    /// When the machine is a node.
    pub fn play(&mut self, host: HostId, tricks: Tricks) {
        let Machine::Relay(relay) = &mut self.machines[host] else { panic!("not a relay") };
        let wants = relay.play(tricks);
        self.carry_out(host, wants);
        self.look_when_to_wake(host);
    }

    /// Lets nothing pass between the machines of `island` and all others; nobody is told.
    pub fn isolate(&mut self, island: &[HostId]) {
        self.trace_line(format!("machines {island:?} are cut off from the others"));
        for a in 0..self.machines.len() {
            for b in island {
                if !island.contains(&a) {
                    self.net.cut(a, *b);
                }
            }
        }
    }

    /// A backup of a node that does not run.
    #[must_use]
    pub fn backup(&self, host: HostId) -> Disk {
        self.node(host).backup()
    }

    /// Puts a backup in the place of a node's disk; it does not run.
    pub fn restore(&mut self, host: HostId, backup: &Disk) {
        self.note(host, "is restored from a backup");
        match &mut self.machines[host] {
            Machine::Node(node) => node.restore(backup),
            Machine::Relay(_) => panic!("machine {host} is a relay"),
        }
    }

    /// Takes everything from a relay that does not run, but its identity.
    pub fn forget_all(&mut self, host: HostId) {
        self.note(host, "loses everything");
        match &mut self.machines[host] {
            Machine::Relay(relay) => relay.forget_all(),
            Machine::Node(_) => panic!("machine {host} is a node"),
        }
    }

    /// Each of these relays dies, loses everything that it acknowledged, and is back.
    pub fn lose_everything(&mut self, relays: impl IntoIterator<Item = HostId>) {
        for relay in relays {
            self.crash(relay);
            self.forget_all(relay);
            self.start(relay);
        }
    }

    /// Starts a copy of a node on a machine of its own, beside the node itself.
    pub fn run_copy(&mut self, of: HostId, disk: &Disk) -> HostId {
        let host = self.machines.len();
        let entropy = self.entropy.fork();
        let copy = self.node(of).copy(disk, endpoint(host), entropy);
        self.machines.push(Machine::Node(Box::new(copy)));
        self.clock_error.push(0);
        self.wakes.push(None);
        self.start(host);
        host
    }

    /// Kills a machine; half of the time in the middle of something.
    pub fn crash(&mut self, host: HostId) {
        self.note(host, "crashes");
        let next = self.queue.iter().find(|(_, (to, _))| *to == host).map(|(key, _)| *key);
        let interrupted = self.entropy.below(2) == 0;
        let happening = next.filter(|_| interrupted).and_then(|key| self.queue.remove(&key));
        let now = self.clock_of(host);
        match (&mut self.machines[host], happening) {
            (Machine::Node(node), Some((_, happening))) => node.crash_before_commit(happening, now),
            (Machine::Node(node), None) => node.crash(),
            (Machine::Relay(relay), _) => relay.crash(),
        }
        for end in self.net.close_all(host) {
            self.later(end.host, Happening::Eof(end.conn));
        }
        self.queue.retain(|_, (to, _)| *to != host);
        self.look_when_to_wake(host);
    }

    /// Breaks some connection: both sides see its end.
    pub fn break_any_connection(&mut self) {
        if let Some(end) = self.net.any(&mut self.entropy) {
            self.trace_line(format!("a connection of machine {} breaks", end.host));
            let other = self.net.close(end);
            for end in [Some(end), other].into_iter().flatten() {
                self.later(end.host, Happening::Eof(end.conn));
            }
        }
    }

    /// Heals all cuts.
    pub fn heal(&mut self) {
        self.trace_line("all cuts heal".to_owned());
        for end in self.net.heal() {
            self.later(end.host, Happening::Eof(end.conn));
        }
    }

    /// Sets a machine's wall clock wrong.
    pub fn set_clock_error(&mut self, host: HostId, milliseconds: i64) {
        self.note(host, &format!("clock is off by {milliseconds} ms"));
        self.clock_error[host] = milliseconds;
    }

    /// The owner of a node types something.
    ///
    /// # Errors
    /// What the node answers.
    pub fn command(&mut self, host: HostId, mut command: Command) -> Result<Reply, ApiError> {
        if let Command::GroupCreate { suite: suite @ None, .. } = &mut command {
            suite.clone_from(&self.suite);
        }
        let name = command.name();
        let now = self.clock_of(host);
        let Machine::Node(node) = &mut self.machines[host] else { panic!("not a node") };
        let (wants, reply) = node.command(command, now);
        self.look_when_to_wake(host);
        let looks = ["history", "message show", "status", "group show", "events", "requests list"];
        if !looks.contains(&name) {
            let outcome = reply.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
            self.note(host, &format!("{name}: {outcome}"));
        }
        self.carry_out(host, wants);
        reply
    }

    /// Writes into the trace what somebody does.
    pub fn remark(&mut self, host: HostId, what: &str) {
        self.note(host, what);
    }

    /// Lets virtual time pass, with everything that happens in it.
    pub fn pass(&mut self, milliseconds: u64) {
        let until = self.now + milliseconds;
        while let Some(at) = self.next_moment().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.step();
        }
        self.now = until;
    }

    fn next_moment(&self) -> Option<u64> {
        let queued = self.queue.keys().next().map(|(at, _)| *at);
        self.wakes.iter().copied().flatten().chain(queued).min()
    }

    fn step(&mut self) {
        let due: Vec<HostId> = (0..self.machines.len())
            .filter(|host| self.wakes[*host].is_some_and(|at| at <= self.now))
            .collect();
        for host in due {
            self.happen(host, Happening::Timeout);
        }
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (host, happening) = entry.remove();
            self.happen(host, happening);
        }
    }

    fn happen(&mut self, host: HostId, happening: Happening) {
        let now = self.clock_of(host);
        let wants = match &mut self.machines[host] {
            Machine::Node(node) => node.handle(happening, now),
            Machine::Relay(relay) => relay.handle(happening, now),
        };
        self.look_when_to_wake(host);
        self.carry_out(host, wants);
    }

    fn look_when_to_wake(&mut self, host: HostId) {
        self.wakes[host] = wake_at(&self.machines[host]).map(Instant::as_millis);
    }

    fn carry_out(&mut self, host: HostId, wants: Vec<Want>) {
        for want in wants {
            match want {
                Want::Dial(conn, to) => self.dial(End { host, conn }, &to),
                Want::Write(conn, bytes) => {
                    let from = End { host, conn };
                    let length = bytes.len();
                    if let Some((to, at)) = self.net.carry(from, self.now, &mut self.entropy) {
                        *self.carried.entry((host, to.host)).or_default() += length as u64;
                        self.at(at, to.host, Happening::Bytes(to.conn, bytes));
                    }
                    self.at(self.now, host, Happening::Written(conn, length));
                }
                Want::Close(conn) => {
                    let from = End { host, conn };
                    // The end follows the bytes that were written before it.
                    let arrival = self.net.carry(from, self.now, &mut self.entropy);
                    if let (Some(other), Some((_, at))) = (self.net.close(from), arrival) {
                        self.at(at, other.host, Happening::Eof(other.conn));
                    }
                }
            }
        }
    }

    fn dial(&mut self, from: End, to: &Endpoint) {
        let target = (0..self.machines.len()).find(|host| endpoint(*host) == *to);
        let Some(target) = target.filter(|target| !self.net.is_cut(from.host, *target)) else {
            // A cut swallows the attempt; the dialler finds out by waiting.
            return;
        };
        let delay = self.net.delay(&mut self.entropy);
        if !self.is_running(target) {
            self.at(self.now + delay, from.host, Happening::DialFailed(from.conn));
            return;
        }
        let to = End { host: target, conn: self.next_accepted };
        self.next_accepted += 2;
        self.net.connect(from, to);
        let caller = endpoint(from.host);
        self.at(self.now + delay, target, Happening::Accepted(to.conn, caller));
        self.at(self.now + 2 * delay, from.host, Happening::Connected(from.conn));
    }

    fn later(&mut self, host: HostId, happening: Happening) {
        let at = self.now + self.net.delay(&mut self.entropy);
        self.at(at, host, happening);
    }

    fn at(&mut self, at: u64, host: HostId, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), (host, happening));
    }

    fn clock_of(&self, host: HostId) -> Now {
        let wall = WALL_START.saturating_add(self.now);
        Now {
            instant: Instant::from_millis(self.now),
            wall: Timestamp::from_millis(wall.saturating_add_signed(self.clock_error[host])),
        }
    }

    fn note(&mut self, host: HostId, what: &str) {
        let name = match self.machines.get(host) {
            Some(Machine::Node(node)) => node.name().to_owned(),
            _ => format!("relay{}", host + 1 - self.nodes),
        };
        self.trace_line(format!("{name} {what}"));
    }

    fn trace_line(&mut self, line: String) {
        self.trace.push(format!("{:>9} ms  {line}", self.now));
    }
}

fn wake_at(machine: &Machine) -> Option<Instant> {
    match machine {
        Machine::Node(node) => node.wake_at(),
        Machine::Relay(relay) => relay.wake_at(),
    }
}

/// Where a machine listens.
fn endpoint(host: HostId) -> Endpoint {
    let last = u8::try_from(host + 1).unwrap();
    Endpoint { host: Host::Address([10, 9, 0, last].into()), port: PORT }
}
