//! Who may have a mailbox: modes, invitations, bans, rates, and a disk that fills up.

use sremp_common::wire::{PublishKeyPackages, TakeKeyPackage};

use super::*;
use crate::store::{Invite, Mailboxes as _, Rules as _};

fn register(invite: Option<u8>) -> Message {
    let capabilities = RelayCapabilities { max_message_size: 9, max_storage_duration: 9 };
    Message::RelayRegister(RelayRegister { capabilities, invite: invite.map(token) })
}

fn error(answer: Message) -> ErrorBody {
    let Message::Error(error) = answer else { panic!("{answer:?}") };
    error
}

fn invite(rig: &mut Rig, number: u8, uses: u32, lasts_ms: u64) {
    let expires_at = rig.now.wall + Duration::from_millis(lasts_ms);
    assert!(rig.store.add_invite(&token(number).hash(), Invite { uses, expires_at }).unwrap());
}

fn mode(registration: Registration) -> impl FnOnce(&mut EngineConfig) {
    move |config| config.registration = registration
}

#[test]
fn by_invitation_each_use_lets_one_new_owner_in() {
    let mut rig = Rig::new(mode(Registration::Invited));
    invite(&mut rig, 1, 2, 1000);
    invite(&mut rig, 2, 9, 500);
    (1..=4).for_each(|number| rig.open(number, Some(number)));
    for nothing in [None, Some(7)] {
        let error = error(rig.ask(1, register(nothing)));
        assert_eq!((error.code, error.retry_after), (ErrorCode::NotAdmitted, None));
        assert!(error.text.contains("invitation"), "{}", &*error.text);
    }
    assert!(matches!(rig.ask(1, register(Some(1))), Message::RelayRegistered(_)));
    assert_eq!(rig.durability, Durability::Now);
    // Whoever is in needs none and uses none, whatever they show.
    for shown in [None, Some(1), Some(7)] {
        assert!(matches!(rig.ask(1, register(shown)), Message::RelayRegistered(_)));
    }
    assert!(matches!(rig.ask(2, register(Some(1))), Message::RelayRegistered(_)));
    assert_eq!(rig.refused(3, register(Some(1))), ErrorCode::NotAdmitted, "used up");
    rig.pass(500);
    assert_eq!(rig.refused(3, register(Some(2))), ErrorCode::NotAdmitted, "too late");
    // An invitation shown to an open relay is not used up.
    invite(&mut rig, 3, 1, 1000);
    rig.engine.set_registration(Registration::Everyone);
    assert!(matches!(rig.ask(3, register(Some(3))), Message::RelayRegistered(_)));
    rig.engine.set_registration(Registration::Invited);
    assert!(matches!(rig.ask(4, register(Some(3))), Message::RelayRegistered(_)));
}

#[test]
fn an_invitation_is_not_used_up_by_another_refusal() {
    let mut rig = Rig::new(|config| {
        config.registration = Registration::Invited;
        config.max_mailboxes = 0;
    });
    invite(&mut rig, 1, 1, 1000);
    rig.open(1, Some(1));
    let refused = error(rig.ask(1, register(Some(1))));
    assert_eq!((refused.code, refused.retry_after), (ErrorCode::Unavailable, Some(60)));
    rig.engine.set_config(EngineConfig {
        registration: Registration::Invited,
        ..EngineConfig::default()
    });
    assert!(matches!(rig.ask(1, register(Some(1))), Message::RelayRegistered(_)));
}

#[test]
fn closed_means_nobody_new() {
    let mut rig = Rig::with_owner(|_| {});
    rig.engine.set_registration(Registration::Nobody);
    rig.open(2, Some(2));
    assert_eq!(rig.refused(2, register(Some(1))), ErrorCode::NotAllowed);
    assert!(matches!(rig.ask(1, register(None)), Message::RelayRegistered(_)));
    assert_eq!(rig.store_one(2, b"x", by_token(1, 1)), None, "mail still comes");
}

#[test]
fn nothing_is_done_for_the_banned() {
    let mut rig = Rig::with_owner(|_| {});
    rig.open(2, None);
    rig.retrieve(1, 1 << 20);
    rig.batches(1);
    rig.engine.set_banned([key(1)].into());
    assert_eq!(rig.refused(1, register(None)), ErrorCode::NotAllowed);
    assert_eq!(rig.refused(1, Message::RelayInfoRequest(Ping())), ErrorCode::NotAllowed);
    rig.acknowledge(1, &[1]);
    assert_eq!(rig.outputs, [], "an acknowledgement is never answered");
    // To senders it is as if there were no mailbox.
    assert_eq!(rig.store_one(2, b"x", by_token(1, 1)), Some(ErrorCode::NotAdmitted));
    assert_eq!(rig.pushed(1), []);
    rig.engine.set_banned(BTreeSet::new());
    assert_eq!(rig.store_one(2, b"x", by_token(1, 1)), None);
    rig.register(1, 9, 9);
}

#[test]
fn networks_and_owners_may_ask_so_often() {
    let mut rig = Rig::new(|config| {
        config.rates = RateLimits {
            new_mailboxes_per_hour: 2,
            stores_per_minute: 3,
            key_packages_per_minute: 2,
            changes_per_minute: 60,
        };
    });
    (1..=4).for_each(|number| rig.open(number, Some(number)));
    rig.register(1, u32::MAX, u32::MAX);
    rig.register(1, u32::MAX, u32::MAX);
    rig.register(2, 9, 9);
    let refused = error(rig.ask(3, register(None)));
    assert_eq!((refused.code, refused.retry_after), (ErrorCode::RateLimited, Some(1800)));
    rig.admit(1, &[(1, AdmissionClass::Contact, 0)]);
    rig.open(9, None);
    for number in 0..3 {
        assert_eq!(rig.store_one(9, &blob(number, 8), by_token(1, 1)), None);
    }
    let many = rig.store(9, &blob(9, 8), &[by_token(1, 1), by_token(4, 1)]);
    // Whether there is a mailbox makes no difference (L23).
    assert_eq!(many[0], many[1]);
    assert_eq!((many[0].refused, many[0].retry_after), (Some(ErrorCode::RateLimited), Some(20)));
    let own = Recipient { identity_key: key(1), admission: Admission::Session };
    assert_eq!(rig.store_one(1, b"note", own), None, "the owner's own notes");
    let take = || {
        let admission = Admission::Token(token(1));
        Message::TakeKeyPackage(TakeKeyPackage { owner: key(1), admission })
    };
    for expected in [ErrorCode::NotFound, ErrorCode::NotFound, ErrorCode::RateLimited] {
        assert_eq!(rig.refused(9, take()), expected);
    }
    // Another network is not concerned.
    let observed = Some("[2001:db8::1]:5".parse().unwrap());
    rig.input(Input::Opened { session: SessionId(10), caller: None, observed });
    assert_eq!(rig.refused(10, take()), ErrorCode::NotFound);
    rig.pass(20_000);
    assert_eq!(rig.store_one(9, &blob(9, 8), by_token(1, 1)), None);
}

/// L02: the disk fills up. First nobody new, then nothing new, and always room to drain.
#[test]
fn l02_at_the_high_water_mark_everything_drains() {
    let mut rig = Rig::with_owner(|config| config.pow_difficulty = 1);
    rig.open(2, Some(2));
    rig.open(3, None);
    for number in 0..5 {
        assert_eq!(rig.store_one(3, &blob(number, 9), by_token(1, 1)), None);
    }
    rig.engine.set_room(Room::NoNewOwners, u64::MAX);
    let refused = error(rig.ask(2, register(None)));
    assert_eq!((refused.code, refused.retry_after), (ErrorCode::Unavailable, Some(60)));
    assert_eq!(rig.store_one(3, &blob(5, 9), by_token(1, 1)), None, "messages still come");

    rig.engine.set_room(Room::NoNewMessages, u64::MAX);
    let result = rig.store(3, &blob(6, 9), &[by_token(1, 1)])[0];
    assert_eq!((result.refused, result.retry_after), (Some(ErrorCode::Unavailable), Some(60)));
    assert_eq!(rig.store_one(3, &blob(5, 9), by_token(1, 1)), None, "this one is here");
    assert_eq!(rig.refused(1, publication(1)), ErrorCode::Unavailable);
    // Registering again, revoking a token, reading, acknowledging and expiring need no room.
    rig.register(1, u32::MAX, u32::MAX);
    rig.admit(1, &[]);
    rig.retrieve(1, 1 << 20);
    let waiting = rig.pushed(1);
    assert_eq!(waiting.len(), 6);
    rig.acknowledge(1, &sequences(&waiting)[..3]);
    assert_eq!(rig.totals().messages, 3);
    rig.pass(31 * 86_400_000);
    assert_eq!(rig.totals().messages, 0);
    rig.engine.set_room(Room::Plenty, u64::MAX);
    rig.admit(1, &[(1, AdmissionClass::Contact, 0)]);
    // Between two looks at the disk no more is taken than there was room for.
    rig.engine.set_room(Room::Plenty, 100);
    assert_eq!(rig.store_one(3, &blob(7, 90), by_token(1, 1)), None);
    assert_eq!(rig.store_one(3, &blob(8, 90), by_token(1, 1)), Some(ErrorCode::Unavailable));
    rig.engine.set_room(Room::Plenty, u64::MAX);
    assert_eq!(rig.store_one(3, &blob(6, 9), by_token(1, 1)), None);
    assert!(matches!(rig.ask(2, register(None)), Message::RelayRegistered(_)));
}

fn publication(packages: u8) -> Message {
    let key_packages = (0..packages).map(|number| Bin::new(vec![number + 1; 10]).unwrap());
    Message::PublishKeyPackages(PublishKeyPackages {
        identity: identity(1, 1, "owner"),
        key_packages: List::new(key_packages.collect()).unwrap(),
        last_resort: Some(Bin::new(vec![255; 10]).unwrap()),
        replace: false,
    })
}

/// M10: ten thousand requests do not take more than their day's share, the stock is not handed out
/// twice, and the owner is told in time.
#[test]
fn m10_key_packages_are_not_exhausted_by_asking() {
    let mut rig = Rig::with_owner(|config| config.pow_difficulty = 1);
    rig.retrieve(1, 1 << 20);
    assert!(matches!(rig.ask(1, publication(100)), Message::KeyPackageStock(_)));
    rig.open(2, None);
    let hour = rig.now.wall.hour();
    let mut taken = BTreeMap::<Vec<u8>, usize>::new();
    let mut refusals = BTreeMap::<u16, usize>::new();
    for attempt in 0..10_000_u64 {
        // Whoever has the link, and strangers who work for it, in turn.
        let admission = if attempt % 2 == 0 {
            Admission::Token(token(2))
        } else {
            Admission::ProofOfWork { hour, nonce: attempt }
        };
        let asked = Message::TakeKeyPackage(TakeKeyPackage { owner: key(1), admission });
        let answer = rig.ask(2, asked);
        if let Message::KeyPackageTaken(package) = answer {
            *taken.entry(package.key_package.to_vec()).or_default() += 1;
        } else {
            *refusals.entry(error(answer).code.number()).or_default() += 1;
        }
    }
    // Three by the link's quota of a day, sixteen by work in an hour; no package twice.
    assert_eq!(taken.len(), 19);
    assert!(taken.values().all(|times| *times == 1));
    assert_eq!(refusals.values().sum::<usize>(), 10_000 - 19);
    assert_eq!(rig.store.mailbox(&key(1)).unwrap().unwrap().key_packages, 81);
    // A contact may take more, until a fifth is left: then the owner is told.
    rig.outputs.clear();
    let by_contact = || {
        let admission = Admission::Token(token(1));
        Message::TakeKeyPackage(TakeKeyPackage { owner: key(1), admission })
    };
    for _ in 0..64 {
        assert!(matches!(rig.ask(2, by_contact()), Message::KeyPackageTaken(_)));
    }
    assert_eq!(rig.refused(2, by_contact()), ErrorCode::RateLimited);
    let told = rig.outputs.iter().filter(|output| {
        matches!(output, Output::Tell { message: Message::KeyPackagesLow(_), .. })
    });
    assert!(told.count() > 0, "the owner can refill at 20 %");
    // The stock runs dry the next day: the last resort is for everybody.
    rig.pass(86_400_000);
    for _ in 0..17 {
        assert!(matches!(rig.ask(2, by_contact()), Message::KeyPackageTaken(_)));
    }
    for _ in 0..2 {
        let Message::KeyPackageTaken(last) = rig.ask(2, by_contact()) else { panic!() };
        assert_eq!(&*last.key_package, &[255; 10]);
    }
}

/// L11: there is no cursor to abuse; to begin again and again is bounded, and costs no memory.
#[test]
fn l11_a_million_retrievals_are_refused_and_delete_nothing() {
    let mut rig = Rig::with_owner(|_| {});
    for number in 0..20 {
        assert_eq!(rig.store_one(1, &blob(number, 50_000), by_token(1, 1)), None);
    }
    let mut batches = 0;
    let mut refused = 0;
    for _ in 0..1_000_000_u32 {
        rig.retrieve(1, u32::MAX);
        for output in rig.outputs.drain(..) {
            let Output::Answer { message, .. } = output else { panic!("{output:?}") };
            if matches!(message, Message::MessageBatch(_)) {
                batches += 1;
            } else {
                let error = error(message);
                assert_eq!(error.code, ErrorCode::RateLimited);
                assert!(error.retry_after.is_some());
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 1_000_000 - 58, "registering and setting tokens were the first two");
    assert!(batches <= 58 * 5, "{batches}");
    assert_eq!((rig.engine.readers.len(), rig.engine.due.len()), (1, 0));
    assert_eq!(rig.totals().messages, 20, "reading deletes nothing");
}
