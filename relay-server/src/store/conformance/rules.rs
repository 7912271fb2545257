//! Invitations are good for so many owners and so long; bans stay until they are taken back.

use sremp_common::id::Token;
use sremp_common::time::Timestamp;

use super::Store;
use crate::store::Invite;

fn hash(number: u8) -> sremp_common::id::TokenHash {
    Token::new([number; 16]).hash()
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_millis(ms)
}

pub(super) fn invitations_are_used_up(store: &mut dyn Store) {
    let twice = Invite { uses: 2, expires_at: at(100) };
    store.run(true, &mut |boxes| {
        assert!(boxes.add_invite(&hash(1), twice).unwrap());
        assert!(boxes.add_invite(&hash(2), Invite { uses: 1, expires_at: at(50) }).unwrap());
        assert!(!boxes.spend_invite(&hash(3), at(1)).unwrap(), "never made");
        assert!(!boxes.spend_invite(&hash(2), at(50)).unwrap(), "too late");
        assert!(boxes.spend_invite(&hash(1), at(99)).unwrap());
    });
    // What a transaction that is given up spent is not spent.
    store.run(false, &mut |boxes| assert!(boxes.spend_invite(&hash(1), at(1)).unwrap()));
    store.reopen();
    store.run(true, &mut |boxes| {
        assert_eq!(boxes.invites().unwrap().len(), 2);
        assert!(boxes.invites().unwrap().contains(&(hash(1), Invite { uses: 1, ..twice })));
        assert!(boxes.spend_invite(&hash(1), at(1)).unwrap());
        assert!(!boxes.spend_invite(&hash(1), at(1)).unwrap(), "used up");
        assert!(boxes.add_invite(&hash(4), twice).unwrap());
        boxes.expire_invites(at(50)).unwrap();
        assert_eq!(boxes.invites().unwrap(), [(hash(4), twice)]);
        assert!(boxes.remove_invite(&hash(4)).unwrap());
        assert!(!boxes.remove_invite(&hash(4)).unwrap());
    });
}

pub(super) fn bans_stay_until_taken_back(store: &mut dyn Store) {
    store.run(true, &mut |boxes| {
        assert!(boxes.ban("b").unwrap() && boxes.ban("a").unwrap() && boxes.ban("a").unwrap());
        assert!(!boxes.ban(&"x".repeat(crate::store::rules::MAX_BAN + 1)).unwrap());
    });
    store.reopen();
    store.run(true, &mut |boxes| {
        assert_eq!(boxes.bans().unwrap(), ["a", "b"]);
        assert!(boxes.unban("a").unwrap() && !boxes.unban("a").unwrap());
        assert_eq!(boxes.bans().unwrap(), ["b"]);
    });
}
