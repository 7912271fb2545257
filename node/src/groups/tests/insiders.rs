//! Members who lie: to some of the group and not to others, about their place in the ratchet, in the path
//! of a commit. What they make is made by OpenMLS from what a member really has.

use openmls::prelude::tls_codec::SecretVLBytes;
use openmls::prelude::{Ciphersuite, CryptoError, MlsGroup, MlsMessageOut, OpenMlsCrypto};
use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider as _;
use openmls_traits::types::{
    AeadType, ExporterSecret, HashType, HpkeCiphertext, HpkeConfig, HpkeKeyPair, KemOutput,
    SignatureScheme,
};

use super::attacks::{forge, forge_from};
use super::rejoin::{offer, rejoin};
use super::*;
use crate::groups::message::KIND_MLS;

/// Nobody compares histories: that one member was told one thing and another one another is noticed by
/// people only, and `docs/threats.md` says so. What holds is that each message is one message.
#[test]
fn m14_two_texts_in_one_place_are_never_one_message_to_anybody() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let say = |a: &mut Node, text: &str| {
        forge(a, &group, |mls, provider, signer| {
            mls.create_message(provider, signer, text.as_bytes()).unwrap()
        })
    };
    // The same key of the same sender, for two texts: one for each of the others.
    let (to_b, to_c) = (say(a, "at eight"), say(a, "at nine"));
    assert_eq!((b.read(&to_b), c.read(&to_c)), ("at eight".to_owned(), "at nine".to_owned()));
    // Whatever is passed on afterwards, in whatever order, what was read stands alone.
    for node in [&mut *b, &mut *c] {
        for other in [&to_b, &to_c, &say(a, "at ten")] {
            assert!(matches!(node.open(other), Err(OpenError::Duplicate(_))));
        }
        node.restart();
        assert!(matches!(node.open(&to_b), Err(OpenError::Duplicate(_))));
    }
    // One that the honest program sends is the same to everybody.
    a.send(&group, "takes the place that was used already");
    let blob = a.send(&group, "to everybody");
    assert_eq!(b.read(&blob), c.read(&blob));
}

#[test]
fn m14_nobody_makes_another_text_of_a_message() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let [a, b, c] = &mut nodes[..] else { unreachable!() };
    let blob = a.send(&group, "the same to everybody");
    // A relay has the wrapped bytes.
    for place in 0..blob.len() {
        let mut forged = blob.clone();
        forged[place] ^= 1;
        assert!(b.open(&forged).is_err(), "byte {place}");
    }
    // A member can take off the wrap and put it on anew.
    let tx = c.store.begin().unwrap();
    let parsed = wrap::Blob::parse(&blob).unwrap();
    let entry = c.groups.index(&tx).unwrap().find(&parsed).unwrap();
    let (_, message) = entry.keys.unwrap(&parsed).unwrap();
    drop(tx);
    for place in 0..message.len() {
        let mut forged = message.clone();
        forged[place] ^= 1;
        let forged = entry.keys.wrap([5; 24], KIND_MLS, &forged).unwrap();
        assert!(b.open(&forged).is_err(), "byte {place}");
    }
    // A member has all keys of the author's ratchet, and not the author's signature.
    let signer = c.signer.clone();
    let forged = forge(a, &group, |mls, provider, _| {
        mls.create_message(provider, &signer, b"never said").unwrap()
    });
    let refused = b.open(&forged);
    assert!(
        matches!(
            refused,
            Err(OpenError::Invalid { why: "the sender's signature does not hold", .. })
        ),
        "{refused:?}"
    );
    assert_eq!(b.read(&blob), "the same to everybody");
}

/// The numbers of all ratchets in what a member keeps of a state are set to the highest that OpenMLS
/// sends.
fn jump_ahead(rows: &mut Vec<u8>) {
    const FIELD: &[u8] = b"\xaageneration";
    let mut at = 0;
    while let Some(found) = rows[at..].windows(FIELD.len()).position(|window| window == FIELD) {
        at += found + FIELD.len();
        if rows[at] < 0x80 {
            rows.splice(at..=at, [0xce, 0xff, 0xff, 0xff, 0xfe]);
        }
    }
}

#[test]
fn m16_a_message_from_the_end_of_the_ratchet_costs_nothing() {
    let mut nodes = nodes(2);
    let group = team(&mut nodes);
    let [a, b] = &mut nodes[..] else { unreachable!() };
    let first = a.send(&group, "first");
    let early = a.send(&group, "early");
    b.read(&first);
    let far = forge_from(a, &group, jump_ahead, |mls, provider, signer| {
        mls.create_message(provider, signer, b"from 2^32 - 2").unwrap()
    });
    // Refused before a single key of the gap is made: else this would not end.
    let rows = b.rows();
    for _ in 0..3 {
        assert!(matches!(b.open(&far), Err(OpenError::Gap(_))));
    }
    assert_eq!(b.rows(), rows);
    assert_eq!(b.read(&early), "early");
}

/// Primitives that encrypt to one key what its owner cannot decrypt.
struct Spoiling<'a> {
    inner: &'a RustCrypto,
    victim: Vec<u8>,
}

/// What is done as by everybody.
macro_rules! as_usual {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)* $(,)?) -> $result:ty;)*) => {$(
        fn $name(&self $(, $argument: $type)*) -> $result {
            self.inner.$name($($argument),*)
        }
    )*};
}

impl OpenMlsCrypto for Spoiling<'_> {
    fn hpke_seal(
        &self,
        config: HpkeConfig,
        key: &[u8],
        info: &[u8],
        aad: &[u8],
        plaintext: &[u8],
    ) -> Result<HpkeCiphertext, CryptoError> {
        let mut sealed = self.inner.hpke_seal(config, key, info, aad, plaintext)?;
        if key == self.victim {
            let mut bytes = sealed.ciphertext.as_slice().to_vec();
            bytes[0] ^= 1;
            sealed.ciphertext = bytes.into();
        }
        Ok(sealed)
    }

    as_usual! {
        fn supports(&self, suite: Ciphersuite) -> Result<(), CryptoError>;
        fn supported_ciphersuites(&self) -> Vec<Ciphersuite>;
        fn hkdf_extract(&self, hash: HashType, salt: &[u8], ikm: &[u8])
            -> Result<SecretVLBytes, CryptoError>;
        fn hmac(&self, hash: HashType, key: &[u8], message: &[u8])
            -> Result<SecretVLBytes, CryptoError>;
        fn hkdf_expand(&self, hash: HashType, prk: &[u8], info: &[u8], length: usize)
            -> Result<SecretVLBytes, CryptoError>;
        fn hash(&self, hash: HashType, data: &[u8]) -> Result<Vec<u8>, CryptoError>;
        fn aead_encrypt(&self, kind: AeadType, key: &[u8], data: &[u8], nonce: &[u8], aad: &[u8])
            -> Result<Vec<u8>, CryptoError>;
        fn aead_decrypt(&self, kind: AeadType, key: &[u8], data: &[u8], nonce: &[u8], aad: &[u8])
            -> Result<Vec<u8>, CryptoError>;
        fn signature_key_gen(&self, scheme: SignatureScheme)
            -> Result<(Vec<u8>, Vec<u8>), CryptoError>;
        fn verify_signature(&self, scheme: SignatureScheme, data: &[u8], key: &[u8], by: &[u8])
            -> Result<(), CryptoError>;
        fn sign(&self, scheme: SignatureScheme, data: &[u8], key: &[u8])
            -> Result<Vec<u8>, CryptoError>;
        fn hpke_open(&self, config: HpkeConfig, input: &HpkeCiphertext, key: &[u8], info: &[u8],
            aad: &[u8]) -> Result<Vec<u8>, CryptoError>;
        fn hpke_setup_sender_and_export(&self, config: HpkeConfig, key: &[u8], info: &[u8],
            context: &[u8], length: usize) -> Result<(KemOutput, ExporterSecret), CryptoError>;
        fn hpke_setup_receiver_and_export(&self, config: HpkeConfig, enc: &[u8], key: &[u8],
            info: &[u8], context: &[u8], length: usize) -> Result<ExporterSecret, CryptoError>;
        fn derive_hpke_keypair(&self, config: HpkeConfig, ikm: &[u8])
            -> Result<HpkeKeyPair, CryptoError>;
    }
}

/// A renewal of the committer's keys, whose path is of no use to the member at `victim`.
fn spoilt_commit(
    mls: &mut MlsGroup,
    provider: &provider::Provider<'_>,
    signer: &LeafSigner,
    victim: usize,
) -> MlsMessageOut {
    let victim = mls.members().nth(victim).unwrap().encryption_key;
    let crypto = Spoiling { inner: provider.crypto(), victim };
    mls.commit_builder()
        .force_self_update(true)
        .load_psks(provider.storage())
        .unwrap()
        .build(provider.rand(), &crypto, signer, |_| true)
        .unwrap()
        .stage_commit(provider)
        .unwrap()
        .into_commit()
}

#[test]
fn m15_a_path_that_is_wrong_for_one_member_does_not_keep_it_out() {
    let mut nodes = nodes(3);
    let group = team(&mut nodes);
    let commit = forge(&mut nodes[0], &group, |mls, provider, signer| {
        spoilt_commit(mls, provider, signer, 2)
    });
    // To the others nothing is wrong with it: they go on without the victim.
    let insider = nodes[0].key;
    assert_eq!(nodes[1].events(&commit), [GroupEvent::Updated(insider)]);
    let before = (nodes[2].authenticator(&group), nodes[2].rows());
    for _ in 0..2 {
        let refused = nodes[2].open(&commit);
        assert!(matches!(refused, Err(OpenError::Invalid { .. })), "{refused:?}");
        nodes[2].restart();
    }
    let after = (nodes[2].authenticator(&group), nodes[2].rows());
    assert!(after == before, "nothing of it stays");
    let blob = nodes[1].send(&group, "without you");
    assert!(matches!(nodes[2].open(&blob), Err(OpenError::UnknownState)));
    // It hears where the others are, sees that it misses something, and comes back by itself, with the
    // help of whoever is honest.
    let marks = nodes[1].run(|groups, tx, _| groups.marks(tx, &group)).unwrap();
    let standing = nodes[2].run(|groups, tx, _| groups.compare(tx, &group, &marks)).unwrap();
    assert_eq!(standing, Standing::WeMiss);
    let way = offer(&mut nodes[1], &group);
    let changed = rejoin(&mut nodes[2], &group, &way).unwrap();
    let back = nodes[2].key;
    assert_eq!(nodes[1].events(&changed.commit)[0], GroupEvent::Rejoined(back));
    assert_agree(&mut nodes[1..], &group);
    let blob = nodes[1].send(&group, "with you again");
    assert_eq!(nodes[2].read(&blob), "with you again");
}
