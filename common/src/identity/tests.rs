//! What an identity may say, that nobody else can say it, and how versions follow each other.

use super::*;
use crate::noise::testing::{person, sign};

fn now(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

#[test]
fn an_identity_is_verified_as_it_came() {
    let person = person(1);
    let bytes = encode(person.identity.identity());
    let received: Identity = decode(&bytes).unwrap();
    let verified = received.verify().unwrap();
    assert_eq!(verified, person.identity);
    assert_eq!(encode(verified.identity()), bytes);
    assert_eq!(received.digest(), sha256(&bytes));
}

#[test]
fn every_single_bit_counts() {
    let bytes = encode(person(1).identity.identity());
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let verified = decode::<Identity>(&flipped).map(|identity| identity.verify());
        assert!(!matches!(verified, Ok(Ok(_))), "bit {bit}");
    }
}

#[test]
fn nobody_signs_for_another() {
    let (alice, mallory) = (person(1), person(66));
    let mut data = alice.identity.data().clone();
    data.noise_key = mallory.noise_secret.public();
    assert!(matches!(data.sign(&mallory.identity_secret), Err(IdentityError::Signature(_))));
    // A valid signature of another identity does not help.
    let mixed = Identity {
        verified: alice.identity.identity().verified.clone(),
        signature: mallory.identity.identity().signature,
    };
    assert!(matches!(mixed.verify(), Err(IdentityError::Signature(_))));
}

#[test]
fn c02_versions_follow_each_other() {
    let person = person(1);
    let first = person.identity;
    let rename = |name: &'static str| {
        move |data: &mut IdentityData| {
            data.username = Username::new(name).unwrap();
            Ok(())
        }
    };
    let second = first.succeed(&person.identity_secret, now(5), rename("Second")).unwrap();
    let rival = first.succeed(&person.identity_secret, now(6), rename("Rival")).unwrap();
    let third = second.succeed(&person.identity_secret, now(7), |_| Ok(())).unwrap();
    assert_eq!((second.version(), third.version()), (2, 3));
    assert_eq!((second.data().created, &*third.data().username), (now(5), "Second"));

    assert_eq!(first.compare(&second), Succession::Newer);
    assert_eq!(first.compare(&third), Succession::Newer);
    assert_eq!(second.compare(&first), Succession::Rollback);
    assert_eq!(second.compare(&second.clone()), Succession::Same);
    assert_eq!(second.compare(&rival), Succession::Equivocation);
    assert_eq!(rival.compare(&second), Succession::Equivocation);
    assert_eq!(third.compare(&rival), Succession::Rollback);
}

#[test]
fn a_change_that_breaks_a_bound_changes_nothing() {
    let person = person(1);
    let relays = vec![relay(1); MAX_RELAYS + 1];
    let refused =
        person.identity.succeed(&person.identity_secret, now(1), |data| data.set_relays(relays));
    assert!(matches!(refused, Err(IdentityError::Metadata)));
    // Somebody else's secret does not continue an identity.
    let stolen =
        person
            .identity
            .succeed(&crate::noise::testing::person(2).identity_secret, now(1), |_| Ok(()));
    assert!(matches!(stolen, Err(IdentityError::Signature(_))));
}

#[test]
fn relays_and_seal_key_live_in_the_metadata() {
    let person = person(1);
    let seal_key = crate::key::SealSecret::generate(&mut crate::entropy::Entropy::from_number(1));
    let with = person
        .identity
        .succeed(&person.identity_secret, now(1), |data| {
            data.set_relays(vec![relay(1), relay(2)])?;
            data.set_seal_key(seal_key.public())
        })
        .unwrap();
    assert_eq!(with.data().relays(), [relay(1), relay(2)]);
    assert_eq!(with.data().seal_key(), Some(seal_key.public()));
    assert!(with.data().flags.uses_relay);
    let without =
        with.succeed(&person.identity_secret, now(2), |data| data.set_relays(Vec::new())).unwrap();
    assert!(without.data().relays().is_empty() && !without.data().flags.uses_relay);
    assert_eq!(without.data().seal_key(), Some(seal_key.public()));
}

#[test]
fn metadata_is_bounded_and_its_known_keys_are_checked() {
    let person = person(1);
    let with = |entries: Vec<(String, Vec<u8>)>| {
        let mut data = person.identity.data().clone();
        let entries = entries.into_iter().map(|(key, value)| (key, Bin::new(value).unwrap()));
        let additional_metadata = Some(entries.collect());
        data.extensions = Some(Extensions { profile_picture: None, additional_metadata });
        data.sign(&person.identity_secret)
    };
    let many = |count: usize| (0..count).map(|n| (format!("key{n:02}"), vec![1])).collect();
    assert!(with(many(MAX_METADATA_ENTRIES)).is_ok());
    assert!(matches!(with(many(MAX_METADATA_ENTRIES + 1)), Err(IdentityError::Metadata)));
    assert!(matches!(with(vec![(String::new(), vec![])]), Err(IdentityError::Metadata)));
    let long = "k".repeat(MAX_METADATA_KEY + 1);
    assert!(matches!(with(vec![(long, vec![])]), Err(IdentityError::Metadata)));
    // Unknown keys are kept, known ones must make sense.
    let unknown = with(vec![("later".to_owned(), vec![0xff; 9])]).unwrap();
    assert_eq!(unknown.data().metadata().unwrap().len(), 1);
    for (key, value) in [
        (METADATA_RELAYS, vec![]),
        (METADATA_RELAYS, vec![0x91, 0xc0]),
        (METADATA_SEAL_KEY, vec![9; 31]),
        (METADATA_SEAL_KEY, vec![0; 32]),
    ] {
        assert!(with(vec![(key.to_owned(), value)]).is_err());
    }
}

#[test]
fn weak_keys_and_version_zero_are_refused() {
    let person = person(1);
    let mut data = person.identity.data().clone();
    data.version = 0;
    assert!(matches!(data.sign(&person.identity_secret), Err(IdentityError::Version)));
    // A signed identity whose Noise key is of small order: its type does not decode.
    let body = encode(person.identity.data());
    let noise_key = *person.identity.data().noise_key.as_bytes();
    let place = body.windows(32).position(|window| window == noise_key).unwrap();
    let mut weak = body;
    weak[place..place + 32].fill(0);
    let signature = person.identity_secret.sign(SignatureLabel::Identity, &[], &weak);
    let identity = Identity { verified: Bin::new(weak).unwrap(), signature };
    assert!(matches!(identity.verify(), Err(IdentityError::Malformed(_))));
}

#[test]
fn a_picture_fits_and_an_identity_has_a_bound() {
    let person = person(1);
    let with_picture = sign(&person.identity_secret, &person.noise_secret, |data| {
        data.extensions = Some(Extensions {
            profile_picture: Some(Bin::new(vec![0xff; MAX_PICTURE]).unwrap()),
            additional_metadata: None,
        });
    });
    let bytes = encode(with_picture.identity());
    assert!(decode::<Identity>(&bytes).unwrap().verify().is_ok());
    let too_long = [&[0x92, 0xc5, 0x80, 0x01][..], &[0; MAX_IDENTITY + 1], &[0xc4, 64], &[0; 64]];
    assert!(decode::<Identity>(&too_long.concat()).is_err());
}

fn relay(number: u64) -> RelayRecord {
    RelayRecord {
        identity_key: person(number).identity.key(),
        endpoints: List::new(vec!["relay.example:7331".parse().unwrap()]).unwrap(),
    }
}
