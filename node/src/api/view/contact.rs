//! One contact, as it is answered.

use serde::{Deserialize, Serialize};
use sremp_common::time::Timestamp;

use super::{FlagsView, PathState, RelayRecordView, Trust};
use crate::api::{PathPolicy, word};

/// One contact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContactView {
    /// Id.
    pub id: String,
    /// What they call themselves.
    pub name: String,
    /// What the owner calls them.
    pub alias: Option<String>,
    /// What the owner thinks of their keys.
    pub trust: Trust,
    /// Safety numbers were compared.
    pub verified: bool,
    /// What they say about themselves.
    pub flags: FlagsView,
    /// Version of their identity; 0 until it has been seen.
    pub version: u64,
    /// When that version was made.
    pub created: Option<Timestamp>,
    /// When they became a contact.
    pub first_seen: Timestamp,
    /// When they were last heard of.
    pub last_seen: Option<Timestamp>,
    /// Their relays, in their order of preference.
    pub relays: Vec<RelayRecordView>,
    /// How they are reached at the moment.
    pub path: PathState,
    /// Which paths may be used; [`None`]: the node's own policy.
    pub path_policy: Option<PathPolicy>,
    /// Where they may be dialled, as far as known.
    pub endpoints: Vec<String>,
    /// Sixty digits that are the same on both sides.
    pub safety_number: String,
    /// This node holds a mailbox for them.
    pub relay_allowed: bool,
    /// Somebody else in the list has the same name or alias.
    pub name_is_shared: bool,
    /// Id of another contact whose name or alias is this one's name, or looks like it.
    pub looks_like: Option<String>,
    /// Id of another contact whose name is this one's alias: the word means this one.
    pub alias_hides: Option<String>,
    /// An identity of theirs that was refused, until the owner has judged their trust anew.
    pub doubt: Option<DoubtView>,
}

/// An identity that was refused although its signature is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubtView {
    /// What it was.
    pub kind: DoubtKind,
    /// Its version.
    pub version: u64,
    /// When it was shown last.
    pub at: Timestamp,
}

/// What was wrong with an identity that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoubtKind {
    /// A version before the one that is known.
    OldIdentity,
    /// Another content under the version that is known: their key may be in two hands.
    SecondIdentity,
}

word::text_form!(DoubtKind, "a doubt about an identity", {
    OldIdentity = "old_identity", SecondIdentity = "second_identity",
});

/// What the removal of a contact has undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedView {
    /// They were rejected, and may ask anew now.
    pub rejection_lifted: bool,
}
