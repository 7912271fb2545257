//! Single damaged bits in everything that comes from outside: refused, without a panic, and without harm
//! to the original.

use super::*;
use crate::groups::message::KIND_MLS;

#[test]
fn m22_single_bits() {
    let (mut a, mut b, group) = pair();
    let message = a.send(&group, "text");
    let Opened::Message { state, .. } = b.open(&message).unwrap() else { panic!() };
    let receipt = ReceiptBody {
        group,
        state,
        author: a.key,
        ids: List::default(),
        kind: ReceiptKind::Delivered,
        time: b.now.wall,
    };
    let receipt = b.run(|groups, tx, now| groups.receipt(tx, &receipt, now)).unwrap().0;
    let message = a.send(&group, "text");
    let commit = a.update(&group).commit;
    for (blob, own) in [(&message, false), (&commit, false), (&receipt, true)] {
        for bit in 0..blob.len() * 8 {
            let mut bad = blob.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let result = if own { a.open(&bad) } else { b.open(&bad) };
            assert!(matches!(result, Err(OpenError::UnknownState | OpenError::Invalid { .. })));
        }
    }
    assert_eq!(b.read(&message), "text");
    b.open(&commit).unwrap();
    a.open(&receipt).unwrap();
    for length in 0..60 {
        assert!(b.open(&message[..length]).is_err());
    }
}

#[test]
fn m22_single_bits_of_welcome_and_key_package() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let bytes = b.package(false);
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(a.groups.check_key_package(&bad, &b.key, suite(), a.now).is_err());
    }
    let package = a.groups.check_key_package(&bytes, &b.key, suite(), a.now).unwrap();
    let group = a.create(GroupKind::Direct, "");
    let welcome = a.change(&group, Change::Add(vec![package])).unwrap().welcome.unwrap();
    for bit in (0..welcome.len() * 8).step_by(5) {
        let mut bad = welcome.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(b.join(&bad).is_err(), "bit {bit}");
    }
    b.join(&welcome).unwrap();
}

#[test]
fn m22_single_bits_inside_the_wrap() {
    // A member, who has the wrap's keys, damages what another member wrote.
    let (mut a, mut b, group) = pair();
    let blob = a.send(&group, "text");
    let tx = b.store.begin().unwrap();
    let parsed = wrap::Blob::parse(&blob).unwrap();
    let entry = b.groups.index(&tx).unwrap().find(&parsed).unwrap();
    let (_, message) = entry.keys.unwrap(&parsed).unwrap();
    drop(tx);
    for bit in 0..message.len() * 8 {
        let mut bad = message.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let blob = entry.keys.wrap([3; 24], KIND_MLS, &bad).unwrap();
        assert!(b.open(&blob).is_err());
    }
    assert_eq!(b.read(&blob), "text");
}
