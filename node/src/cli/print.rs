//! How answers look to a person: aligned, calm, and harmless.
//!
//! Everything that came from the node goes through `table::Table`, which shows control
//! characters instead of obeying them. What is written here in words is ours.

mod people;
mod servers;
mod table;
mod talk;
mod time;

#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use sremp_common::time::Timestamp;

use super::plan::Show;
use super::qr;
use crate::api::{
    ApiError, Command, FlagsView, IdentityView, InitReply, LinkKind, LinkView, MessageState,
    SentView, StatusView,
};
use table::Table;
use time::utc;

/// The answer to a command, as text without a final line feed.
///
/// # Errors
/// `failed` when the answer is not of the kind that the command has.
pub fn answer(command: &Command, answer: &str, show: Show) -> Result<String, ApiError> {
    use Command as C;
    Ok(match command {
        C::Status => status(&parse(answer)?),
        C::Link { .. } => link(&parse(answer)?, show),
        C::ContactAdd { .. }
        | C::ContactShow { .. }
        | C::ContactAlias { .. }
        | C::ContactTrust { .. }
        | C::ContactVerify { .. }
        | C::ContactReject { .. }
        | C::ContactReset { .. }
        | C::ContactPath { .. }
        | C::RequestsAccept { .. }
        | C::RelayAllow { .. }
        | C::RelayDisallow { .. } => people::contact(&parse(answer)?),
        C::ContactList => people::contacts(&parse::<Vec<_>>(answer)?),
        C::Peers { .. } => people::peers(&parse::<Vec<_>>(answer)?),
        C::RequestsList => people::requests(&parse::<Vec<_>>(answer)?),
        C::Send { .. }
        | C::React { .. }
        | C::Edit { .. }
        | C::Delete { .. }
        | C::TimerSet { .. } => sent(&parse(answer)?),
        C::TypingShow { .. } => talk::typing(&parse::<Vec<_>>(answer)?),
        C::TypingTell { .. } => "told".to_owned(),
        C::TimerShow { .. } => talk::timer(&parse(answer)?),
        C::MessageShow { .. } => talk::message(&parse(answer)?),
        C::History { .. } => talk::history(&parse::<Vec<_>>(answer)?, show.ids),
        C::GroupList => talk::groups(&parse::<Vec<_>>(answer)?),
        C::GroupCreate { .. }
        | C::GroupShow { .. }
        | C::GroupAdd { .. }
        | C::GroupRemove { .. }
        | C::GroupPromote { .. }
        | C::GroupDemote { .. }
        | C::GroupRename { .. } => talk::group(&parse(answer)?),
        C::RelayAdd { .. } | C::RelayMigrate { .. } => servers::relay(&parse(answer)?),
        C::RelayList => servers::relays(&parse::<Vec<_>>(answer)?),
        C::RendezvousAdd(_) | C::RendezvousList => servers::rendezvous(&parse::<Vec<_>>(answer)?),
        C::IdentityShow
        | C::IdentityRename { .. }
        | C::IdentityFlag { .. }
        | C::IdentityPicture { .. }
        | C::IdentityRotateNoiseKey => identity(&parse(answer)?),
        // No action of the command line asks for a page of events: `watch` streams them.
        C::Events { .. } => answer.to_owned(),
        C::LinkRevoke => "every link given out so far is worthless now".to_owned(),
        C::IdentityRotateTokens => {
            "whatever opened your mailboxes is worthless now; your contacts and groups are given \
             anew what they need, links you have to give out again"
                .to_owned()
        }
        C::ContactRemove { .. } => people::removed(parse(answer)?),
        C::RelayRemove { .. } | C::RendezvousRemove { .. } => "removed".to_owned(),
        C::RequestsDecline { .. } => "declined".to_owned(),
        C::MarkRead { .. } => "marked as read".to_owned(),
        C::GroupLeave { .. } => "left".to_owned(),
    })
}

/// What `init` made.
#[must_use]
pub fn init(reply: &InitReply, run: &str) -> String {
    let mut table = Table::default();
    table.row(["name", &reply.name]);
    table.row(["id", &reply.id]);
    table.row(["link", &reply.link]);
    table.row(["", ""]);
    table.row(["next", run]);
    table.render()
}

/// What became of a message.
#[must_use]
pub fn sent(view: &SentView) -> String {
    let mut table = Table::default();
    table.row([view.state.word(), &view.message_id]);
    table.render()
}

fn status(view: &StatusView) -> String {
    let mut table = Table::default();
    table.row(["name", &view.name]);
    table.row(["id", &view.id]);
    table.row(["version", &view.version]);
    table.row(["running since", &utc(view.started_at)]);
    table.row(["listening", &listed(&view.listening)]);
    table.row(["advertised", &listed(&view.advertised)]);
    table.row(["outbox", &counted(view.outbox, "message", "")]);
    table.row(["requests", &counted(view.requests, "request", "; see: sremp requests list")]);
    if view.refused_changes > 0 {
        let text = format!("{} by others than the author, in vain", view.refused_changes);
        table.row(["edits refused", &text]);
    }
    for work in &view.work {
        let per_cent = work.tried.saturating_mul(100).checked_div(work.expected).unwrap_or(0);
        let text = format!(
            "for {}: {} bits, {per_cent} % of what it takes on average",
            work.name, work.difficulty
        );
        table.row(["proof of work", &text]);
    }
    let sessions = match view.sessions.as_slice() {
        [] => "no sessions".to_owned(),
        sessions => format!("sessions\n{}", indented(&servers::sessions(sessions))),
    };
    let relays = format!("relays\n{}", indented(&servers::relays(&view.relays)));
    let rendezvous = format!("rendezvous\n{}", indented(&servers::rendezvous(&view.rendezvous)));
    [table.render(), sessions, relays, rendezvous].join("\n\n")
}

fn link(view: &LinkView, show: Show) -> String {
    let mut table = Table::default();
    table.row([&view.link]);
    let link = table.render();
    if !show.qr {
        return link;
    }
    let note = match view.kind {
        LinkKind::Standing => "",
        LinkKind::Once => "\nfor a single use",
    };
    match qr::draw(&view.link) {
        Some(code) => format!("{code}\n{link}{note}"),
        None => format!("{link}{note}\n(too long for a QR code)"),
    }
}

fn identity(view: &IdentityView) -> String {
    let mut table = Table::default();
    table.row(["name", &view.name]);
    table.row(["id", &view.id]);
    table.row(["flags", &flags(view.flags)]);
    table.row(["version", &format!("{} of {}", view.version, utc(view.created))]);
    table.row(["noise key", &view.noise_key]);
    let picture = match view.picture_bytes {
        0 => "none".to_owned(),
        bytes => format!("{bytes} bytes"),
    };
    table.row(["picture", &picture]);
    servers::relay_records(&mut table, &view.relays);
    table.render()
}

/// Reads what the node answered.
///
/// # Errors
/// `failed`, which only two different versions can cause.
pub(super) fn parse<T: DeserializeOwned>(answer: &str) -> Result<T, ApiError> {
    serde_json::from_str(answer).map_err(|error| {
        ApiError::failed(format!(
            "the node answers in another way than this command expects ({error}); run both in the same version"
        ))
    })
}

/// `alias (name) [bot]`: whatever is known of somebody, in the form in which it is always shown.
fn called(name: &str, alias: Option<&str>, is_machine_account: bool) -> String {
    let mut text = match alias {
        Some(alias) if name.is_empty() || name == alias => alias.to_owned(),
        Some(alias) => format!("{alias} ({name})"),
        None => name.to_owned(),
    };
    if is_machine_account {
        text.push_str(" [bot]");
    }
    text
}

fn flags(flags: FlagsView) -> String {
    let FlagsView { uses_relay, is_machine_account, is_relay_server, prefers_async } = flags;
    let set: Vec<&str> = [
        (uses_relay, "uses_relay"),
        (is_machine_account, "is_machine_account"),
        (is_relay_server, "is_relay_server"),
        (prefers_async, "prefers_async"),
    ]
    .into_iter()
    .filter_map(|(is_set, name)| is_set.then_some(name))
    .collect();
    if set.is_empty() { "none".to_owned() } else { set.join(", ") }
}

/// Enough of an id to tell two apart in a list.
fn short(id: &str) -> String {
    id.chars().take(14).collect()
}

fn listed(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

fn counted(number: u64, what: &str, hint: &str) -> String {
    match number {
        0 => "nothing waiting".to_owned(),
        1 => format!("1 {what} waiting{hint}"),
        _ => format!("{number} {what}s waiting{hint}"),
    }
}

fn maybe(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "never".to_owned(), utc)
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// What a person is told when a wait ended before its goal.
#[must_use]
pub fn waited_in_vain(
    view: &SentView,
    why: Option<&str>,
    wanted: MessageState,
    timeout: u32,
) -> String {
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    format!(
        "after {timeout} s the message is {}, not {wanted}{why}; it is still on its way: sremp message {}",
        view.state, view.message_id
    )
}
