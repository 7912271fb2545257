//! What an operator orders while the relay runs: carried out inside a transaction like everything
//! else, and answered once that is durable.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sremp_common::id::{IdentityKey, TokenHash};
use sremp_common::io::control::{Answer, Refused};
use sremp_common::io::invitations;
use sremp_common::text::{decode_identity_key, encode_identity_key};
use sremp_common::time::Now;

use crate::engine::Engine;
use crate::store::{Invite, Mailbox, Mailboxes, StoreError};

/// Messages that one step of the removal of a mailbox deletes.
const REMOVE_STEP: usize = 1000;

/// An order.
#[derive(Clone, Copy, Debug)]
pub(in crate::io) enum Order {
    /// What does a mailbox hold?
    ShowMailbox(IdentityKey),
    /// Remove a mailbox with everything in it.
    DropMailbox(IdentityKey),
    /// Do nothing for somebody any more.
    Ban(IdentityKey),
    /// Take that back.
    Unban(IdentityKey),
    /// Who is banned?
    Banned,
    /// Keep an invitation.
    Invite(TokenHash, Invite),
    /// Which invitations are there?
    Invites,
    /// Take an invitation back.
    Revoke(TokenHash),
    /// Delete what has expired.
    Expire,
}

/// Those for whom nothing is done.
#[derive(Debug, Default)]
pub(super) struct Banned {
    /// By the configuration.
    configured: BTreeSet<IdentityKey>,
    /// By order.
    added: BTreeSet<IdentityKey>,
}

impl Banned {
    /// Reads those that were banned by order.
    pub(super) fn load(&mut self, boxes: &mut dyn Mailboxes) -> Result<(), StoreError> {
        for text in boxes.bans()? {
            let key = decode_identity_key(&text).map_err(|_| StoreError::Corrupt("a ban"))?;
            self.added.insert(key);
        }
        Ok(())
    }

    pub(super) fn configure(&mut self, configured: BTreeSet<IdentityKey>) {
        self.configured = configured;
    }

    pub(super) fn all(&self) -> BTreeSet<IdentityKey> {
        self.configured.union(&self.added).copied().collect()
    }
}

/// What came of an order.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) answer: Answer,
    /// Something was written: the answer must wait for the commit.
    pub(super) is_written: bool,
    /// Whose sessions must end.
    pub(super) ends: Option<IdentityKey>,
}

impl Carried {
    fn read(value: Value) -> Self {
        Self::read_as(Ok(value))
    }

    fn read_as(answer: Answer) -> Self {
        Self { answer, is_written: false, ends: None }
    }

    fn written(value: Value) -> Self {
        Self { answer: Ok(value), is_written: true, ends: None }
    }

    fn refused(code: &str, message: impl Into<String>) -> Self {
        Self::read_as(Err(Refused::new(code, message)))
    }
}

/// Carries out an order.
pub(super) fn carry_out(
    order: Order,
    engine: &mut Engine,
    boxes: &mut dyn Mailboxes,
    banned: &mut Banned,
    now: Now,
) -> Result<Carried, StoreError> {
    Ok(match order {
        Order::ShowMailbox(owner) => match boxes.mailbox(&owner)? {
            Some(mailbox) => Carried::read(shown(&owner, &mailbox, banned)),
            None => no_mailbox(),
        },
        Order::DropMailbox(owner) => match boxes.mailbox(&owner)? {
            Some(mailbox) => {
                while !boxes.remove_mailbox(&owner, REMOVE_STEP)? {}
                let value = json!({"dropped": true, "messages": mailbox.messages});
                Carried { ends: Some(owner), ..Carried::written(value) }
            }
            None => no_mailbox(),
        },
        Order::Ban(owner) => ban(owner, engine, boxes, banned)?,
        Order::Unban(owner) => unban(owner, engine, boxes, banned)?,
        Order::Banned => Carried::read(list_of(banned)),
        Order::Invite(token, invite) => {
            boxes.expire_invites(now.wall)?;
            if boxes.add_invite(&token, invite)? {
                Carried::written(invitations::shown(&token, &invite))
            } else {
                Carried::read_as(Err(invitations::too_many()))
            }
        }
        Order::Invites => Carried::read(invitations::list(&boxes.invites()?, now.wall)),
        Order::Revoke(token) => {
            if boxes.remove_invite(&token)? {
                Carried::written(invitations::revoked())
            } else {
                Carried::read_as(Err(invitations::none_such()))
            }
        }
        Order::Expire => {
            let messages = engine.expire_all(boxes, now)?;
            Carried::written(json!({ "messages": messages }))
        }
    })
}

fn no_mailbox() -> Carried {
    Carried::refused("not_found", "nobody with this id has a mailbox here")
}

fn ban(
    owner: IdentityKey,
    engine: &mut Engine,
    boxes: &mut dyn Mailboxes,
    banned: &mut Banned,
) -> Result<Carried, StoreError> {
    if !boxes.ban(&encode_identity_key(&owner))? {
        return Ok(Carried::refused("refused", "there are too many bans"));
    }
    banned.added.insert(owner);
    engine.set_banned(banned.all());
    Ok(Carried { ends: Some(owner), ..Carried::written(list_of(banned)) })
}

fn unban(
    owner: IdentityKey,
    engine: &mut Engine,
    boxes: &mut dyn Mailboxes,
    banned: &mut Banned,
) -> Result<Carried, StoreError> {
    if !boxes.unban(&encode_identity_key(&owner))? {
        let text = if banned.configured.contains(&owner) {
            "this id is banned by the configuration: access.banned"
        } else {
            "this id is not banned"
        };
        return Ok(Carried::refused("refused", text));
    }
    banned.added.remove(&owner);
    engine.set_banned(banned.all());
    Ok(Carried::written(list_of(banned)))
}

fn list_of(banned: &Banned) -> Value {
    let texts = |keys: &BTreeSet<IdentityKey>| -> Vec<String> {
        keys.iter().map(encode_identity_key).collect()
    };
    json!({"configured": texts(&banned.configured), "added": texts(&banned.added)})
}

fn shown(owner: &IdentityKey, mailbox: &Mailbox, banned: &Banned) -> Value {
    json!({
        "id": encode_identity_key(owner),
        "banned": banned.all().contains(owner),
        "messages": mailbox.messages,
        "bytes": mailbox.bytes,
        "stranger_messages": mailbox.stranger_messages,
        "stranger_bytes": mailbox.stranger_bytes,
        "key_packages": mailbox.key_packages,
        "max_blob": mailbox.max_blob,
        "retention": mailbox.retention,
        "last_stored_at_ms": mailbox.last_stored_at.as_millis(),
    })
}
