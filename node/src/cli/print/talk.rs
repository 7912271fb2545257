//! Messages and groups.

use super::table::Table;
use super::{called, utc};
use crate::api::{
    Direction, GroupRow, GroupView, MessageKind, MessageState, MessageView, PersonView,
    ReactionView, TimerView,
};

pub(super) fn history(views: &[MessageView], with_ids: bool) -> String {
    if views.is_empty() {
        return "no messages".to_owned();
    }
    let mut table = Table::default();
    views.iter().for_each(|view| row(&mut table, view, with_ids));
    table.render()
}

pub(super) fn message(view: &MessageView) -> String {
    let mut table = Table::default();
    row(&mut table, view, true);
    let message = table.render();
    let mut table = Table::default();
    for recipient in &view.recipients {
        let name = called(&recipient.name, None, recipient.is_machine_account);
        let error = recipient.error.as_deref().unwrap_or_default();
        table.row([&name, recipient.state.word(), error]);
    }
    match view.recipients.as_slice() {
        [] => message,
        _ => format!("{message}\n\n{}", table.render()),
    }
}

/// Time, author, state of own messages, text.
fn row(table: &mut Table, view: &MessageView, with_id: bool) {
    let id = if with_id { view.message_id.as_str() } else { "" };
    let mut text = match view.kind {
        MessageKind::Text | MessageKind::Notice => view.text.clone(),
        MessageKind::Timer => timer_text(view.lifetime),
        MessageKind::Deleted => "(deleted)".to_owned(),
        MessageKind::Reaction if view.text.is_empty() => "takes the reaction back".to_owned(),
        MessageKind::Reaction => format!("reacts with {}", view.text),
        MessageKind::Edit => format!("edits: {}", view.text),
        MessageKind::Delete => "deletes".to_owned(),
        MessageKind::Unsupported => "(a kind of message that is not supported yet)".to_owned(),
    };
    if let Some(answered) = &view.reply_to {
        let beginning: String = answered.chars().take(8).collect();
        text = format!("(to {beginning}) {text}");
    }
    if view.edited_at.is_some() {
        text.push_str(" (edited)");
    }
    if !view.reactions.is_empty() {
        text.push_str("\n+ ");
        text.push_str(&reactions(&view.reactions));
    }
    if let Some(error) = &view.error {
        text.push_str("\n! ");
        text.push_str(error);
    }
    let author = match view.kind {
        MessageKind::Notice => "*".to_owned(),
        MessageKind::Text
        | MessageKind::Timer
        | MessageKind::Deleted
        | MessageKind::Reaction
        | MessageKind::Edit
        | MessageKind::Delete
        | MessageKind::Unsupported => called(&view.from_name, None, view.from_is_machine_account),
    };
    let is_shown = view.direction == Direction::Out || view.state == MessageState::Failed;
    let state = if is_shown && view.kind != MessageKind::Notice { view.state.word() } else { "" };
    table.row_with_text([id, &utc(view.sent_at), &author, state], &text);
}

/// `thumbs up 2, heart (ann, bob)`: who reacts, or how many.
fn reactions(views: &[ReactionView]) -> String {
    let one = |view: &ReactionView| {
        let names: Vec<&str> = view.from.iter().map(|person| person.name.as_str()).collect();
        match (names.as_slice(), view.count) {
            ([], 1) => view.reaction.clone(),
            ([], count) => format!("{} {count}", view.reaction),
            (names, _) => format!("{} ({})", view.reaction, names.join(", ")),
        }
    };
    views.iter().map(one).collect::<Vec<_>>().join(", ")
}

pub(super) fn typing(people: &[PersonView]) -> String {
    if people.is_empty() {
        return "nobody writes".to_owned();
    }
    let mut table = Table::default();
    people.iter().for_each(|person| table.row([person.name.as_str(), &person.id]));
    table.render()
}

pub(super) fn timer(view: &TimerView) -> String {
    timer_text(view.seconds)
}

/// What a timer means, in the largest unit that fits.
fn timer_text(seconds: Option<u32>) -> String {
    let Some(seconds) = seconds else { return "messages stay".to_owned() };
    let units =
        [(7 * 86_400, "week"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    let fits = |(unit, _): &&(u32, &str)| seconds.is_multiple_of(*unit);
    let (unit, word) = units.iter().find(fits).copied().unwrap_or((1, "second"));
    let number = seconds / unit;
    let plural = if number == 1 { "" } else { "s" };
    format!("messages vanish after {number} {word}{plural}")
}

pub(super) fn groups(views: &[GroupRow]) -> String {
    if views.is_empty() {
        return "no groups yet; start one with: sremp group create NAME WHO".to_owned();
    }
    let mut table = Table::default();
    for view in views {
        let members = match view.members {
            1 => "1 member".to_owned(),
            number => format!("{number} members"),
        };
        table.row([&view.name, view.state.word(), &members, view.role.word(), &view.id]);
    }
    table.render()
}

pub(super) fn group(view: &GroupView) -> String {
    let mut table = Table::default();
    table.row(["name", &view.name]);
    table.row(["id", &view.id]);
    table.row(["state", view.state.word()]);
    table.row(["epoch", &view.epoch.to_string()]);
    table.row(["authenticator", &view.epoch_authenticator]);
    let suite = match view.suite {
        0x0001 => "x25519",
        0x004f => "mlkem768x25519",
        _ => "",
    };
    table.row(["suite", format!("0x{:04x} {suite}", view.suite).trim_end()]);
    if let Some(healing) = &view.healing {
        table.row(["healing", &format!("{}: {}", healing.step.word(), healing.why)]);
    }
    let mut members = Table::default();
    for member in &view.members {
        let mut name = called(&member.name, member.alias.as_deref(), member.is_machine_account);
        if member.is_me {
            name.push_str(" (you)");
        }
        let seen = match (member.pending, member.last_seen) {
            (true, _) => "invited".to_owned(),
            (false, Some(at)) => format!("seen {}", utc(at)),
            (false, None) => String::new(),
        };
        let keys = member.keys_since.map(|at| format!("keys of {}", utc(at)));
        members.row([&name, member.role.word(), &member.id, &seen, &keys.unwrap_or_default()]);
    }
    format!("{}\n\nmembers\n{}", table.render(), super::indented(&members.render()))
}
