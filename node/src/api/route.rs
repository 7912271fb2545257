//! Requests as HTTP resources under `/v1`, both ways and without any I/O: [`encode`] is the
//! client's half, [`decode`] the server's, and each undoes the other for every command. The
//! table of resources stands in `docs/api.md`.

pub mod body;
pub mod percent;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sremp_common::limit::MAX_PICTURE;

use super::{ApiError, Command, DEFAULT_HISTORY, MAX_EVENT_PAGE, MessageState, ServerOptions};
use body::{
    Alias, ContactNew, Empty, FlagValue, GroupNew, Members, Message, NameText, NewText, Policy,
    Reaction, RelayNew, RendezvousNew, Seconds, TextValue, TypingNow,
};

/// Bytes of a request's body: a text of the greatest length with every byte escaped fits.
pub const MAX_BODY: usize = 512 * 1024;
/// Bytes of a request's path and query.
pub const MAX_PATH: usize = 8 * 1024;
/// Seconds that one request may wait for a message's state.
pub const MAX_WAIT: u32 = 24 * 3600;
/// Seconds when nobody says how long.
pub const DEFAULT_WAIT: u32 = 30;

/// What can be asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// One question, one answer.
    Command(Command),
    /// Answers when a message has come as far as `state`, cannot come further, or `timeout` seconds are over.
    Wait {
        /// Id of the message.
        id: String,
        /// What is waited for.
        state: MessageState,
        /// Seconds.
        timeout: u32,
    },
    /// A stream of events, one JSON object a line.
    Watch {
        /// First what came after this sequence number.
        after: Option<u64>,
    },
}

/// Methods in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads, and changes nothing.
    Get,
    /// Makes or does something.
    Post,
    /// Sets something to a value.
    Put,
    /// Takes something away.
    Delete,
}

super::word::text_form!(Method, "a method", {
    Get = "GET", Post = "POST", Put = "PUT", Delete = "DELETE",
});

/// A request as it goes over the socket.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpForm {
    /// Method.
    pub method: Method,
    /// Path and query, percent-encoded.
    pub target: String,
    /// Body; empty for none.
    pub body: Vec<u8>,
}

/// What is asked, without the body.
impl std::fmt::Debug for HttpForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpForm({} {})", self.method, self.target)
    }
}

impl From<Command> for Request {
    fn from(command: Command) -> Self {
        Self::Command(command)
    }
}

/// The client's half.
#[must_use]
pub fn encode(request: &Request) -> HttpForm {
    match request {
        Request::Command(command) => encode_command(command),
        Request::Wait { id, state, timeout } => form(Method::Get, &["messages", id, "wait"])
            .query("state", state)
            .query("timeout", timeout),
        Request::Watch { after } => {
            form(Method::Get, &["events"]).query_if("after", after.as_ref())
        }
    }
}

fn encode_command(command: &Command) -> HttpForm {
    use Command as C;
    use Method::{Delete, Get, Post, Put};
    match command {
        C::Status => form(Get, &["status"]),
        C::Link { once: false } => form(Get, &["link"]),
        C::Link { once: true } => form(Post, &["link", "once"]),
        C::LinkRevoke => form(Delete, &["link"]),

        C::ContactAdd { what, alias } => {
            form(Post, &["contacts"]).json(&ContactNew { what: what.clone(), alias: alias.clone() })
        }
        C::ContactList => form(Get, &["contacts"]),
        C::ContactShow { who } => form(Get, &["contacts", who]),
        C::ContactAlias { who, alias } => {
            form(Put, &["contacts", who, "alias"]).json(&Alias { alias: alias.clone() })
        }
        C::ContactTrust { who } => form(Post, &["contacts", who, "trust"]),
        C::ContactVerify { who } => form(Post, &["contacts", who, "verify"]),
        C::ContactReject { who } => form(Post, &["contacts", who, "reject"]),
        C::ContactReset { who } => form(Post, &["contacts", who, "reset"]),
        C::ContactPath { who, path } => {
            form(Put, &["contacts", who, "path"]).json(&Policy { path: *path })
        }
        C::ContactRemove { who } => form(Delete, &["contacts", who]),
        C::RelayAllow { who } => form(Put, &["contacts", who, "mailbox"]),
        C::RelayDisallow { who } => form(Delete, &["contacts", who, "mailbox"]),

        C::Peers { name } => form(Get, &["peers"]).query_if("name", name.as_ref()),
        C::RequestsList => form(Get, &["requests"]),
        C::RequestsAccept { who } => form(Post, &["requests", who, "accept"]),
        C::RequestsDecline { who } => form(Post, &["requests", who, "decline"]),

        C::Send { .. }
        | C::MessageShow { .. }
        | C::History { .. }
        | C::MarkRead { .. }
        | C::React { .. }
        | C::Edit { .. }
        | C::Delete { .. }
        | C::TypingShow { .. }
        | C::TypingTell { .. }
        | C::TimerShow { .. }
        | C::TimerSet { .. } => encode_talk(command),
        C::Events { after, limit } => {
            form(Get, &["events", "page"]).query_if("after", after.as_ref()).query("limit", limit)
        }

        C::GroupCreate { name, members, suite } => group_create(name, members, suite.as_ref()),
        C::GroupList => form(Get, &["groups"]),
        C::GroupShow { group } => form(Get, &["groups", group]),
        C::GroupAdd { group, who } => {
            form(Post, &["groups", group, "members"]).json(&Members { who: who.clone() })
        }
        C::GroupRemove { group, who } => form(Delete, &["groups", group, "members", who]),
        C::GroupPromote { group, who } => form(Post, &["groups", group, "members", who, "promote"]),
        C::GroupDemote { group, who } => form(Post, &["groups", group, "members", who, "demote"]),
        C::GroupRename { group, name } => {
            form(Put, &["groups", group, "name"]).json(&TextValue { name: name.clone() })
        }
        C::GroupLeave { group } => form(Post, &["groups", group, "leave"]),

        C::RelayAdd { link } => form(Post, &["relays"]).json(&RelayNew { link: link.clone() }),
        C::RelayMigrate { relay, link } => {
            form(Post, &["relays", relay, "migrate"]).json(&RelayNew { link: link.clone() })
        }
        C::RelayRemove { relay } => form(Delete, &["relays", relay]),
        C::RelayList => form(Get, &["relays"]),
        C::RendezvousAdd(options) => {
            form(Post, &["rendezvous"]).json(&RendezvousNew::from(options.clone()))
        }
        C::RendezvousRemove { server } => form(Delete, &["rendezvous", &server.to_string()]),
        C::RendezvousList => form(Get, &["rendezvous"]),

        C::IdentityShow => form(Get, &["identity"]),
        C::IdentityRename { name } => {
            form(Put, &["identity", "name"]).json(&NameText { name: name.clone() })
        }
        C::IdentityFlag { flag, on } => {
            form(Put, &["identity", "flags", flag.word()]).json(&FlagValue { on: *on })
        }
        C::IdentityPicture { bytes } => {
            HttpForm { body: bytes.clone(), ..form(Put, &["identity", "picture"]) }
        }
        C::IdentityRotateNoiseKey => form(Post, &["identity", "rotate-noise-key"]),
        C::IdentityRotateTokens => form(Post, &["identity", "rotate-tokens"]),
    }
}

/// Messages, and what is done to them.
#[expect(clippy::wildcard_enum_match_arm, reason = "the other half has the others")]
fn encode_talk(command: &Command) -> HttpForm {
    use Command as C;
    use Method::{Delete, Get, Post, Put};
    match command {
        C::Send { to, text, reply_to } => form(Post, &["messages"]).json(&Message {
            to: to.clone(),
            text: text.clone(),
            reply_to: reply_to.clone(),
        }),
        C::MessageShow { id } => form(Get, &["messages", id]),
        C::History { with, limit, before } => form(Get, &["conversations", with, "messages"])
            .query("limit", limit)
            .query_if("before", before.as_ref()),
        C::MarkRead { with } => form(Post, &["conversations", with, "read"]),
        C::React { with, message, reaction } => {
            form(Put, &["conversations", with, "messages", message, "reaction"])
                .json(&Reaction { reaction: reaction.clone() })
        }
        C::Edit { with, message, text } => {
            form(Put, &["conversations", with, "messages", message, "text"])
                .json(&NewText { text: text.clone() })
        }
        C::Delete { with, message } => form(Delete, &["conversations", with, "messages", message]),
        C::TypingShow { with } => form(Get, &["conversations", with, "typing"]),
        C::TypingTell { with, typing } => {
            form(Post, &["conversations", with, "typing"]).json(&TypingNow { typing: *typing })
        }
        C::TimerShow { with } => form(Get, &["conversations", with, "timer"]),
        C::TimerSet { with, seconds } => {
            form(Put, &["conversations", with, "timer"]).json(&Seconds { seconds: *seconds })
        }
        _ => form(Get, &["conversations"]),
    }
}

fn group_create(name: &str, members: &[String], suite: Option<&String>) -> HttpForm {
    let (name, members, suite) = (name.to_owned(), members.to_vec(), suite.cloned());
    form(Method::Post, &["groups"]).json(&GroupNew { name, members, suite })
}

/// The server's half.
///
/// # Errors
/// `not_found` for an unknown resource, `usage` for a body or query that is not the resource's.
pub fn decode(method: &str, target: &str, body: &[u8]) -> Result<Request, ApiError> {
    if target.len() > MAX_PATH {
        return Err(ApiError::usage(format!("the path is longer than {MAX_PATH} bytes")));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let unknown = || {
        let shown: String = path.chars().take(120).collect();
        ApiError::not_found(format!("there is no resource {method} {shown}; see docs/api.md"))
    };
    let method: Method = method.parse().map_err(|_| unknown())?;
    let segments = path.strip_prefix("/v1/").ok_or_else(unknown)?;
    let segments = segments
        .split('/')
        .map(percent::decode)
        .collect::<Option<Vec<String>>>()
        .ok_or_else(|| ApiError::usage("the path is not percent-encoded UTF-8"))?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let mut query = Query::parse(query)?;
    let request = match segments.as_slice() {
        ["messages", id, "wait"] if method == Method::Get => Request::Wait {
            id: (*id).to_owned(),
            state: query.take_parsed("state")?.unwrap_or(MessageState::Delivered),
            timeout: query.take_parsed("timeout")?.unwrap_or(DEFAULT_WAIT).min(MAX_WAIT),
        },
        ["events"] if method == Method::Get => {
            Request::Watch { after: query.take_parsed("after")? }
        }
        segments => decode_command(method, segments, &mut query, body)?.ok_or_else(unknown)?.into(),
    };
    query.finish()?;
    Ok(request)
}

/// [`None`]: no such resource.
fn decode_command(
    method: Method,
    segments: &[&str],
    query: &mut Query,
    body: &[u8],
) -> Result<Option<Command>, ApiError> {
    match segments.first().copied() {
        Some("groups") => about_groups(method, segments, body),
        Some("conversations") => about_conversations(method, segments, query, body),
        Some("relays" | "rendezvous" | "identity") => about_this_node(method, segments, body),
        _ => about_people(method, segments, query, body),
    }
}

fn about_people(
    method: Method,
    segments: &[&str],
    query: &mut Query,
    body: &[u8],
) -> Result<Option<Command>, ApiError> {
    use Command as C;
    use Method::{Delete, Get, Post, Put};
    let own = |text: &str| text.to_owned();
    let empty = || json::<Empty>(body);
    let command = match (method, segments) {
        (Get, ["status"]) => C::Status,
        (Get, ["link"]) => C::Link { once: false },
        (Post, ["link", "once"]) => empty().map(|_| C::Link { once: true })?,
        (Delete, ["link"]) => C::LinkRevoke,

        (Post, ["contacts"]) => {
            let ContactNew { what, alias } = json(body)?;
            C::ContactAdd { what, alias }
        }
        (Get, ["contacts"]) => C::ContactList,
        (Get, ["contacts", who]) => C::ContactShow { who: own(who) },
        (Put, ["contacts", who, "alias"]) => {
            C::ContactAlias { who: own(who), alias: json::<Alias>(body)?.alias }
        }
        (Post, ["contacts", who, "trust"]) => empty().map(|_| C::ContactTrust { who: own(who) })?,
        (Post, ["contacts", who, "verify"]) => {
            empty().map(|_| C::ContactVerify { who: own(who) })?
        }
        (Post, ["contacts", who, "reject"]) => {
            empty().map(|_| C::ContactReject { who: own(who) })?
        }
        (Post, ["contacts", who, "reset"]) => empty().map(|_| C::ContactReset { who: own(who) })?,
        (Put, ["contacts", who, "path"]) => {
            C::ContactPath { who: own(who), path: json::<Policy>(body)?.path }
        }
        (Delete, ["contacts", who]) => C::ContactRemove { who: own(who) },
        (Put, ["contacts", who, "mailbox"]) => empty().map(|_| C::RelayAllow { who: own(who) })?,
        (Delete, ["contacts", who, "mailbox"]) => C::RelayDisallow { who: own(who) },

        (Get, ["peers"]) => C::Peers { name: query.take("name") },
        (Get, ["requests"]) => C::RequestsList,
        (Post, ["requests", who, "accept"]) => {
            empty().map(|_| C::RequestsAccept { who: own(who) })?
        }
        (Post, ["requests", who, "decline"]) => {
            empty().map(|_| C::RequestsDecline { who: own(who) })?
        }

        (Post, ["messages"]) => {
            let Message { to, text, reply_to } = json(body)?;
            C::Send { to, text, reply_to }
        }
        (Get, ["messages", id]) => C::MessageShow { id: own(id) },
        (Get, ["events", "page"]) => C::Events {
            after: query.take_parsed("after")?,
            limit: query.take_parsed("limit")?.unwrap_or(MAX_EVENT_PAGE),
        },
        _ => return Ok(None),
    };
    Ok(Some(command))
}

fn about_conversations(
    method: Method,
    segments: &[&str],
    query: &mut Query,
    body: &[u8],
) -> Result<Option<Command>, ApiError> {
    use Command as C;
    use Method::{Delete, Get, Post, Put};
    let own = |text: &str| text.to_owned();
    let command = match (method, segments) {
        (Get, ["conversations", with, "messages"]) => C::History {
            with: own(with),
            limit: query.take_parsed("limit")?.unwrap_or(DEFAULT_HISTORY),
            before: query.take("before"),
        },
        (Post, ["conversations", with, "read"]) => {
            json::<Empty>(body).map(|_| C::MarkRead { with: own(with) })?
        }
        (Put, ["conversations", with, "messages", message, "reaction"]) => {
            let Reaction { reaction } = json(body)?;
            C::React { with: own(with), message: own(message), reaction }
        }
        (Put, ["conversations", with, "messages", message, "text"]) => {
            let NewText { text } = json(body)?;
            C::Edit { with: own(with), message: own(message), text }
        }
        (Delete, ["conversations", with, "messages", message]) => {
            C::Delete { with: own(with), message: own(message) }
        }
        (Get, ["conversations", with, "typing"]) => C::TypingShow { with: own(with) },
        (Post, ["conversations", with, "typing"]) => {
            C::TypingTell { with: own(with), typing: json::<TypingNow>(body)?.typing }
        }
        (Get, ["conversations", with, "timer"]) => C::TimerShow { with: own(with) },
        (Put, ["conversations", with, "timer"]) => {
            C::TimerSet { with: own(with), seconds: json::<Seconds>(body)?.seconds }
        }
        _ => return Ok(None),
    };
    Ok(Some(command))
}

fn about_groups(
    method: Method,
    segments: &[&str],
    body: &[u8],
) -> Result<Option<Command>, ApiError> {
    use Command as C;
    use Method::{Delete, Get, Post, Put};
    let own = |text: &str| text.to_owned();
    let empty = || json::<Empty>(body);
    let command = match (method, segments) {
        (Post, ["groups"]) => {
            let GroupNew { name, members, suite } = json(body)?;
            C::GroupCreate { name, members, suite }
        }
        (Get, ["groups"]) => C::GroupList,
        (Get, ["groups", group]) => C::GroupShow { group: own(group) },
        (Post, ["groups", group, "members"]) => {
            C::GroupAdd { group: own(group), who: json::<Members>(body)?.who }
        }
        (Delete, ["groups", group, "members", who]) => {
            C::GroupRemove { group: own(group), who: own(who) }
        }
        (Post, ["groups", group, "members", who, "promote"]) => {
            empty().map(|_| C::GroupPromote { group: own(group), who: own(who) })?
        }
        (Post, ["groups", group, "members", who, "demote"]) => {
            empty().map(|_| C::GroupDemote { group: own(group), who: own(who) })?
        }
        (Put, ["groups", group, "name"]) => {
            C::GroupRename { group: own(group), name: json::<TextValue>(body)?.name }
        }
        (Post, ["groups", group, "leave"]) => {
            empty().map(|_| C::GroupLeave { group: own(group) })?
        }
        _ => return Ok(None),
    };
    Ok(Some(command))
}

fn about_this_node(
    method: Method,
    segments: &[&str],
    body: &[u8],
) -> Result<Option<Command>, ApiError> {
    use Command as C;
    use Method::{Delete, Get, Post, Put};
    let command = match (method, segments) {
        (Post, ["relays"]) => C::RelayAdd { link: json::<RelayNew>(body)?.link },
        (Post, ["relays", relay, "migrate"]) => {
            C::RelayMigrate { relay: (*relay).to_owned(), link: json::<RelayNew>(body)?.link }
        }
        (Delete, ["relays", relay]) => C::RelayRemove { relay: (*relay).to_owned() },
        (Get, ["relays"]) => C::RelayList,
        (Post, ["rendezvous"]) => {
            let RendezvousNew { server, ca, invite } = json(body)?;
            if ca.as_deref().is_some_and(std::path::Path::is_relative) {
                return Err(ApiError::usage("`ca` must be an absolute path"));
            }
            C::RendezvousAdd(ServerOptions { server: endpoint(&server)?, ca, invite })
        }
        (Delete, ["rendezvous", server]) => C::RendezvousRemove { server: endpoint(server)? },
        (Get, ["rendezvous"]) => C::RendezvousList,

        (Get, ["identity"]) => C::IdentityShow,
        (Put, ["identity", "name"]) => C::IdentityRename { name: json::<NameText>(body)?.name },
        (Put, ["identity", "flags", flag]) => C::IdentityFlag {
            flag: flag.parse().map_err(|error| ApiError::usage(format!("{error}")))?,
            on: json::<FlagValue>(body)?.on,
        },
        (Put, ["identity", "picture"]) => C::IdentityPicture { bytes: picture(body)? },
        (Post, ["identity", "rotate-noise-key"]) => {
            json::<Empty>(body).map(|_| C::IdentityRotateNoiseKey)?
        }
        (Post, ["identity", "rotate-tokens"]) => {
            json::<Empty>(body).map(|_| C::IdentityRotateTokens)?
        }
        _ => return Ok(None),
    };
    Ok(Some(command))
}

fn picture(body: &[u8]) -> Result<Vec<u8>, ApiError> {
    if body.len() > MAX_PICTURE {
        return Err(ApiError::usage(format!("a picture has at most {MAX_PICTURE} bytes")));
    }
    Ok(body.to_vec())
}

fn endpoint(text: &str) -> Result<sremp_common::wire::Endpoint, ApiError> {
    text.parse().map_err(|error| ApiError::usage(format!("{error}")))
}

/// An absent body reads as `{}`.
fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| ApiError::usage(format!("the body is not what is needed here: {error}")))
}

fn form(method: Method, segments: &[&str]) -> HttpForm {
    let mut target = "/v1".to_owned();
    for segment in segments {
        target.push('/');
        target.push_str(&percent::encode(segment));
    }
    HttpForm { method, target, body: Vec::new() }
}

impl HttpForm {
    fn query(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.target.push(if self.target.contains('?') { '&' } else { '?' });
        self.target.push_str(key);
        self.target.push('=');
        self.target.push_str(&percent::encode(&value.to_string()));
        self
    }

    fn query_if(self, key: &str, value: Option<&impl std::fmt::Display>) -> Self {
        match value {
            Some(value) => self.query(key, value),
            None => self,
        }
    }

    fn json(mut self, body: &impl Serialize) -> Self {
        // Bodies are plain structs with string keys: writing them cannot fail.
        self.body = serde_json::to_vec(body).unwrap_or_default();
        self
    }
}

/// The part behind the question mark. Every key must be asked for, so that a misspelt one is told.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((percent::decode(key)?, percent::decode(value)?))
        });
        pairs
            .collect::<Option<Vec<_>>>()
            .map(Self)
            .ok_or_else(|| ApiError::usage("the query is not percent-encoded UTF-8"))
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == key)?;
        Some(self.0.remove(at).1)
    }

    fn take_parsed<T: std::str::FromStr>(&mut self, key: &str) -> Result<Option<T>, ApiError>
    where
        T::Err: std::fmt::Display,
    {
        let parsed = self.take(key).map(|value| value.parse::<T>()).transpose();
        parsed.map_err(|error| ApiError::usage(format!("`{key}` in the query: {error}")))
    }

    fn finish(self) -> Result<(), ApiError> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => {
                let key: String = key.chars().take(40).collect();
                Err(ApiError::usage(format!("`{key}` in the query means nothing here")))
            }
        }
    }
}

#[cfg(test)]
mod tests;
