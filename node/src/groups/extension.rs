//! Numbers and encodings of what we add to MLS: extensions of leaf, group and key package.

use std::time::Duration;

use openmls::prelude::{
    Capabilities, CredentialType, Extension, ExtensionType, Extensions, GroupContext, KeyPackage,
    LeafNode, RequiredCapabilitiesExtension, UnknownExtension,
};
use serde::{Deserialize, Serialize};
use sremp_common::time::Timestamp;
use sremp_common::wire::{decode, encode};

use super::credential::CredentialError;
use super::{CLOCK_MARGIN, GroupError, KeyPackageError, LeafInfo, Suite};

/// Group-context extension: kind, name and admins of the group (private use range).
pub const POLICY: u16 = 0xF0A0;
/// Leaf-node extension: how the member is reached.
pub const LEAF: u16 = 0xF0A1;
/// Key-package extension: when it may be used. MLS' own lifetimes are left open, because OpenMLS
/// judges those by the system's clock, and also where clocks must not matter.
pub const VALIDITY: u16 = 0xF0A2;

/// How long a key package may be used (12 weeks, as OpenMLS has it).
pub const KEY_PACKAGE_LIFETIME: Duration = Duration::from_secs(84 * 24 * 3600);

/// What each of our leaves supports.
pub(super) fn capabilities() -> Capabilities {
    let extensions = [POLICY, LEAF, VALIDITY].map(ExtensionType::Unknown);
    let extensions: Vec<_> = extensions.into_iter().chain([ExtensionType::LastResort]).collect();
    Capabilities::new(
        None,
        Some(&Suite::ALL.map(Suite::mls)),
        Some(&extensions),
        Some(&[]),
        Some(&[CredentialType::Basic]),
    )
}

/// The group context's extensions: what everybody must support, and the policy.
pub(super) fn group_extensions(policy: Vec<u8>) -> Result<Extensions<GroupContext>, GroupError> {
    Extensions::from_vec(vec![
        Extension::RequiredCapabilities(required_capabilities()),
        Extension::Unknown(POLICY, UnknownExtension(policy)),
    ])
    .map_err(|_| GroupError::Mls("group extensions"))
}

fn required_capabilities() -> RequiredCapabilitiesExtension {
    RequiredCapabilitiesExtension::new(
        &[ExtensionType::Unknown(POLICY), ExtensionType::Unknown(LEAF)],
        &[],
        &[CredentialType::Basic],
    )
}

/// The policy's bytes, if the group context has exactly the extensions that ours have.
pub(super) fn policy_bytes(extensions: &Extensions<GroupContext>) -> Option<&[u8]> {
    let required = extensions.required_capabilities()?;
    let ours = extensions.iter().count() == 2 && *required == required_capabilities();
    ours.then(|| extensions.unknown(POLICY).map(|policy| policy.0.as_slice())).flatten()
}

/// The leaf's extensions.
pub(super) fn leaf_extensions(leaf: &LeafInfo) -> Result<Extensions<LeafNode>, GroupError> {
    Extensions::single(Extension::Unknown(LEAF, UnknownExtension(encode(leaf))))
        .map_err(|_| GroupError::Mls("leaf extensions"))
}

/// How the leaf says that its owner is reached.
pub(super) fn leaf_info(leaf: &LeafNode) -> Result<LeafInfo, CredentialError> {
    let bytes = leaf.extensions().unknown(LEAF).ok_or(CredentialError::LeafInfo)?;
    decode(&bytes.0).map_err(|_| CredentialError::LeafInfo)
}

/// When a key package may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Validity {
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Validity {
    /// From an hour ago, because clocks differ, for the full lifetime.
    pub(super) fn starting(now: Timestamp) -> Self {
        Self { not_before: now.minus(CLOCK_MARGIN), not_after: now + KEY_PACKAGE_LIFETIME }
    }

    pub(super) fn extensions(self) -> Result<Extensions<KeyPackage>, GroupError> {
        Extensions::single(Extension::Unknown(VALIDITY, UnknownExtension(encode(&self))))
            .map_err(|_| GroupError::Mls("key package extensions"))
    }

    /// What the key package says, if its range is allowed.
    pub(super) fn of(key_package: &KeyPackage) -> Result<Self, KeyPackageError> {
        let bytes = key_package.extensions().unknown(VALIDITY).ok_or(KeyPackageError::Lifetime)?;
        let validity: Self = decode(&bytes.0).map_err(|_| KeyPackageError::Lifetime)?;
        let range = validity.not_after.since(validity.not_before);
        if validity.not_after <= validity.not_before || range > KEY_PACKAGE_LIFETIME + CLOCK_MARGIN
        {
            return Err(KeyPackageError::Lifetime);
        }
        Ok(validity)
    }

    pub(super) fn check_time(self, now: Timestamp) -> Result<(), KeyPackageError> {
        if now < self.not_before {
            return Err(KeyPackageError::NotYetValid);
        }
        if now > self.not_after {
            return Err(KeyPackageError::Expired);
        }
        Ok(())
    }
}
