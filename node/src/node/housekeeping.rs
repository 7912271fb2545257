//! What time alone brings: expiry, rotation, retirement; and telling the transport whom we know.

use std::collections::BTreeSet;
use std::time::Duration;

use sremp_common::id::{IdentityKey, Token};
use sremp_common::identity::VerifiedIdentity;
use sremp_common::time::Now;

use super::mailboxes::RETIRED_FOR;
use super::{Node, NodeError};
use crate::api::{ConnectionKind, PathPolicy, Trust};
use crate::conversations::{Changes, Conversation, Requests, Standing};
use crate::delivery::Inbox;
use crate::identity::{Contacts, Tokens};
use crate::store::{Table, Tx};

/// How often the house is kept.
const INTERVAL: Duration = Duration::from_secs(600);
/// Pause between two passes over one table.
const NEXT_PASS: Duration = Duration::from_secs(5);

impl Node {
    pub(super) fn keep_house(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        self.housekeeping_at = now.instant + INTERVAL;
        self.verdict_cursor = Inbox::expire(tx, &self.verdict_cursor, now)?;
        if !self.verdict_cursor.is_empty() {
            self.housekeeping_at = now.instant + NEXT_PASS;
        }
        self.groups.expire(tx, now)?;
        // Our clock may have been set meanwhile.
        self.retry_deferred = true;
        self.admission_changed |= Tokens::expire(tx, now)?;
        self.read_left_behind(now);
        Requests::expire(tx, now)?;
        Changes::expire(tx, now)?;
        self.wake_for_vanishing(tx, now)?;
        self.forget_fellows(tx)?;
        let today = now.wall.day();
        if self.leaves_seen_on != Some(today) {
            self.leaves_seen_on = Some(today);
            let in_use = self.carried_tokens(tx)?;
            self.admission_changed |= Tokens::expire_replaced(tx, &in_use, now)?;
            self.hand_out_anew(tx, now)?;
        }
        let before = self.own.clone();
        if self.own.rotate_seal_if_due(tx, &mut self.entropy, now)? {
            let told = self.identity_changed(tx, now);
            if told.is_err() {
                self.own = before;
            }
            told?;
        }
        for row in Self::relay_rows(tx)? {
            let Some(retired_at) = row.retired_at else { continue };
            if now.wall.since(retired_at) > RETIRED_FOR {
                let key = row.record.identity_key;
                tx.delete(Table::Relays, key.as_bytes());
                self.mailboxes.remove(&key);
                self.transport.drop_relay(&key, now);
            }
        }
        Ok(())
    }

    /// The tokens in our leaves of all groups.
    fn carried_tokens(&mut self, tx: &Tx) -> Result<BTreeSet<Token>, NodeError> {
        let own = self.own.key();
        let mut tokens = BTreeSet::new();
        for group in self.groups.groups(tx)? {
            let summary = self.groups.summary(tx, &group)?;
            tokens.extend(summary.member(&own).map(|member| member.leaf.token));
        }
        Ok(tokens)
    }

    pub(super) fn tell_transport_of_people(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        let mut known = BTreeSet::new();
        let mut rejected = BTreeSet::new();
        let mut fellows = BTreeSet::new();
        let mut relay_only = BTreeSet::new();
        for contact in Contacts::all(tx)? {
            if contact.trust == Trust::Rejected {
                rejected.insert(contact.key);
            } else {
                known.insert(contact.key);
            }
            // A friend's node that keeps a mailbox for us, or for whom we keep one, is a relay, too.
            let keeps = contact.relay_allowed || self.mailboxes.contains_key(&contact.key);
            if contact.path.unwrap_or(self.config.path) == PathPolicy::Relay && !keeps {
                relay_only.insert(contact.key);
            }
        }
        let mut known_groups = std::mem::take(&mut self.fellows_of);
        for conversation in Conversation::all(tx)? {
            if matches!(conversation.standing, Standing::Left | Standing::Removed) {
                continue;
            }
            for group in conversation.groups {
                // Whatever changes a group's members drops it here: the others need not be loaded.
                let members = match known_groups.remove(&group) {
                    Some(members) => members,
                    None => self.groups.summary(tx, &group)?.members,
                };
                fellows.extend(members.iter().map(|member| member.identity_key));
                self.fellows_of.insert(group, members);
            }
        }
        known.extend(self.mailboxes.keys().copied());
        known.extend(fellows.difference(&rejected).copied());
        self.fellows = fellows.difference(&rejected).copied().collect();
        self.transport.set_known(known);
        self.transport.set_rejected(rejected, now);
        self.transport.set_relay_only(relay_only, now);
        Ok(())
    }

    pub(super) fn session_up(
        &mut self,
        tx: &Tx,
        peer: &VerifiedIdentity,
        relay: bool,
        now: Now,
    ) -> Result<(), NodeError> {
        let key = peer.key();
        if relay && self.mailboxes.contains_key(&key) {
            self.open_mailbox(key, now);
        }
        self.learn_identity(tx, peer, now)?;
        self.compare_later(key, now);
        if let Some(mut contact) = Contacts::find(tx, &key)? {
            contact.last_seen = Some(now.wall);
            Contacts::save(tx, &contact)?;
            self.tell_connection(tx, &key, ConnectionKind::Peer, true, now)?;
        }
        self.in_sight(tx, key, now)
    }

    /// Somebody is reachable now: what waits for them goes at once.
    fn in_sight(&mut self, tx: &Tx, key: IdentityKey, now: Now) -> Result<(), NodeError> {
        if let Some(lane) = self.lanes.get_mut(&key) {
            lane.in_sight();
            self.awake.insert(key);
        }
        if self.fetches.contains_key(&key) {
            self.start_fetch(tx, key, now)?;
        }
        Ok(())
    }

    pub(super) fn session_down(
        &mut self,
        tx: &Tx,
        peer: &IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        if let Some(mailbox) = self.mailboxes.get_mut(peer) {
            let was_open = std::mem::take(&mut mailbox.open);
            mailbox.told = false;
            if was_open {
                mailbox.error = Some("the connection was lost; it is dialled again".to_owned());
                self.tell_connection(tx, peer, ConnectionKind::Relay, false, now)?;
            }
        }
        if Contacts::find(tx, peer)?.is_some() {
            self.tell_connection(tx, peer, ConnectionKind::Peer, false, now)?;
        }
        self.awake.insert(*peer);
        Ok(())
    }
}
