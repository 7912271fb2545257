//! Settings that change while the node runs: relays and rendezvous servers.

use sremp_common::id::Token;
use sremp_common::identity::RelayRecord;
use sremp_common::limit::MAX_RELAYS;
use sremp_common::text::{
    RelayLink, decode_contact_link, decode_invite, decode_relay_link, role_of,
};
use sremp_common::time::Now;
use sremp_common::wire::Endpoint;

use super::mailboxes::{MAX_MAILBOXES, RelayRow};
use super::registry::{MAX_SERVERS, ServerRow};
use super::{Node, NodeError};
use crate::api::{ApiError, Reply, ServerOptions};
use crate::store::{Table, Tx};

impl Node {
    /// What a fresh home was given at its making.
    pub(super) fn load_settings(&mut self, _tx: &Tx, _now: Now) -> Result<(), NodeError> {
        self.listed = self.config.listed;
        Ok(())
    }

    pub(super) fn relay_add(&mut self, tx: &Tx, link: &str, now: Now) -> Result<Reply, NodeError> {
        let link = parse_relay(link)?;
        let record = link.record();
        if record.identity_key == self.own.key() {
            return Err(ApiError::usage("this is your own node").into());
        }
        let rows = Self::relay_rows(tx)?;
        let known = rows.iter().any(|row| row.record.identity_key == record.identity_key);
        let active = rows.iter().filter(|row| row.retired_at.is_none()).count();
        if !known && (active >= MAX_RELAYS || rows.len() >= MAX_MAILBOXES) {
            return Err(ApiError::refused(format!(
                "a node lists at most {MAX_RELAYS} relays; remove one first"
            ))
            .into());
        }
        let place =
            rows.iter().map(|row| row.place).max().map_or(0, |place| place.saturating_add(1));
        let row = RelayRow {
            record: record.clone(),
            place,
            retired_at: None,
            published_at: None,
            claims: (None, None),
            invite: link.invite,
        };
        tx.write(Table::Relays, record.identity_key.as_bytes(), &row)?;
        self.announce_relays(tx, now)?;
        if !self.mailboxes.contains_key(&record.identity_key) {
            self.keep_mailbox(&record, link.invite, now);
        }
        let id = record.identity_key.to_string();
        let view = self.relay_views(tx)?.into_iter().find(|view| view.id == id);
        view.map(Reply::Relay).ok_or_else(|| ApiError::failed("the relay was not kept").into())
    }

    pub(super) fn relay_remove(
        &mut self,
        tx: &Tx,
        relay: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let row = Self::find_relay(tx, relay)?;
        let key = row.record.identity_key;
        if row.retired_at.is_some() {
            // Removed a second time: not read any more from now on.
            tx.delete(Table::Relays, key.as_bytes());
            self.mailboxes.remove(&key);
            self.transport.drop_relay(&key, now);
        } else {
            let row = RelayRow { retired_at: Some(now.wall), ..row };
            tx.write(Table::Relays, key.as_bytes(), &row)?;
        }
        self.announce_relays(tx, now)?;
        Ok(Reply::Done {})
    }

    /// A relay of ours by what people call it.
    fn find_relay(tx: &Tx, relay: &str) -> Result<RelayRow, NodeError> {
        let matches = |row: &RelayRow| {
            let id = row.record.identity_key.to_string();
            let by_prefix = relay.len() >= 10 && id.starts_with(relay);
            let by_link = decode_relay_link(relay)
                .is_ok_and(|record| record.identity_key == row.record.identity_key);
            let by_address =
                row.record.endpoints.iter().any(|endpoint| endpoint.to_string() == relay);
            by_prefix || by_link || by_address
        };
        let found: Vec<RelayRow> =
            Self::relay_rows(tx)?.into_iter().filter(|row| matches(row)).collect();
        let Ok([row]) = <[RelayRow; 1]>::try_from(found) else {
            return Err(ApiError::not_found(format!(
                "no relay, or several, are called `{relay}`; see them with: sremp relay list"
            ))
            .into());
        };
        Ok(row)
    }

    /// Moves a mailbox: the new relay is announced in the place of the old one, and the old one is
    /// still read, so that nothing that it holds is lost.
    pub(super) fn relay_migrate(
        &mut self,
        tx: &Tx,
        relay: &str,
        link: &str,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let old = Self::find_relay(tx, relay)?;
        let link = parse_relay(link)?;
        let record = link.record();
        let key = record.identity_key;
        if key == self.own.key() {
            return Err(ApiError::usage("this is your own node").into());
        }
        if key == old.record.identity_key {
            return Err(ApiError::usage("this is the relay that you want to leave").into());
        }
        let rows = Self::relay_rows(tx)?;
        if rows.iter().any(|row| row.record.identity_key == key && row.retired_at.is_none()) {
            return Err(ApiError::refused(
                "you use that relay already; to leave the other one: sremp relay remove",
            )
            .into());
        }
        if rows.len() >= MAX_MAILBOXES {
            return Err(ApiError::refused(format!(
                "{MAX_MAILBOXES} relays are read already; remove a retired one for good first"
            ))
            .into());
        }
        let row = RelayRow {
            record: record.clone(),
            place: old.place,
            retired_at: None,
            published_at: None,
            claims: (None, None),
            invite: link.invite,
        };
        tx.write(Table::Relays, key.as_bytes(), &row)?;
        let retired_at = Some(old.retired_at.unwrap_or(now.wall));
        let old = RelayRow { retired_at, ..old };
        tx.write(Table::Relays, old.record.identity_key.as_bytes(), &old)?;
        self.announce_relays(tx, now)?;
        if !self.mailboxes.contains_key(&key) {
            self.keep_mailbox(&record, link.invite, now);
        }
        let id = key.to_string();
        let view = self.relay_views(tx)?.into_iter().find(|view| view.id == id);
        view.map(Reply::Relay).ok_or_else(|| ApiError::failed("the relay was not kept").into())
    }

    /// Puts the relays in use into the identity, if they are not in it already.
    pub(super) fn announce_relays(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        let relays: Vec<RelayRecord> = Self::relay_rows(tx)?
            .into_iter()
            .filter(|row| row.retired_at.is_none())
            .map(|row| row.record)
            .collect();
        if self.own.identity().data().relays() == relays {
            return Ok(());
        }
        self.change_identity(tx, now, |data| data.set_relays(relays))?;
        Ok(())
    }

    pub(super) fn rendezvous_add(
        &mut self,
        tx: &Tx,
        options: ServerOptions,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let ServerOptions { server, ca, invite } = options;
        let invite = parse_invite(invite.as_deref())?;
        let known = self.servers.iter().any(|other| other.row.endpoint == server);
        if !known && self.servers.len() >= MAX_SERVERS {
            return Err(ApiError::refused(format!(
                "a node registers with at most {MAX_SERVERS} servers; remove one first"
            ))
            .into());
        }
        let key = server.to_string();
        tx.write(Table::Rendezvous, key.as_bytes(), &ServerRow { endpoint: server, ca, invite })?;
        self.load_servers(tx)?;
        self.renew_registrations(now);
        let view = self.server_views().into_iter().filter(|view| view.server == key).collect();
        Ok(Reply::Rendezvous(view))
    }

    pub(super) fn rendezvous_remove(
        &mut self,
        tx: &Tx,
        server: &Endpoint,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let key = server.to_string();
        if tx.get(Table::Rendezvous, key.as_bytes())?.is_none() {
            return Err(ApiError::not_found(format!(
                "{server} is not one of your rendezvous servers; see them with: sremp rendezvous list"
            ))
            .into());
        }
        tx.delete(Table::Rendezvous, key.as_bytes());
        self.load_servers(tx)?;
        self.renew_registrations(now);
        Ok(Reply::Done {})
    }

    pub(super) fn rendezvous_list(&self) -> Reply {
        let mut views = self.server_views();
        views.extend(self.suggested_views());
        Reply::Rendezvous(views)
    }
}

/// Whether a text can be given to `relay add`.
///
/// # Errors
/// [`ApiError`] that says what is wrong with it.
pub fn check_relay_link(link: &str) -> Result<(), ApiError> {
    parse_relay(link).map(|_| ())
}

/// A relay link, or the contact link of a friend whose node holds mailboxes.
fn parse_relay(link: &str) -> Result<RelayLink, ApiError> {
    if role_of(link.trim()) == Some("a contact link") {
        let link = decode_contact_link(link).map_err(|error| ApiError::usage(error.to_string()))?;
        let (identity_key, endpoints) = (link.identity_key, link.addresses);
        return Ok(RelayLink { identity_key, endpoints, invite: None });
    }
    decode_relay_link(link).map_err(|error| ApiError::usage(error.to_string()))
}

/// Whether an invitation to a rendezvous server is one.
///
/// # Errors
/// [`ApiError`] that says what is wrong with it.
pub fn check_invite(invite: Option<&str>) -> Result<(), ApiError> {
    parse_invite(invite).map(|_| ())
}

fn parse_invite(invite: Option<&str>) -> Result<Option<Token>, ApiError> {
    let token = invite.map(decode_invite).transpose();
    token.map_err(|error| ApiError::usage(format!("the invitation: {error}")))
}
