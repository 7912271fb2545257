//! The life of one group from a seed: several admins and many members act at the same moments,
//! while machines crash, the network is cut into islands for hours, clocks are wrong and relays
//! cheat; then all heals, and whoever is a member must be in the same state, with the same history.

mod judge;

use sremp_common::id::IdentityKey;
use sremp_node::api::{Change, Command, EventBody, Reply};

use crate::model::{Deed, GroupModel, Said};
use crate::net::HostId;
use crate::trick::Tricks;
use crate::world::World;

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// How hard a life is.
#[derive(Clone, Debug)]
pub struct Knobs {
    /// Nodes, at most; at least three.
    pub most_nodes: u64,
    /// Times that trouble comes and all heals again.
    pub phases: u64,
    /// Things that happen in one phase.
    pub acts: u64,
    /// Changes that people type in one phase. Members that cannot hear each other make at most so
    /// many commits each: more than the retained epochs is what the heal ladder is for.
    pub changes: u64,
    /// The longest silence, in hours: members come back after it.
    pub longest_hours: u64,
    /// The longest night in which some stay on, in hours; 0 for nights in which all are off.
    pub longest_wake: u64,
    /// Wall clocks are wrong by at most so many minutes.
    pub clock_minutes: u64,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            most_nodes: 12,
            phases: 2,
            acts: 30,
            changes: 4,
            longest_hours: 48,
            longest_wake: 0,
            clock_minutes: 60,
        }
    }
}

impl Knobs {
    /// What only a group that heals itself survives: forks deeper than the retained epochs, absences
    /// beyond the retained time. (Clocks differ by less than a day: beyond that, members cut each other's
    /// numbers in different places, and show messages in different orders.)
    #[must_use]
    pub fn hard() -> Self {
        Self {
            changes: 14,
            acts: 60,
            longest_hours: 20 * 24,
            clock_minutes: 11 * 60,
            ..Self::default()
        }
    }

    /// Some go on for hours without the others, and make changes there. (Machines that run cost a
    /// simulator their keep-alives: such lives take longer.)
    #[must_use]
    pub fn split() -> Self {
        Self { longest_wake: 6, changes: 8, ..Self::default() }
    }
}

/// What a life came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupReport {
    /// Messages that everybody has.
    pub messages: usize,
    /// Changes that were typed and not refused.
    pub changes: usize,
    /// Epochs that the group went through.
    pub epochs: u64,
    /// Times that a member went over to another branch: changes that had raced.
    pub switches: usize,
    /// Most virtual seconds that all took to agree after everything had healed.
    pub settled_after: u64,
    /// Virtual seconds.
    pub virtual_seconds: u64,
}

/// Lives one life.
///
/// # Panics
/// When a promise is broken; the seed and the trace are in the message.
#[must_use]
pub fn run_group_seed(seed: u64, knobs: &Knobs) -> GroupReport {
    let mut life = Life::new(seed, knobs.clone());
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| life.live()));
    result.unwrap_or_else(|cause| {
        let text = cause
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default();
        let trace = life.world.trace.join("\n");
        panic!("group seed {seed} failed: {text}\n{trace}");
    })
}

struct Life {
    world: World,
    model: GroupModel,
    knobs: Knobs,
    relays: usize,
    /// The first so many nodes know everybody, and everybody knows them: they can invite.
    hosts: usize,
    id: String,
    word: String,
    keys: Vec<IdentityKey>,
    /// Changes that may still be typed in this phase.
    budget: u64,
    counter: usize,
    report: GroupReport,
}

impl Life {
    fn new(seed: u64, knobs: Knobs) -> Self {
        let mut entropy = sremp_common::entropy::Entropy::from_number(seed ^ 0x6772_6F75_7073);
        let more = knobs.most_nodes.saturating_sub(3).max(1);
        // Small groups more often: they live faster.
        let nodes = 3 + entropy.below(more + 1).min(entropy.below(more + 1));
        let nodes = usize::try_from(nodes).unwrap();
        let relays = usize::try_from(1 + entropy.below(2)).unwrap();
        let hosts = usize::try_from(1 + entropy.below(3)).unwrap().min(nodes - 1);
        let mut world = World::new(seed, nodes, relays);
        world.choose_suite(seed);
        let keys = (0..nodes).map(|host| world.node(host).key()).collect();
        Self {
            world,
            model: GroupModel::default(),
            knobs,
            relays,
            hosts,
            id: String::new(),
            word: String::new(),
            keys,
            budget: 0,
            counter: 0,
            report: GroupReport::default(),
        }
    }

    fn live(&mut self) -> GroupReport {
        self.begin();
        for _ in 0..self.knobs.phases {
            self.suffer();
            self.heal();
            // What a quiet group has lost is noticed when somebody speaks.
            self.everybody_speaks();
            self.settle();
            if self.model.may_be_over() && self.active_views().is_empty() {
                return self.report;
            }
            self.judge();
        }
        self.everybody_speaks();
        self.settle();
        self.judge();
        self.report.virtual_seconds = self.world.now() / SECOND;
        self.report.switches = (0..self.world.nodes()).map(|host| self.switches(host)).sum();
        self.report
    }

    /// Times that a member went over to another branch.
    fn switches(&mut self, host: HostId) -> usize {
        let switched =
            |body: &&EventBody| matches!(body, EventBody::Group { change: Change::Switched, .. });
        self.world.events(host).iter().filter(switched).count()
    }

    // The beginning ---------------------------------------------------------------------------------

    fn begin(&mut self) {
        let nodes = self.world.nodes();
        self.world.introduce_to(self.hosts);
        let first = self.hosts.max(2) + self.choose(nodes - self.hosts.max(2) + 1);
        let members = (1..first).map(|other| format!("contact:{}", name(other))).collect();
        let command = Command::GroupCreate { name: "first name".to_owned(), members, suite: None };
        let Ok(Reply::Group(view)) = self.world.command(0, command) else { panic!("no group") };
        self.id.clone_from(&view.id);
        self.word = format!("group:{}", view.id);
        self.model.agreed.name.clone_from(&view.name);
        self.model.agreed.members = std::iter::once(0).collect();
        self.model.agreed.admins = std::iter::once(0).collect();
        self.model.deeds = (1..first).map(|who| (0, Deed::Add(who))).collect();
        self.settle();
        self.judge();
        self.budget = self.knobs.changes;
        for admin in 1..self.hosts {
            self.change(0, Deed::Promote(admin));
            self.world.pass(SECOND);
        }
        if self.choose(2) == 0 {
            // Their first messages renew their keys, one after the other. Otherwise they do it later,
            // all at once.
            self.everybody_speaks();
        }
        self.settle();
        self.judge();
    }

    fn everybody_speaks(&mut self) {
        for member in self.model.agreed.members.clone() {
            self.write(member);
            self.world.pass(2 * SECOND);
        }
    }

    // Trouble -----------------------------------------------------------------------------------------

    fn suffer(&mut self) {
        self.budget = self.knobs.changes;
        let acts = self.knobs.acts / 2 + self.world.entropy.below(self.knobs.acts / 2 + 1);
        let mut nights = 1;
        for _ in 0..acts {
            self.act();
            match self.world.entropy.below(100) {
                0..30 => {}
                30..75 => self.pass_up_to(500),
                75..93 => self.pass_up_to(10 * SECOND),
                93..97 => self.pass_up_to(5 * MINUTE),
                97 => self.pass_up_to(HOUR),
                _ if nights > 0 => {
                    nights -= 1;
                    self.night();
                }
                _ => {}
            }
        }
    }

    fn pass_up_to(&mut self, milliseconds: u64) {
        let pause = self.world.entropy.below(milliseconds + 1);
        self.world.pass(pause);
    }

    /// Everybody is off, for hours or days, or all but some who go on by themselves.
    fn night(&mut self) {
        let machines = self.world.nodes() + self.relays;
        let mut off: Vec<HostId> = (0..machines).filter(|it| self.world.is_running(*it)).collect();
        let longest = self.knobs.longest_wake;
        if longest > 0 {
            off.retain(|_| self.choose(3) > 0);
        }
        off.iter().for_each(|machine| self.world.crash(*machine));
        if longest > 0 {
            for _ in 0..longest {
                let by = self.choose(self.world.nodes());
                self.write(by);
                self.change_something();
                self.pass_up_to(2 * HOUR);
            }
        } else {
            self.pass_up_to(self.knobs.longest_hours * HOUR);
        }
        off.iter().for_each(|machine| self.world.start(*machine));
    }

    fn act(&mut self) {
        let nodes = self.world.nodes();
        let machines = nodes + self.relays;
        match self.world.entropy.below(100) {
            0..32 => {
                let author = self.choose(nodes);
                for _ in 0..=self.world.entropy.below(3) {
                    self.write(author);
                }
            }
            32..56 => self.change_something(),
            56..62 => self.race(),
            62..70 => {
                let machine = self.choose(machines);
                if self.world.is_running(machine) {
                    self.world.crash(machine);
                }
            }
            70..80 => {
                let machine = self.choose(machines);
                self.world.start(machine);
            }
            80..85 => {
                let island: Vec<HostId> = (0..machines).filter(|_| self.choose(3) == 0).collect();
                self.world.isolate(&island);
            }
            85..88 => self.world.heal(),
            88..91 => self.world.break_any_connection(),
            91..97 => self.cheat(),
            _ => {
                let most = self.knobs.clock_minutes * MINUTE;
                let error = i64::try_from(self.world.entropy.below(2 * most + 1)).unwrap();
                let host = self.choose(nodes);
                self.world.set_clock_error(host, error - i64::try_from(most).unwrap());
            }
        }
    }

    fn choose(&mut self, below: usize) -> usize {
        usize::try_from(self.world.entropy.below(below as u64)).unwrap()
    }

    fn write(&mut self, author: HostId) {
        if !self.world.is_running(author) {
            return;
        }
        self.counter += 1;
        let text = format!("message {} of {}", self.counter, name(author));
        let command = Command::Send { to: self.word.clone(), text: text.clone(), reply_to: None };
        if let Ok(Reply::Sent(sent)) = self.world.command(author, command) {
            self.model.said.push(Said { author, text, message_id: sent.message_id });
        }
    }

    fn change_something(&mut self) {
        let by = self.choose(self.world.nodes());
        let deed = self.some_deed();
        self.change(by, deed);
    }

    fn some_deed(&mut self) -> Deed {
        let nodes = self.world.nodes();
        let who = self.choose(nodes);
        match self.world.entropy.below(12) {
            0..3 => Deed::Remove(who),
            3..6 => Deed::Add(who),
            6 | 7 => Deed::Promote(who),
            8 => Deed::Demote(who),
            9 => Deed::Leave,
            _ => {
                self.counter += 1;
                Deed::Rename(format!("name {}", self.counter))
            }
        }
    }

    /// Two admins at the same moment; or an admin removes somebody who does something.
    fn race(&mut self) {
        let admins: Vec<HostId> = self.model.agreed.admins.iter().copied().collect();
        let one = admins[self.choose(admins.len())];
        let other = admins[self.choose(admins.len())];
        let whom = self.choose(self.world.nodes());
        if self.choose(4) == 0 {
            // Both want the same.
            let deed = if self.choose(3) == 0 { Deed::Remove(whom) } else { Deed::Add(whom) };
            self.change(one, deed.clone());
            self.change(other, deed);
        } else if self.choose(2) == 0 {
            self.change(one, Deed::Remove(whom));
            match self.choose(3) {
                0 => self.change(whom, Deed::Leave),
                1 => self.write(whom),
                _ => {
                    let deed = self.some_deed();
                    self.change(whom, deed);
                }
            }
        } else {
            let deeds = [self.some_deed(), self.some_deed()];
            let [first, second] = deeds;
            self.change(one, first);
            self.change(other, second);
            self.write(one);
            self.write(other);
        }
    }

    /// Types a change. Many make no sense at the moment, and are refused: that is part of it.
    fn change(&mut self, by: HostId, deed: Deed) {
        if !self.world.is_running(by) || self.budget == 0 {
            return;
        }
        let group = self.word.clone();
        let command = match &deed {
            Deed::Add(who) => Command::GroupAdd { group, who: vec![name(*who)] },
            Deed::Remove(who) => Command::GroupRemove { group, who: name(*who) },
            Deed::Promote(who) => Command::GroupPromote { group, who: name(*who) },
            Deed::Demote(who) => Command::GroupDemote { group, who: name(*who) },
            Deed::Rename(name) => Command::GroupRename { group, name: name.clone() },
            Deed::Leave => Command::GroupLeave { group },
        };
        if self.world.command(by, command).is_ok() {
            self.world.remark(by, &format!("{deed:?}"));
            self.budget = self.budget.saturating_sub(1);
            self.report.changes += 1;
            self.model.deeds.push((by, deed));
        }
    }

    fn cheat(&mut self) {
        let relay = self.world.nodes() + self.choose(self.relays);
        let chance = |life: &mut Self| life.choose(3) == 0;
        let mut tricks = Tricks {
            reorders: chance(self),
            repeats: chance(self),
            keeps_answers: chance(self),
            loses: chance(self),
            ..Tricks::default()
        };
        for node in 0..self.world.nodes() {
            if chance(self) {
                tricks.withholds_from.insert(self.keys[node]);
            }
        }
        self.world.play(relay, tricks);
    }

    // Healing -----------------------------------------------------------------------------------------

    fn heal(&mut self) {
        self.world.heal();
        for host in 0..self.world.nodes() + self.relays {
            self.world.start(host);
            self.world.set_clock_error(host, 0);
            if host >= self.world.nodes() {
                self.world.play(host, Tricks::default());
            }
        }
    }
}

fn name(host: HostId) -> String {
    format!("node{}", host + 1)
}
