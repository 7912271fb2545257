//! Random histories, told by the model and by redb: both must tell the same.

use proptest::prelude::*;

use super::*;

/// One step of a random history. Small ranges, so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Register { owner: u64, max_blob: u32 },
    Remove { owner: u64, limit: usize },
    Put { owners: Vec<u64>, blob: u8, lives: u64, stranger: bool },
    List { owner: u64, after: u64, messages: usize, bytes: u64 },
    Acknowledge { owner: u64, sequence: u64 },
    Expire { limit: usize },
    Admit { owner: u64, tokens: Vec<u8> },
    UseToken { owner: u64, token: u8, take: bool },
    Publish { owner: u64, packages: Vec<u8>, replace: bool, last: Option<u8> },
    Take { owner: u64 },
    Spend { owner: u64, nonce: u64 },
    Pass { ms: u64 },
    Commit,
    Abort,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let owner = 0..3_u64;
    let step = prop_oneof![
        2 => (owner.clone(), 0..9_u32).prop_map(|(owner, max_blob)| Step::Register { owner, max_blob }),
        1 => (owner.clone(), 1..4_usize).prop_map(|(owner, limit)| Step::Remove { owner, limit }),
        8 => (prop::collection::vec(owner.clone(), 1..4), 0..6_u8, 0..400_u64, any::<bool>())
            .prop_map(|(owners, blob, lives, stranger)| Step::Put { owners, blob, lives, stranger }),
        3 => (owner.clone(), 0..30_u64, 0..5_usize, 0..20_u64)
            .prop_map(|(owner, after, messages, bytes)| Step::List { owner, after, messages, bytes }),
        4 => (owner.clone(), 0..40_u64)
            .prop_map(|(owner, sequence)| Step::Acknowledge { owner, sequence }),
        2 => (0..4_usize).prop_map(|limit| Step::Expire { limit }),
        1 => (owner.clone(), prop::collection::vec(0..4_u8, 0..4))
            .prop_map(|(owner, tokens)| Step::Admit { owner, tokens }),
        2 => (owner.clone(), 0..4_u8, any::<bool>())
            .prop_map(|(owner, token, take)| Step::UseToken { owner, token, take }),
        2 => (owner.clone(), prop::collection::vec(0..12_u8, 0..5), any::<bool>(), prop::option::of(0..9_u8))
            .prop_map(|(owner, packages, replace, last)| Step::Publish { owner, packages, replace, last }),
        3 => owner.clone().prop_map(|owner| Step::Take { owner }),
        1 => (owner, 0..3_u64).prop_map(|(owner, nonce)| Step::Spend { owner, nonce }),
        2 => (0..4_000_000_u64).prop_map(|ms| Step::Pass { ms }),
        3 => Just(Step::Commit),
        1 => Just(Step::Abort),
    ];
    prop::collection::vec(step, 1..80)
}

/// Carries out a step and describes everything that can be seen of it.
fn step(store: &mut dyn Mailboxes, step: &Step, now: u64) -> String {
    match step {
        Step::Register { owner: who, max_blob } => {
            let wishes = RelayCapabilities { max_message_size: *max_blob, ..WISHES };
            format!("{:?}", store.register(&owner(*who), wishes))
        }
        Step::Remove { owner: who, limit } => {
            format!("{:?}", store.remove_mailbox(&owner(*who), *limit))
        }
        Step::Put { owners, blob, lives, stranger } => {
            let bytes = vec![*blob; usize::from(*blob) + 1];
            let mut shared = Blob::new(&bytes);
            let mut seen = Vec::new();
            for who in owners {
                let mut place = place(owner(*who), &bytes, now + lives);
                place.from_stranger = *stranger;
                let known = store.find(&place.owner, &place.blob_id).unwrap();
                seen.push(match known {
                    Some(held) => format!("known {held:?}"),
                    None => format!("{:?}", store.put(&mut shared, &place, at(now))),
                });
            }
            format!("{seen:?}")
        }
        Step::List { owner: who, after, messages, bytes } => {
            let limit = PageLimit { messages: *messages, bytes: *bytes, always_one: *after == 0 };
            format!("{:?}", store.list(&owner(*who), *after, limit))
        }
        Step::Acknowledge { owner: who, sequence } => {
            format!("{:?}", store.acknowledge(&owner(*who), *sequence))
        }
        Step::Expire { limit } => format!("{:?}", store.expire(at(now), *limit)),
        Step::Admit { owner: who, tokens } => {
            if store.mailbox(&owner(*who)).unwrap().is_none() {
                return String::new();
            }
            let entries: Vec<_> =
                tokens.iter().map(|token| entry(*token, AdmissionClass::Link, 3)).collect();
            format!("{:?}", store.set_admission(&owner(*who), &entries))
        }
        Step::UseToken { owner: who, token: number, take } => {
            let what = if *take { Use::Take } else { Use::Store { bytes: 100 } };
            let day = at(now).day();
            store.count_use(&owner(*who), &token(*number), day, what).unwrap();
            format!("{:?}", store.token(&owner(*who), &token(*number), day))
        }
        Step::Publish { owner: who, packages, replace, last } => {
            let packages: Vec<_> =
                packages.iter().map(|package| Bin::new(vec![*package]).unwrap()).collect();
            let last = last.map(|last| [last]);
            let publication = Publication {
                identity: &identity(*who),
                key_packages: &packages,
                last_resort: last.as_ref().map(<[u8; 1]>::as_slice),
                replace: *replace,
            };
            format!("{:?}", store.publish(&owner(*who), &publication, 6))
        }
        Step::Take { owner: who } => format!("{:?}", store.take_key_package(&owner(*who))),
        Step::Spend { owner: who, nonce } => {
            format!("{:?}", store.spend_work(&owner(*who), at(now).hour(), *nonce, 2))
        }
        Step::Pass { .. } | Step::Commit | Step::Abort => String::new(),
    }
}

/// Everything that can be read, for all owners.
fn view(store: &mut dyn Mailboxes) -> String {
    let owners = (0..3).map(owner).map(|owner| {
        let page = store.list(&owner, 0, EVERYTHING).unwrap();
        let blobs: Vec<_> = page.messages.iter().map(|message| message.blob.to_vec()).collect();
        format!("{:?} {page:?} {blobs:?}", store.mailbox(&owner).unwrap())
    });
    let owners: Vec<_> = owners.collect();
    format!("{owners:?} {:?}", store.totals().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn redb_and_the_model_tell_the_same_story(steps in steps()) {
        let mut redb = in_memory();
        let mut model = Model::default();
        let mut now = 1_000_000;
        for batch in steps.split_inclusive(|step| matches!(step, Step::Commit | Step::Abort)) {
            let commits = !matches!(batch.last(), Some(Step::Abort));
            let start = now;
            let mut stories = [Vec::new(), Vec::new()];
            let stores: [&mut dyn Store; 2] = [&mut redb, &mut model];
            for (store, story) in stores.into_iter().zip(&mut stories) {
                now = start;
                store.run(commits, &mut |mailboxes| {
                    for one in batch {
                        if let Step::Pass { ms } = one {
                            now += ms;
                        }
                        story.push(step(mailboxes, one, now));
                    }
                    story.push(view(mailboxes));
                });
                store.run(false, &mut |mailboxes| story.push(view(mailboxes)));
            }
            prop_assert_eq!(&stories[0], &stories[1], "after {:?}", batch);
        }
    }
}
