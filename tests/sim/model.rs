//! What should be true, without any cryptography: who wrote what to whom.

use std::collections::BTreeMap;

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
