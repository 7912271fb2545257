//! The registry against a model that has no indexes, no sweeping and no bytes: a map, asked by
//! the clock.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::{Store, StoreOptions};

const IDENTITIES: u64 = 5;
const MAX_ENTRIES: u64 = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Register { number: u64, version: u64, ttl: u32, listed: bool },
    Wait { seconds: u64 },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..IDENTITIES, 1_u64..4, prop_oneof![Just(0), 60_u32..4_000, Just(u32::MAX)], any::<bool>())
            .prop_map(|(number, version, ttl, listed)| Step::Register { number, version, ttl, listed }),
        3 => prop_oneof![0_u64..4_000, 0..100_000_u64, 2_500_000..2_700_000_u64]
            .prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Sweep),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Known {
    version: u64,
    expires_ms: u64,
    listed: bool,
}

#[derive(Default)]
struct Model(BTreeMap<u64, Known>);

impl Model {
    fn register(&mut self, now: u64, number: u64, new: Known) -> Result<(), ErrorCode> {
        self.0.retain(|_, known| now < forgotten(known));
        match self.0.get(&number) {
            Some(known) if new.version < known.version => return Err(ErrorCode::Stale),
            Some(_) => {}
            None if self.0.len() < usize::try_from(MAX_ENTRIES).unwrap() => {}
            None => {
                // The longest expired one makes room; of two at once, the lower key.
                let expired = self.0.iter().filter(|(_, known)| known.expires_ms <= now);
                let first = expired.min_by_key(|(number, known)| {
                    (known.expires_ms, *secret(**number).public().as_bytes())
                });
                let first = *first.ok_or(ErrorCode::Unavailable)?.0;
                self.0.remove(&first);
            }
        }
        self.0.insert(number, new);
        Ok(())
    }
}

fn forgotten(known: &Known) -> u64 {
    known.expires_ms + 30 * DAY_MS
}

/// Carries out the steps on real rows, and on the model; they must agree after each.
fn compare(steps: &[Step], rows: &mut impl Rows) -> Result<(), TestCaseError> {
    let config = Arc::new(RegistryConfig { max_entries: MAX_ENTRIES, ..config() });
    let mut lookups = Lookups::new(Arc::clone(&config));
    let mut registry = Registry::new(config);
    let mut model = Model::default();
    let mut now = 0;
    for step in steps {
        match *step {
            Step::Register { number, version, ttl, listed } => {
                let secret = secret(number);
                let register =
                    signed(&secret, identity(&secret, version), registration(ttl, listed), 0);
                let request = Request::Register(Box::new(register));
                let answer = registry.handle(rows, &request, &origin(0), at(now)).unwrap();
                let expires_ms = now + u64::from(ttl.clamp(60, 86_400)) * 1_000;
                match (model.register(now, number, Known { version, expires_ms, listed }), answer) {
                    (Ok(()), Message::Registered(registered)) => {
                        prop_assert_eq!(registered.expires_at, at(expires_ms).wall);
                    }
                    (Err(code), Message::Error(error)) => prop_assert_eq!(code, error.code),
                    (wanted, got) => prop_assert!(false, "{wanted:?} {got:?}"),
                }
            }
            Step::Wait { seconds } => {
                now += seconds * 1_000;
                registry.sweep(rows, at(now).wall).unwrap();
            }
            Step::Sweep => {
                registry.sweep(rows, at(now).wall).unwrap();
            }
        }
        agree(&mut registry, &mut lookups, rows, &model, now)?;
    }
    Ok(())
}

fn agree(
    registry: &mut Registry,
    lookups: &mut Lookups,
    rows: &mut impl Rows,
    model: &Model,
    now: u64,
) -> Result<(), TestCaseError> {
    let mut listed = Vec::new();
    for number in 0..IDENTITIES {
        let key = secret(number).public();
        let question = Question::One(SoughtKey::of(&key));
        let admitted = lookups.admit(&question, &origin(0), at(now)).unwrap();
        let Message::LookupResponse(found) =
            admitted.answer(rows, &question, &origin(0), at(now)).unwrap()
        else {
            panic!()
        };
        let known = model.0.get(&number).filter(|known| now < forgotten(known));
        prop_assert_eq!(found.peers.len(), usize::from(known.is_some()));
        if let (Some(peer), Some(known)) = (found.peers.first(), known) {
            prop_assert_eq!(peer.identity.verify().unwrap().version(), known.version);
            prop_assert_eq!(peer.online, now < known.expires_ms);
            prop_assert_eq!(peer.endpoints.is_empty(), now >= known.expires_ms);
            if peer.online && known.listed {
                listed.push(key);
            }
        }
    }
    listed.sort_unstable();
    let request = Request::List(None);
    let Message::LookupResponse(page) =
        registry.handle(rows, &request, &origin(0), at(now)).unwrap()
    else {
        panic!()
    };
    let page: Vec<_> =
        page.peers.iter().map(|peer| peer.identity.verify().unwrap().key()).collect();
    prop_assert_eq!(page, listed);
    // Totals follow from the rows.
    let status = registry.status(rows).unwrap();
    let mut bytes = 0;
    let mut after: Option<Vec<u8>> = None;
    while let Some((key, value)) = rows.next(Table::Entries, after.as_deref()).unwrap() {
        bytes += u64::try_from(value.len()).unwrap();
        after = Some(key);
    }
    prop_assert_eq!(status.bytes, bytes);
    let due = rows.count(Table::Standing).unwrap() + rows.count(Table::Expired).unwrap();
    prop_assert_eq!(due, status.entries);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_registry_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..30)) {
        compare(&steps, &mut MemoryRows::default())?;
        let options = StoreOptions { cache_bytes: 1 << 20 };
        let store = Store::with_backend(redb::backends::InMemoryBackend::new(), options).unwrap();
        store.batch(|rows| Ok(compare(&steps, rows))).unwrap()?;
    }
}
