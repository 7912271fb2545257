//! Bodies of requests, in JSON. Unknown fields are refused: a misspelt one must not pass silently.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sremp_common::name::Username;

use crate::api::{PathPolicy, ServerOptions};

/// Nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

/// `POST /v1/contacts`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContactNew {
    /// `LINK`, `ID@HOST:PORT` or `ID`.
    pub what: String,
    /// The owner's own name for them.
    #[serde(default)]
    pub alias: Option<String>,
}

/// `PUT /v1/contacts/{who}/alias`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// The owner's own name for them; empty: none.
    pub alias: String,
}

/// `PUT /v1/contacts/{who}/path`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Which paths; `null` follows the node's own policy.
    pub path: Option<PathPolicy>,
}

/// `POST /v1/messages`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// A contact or a group.
    pub to: String,
    /// The text.
    pub text: String,
    /// Id of the message that this one answers.
    #[serde(default)]
    pub reply_to: Option<String>,
}

/// `PUT /v1/conversations/{with}/messages/{id}/reaction`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reaction {
    /// An emoji or a short word; `null` takes it back.
    pub reaction: Option<String>,
}

/// `PUT /v1/conversations/{with}/messages/{id}/text`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewText {
    /// The text.
    pub text: String,
}

/// `POST /v1/conversations/{with}/typing`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TypingNow {
    /// Whether the owner writes.
    pub typing: bool,
}

/// `PUT /v1/conversations/{with}/timer`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seconds {
    /// After how many seconds messages vanish; `null`: not at all.
    pub seconds: Option<u32>,
}

/// `POST /v1/groups`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupNew {
    /// What it is called.
    pub name: String,
    /// Who is invited at once.
    #[serde(default)]
    pub members: Vec<String>,
    /// Name or number of the cipher suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
}

/// `POST /v1/groups/{group}/members`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Members {
    /// Whom.
    pub who: Vec<String>,
}

/// `PUT /v1/groups/{group}/name`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextValue {
    /// The new name.
    pub name: String,
}

/// `POST /v1/relays`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayNew {
    /// A relay link, or a contact link of a friend.
    pub link: String,
}

/// `POST /v1/rendezvous`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RendezvousNew {
    /// `HOST:PORT`
    pub server: String,
    /// Absolute path of a certificate authority.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// An invitation.
    #[serde(default)]
    pub invite: Option<String>,
}

impl From<ServerOptions> for RendezvousNew {
    fn from(options: ServerOptions) -> Self {
        let ServerOptions { server, ca, invite } = options;
        Self { server: server.to_string(), ca, invite }
    }
}

/// `PUT /v1/identity/name`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameText {
    /// The new name.
    pub name: Username,
}

/// `PUT /v1/identity/flags/{flag}`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlagValue {
    /// Its new value.
    pub on: bool,
}
