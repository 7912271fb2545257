//! When a group is at rest, and whether what it came to is right.

use std::collections::BTreeSet;

use sremp_node::api::{
    Command, GroupState, GroupView, MessageKind, MessageState, MessageView, Reply, Role,
};

use super::{HOUR, Life, MINUTE, SECOND, name};
use crate::model::{Said, Standing};
use crate::net::HostId;

/// Virtual time in which everything must have settled after all has healed.
const PATIENCE: u64 = 6 * HOUR;
/// History rows read at once.
const PAGE: u32 = 1000;

/// Which of those who take themselves for members are not looked at.
type LeftOut = fn(&Life, &[(HostId, GroupView)]) -> Vec<HostId>;

impl Life {
    /// Waits until nothing is on its way any more, and all agree. Whoever is alone on a branch of which
    /// nobody has told it that it lost notices it when it speaks.
    pub(super) fn settle(&mut self) {
        self.settle_but(Self::alone);
        let views = self.active_views();
        let alone = self.alone(&views);
        if !alone.is_empty() {
            for host in alone {
                self.write(host);
            }
            self.settle_but(|_, _| Vec::new());
        }
    }

    /// Waits until all agree but for some of them.
    fn settle_but(&mut self, left_out: LeftOut) {
        let began = self.world.now();
        let mut step = SECOND;
        while self.world.now() < began + PATIENCE {
            self.world.pass(step);
            self.accept_strangers();
            if self.unsettled(left_out).is_empty() {
                let took = (self.world.now() - began) / SECOND;
                // What was the last thing to move may have caused another.
                self.world.pass(30 * SECOND);
                if self.unsettled(left_out).is_empty() {
                    self.report.settled_after = self.report.settled_after.max(took);
                    return;
                }
            }
            step = (step * 2).min(5 * MINUTE);
        }
        let stuck = self.unsettled(left_out);
        panic!("not settled after {PATIENCE} virtual ms: {}", stuck.join("; "));
    }

    /// Whoever is invited by an admin whom they do not know says yes.
    fn accept_strangers(&mut self) {
        for host in 0..self.world.nodes() {
            let asked = self.world.command(host, Command::RequestsList);
            let Ok(Reply::Requests(requests)) = asked else { panic!("no requests") };
            for request in requests {
                self.world.command(host, Command::RequestsAccept { who: request.id }).unwrap();
            }
        }
    }

    fn unsettled(&mut self, left_out: LeftOut) -> Vec<String> {
        let mut views = self.active_views();
        let alone = left_out(self, &views);
        views.retain(|(host, _)| !alone.contains(host));
        let mut stuck = disagreements(&views);
        let members: Vec<HostId> = views.iter().map(|(host, _)| *host).collect();
        for host in &members {
            if let Ok(Reply::Status(status)) = self.world.command(*host, Command::Status)
                && status.outbox > 0
            {
                let mut waiting = self.world.node(*host).waiting().join(", ");
                for (place, key) in self.keys.iter().enumerate() {
                    waiting = waiting.replace(&key.to_string(), &name(place));
                }
                stuck.push(format!("{} has {} parcels: {waiting}", name(*host), status.outbox));
            }
        }
        if let Some((_, view)) = views.first() {
            for member in &view.members {
                let is_active = members.iter().any(|host| self.is(*host, &member.id));
                if !is_active {
                    let stands = self.stands(&member.id);
                    stuck.push(format!("{} is listed, and {stands}", member.name));
                }
            }
            if view.members.len() < members.len() {
                stuck.push("somebody is active, and not listed".to_owned());
            }
        }
        let steady: BTreeSet<HostId> = self.model.steady_members();
        for said in self.model.said.clone() {
            if !members.contains(&said.author) {
                continue;
            }
            let view = self.message(&said);
            // What somebody writes while it is being removed may be read, or not.
            let written = self.model.must_be_read(said.author);
            for recipient in &view.recipients {
                let is = |host: &HostId| self.is(*host, &recipient.id);
                let reads = steady.iter().any(is) && members.iter().any(is);
                let least =
                    if reads && written { MessageState::Delivered } else { MessageState::Sent };
                if recipient.state < least && members.iter().any(is) {
                    let state = recipient.state;
                    stuck.push(format!("\"{}\" is {state:?} to {}", said.text, recipient.name));
                }
            }
            // Nobody reads what the last member writes.
            if view.state < MessageState::Sent && members.len() > 1 {
                stuck.push(format!("\"{}\" is {:?}", said.text, view.state));
            }
        }
        stuck
    }

    /// Who takes itself for a member, and is none to the others. A member that was removed, or added,
    /// on a branch that others know to have lost cannot know it: what makes the other branch deeper is
    /// not for it. It has to be told, by the heal ladder.
    fn alone(&self, views: &[(HostId, GroupView)]) -> Vec<HostId> {
        let steady = self.model.steady_members();
        let Some(view) = views
            .iter()
            .max_by_key(|(host, view)| {
                let same = |(_, other): &&(HostId, GroupView)| {
                    other.epoch_authenticator == view.epoch_authenticator
                };
                (steady.contains(host), views.iter().filter(same).count(), *host)
            })
            .map(|(_, view)| view.clone())
        else {
            return Vec::new();
        };
        let is_listed = |host: &HostId| view.members.iter().any(|it| self.is(*host, &it.id));
        let is_alone = |host: &HostId| !is_listed(host) && self.model.was_moved(*host);
        views.iter().map(|(host, _)| *host).filter(is_alone).collect()
    }

    /// How the group stands at somebody, in words.
    fn stands(&mut self, id: &str) -> String {
        let host = self.keys.iter().position(|key| key.to_string() == id).unwrap();
        let command = Command::GroupShow { group: self.word.clone() };
        match self.world.command(host, command) {
            Ok(Reply::Group(view)) => format!("{:?} in epoch {}", view.state, view.epoch),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.message,
        }
    }

    fn is(&self, host: HostId, id: &str) -> bool {
        self.keys[host].to_string() == id
    }

    /// The group as those see it who are in it.
    pub(super) fn active_views(&mut self) -> Vec<(HostId, GroupView)> {
        let mut views = Vec::new();
        for host in 0..self.world.nodes() {
            let command = Command::GroupShow { group: self.word.clone() };
            if let Ok(Reply::Group(view)) = self.world.command(host, command)
                && !matches!(view.state, GroupState::Left | GroupState::Removed)
            {
                views.push((host, *view));
            }
        }
        views
    }

    pub(super) fn judge(&mut self) {
        let views = self.active_views();
        let (_, view) = views.first().expect("nobody is in the group");
        let hosts = |role: Option<Role>| {
            let wanted =
                view.members.iter().filter(|member| role.is_none_or(|it| it == member.role));
            let host = |id: &str| self.keys.iter().position(|key| key.to_string() == *id).unwrap();
            wanted.map(|member| host(&member.id)).collect()
        };
        let now = Standing {
            name: view.name.clone(),
            members: hosts(None),
            admins: hosts(Some(Role::Admin)),
        };
        let broken = self.model.broken_promises(&now);
        assert!(broken.is_empty(), "{}; done: {:?}", broken.join("; "), self.model.deeds);
        self.report.epochs = view.epoch;
        self.judge_histories(&now);
        self.report.messages += self.model.said.len();
        self.model.agree(now);
    }

    fn judge_histories(&mut self, now: &Standing) {
        let steady = self.model.steady_members();
        let mut orders: Vec<(HostId, Vec<String>)> = Vec::new();
        for reader in 0..self.world.nodes() {
            let history = self.history(reader);
            let count = |id: &str| history.iter().filter(|row| row.message_id == id).count();
            let doubled = history.iter().find(|row| count(&row.message_id) > 1);
            assert!(doubled.is_none(), "{} shows this twice: {doubled:?}", name(reader));
            if !now.members.contains(&reader) {
                continue;
            }
            for said in &self.model.said {
                let must = now.members.contains(&said.author)
                    && self.model.must_be_read(said.author)
                    && steady.contains(&reader);
                assert!(
                    !must || count(&said.message_id) == 1,
                    "\"{}\" is missing at {}",
                    said.text,
                    name(reader)
                );
            }
            orders.push((reader, history.into_iter().map(|row| row.message_id).collect()));
        }
        for pair in orders.windows(2) {
            let [(one, first), (other, second)] = pair else { unreachable!() };
            let common = |of: &[String], with: &[String]| -> Vec<String> {
                of.iter().filter(|id| with.contains(id)).cloned().collect()
            };
            assert_eq!(
                common(first, second),
                common(second, first),
                "{} and {} show messages in different orders",
                name(*one),
                name(*other)
            );
        }
    }

    fn message(&mut self, said: &Said) -> MessageView {
        let command = Command::MessageShow { id: said.message_id.clone() };
        match self.world.command(said.author, command) {
            Ok(Reply::Message(view)) => *view,
            other => panic!("\"{}\" is gone from its author: {other:?}", said.text),
        }
    }

    fn history(&mut self, host: HostId) -> Vec<MessageView> {
        let command = Command::History { with: self.word.clone(), limit: PAGE, before: None };
        match self.world.command(host, command) {
            Ok(Reply::Messages(mut views)) => {
                views.retain(|view| view.kind == MessageKind::Text);
                views
            }
            // Never invited, so there is no such group here.
            _ => Vec::new(),
        }
    }
}

/// In what those who are in a group disagree.
fn disagreements(views: &[(HostId, GroupView)]) -> Vec<String> {
    let mut all = Vec::new();
    for (host, view) in views {
        if view.state != GroupState::Active {
            all.push(format!("{} is {:?}", name(*host), view.state));
        }
        if view.members.iter().any(|member| member.pending) {
            all.push(format!("{} still invites somebody", name(*host)));
        }
    }
    for pair in views.windows(2) {
        let [(one, first), (other, second)] = pair else { unreachable!() };
        let roles = |view: &GroupView| {
            let mut all: Vec<(String, Role)> =
                view.members.iter().map(|member| (member.id.clone(), member.role)).collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        if first.epoch_authenticator != second.epoch_authenticator
            || first.epoch != second.epoch
            || first.name != second.name
            || roles(first) != roles(second)
        {
            all.push(format!(
                "{} in epoch {} and {} in epoch {} disagree",
                name(*one),
                first.epoch,
                name(*other),
                second.epoch
            ));
        }
    }
    all
}
