//! A message to a whole group, through the whole core of its author's node: from the command to the stores
//! that leave for two relays, and to the state `sent`. The members exist in the group alone; the relays
//! answer that they have stored everything. Only the node's own time counts: commits go to memory, so
//! what a durable one adds (see the parts of a direct message) comes on top, twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sremp_common::connection::{Connection, Event as ConnectionEvent, Local};
use sremp_common::entropy::Entropy;
use sremp_common::id::{GroupId, Token};
use sremp_common::identity::{Flags, IdentityData, RelayRecord};
use sremp_common::io::Clock;
use sremp_common::key::{IdentitySecret, NoiseSecret, SealSecret};
use sremp_common::name::Username;
use sremp_common::time::Now;
use sremp_common::wire::{
    Endpoint, Host, List, Message as WireMessage, StoreResponse, StoreResult,
};
use sremp_node::api::{Command, EventBody, MessageState};
use sremp_node::conversations::{Conversation, ConversationId};
use sremp_node::groups::{Change, GroupKind, Groups, LeafInfo, Suite};
use sremp_node::identity::Own;
use sremp_node::identity::reach::{Reach, TokenSource};
use sremp_node::node::{Input, Node, NodeConfig, Output};
use sremp_node::store::Store;
use sremp_node::transport::{self, ConnId};

use super::Effort;
use super::figure::{Report, Target, micros};
use super::parts::Member;

/// Bytes of a message's text.
const TEXT: usize = 1024;
/// Relays, each with every other member's mailbox.
const RELAYS: usize = 2;
/// What a recipient may cost in an upload (an identity key, a token, their framing).
const RECIPIENT_BYTES: usize = 64;
/// How much more a recipient may cost in the largest group than in the smaller one.
const GROWTH: f64 = 1.5;

pub fn measure(report: &mut Report, effort: Effort) {
    let mut each = Vec::new();
    for size in [100, 1000] {
        super::progress(&format!("a message to {size} members, through the whole core"));
        let mut world = World::new(size);
        world.send(); // The sessions open.
        let sent: Vec<Sent> = (0..effort.rounds.max(5)).map(|_| world.send()).collect();
        let column = |value: fn(&Sent) -> f64| sent.iter().map(value).collect::<Vec<f64>>();
        let name = format!("delivery to {size} members on two relays");
        report.add(&format!("{name}: until it leaves"), "us", &column(|one| one.left), None);
        report.add(
            &format!("{name}: its answers, until `sent`"),
            "us",
            &column(|one| one.answered),
            None,
        );
        let per_recipient = |one: &Sent| (one.left + one.answered) / (size - 1) as f64;
        let values: Vec<f64> = sent.iter().map(per_recipient).collect();
        let target = each.last().map(|smaller| Target::AtMost(GROWTH * smaller));
        report.add(&format!("{name}: for each recipient"), "us", &values, target);
        each.push(super::groups::median(&values));
        let allowed = RELAYS * world.blob + RECIPIENT_BYTES * (size - 1);
        let target = Some(Target::AtMost(allowed as f64));
        report.add(&format!("{name}: uploaded"), "B", &column(|one| one.uploaded as f64), target);
        report.add(&format!("{name}: answers"), "B", &column(|one| one.downloaded as f64), None);
    }
}

/// One message.
struct Sent {
    left: f64,
    answered: f64,
    uploaded: usize,
    downloaded: usize,
}

/// A relay that stores nothing, and says that it does.
struct Relay {
    local: Arc<Local>,
    endpoint: Endpoint,
}

impl Relay {
    fn new(number: u8, now: Now) -> Self {
        let mut entropy = Entropy::from_number(7_000_000 + u64::from(number));
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
        let endpoint = Endpoint { host: Host::Address([10, 9, 0, number].into()), port: 7330 };
        Self { local: Arc::new(Local { identity, identity_secret, noise_secret }), endpoint }
    }

    fn record(&self) -> RelayRecord {
        RelayRecord {
            identity_key: self.local.identity.key(),
            endpoints: List::truncated(vec![self.endpoint.clone()]),
        }
    }
}

/// The author's node, and the relays' ends of its connections.
struct World {
    clock: Clock,
    store: Store,
    node: Node,
    relays: Vec<Relay>,
    connections: BTreeMap<ConnId, Connection>,
    /// The node's own time since it was last asked for.
    spent: Duration,
    uploaded: usize,
    downloaded: usize,
    group: GroupId,
    /// Bytes of the last blob.
    blob: usize,
    is_sent: bool,
}

impl World {
    fn new(size: usize) -> Self {
        let clock = Clock::start();
        let now = clock.now();
        let relays: Vec<Relay> = (1..=RELAYS as u8).map(|number| Relay::new(number, now)).collect();
        let mut entropy = Entropy::from_number(1);
        let secret = IdentitySecret::generate(&mut entropy);
        let store = Store::in_memory().unwrap();
        let tx = store.begin().unwrap();
        let name = Username::new("author").unwrap();
        let own = Own::create(&tx, secret, name, &mut entropy, now).unwrap();
        let mut groups = Groups::new(own.leaf_signer().unwrap(), own.key(), entropy.fork());
        let leaf = leaf(&relays[0], 1);
        let group =
            groups.create(&tx, GroupKind::Group, "team", Suite::X25519, &leaf, now).unwrap();
        let mut packages = Vec::new();
        for number in 2..=size as u64 {
            let mut member = Member::new(number, now);
            let leaf = self::leaf(&relays[number as usize % RELAYS], number);
            let suite = Suite::X25519;
            let bytes =
                member.groups.make_key_package(&member.tx, suite, &leaf, false, now).unwrap();
            packages.push(groups.check_key_package(&bytes, &member.key, suite, now).unwrap());
            let mut reach = Reach::default();
            reach.learn_token(TokenSource::Group(group), leaf.token);
            reach.learn_relays(&leaf.relays);
            reach.save(&tx, &member.key).unwrap();
        }
        groups.change(&tx, &group, Change::Add(packages), now).unwrap();
        let mut conversation = Conversation::new(ConversationId::Group(group), "team".to_owned());
        conversation.stand_on(&tx, group).unwrap();
        let config = NodeConfig { allow_private_addresses: true, ..NodeConfig::default() };
        tx.accept().unwrap();
        let node = Node::load(&tx, own, config, entropy.fork(), now).unwrap();
        tx.commit().unwrap();
        let mut world = Self {
            clock,
            store,
            node,
            relays,
            connections: BTreeMap::new(),
            spent: Duration::ZERO,
            uploaded: 0,
            downloaded: 0,
            group,
            blob: 0,
            is_sent: false,
        };
        world.exchange();
        world
    }

    /// One input, one commit.
    fn input(&mut self, input: Input) {
        let now = self.clock.now();
        let began = Instant::now();
        let tx = self.store.begin().unwrap();
        self.node.handle(&tx, input, now).unwrap();
        self.node.finish(&tx, now).unwrap();
        tx.commit().unwrap();
        self.spent += began.elapsed();
    }

    /// Carries everything between the node and the relays, until nothing moves any more.
    fn exchange(&mut self) {
        while let Some(output) = self.node.poll_output() {
            let input = match output {
                Output::Reply { result, .. } => {
                    result.unwrap();
                    continue;
                }
                Output::Event(event) => {
                    self.is_sent |=
                        matches!(event.body, EventBody::State { state: MessageState::Sent, .. });
                    continue;
                }
                Output::Effect(transport::Effect::Dial { conn, to, .. }) => self.dial(conn, &to),
                Output::Effect(transport::Effect::Write { conn, bytes }) => {
                    self.uploaded += bytes.len();
                    let written = transport::Input::Written { conn, bytes: bytes.len() };
                    self.input(Input::Transport(written));
                    self.answer(conn, &bytes);
                    continue;
                }
                Output::Effect(_) => continue,
            };
            self.input(Input::Transport(input));
        }
    }

    fn dial(&mut self, conn: ConnId, to: &Endpoint) -> transport::Input {
        let Some(relay) = self.relays.iter().find(|relay| relay.endpoint == *to) else {
            return transport::Input::DialFailed { conn, why: transport::DialError::Refused };
        };
        let entropy = Entropy::from_number(8_000_000 + conn);
        let connection = Connection::accept(Arc::clone(&relay.local), entropy, self.clock.now());
        self.connections.insert(conn, connection);
        transport::Input::Connected { conn }
    }

    /// What a relay does with bytes.
    fn answer(&mut self, conn: ConnId, bytes: &[u8]) {
        let now = self.clock.now();
        let Some(relay) = self.connections.get_mut(&conn) else { return };
        relay.handle_bytes(bytes, now);
        while let Some(event) = relay.poll_event() {
            match event {
                ConnectionEvent::Established(_) => relay.set_peer_trusted(true),
                ConnectionEvent::Request { id, message } => {
                    let WireMessage::StoreMessage(store) = message else {
                        panic!("a relay is asked for something else: {message:?}")
                    };
                    self.blob = store.blob.len();
                    let stored = StoreResult { refused: None, expires_at: None, retry_after: None };
                    let results = List::truncated(vec![stored; store.recipients.len()]);
                    relay.respond(id, &WireMessage::StoreResponse(StoreResponse { results }));
                }
                ConnectionEvent::Response { .. } | ConnectionEvent::Closed(_) => {
                    panic!("a connection to a relay ended")
                }
            }
        }
        let mut answers = Vec::new();
        while let Some(bytes) = relay.poll_transmit() {
            answers.push(bytes);
        }
        for bytes in answers {
            self.downloaded += bytes.len();
            self.input(Input::Transport(transport::Input::Bytes { conn, bytes }));
        }
    }

    fn send(&mut self) -> Sent {
        (self.spent, self.is_sent) = (Duration::ZERO, false);
        (self.uploaded, self.downloaded) = (0, 0);
        let to = format!("group:{}", self.group);
        let command = Command::Send { to, text: "x".repeat(TEXT), reply_to: None };
        self.input(Input::Command { reply_to: 1, command });
        let left = micros(std::mem::take(&mut self.spent));
        self.exchange();
        assert!(self.is_sent, "the message was not stored for everybody");
        let answered = micros(self.spent);
        Sent { left, answered, uploaded: self.uploaded, downloaded: self.downloaded }
    }
}

fn leaf(relay: &Relay, number: u64) -> LeafInfo {
    let mut entropy = Entropy::from_number(9_000_000 + number);
    LeafInfo {
        relays: List::truncated(vec![relay.record()]),
        seal_key: SealSecret::generate(&mut entropy).public(),
        token: Token::new(entropy.array()),
    }
}
