//! Commands that change our own identity, and everybody who has to hear of it.

use sremp_common::identity::{Extensions, IdentityData, IdentityError};
use sremp_common::limit::MAX_PICTURE;
use sremp_common::name::Username;
use sremp_common::time::Now;
use sremp_common::wire::Bin;

use super::{Node, NodeError};
use crate::api::{ApiError, Flag, Reply};
use crate::conversations::{Conversation, Standing};
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
        self.change_identity(tx, now, |data| {
            let extensions = data.extensions.get_or_insert_with(Extensions::default);
            extensions.profile_picture = (!picture.is_empty()).then_some(picture);
            Ok(())
        })
    }

    pub(super) fn rotate_noise_key(&mut self, tx: &Tx, now: Now) -> Result<Reply, NodeError> {
        self.own.rotate_noise(tx, &mut self.entropy, now)?;
        self.identity_changed(tx, now)?;
        Ok(self.identity_view())
    }

    pub(super) fn change_identity(
        &mut self,
        tx: &Tx,
        now: Now,
        change: impl FnOnce(&mut IdentityData) -> Result<(), IdentityError>,
    ) -> Result<Reply, NodeError> {
        self.own.change(tx, now, change)?;
        self.identity_changed(tx, now)?;
        Ok(self.identity_view())
    }

    /// Connections from now on show the new version; contacts, relays and servers are told.
    pub(super) fn identity_changed(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        self.transport.set_local(self.own.local());
        self.register_everywhere(now);
        self.republish_identity(now);
        for mut conversation in Conversation::all(tx)? {
            if conversation.standing != Standing::Active {
                continue;
            }
            for group in conversation.groups.clone() {
                self.send_profile(tx, &group, now)?;
            }
            // How fellow members reach us stands in the leaf: it is renewed with the next message.
            conversation.update_due = true;
            conversation.save(tx)?;
        }
        Ok(())
    }
}
