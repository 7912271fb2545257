//! Who gets what into a mailbox, and who does not.

use proptest::prelude::*;
use sremp_common::id::{BlobId, IdError};
use sremp_common::limit::MAX_BLOB_STRANGER;
use sremp_common::pow::Work;

use super::*;

const POW: u8 = 8;

/// A proof of work for `blob`, done in `hour` for `relay`.
fn by_work(relay: &IdentityKey, owner: u64, blob: &[u8], hour: u64) -> Recipient {
    let recipient = key(owner);
    let work =
        Work { relay, recipient: &recipient, blob: Some(BlobId::of(&recipient, blob)), hour };
    let nonce = work.search(POW, 0, 1 << 20).unwrap();
    Recipient { identity_key: recipient, admission: Admission::ProofOfWork { hour, nonce } }
}

fn by_session(owner: u64) -> Recipient {
    Recipient { identity_key: key(owner), admission: Admission::Session }
}

#[test]
fn l04_replayed_store_is_one_message() {
    let mut rig = Rig::with_owner(|_| {});
    rig.open(2, None);
    rig.retrieve(1, 1 << 20);
    rig.batches(1);
    let first = rig.store(2, b"blob", &[by_token(1, 2)]);
    let message = rig.pushed(1).remove(0);
    for _ in 0..9 {
        rig.pass(1000);
        // More often than the link's quota: what is there already uses nothing up.
        assert_eq!(rig.store(2, b"blob", &[by_token(1, 2)]), first);
        assert_eq!(rig.durability, Durability::Nothing);
    }
    assert_eq!(rig.totals().messages, 1);
    assert_eq!(rig.pushed(1), [], "not pushed again");
    rig.retrieve(1, 1 << 20);
    assert_eq!(rig.pushed(1), [message], "one row, with the first moment");
}

#[test]
fn l19_self_weak_and_unknown_recipients() {
    let mut rig = Rig::with_owner(|config| config.pow_difficulty = POW);
    rig.open(2, Some(2));
    let hour = rig.now.wall.hour();
    // The relay itself, somebody without mailbox, and the sender without mailbox.
    for to in [
        Recipient { identity_key: relay(), ..by_token(1, 1) },
        by_token(3, 1),
        by_session(2),
        by_session(1),
        by_work(&relay(), 3, b"blob", hour),
    ] {
        assert_eq!(rig.store_one(2, b"blob", to), Some(ErrorCode::NotAdmitted), "{to:?}");
    }
    // Weak keys do not even decode: zero bytes, the neutral element, points of small order.
    let mut one = [0; 32];
    one[0] = 1;
    for bytes in [[0; 32], one] {
        assert_eq!(IdentityKey::from_bytes(bytes), Err(IdError::WeakKey));
        let good = sremp_common::wire::encode(&by_token(1, 1));
        let position = good.windows(32).position(|bytes| bytes == key(1).as_bytes()).unwrap();
        let mut weak = good.clone();
        weak[position..position + 32].copy_from_slice(&bytes);
        assert!(sremp_common::wire::decode::<Recipient>(&good).is_ok());
        assert!(sremp_common::wire::decode::<Recipient>(&weak).is_err());
    }
    assert_eq!(rig.totals().messages, 0);
    // To oneself, with a mailbox, is a note.
    assert_eq!(rig.store_one(1, b"note", by_session(1)), None);
}

#[test]
fn l22_answers_need_the_commit() {
    let mut rig = Rig::with_owner(|_| {});
    assert_eq!(rig.store_one(1, b"blob", by_token(1, 1)), None);
    assert_eq!(rig.durability, Durability::Now);
    assert_eq!(rig.store_one(1, b"blob", by_token(1, 9)), Some(ErrorCode::NotAdmitted));
    assert_eq!(rig.durability, Durability::Nothing);
    rig.acknowledge(1, &[1]);
    assert_eq!(rig.durability, Durability::Lazy);
}

#[test]
fn one_blob_for_many_and_a_result_for_each() {
    let mut rig = Rig::with_owner(|_| {});
    rig.open(2, Some(2));
    rig.register(2, 100, 7_200);
    rig.admit(2, &[(5, AdmissionClass::Contact, 0)]);
    let long = blob(1, 101);
    let results = rig.store(
        2,
        &long,
        &[by_token(1, 1), by_token(2, 5), by_token(3, 1), by_token(1, 1), by_token(1, 9)],
    );
    let refused: Vec<_> = results.iter().map(|result| result.refused).collect();
    let [ok, too_large, not_admitted] =
        [None, Some(ErrorCode::TooLarge), Some(ErrorCode::NotAdmitted)];
    assert_eq!(refused, [ok, too_large, not_admitted, ok, not_admitted]);
    assert_eq!(results[0], results[3]);
    let month = Duration::from_secs(30 * 86_400);
    assert_eq!(results[0].expires_at, Some(rig.now.wall + month));
    assert_eq!(rig.store(2, &[], &[by_token(1, 1)])[0].refused, Some(ErrorCode::Malformed));
    assert_eq!(rig.store(2, &long, &[]), []);
    assert_eq!(rig.totals().messages, 1);
}

#[test]
fn a_full_mailbox_refuses_and_drains() {
    let mut rig = Rig::with_owner(|config| {
        config.limits.max_messages = 3;
        config.limits.max_bytes = 1000;
    });
    assert_eq!(rig.store_one(1, &blob(1, 500), by_token(1, 1)), None);
    let result = rig.store(1, &blob(2, 501), &[by_token(1, 1)])[0];
    assert_eq!((result.refused, result.retry_after), (Some(ErrorCode::QuotaExceeded), Some(60)));
    assert_eq!(rig.store_one(1, &blob(3, 500), by_token(1, 1)), None, "exactly full");
    assert_eq!(rig.store_one(1, &blob(4, 1), by_token(1, 1)), Some(ErrorCode::QuotaExceeded));
    rig.acknowledge(1, &[1]);
    assert_eq!(rig.store_one(1, &blob(5, 1), by_token(1, 1)), None);
    assert_eq!(rig.store_one(1, &blob(6, 1), by_token(1, 1)), None);
    assert_eq!(rig.store_one(1, &blob(7, 1), by_token(1, 1)), Some(ErrorCode::QuotaExceeded));
}

#[test]
fn the_whole_store_is_bounded() {
    let mut rig = Rig::with_owner(|config| config.max_total_bytes = 100);
    assert_eq!(rig.store_one(1, &blob(1, 60), by_token(1, 1)), None);
    assert_eq!(rig.store_one(1, &blob(2, 60), by_token(1, 1)), Some(ErrorCode::Unavailable));
    assert_eq!(rig.store_one(1, &blob(1, 60), by_token(1, 1)), None, "this one is here");
    assert_eq!(rig.store_one(1, &blob(3, 40), by_token(1, 1)), None);
}

#[test]
fn strangers_have_a_share_and_contacts_the_rest() {
    let mut rig = Rig::with_owner(|config| {
        config.limits.max_messages = 20;
        config.stranger_share = 10;
    });
    rig.admit(1, &[(1, AdmissionClass::Contact, 0), (2, AdmissionClass::Link, 0)]);
    let longest = blob(0, MAX_BLOB_STRANGER);
    assert_eq!(
        rig.store_one(1, &blob(0, MAX_BLOB_STRANGER + 1), by_token(1, 2)),
        Some(ErrorCode::TooLarge)
    );
    assert_eq!(rig.store_one(1, &longest, by_token(1, 2)), None);
    assert_eq!(rig.store_one(1, &blob(1, 10), by_token(1, 2)), None);
    assert_eq!(rig.store_one(1, &blob(2, 10), by_token(1, 2)), Some(ErrorCode::QuotaExceeded));
    for number in 10..28 {
        assert_eq!(rig.store_one(1, &blob(number, 10), by_token(1, 1)), None);
    }
    assert_eq!(rig.store_one(1, &blob(99, 10), by_token(1, 1)), Some(ErrorCode::QuotaExceeded));
}

#[test]
fn a_share_of_bytes_fits_one_blob_at_least() {
    let mut rig = Rig::with_owner(|config| {
        config.limits.max_bytes = 100_000;
        config.stranger_share = 10;
    });
    assert_eq!(rig.store_one(1, &blob(1, MAX_BLOB_STRANGER), by_token(1, 2)), None);
    assert_eq!(rig.store_one(1, &blob(2, 1), by_token(1, 2)), Some(ErrorCode::QuotaExceeded));
    assert_eq!(rig.store_one(1, &blob(3, 30_000), by_token(1, 1)), None);
}

#[test]
fn a_token_is_worth_its_quota_each_day() {
    let mut rig = Rig::with_owner(|_| {});
    for number in 0..3 {
        assert_eq!(rig.store_one(1, &blob(number, 9), by_token(1, 2)), None);
    }
    let refused = rig.store(1, &blob(9, 9), &[by_token(1, 2)])[0];
    assert_eq!(refused.refused, Some(ErrorCode::RateLimited));
    // It is noon.
    assert_eq!(refused.retry_after, Some(43_200));
    rig.pass(43_199_999);
    assert_eq!(rig.store_one(1, &blob(9, 9), by_token(1, 2)), Some(ErrorCode::RateLimited));
    rig.pass(1);
    assert_eq!(rig.store_one(1, &blob(9, 9), by_token(1, 2)), None);
    // A revoked token is worth nothing, and a wrong one never was.
    rig.admit(1, &[]);
    assert_eq!(rig.store_one(1, &blob(10, 9), by_token(1, 2)), Some(ErrorCode::NotAdmitted));
    assert_eq!(rig.store_one(1, &blob(10, 9), by_token(1, 1)), Some(ErrorCode::NotAdmitted));
}

#[test]
fn work_opens_for_its_hour_blob_and_relay() {
    let mut rig = Rig::with_owner(|config| config.pow_difficulty = POW);
    rig.open(2, None);
    let hour = rig.now.wall.hour();
    let not_admitted = Some(ErrorCode::NotAdmitted);
    let mut store = |blob: &[u8], to| rig.store_one(2, blob, to);
    assert_eq!(store(b"a", by_work(&relay(), 1, b"a", hour)), None);
    assert_eq!(store(b"b", by_work(&relay(), 1, b"b", hour - 1)), None);
    assert_eq!(store(b"c", by_work(&relay(), 1, b"c", hour - 2)), not_admitted);
    assert_eq!(store(b"c", by_work(&relay(), 1, b"c", hour + 1)), not_admitted);
    // A proof of eight bits fits something else by chance once in 256 times; these do not.
    assert_eq!(store(b"d", by_work(&relay(), 1, b"a", hour)), not_admitted, "another blob");
    assert_eq!(store(b"c", by_work(&key(7), 1, b"c", hour)), not_admitted, "another relay");
    assert_eq!(
        store(&blob(1, MAX_BLOB_STRANGER + 1), by_work(&relay(), 1, b"a", hour)),
        Some(ErrorCode::TooLarge)
    );
    // Where no work is taken, none is enough.
    let mut rig = Rig::with_owner(|config| config.pow_difficulty = 0);
    assert_eq!(rig.store_one(1, b"a", by_work(&relay(), 1, b"a", hour)), not_admitted);
}

/// L23: nor what its owner wishes, nor whether the relay is full.
#[test]
fn l23_work_buys_no_knowledge_about_a_mailbox() {
    let mut rig = Rig::with_owner(|config| config.pow_difficulty = POW);
    rig.open(2, Some(2));
    // Person 2 takes short blobs only; person 5 has no mailbox; person 6 is banned.
    rig.register(2, 10, 9);
    rig.open(6, Some(6));
    rig.register(6, u32::MAX, 9);
    rig.engine.set_banned([key(6)].into());
    let hour = rig.now.wall.hour();
    rig.open(3, None);
    for room in [Room::Plenty, Room::NoNewOwners, Room::NoNewMessages] {
        rig.engine.set_room(room, u64::MAX);
        for bytes in [&[7; 20][..], &[]] {
            let mut answer = |owner| rig.store(3, bytes, &[by_work(&relay(), owner, bytes, hour)]);
            let none = answer(5);
            assert_eq!((answer(2), answer(6)), (none.clone(), none), "{room:?}");
        }
    }
}

/// L23: a stranger cannot tell a full mailbox from none, nor a wrong token from no mailbox.
#[test]
fn l23_answers_are_no_oracle() {
    let mut rig = Rig::with_owner(|config| {
        config.pow_difficulty = POW;
        config.limits.max_messages = 1;
    });
    rig.open(2, None);
    let hour = rig.now.wall.hour();
    assert_eq!(rig.store_one(1, b"fills it", by_session(1)), None);
    let full = rig.store(2, b"x", &[by_work(&relay(), 1, b"x", hour)]);
    let none = rig.store(2, b"x", &[by_work(&relay(), 5, b"x", hour)]);
    assert_eq!(full, none);
    let wrong = rig.store(2, b"x", &[by_token(1, 9)]);
    let none = rig.store(2, b"x", &[by_token(5, 9)]);
    assert_eq!(wrong, none);
    assert_eq!(wrong[0].refused, Some(ErrorCode::NotAdmitted));
}

/// L01: who floods a mailbox leaves room for everybody above: work for links, links for contacts,
/// one conversation for the others, and all of them for other mailboxes.
#[test]
fn l01_a_flood_leaves_room_for_everybody_else() {
    let mut rig = Rig::with_owner(|config| {
        config.limits.max_messages = 400;
        config.limits.max_bytes = 400 * 1024;
        config.stranger_share = 10;
        config.sender_share = 25;
        config.pow_difficulty = 1;
        config.pow_per_minute = 0;
    });
    let tokens: Vec<_> = (3..9).map(|number| (number, AdmissionClass::Contact, 0)).collect();
    rig.admit(1, &[&[(2, AdmissionClass::Link, 0)], tokens.as_slice()].concat());
    rig.open(2, Some(2));
    rig.register(2, u32::MAX, u32::MAX);
    rig.admit(2, &[(1, AdmissionClass::Contact, 0)]);
    let hour = rig.now.wall.hour();
    let mut next = 0;
    let mut flood = |rig: &mut Rig, admission: Option<u8>| {
        let mut stored = 0;
        for _ in 0..500 {
            next += 1;
            let blob = blob(next, 100);
            let to = admission
                .map_or_else(|| by_work(&relay(), 1, &blob, hour), |number| by_token(1, number));
            stored += usize::from(rig.store_one(2, &blob, to).is_none());
        }
        stored
    };
    assert_eq!(flood(&mut rig, None), 20, "half of the strangers' share");
    assert_eq!(flood(&mut rig, Some(2)), 20, "the other half is for links");
    assert_eq!(flood(&mut rig, Some(3)), 160, "alone: until the mailbox is half full");
    assert_eq!(flood(&mut rig, Some(4)), 100, "then a quarter for each conversation");
    assert_eq!(flood(&mut rig, Some(3)), 0);
    assert_eq!(flood(&mut rig, Some(5)), 100, "until the mailbox is full");
    let own = Recipient { identity_key: key(1), admission: Admission::Session };
    let result = rig.store(1, b"note", &[own])[0];
    assert_eq!((result.refused, result.retry_after), (Some(ErrorCode::QuotaExceeded), Some(60)));
    assert_eq!(rig.store_one(1, &blob(0, 100), by_token(2, 1)), None, "others are unaffected");
    // Few large blobs are a flood as well as many small ones.
    rig.pass(31 * 86_400_000);
    let large = |number: u64| blob(number, 50 * 1024);
    let stored = (0..9).filter(|n| rig.store_one(1, &large(*n), by_token(1, 3)).is_none());
    assert_eq!(stored.count(), 4);
    assert_eq!(rig.store_one(1, &large(99), by_token(1, 4)), None);
}

/// L18: what nobody fetches goes when it was said to, and its sender knows when: to send it again
/// is to store it again.
#[test]
fn l18_what_expires_was_announced_and_can_be_sent_again() {
    let mut rig = Rig::with_owner(|config| config.limits.retention = 7_200);
    rig.open(2, None);
    let first = rig.store(2, b"blob", &[by_token(1, 1)])[0];
    let until = first.expires_at.expect("the sender is told");
    assert_eq!(until, rig.now.wall + Duration::from_secs(7_200));
    rig.pass(7_199_000);
    assert_eq!(rig.totals().messages, 1);
    let again = rig.store(2, b"blob", &[by_token(1, 1)])[0];
    assert_eq!(again, first, "still the same message, with the same end");
    rig.pass(61_000);
    assert!(rig.now.wall >= until);
    assert_eq!(rig.totals(), crate::store::Totals { mailboxes: 1, ..Default::default() });
    let later = rig.store(2, b"blob", &[by_token(1, 1)])[0];
    assert_eq!(later.expires_at, Some(rig.now.wall + Duration::from_secs(7_200)));
    rig.retrieve(1, 1 << 20);
    assert_eq!(rig.pushed(1).len(), 1, "it is there again, once");
    // A clock that is set back never makes a message older than it was said to become.
    rig.now.wall = Timestamp::from_millis(NOON);
    rig.pass(61_000);
    assert_eq!(rig.totals().messages, 1);
}

/// A clock that jumps ahead by years, and is put right within a day, deletes nothing; nor does one
/// that is wrong at the start.
#[test]
fn a_clock_that_steps_ahead_deletes_nothing() {
    let mut rig = Rig::with_owner(|_| {});
    rig.open(2, None);
    assert_eq!(rig.store_one(2, b"blob", by_token(1, 1)), None);
    rig.pass(7_200_000);
    let decade = Duration::from_secs(10 * 365 * 86_400);
    rig.now.wall = rig.now.wall + decade;
    (0..20).for_each(|_| rig.pass(3_600_000));
    assert_eq!(rig.totals().messages, 1);
    rig.now.wall = rig.now.wall.minus(decade);
    rig.pass(3_600_000);
    rig.engine = Engine::new(rig.engine.config.clone(), relay(), Incarnation::new([9; 16]));
    rig.now = Now { instant: Instant::from_millis(0), wall: rig.now.wall + decade };
    rig.pass(0);
    rig.pass(60_000);
    rig.now.wall = rig.now.wall.minus(decade);
    rig.pass(3_600_000);
    assert_eq!(rig.totals().messages, 1);
    // The operator's word is done whatever the clock was before.
    rig.now.wall = rig.now.wall + decade;
    assert_eq!(rig.engine.expire_all(&mut rig.store, rig.now).unwrap(), 1);
}

/// Whoever was given a token of before cannot send any more, and whoever has the new one can.
#[test]
fn a_new_list_of_tokens_cuts_off_everybody_else() {
    let mut rig = Rig::with_owner(|_| {});
    rig.open(2, None);
    assert_eq!(rig.store_one(2, b"a", by_token(1, 1)), None);
    rig.admit(1, &[(7, AdmissionClass::Contact, 0)]);
    for old in [1, 2] {
        assert_eq!(rig.store_one(2, b"b", by_token(1, old)), Some(ErrorCode::NotAdmitted));
    }
    // Not even what is there already is told to somebody who was cut off.
    assert_eq!(rig.store_one(2, b"a", by_token(1, 1)), Some(ErrorCode::NotAdmitted));
    assert_eq!(rig.store_one(2, b"b", by_token(1, 7)), None);
}

/// Under demand work becomes dearer, for everybody and for key packages too.
#[test]
fn work_costs_more_while_many_pay() {
    let mut rig = Rig::with_owner(|config| {
        config.pow_difficulty = POW;
        config.pow_per_minute = 60;
    });
    rig.open(2, None);
    let hour = rig.now.wall.hour();
    for number in 0..40 {
        let blob = blob(number, 9);
        assert_eq!(rig.store_one(2, &blob, by_work(&relay(), 1, &blob, hour)), None);
    }
    rig.pass(10_000);
    let difficulty = |rig: &mut Rig| {
        let answer = rig.ask(2, Message::RelayInfoRequest(Ping()));
        let Message::RelayInfo(info) = answer else { panic!("{answer:?}") };
        info.pow_difficulty
    };
    assert_eq!(difficulty(&mut rig), POW + 2);
    rig.pass(120_000);
    assert_eq!(difficulty(&mut rig), POW, "quiet for two minutes");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever is stored and acknowledged, in whatever order: no bound is ever exceeded, what was
    /// taken is delivered exactly once until it is acknowledged, and the counters equal the rows.
    #[test]
    fn no_history_breaks_a_bound(
        steps in prop::collection::vec((0..4_u8, 0..40_u64, 1..400_usize), 1..120),
    ) {
        let mut rig = Rig::with_owner(|config| {
            config.limits.max_messages = 10;
            config.limits.max_bytes = 2000;
            config.stranger_share = 30;
            config.max_window = 700;
        });
        rig.open(2, None);
        rig.admit(1, &[(1, AdmissionClass::Contact, 0), (2, AdmissionClass::Link, 6)]);
        rig.retrieve(1, u32::MAX);
        let mut waiting = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for (kind, number, length) in steps {
            match kind {
                0 | 1 => {
                    let bytes = blob(number, length.max(8));
                    let refused = rig.store_one(2, &bytes, by_token(1, kind + 1));
                    if refused.is_none() {
                        waiting.insert(BlobId::of(&key(1), &bytes));
                    }
                }
                2 => {
                    let first = seen.pop_first();
                    if let Some((sequence, blob_id)) = first {
                        rig.acknowledge(1, &[sequence]);
                        waiting.remove(&blob_id);
                    }
                }
                _ => rig.pass(number * 1000),
            }
            for message in rig.pushed(1) {
                prop_assert!(waiting.contains(&message.blob_id));
                prop_assert!(seen.insert((message.sequence, message.blob_id)), "pushed twice");
            }
            let mailbox = rig.store.mailbox(&key(1)).unwrap().unwrap();
            prop_assert!(mailbox.messages <= 10 && mailbox.bytes <= 2000);
            prop_assert!(mailbox.stranger_messages <= 3);
            prop_assert_eq!(mailbox.messages, u64::try_from(waiting.len()).unwrap());
        }
    }
}
