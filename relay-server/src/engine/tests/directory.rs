//! Key packages: handed out once, to those who are admitted.

use sremp_common::pow::Work;
use sremp_common::wire::{KeyPackageStock, KeyPackagesLow, PublishKeyPackages, TakeKeyPackage};

use super::*;

const POW: u8 = 8;

fn publication(version: u64, name: &str, packages: &[&str]) -> PublishKeyPackages {
    let packages = packages.iter().map(|package| Bin::new(package.as_bytes().to_vec()).unwrap());
    PublishKeyPackages {
        identity: identity(1, version, name),
        key_packages: List::new(packages.collect()).unwrap(),
        last_resort: None,
        replace: false,
    }
}

fn publish(rig: &mut Rig, publication: PublishKeyPackages) -> u32 {
    let answer = rig.ask(1, Message::PublishKeyPackages(publication));
    let Message::KeyPackageStock(KeyPackageStock { count }) = answer else { panic!("{answer:?}") };
    count
}

fn request(admission: Admission) -> Message {
    Message::TakeKeyPackage(TakeKeyPackage { owner: key(1), admission })
}

fn take(rig: &mut Rig, session: u64, number: u8) -> Result<String, ErrorBody> {
    let answer = rig.ask(session, request(Admission::Token(token(number))));
    if let Message::Error(error) = answer {
        return Err(error);
    }
    let Message::KeyPackageTaken(taken) = answer else { panic!("{answer:?}") };
    assert_eq!(taken.identity.verify().unwrap().key(), key(1));
    Ok(String::from_utf8(taken.key_package.into_vec()).unwrap())
}

fn code(taken: Result<String, ErrorBody>) -> ErrorCode {
    taken.unwrap_err().code
}

#[test]
fn m09_two_adders_get_distinct_packages() {
    let mut rig = Rig::with_owner(|_| {});
    rig.open(2, None);
    rig.open(3, None);
    assert_eq!(code(take(&mut rig, 2, 1)), ErrorCode::NotFound, "nothing published");
    let mut first = publication(1, "owner", &["a", "b"]);
    first.last_resort = Some(Bin::new(b"last".to_vec()).unwrap());
    assert_eq!(publish(&mut rig, first), 2);
    assert_eq!(rig.durability, Durability::Now);
    assert_eq!(take(&mut rig, 2, 1).unwrap(), "a");
    assert_eq!(rig.durability, Durability::Now, "handed out only once that is durable");
    assert_eq!(take(&mut rig, 3, 1).unwrap(), "b");
    // Only now, and again and again.
    assert_eq!(take(&mut rig, 2, 1).unwrap(), "last");
    assert_eq!(take(&mut rig, 3, 1).unwrap(), "last");
    // The owner's answer was lost: what was handed out does not come back.
    assert_eq!(publish(&mut rig, publication(1, "owner", &["a", "b", "c"])), 1);
    assert_eq!(take(&mut rig, 2, 1).unwrap(), "c");
}

#[test]
fn the_unadmitted_learn_nothing() {
    let mut rig = Rig::with_owner(|_| {});
    rig.open(2, None);
    rig.open(3, Some(3));
    publish(&mut rig, publication(1, "owner", &["a"]));
    let wrong = rig.ask(2, request(Admission::Token(token(9))));
    let Message::Error(error) = &wrong else { panic!("{wrong:?}") };
    assert_eq!(error.code, ErrorCode::NotAdmitted);
    let of_nobody = TakeKeyPackage { owner: key(7), admission: Admission::Token(token(1)) };
    assert_eq!(rig.ask(2, Message::TakeKeyPackage(of_nobody)), wrong);
    for session in [2, 3] {
        assert_eq!(rig.ask(session, request(Admission::Session)), wrong);
    }
    assert_eq!(take(&mut rig, 2, 1).unwrap(), "a", "nobody took it");
}

#[test]
fn a_link_is_worth_as_many_packages_as_welcomes() {
    let mut rig = Rig::with_owner(|_| {});
    publish(&mut rig, publication(1, "owner", &["a", "b", "c", "d", "e"]));
    for number in 0..3 {
        assert_eq!(rig.store_one(1, &blob(number, 9), by_token(1, 2)), None);
        take(&mut rig, 1, 2).unwrap();
    }
    let refused = take(&mut rig, 1, 2).unwrap_err();
    assert_eq!((refused.code, refused.retry_after), (ErrorCode::RateLimited, Some(43_200)));
    assert_eq!(take(&mut rig, 1, 1).unwrap(), "d", "a contact's token");
    rig.pass(43_200_000);
    assert_eq!(take(&mut rig, 1, 2).unwrap(), "e");
}

#[test]
fn one_token_cannot_empty_the_stock() {
    let mut rig = Rig::with_owner(|_| {});
    let names: Vec<_> = (0..100).map(|number| format!("package {number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    publish(&mut rig, publication(1, "owner", &names));
    for _ in 0..64 {
        take(&mut rig, 1, 1).unwrap();
    }
    assert_eq!(code(take(&mut rig, 1, 1)), ErrorCode::RateLimited);
}

#[test]
fn work_takes_a_package_once() {
    let mut rig = Rig::with_owner(|config| config.pow_difficulty = POW);
    rig.open(2, None);
    let names: Vec<_> = (0..40).map(|number| format!("package {number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    publish(&mut rig, publication(1, "owner", &names));
    let hour = rig.now.wall.hour();
    let (own, owner) = (relay(), key(1));
    let work = Work { relay: &own, recipient: &owner, blob: None, hour };
    let mut start = 0;
    let mut proof = || {
        let nonce = work.search(POW, start, 1 << 20).unwrap();
        start = nonce + 1;
        Admission::ProofOfWork { hour, nonce }
    };
    let first = proof();
    let is_taken = |message: &Message| matches!(message, Message::KeyPackageTaken(_));
    assert!(is_taken(&rig.ask(2, request(first))));
    let spent = rig.ask(2, request(first));
    assert!(!is_taken(&spent));
    for _ in 1..16 {
        assert!(is_taken(&rig.ask(2, request(proof()))));
    }
    // Sixteen an hour; beyond, and for somebody without mailbox, the same answer.
    assert_eq!(rig.ask(2, request(proof())), spent);
    rig.pass(3_600_000);
    assert_eq!(rig.ask(2, request(first)), spent, "still spent in the hour after");
}

#[test]
fn the_owner_is_told_when_the_stock_runs_low() {
    let mut rig = Rig::with_owner(|_| {});
    rig.open(2, None);
    let names: Vec<_> = (0..10).map(|number| format!("package {number}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    publish(&mut rig, publication(1, "owner", &names));
    rig.retrieve(1, 1000);
    rig.batches(1);
    for _ in 0..7 {
        take(&mut rig, 2, 1).unwrap();
    }
    assert_eq!(rig.outputs, []);
    for count in [2, 1, 0] {
        take(&mut rig, 2, 1).unwrap();
        let low = Message::KeyPackagesLow(KeyPackagesLow { count });
        assert_eq!(rig.outputs, [Output::Tell { session: SessionId(1), message: low }]);
        rig.outputs.clear();
    }
    assert_eq!(rig.register(1, 1, 1).key_packages, 0);
}

#[test]
fn only_the_owners_newest_identity_is_published() {
    let mut rig = Rig::with_owner(|_| {});
    let mut refused = |publication| rig.refused(1, Message::PublishKeyPackages(publication));
    let of_another =
        PublishKeyPackages { identity: identity(2, 1, "other"), ..publication(1, "owner", &["a"]) };
    assert_eq!(refused(of_another), ErrorCode::NotAllowed);
    assert_eq!(refused(publication(1, "owner", &["a", ""])), ErrorCode::Malformed);
    assert_eq!(publish(&mut rig, publication(2, "owner", &["a"])), 1);
    assert_eq!(publish(&mut rig, publication(2, "owner", &["b"])), 2);
    let mut refused = |publication| rig.refused(1, Message::PublishKeyPackages(publication));
    assert_eq!(refused(publication(1, "owner", &["c"])), ErrorCode::Stale, "rollback");
    assert_eq!(refused(publication(2, "forked", &["c"])), ErrorCode::Stale, "equivocation");
    assert_eq!(publish(&mut rig, publication(3, "renamed", &[])), 2);
    let mut forged = sremp_common::wire::encode(&identity(1, 4, "owner"));
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let forged = PublishKeyPackages {
        identity: sremp_common::wire::decode(&forged).unwrap(),
        ..publication(1, "owner", &["c"])
    };
    assert_eq!(
        rig.refused(1, Message::PublishKeyPackages(forged)),
        ErrorCode::AuthenticationFailed
    );
}

#[test]
fn a_stock_is_bounded() {
    let mut rig = Rig::with_owner(|_| {});
    for round in 0..3 {
        let names: Vec<_> = (0..60).map(|number| format!("package {round} {number}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let count = publish(&mut rig, publication(1, "owner", &names));
        assert_eq!(count, [60, 120, 128][round]);
    }
}
