//! Joining by a Welcome.

use openmls::group::{JoinBuilder, ProcessedWelcome, StagedWelcome};
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::{
    MlsGroup, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn,
    PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, Welcome, WelcomeError as MlsWelcomeError,
};
use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::limit::MAX_BLOB;
use sremp_common::time::Now;

use super::certificates::Claim;
use super::change::sender_ratchet;
use super::convergence::record::Record;
use super::extension::policy_bytes;
use super::policy::{MAX_MEMBERS, Policy, PolicyError};
use super::states::{entered, root_id};
use super::{GroupError, GroupKind, Groups, Joined, StateId, Suite, WelcomeError};
use crate::store::{StoreError, Tx};

pub(super) fn join_config() -> MlsGroupJoinConfig {
    MlsGroupJoinConfig::builder()
        .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(true)
        .sender_ratchet_configuration(sender_ratchet())
        .build()
}

impl Groups {
    /// Joins the group of a Welcome. The caller refuses the input when the inviter is not wanted, or when
    /// this fails: then the key package is not used up.
    ///
    /// A Welcome does not replace a group that we are in, with one exception: when an admin of that group
    /// adds us anew, at no earlier epoch than we came in. That happens when the branch onto which we were
    /// invited has lost against a rival. Of two that lead into the same epoch, rivals by two admins, that
    /// of the lower identity leads onto the branch that stands, whichever comes first. (Whoever does lost work again therefore makes one commit for
    /// each lost one, so that epochs do not fall back.)
    ///
    /// # Errors
    /// [`GroupError::Welcome`], [`GroupError::Credential`], [`GroupError::Store`].
    pub fn join(&mut self, tx: &Tx, welcome: &[u8], now: Now) -> Result<Joined, GroupError> {
        let staged = self.stage(tx, parse(welcome)?)?;
        let group: [u8; 16] = staged
            .group_context()
            .group_id()
            .as_slice()
            .try_into()
            .map_err(|_| WelcomeError::Malformed)?;
        let group = GroupId::new(group);
        let (policy, inviter) = self.check_members(&staged, now)?;
        let epoch = staged.group_context().epoch().as_u64();
        let replaced = self.check_live(tx, &group, &inviter, epoch)?;

        let context = staged.group_context().tls_serialize_detached();
        let state = root_id(&group, &context.map_err(|_| WelcomeError::Malformed)?);
        if !Self::note_welcome(tx, state, now.wall)? {
            return Err(WelcomeError::Replayed.into());
        }
        let provider = self.engine.provider(tx, state);
        let mls = staged.into_group(&provider).map_err(mls_welcome)?;
        self.enter_welcomed(tx, &group, state, mls, now)?;
        let mut record = self.record(tx, &group)?.clone();
        record.joined_by = Some(inviter);
        self.save_record(tx, &group, record)?;
        let members = self.summary(tx, &group)?.members;
        Ok(Joined {
            group,
            kind: policy.kind,
            name: policy.name,
            inviter,
            members,
            epoch,
            state,
            replaced,
        })
    }

    pub(super) fn enter_welcomed(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        state: StateId,
        mls: MlsGroup,
        now: Now,
    ) -> Result<(), GroupError> {
        let loaded = self.loaded_from(mls)?;
        let first = entered(state, None, &loaded.mls, now);
        let record = match self.find_record(tx, group)?.cloned() {
            Some(mut record) => {
                record.replace(first, now.wall);
                record
            }
            None => Record::new(first),
        };
        self.save_record(tx, group, record)?;
        self.enter(tx, group, state, loaded)?;
        Ok(())
    }

    /// Opens the Welcome with one of our key packages, and lets OpenMLS check the tree. Nothing is
    /// written but the end of the key package.
    fn stage(&self, tx: &Tx, welcome: Welcome) -> Result<StagedWelcome, GroupError> {
        if Suite::of(welcome.ciphersuite()).is_none() {
            return Err(WelcomeError::Malformed.into());
        }
        let provider = self.engine.provider(tx, StateId::new(self.engine.random()));
        let processed = ProcessedWelcome::new_from_welcome(&provider, &join_config(), welcome)
            .map_err(mls_welcome)?;
        if !processed.psks().is_empty() {
            return Err(WelcomeError::Malformed.into());
        }
        // While OpenMLS verifies the tree, which does not need the certificates.
        let claims = claims(&processed);
        let mut builder = Some(JoinBuilder::new(&provider, processed).skip_lifetime_validation());
        let mut staged = None;
        self.certificates.verify_ahead(&claims, &*self.workers, &mut || {
            staged = builder.take().map(JoinBuilder::build);
        });
        staged.ok_or(WelcomeError::Malformed)?.map_err(mls_welcome)
    }

    /// Verifies every member and the rules of the group; gives the rules and who invited us.
    fn check_members(
        &self,
        staged: &StagedWelcome,
        now: Now,
    ) -> Result<(Policy, IdentityKey), GroupError> {
        let bytes =
            policy_bytes(staged.group_context().extensions()).ok_or(WelcomeError::Policy)?;
        let policy = Policy::decode(bytes).map_err(|error| {
            let is_newer = error == PolicyError::UnknownRules;
            if is_newer { error.into() } else { GroupError::from(WelcomeError::Policy) }
        })?;
        // What their leaves say besides is checked when the state is entered.
        let mut keys = Vec::new();
        for member in staged.members() {
            let verified = self.certificates.verify(&member.credential, &member.signature_key)?;
            keys.push(verified.identity_key);
        }
        let count = keys.len();
        keys.sort_unstable();
        keys.dedup();
        let too_many = match policy.kind {
            GroupKind::Direct => count > 2,
            GroupKind::Group => count > MAX_MEMBERS,
        };
        if too_many || keys.len() != count || policy.restricted_to(&keys) != policy {
            return Err(WelcomeError::Policy.into());
        }
        let own = staged.own_leaf_node().ok_or(WelcomeError::Malformed)?;
        if self.certificates.verify_leaf(own)?.0.identity_key != self.own {
            return Err(WelcomeError::NotForUs.into());
        }
        let inviter = staged.welcome_sender().map_err(|_| WelcomeError::Malformed)?;
        let (inviter, _) = self.certificates.verify_leaf(inviter)?;
        // First contact with this leaf: its certificate must be valid by our clock.
        inviter.check_time(now.wall)?;
        if inviter.identity_key == self.own || !policy.is_admin(&inviter.identity_key) {
            return Err(WelcomeError::NotAdmin.into());
        }
        Ok((policy, inviter.identity_key))
    }

    /// Whether the Welcome replaces a state of ours; refused when it may not.
    fn check_live(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        inviter: &IdentityKey,
        epoch: u64,
    ) -> Result<bool, GroupError> {
        let Some(record) = self.find_record(tx, group)? else { return Ok(false) };
        let tip = record.tip();
        let active = record.state(tip).is_some_and(|state| state.active);
        if epoch < record.joined_epoch {
            // Held back by somebody since before we came in: it would lead us out again.
            return Err(WelcomeError::Late.into());
        }
        if !active {
            return Ok(false);
        }
        if epoch == record.joined_epoch
            && let Some(joined_by) = record.joined_by
            && joined_by != *inviter
        {
            // Two admins added us to one state. The branch that goes on is taken for the deeper one.
            let goes_on = record.state(tip).is_some_and(|state| state.epoch > epoch);
            if goes_on || joined_by < *inviter {
                return Err(WelcomeError::LiveGroup(*group).into());
            }
        }
        let view = self.view(tx, group, tip)?;
        if view.member(inviter).is_none() && Self::former_leaf_key(tx, group, inviter)?.is_none() {
            return Err(WelcomeError::LiveGroup(*group).into());
        }
        if !view.policy.is_admin(inviter) {
            return Err(WelcomeError::UnknownAdmin(*group).into());
        }
        Ok(true)
    }
}

/// What the tree in a Welcome says of its members, before anything of it was verified.
fn claims(processed: &ProcessedWelcome) -> Vec<Claim> {
    let tree = processed.unverified_group_info().extensions().ratchet_tree();
    let leaves = tree.into_iter().flat_map(|tree| tree.ratchet_tree().leaves());
    leaves
        .map(|leaf| (leaf.credential().clone(), leaf.signature_key().as_slice().to_vec()))
        .collect()
}

fn parse(bytes: &[u8]) -> Result<Welcome, WelcomeError> {
    if bytes.len() > MAX_BLOB {
        return Err(WelcomeError::Malformed);
    }
    let message =
        MlsMessageIn::tls_deserialize_exact(bytes).map_err(|_| WelcomeError::Malformed)?;
    let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
        return Err(WelcomeError::Malformed);
    };
    Ok(welcome)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all other errors have one verdict")]
fn mls_welcome(error: MlsWelcomeError<StoreError>) -> GroupError {
    match error {
        MlsWelcomeError::NoMatchingKeyPackage
        | MlsWelcomeError::JoinerSecretNotFound
        | MlsWelcomeError::PrivateInitKeyNotFound
        | MlsWelcomeError::NoMatchingEncryptionKey => WelcomeError::NotForUs.into(),
        MlsWelcomeError::StorageError(error) => GroupError::Store(error),
        _ => WelcomeError::Malformed.into(),
    }
}
