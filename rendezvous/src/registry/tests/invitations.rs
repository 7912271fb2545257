//! Who is let in by an invitation, and what an invitation is not used up by; how often one identity
//! may come.

use sremp_common::id::Token;
use sremp_common::invite::Invite;

use super::*;

fn token(number: u8) -> Token {
    Token::new([number; 16])
}

fn by_invitation() -> World {
    World::new(RegistryConfig { admission: Admission::Invited, ..config() })
}

impl World {
    fn invite(&mut self, number: u8, uses: u32, until: Now) {
        let invite = Invite { uses, expires_at: until.wall };
        assert!(invites::add(&mut self.rows, &token(number).hash(), invite, at(0).wall).unwrap());
    }

    fn add_with(&mut self, number: u64, invite: Option<u8>, now: Now) -> Result<(), ErrorCode> {
        let secret = secret(number);
        let mut register = signed(&secret, identity(&secret, 1), registration(600, true), 0);
        register.invite = invite.map(token);
        self.register(register, 0, now).map(drop)
    }

    fn uses(&self) -> Vec<u32> {
        invites::all(&self.rows).unwrap().iter().map(|(_, invite)| invite.uses).collect()
    }
}

const REFUSED: Result<(), ErrorCode> = Err(ErrorCode::NotAdmitted);

#[test]
fn an_invitation_lets_in_as_many_as_it_says_and_they_stay() {
    let mut world = by_invitation();
    world.invite(1, 2, at(10_000));
    assert_eq!(world.add_with(1, None, at(1)), REFUSED);
    assert_eq!(world.add_with(1, Some(9), at(1)), REFUSED, "never made");
    assert_eq!(world.add_with(1, Some(1), at(1)), Ok(()));
    // To renew takes none, whether it is shown or not.
    assert_eq!(world.add_with(1, Some(1), at(2)), Ok(()));
    assert_eq!(world.add_with(1, None, at(3)), Ok(()));
    assert_eq!(world.uses(), [1]);
    assert_eq!(world.add_with(2, Some(1), at(4)), Ok(()));
    assert!(world.uses().is_empty());
    assert_eq!(world.add_with(3, Some(1), at(5)), REFUSED, "used up");
    // Whoever is offline for a while is known all the same; whoever was forgotten is not.
    assert_eq!(world.add_with(1, None, at(29 * DAY_MS)), Ok(()));
    world.registry.sweep(&mut world.rows, at(70 * DAY_MS).wall).unwrap();
    world.registry.sweep(&mut world.rows, at(70 * DAY_MS).wall).unwrap();
    assert_eq!(world.add_with(1, Some(1), at(70 * DAY_MS)), REFUSED);
}

#[test]
fn an_invitation_ends_or_is_taken_back() {
    let mut world = by_invitation();
    world.invite(1, 9, at(100));
    world.invite(2, 9, at(1_000_000));
    assert_eq!(world.add_with(1, Some(1), at(99)), Ok(()));
    assert_eq!(world.add_with(2, Some(1), at(100)), REFUSED);
    invites::expire(&mut world.rows, at(100).wall).unwrap();
    assert_eq!(world.uses(), [9]);
    assert!(invites::remove(&mut world.rows, &token(2).hash()).unwrap());
    assert!(!invites::remove(&mut world.rows, &token(2).hash()).unwrap());
    assert_eq!(world.add_with(2, Some(2), at(101)), REFUSED);
}

#[test]
fn whoever_is_refused_for_something_else_uses_up_no_invitation() {
    let mut world = by_invitation();
    world.invite(1, 1, at(1_000_000));
    let refusing = |change: fn(&mut RegistryConfig)| {
        let mut config = RegistryConfig { admission: Admission::Invited, ..config() };
        change(&mut config);
        config
    };
    let banned = secret(1).public();
    let mut ban = refusing(|_| {});
    ban.banned = [SoughtKey::of(&banned)].into();
    for config in [
        ban,
        refusing(|config| config.limits.identities_per_network = 0),
        refusing(|config| config.max_bytes = 0),
        refusing(|config| config.max_entries = 0),
    ] {
        world.configure(config);
        assert!(world.add_with(1, Some(1), at(1)).is_err());
        assert_eq!(world.uses(), [1]);
    }
    // Nor where none is asked for.
    world.configure(config());
    assert_eq!(world.add_with(1, Some(1), at(2)), Ok(()));
    assert_eq!(world.uses(), [1]);
}

#[test]
fn invitations_are_bounded() {
    let mut world = by_invitation();
    let invite = Invite { uses: 1, expires_at: at(10).wall };
    let add = |world: &mut World, number: u32, now: u64| {
        let [a, b, c, d] = number.to_be_bytes();
        let token = Token::new([a, b, c, d, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
        invites::add(&mut world.rows, &token.hash(), invite, at(now).wall).unwrap()
    };
    // To look through all of them for each would take long; they are written as they would be.
    for number in 0..u32::try_from(sremp_common::invite::MAX_INVITES).unwrap() {
        let row = [&1_u32.to_be_bytes()[..], &at(10).wall.as_millis().to_be_bytes()].concat();
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        world.rows.put(Table::Invites, &key, &row).unwrap();
    }
    assert!(!add(&mut world, 1, 9));
    assert!(add(&mut world, 1, 10), "old ones make room");
    assert_eq!(world.uses(), [1]);
}

#[test]
fn one_identity_comes_no_more_often_than_it_may_wherever_it_comes_from() {
    let mut config = config();
    config.limits.registrations_of_identity = Rate { count: 2, per: Duration::from_secs(60) };
    let mut world = World::new(config);
    let register = |world: &mut World, number: u64, host: u8, ms: u64| {
        let secret = secret(number);
        let register = signed(&secret, identity(&secret, 1), registration(600, true), 0);
        let address = format!("192.0.2.{host}:1").parse().unwrap();
        let origin = Origin { address, exporter: [0; 32] };
        let request = Request::Register(Box::new(register));
        world.registry.handle(&mut world.rows, &request, &origin, at(ms)).unwrap()
    };
    for host in [1, 2] {
        assert!(matches!(register(&mut world, 1, host, 1), Message::Registered(_)));
    }
    let Message::Error(refused) = register(&mut world, 1, 3, 1) else { panic!() };
    assert_eq!((refused.code, refused.retry_after), (ErrorCode::RateLimited, Some(30)));
    assert!(matches!(register(&mut world, 2, 3, 1), Message::Registered(_)));
    // Whoever obeys comes back in time.
    assert!(matches!(register(&mut world, 1, 3, 30_001), Message::Registered(_)));
    assert_eq!(world.counters().rate_limited, 1);
    // Nobody else can use up what is somebody's: it takes a signature by the key.
    let alice = secret(3);
    for _ in 0..10 {
        let mut forged = signed(&alice, identity(&alice, 1), registration(600, true), 0);
        forged.registration.listed = false;
        assert_eq!(world.register(forged, 0, at(1)), Err(ErrorCode::AuthenticationFailed));
    }
    assert!(matches!(register(&mut world, 3, 4, 1), Message::Registered(_)));
}
