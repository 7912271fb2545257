//! Invitations and bans. Used seldom, so their tables are opened when they are needed.

use redb::{ReadableTable as _, ReadableTableMetadata as _, TableDefinition};
use sremp_common::id::TokenHash;
use sremp_common::invite::MAX_INVITES;
use sremp_common::time::Timestamp;

use super::RedbMailboxes;
use super::backup::Copy;
use super::rows::{INVITE_ROW, InviteRow};
use crate::store::StoreError;
use crate::store::rules::{Invite, MAX_BAN, MAX_BANS, Rules};

const INVITES: TableDefinition<'_, &[u8; 32], &[u8; INVITE_ROW]> =
    TableDefinition::new("relay.invites");
const BANS: TableDefinition<'_, &str, ()> = TableDefinition::new("relay.bans");

impl Rules for RedbMailboxes<'_> {
    fn add_invite(&mut self, token: &TokenHash, invite: Invite) -> Result<bool, StoreError> {
        let mut table = self.transaction.open_table(INVITES)?;
        if table.len()? >= bound(MAX_INVITES) {
            return Ok(false);
        }
        table.insert(token.as_bytes(), &InviteRow(invite).encode())?;
        Ok(true)
    }

    fn invites(&mut self) -> Result<Vec<(TokenHash, Invite)>, StoreError> {
        let table = self.transaction.open_table(INVITES)?;
        let mut invites = Vec::new();
        for row in table.iter()?.take(MAX_INVITES) {
            let (key, row) = row?;
            invites.push((TokenHash::new(*key.value()), InviteRow::decode(row.value())?));
        }
        Ok(invites)
    }

    fn remove_invite(&mut self, token: &TokenHash) -> Result<bool, StoreError> {
        let mut table = self.transaction.open_table(INVITES)?;
        let known = table.remove(token.as_bytes())?.is_some();
        Ok(known)
    }

    fn spend_invite(&mut self, token: &TokenHash, now: Timestamp) -> Result<bool, StoreError> {
        let mut table = self.transaction.open_table(INVITES)?;
        let known = match table.get(token.as_bytes())? {
            Some(row) => InviteRow::decode(row.value())?,
            None => return Ok(false),
        };
        let Some(left) = known.spent(now) else { return Ok(false) };
        if left.uses == 0 {
            table.remove(token.as_bytes())?;
        } else {
            table.insert(token.as_bytes(), &InviteRow(left).encode())?;
        }
        Ok(true)
    }

    fn expire_invites(&mut self, now: Timestamp) -> Result<(), StoreError> {
        let over: Vec<TokenHash> = self
            .invites()?
            .into_iter()
            .filter(|(_, invite)| invite.expires_at <= now)
            .map(|(token, _)| token)
            .collect();
        for token in over {
            self.remove_invite(&token)?;
        }
        Ok(())
    }

    fn ban(&mut self, whom: &str) -> Result<bool, StoreError> {
        let mut table = self.transaction.open_table(BANS)?;
        if whom.len() > MAX_BAN || table.len()? >= bound(MAX_BANS) {
            return Ok(false);
        }
        table.insert(whom, ())?;
        Ok(true)
    }

    fn unban(&mut self, whom: &str) -> Result<bool, StoreError> {
        let mut table = self.transaction.open_table(BANS)?;
        let known = table.remove(whom)?.is_some();
        Ok(known)
    }

    fn bans(&mut self) -> Result<Vec<String>, StoreError> {
        let table = self.transaction.open_table(BANS)?;
        let mut bans = Vec::new();
        for row in table.iter()?.take(MAX_BANS) {
            bans.push(row?.0.value().to_owned());
        }
        Ok(bans)
    }
}

pub(super) fn copy(copy: &mut Copy<'_>) -> Result<(), StoreError> {
    copy.table(INVITES)?;
    copy.table(BANS)
}

fn bound(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
