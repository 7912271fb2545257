//! How answers look to a person: aligned, calm, and without anything that acts on the terminal.

use std::fmt::Write as _;

use sremp_common::time::Timestamp;

use super::plan::Show;
use super::run::parse;
use super::{qr, safe};
use crate::api::{
    ApiError, Command, ContactView, Direction, FlagsView, GroupRow, GroupView, IdentityView,
    InitReply, LinkView, MessageKind, MessageState, MessageView, PeerView, RelayView,
    RendezvousView, RequestView, SentView, StatusView,
};
use crate::config::Home;

/// The answer to a command, as text.
///
/// # Errors
/// When the answer is not the one to this command.
pub fn answer(command: &Command, answer: &[u8], how: Show) -> Result<String, ApiError> {
    Ok(match command {
        Command::Status => status(&parse(answer)?),
        Command::Link { .. } => link(&parse(answer)?, how),
        Command::ContactList => list(&parse::<Vec<ContactView>>(answer)?, contact_row, "no contacts yet; add one with: sremp contact add LINK"),
        Command::ContactAdd { .. }
        | Command::ContactShow { .. }
        | Command::ContactAlias { .. }
        | Command::ContactTrust { .. }
        | Command::ContactVerify { .. }
        | Command::ContactReject { .. }
        | Command::ContactReset { .. }
        | Command::ContactPath { .. }
        | Command::RelayAllow { .. }
        | Command::RelayDisallow { .. }
        | Command::RequestsAccept { .. } => contact(&parse(answer)?),
        Command::Peers { .. } => list(&parse::<Vec<PeerView>>(answer)?, peer_row, "nobody is listed"),
        Command::RequestsList => list(&parse::<Vec<RequestView>>(answer)?, request_row, "no requests"),
        Command::MessageShow { .. } => message(&parse(answer)?),
        Command::History { .. } => {
            let rows = parse::<Vec<MessageView>>(answer)?;
            list(&rows, |view| history_row(view, how.ids), "nothing has been said yet")
        }
        Command::GroupList => list(&parse::<Vec<GroupRow>>(answer)?, group_row, "no groups yet; start one with: sremp group create NAME"),
        Command::GroupCreate { .. }
        | Command::GroupShow { .. }
        | Command::GroupAdd { .. }
        | Command::GroupRemove { .. }
        | Command::GroupPromote { .. }
        | Command::GroupDemote { .. }
        | Command::GroupRename { .. } => group(&parse(answer)?),
        Command::RelayAdd { .. } => relay_row(&parse(answer)?),
        Command::RelayList => list(&parse::<Vec<RelayView>>(answer)?, relay_row, "no relays; add one with: sremp relay add LINK"),
        Command::RendezvousAdd { .. } | Command::RendezvousList => list(&parse::<Vec<RendezvousView>>(answer)?, rendezvous_row, "no rendezvous servers; add one with: sremp rendezvous add HOST:PORT"),
        Command::IdentityShow
        | Command::IdentityRename { .. }
        | Command::IdentityFlag { .. }
        | Command::IdentityPicture { .. }
        | Command::IdentityRotateNoiseKey => identity(&parse(answer)?),
        Command::LinkRevoke
        | Command::ContactRemove { .. }
        | Command::RequestsDecline { .. }
        | Command::MarkRead { .. }
        | Command::GroupLeave { .. }
        | Command::RelayRemove { .. }
        | Command::RendezvousRemove { .. } => "done".to_owned(),
        Command::Send { .. } => sent(&parse(answer)?, None),
        Command::Events { .. } => String::from_utf8_lossy(answer).into_owned(),
    })
}

/// What `init` says.
#[must_use]
pub fn init(reply: &InitReply, home: &Home) -> String {
    let home = home.path().display();
    format!(
        "This is your identity now, {}:\n  {}\n\nYour contact link, for others to add you:\n  {}\n\nStart the node with:\n  sremp --home {home} run",
        safe::line(&reply.name), reply.id, reply.link
    )
}

/// What `send` says.
#[must_use]
pub fn sent(view: &SentView, wanted: Option<MessageState>) -> String {
    match wanted {
        Some(wanted) if !view.state.has_reached(wanted) && view.state != MessageState::Failed => {
            format!("{} ({}, not {wanted} yet; it is still on its way)", view.message_id, view.state)
        }
        _ => format!("{} {}", view.message_id, view.state),
    }
}

fn list<T>(rows: &[T], row: impl Fn(&T) -> String, empty: &str) -> String {
    if rows.is_empty() {
        return empty.to_owned();
    }
    rows.iter().map(row).collect::<Vec<_>>().join("\n")
}

/// Name and value below each other, values aligned.
fn fields(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:width$}  {value}");
    }
    text
}

fn status(view: &StatusView) -> String {
    let mut text = fields(&[
        ("name", safe::line(&view.name)),
        ("id", view.id.clone()),
        ("version", view.version.clone()),
        ("listening", or_none(&view.listening)),
        ("advertised", or_none(&view.advertised)),
        ("outbox", format!("{} waiting", view.outbox)),
        ("requests", format!("{} waiting", view.requests)),
        ("running since", time(view.started_at)),
    ]);
    for session in &view.sessions {
        let name = session.alias.as_deref().unwrap_or(&session.name);
        let kind = if session.relay { "relay" } else { "peer" };
        let arrow = if session.direction == Direction::In { "<-" } else { "->" };
        let _ = writeln!(text, "session        {arrow} {kind} {} {}", safe::line(name), short(&session.id));
    }
    view.relays.iter().for_each(|relay| text += &format!("relay          {}\n", relay_row(relay)));
    for server in &view.rendezvous {
        text += &format!("rendezvous     {}\n", rendezvous_row(server));
    }
    text
}

fn link(view: &LinkView, how: Show) -> String {
    match how.qr.then(|| qr::draw(&view.link)).flatten() {
        Some(code) => format!("{code}\n{}", view.link),
        None => view.link.clone(),
    }
}

fn called(name: &str, alias: Option<&str>, flags: FlagsView) -> String {
    let mut text = safe::line(alias.unwrap_or(name));
    if let (Some(_), false) = (alias, name.is_empty()) {
        text += &format!(" ({})", safe::line(name));
    }
    if flags.is_machine_account {
        text += " [bot]";
    }
    text
}

fn contact_row(view: &ContactView) -> String {
    let verified = if view.verified { ", verified" } else { "" };
    let shared = if view.name_is_shared { "  ! name is used twice" } else { "" };
    format!(
        "{:<28} {:<18} {:<7} {}{shared}",
        called(&view.name, view.alias.as_deref(), view.flags),
        format!("{}{verified}", view.trust),
        view.path.to_string(),
        view.id
    )
}

fn contact(view: &ContactView) -> String {
    let verified = if view.verified { ", safety number compared" } else { "" };
    let relays: Vec<String> = view.relays.iter().map(|relay| relay.endpoints.join(" ")).collect();
    let mut rows = vec![
        ("name", called(&view.name, None, view.flags)),
        ("alias", view.alias.as_deref().map(safe::line).unwrap_or_else(|| "none".into())),
        ("id", view.id.clone()),
        ("trust", format!("{}{verified}", view.trust)),
        ("safety number", view.safety_number.clone()),
        ("path", view.path.to_string()),
        ("addresses", or_none(&view.endpoints)),
        ("relays", or_none(&relays)),
        ("version", view.version.to_string()),
        ("first seen", time(view.first_seen)),
        ("last seen", view.last_seen.map_or_else(|| "never".into(), time)),
    ];
    if view.relay_allowed {
        rows.push(("mailbox", "kept here for them".into()));
    }
    if view.name_is_shared {
        rows.push(("warning", "somebody else has the same name; compare the ids".into()));
    }
    fields(&rows)
}

fn peer_row(view: &PeerView) -> String {
    let online = if view.online { "online" } else { "offline" };
    let name = called(&view.name, view.alias.as_deref(), view.flags);
    format!("{name:<28} {online:<8} {} via {}", view.id, view.server)
}

fn request_row(view: &RequestView) -> String {
    let what = view.group.as_deref().map_or_else(
        || "wants to talk to you".to_owned(),
        |group| format!("invites you to {}", safe::line(group)),
    );
    let name = called(&view.name, None, view.flags);
    format!("{}  {name} {what}  {}", time(view.received_at), view.id)
}

fn history_row(view: &MessageView, with_ids: bool) -> String {
    let id = if with_ids { format!("{}  ", view.message_id) } else { String::new() };
    let at = time(view.sent_at);
    match view.kind {
        MessageKind::Notice => return format!("{id}{at}  * {}", safe::line(&view.text)),
        MessageKind::Unsupported => {
            return format!("{id}{at}  {}: (not supported yet)", safe::line(&view.from_name));
        }
        MessageKind::Text | MessageKind::Reaction => {}
    }
    let state = if view.direction == Direction::Out { format!("  [{}]", view.state) } else { String::new() };
    let why = view.error.as_deref().map(|why| format!(" {}", safe::line(why))).unwrap_or_default();
    let reply = if view.reply_to.is_some() { "(reply) " } else { "" };
    // Lines after the first are indented, so that no text can look like another row.
    let text = safe::block(&view.text).replace('\n', "\n    ");
    format!("{id}{at}  {}: {reply}{text}{state}{why}", safe::line(&view.from_name))
}

fn message(view: &MessageView) -> String {
    let mut text = history_row(view, true);
    for recipient in &view.recipients {
        let _ = write!(text, "\n  {:<28} {}", safe::line(&recipient.name), recipient.state);
    }
    text
}

fn group_row(view: &GroupRow) -> String {
    format!("{:<28} {:<10} {:>4} members  {:<7} {}", safe::line(&view.name), view.state.to_string(), view.members, view.role.to_string(), view.id)
}

fn group(view: &GroupView) -> String {
    let mut text = fields(&[
        ("name", safe::line(&view.name)),
        ("id", view.id.clone()),
        ("state", view.state.to_string()),
        ("epoch", view.epoch.to_string()),
        ("authenticator", view.epoch_authenticator.clone()),
        ("suite", format!("0x{:04x}", view.suite)),
    ]);
    for member in &view.members {
        let name = called(&member.name, member.alias.as_deref(), FlagsView::default());
        let me = if member.is_me { " (you)" } else { "" };
        let pending = if member.pending { ", invited" } else { "" };
        let _ = writeln!(text, "member         {:<28} {}{pending}  {}", format!("{name}{me}"), member.role, member.id);
    }
    text
}

fn relay_row(view: &RelayView) -> String {
    let state = if view.connected { "connected" } else { "not connected" };
    let retired = view.retired_until.map(|until| format!(", retired, read until {}", time(until)));
    let error = view.error.as_deref().map(|error| format!(" ({})", safe::line(error)));
    format!("{:<24} {state}{}{}  {}", view.endpoints.join(" "), retired.unwrap_or_default(), error.unwrap_or_default(), view.id)
}

fn rendezvous_row(view: &RendezvousView) -> String {
    let state = if view.suggested {
        "suggested by a server; add it if you trust it"
    } else if view.registered {
        "registered"
    } else {
        "not registered"
    };
    let error = view.error.as_deref().map(|error| format!(" ({})", safe::line(error)));
    format!("{:<24} {state}{}", view.server, error.unwrap_or_default())
}

fn identity(view: &IdentityView) -> String {
    let relays: Vec<String> = view.relays.iter().map(|relay| relay.endpoints.join(" ")).collect();
    fields(&[
        ("name", called(&view.name, None, view.flags)),
        ("id", view.id.clone()),
        ("version", view.version.to_string()),
        ("changed", time(view.created)),
        ("noise key", view.noise_key.clone()),
        ("relays", or_none(&relays)),
        ("picture", format!("{} bytes", view.picture_bytes)),
    ])
}

fn or_none(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

fn short(id: &str) -> String {
    id.chars().take(14).collect()
}

/// `2026-11-21 13:45:02`, UTC (civil-from-days of Howard Hinnant's calendar algorithms).
fn time(at: Timestamp) -> String {
    let seconds = at.as_millis() / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era
        .saturating_sub(day_of_era / 1_460)
        .saturating_add(day_of_era / 36_524)
        .saturating_sub(day_of_era / 146_096))
        / 365;
    let before = (365_u64.saturating_mul(year_of_era))
        .saturating_add(year_of_era / 4)
        .saturating_sub(year_of_era / 100);
    let day_of_year = day_of_era.saturating_sub(before);
    let month_from_march = (5_u64.saturating_mul(day_of_year).saturating_add(2)) / 153;
    let month_start = (153_u64.saturating_mul(month_from_march).saturating_add(2)) / 5;
    let day = day_of_year.saturating_sub(month_start).saturating_add(1);
    let (month, carry) = if month_from_march < 10 {
        (month_from_march.saturating_add(3), 0)
    } else {
        (month_from_march.saturating_sub(9), 1)
    };
    let year = year_of_era.saturating_add(era.saturating_mul(400)).saturating_add(carry);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_dates() {
        for (ms, shown) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_795_268_702_000, "2026-11-21 13:45:02"),
            (4_102_444_799_000, "2099-12-31 23:59:59"),
        ] {
            assert_eq!(time(Timestamp::from_millis(ms)), shown);
        }
    }
}
