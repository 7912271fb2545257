//! Contacts, listed identities, and strangers that ask.

use super::table::Table;
use super::{called, flags, listed, maybe, servers, short, utc};
use crate::api::{ContactView, DoubtKind, DoubtView, PeerView, RemovedView, RequestView, Trust};

pub(super) fn contacts(views: &[ContactView]) -> String {
    if views.is_empty() {
        return "no contacts yet; add one with: sremp contact add LINK".to_owned();
    }
    let mut table = Table::default();
    for view in views {
        let name = called(&view.name, view.alias.as_deref(), view.flags.is_machine_account);
        let warning = if view.name_is_shared {
            "same name as another contact"
        } else if view.looks_like.is_some() {
            "looks like another contact"
        } else {
            ""
        };
        table.row([&name, trust(view), view.path.word(), &short(&view.id), warning]);
    }
    table.render()
}

pub(super) fn contact(view: &ContactView) -> String {
    let mut table = Table::default();
    let name = called(&view.name, None, view.flags.is_machine_account);
    table.row(["name", if view.name.is_empty() { "not known yet" } else { &name }]);
    table.row(["alias", view.alias.as_deref().unwrap_or("none")]);
    table.row(["id", &view.id]);
    table.row(["trust", trust(view)]);
    table.row(["safety number", &view.safety_number]);
    table.row(["flags", &flags(view.flags)]);
    let version = match view.created {
        None => "not seen yet".to_owned(),
        Some(created) => format!("{} of {}", view.version, utc(created)),
    };
    table.row(["version", &version]);
    table.row(["first seen", &utc(view.first_seen)]);
    table.row(["last seen", &maybe(view.last_seen)]);
    let policy = view.path_policy.map_or("as the node", |policy| policy.word());
    table.row(["path", &format!("{} (policy: {policy})", view.path)]);
    table.row(["addresses", &listed(&view.endpoints)]);
    servers::relay_records(&mut table, &view.relays);
    if view.relay_allowed {
        table.row(["mailbox", "this node holds one for them"]);
    }
    if view.name_is_shared {
        table.row(["warning", "another contact has the same name: tell them apart by their ids"]);
    } else if let Some(other) = &view.looks_like {
        let warning = format!(
            "this name looks like another contact's, who is {other}: make sure who this is"
        );
        table.row(["warning", &warning]);
    }
    if let (Some(hidden), Some(alias)) = (&view.alias_hides, &view.alias) {
        let warning = format!(
            "another contact calls itself {alias}: that word means this one now; the other is {hidden}"
        );
        table.row(["warning", &warning]);
    }
    if let Some(doubt) = &view.doubt {
        table.row(["warning", &doubtful(doubt)]);
    }
    table.render()
}

pub(super) fn peers(views: &[PeerView]) -> String {
    if views.is_empty() {
        return "nobody is listed by the rendezvous servers".to_owned();
    }
    let mut table = Table::default();
    for view in views {
        let name = called(&view.name, view.alias.as_deref(), view.flags.is_machine_account);
        let seen = if view.online { "online".to_owned() } else { maybe(view.last_seen) };
        let alike = alike(view.looks_like.as_deref());
        table.row([&name, &seen, &view.id, &format!("at {}", view.server), &alike]);
    }
    table.render()
}

pub(super) fn requests(views: &[RequestView]) -> String {
    if views.is_empty() {
        return "no requests".to_owned();
    }
    let mut table = Table::default();
    for view in views {
        let name = called(&view.name, None, view.flags.is_machine_account);
        let what = match &view.group {
            None => "wants to talk to you".to_owned(),
            Some(group) => format!("invites you to the group {group}"),
        };
        let alike = alike(view.looks_like.as_deref());
        table.row([&utc(view.received_at), &name, &what, &view.id, &alike]);
    }
    table.render()
}

/// The warning about somebody whose name is, or looks like, that of a contact who is somebody else.
fn alike(contact: Option<&str>) -> String {
    contact.map_or_else(String::new, |id| format!("not your contact {}", short(id)))
}

/// What a person should know, and can do, about an identity that was refused.
fn doubtful(doubt: &DoubtView) -> String {
    let DoubtView { version, at, .. } = doubt;
    let at = utc(*at);
    match doubt.kind {
        DoubtKind::OldIdentity => format!(
            "an older identity of theirs (version {version}) was shown as the present one at {at}, and refused: a server is behind, or their node was restored from an old copy"
        ),
        DoubtKind::SecondIdentity => format!(
            "a second identity of theirs with version {version} was shown at {at}, and refused: their key may be in two hands; ask them, then judge anew: sremp contact verify, trust or reject"
        ),
    }
}

/// What came of a removal.
pub(super) fn removed(view: RemovedView) -> String {
    if view.rejection_lifted {
        "removed; they were rejected, and are not any more: they may ask you anew (to keep somebody out, leave them rejected)".to_owned()
    } else {
        "removed".to_owned()
    }
}

fn trust(view: &ContactView) -> &'static str {
    match (view.trust, view.verified) {
        (Trust::Rejected, _) => "rejected",
        (_, true) => "verified",
        (trust, false) => trust.word(),
    }
}
