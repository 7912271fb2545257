//! Groups of 2, 10, 100 and 1,000 members: ours beside bare OpenMLS with the same settings, in one run.
//!
//! Ours is the `groups` module over a store whose transaction is not committed, so what a durable
//! commit adds is left out on both sides (OpenMLS writes into its own memory store). Every group is
//! made by one commit that adds everybody: the tree has no keys between root and leaves yet.

mod bare;

use std::time::Instant;

use bare::Bare;
use sremp_common::entropy::Entropy;
use sremp_common::id::{GroupId, Token};
use sremp_common::io::Clock;
use sremp_common::key::SealSecret;
use sremp_common::time::Now;
use sremp_common::wire::{Admission, Bin, List, Message, Recipient, StoreMessage};
use sremp_node::groups::{
    Change, Changed, CheckedKeyPackage, GroupKind, LeafInfo, OpenError, Suite,
};

use super::Effort;
use super::figure::{Report, Target, micros};
use super::parts::Member;

/// Bytes of a message.
const TEXT: usize = 1024;
/// Messages of one round.
const MESSAGES: usize = 50;
/// Conversations, and states of each, among which the state of a blob is looked for.
const CONVERSATIONS: (usize, usize) = (1000, 9);

/// Adds the figures of groups.
pub fn measure(report: &mut Report, effort: Effort) {
    let sizes: &[usize] = if effort.rounds < 5 { &[2, 10, 100] } else { &[2, 10, 100, 1000] };
    for suite in Suite::ALL {
        for size in sizes {
            super::progress(&format!("a group of {size} with suite {suite}"));
            group(report, suite, *size, effort.rounds);
        }
    }
    super::progress("finding the state of a blob");
    finding(report, effort.rounds);
}

/// The values of one figure, over rounds.
fn rounds(count: usize, mut once: impl FnMut() -> f64) -> Vec<f64> {
    (0..count).map(|_| once()).collect()
}

fn timed<R>(f: impl FnOnce() -> R) -> (R, f64) {
    let began = Instant::now();
    let result = f();
    (result, micros(began.elapsed()))
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn leaf(number: u64) -> LeafInfo {
    let mut entropy = Entropy::from_number(number);
    LeafInfo {
        relays: List::default(),
        seal_key: SealSecret::generate(&mut entropy).public(),
        token: Token::new(entropy.array()),
    }
}

/// One of ours that takes part: the first admin, a second admin, and a plain member.
struct Ours {
    members: Vec<Member>,
    group: GroupId,
    now: Now,
    number: u64,
    added: Changed,
}

impl Ours {
    fn new(suite: Suite, size: usize) -> Self {
        let now = Clock::start().now();
        let mut first = Member::new(1, now);
        let group =
            first.groups.create(&first.tx, GroupKind::Group, "team", suite, &leaf(1), now).unwrap();
        let mut members: Vec<Member> =
            (2..=3.min(size as u64)).map(|number| Member::new(number, now)).collect();
        let mut packages: Vec<CheckedKeyPackage> =
            members.iter_mut().map(|member| package(member, suite, now)).collect();
        for number in packages.len() + 2..=size {
            packages.push(package(&mut Member::new(number as u64, now), suite, now));
        }
        let added = first.groups.change(&first.tx, &group, Change::Add(packages), now).unwrap();
        first.accept();
        members.insert(0, first);
        Self { members, group, now, number: 10_000, added }
    }

    /// Joins by the first Welcome; answers how long that took.
    fn join(&mut self, place: usize) -> f64 {
        let member = &mut self.members[place];
        let welcome = self.added.welcome.as_ref().unwrap();
        let (_, took) = timed(|| member.groups.join(&member.tx, welcome, self.now).unwrap());
        member.accept();
        took
    }

    /// As [`Self::join`], undone; see [`Joiner`].
    fn try_join(&mut self, place: usize, joiner: Joiner) -> f64 {
        let member = &mut self.members[place];
        match joiner {
            Joiner::Stranger => member.forget(true),
            Joiner::StrangerAlone => member.forget(false),
            Joiner::Acquainted => {}
        }
        let welcome = self.added.welcome.as_ref().unwrap();
        let (_, took) = timed(|| member.groups.join(&member.tx, welcome, self.now).unwrap());
        member.tx.refuse();
        member.groups.refused();
        took
    }

    fn change(&mut self, place: usize, change: Change) -> (Changed, f64) {
        let member = &mut self.members[place];
        let (changed, took) =
            timed(|| member.groups.change(&member.tx, &self.group, change, self.now).unwrap());
        member.accept();
        (changed, took)
    }

    fn update(&mut self, place: usize) -> (Vec<u8>, f64) {
        self.number += 1;
        let leaf = leaf(self.number);
        let (changed, took) = self.change(place, Change::Update(leaf));
        (changed.commit, took)
    }

    /// The third member follows, unmeasured: it takes part when branches are switched.
    fn follow(&mut self, blob: &[u8]) {
        if self.members.len() > 2 {
            self.open(2, blob);
        }
    }

    fn open(&mut self, place: usize, blob: &[u8]) -> f64 {
        let member = &mut self.members[place];
        let (_, took) = timed(|| member.groups.open(&member.tx, blob, self.now).unwrap());
        member.accept();
        took
    }
}

fn package(member: &mut Member, suite: Suite, now: Now) -> CheckedKeyPackage {
    let leaf = leaf(u64::from(member.key.as_bytes()[0]));
    let bytes = member.groups.make_key_package(&member.tx, suite, &leaf, false, now).unwrap();
    member.accept();
    member.groups.check_key_package(&bytes, &member.key, suite, now).unwrap()
}

/// One operation, ours and bare, and how much slower ours may be.
fn compare(
    report: &mut Report,
    name: &str,
    what: &str,
    ours: &[f64],
    bare: &[f64],
    factor: Option<f64>,
) {
    report.add(&format!("{name}: {what}, OpenMLS"), "us", bare, None);
    let target = factor.map(|factor| Target::AtMost(factor * median(bare)));
    report.add(&format!("{name}: {what}"), "us", ours, target);
}

/// What an operation carries: the author's upload, and the download of each member, round by round.
#[derive(Default)]
struct Carried {
    up: Vec<f64>,
    down: Vec<f64>,
}

impl Carried {
    fn add(&mut self, up: usize, down: usize) {
        self.up.push(up as f64);
        self.down.push(down as f64);
    }
}

/// Bytes of one operation, ours and bare.
fn compare_bytes(report: &mut Report, name: &str, what: &str, ours: &Carried, bare: &Carried) {
    for (direction, ours, bare) in
        [("uploaded", &ours.up, &bare.up), ("downloaded by each", &ours.down, &bare.down)]
    {
        report.add(&format!("{name}: {what}, {direction}, OpenMLS"), "B", bare, None);
        report.add(&format!("{name}: {what}, {direction}"), "B", ours, None);
    }
}

fn group(report: &mut Report, suite: Suite, size: usize, count: usize) {
    let name = format!("{suite}, {size}");
    let mut ours = Ours::new(suite, size);
    let mut bare = Bare::new(suite, size, count);
    join(report, &name, &mut ours, &bare, count);
    messages(report, &name, &mut ours, &mut bare, count);
    commits(report, &name, suite, &mut ours, &mut bare, count);
    if ours.members.len() > 2 {
        let target = match size {
            100 => Some(Target::AtMost(30_000.0)),
            1000 => Some(Target::AtMost(300_000.0)),
            _ => None,
        };
        let values = switches(&mut ours, count);
        report.add(&format!("{name}: switch, three commits deep"), "us", &values, target);
    }
}

/// Who joins.
#[derive(Clone, Copy)]
enum Joiner {
    /// Somebody who met no member before, with the threads that a node has.
    Stranger,
    /// The same without threads.
    StrangerAlone,
    /// Somebody who has verified all members' certificates before.
    Acquainted,
}

fn join(report: &mut Report, name: &str, ours: &mut Ours, bare: &Bare, count: usize) {
    let size = ours.added.joined.len() + 1;
    let alone = rounds(count, || ours.try_join(1, Joiner::StrangerAlone));
    let first = rounds(count, || ours.try_join(1, Joiner::Stranger));
    let again = rounds(count, || ours.try_join(1, Joiner::Acquainted));
    (1..ours.members.len()).for_each(|place| {
        ours.join(place);
    });
    let both: Vec<f64> = bare.join.iter().zip(&bare.verify).map(|(one, two)| one + two).collect();
    let what = "join, OpenMLS, and its members' credentials";
    report.add(&format!("{name}: {what}"), "us", &both, None);
    compare(report, name, "join", &first, &bare.join, (size == 1000).then_some(1.3));
    report.add(&format!("{name}: join, on one processor"), "us", &alone, None);
    report.add(&format!("{name}: join, all members known"), "us", &again, None);
    // What each who is invited downloads; the author uploads the rest of the parts, too.
    let welcomes = ours.added.welcomes().unwrap();
    let parts: usize = welcomes.parts.iter().map(Vec::len).sum();
    let (mut carried, mut theirs) = (Carried::default(), Carried::default());
    carried.add(parts + 2 * welcomes.shared.len(), welcomes.parts[0].len() + welcomes.shared.len());
    theirs.add(bare.welcome, bare.welcome);
    compare_bytes(report, name, "join", &carried, &theirs);
}

fn messages(report: &mut Report, name: &str, ours: &mut Ours, bare: &mut Bare, count: usize) {
    let size = ours.added.joined.len() + 1;
    let (mut send, mut receive) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    let (mut carried, mut theirs) = (Carried::default(), Carried::default());
    let mut blob = 0;
    for _ in 0..count {
        let (mut a, mut b, mut c, mut d) = (0.0, 0.0, 0.0, 0.0);
        let mut last = (Vec::new(), 0);
        for _ in 0..MESSAGES {
            let member = &mut ours.members[0];
            let text = vec![5; TEXT];
            let (sealed, took) =
                timed(|| member.groups.encrypt(&member.tx, &ours.group, &text, ours.now).unwrap());
            member.accept();
            a += took;
            c += ours.open(1, &sealed.blob);
            let (bytes, took) = bare.send();
            b += took;
            d += bare.process(&bytes);
            last = (sealed.blob, bytes.len());
        }
        let each = |sum: f64| sum / MESSAGES as f64;
        send.0.push(each(a));
        send.1.push(each(b));
        receive.0.push(each(c));
        receive.1.push(each(d));
        blob = last.0.len();
        carried.add(upload(&last.0, size - 1), blob);
        theirs.add(last.1, last.1);
    }
    compare(report, name, "send", &send.0, &send.1, Some(1.5));
    compare(report, name, "receive", &receive.0, &receive.1, Some(1.5));
    compare_bytes(report, name, "message of 1 KiB", &carried, &theirs);
    if size > 2 {
        let allowed = Some(Target::AtMost((2 * blob + 64 * (size - 1)) as f64));
        let what = "message of 1 KiB, two blobs and 64 bytes a recipient";
        report.add(&format!("{name}: {what}"), "B", &carried.up, allowed);
    }
}

/// The operations that are commits, in the order in which they are made.
const COMMITS: [&str; 4] = ["update", "process update", "add", "remove"];

fn commits(
    report: &mut Report,
    name: &str,
    suite: Suite,
    ours: &mut Ours,
    bare: &mut Bare,
    count: usize,
) {
    let size = ours.added.joined.len() + 1;
    let mut times = COMMITS.map(|_| (Vec::new(), Vec::new()));
    let mut bytes = COMMITS.map(|_| (Carried::default(), Carried::default()));
    for _ in 0..count {
        let (commit, took) = ours.update(0);
        times[0].0.push(took);
        times[1].0.push(ours.open(1, &commit));
        ours.follow(&commit);
        bytes[0].0.add(upload(&commit, size - 1), commit.len());
        let (theirs, took) = bare.update();
        times[0].1.push(took);
        times[1].1.push(bare.process(&theirs));
        bytes[0].1.add(theirs.len(), theirs.len());

        ours.number += 1;
        let mut new = Member::new(ours.number, ours.now);
        let package = package(&mut new, suite, ours.now);
        let (added, took) = ours.change(0, Change::Add(vec![package]));
        times[2].0.push(took);
        ours.open(1, &added.commit);
        ours.follow(&added.commit);
        let welcomes = added.welcomes().unwrap();
        let invitation = welcomes.parts[0].len() + welcomes.shared.len();
        bytes[2].0.add(upload(&added.commit, size - 1) + invitation, added.commit.len());
        let (theirs, welcome, took) = bare.add();
        times[2].1.push(took);
        bare.process(&theirs);
        bytes[2].1.add(theirs.len() + welcome, theirs.len());

        let (removed, took) = ours.change(0, Change::Remove(vec![new.key]));
        times[3].0.push(took);
        ours.open(1, &removed.commit);
        ours.follow(&removed.commit);
        bytes[3].0.add(upload(&removed.commit, size), removed.commit.len());
        let (theirs, took) = bare.remove_last();
        times[3].1.push(took);
        bare.process(&theirs);
        bytes[3].1.add(theirs.len(), theirs.len());
    }
    for (place, what) in COMMITS.into_iter().enumerate() {
        compare(report, name, what, &times[place].0, &times[place].1, None);
        if what != "process update" {
            compare_bytes(report, name, what, &bytes[place].0, &bytes[place].1);
        }
    }
}

/// Bytes of the messages that bring a blob to so many recipients at two relays.
fn upload(blob: &[u8], recipients: usize) -> usize {
    let mut entropy = Entropy::from_number(1);
    let key = sremp_common::key::IdentitySecret::generate(&mut entropy).public();
    let store = |count: usize| {
        let recipient =
            Recipient { identity_key: key, admission: Admission::Token(Token::new([1; 16])) };
        let message = Message::StoreMessage(StoreMessage {
            blob: Bin::new(blob.to_vec()).unwrap(),
            recipients: List::truncated(vec![recipient; count]),
        });
        message.encode(2).len()
    };
    let half = recipients / 2;
    [half, recipients - half].into_iter().filter(|count| *count > 0).map(store).sum()
}

/// A member has followed three commits of another; then three of an admin come, which stand.
fn switches(ours: &mut Ours, count: usize) -> Vec<f64> {
    let second = ours.members[1].key;
    let (promoted, _) = ours.change(0, Change::Promote(second));
    ours.open(1, &promoted.commit);
    ours.open(2, &promoted.commit);
    let mut once = || {
        let lost: Vec<Vec<u8>> = (0..3).map(|_| ours.update(2).0).collect();
        let standing: Vec<Vec<u8>> = (0..3).map(|_| ours.update(0).0).collect();
        for commit in &lost {
            ours.open(1, commit);
        }
        let took = standing.iter().map(|commit| ours.open(1, commit)).sum();
        // Who made the commits that lost comes over, too, and takes part in the next round.
        for commit in &standing {
            ours.open(2, commit);
        }
        let tips = [0, 1, 2].map(|place| {
            let member = &mut ours.members[place];
            member.groups.summary(&member.tx, &ours.group).unwrap().epoch_authenticator
        });
        assert!(tips[0] == tips[1] && tips[1] == tips[2], "the branch was not switched");
        took
    };
    (0..count).map(|_| once()).collect()
}

fn finding(report: &mut Report, count: usize) {
    let now = Clock::start().now();
    let mut member = Member::new(1, now);
    for number in 0..CONVERSATIONS.0 as u64 {
        let group = member
            .groups
            .create(&member.tx, GroupKind::Group, "team", Suite::X25519, &leaf(1), now)
            .unwrap();
        for update in 1..CONVERSATIONS.1 as u64 {
            let leaf = leaf(number * 100 + update);
            member.groups.change(&member.tx, &group, Change::Update(leaf), now).unwrap();
            member.accept();
        }
    }
    let mut entropy = Entropy::from_number(5);
    let values = rounds(count.max(5), || {
        let mut blob = vec![0; 256];
        entropy.fill(&mut blob);
        let (result, took) = timed(|| member.groups.open(&member.tx, &blob, now));
        assert!(matches!(result, Err(OpenError::UnknownState)));
        member.tx.refuse();
        member.groups.refused();
        took
    });
    let name = "a blob of no state, 1,000 conversations of 9";
    report.add(name, "us", &values, Some(Target::AtMost(1000.0)));
}
