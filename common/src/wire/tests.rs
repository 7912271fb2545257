//! Every message type: round trip, one encoding for each value, and what hostile bytes cost.

mod samples;

use proptest::prelude::*;

use super::*;
use crate::entropy::Entropy;
use crate::limit::{MAX_ACKS, MAX_BATCH, MAX_KEY_PACKAGES, MAX_MESSAGE, MAX_RECIPIENTS};
use samples::sample;

/// A claim of `count` elements, or bytes, in MessagePack's widest forms.
fn claims(count: u32) -> [Vec<u8>; 4] {
    [0xdd, 0xdf, 0xc6, 0xdb].map(|marker| [&[marker][..], &count.to_be_bytes()].concat())
}

fn header(number: u8, fields: u8) -> Vec<u8> {
    let mut bytes = vec![0x93];
    rmp::encode::write_uint(&mut bytes, number.into()).unwrap();
    bytes.extend([0, 0x90 | fields]);
    bytes
}

#[test]
fn every_type_has_samples_of_its_own_type() {
    let mut entropy = Entropy::from_number(1);
    for number in Message::TYPE_NUMBERS {
        assert_eq!(sample(*number, &mut entropy).type_number(), *number);
    }
}

#[test]
fn l15_depth_bombs() {
    for opening in [0x91, 0x81] {
        for number in Message::TYPE_NUMBERS {
            let bomb = [header(*number, 15), vec![opening; 1 << 20]].concat();
            assert!(Message::decode(&bomb).is_err());
        }
    }
    // The bound itself, on a value that would otherwise be legal at any depth.
    #[derive(serde::Serialize, serde::Deserialize, Debug, PartialEq)]
    struct Nested {
        inner: Option<Box<Self>>,
    }
    let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
    // The library refuses the level at which its count reaches zero.
    for depth in 1..20 {
        assert_eq!(decode::<Nested>(&nested(depth)).is_ok(), depth < MAX_DEPTH, "{depth}");
    }
}

#[test]
fn l16_claimed_lengths_cost_nothing() {
    for number in Message::TYPE_NUMBERS {
        for count in [u32::MAX, 1 << 20] {
            for claim in claims(count) {
                for fields in 0..8 {
                    let mut bytes = header(*number, fields);
                    bytes.extend(&claim);
                    assert!(Message::decode(&bytes).is_err());
                }
            }
        }
    }
}

/// Puts bombs into every place of a message of every type: a list, map, byte string or text with
/// very many elements of one or two bytes. What still decodes must be small.
#[test]
fn l16_lists_of_nothing_are_refused() {
    const COUNT: u32 = 20_000;
    let mut entropy = Entropy::from_number(16);
    let fillings: [&[u8]; 6] = [&[0xc0], &[0xa0], &[0xc4, 0], &[0x90], &[0], &[0xc2]];
    for number in Message::TYPE_NUMBERS {
        let message = sample(*number, &mut entropy).encode(0);
        let places = (0..message.len().min(60)).chain([message.len()]);
        for place in places {
            for (filling, claim) in
                fillings.iter().flat_map(|filling| claims(COUNT).map(|claim| (filling, claim)))
            {
                let elements = filling.repeat(usize::try_from(COUNT).unwrap());
                let bytes = [&message[..place], &claim, &elements].concat();
                assert!(Message::decode(&bytes).is_err());
                if let Some(rest) = message.get(place..) {
                    let bytes = [&bytes[..], rest].concat();
                    assert!(Message::decode(&bytes).is_err());
                }
            }
        }
    }
}

/// The longest legal list of the smallest legal elements, for each type that has a list.
#[test]
fn l16_what_the_smallest_elements_grow_to() {
    let list = |number, tail: &[u8], count: usize, element: &[u8]| {
        let mut bytes = header(number, u8::try_from(tail.len() + 1).unwrap());
        rmp::encode::write_array_len(&mut bytes, count.try_into().unwrap()).unwrap();
        [bytes, element.repeat(count), tail.to_vec()].concat()
    };
    let stored = [&[0x94, 0, 0xc4, 16][..], &[0; 16], &[0, 0xc4, 0]].concat();
    let growth = |wire: usize, memory: usize| {
        assert!(memory <= 16 * wire, "{memory} bytes from {wire}");
    };
    for (count, legal) in [(MAX_ACKS, true), (MAX_ACKS + 1, false)] {
        let bytes = list(25, &[], count, &[0]);
        let decoded = Message::decode(&bytes);
        assert_eq!(decoded.is_ok(), legal);
        if let Ok((_, Message::Ack(ack))) = decoded {
            growth(bytes.len(), 2 * size_of_val(&*ack.sequences));
        }
    }
    for (count, legal) in [(MAX_RECIPIENTS, true), (MAX_RECIPIENTS + 1, false)] {
        let bytes = list(22, &[], count, &[0x93, 0xc0, 0xc0, 0xc0]);
        let decoded = Message::decode(&bytes);
        assert_eq!(decoded.is_ok(), legal);
        if let Ok((_, Message::StoreResponse(response))) = decoded {
            growth(bytes.len(), 2 * size_of_val(&*response.results));
        }
    }
    for (count, legal) in [(MAX_BATCH, true), (MAX_BATCH + 1, false)] {
        let bytes = list(24, &[0xc2], count, &stored);
        let decoded = Message::decode(&bytes);
        assert_eq!(decoded.is_ok(), legal);
        if let Ok((_, Message::MessageBatch(batch))) = decoded {
            growth(bytes.len(), 2 * size_of_val(&*batch.messages));
        }
    }
    // A byte string of no bytes grows more than that, and there may be few of them.
    assert!(MAX_KEY_PACKAGES * 2 * size_of::<Bin<0>>() < 8 * 1024);
}

#[test]
fn a_message_longer_than_legal_is_refused_unread() {
    let bytes = vec![0xff; MAX_MESSAGE + 1];
    assert_eq!(Message::decode(&bytes).unwrap_err().error, WireError::TooLong(MAX_MESSAGE));
}

#[test]
fn a_second_form_of_the_same_value_is_refused() {
    let canonical = Message::Ping(Ping()).encode(5);
    assert_eq!(canonical, [0x93, 1, 5, 0x90]);
    for other in [
        &[0x93, 0xcc, 1, 5, 0x90][..],
        &[0x93, 1, 0xcc, 5, 0x90],
        &[0x93, 1, 0xcf, 0, 0, 0, 0, 0, 0, 0, 5, 0x90],
        &[0x93, 1, 5, 0xdc, 0, 0],
        &[0xdc, 0, 3, 1, 5, 0x90],
        &[0xdd, 0, 0, 0, 3, 1, 5, 0x90],
        &[0x93, 1, 5, 0xc0],
        &[0x93, 1, 5, 0x80],
        &[0x93, 1, 5, 0x90, 0x90],
        &[0x94, 1, 5, 0x90, 0xc0],
        &[0x92, 1, 5],
        &[0x93, 1, 0xff, 0x90],
        &[],
    ] {
        assert!(Message::decode(other).is_err(), "{other:02x?}");
    }
    // Structs are arrays: the same fields as a map are refused.
    let as_map = [0x93, 3, 0, 0x81, 0xa4, b'c', b'o', b'd', b'e', 13];
    assert!(Message::decode(&as_map).is_err());
}

#[test]
fn an_unknown_type_keeps_its_number() {
    for body in [&[0xc0][..], &[0x90], &[0xc1, 0xff]] {
        let undecodable = Message::decode(&[&[0x93, 63, 9], body].concat()).unwrap_err();
        assert_eq!(undecodable.request_id, Some(9));
        assert_eq!(undecodable.error, WireError::UnknownType(63));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_type_round_trips(seed in any::<u64>(), id in any::<u64>()) {
        let mut entropy = Entropy::from_number(seed);
        for number in Message::TYPE_NUMBERS {
            let message = sample(*number, &mut entropy);
            let bytes = message.encode(id);
            prop_assert_eq!(Message::decode(&bytes), Ok((id, message)));
        }
    }

    /// Whatever is done to the bytes: an error, or the one encoding of another value.
    #[test]
    fn any_change_is_an_error_or_another_value(
        seed in any::<u64>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut entropy = Entropy::from_number(seed);
        for number in Message::TYPE_NUMBERS {
            let original = sample(*number, &mut entropy);
            let mut bytes = original.encode(7);
            let before = bytes.clone();
            for (place, byte, how) in &changes {
                let place = place.index(bytes.len());
                match how {
                    0 => bytes[place] = *byte,
                    1 => bytes.insert(place, *byte),
                    2 => bytes.truncate(place.max(1)),
                    _ => bytes[place] ^= 1 << (byte % 8),
                }
            }
            if let Ok((id, message)) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(id), &bytes[..]);
                prop_assert_eq!(bytes == before, id == 7 && message == original);
            }
        }
    }

    #[test]
    fn every_cut_is_an_error(seed in any::<u64>()) {
        let mut entropy = Entropy::from_number(seed);
        for number in Message::TYPE_NUMBERS {
            let bytes = sample(*number, &mut entropy).encode(7);
            for cut in (0..bytes.len()).rev().take(100).chain(0..bytes.len().min(100)) {
                prop_assert!(Message::decode(&bytes[..cut]).is_err());
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for number in Message::TYPE_NUMBERS {
            let message = [&header(*number, 0)[..], &bytes].concat();
            let bare = [&header(*number, 0)[..3 + usize::from(*number > 127)], &bytes].concat();
            for bytes in [message, bare] {
                if let Ok((id, message)) = Message::decode(&bytes) {
                    prop_assert_eq!(message.encode(id), bytes);
                }
            }
        }
    }

    #[test]
    fn endpoints_have_one_text_and_one_encoding(seed in any::<u64>()) {
        let mut entropy = Entropy::from_number(seed);
        for _ in 0..20 {
            let endpoint = samples::endpoint(&mut entropy);
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint.clone()));
            prop_assert_eq!(decode::<Endpoint>(&encode(&endpoint)), Ok(endpoint));
        }
    }
}
