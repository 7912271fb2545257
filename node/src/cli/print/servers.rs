//! Sessions, relays and rendezvous servers.

use super::table::Table;
use super::{called, short, utc};
use crate::api::{Direction, RelayRecordView, RelayView, RendezvousView, SessionView};

/// Relays that everybody should use: one of them may be away, or gone for ever.
const ENOUGH: usize = 2;

pub(super) fn sessions(views: &[SessionView]) -> String {
    let mut table = Table::default();
    for view in views {
        let name = called(&view.name, view.alias.as_deref(), view.is_machine_account);
        let kind = if view.relay { "relay" } else { "peer" };
        let who_dialled = match view.direction {
            Direction::In => "dialled by them",
            Direction::Out => "dialled by us",
        };
        table.row([&name, kind, who_dialled, &short(&view.id)]);
    }
    table.render()
}

pub(super) fn relays(views: &[RelayView]) -> String {
    if views.is_empty() {
        return "no relays; add one with: sremp relay add LINK".to_owned();
    }
    let mut table = Table::default();
    let mut place = 0_usize;
    for view in views {
        // The order in which others try them; those that are given up have none.
        let order = if view.retired_until.is_some() {
            "-".to_owned()
        } else {
            place = place.saturating_add(1);
            place.to_string()
        };
        let [id, state, endpoints, note] = row(view);
        table.row([&order, &id, &state, &endpoints, &note]);
    }
    let mut text = table.render();
    if place < ENOUGH {
        text.push_str(
            "\nfewer than two in use: while it is away nobody can leave a message for you, and what it \
             holds is in one place only; add another one with: sremp relay add LINK",
        );
    }
    text
}

/// One relay by itself, which says nothing about the others.
pub(super) fn relay(view: &RelayView) -> String {
    let mut table = Table::default();
    let [id, state, endpoints, note] = row(view);
    table.row([&id, &state, &endpoints, &note]);
    table.render()
}

fn row(view: &RelayView) -> [String; 4] {
    let state = if view.connected { "connected" } else { "not connected" };
    let retired = view.retired_until.map(|until| format!("given up, read until {}", utc(until)));
    let note = retired.or_else(|| view.error.clone()).unwrap_or_default();
    [short(&view.id), state.to_owned(), view.endpoints.join(", "), note]
}

pub(super) fn rendezvous(views: &[RendezvousView]) -> String {
    if views.is_empty() {
        return "no rendezvous servers; add one with: sremp rendezvous add HOST:PORT".to_owned();
    }
    let mut table = Table::default();
    for view in views {
        let until = view.expires_at.filter(|_| view.registered);
        let (state, note) = match (view.suggested, view.registered) {
            (true, _) => ("suggested", "by another server; nothing is sent to it".to_owned()),
            (false, true) => {
                ("registered", until.map(|at| format!("until {}", utc(at))).unwrap_or_default())
            }
            (false, false) => ("not registered", view.error.clone().unwrap_or_default()),
        };
        let observed = view.observed.as_deref().map(|observed| format!("sees us as {observed}"));
        table.row([&view.server, state, &note, &observed.unwrap_or_default()]);
    }
    table.render()
}

/// One row for each relay that an identity lists, below each other.
pub(super) fn relay_records(table: &mut Table, records: &[RelayRecordView]) {
    if records.is_empty() {
        table.row(["relays", "none"]);
    }
    for (number, record) in records.iter().enumerate() {
        let title = if number == 0 { "relays" } else { "" };
        table.row([title, &format!("{} {}", short(&record.id), record.endpoints.join(", "))]);
    }
}
