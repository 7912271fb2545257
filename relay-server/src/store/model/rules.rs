//! Invitations and bans of the model.

use sremp_common::id::TokenHash;
use sremp_common::time::Timestamp;

use super::Model;
use crate::store::StoreError;
use crate::store::rules::{Invite, MAX_BAN, Rules};

impl Rules for Model {
    fn add_invite(&mut self, token: &TokenHash, invite: Invite) -> Result<bool, StoreError> {
        self.invites.insert(*token, invite);
        Ok(true)
    }

    fn invites(&mut self) -> Result<Vec<(TokenHash, Invite)>, StoreError> {
        Ok(self.invites.iter().map(|(token, invite)| (*token, *invite)).collect())
    }

    fn remove_invite(&mut self, token: &TokenHash) -> Result<bool, StoreError> {
        Ok(self.invites.remove(token).is_some())
    }

    fn spend_invite(&mut self, token: &TokenHash, now: Timestamp) -> Result<bool, StoreError> {
        let Some(invite) = self.invites.get_mut(token) else { return Ok(false) };
        if invite.expires_at <= now {
            return Ok(false);
        }
        invite.uses -= 1;
        if invite.uses == 0 {
            self.invites.remove(token);
        }
        Ok(true)
    }

    fn expire_invites(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.invites.retain(|_, invite| invite.expires_at > now);
        Ok(())
    }

    fn ban(&mut self, whom: &str) -> Result<bool, StoreError> {
        if whom.len() > MAX_BAN {
            return Ok(false);
        }
        self.bans.insert(whom.to_owned());
        Ok(true)
    }

    fn unban(&mut self, whom: &str) -> Result<bool, StoreError> {
        Ok(self.bans.remove(whom))
    }

    fn bans(&mut self) -> Result<Vec<String>, StoreError> {
        Ok(self.bans.iter().cloned().collect())
    }
}
