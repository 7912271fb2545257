//! Scraping, guessing, sending others astray, wrong clocks, floods of fresh keys.

use std::cell::Cell;

use sremp_common::limit::{MAX_IDENTITY, MAX_METADATA_VALUE, MAX_PICTURE};
use sremp_common::wire::{WireError, decode};

use super::*;
use crate::store::ReadRows;

/// Rows that count how often they are read.
struct Counting<'r> {
    rows: &'r MemoryRows,
    reads: Cell<u32>,
}

impl ReadRows for Counting<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.reads.set(self.reads.get() + 1);
        self.rows.get(table, key)
    }
}

fn from(address: &str) -> Origin {
    Origin { address: SocketAddr::new(address.parse().unwrap(), 40_000), exporter: [0; 32] }
}

/// Registers identity `number` from an address, with one endpoint.
fn register_from(
    world: &mut World,
    number: u64,
    address: &str,
    endpoint: &str,
    now: Now,
) -> Result<Registered, ErrorCode> {
    let secret = secret(number);
    let endpoints = List::new(vec![endpoint.parse().unwrap()]).unwrap();
    let registration = Registration { endpoints, ttl: 600, listed: true };
    let register = signed(&secret, identity(&secret, 1), registration, 0);
    let request = Request::Register(Box::new(register));
    match world.registry.handle(&mut world.rows, &request, &from(address), now).unwrap() {
        Message::Registered(registered) => Ok(registered),
        Message::Error(error) => Err(error.code),
        other => panic!("{other:?}"),
    }
}

fn find_from(world: &mut World, number: u64, address: &str, now: Now) -> Option<PeerInfo> {
    match world.ask_from(&one(number), &from(address), now) {
        Message::LookupResponse(response) => response.peers.into_iter().next(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn r07_a_scraper_gets_so_many_pages_a_minute_and_no_more() {
    let mut config = config();
    config.limits.list_pages = Rate { count: 5, per: Duration::from_secs(60) };
    let mut world = World::new(config);
    for number in 0..400 {
        world.add(number, 1, 86_400, number % 2 == 0, at(0)).unwrap();
    }
    let (mut seen, mut after) = (0, None);
    for second in 0..60 {
        match world.ask_page(after, at(second * 1_000)) {
            Message::LookupResponse(page) => {
                seen += page.peers.len();
                after = page.peers.iter().last().map(|peer| peer.identity.verify().unwrap().key());
            }
            Message::Error(error) => {
                assert_eq!(error.code, ErrorCode::RateLimited);
                assert!(error.retry_after.is_some_and(|seconds| (1..=12).contains(&seconds)));
            }
            other => panic!("{other:?}"),
        }
    }
    // Five at once, and one each twelve seconds.
    assert_eq!(seen, 9 * MAX_LIST_PAGE);
}

#[test]
fn r08_known_and_unknown_cost_the_same_work() {
    let mut world = World::new(config());
    world.add(1, 1, 600, false, at(0)).unwrap();
    world.add(2, 1, 60, false, at(0)).unwrap();
    world.add(4, 1, 600, false, at(0)).unwrap();
    let banned = [3, 4].map(|number| SoughtKey::of(&secret(number).public())).into();
    world.configure(RegistryConfig { banned, ..config() });
    // Standing, expired, unknown and banned, known and banned.
    let works: Vec<u32> = [1, 2, 9, 3, 4]
        .into_iter()
        .map(|number| {
            let (question, origin, now) = (one(number), origin(0), at(90_000));
            let rows = Counting { rows: &world.rows, reads: Cell::new(0) };
            let admitted = world.lookups.admit(&question, &origin, now).unwrap();
            admitted.answer(&rows, &question, &origin, now).unwrap();
            rows.reads.get()
        })
        .collect();
    assert_eq!(works, [1; 5]);
    // Who is banned or forgotten looks like who never was here, byte for byte.
    let answer = |world: &mut World, number: u64, now| world.ask(&one(number), now).encode(0);
    let unknown = answer(&mut world, 9, at(90_000));
    assert_eq!(answer(&mut world, 4, at(90_000)), unknown);
    assert_eq!(answer(&mut world, 2, at(40 * DAY_MS)), unknown);
}

#[test]
fn r09_only_what_the_operator_wrote_is_suggested() {
    let servers = List::new(vec!["rendezvous.example.org:7332".parse().unwrap()]).unwrap();
    let mut world = World::new(RegistryConfig { servers: servers.clone(), ..config() });
    // Whoever registers cannot bring a server into the list.
    register_from(&mut world, 1, "192.0.2.1", "evil.example.org:7332", at(0)).unwrap();
    let Message::Servers(answer) = world.ask(&Question::Servers, at(0)) else { panic!() };
    assert_eq!(answer.servers, servers);
}

#[test]
fn r10_nobody_is_sent_into_a_private_network() {
    for endpoint in [
        "127.0.0.1:7330",
        "10.0.0.1:7330",
        "169.254.169.254:7330",
        "[::1]:7330",
        "[fd00::1]:7330",
        "[fe80::1]:7330",
        "[::ffff:10.0.0.1]:7330",
        "[64:ff9b::a00:1]:7330",
        "[2002:a00:1::]:7330",
        "100.64.0.1:7330",
        "0.0.0.0:7330",
        "224.0.0.1:7330",
        "255.255.255.255:7330",
        "localhost:7330",
        "router.local:7330",
    ] {
        let mut world = World::new(config());
        let outside = register_from(&mut world, 1, "192.0.2.1", endpoint, at(0));
        assert_eq!(outside, Err(ErrorCode::NotAllowed), "{endpoint}");
        assert!(world.find(1, at(0)).is_none());
        // Neighbours in one private network may meet there; others are not told.
        register_from(&mut world, 1, "10.0.0.7", endpoint, at(0)).unwrap();
        let neighbour = find_from(&mut world, 1, "::ffff:10.0.0.8", at(0)).unwrap();
        assert_eq!(neighbour.endpoints.len(), 1);
        let stranger = find_from(&mut world, 1, "192.0.2.9", at(0)).unwrap();
        assert!(stranger.online && stranger.endpoints.is_empty(), "{endpoint}");
        assert!(world.list(at(0)).iter().all(|peer| peer.endpoints.is_empty()));

        let open = RegistryConfig { allow_private_endpoints: true, ..config() };
        let mut world = World::new(open);
        register_from(&mut world, 1, "192.0.2.1", endpoint, at(0)).unwrap();
        assert_eq!(world.find(1, at(0)).unwrap().endpoints.len(), 1);
    }
}

#[test]
fn r12_nobody_is_sent_to_another_service() {
    let mut world = World::new(config());
    for port in [22, 25, 53, 6_379, 6_667] {
        let victim = format!("198.51.100.7:{port}");
        let refused = register_from(&mut world, 1, "192.0.2.1", &victim, at(0));
        assert_eq!(refused, Err(ErrorCode::NotAllowed), "{port}");
    }
    assert_eq!(world.counters().not_admitted, 5);
    register_from(&mut world, 1, "192.0.2.1", "198.51.100.7:7330", at(0)).unwrap();
}

#[test]
fn r13_no_clock_breaks_the_registry() {
    let [first, today, last] = [0, at(0).wall.as_millis(), u64::MAX].map(Timestamp::from_millis);
    for (registered, asked) in [(first, today), (today, first), (last, today), (today, last)] {
        let mut world = World::new(config());
        let now = |wall| Now { instant: Instant::from_millis(1), wall };
        world.add(1, 1, 3_600, true, now(registered)).unwrap();
        let found = world.find(1, now(asked));
        assert!(found.is_none_or(|peer| !peer.online), "{registered:?} {asked:?}");
        world.registry.sweep(&mut world.rows, asked).unwrap();
        // The next heartbeat puts everything right.
        world.add(1, 1, 3_600, true, now(asked)).unwrap();
        assert!(asked == last || world.find(1, now(asked)).unwrap().online);
    }
    // An hour off is no reason to doubt, whichever way.
    let mut world = World::new(config());
    world.add(1, 1, 7_200, true, at(DAY_MS)).unwrap();
    assert!(world.find(1, at(DAY_MS - 3_600_000)).unwrap().online);
    assert!(world.find(1, at(DAY_MS + 3_600_000)).unwrap().online);
    // The interval is a duration, whatever the clock says.
    let told = world.add(2, 1, 3_600, true, at(2 * DAY_MS)).unwrap();
    assert!((1..=1_800).contains(&told.renewal_interval));
}

#[test]
fn r16_a_name_is_nobody() {
    let mut world = World::new(config());
    // Latin, and Cyrillic where it looks the same.
    for (number, name) in [(1, "Alice"), (2, "\u{410}lice"), (3, "Alice")] {
        let secret = secret(number);
        let data = IdentityData { username: Username::new(name).unwrap(), ..data(&secret, 1) };
        let identity = data.sign(&secret).unwrap().identity().clone();
        world.register(signed(&secret, identity, registration(600, true), 0), 0, at(0)).unwrap();
    }
    // Each is found by its key alone, and none hides another.
    for number in [1, 2, 3] {
        let found = world.find(number, at(0)).unwrap().identity.verify().unwrap();
        assert_eq!(found.key(), secret(number).public());
    }
    assert_eq!(world.list(at(0)).len(), 3);
}

#[test]
fn r17_oversized_identities_do_not_get_in() {
    let alice = secret(1);
    let with_picture = |bytes: usize| {
        let mut data = data(&alice, 1);
        let profile_picture = Some(Bin::new(vec![7; bytes]).ok()?);
        data.extensions = Some(Extensions { profile_picture, additional_metadata: None });
        Some(data.sign(&alice).ok()?.identity().clone())
    };
    assert!(with_picture(MAX_PICTURE).is_some());
    assert!(with_picture(MAX_PICTURE + 1).is_none());
    assert!(Bin::<MAX_METADATA_VALUE>::new(vec![7; MAX_METADATA_VALUE + 1]).is_err());
    // What the types forbid cannot come over the wire either: a longer picture in place of the
    // longest one is refused before anything is allocated or verified.
    let longest = with_picture(MAX_PICTURE).unwrap();
    let register = signed(&alice, longest, registration(600, false), 0);
    let good = Message::Register(register).encode(0);
    assert!(good.len() < MAX_RENDEZVOUS_MESSAGE && Message::decode(&good).is_ok());
    let too_long = vec![0xc6, 0, 0, 0x80, 1]; // bin32 of one byte more than an identity may have
    let claimed = [vec![0x92], too_long, vec![0; MAX_IDENTITY + 1]].concat();
    let refused: Result<Identity, WireError> = decode(&claimed);
    assert!(refused.is_err());
}

#[test]
fn r18_a_flood_of_fresh_keys_gets_the_share_of_its_networks() {
    const SHARE: u64 = 20;
    let mut config = config();
    config.limits.identities_per_network = SHARE;
    config.max_entries = 400;
    let mut world = World::new(config);
    let endpoint = "198.51.100.1:7330";
    register_from(&mut world, 1, "203.0.113.1", endpoint, at(0)).unwrap();
    // Ten networks with a thousand keys each, some of them from one IPv6 /48.
    let mut next = 100;
    for round in 0..100_u64 {
        for network in 0..10 {
            let address = match network {
                9 => format!("2001:db8:1:{round:x}::1"),
                _ => format!("192.0.2.{network}"),
            };
            // Within one second all stand; later the oldest have expired.
            let _ = register_from(&mut world, next, &address, endpoint, at(round * 40_000));
            next += 1;
        }
    }
    let now = at(100 * 40_000);
    let status = world.registry.status(&world.rows).unwrap();
    assert_eq!(status.entries, 1 + 10 * SHARE);
    assert!(status.counters.network_full > 0);
    // Whoever was here before is still found, and newcomers from elsewhere find room.
    assert!(world.find(1, now).is_some());
    register_from(&mut world, 2, "203.0.113.2", endpoint, now).unwrap();
    assert_eq!(world.rows.count(Table::NetworkCounts).unwrap(), 12);
    assert_eq!(world.rows.count(Table::Origins).unwrap(), 2 + 10 * SHARE);
    // Nothing is left of them when their time is over.
    world.registry.sweep(&mut world.rows, at(60 * DAY_MS).wall).unwrap();
    for table in [Table::Entries, Table::Origins, Table::NetworkCounts, Table::NetworkExpired] {
        assert_eq!(world.rows.count(table).unwrap(), 0, "{table:?}");
    }
}

#[test]
fn an_identity_counts_where_it_was_last() {
    let mut world = World::new(config());
    let endpoint = "198.51.100.1:7330";
    register_from(&mut world, 1, "192.0.2.1", endpoint, at(0)).unwrap();
    // Expired, and back from elsewhere.
    world.registry.sweep(&mut world.rows, at(700_000).wall).unwrap();
    assert_eq!(world.rows.count(Table::NetworkExpired).unwrap(), 1);
    register_from(&mut world, 1, "192.0.2.2", endpoint, at(700_000)).unwrap();
    assert_eq!(world.rows.count(Table::NetworkExpired).unwrap(), 0);
    let count = |address: &str| {
        networks::count(&world.rows, Network::of(address.parse().unwrap())).unwrap()
    };
    assert_eq!((count("192.0.2.1"), count("192.0.2.2")), (0, 1));
}

#[test]
fn who_may_register_is_the_operators_choice() {
    let only = Admission::Only([secret(1).public()].into());
    let mut world = World::new(RegistryConfig { admission: only, ..config() });
    world.add(1, 1, 600, true, at(0)).unwrap();
    assert_eq!(world.add(2, 1, 600, true, at(0)), Err(ErrorCode::NotAdmitted));

    world.configure(RegistryConfig { admission: Admission::Known, ..config() });
    world.add(1, 1, 600, true, at(1)).unwrap();
    assert_eq!(world.add(2, 1, 600, true, at(1)), Err(ErrorCode::NotAdmitted));

    let banned = [SoughtKey::of(&secret(1).public())].into();
    world.configure(RegistryConfig { banned, ..config() });
    world.add(2, 1, 600, true, at(2)).unwrap();
    assert_eq!(world.add(1, 1, 600, true, at(2)), Err(ErrorCode::NotAdmitted));
    assert!(world.find(1, at(2)).is_none());
    assert_eq!(world.list(at(2)).len(), 1);
    assert_eq!(world.counters().not_admitted, 3);
}

#[test]
fn l02_a_disk_that_fills_up_is_kept_for_those_who_are_known() {
    let mut world = World::new(config());
    world.add(1, 1, 600, true, at(0)).unwrap();
    let enough = world.registry.config.min_free_bytes;
    world.registry.set_free_bytes(Some(enough - 1));
    assert_eq!(world.add(2, 1, 600, true, at(1)), Err(ErrorCode::Unavailable));
    world.add(1, 2, 600, true, at(1)).unwrap();
    assert!(world.find(1, at(1)).is_some());
    assert_eq!(world.counters().full, 1);
    world.registry.set_free_bytes(Some(enough));
    world.add(2, 1, 600, true, at(2)).unwrap();
    // Who cannot tell takes everybody.
    world.registry.set_free_bytes(None);
    world.add(3, 1, 600, true, at(3)).unwrap();
}
