//! Sessions, relays and rendezvous servers.

use super::table::Table;
use super::{called, short, utc};
use crate::api::{Direction, RelayRecordView, RelayView, RendezvousView, SessionView};

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
    for view in views {
        let state = if view.connected { "connected" } else { "not connected" };
        let retired =
            view.retired_until.map(|until| format!("given up, read until {}", utc(until)));
        let note = retired.or_else(|| view.error.clone()).unwrap_or_default();
        table.row([&short(&view.id), state, &view.endpoints.join(", "), &note]);
    }
    table.render()
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
