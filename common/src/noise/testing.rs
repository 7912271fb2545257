//! People for tests: whole identities from a number.

use std::sync::Arc;

use super::Local;
use crate::entropy::Entropy;
use crate::identity::{Flags, IdentityData, VerifiedIdentity};
use crate::key::{IdentitySecret, NoiseSecret};
use crate::name::Username;
use crate::time::Timestamp;

/// Everything that one person has, so that a test can mix what two people have.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) identity: VerifiedIdentity,
    pub(crate) identity_secret: IdentitySecret,
    pub(crate) noise_secret: NoiseSecret,
}

/// Always the same person for a number.
pub(crate) fn person(number: u64) -> Person {
    let mut entropy = Entropy::from_number(number);
    let identity_secret = IdentitySecret::generate(&mut entropy);
    let noise_secret = NoiseSecret::generate(&mut entropy);
    let identity = sign(&identity_secret, &noise_secret, |_| {});
    Person { identity, identity_secret, noise_secret }
}

/// An identity with any claims, signed.
pub(crate) fn sign(
    identity_secret: &IdentitySecret,
    noise_secret: &NoiseSecret,
    change: impl FnOnce(&mut IdentityData),
) -> VerifiedIdentity {
    let mut data = IdentityData {
        username: Username::new("Somebody").unwrap(),
        identity_key: identity_secret.public(),
        noise_key: noise_secret.public(),
        flags: Flags::default(),
        extensions: None,
        version: 1,
        created: Timestamp::from_millis(1_700_000_000_000),
    };
    change(&mut data);
    data.sign(identity_secret).unwrap()
}

impl Person {
    pub(crate) fn local(&self) -> Arc<Local> {
        Arc::new(Local {
            identity: self.identity.clone(),
            identity_secret: self.identity_secret.clone(),
            noise_secret: self.noise_secret.clone(),
        })
    }
}
