//! Certificates that were verified before, so that none is verified twice.
//!
//! A certificate is remembered by a hash over all of it and over the leaf key that it was found for; what
//! is remembered says what verifying it again would say. Only what holds is remembered: whatever is new,
//! changed or wrong is verified, on every node alike. It is a cache: it saves time and decides nothing.
//! The members of a tree that somebody hands us are verified ahead, beside other work, where there are
//! processors for it: what holds is remembered when it is asked for, and whatever does not is verified then.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use openmls::prelude::{Credential, CredentialType, LeafNode};
use sremp_common::hash::sha256;

use super::LeafInfo;
use super::credential::{self, Certified, CredentialError};
use super::extension::leaf_info;
use super::policy::MAX_MEMBERS;

/// Certificates of one generation: members of all groups that are in memory, and as many again. Each takes
/// about a hundred bytes.
const MAX_GENERATION: usize = 4096;

/// Who does work that consists of pieces, none of which needs another one: by default the caller alone.
/// The shell brings threads.
pub trait Workers: std::fmt::Debug + Send + Sync {
    /// Does `work` for each number below `pieces`, and `meanwhile` on the thread of the caller, each once;
    /// comes back when all is done.
    fn each(&self, pieces: usize, work: &(dyn Fn(usize) + Sync), meanwhile: &mut dyn FnMut());
}

/// One after the other.
#[derive(Debug)]
pub(super) struct Alone;

impl Workers for Alone {
    fn each(&self, pieces: usize, work: &(dyn Fn(usize) + Sync), meanwhile: &mut dyn FnMut()) {
        meanwhile();
        (0..pieces).for_each(work);
    }
}

/// A credential, and the leaf key beside which it stands.
pub(super) type Claim = (Credential, Vec<u8>);

/// What stands in memory of a certificate.
#[derive(Clone, Copy, Debug)]
struct Known {
    certified: Certified,
    /// Verified here; otherwise read from a state of ours, which was verified when it was entered.
    is_verified: bool,
}

type Generation = BTreeMap<[u8; 32], Known>;

/// The certificates that were met lately. When the young generation is full it becomes the old one, and
/// what is met again comes back from there: those in use stay, without a date on each.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    generations: RefCell<(Generation, Generation)>,
}

impl Certificates {
    /// Verifies that `credential` certifies `leaf_key`, unless exactly that was verified before.
    pub(super) fn verify(
        &self,
        credential: &Credential,
        leaf_key: &[u8],
    ) -> Result<Certified, CredentialError> {
        let bytes = basic(credential)?;
        self.known(bytes, leaf_key, true, || credential::verify(bytes, leaf_key))
    }

    /// Verifies what a tree claims of its members, so that [`Self::verify`] finds it done; and does something
    /// else `meanwhile`. Says nothing of what does not hold, and does not look at more than a group may have.
    pub(super) fn verify_ahead(
        &self,
        claims: &[Claim],
        workers: &dyn Workers,
        meanwhile: &mut dyn FnMut(),
    ) {
        let most = |claims: &&[Claim]| claims.len() <= MAX_MEMBERS;
        let claims = Some(claims).filter(most).unwrap_or_default();
        let unknown: Vec<&Claim> = claims.iter().filter(|claim| !self.knows(claim)).collect();
        let verdicts: Vec<OnceLock<_>> = unknown.iter().map(|_| OnceLock::new()).collect();
        let verify = |piece: usize| {
            if let (Some((credential, leaf_key)), Some(verdict)) =
                (unknown.get(piece), verdicts.get(piece))
            {
                let bytes = basic(credential);
                let _ = verdict.set(bytes.and_then(|bytes| credential::verify(bytes, leaf_key)));
            }
        };
        workers.each(unknown.len(), &verify, meanwhile);
        for ((credential, leaf_key), verdict) in unknown.into_iter().zip(verdicts) {
            if let (Ok(bytes), Some(Ok(certified))) = (basic(credential), verdict.into_inner()) {
                let _ = self.known(bytes, leaf_key, true, || Ok(certified));
            }
        }
    }

    fn knows(&self, (credential, leaf_key): &Claim) -> bool {
        let Ok(bytes) = basic(credential) else { return false };
        let (key, generations) = (name(bytes, leaf_key), self.generations.borrow());
        [&generations.0, &generations.1]
            .iter()
            .any(|generation| generation.get(&key).is_some_and(|known| known.is_verified))
    }

    /// Who a leaf belongs to, verified, and how they are reached.
    pub(super) fn verify_leaf(
        &self,
        leaf: &LeafNode,
    ) -> Result<(Certified, LeafInfo), CredentialError> {
        let certified = self.verify(leaf.credential(), leaf.signature_key().as_slice())?;
        Ok((certified, leaf_info(leaf)?))
    }

    /// As [`Self::verify_leaf`], for a leaf that was verified when it entered the group: only parsed.
    pub(super) fn parse_leaf(
        &self,
        leaf: &LeafNode,
    ) -> Result<(Certified, LeafInfo), CredentialError> {
        let (bytes, leaf_key) = (basic(leaf.credential())?, leaf.signature_key().as_slice());
        let parse = || credential::parse_verified(bytes, leaf_key);
        Ok((self.known(bytes, leaf_key, false, parse)?, leaf_info(leaf)?))
    }

    fn known(
        &self,
        credential: &[u8],
        leaf_key: &[u8],
        must_be_verified: bool,
        read: impl FnOnce() -> Result<Certified, CredentialError>,
    ) -> Result<Certified, CredentialError> {
        let key = name(credential, leaf_key);
        let (young, old) = &mut *self.generations.borrow_mut();
        let usable = |known: &&Known| known.is_verified || !must_be_verified;
        if let Some(known) = young.get(&key).filter(usable) {
            return Ok(known.certified);
        }
        let known = match old.get(&key).filter(usable) {
            Some(known) => *known,
            None => Known { certified: read()?, is_verified: must_be_verified },
        };
        if young.len() >= MAX_GENERATION {
            *old = std::mem::take(young);
        }
        young.insert(key, known);
        Ok(known.certified)
    }
}

/// Lengths in front: no other pair has these bytes.
fn name(credential: &[u8], leaf_key: &[u8]) -> [u8; 32] {
    let length = u64::try_from(credential.len()).unwrap_or(u64::MAX).to_le_bytes();
    sha256(&[length.as_slice(), credential, leaf_key].concat())
}

/// The bytes of our kind of credential.
fn basic(credential: &Credential) -> Result<&[u8], CredentialError> {
    if credential.credential_type() == CredentialType::Basic {
        Ok(credential.serialized_content())
    } else {
        Err(CredentialError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use openmls::prelude::BasicCredential;
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;
    use sremp_common::time::Timestamp;

    use super::*;
    use crate::groups::LeafSigner;

    const NOW: Timestamp = Timestamp::from_millis(4_000_000_000_000);

    fn signer(number: u64) -> LeafSigner {
        let mut entropy = Entropy::from_number(number);
        let secret = IdentitySecret::generate(&mut entropy);
        LeafSigner::generate(&secret, [1; 16], NOW, NOW + super::super::MAX_PAST_TIME, &mut entropy)
    }

    fn basic_credential(bytes: Vec<u8>) -> Credential {
        BasicCredential::new(bytes).into()
    }

    #[test]
    fn what_is_remembered_answers_for_nothing_else() {
        let certificates = Certificates::default();
        let (ours, theirs) = (signer(1), signer(2));
        let credential = ours.credential().credential;
        let certified = certificates.verify(&credential, &ours.leaf_key()).unwrap();
        assert_eq!(certificates.verify(&credential, &ours.leaf_key()), Ok(certified));
        let wrong = certificates.verify(&credential, &theirs.leaf_key());
        assert_eq!(wrong, Err(CredentialError::WrongKey));
        let bytes = credential.serialized_content().to_vec();
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let verified = certificates.verify(&basic_credential(bad), &ours.leaf_key());
            assert!(verified.is_err(), "bit {bit}");
        }
        assert_eq!(certificates.generations.borrow().0.len(), 1, "only what holds is kept");
    }

    #[test]
    fn what_was_only_read_is_verified_when_that_is_asked() {
        let certificates = Certificates::default();
        let identity = IdentitySecret::generate(&mut Entropy::from_number(3));
        let forged = LeafSigner::certify_wrongly(&identity, &signer(1), NOW);
        let (key, credential) = (signer(1).leaf_key(), basic_credential(forged.clone()));
        let parse = || credential::parse_verified(&forged, &key);
        certificates.known(&forged, &key, false, parse).unwrap();
        let verified = certificates.verify(&credential, &key);
        assert_eq!(verified, Err(CredentialError::Signature));
    }

    /// Does the pieces in an order of its own, some twice, and leaves one out.
    #[derive(Debug)]
    struct Odd;

    impl Workers for Odd {
        fn each(&self, pieces: usize, work: &(dyn Fn(usize) + Sync), meanwhile: &mut dyn FnMut()) {
            (1..pieces).rev().for_each(work);
            meanwhile();
            (1..pieces).for_each(work);
        }
    }

    #[test]
    fn verifying_ahead_changes_no_verdict() {
        let claim = |number: u64| {
            let signer = signer(number);
            (signer.credential().credential, signer.leaf_key().to_vec())
        };
        let mut claims: Vec<Claim> = (1..9).map(claim).collect();
        let identity = IdentitySecret::generate(&mut Entropy::from_number(3));
        let forged = LeafSigner::certify_wrongly(&identity, &signer(6), NOW);
        claims[5].0 = basic_credential(forged);
        claims[6].1 = signer(1).leaf_key().to_vec();
        let verdicts = |certificates: &Certificates| -> Vec<_> {
            claims.iter().map(|(credential, key)| certificates.verify(credential, key)).collect()
        };
        let expected = verdicts(&Certificates::default());
        assert_eq!(expected[5], Err(CredentialError::Signature));
        assert_eq!(expected[6], Err(CredentialError::WrongKey));
        let all: [&dyn Workers; 2] = [&Alone, &Odd];
        for workers in all {
            let (certificates, mut times) = (Certificates::default(), 0);
            for _ in 0..2 {
                certificates.verify_ahead(&claims, workers, &mut || times += 1);
                assert_eq!(verdicts(&certificates), expected);
            }
            assert_eq!(times, 2);
        }
    }

    #[test]
    fn nothing_is_verified_ahead_for_more_than_a_group_may_have() {
        let claims = vec![(signer(1).credential().credential, Vec::new()); MAX_MEMBERS + 1];
        let certificates = Certificates::default();
        let mut done = false;
        certificates.verify_ahead(&claims, &Refuses, &mut || done = true);
        assert!(done);
    }

    /// Has no hands for pieces.
    #[derive(Debug)]
    struct Refuses;

    impl Workers for Refuses {
        fn each(&self, pieces: usize, _work: &(dyn Fn(usize) + Sync), meanwhile: &mut dyn FnMut()) {
            assert_eq!(pieces, 0);
            meanwhile();
        }
    }

    #[test]
    fn the_oldest_are_forgotten_and_those_in_use_are_not() {
        let certificates = Certificates::default();
        let certified =
            certificates.verify(&signer(1).credential().credential, &signer(1).leaf_key()).unwrap();
        let meet = |number: usize, is_new: bool| {
            let mut was_new = false;
            let read = || {
                was_new = true;
                Ok(certified)
            };
            certificates.known(&number.to_le_bytes(), &[], true, read).unwrap();
            assert_eq!(was_new, is_new, "{number}");
        };
        for number in 0..3 * MAX_GENERATION {
            meet(number, true);
            meet(0, false);
        }
        meet(1, true);
        let generations = certificates.generations.borrow();
        assert!(generations.0.len() <= MAX_GENERATION && generations.1.len() <= MAX_GENERATION);
    }
}
