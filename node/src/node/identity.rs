//! Commands that change our own identity, and everybody who has to hear of it.

use sremp_common::id::GroupId;
use sremp_common::identity::{Extensions, IdentityData, IdentityError};
use sremp_common::limit::MAX_PICTURE;
use sremp_common::name::Username;
use sremp_common::time::Now;
use sremp_common::wire::Bin;

use super::{Node, NodeError};
use crate::api::{ApiError, Flag, Reply};
use crate::conversations::{Conversation, Standing};
use crate::groups::Change;
use crate::identity::Tokens;
use crate::store::Tx;

impl Node {
    pub(super) fn identity_rename(
        &mut self,
        tx: &Tx,
        name: Username,
        now: Now,
    ) -> Result<Reply, NodeError> {
        self.change_identity(tx, now, |data| {
            data.username = name;
            Ok(())
        })
    }

    pub(super) fn identity_flag(
        &mut self,
        tx: &Tx,
        flag: Flag,
        on: bool,
        now: Now,
    ) -> Result<Reply, NodeError> {
        self.change_identity(tx, now, |data| {
            match flag {
                Flag::IsMachineAccount => data.flags.is_machine_account = on,
                Flag::PrefersAsync => data.flags.prefers_async = on,
            }
            Ok(())
        })
    }

    pub(super) fn identity_picture(
        &mut self,
        tx: &Tx,
        bytes: Vec<u8>,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let picture = Bin::<MAX_PICTURE>::new(bytes).map_err(|_| {
            ApiError::usage(format!("a picture has at most {MAX_PICTURE} bytes; make it smaller"))
        })?;
        if !picture.is_empty() && !is_image(&picture) {
            return Err(ApiError::usage("a picture is a PNG, JPEG, GIF or WebP file").into());
        }
        self.change_identity(tx, now, |data| {
            let extensions = data.extensions.get_or_insert_with(Extensions::default);
            extensions.profile_picture = (!picture.is_empty()).then_some(picture);
            Ok(())
        })
    }

    pub(super) fn rotate_noise_key(&mut self, tx: &Tx, now: Now) -> Result<Reply, NodeError> {
        let before = self.own.clone();
        self.own.rotate_noise(tx, &mut self.entropy, now)?;
        let told = self.identity_changed(tx, now);
        if told.is_err() {
            self.own = before;
        }
        told?;
        Ok(self.identity_view())
    }

    /// Every token that we gave away is worthless from now on. Whoever is in a group with us gets
    /// the new one with our leaf; whatever they send before they have it waits at their side.
    pub(super) fn rotate_tokens(&mut self, tx: &Tx, now: Now) -> Result<Reply, NodeError> {
        Tokens::revoke_all(tx, now)?;
        Tokens::fill_spares(tx, &mut self.entropy, now)?;
        self.hand_out_anew(tx, now)?;
        self.replace_stocks(tx, now)?;
        self.admission_changed = true;
        self.admission_at = now.instant;
        Ok(Reply::Done {})
    }

    /// Renews our leaves whose tokens open nothing any more: after a rotation, also where a rival's
    /// commit took the new leaf back. Those of the rejected stay as they are.
    pub(super) fn hand_out_anew(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        for conversation in Conversation::all(tx)? {
            for group in conversation.groups.clone() {
                if self.is_cut_off(tx, &conversation, &group)? {
                    let leaf = self.leaf_info(tx, now)?;
                    self.change_group(tx, &group, Change::Update(leaf), now)?;
                }
            }
        }
        Ok(())
    }

    /// Whether the token in our leaf opens nothing, although its members are to reach us.
    pub(super) fn is_cut_off(
        &mut self,
        tx: &Tx,
        conversation: &Conversation,
        group: &GroupId,
    ) -> Result<bool, NodeError> {
        if conversation.standing != Standing::Active || Self::is_with_rejected(tx, conversation)? {
            return Ok(false);
        }
        let summary = self.groups.summary(tx, group)?;
        let Some(member) = summary.member(&self.own.key()) else { return Ok(false) };
        Ok(summary.members.len() > 1 && !Tokens::is_known(tx, &member.leaf.token)?)
    }

    pub(super) fn change_identity(
        &mut self,
        tx: &Tx,
        now: Now,
        change: impl FnOnce(&mut IdentityData) -> Result<(), IdentityError>,
    ) -> Result<Reply, NodeError> {
        let before = self.own.clone();
        self.own.change(tx, now, change)?;
        let told = self.identity_changed(tx, now);
        if told.is_err() {
            // What is refused is refused in memory, too.
            self.own = before;
        }
        told?;
        Ok(self.identity_view())
    }

    /// Connections from now on show the new version; contacts, relays and servers are told.
    pub(super) fn identity_changed(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        self.transport.set_local(self.own.local());
        self.register_everywhere(now);
        self.republish_identity(now);
        for mut conversation in Conversation::all(tx)? {
            if conversation.standing != Standing::Active
                || Self::is_with_rejected(tx, &conversation)?
            {
                continue;
            }
            // How fellow members reach us stands in the leaf: it is renewed with the next message.
            conversation.update_due = true;
            self.profile_changed(tx, &mut conversation)?;
        }
        Ok(())
    }
}

/// Judged by the first bytes; the image itself is never decoded here.
fn is_image(bytes: &[u8]) -> bool {
    let riff = bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
    riff || [b"\x89PNG".as_slice(), b"\xFF\xD8\xFF", b"GIF8"]
        .iter()
        .any(|start| bytes.starts_with(start))
}
