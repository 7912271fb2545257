//! A run from a seed: people write, groups change, machines crash, the network breaks; then all
//! heals, and everything that was confirmed must have arrived.

use sremp_node::api::{Command, GroupView, MessageState, MessageView, Reply};

use crate::model::{Model, Place, Written};
use crate::net::HostId;
use crate::world::World;

/// Virtual time in which everything must have settled after all has healed.
const PATIENCE: u64 = 3 * 3600 * 1000;
/// History rows read at once.
const PAGE: u32 = 1000;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Messages that were confirmed, and arrived.
    pub messages: usize,
    /// Groups that ended in one state.
    pub groups: usize,
    /// Virtual milliseconds.
    pub virtual_ms: u64,
}

/// Runs one seed.
///
/// # Panics
/// When something that was promised is not true; the trace is in the message.
#[must_use]
pub fn run_seed(seed: u64) -> Report {
    run(seed, false)
}

/// Runs one seed in which most are strangers to each other at first: invitations wait, are declined,
/// accepted, and made again. In the end all are contacts.
///
/// # Panics
/// As [`run_seed`].
#[must_use]
pub fn run_strangers(seed: u64) -> Report {
    run(seed, true)
}

fn run(seed: u64, strangers: bool) -> Report {
    let mut run = Run::new(seed, strangers);
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.play()));
    match result {
        Ok(report) => report,
        Err(cause) => {
            let text = cause
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default();
            let tail = run.world.trace.len().saturating_sub(60);
            let trace = run.world.trace[tail..].join("\n");
            panic!("seed {seed} failed: {text}\nlast steps:\n{trace}");
        }
    }
}

struct Run {
    world: World,
    model: Model,
    relays: usize,
    counter: usize,
    /// Whoever is later in the list knows those before it, and is a stranger to them.
    strangers: bool,
}

impl Run {
    fn new(seed: u64, strangers: bool) -> Self {
        let nodes = 2 + usize::try_from(seed % 3).unwrap();
        let relays = 1 + usize::try_from(seed / 3 % 2).unwrap();
        let mut world = World::new(seed, nodes, relays);
        world.choose_suite(seed);
        Self { world, model: Model::default(), relays, counter: 0, strangers }
    }

    fn play(&mut self) -> Report {
        if self.strangers {
            self.introduce_some();
        } else {
            self.world.introduce_all();
        }
        let steps = 20 + self.world.entropy.below(30);
        for _ in 0..steps {
            self.act();
            if self.strangers && self.world.entropy.below(4) == 0 {
                self.judge_strangers();
            }
            let pause = match self.world.entropy.below(10) {
                0..7 => self.world.entropy.below(500),
                7..9 => self.world.entropy.below(5_000),
                _ => self.world.entropy.below(120_000),
            };
            self.world.pass(pause);
        }
        self.heal();
        self.settle();
        self.check();
        Report {
            messages: self.model.written.len(),
            groups: self.model.groups.len(),
            virtual_ms: self.world.now(),
        }
    }

    fn act(&mut self) {
        let nodes = self.world.nodes();
        let machines = nodes + self.relays;
        let host = self.choose(nodes);
        match self.world.entropy.below(100) {
            0..45 => self.write(host),
            45..55 => self.write_to_group(host),
            55..60 => self.create_group(host),
            60..68 => self.change_group(host),
            68..76 => {
                let machine = self.choose(machines);
                if self.world.is_running(machine) {
                    self.world.crash(machine);
                }
            }
            76..86 => {
                let machine = self.choose(machines);
                self.world.start(machine);
            }
            86..90 => {
                let (a, b) = (self.choose(machines), self.choose(machines));
                if a != b {
                    self.world.net.cut(a, b);
                }
            }
            90..93 => self.world.heal(),
            93..98 => self.world.break_any_connection(),
            _ => {
                let error = i64::try_from(self.world.entropy.below(7_200_000)).unwrap();
                self.world.set_clock_error(host, error - 3_600_000);
            }
        }
    }

    fn introduce_some(&mut self) {
        let nodes = self.world.nodes();
        (0..nodes).for_each(|node| self.world.use_relays(node));
        self.world.pass(2_000);
        for to in 0..nodes {
            (0..to).for_each(|who| self.world.introduce(who, to));
        }
    }

    /// Somebody answers who waits, or adds somebody of itself, again perhaps.
    fn judge_strangers(&mut self) {
        let nodes = self.world.nodes();
        let (host, who) = (self.choose(nodes), self.choose(nodes));
        if who == host || !self.world.is_running(host) || !self.world.is_running(who) {
            return;
        }
        let id = self.world.node(who).key().to_string();
        // Mostly nobody waits: that is part of the run.
        let _ = match self.world.entropy.below(8) {
            0..4 => self.world.command(host, Command::RequestsDecline { who: id }),
            4..6 => self.world.command(host, Command::RequestsAccept { who: id }),
            _ => {
                self.world.introduce(who, host);
                return;
            }
        };
    }

    fn choose(&mut self, below: usize) -> usize {
        usize::try_from(self.world.entropy.below(below as u64)).unwrap()
    }

    fn write(&mut self, author: HostId) {
        let nodes = self.world.nodes();
        let to = self.choose(nodes);
        if to == author || !self.world.is_running(author) {
            return;
        }
        let word = format!("node{}", to + 1);
        for _ in 0..=self.world.entropy.below(4) {
            self.send(author, Place::Direct(to), &word);
        }
    }

    fn write_to_group(&mut self, author: HostId) {
        let groups: Vec<String> = self.model.groups.keys().cloned().collect();
        if groups.is_empty() || !self.world.is_running(author) {
            return;
        }
        let group = groups[self.choose(groups.len())].clone();
        let word = format!("group:{group}");
        self.send(author, Place::Group(group), &word);
    }

    fn send(&mut self, author: HostId, place: Place, word: &str) {
        self.counter += 1;
        let text = format!("message {} of node{}", self.counter, author + 1);
        let command = Command::Send { to: word.to_owned(), text: text.clone(), reply_to: None };
        if let Ok(Reply::Sent(sent)) = self.world.command(author, command) {
            let message_id = sent.message_id;
            self.model.written.push(Written { author, place, text, message_id });
        }
    }

    fn create_group(&mut self, host: HostId) {
        if !self.world.is_running(host) || self.model.groups.len() >= 3 {
            return;
        }
        let members: Vec<String> = (0..self.world.nodes())
            .filter(|other| *other != host)
            .map(|other| format!("contact:node{}", other + 1))
            .collect();
        let name = format!("group {}", self.model.groups.len() + 1);
        if let Ok(Reply::Group(view)) =
            self.world.command(host, Command::GroupCreate { name, members, suite: None })
        {
            self.model.groups.insert(view.id, host);
        }
    }

    fn change_group(&mut self, host: HostId) {
        let groups: Vec<String> = self.model.groups.keys().cloned().collect();
        if groups.is_empty() || !self.world.is_running(host) {
            return;
        }
        let group = format!("group:{}", groups[self.choose(groups.len())]);
        let nodes = self.world.nodes();
        let who = format!("node{}", self.choose(nodes) + 1);
        let command = match self.world.entropy.below(5) {
            0 => Command::GroupRemove { group, who },
            1 | 2 => Command::GroupAdd { group, who: vec![who] },
            3 => Command::GroupPromote { group, who },
            _ => {
                self.counter += 1;
                Command::GroupRename { group, name: format!("name {}", self.counter) }
            }
        };
        // Many of these make no sense at the moment, and are refused: that is part of the run.
        let _ = self.world.command(host, command);
    }

    fn heal(&mut self) {
        self.world.heal();
        let machines = self.world.nodes() + self.relays;
        for host in 0..machines {
            self.world.start(host);
            self.world.set_clock_error(host, 0);
        }
        if self.strangers {
            let nodes = self.world.nodes();
            for host in 0..nodes {
                (0..nodes)
                    .filter(|who| *who != host)
                    .for_each(|who| self.world.introduce(who, host));
            }
        }
    }

    /// Waits until nothing is on its way any more.
    fn settle(&mut self) {
        let until = self.world.now() + PATIENCE;
        while self.world.now() < until {
            self.world.pass(10_000);
            if self.is_settled() {
                // What was the last thing to move may have caused another.
                self.world.pass(60_000);
                if self.is_settled() {
                    return;
                }
            }
        }
        let stuck: Vec<String> = self.unsettled();
        panic!("not settled after {PATIENCE} virtual ms: {}", stuck.join("; "));
    }

    fn is_settled(&mut self) -> bool {
        self.unsettled().is_empty()
    }

    fn unsettled(&mut self) -> Vec<String> {
        let mut stuck = Vec::new();
        for host in 0..self.world.nodes() {
            let Ok(Reply::Status(status)) = self.world.command(host, Command::Status) else {
                continue;
            };
            if status.outbox > 0 {
                stuck.push(format!("node{} has {} parcels", host + 1, status.outbox));
            }
            // What waits for it at a relay is still on its way.
            if status.relays.iter().any(|relay| !relay.connected) {
                stuck.push(format!("node{} has not reached its relays again", host + 1));
            }
        }
        for written in self.model.written.clone() {
            if matches!(written.place, Place::Direct(_)) {
                let view = self.message(&written);
                if view.state < MessageState::Delivered {
                    stuck.push(format!("\"{}\" is {:?}", written.text, view.state));
                }
            }
        }
        stuck
    }

    fn message(&mut self, written: &Written) -> MessageView {
        let command = Command::MessageShow { id: written.message_id.clone() };
        match self.world.command(written.author, command) {
            Ok(Reply::Message(view)) => *view,
            other => panic!("\"{}\" is gone from its author: {other:?}", written.text),
        }
    }

    fn history(&mut self, host: HostId, with: &str) -> Vec<MessageView> {
        let command = Command::History { with: with.to_owned(), limit: PAGE, before: None };
        match self.world.command(host, command) {
            Ok(Reply::Messages(views)) => views,
            // Never invited, so there is no such group here.
            _ => Vec::new(),
        }
    }

    fn check(&mut self) {
        self.check_direct();
        for group in self.model.groups.clone().into_keys() {
            self.check_group(&group);
        }
    }

    /// Every confirmed message stands in its recipient's history exactly once, in order, and is
    /// delivered at its author.
    fn check_direct(&mut self) {
        for author in 0..self.world.nodes() {
            for reader in (0..self.world.nodes()).filter(|reader| *reader != author) {
                let id = self.world.node(author).key().to_string();
                let seen: Vec<String> = self
                    .history(reader, &format!("node{}", author + 1))
                    .into_iter()
                    .filter(|view| view.from == id)
                    .map(|view| view.text)
                    .collect();
                let written = self.model.texts(author, &Place::Direct(reader));
                assert_eq!(
                    seen,
                    written,
                    "what node{} wrote to node{} is not what arrived",
                    author + 1,
                    reader + 1
                );
            }
        }
    }

    /// All members agree, and every message for somebody who is still a member is there once.
    fn check_group(&mut self, group: &str) {
        let views: Vec<Option<GroupView>> =
            (0..self.world.nodes()).map(|host| self.group_of(host, group)).collect();
        let ids: Vec<String> =
            (0..self.world.nodes()).map(|host| self.world.node(host).key().to_string()).collect();
        let active: Vec<&GroupView> = views.iter().flatten().collect();
        for pair in active.windows(2) {
            assert_eq!(pair[0].epoch_authenticator, pair[1].epoch_authenticator, "group is forked");
            assert_eq!(pair[0].epoch, pair[1].epoch);
            assert_eq!(pair[0].name, pair[1].name);
        }
        for written in self.model.written.clone() {
            if written.place != Place::Group(group.to_owned()) {
                continue;
            }
            let recipients = self.message(&written).recipients;
            for (host, view) in views.iter().enumerate() {
                let meant = recipients.iter().any(|recipient| recipient.id == ids[host]);
                let seen = self
                    .history(host, &format!("group:{group}"))
                    .iter()
                    .filter(|row| row.message_id == written.message_id)
                    .count();
                assert!(
                    seen <= 1,
                    "\"{}\" is shown {seen} times at node{}",
                    written.text,
                    host + 1
                );
                if host != written.author
                    && meant
                    && view.is_some()
                    && views[written.author].is_some()
                {
                    assert_eq!(seen, 1, "\"{}\" is missing at node{}", written.text, host + 1);
                }
            }
        }
    }

    /// The group as an active member sees it.
    fn group_of(&mut self, host: HostId, group: &str) -> Option<GroupView> {
        let command = Command::GroupShow { group: format!("group:{group}") };
        let Ok(Reply::Group(view)) = self.world.command(host, command) else { return None };
        let active = view.state == sremp_node::api::GroupState::Active;
        active.then_some(*view)
    }
}
