//! Text forms: round trip, and every slip of the hand is noticed.

use proptest::prelude::*;

use super::*;
use crate::entropy::Entropy;
use crate::key::IdentitySecret;

const CHARSET: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

fn key(entropy: &mut Entropy) -> IdentityKey {
    IdentitySecret::generate(entropy).public()
}

fn relay(entropy: &mut Entropy, endpoints: u64) -> RelayRecord {
    let endpoint = |number: u64| format!("relay-{number}.example.org:7331").parse().unwrap();
    let endpoints = List::new((0..endpoints).map(endpoint).collect()).unwrap();
    RelayRecord { identity_key: key(entropy), endpoints }
}

fn link(seed: u64) -> ContactLink {
    let mut e = Entropy::from_number(seed);
    let relays = (0..e.below(4)).map(|number| relay(&mut e, number)).collect();
    ContactLink {
        identity_key: key(&mut e),
        name: Username::new("Zo\u{eb}").unwrap(),
        addresses: relay(&mut e, 2).endpoints,
        relays: List::new(relays).unwrap(),
        rendezvous: List::new(relay(&mut e, 1).endpoints.into_vec()).unwrap(),
        token: (e.below(2) == 0).then(|| Token::new(e.array())),
    }
}

#[test]
fn every_wrong_character_of_an_id_is_noticed() {
    let id = encode_identity_key(&key(&mut Entropy::from_number(1)));
    assert!(id.starts_with("sremp1"));
    for place in 0..id.len() {
        for wrong in CHARSET.chars().chain("1bio-_ A\u{e9}".chars()) {
            let mut chars: Vec<char> = id.chars().collect();
            if chars[place] == wrong {
                continue;
            }
            chars[place] = wrong;
            let text: String = chars.into_iter().collect();
            // An id that begins or ends with a space is an id that lost a character.
            assert!(decode_identity_key(&text).is_err(), "{text}");
        }
        let mut lost = id.clone();
        lost.remove(place);
        assert!(decode_identity_key(&lost).is_err());
    }
    for place in 1..id.len() {
        let mut chars: Vec<char> = id.chars().collect();
        chars.swap(place - 1, place);
        let swapped: String = chars.into_iter().collect();
        assert_eq!(decode_identity_key(&swapped).is_ok(), swapped == id);
    }
}

#[test]
fn spaces_around_and_capitals_throughout_are_fine() {
    let key = key(&mut Entropy::from_number(1));
    let id = encode_identity_key(&key);
    assert_eq!(decode_identity_key(&format!("  {id}\n")), Ok(key));
    assert_eq!(decode_identity_key(&id.to_uppercase()), Ok(key));
}

#[test]
fn forms_are_not_taken_for_each_other() {
    let mut entropy = Entropy::from_number(1);
    let id = encode_identity_key(&key(&mut entropy));
    let contact = encode_contact_link(&link(1));
    let relay = encode_relay_link(&relay(&mut entropy, 1).into());
    let wrong_role = |found, wanted| TextError::WrongRole { found, wanted };
    assert_eq!(decode_identity_key(&contact).unwrap_err(), wrong_role("a contact link", "an id"));
    assert_eq!(
        decode_contact_link(&relay).unwrap_err(),
        wrong_role("a relay link", "a contact link")
    );
    assert_eq!(decode_relay_link(&id).unwrap_err(), wrong_role("an id", "a relay link"));
    let invite = encode_invite(&Token::new([7; 16]));
    assert_eq!(decode_relay_link(&invite), Err(wrong_role("an invitation", "a relay link")));
    assert_eq!(decode_invite(&relay), Err(wrong_role("a relay link", "an invitation")));
    assert_eq!(decode_identity_key("bc1qxyz"), Err(TextError::NotOurs));
    assert_eq!(decode_identity_key(""), Err(TextError::NotOurs));
    assert_eq!(
        [id, contact, relay].map(|text| role_of(&text)),
        [Some("an id"), Some("a contact link"), Some("a relay link")]
    );
    // Bitcoin's checksum constant (BIP 173 instead of BIP 350) is another one.
    let key = key(&mut entropy);
    let hrp = Hrp::parse(ID).unwrap();
    let other = bech32::encode::<bech32::Bech32>(hrp, key.as_bytes()).unwrap();
    assert_eq!(decode_identity_key(&other), Err(TextError::Checksum));
}

#[test]
fn content_that_is_no_key_is_refused() {
    for bytes in [&[0; 32][..], &[1; 31], &[1; 33], &[]] {
        assert_eq!(decode_identity_key(&to_text(ID, bytes)), Err(TextError::Content));
    }
    for length in [0, 15, 17] {
        assert_eq!(decode_invite(&to_text(INVITE, &vec![1; length])), Err(TextError::Content));
    }
    let longer = [encode(&link(3)), vec![0]].concat();
    assert_eq!(decode_contact_link(&to_text(CONTACT, &longer)), Err(TextError::Content));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn links_round_trip(seed in any::<u64>()) {
        let link = link(seed);
        let text = encode_contact_link(&link);
        prop_assert!(text.len() <= MAX_TEXT_FORM);
        prop_assert_eq!(decode_contact_link(&text), Ok(link));
        let mut relay = RelayLink::from(relay(&mut Entropy::from_number(seed), seed % 8));
        relay.invite = (seed % 2 == 0).then(|| Token::new([7; 16]));
        prop_assert_eq!(decode_relay_link(&encode_relay_link(&relay)), Ok(relay));
        let token = Token::new(Entropy::from_number(seed).array());
        prop_assert_eq!(decode_invite(&encode_invite(&token)), Ok(token));
        let key = key(&mut Entropy::from_number(seed));
        prop_assert_eq!(decode_identity_key(&encode_identity_key(&key)), Ok(key));
    }

    #[test]
    fn one_wrong_character_of_a_link_is_noticed(
        seed in any::<u64>(),
        place in any::<prop::sample::Index>(),
        wrong in 0..32_usize,
    ) {
        let text = encode_contact_link(&link(seed));
        let mut chars: Vec<char> = text.chars().collect();
        let place = place.index(chars.len());
        let wrong = CHARSET.chars().nth(wrong).unwrap();
        prop_assume!(chars[place] != wrong);
        chars[place] = wrong;
        let text: String = chars.into_iter().collect();
        prop_assert!(decode_contact_link(&text).is_err());
    }

    #[test]
    fn any_text_is_survived(text in "(sremp|sremplink|sremprelay|srempinvite)?1?.{0,80}") {
        let _ = role_of(&text);
        prop_assert!(decode_identity_key(&text).is_err());
        prop_assert!(decode_contact_link(&text).is_err());
        prop_assert!(decode_relay_link(&text).is_err());
        prop_assert!(decode_invite(&text).is_err());
    }
}
