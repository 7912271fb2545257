//! What should be true, without any cryptography: who wrote what to whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::net::HostId;

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// To another node.
    Direct(HostId),
    /// To a group, by its id.
    Group(String),
}

/// A message that its author's node has confirmed.
#[derive(Clone, Debug)]
pub struct Written {
    /// Whose it is.
    pub author: HostId,
    /// Where it was written.
    pub place: Place,
    /// Unique in the world.
    pub text: String,
    /// Its id, as the author's node said.
    pub message_id: String,
}

/// Everything that was confirmed, in order.
#[derive(Debug, Default)]
pub struct Model {
    /// The messages.
    pub written: Vec<Written>,
    /// Groups by id: who created them.
    pub groups: BTreeMap<String, HostId>,
}

impl Model {
    /// The texts of one author at one place, in the order in which they were written.
    #[must_use]
    pub fn texts(&self, author: HostId, place: &Place) -> Vec<&str> {
        self.written
            .iter()
            .filter(|written| written.author == author && written.place == *place)
            .map(|written| written.text.as_str())
            .collect()
    }
}

/// A change of a group that its author's node has confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Somebody is to be a member.
    Add(HostId),
    /// Somebody is to be a member no more.
    Remove(HostId),
    /// A member is to be an admin.
    Promote(HostId),
    /// An admin is to be a plain member.
    Demote(HostId),
    /// The group is to be called this.
    Rename(String),
    /// The author goes.
    Leave,
}

/// A message to the group, and in which phase of the story it was written.
#[derive(Clone, Debug)]
pub struct Said {
    /// Whose it is.
    pub author: HostId,
    /// Unique in the world.
    pub text: String,
    /// Its id, as the author's node said.
    pub message_id: String,
}

/// A group as its members see it, or should.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// What it is called.
    pub name: String,
    /// Who is in it.
    pub members: BTreeSet<HostId>,
    /// Who of them is an admin.
    pub admins: BTreeSet<HostId>,
}

/// One group: how it stood when all agreed last, and what was done and said since.
///
/// Rivals may undo each other, so the model does not compute one outcome. It says which outcomes
/// would break a promise. A member is *steady* when nobody has tried to remove it since and it has
/// not left; an admin is when nobody has tried to take its role, either. What a steady admin did to
/// somebody stands unless something else was done to the same one.
#[derive(Clone, Debug, Default)]
pub struct GroupModel {
    /// As all agreed last.
    pub agreed: Standing,
    /// What was done since, in the order in which it was typed.
    pub deeds: Vec<(HostId, Deed)>,
    /// What was written since.
    pub said: Vec<Said>,
}

impl GroupModel {
    /// Members whom nothing has happened to.
    #[must_use]
    pub fn steady_members(&self) -> BTreeSet<HostId> {
        self.agreed.members.iter().copied().filter(|host| self.is_left_alone(*host)).collect()
    }

    /// Whether nobody tried to remove somebody, who has not left, either.
    #[must_use]
    pub fn is_left_alone(&self, host: HostId) -> bool {
        !self.deeds.iter().any(|(by, deed)| match deed {
            Deed::Remove(who) => *who == host,
            Deed::Leave => *by == host,
            Deed::Add(_) | Deed::Promote(_) | Deed::Demote(_) | Deed::Rename(_) => false,
        })
    }

    /// Whether what somebody writes has to be read in the end, if it is a member then: it cannot have been
    /// out in between. A removal that has lost counts for nothing.
    #[must_use]
    pub fn must_be_read(&self, author: HostId) -> bool {
        let was_added = self.deeds.iter().any(|(_, deed)| *deed == Deed::Add(author));
        let leaves = self.deeds.iter().any(|(by, deed)| *by == author && *deed == Deed::Leave);
        !leaves && (!was_added || self.is_left_alone(author))
    }

    /// Whether somebody was to be taken out, or in.
    #[must_use]
    pub fn was_moved(&self, host: HostId) -> bool {
        !self.is_left_alone(host) || self.deeds.iter().any(|(_, deed)| *deed == Deed::Add(host))
    }

    /// Whether somebody may have become the last admin, who cannot leave.
    fn may_be_admin(&self, who: HostId) -> bool {
        self.agreed.admins.contains(&who)
            || self.deeds.iter().any(|(_, deed)| *deed == Deed::Promote(who))
    }

    fn is_steady_admin(&self, host: HostId) -> bool {
        self.agreed.admins.contains(&host)
            && self.is_left_alone(host)
            && !self.deeds.iter().any(|(_, deed)| *deed == Deed::Demote(host))
    }

    /// Whether it could be that nobody is left.
    #[must_use]
    pub fn may_be_over(&self) -> bool {
        self.steady_members().is_empty()
    }

    /// What is wrong with how the group stands now; empty when no promise was broken.
    #[must_use]
    pub fn broken_promises(&self, now: &Standing) -> Vec<String> {
        let mut broken = Vec::new();
        let everybody: BTreeSet<HostId> = self
            .agreed
            .members
            .iter()
            .chain(&now.members)
            .chain(self.deeds.iter().filter_map(|(_, deed)| match deed {
                Deed::Add(who) => Some(who),
                _ => None,
            }))
            .copied()
            .collect();
        for who in everybody {
            broken.extend(self.broken_membership(who, now));
            broken.extend(self.broken_role(who, now));
        }
        let renames: Vec<(&HostId, &String)> = self
            .deeds
            .iter()
            .filter_map(|(by, deed)| match deed {
                Deed::Rename(name) => Some((by, name)),
                _ => None,
            })
            .collect();
        match renames[..] {
            [] if now.name != self.agreed.name => broken.push("nobody renamed it".to_owned()),
            [(by, name)] if self.is_steady_admin(*by) && now.name != *name => {
                broken.push(format!("it is not called {name}"));
            }
            _ => {}
        }
        if now.admins.is_empty() {
            broken.push("there is no admin".to_owned());
        }
        broken
    }

    fn broken_membership(&self, who: HostId, now: &Standing) -> Option<String> {
        let is = now.members.contains(&who);
        let was = self.agreed.members.contains(&who);
        let by = |wanted: &Deed| -> Vec<HostId> {
            self.deeds.iter().filter(|(_, deed)| deed == wanted).map(|(by, _)| *by).collect()
        };
        let (adds, removals) = (by(&Deed::Add(who)), by(&Deed::Remove(who)));
        let leaves = self.deeds.contains(&(who, Deed::Leave));
        let steady = |all: &[HostId]| all.iter().any(|by| self.is_steady_admin(*by));
        let name = format!("node{}", who + 1);
        if was && !is && self.is_left_alone(who) {
            Some(format!("nobody removed {name}, and it is no member"))
        } else if !was && is && adds.is_empty() {
            Some(format!("nobody added {name}, and it is a member"))
        } else if is && adds.is_empty() && steady(&removals) {
            Some(format!("an admin removed {name}, and it is a member"))
        } else if is && adds.is_empty() && leaves && !self.may_be_admin(who) {
            Some(format!("{name} has left, and is a member"))
        } else if !is && removals.is_empty() && !leaves && steady(&adds) {
            Some(format!("an admin added {name}, and it is no member"))
        } else {
            None
        }
    }

    fn broken_role(&self, who: HostId, now: &Standing) -> Option<String> {
        let stayed = self.agreed.members.contains(&who) && now.members.contains(&who);
        if !stayed || !self.is_left_alone(who) || self.deeds.contains(&(who, Deed::Add(who))) {
            return None;
        }
        let changes: Vec<&(HostId, Deed)> = self
            .deeds
            .iter()
            .filter(|(_, deed)| *deed == Deed::Promote(who) || *deed == Deed::Demote(who))
            .collect();
        let (was, is) = (self.agreed.admins.contains(&who), now.admins.contains(&who));
        // Where no admin is left, some member becomes one.
        let inherits = is && !self.agreed.admins.iter().any(|admin| self.is_steady_admin(*admin));
        match changes[..] {
            [] if was != is && !inherits => {
                Some(format!("nobody changed the role of node{}", who + 1))
            }
            [(by, deed)] if self.is_steady_admin(*by) && is != (*deed == Deed::Promote(who)) => {
                Some(format!("an admin changed the role of node{}, and it has another", who + 1))
            }
            _ => None,
        }
    }

    /// All agree again: what was done and said before is over.
    pub fn agree(&mut self, now: Standing) {
        self.agreed = now;
        self.deeds.clear();
        self.said.clear();
    }
}
