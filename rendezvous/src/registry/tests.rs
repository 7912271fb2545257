//! What the registry must refuse, what it must remember, and that it does what a simple model
//! does, over both kinds of rows.
#![expect(clippy::wildcard_enum_match_arm, reason = "any other answer fails the test")]

mod attacks;
mod invitations;
mod model;

use std::time::Duration;

use sremp_common::entropy::Entropy;
use sremp_common::identity::{Extensions, Flags, Identity, IdentityData};
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::name::Username;
use sremp_common::time::Instant;
use sremp_common::wire::{Bin, LookupResponse, Registration, Servers};

use super::*;
use crate::store::MemoryRows;

const PLENTY: Rate = Rate { count: 1_000_000, per: Duration::from_secs(60) };
const DAY_MS: u64 = 24 * 3_600_000;

fn config() -> RegistryConfig {
    RegistryConfig {
        max_entries: 1_000,
        max_bytes: 1 << 30,
        min_free_bytes: 1 << 20,
        listing: true,
        servers: List::default(),
        admission: Admission::Everybody,
        banned: BTreeSet::new(),
        allow_private_endpoints: false,
        limits: Limits {
            registrations: PLENTY,
            registrations_of_identity: PLENTY,
            new_identities: PLENTY,
            lookups: PLENTY,
            list_pages: PLENTY,
            identities_per_network: 1_000,
            wanted_registrations: 1_000_000,
        },
    }
}

/// Both clocks at one number: milliseconds since 2026-11-20.
fn at(ms: u64) -> Now {
    Now { instant: Instant::from_millis(ms), wall: Timestamp::from_millis(1_795_132_800_000 + ms) }
}

fn secret(number: u64) -> IdentitySecret {
    IdentitySecret::generate(&mut Entropy::from_number(number))
}

fn data(secret: &IdentitySecret, version: u64) -> IdentityData {
    IdentityData {
        username: Username::new("Alice").unwrap(),
        identity_key: secret.public(),
        noise_key: NoiseSecret::generate(&mut Entropy::from_number(1)).public(),
        flags: Flags::default(),
        extensions: None,
        version,
        created: at(0).wall,
    }
}

fn identity(secret: &IdentitySecret, version: u64) -> Identity {
    data(secret, version).sign(secret).unwrap().identity().clone()
}

/// An identity of about `bytes` bytes.
fn long_identity(secret: &IdentitySecret, bytes: usize) -> Identity {
    let mut data = data(secret, 1);
    let metadata = (0..bytes / 1_024)
        .map(|i| (format!("key{i:02}"), Bin::new(vec![7; 1_024]).unwrap()))
        .collect();
    data.extensions =
        Some(Extensions { profile_picture: None, additional_metadata: Some(metadata) });
    data.sign(secret).unwrap().identity().clone()
}

fn origin(exporter: u8) -> Origin {
    Origin { address: "192.0.2.1:40000".parse().unwrap(), exporter: [exporter; 32] }
}

fn registration(ttl: u32, listed: bool) -> Registration {
    let endpoint = "198.51.100.1:7330".parse().unwrap();
    Registration { endpoints: List::new(vec![endpoint]).unwrap(), ttl, listed }
}

fn signed(
    secret: &IdentitySecret,
    identity: Identity,
    registration: Registration,
    exporter: u8,
) -> Register {
    let signature = registration.sign(secret, &identity, &[exporter; 32]);
    Register { identity, registration, signature, invite: None }
}

/// Where is identity `number`?
fn one(number: u64) -> Question {
    Question::One(SoughtKey::of(&secret(number).public()))
}

/// A registry with its questions and its rows, as one thing.
struct World {
    registry: Registry,
    lookups: Lookups,
    rows: MemoryRows,
}

impl World {
    fn new(config: RegistryConfig) -> Self {
        let config = Arc::new(config);
        let lookups = Lookups::new(Arc::clone(&config));
        Self { registry: Registry::new(config), lookups, rows: MemoryRows::default() }
    }

    fn configure(&mut self, config: RegistryConfig) {
        let config = Arc::new(config);
        self.lookups.configure(Arc::clone(&config));
        self.registry.configure(config);
    }

    fn ask(&mut self, question: &Question, now: Now) -> Message {
        self.ask_from(question, &origin(0), now)
    }

    fn ask_from(&mut self, question: &Question, origin: &Origin, now: Now) -> Message {
        match self.lookups.admit(question, origin, now) {
            Ok(admitted) => admitted.answer(&self.rows, question, origin, now).unwrap(),
            Err(refusal) => Message::Error(refusal),
        }
    }

    fn ask_page(&mut self, after: Option<IdentityKey>, now: Now) -> Message {
        let request = Request::List(after);
        self.registry.handle(&mut self.rows, &request, &origin(0), now).unwrap()
    }

    fn register(
        &mut self,
        register: Register,
        exporter: u8,
        now: Now,
    ) -> Result<Registered, ErrorCode> {
        let request = Request::Register(Box::new(register));
        match self.registry.handle(&mut self.rows, &request, &origin(exporter), now).unwrap() {
            Message::Registered(registered) => Ok(registered),
            Message::Error(error) => Err(error.code),
            other => panic!("{other:?}"),
        }
    }

    /// Registers version `version` of identity `number` for `ttl` seconds.
    fn add(
        &mut self,
        number: u64,
        version: u64,
        ttl: u32,
        listed: bool,
        now: Now,
    ) -> Result<Registered, ErrorCode> {
        let secret = secret(number);
        let register = signed(&secret, identity(&secret, version), registration(ttl, listed), 0);
        self.register(register, 0, now)
    }

    fn find(&mut self, number: u64, now: Now) -> Option<PeerInfo> {
        match self.ask(&one(number), now) {
            Message::LookupResponse(response) => {
                assert!(!response.has_more);
                assert!(response.peers.len() <= 1);
                response.peers.into_iter().next()
            }
            other => panic!("{other:?}"),
        }
    }

    fn page(&mut self, after: Option<IdentityKey>, now: Now) -> LookupResponse {
        match self.ask_page(after, now) {
            Message::LookupResponse(response) => response,
            other => panic!("{other:?}"),
        }
    }

    /// All pages, each of which must fit into one message.
    fn list(&mut self, now: Now) -> Vec<PeerInfo> {
        let mut all: Vec<PeerInfo> = Vec::new();
        loop {
            let after = all.last().map(|peer| peer.identity.verify().unwrap().key());
            let page = self.page(after, now);
            let length = Message::LookupResponse(page.clone()).encode(u64::MAX).len();
            assert!(length <= MAX_RENDEZVOUS_MESSAGE, "{length}");
            assert!(!page.has_more || !page.peers.is_empty());
            all.extend(page.peers);
            if !page.has_more {
                return all;
            }
        }
    }

    fn counters(&self) -> Counters {
        let mut counters = self.registry.status(&self.rows).unwrap().counters;
        self.lookups.add_to(&mut counters);
        counters
    }
}

#[test]
fn r01_forged_register() {
    let mut world = World::new(config());
    let alice = secret(1);
    let good = signed(&alice, identity(&alice, 1), registration(600, true), 0);

    // Another key, or another label, over the same bytes.
    let mut forged = good.clone();
    forged.signature = good.registration.sign(&secret(2), &good.identity, &[0; 32]);
    assert_eq!(world.register(forged, 0, at(0)), Err(ErrorCode::AuthenticationFailed));
    let body = sremp_common::wire::registration_body(&good.identity, &good.registration);
    for label in sremp_common::label::SignatureLabel::ALL {
        if label != sremp_common::label::SignatureLabel::RendezvousRegister {
            let mut forged = good.clone();
            forged.signature = alice.sign(label, &[0; 32], &body);
            assert_eq!(world.register(forged, 0, at(0)), Err(ErrorCode::AuthenticationFailed));
        }
    }

    // Everything that is signed, changed after the signature.
    let changes: [fn(&mut Registration); 4] = [
        |r| r.endpoints = List::default(),
        |r| r.endpoints = List::new(vec!["198.51.100.1:7331".parse().unwrap()]).unwrap(),
        |r| r.ttl += 1,
        |r| r.listed = false,
    ];
    for change in changes {
        let mut forged = good.clone();
        change(&mut forged.registration);
        assert_eq!(world.register(forged, 0, at(0)), Err(ErrorCode::AuthenticationFailed));
    }
    assert_eq!(world.rows, MemoryRows::default());

    // Every single bit of the whole message. Most no longer decode; none registers.
    let bytes = Message::Register(good.clone()).encode(0);
    for bit in 0..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok((0, Message::Register(forged))) = Message::decode(&bytes) {
            let refused = world.register(forged, 0, at(0));
            assert_eq!(refused, Err(ErrorCode::AuthenticationFailed), "bit {bit}");
        }
    }
    assert_eq!(world.rows, MemoryRows::default());
    assert!(world.counters().forged > 8);
    world.register(good, 0, at(0)).unwrap();
}

#[test]
fn r02_replayed_register() {
    let mut world = World::new(config());
    let alice = secret(1);
    let good = signed(&alice, identity(&alice, 1), registration(600, false), 1);
    // A session of another connection, or of another server, has another exporter.
    for exporter in [0, 2, 255] {
        let refused = world.register(good.clone(), exporter, at(0));
        assert_eq!(refused, Err(ErrorCode::AuthenticationFailed));
    }
    assert!(world.find(1, at(0)).is_none());
    world.register(good.clone(), 1, at(0)).unwrap();
    // Neither does the replay prolong what is there.
    assert_eq!(world.register(good, 2, at(599_000)), Err(ErrorCode::AuthenticationFailed));
    assert!(!world.find(1, at(600_000)).unwrap().online);
}

#[test]
fn r03_register_over_another_identity() {
    let mut world = World::new(config());
    world.add(2, 1, 600, false, at(0)).unwrap();
    let before = world.rows.clone();
    let (mallory, bob) = (secret(1), secret(2));
    let register = signed(&mallory, identity(&bob, 2), registration(600, false), 0);
    assert_eq!(world.register(register, 0, at(1)), Err(ErrorCode::AuthenticationFailed));
    // Nor with an identity that says it is Bob's, but is signed by Mallory.
    let mut bytes = encode(&identity(&bob, 2));
    let own = encode(&identity(&mallory, 2));
    let signature_at = bytes.len() - 64;
    bytes.truncate(signature_at);
    bytes.extend_from_slice(&own[own.len() - 64..]);
    let forged: Identity = sremp_common::wire::decode(&bytes).unwrap();
    let register = signed(&mallory, forged, registration(600, false), 0);
    assert_eq!(world.register(register, 0, at(1)), Err(ErrorCode::AuthenticationFailed));
    assert_eq!(world.rows, before);
    assert_eq!(world.counters().forged, 2);
}

#[test]
fn r04_identity_rollback_and_equivocation() {
    let mut world = World::new(config());
    let alice = secret(1);
    world.add(1, 5, 600, false, at(0)).unwrap();
    let before = world.rows.clone();
    assert_eq!(world.add(1, 4, 600, false, at(1)), Err(ErrorCode::Stale));

    let mut other = data(&alice, 5);
    other.username = Username::new("Alicia").unwrap();
    let other = other.sign(&alice).unwrap().identity().clone();
    let register = signed(&alice, other, registration(600, false), 0);
    assert_eq!(world.register(register, 0, at(1)), Err(ErrorCode::Stale));
    assert_eq!(world.rows, before);
    assert_eq!((world.counters().rollbacks, world.counters().equivocations), (1, 1));

    world.add(1, 5, 600, false, at(2)).unwrap();
    world.add(1, 6, 600, false, at(3)).unwrap();
    assert_eq!(world.find(1, at(4)).unwrap().identity, identity(&alice, 6));
    // Expiry does not make it forget the version.
    let later = at(600_000 + 29 * DAY_MS);
    world.registry.sweep(&mut world.rows, later.wall).unwrap();
    assert_eq!(world.add(1, 5, 600, false, later), Err(ErrorCode::Stale));
}

#[test]
fn r05_expired_registration_served() {
    // Never swept before, or swept at that moment: it makes no difference to a reader.
    for sweep in [false, true] {
        let see = |ms: u64| {
            let mut world = World::new(config());
            let registered = world.add(1, 1, 600, true, at(0)).unwrap();
            assert_eq!(registered.expires_at, at(600_000).wall);
            if sweep {
                world.registry.sweep(&mut world.rows, at(ms).wall).unwrap();
            }
            (world.find(1, at(ms)), world.list(at(ms)).len())
        };
        let (found, listed) = see(599_999);
        let found = found.unwrap();
        assert!(found.online && !found.endpoints.is_empty() && listed == 1);
        for ms in [600_000, 600_001, 600_000 + 30 * DAY_MS - 1] {
            let (found, listed) = see(ms);
            let found = found.unwrap();
            assert!(!found.online && found.endpoints.is_empty() && listed == 0, "{ms}");
            assert_eq!(found.last_seen, at(0).wall);
        }
        for ms in [600_000 + 30 * DAY_MS, 600_001 + 30 * DAY_MS] {
            assert_eq!(see(ms), (None, 0));
        }
    }
}

#[test]
fn sweeping_leaves_no_row_of_who_is_forgotten() {
    let mut world = World::new(config());
    world.add(1, 1, 600, true, at(0)).unwrap();
    world.registry.sweep(&mut world.rows, at(600_000).wall).unwrap();
    assert_eq!(world.rows.count(Table::Entries).unwrap(), 1);
    assert_eq!(world.rows.count(Table::Listed).unwrap(), 0);
    world.registry.sweep(&mut world.rows, at(600_000 + 30 * DAY_MS).wall).unwrap();
    for table in [Table::Entries, Table::Standing, Table::Expired] {
        assert_eq!(world.rows.count(table).unwrap(), 0, "{table:?}");
    }
}

#[test]
fn r06_ttl_is_clamped() {
    for (asked, given) in [
        (0, 60),
        (1, 60),
        (59, 60),
        (60, 60),
        (61, 61),
        (86_399, 86_399),
        (86_400, 86_400),
        (86_401, 86_400),
        (u32::MAX, 86_400),
    ] {
        for now in [at(0), Now { wall: Timestamp::from_millis(u64::MAX), ..at(0) }] {
            let mut world = World::new(config());
            let registered = world.add(1, 1, asked, false, now).unwrap();
            assert_eq!(registered.expires_at, now.wall + Duration::from_secs(u64::from(given)));
            // Half of it, and up to an eighth less.
            let half = given / 2;
            let fits = half - half / 8..=half;
            assert!(fits.contains(&registered.renewal_interval), "{registered:?}");
        }
    }
}

#[test]
fn r07_listing_shows_who_wants_it_in_pages_that_fit() {
    let mut world = World::new(config());
    for number in 0..40 {
        world.add(number, 1, 600, number % 2 == 0, at(0)).unwrap();
    }
    assert_eq!(world.page(None, at(0)).peers.len(), MAX_LIST_PAGE);
    let listed: Vec<_> =
        world.list(at(0)).iter().map(|peer| peer.identity.verify().unwrap().key()).collect();
    let mut wanted: Vec<_> = (0..40).step_by(2).map(|number| secret(number).public()).collect();
    wanted.sort_unstable();
    assert_eq!(listed, wanted);
    // Who changes their mind is gone from the next page.
    world.add(0, 1, 600, false, at(1)).unwrap();
    assert_eq!(world.list(at(1)).len(), 19);
}

#[test]
fn pages_of_long_identities_fit_into_a_message() {
    let mut world = World::new(config());
    for number in 0..9 {
        let secret = secret(number);
        let bytes = if number % 3 == 0 { 15 * 1_024 } else { 3 * 1_024 };
        let register = signed(&secret, long_identity(&secret, bytes), registration(600, true), 0);
        world.register(register, 0, at(0)).unwrap();
    }
    assert!(world.page(None, at(0)).has_more);
    assert_eq!(world.list(at(0)).len(), 9);
}

#[test]
fn a_listing_can_be_switched_off_and_is_rate_limited() {
    let mut world = World::new(RegistryConfig { listing: false, ..config() });
    let Message::Error(error) = world.ask_page(None, at(0)) else { panic!() };
    assert_eq!(error.code, ErrorCode::Unsupported);

    let mut config = config();
    config.limits.list_pages = Rate { count: 2, per: Duration::from_secs(60) };
    let mut world = World::new(config);
    for _ in 0..2 {
        assert!(matches!(world.ask_page(None, at(0)), Message::LookupResponse(_)));
    }
    let Message::Error(error) = world.ask_page(None, at(0)) else { panic!() };
    assert_eq!((error.code, error.retry_after), (ErrorCode::RateLimited, Some(30)));
    assert_eq!(world.counters().rate_limited, 1);
    assert!(matches!(world.ask_page(None, at(30_000)), Message::LookupResponse(_)));
    // Lookups of one have their own allowance.
    assert!(world.find(1, at(0)).is_none());
}

#[test]
fn r08_known_and_unknown_have_one_shape() {
    let mut world = World::new(config());
    world.add(1, 1, 600, false, at(0)).unwrap();
    for number in [1, 2] {
        assert!(matches!(world.ask(&one(number), at(0)), Message::LookupResponse(_)));
    }
    // What is no key at all is nobody's: zero, a point of small order, no point, not reduced.
    let unknown = world.ask(&one(2), at(0));
    for bytes in [[0; 32], [1; 32], [2; 32], [0xff; 32]] {
        let question = Question::One(SoughtKey::new(bytes));
        assert_eq!(world.ask(&question, at(0)), unknown);
    }
}

#[test]
fn last_seen_is_a_day_and_the_observed_address_is_told() {
    let mut world = World::new(config());
    let registered = world.add(1, 1, 86_400, false, at(DAY_MS * 3 + 12_345_678)).unwrap();
    assert_eq!(registered.observed, Some("192.0.2.1:40000".parse().unwrap()));
    assert_eq!(world.find(1, at(DAY_MS * 4)).unwrap().last_seen, at(DAY_MS * 3).wall);
}

#[test]
fn a_clock_that_was_ahead_leaves_nobody_online_for_years() {
    let mut world = World::new(config());
    world.add(1, 1, 86_400, true, at(400 * DAY_MS)).unwrap();
    let found = world.find(1, at(0)).unwrap();
    assert!(!found.online && found.endpoints.is_empty());
    assert!(world.list(at(0)).is_empty());
    // Half an hour is no reason to doubt.
    let ahead = Now { wall: at(1_800_000).wall, ..at(400 * DAY_MS) };
    world.add(1, 1, 86_400, true, ahead).unwrap();
    assert!(world.find(1, at(0)).unwrap().online);
}

#[test]
fn an_endpoint_without_a_port_is_refused() {
    let mut world = World::new(config());
    let alice = secret(1);
    let mut registration = registration(600, false);
    let nowhere = SocketAddr::from(([198, 51, 100, 1], 0));
    registration.endpoints = List::new(vec![nowhere.into()]).unwrap();
    let register = signed(&alice, identity(&alice, 1), registration, 0);
    assert_eq!(world.register(register, 0, at(0)), Err(ErrorCode::Malformed));
}

#[test]
fn r18_a_full_registry_drops_the_longest_expired_and_nobody_who_stands() {
    let mut world = World::new(RegistryConfig { max_entries: 3, ..config() });
    world.add(1, 1, 60, false, at(0)).unwrap();
    world.add(2, 1, 120, false, at(0)).unwrap();
    world.add(3, 1, 86_400, false, at(0)).unwrap();
    assert_eq!(world.add(4, 1, 600, false, at(59_999)), Err(ErrorCode::Unavailable));
    // Renewals need no room.
    world.add(3, 1, 86_400, false, at(59_999)).unwrap();
    // Both have expired: the one that did so first goes.
    world.add(4, 1, 86_400, false, at(130_000)).unwrap();
    assert!(world.find(1, at(130_000)).is_none());
    assert!(world.find(2, at(130_000)).is_some());
    // Who comes back is not pushed out by itself.
    world.add(2, 2, 86_400, false, at(130_001)).unwrap();
    assert_eq!(world.add(5, 1, 600, false, at(130_002)), Err(ErrorCode::Unavailable));
    assert_eq!((world.counters().full, world.counters().forgotten), (2, 1));
}

#[test]
fn r18_bytes_are_bounded_too() {
    let [small, large] = [1, 2].map(secret);
    let mut world = World::new(RegistryConfig { max_bytes: 10_000, ..config() });
    let too_large = signed(&large, long_identity(&large, 12_288), registration(60, false), 0);
    assert_eq!(world.register(too_large, 0, at(0)), Err(ErrorCode::Unavailable));
    let fits = signed(&large, long_identity(&large, 9_216), registration(60, false), 0);
    world.register(fits, 0, at(0)).unwrap();
    let more = signed(&small, long_identity(&small, 1_024), registration(60, false), 0);
    assert_eq!(world.register(more.clone(), 0, at(0)), Err(ErrorCode::Unavailable));
    world.register(more, 0, at(60_000)).unwrap();
    assert!(world.find(2, at(60_000)).is_none());
    let status = world.registry.status(&world.rows).unwrap();
    assert_eq!(status.entries, 1);
    assert!(status.bytes > 1_024 && status.bytes < 2_048, "{}", status.bytes);
    world.registry.sweep(&mut world.rows, at(40 * DAY_MS).wall).unwrap();
    assert_eq!(world.registry.status(&world.rows).unwrap().bytes, 0);
}

#[test]
fn r08_guessing_who_is_here_is_rate_limited() {
    let mut config = config();
    config.limits.lookups = Rate { count: 3, per: Duration::from_secs(60) };
    let mut world = World::new(config.clone());
    world.add(1, 1, 600, false, at(0)).unwrap();
    // Questions of both kinds count as one kind, whoever is asked for.
    for question in [one(1), one(2), Question::Servers] {
        assert!(!matches!(world.ask(&question, at(0)), Message::Error(_)));
    }
    for question in [one(1), one(2), Question::Servers] {
        let Message::Error(error) = world.ask(&question, at(0)) else { panic!() };
        assert_eq!((error.code, error.retry_after), (ErrorCode::RateLimited, Some(20)));
    }
    assert_eq!((world.counters().lookups, world.counters().rate_limited), (2, 3));
    // Another network is not concerned, and neither are registrations and listings.
    assert!(matches!(
        world.ask_from(
            &one(1),
            &Origin { address: "203.0.113.1:1".parse().unwrap(), ..origin(0) },
            at(0)
        ),
        Message::LookupResponse(_)
    ));
    world.add(1, 1, 600, false, at(0)).unwrap();
    assert_eq!(world.list(at(0)).len(), 0);
    // An allowance outlives a reload that does not concern it, and no other.
    world.configure(RegistryConfig { listing: false, ..config.clone() });
    assert!(matches!(world.ask(&one(1), at(0)), Message::Error(_)));
    config.limits.lookups.count = 4;
    world.configure(config);
    assert!(matches!(world.ask(&one(1), at(0)), Message::LookupResponse(_)));
}

#[test]
fn fresh_keys_of_one_network_are_counted() {
    let mut config = config();
    config.limits.new_identities = Rate { count: 2, per: Duration::from_secs(3_600) };
    let mut world = World::new(config);
    world.add(1, 1, 600, false, at(0)).unwrap();
    world.add(2, 1, 600, false, at(0)).unwrap();
    assert_eq!(world.add(3, 1, 600, false, at(0)), Err(ErrorCode::RateLimited));
    world.add(1, 1, 600, false, at(1)).unwrap();
    world.add(3, 1, 600, false, at(1_800_000)).unwrap();
}

#[test]
fn servers_are_suggested_as_configured() {
    let servers = List::new(vec!["rendezvous.example.org:7332".parse().unwrap()]).unwrap();
    let mut world = World::new(RegistryConfig { servers: servers.clone(), ..config() });
    let Message::Servers(answer) = world.ask(&Question::Servers, at(7)) else { panic!() };
    assert_eq!(answer, Servers { servers, time: at(7).wall });
}

#[test]
fn a_damaged_row_is_replaced_by_the_next_registration() {
    let mut world = World::new(config());
    world.add(1, 1, 600, true, at(0)).unwrap();
    world.rows.put(Table::Entries, secret(1).public().as_bytes(), b"damaged").unwrap();
    assert!(world.find(1, at(1)).is_none());
    assert!(world.list(at(1)).is_empty());
    world.add(1, 1, 600, true, at(2)).unwrap();
    assert_eq!(world.list(at(3)).len(), 1);
    world.registry.sweep(&mut world.rows, at(60 * DAY_MS).wall).unwrap();
    for table in [Table::Entries, Table::Listed, Table::Standing, Table::Expired] {
        assert_eq!(world.rows.count(table).unwrap(), 0, "{table:?}");
    }
}
