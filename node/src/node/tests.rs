//! A node and somebody who is no node: whoever holds real keys and does not keep to the program. What they
//! make is handed to the node as if it had come from a relay.

use sremp_common::id::MessageId;
use sremp_common::identity::{Identity, VerifiedIdentity};
use sremp_common::key::IdentitySecret;
use sremp_common::name::Username;
use sremp_common::wire::{KeyPackageTaken, List, LookupResponse, Message, PeerInfo, Text};

use super::*;
use crate::api::{Change, DoubtKind, EventBody, Trust};
use crate::conversations::content::{ProfileBody, TextBody};
use crate::conversations::request::MAX_REQUESTS;
use crate::conversations::{Content, ConversationId, History, Kind, MessageRow, Requests, RowKind};
use crate::delivery::{Outbox, Verdict};
use crate::groups::{GroupKind, LeafInfo, Suite};
use crate::identity::{Contact, Contacts, Reach};
use crate::node::receive::{SEALED_WELCOME, welcome_bytes};
use crate::store::{Store, Table};

fn start() -> Now {
    Now { instant: Instant::from_millis(0), wall: Timestamp::from_millis(4_000_000_000_000) }
}

/// An identity of its own with a store of its own.
fn somebody(name: &str, seed: u64) -> (Store, Own, Entropy) {
    let mut entropy = Entropy::from_number(seed);
    let store = Store::in_memory().unwrap();
    let tx = store.begin().unwrap();
    let secret = IdentitySecret::generate(&mut entropy);
    let name = Username::new(name).unwrap();
    let own = Own::create(&tx, secret, name, &mut entropy, start()).unwrap();
    tx.accept().unwrap();
    tx.commit().unwrap();
    (store, own, entropy)
}

/// The node that is attacked.
struct Victim {
    store: Store,
    node: Node,
    now: Now,
}

impl Victim {
    fn new() -> Self {
        let (store, own, entropy) = somebody("victim", 1);
        let tx = store.begin().unwrap();
        let node = Node::load(&tx, own, NodeConfig::default(), entropy, start()).unwrap();
        tx.commit().unwrap();
        Self { store, node, now: start() }
    }

    fn restart(&mut self) {
        let secret = self.node.own.identity_secret().clone();
        let tx = self.store.begin().unwrap();
        let own = Own::load(&tx, secret).unwrap();
        let entropy = self.node.entropy.fork();
        self.node = Node::load(&tx, own, NodeConfig::default(), entropy, self.now).unwrap();
        tx.commit().unwrap();
    }

    /// One transaction that is accepted, as the shell makes it.
    fn with<R>(&mut self, f: impl FnOnce(&mut Node, &Tx, Now) -> R) -> R {
        let tx = self.store.begin().unwrap();
        let result = f(&mut self.node, &tx, self.now);
        self.node.accept(&tx).unwrap();
        self.node.finish(&tx, self.now).unwrap();
        tx.commit().unwrap();
        result
    }

    /// A blob came, from a stranger or by a token that a member has.
    fn take(&mut self, blob: &[u8], from_stranger: bool) -> Verdict {
        self.with(|node, tx, now| node.take_blob(tx, blob, from_stranger, now)).unwrap()
    }

    fn command(&mut self, command: Command) -> Result<Reply, ApiError> {
        let input = Input::Command { reply_to: 0, command };
        self.with(|node, tx, now| node.handle(tx, input, now)).unwrap();
        let reply = |output| match output {
            Output::Reply { result, .. } => Some(result),
            Output::Event(_) | Output::Effect(_) => None,
        };
        std::iter::from_fn(|| self.node.poll_output()).find_map(reply).unwrap()
    }

    /// What was told to whoever watches, since the last time.
    fn told(&mut self) -> usize {
        let outputs = std::iter::from_fn(|| self.node.poll_output());
        outputs.filter(|output| matches!(output, Output::Event(_))).count()
    }

    /// A key package that everybody may use.
    fn package(&mut self) -> Vec<u8> {
        self.with(|node, tx, now| {
            let leaf = node.offered_leaf(tx, now).unwrap();
            node.groups.make_key_packages(tx, &leaf, true, now).unwrap()
        })
    }

    fn add_contact(&mut self, key: IdentityKey) {
        self.with(|_, tx, now| Contacts::save(tx, &Contact::new(key, now))).unwrap();
    }

    fn history(&mut self, with: ConversationId) -> Vec<MessageRow> {
        self.with(|_, tx, _| History::page(tx, with, None, 100)).unwrap()
    }

    /// Rows of the store, and what waits to be sent.
    fn size(&mut self) -> (usize, u64) {
        let rows = self.with(|_, tx, _| {
            let count = |table: &Table| tx.scan(*table, &[], None, usize::MAX).unwrap().len();
            Table::ALL.iter().map(count).sum()
        });
        (rows, self.with(|_, tx, _| Outbox::count(tx)).unwrap())
    }
}

/// Somebody with real keys.
struct Mallory {
    store: Store,
    own: Own,
    groups: Groups,
    entropy: Entropy,
}

impl Mallory {
    fn new(seed: u64) -> Self {
        let (store, own, mut entropy) = somebody("mallory", seed);
        let groups = Groups::new(own.leaf_signer().unwrap(), own.key(), entropy.fork());
        Self { store, own, groups, entropy }
    }

    fn with<R>(&mut self, f: impl FnOnce(&mut Groups, &Tx) -> R) -> R {
        let tx = self.store.begin().unwrap();
        let result = f(&mut self.groups, &tx);
        tx.accept().unwrap();
        self.groups.accepted();
        tx.commit().unwrap();
        result
    }

    fn leaf(&mut self) -> LeafInfo {
        LeafInfo {
            relays: List::default(),
            seal_key: sremp_common::key::SealSecret::generate(&mut self.entropy).public(),
            token: sremp_common::id::Token::new(self.entropy.array()),
        }
    }

    /// A new group with the owner of a key package, and the sealed invitation.
    fn invite(&mut self, victim: &Victim, package: &[u8], kind: GroupKind) -> (GroupId, Vec<u8>) {
        let identity = self.own.identity().identity().clone();
        self.invite_as(&identity, victim, package, kind)
    }

    /// The same, with this version of its identity.
    fn invite_as(
        &mut self,
        identity: &Identity,
        victim: &Victim,
        package: &[u8],
        kind: GroupKind,
    ) -> (GroupId, Vec<u8>) {
        let leaf = self.leaf();
        let name = if kind == GroupKind::Direct { "" } else { "bargains" };
        let to = victim.node.own.key();
        let (group, welcome) = self.with(|groups, tx| {
            let suite = Suite::X25519;
            let group = groups.create(tx, kind, name, suite, &leaf, start()).unwrap();
            let checked = groups.check_key_package(package, &to, suite, start()).unwrap();
            let change = crate::groups::Change::Add(vec![checked]);
            let changed = groups.change(tx, &group, change, start()).unwrap();
            (group, changed.welcome.unwrap())
        });
        let body = welcome_bytes(identity, welcome).unwrap();
        let seal_key = victim.node.own.identity().data().seal_key().unwrap();
        (group, self.groups.seal(&seal_key, SEALED_WELCOME, &body).unwrap())
    }

    fn say(&mut self, group: &GroupId, id: u8, text: &str) -> Vec<u8> {
        let body = TextBody { text: Text::new(text).unwrap(), reply_to: None };
        let id = MessageId::new([id; 16]);
        let content = Content::new(id, &Kind::Text(body), 1, start().wall).to_bytes();
        self.with(|groups, tx| groups.encrypt(tx, group, &content, start())).unwrap().blob
    }
}

/// A contact and a chat with it.
fn acquainted() -> (Victim, Mallory, GroupId) {
    let (mut victim, mut mallory) = (Victim::new(), Mallory::new(2));
    victim.add_contact(mallory.own.key());
    let package = victim.package();
    let (group, invitation) = mallory.invite(&victim, &package, GroupKind::Direct);
    assert_eq!(victim.take(&invitation, false), Verdict::Applied);
    (victim, mallory, group)
}

/// The relays of whoever was rejected let it in no more, and no session is opened. Should a blob come all
/// the same, because it lay somewhere or somebody passes it on, the node itself refuses it.
#[test]
fn c03_whatever_a_rejected_contact_still_gets_through_leaves_no_trace() {
    let (mut victim, mut mallory, group) = acquainted();
    let with = ConversationId::Contact(mallory.own.key());
    let before = mallory.say(&group, 1, "before");
    assert_eq!(victim.take(&before, false), Verdict::Applied);
    let package = victim.package();
    let (_, to_group) = mallory.invite(&victim, &package, GroupKind::Group);
    let (_, to_chat) = mallory.invite(&victim, &package, GroupKind::Direct);
    let who = mallory.own.key().to_string();
    victim.command(Command::ContactReject { who }).unwrap();
    victim.told();

    let (rows, waiting) = victim.size();
    let after = mallory.say(&group, 2, "after");
    for blob in [after, to_group, to_chat] {
        for from_stranger in [false, true] {
            let verdict = victim.take(&blob, from_stranger);
            assert!(
                matches!(verdict, Verdict::Invalid(_) | Verdict::Duplicate),
                "{verdict:?}, from a stranger: {from_stranger}"
            );
        }
    }
    let texts: Vec<_> = victim.history(with).into_iter().map(|row| row.text).collect();
    assert_eq!(texts, ["before"]);
    assert_eq!(victim.size(), (rows + 3, waiting), "three verdicts, and no receipt");
    assert_eq!(victim.told(), 0);
    assert!(victim.with(|_, tx, _| Requests::all(tx)).unwrap().is_empty());
    assert_eq!(victim.with(|node, tx, _| node.groups.groups(tx)).unwrap(), [group]);
    let trust = victim.with(|_, tx, _| Contacts::find(tx, &mallory.own.key())).unwrap();
    assert_eq!(trust.unwrap().trust, Trust::Rejected);
}

/// One id, two texts: whoever has read the first one sees no other in its place.
#[test]
fn m14_a_second_text_under_the_same_id_changes_nothing() {
    let (mut victim, mut mallory, group) = acquainted();
    let with = ConversationId::Contact(mallory.own.key());
    for text in ["I owe you a hundred", "I owe you nothing"] {
        let blob = mallory.say(&group, 1, text);
        assert_eq!(victim.take(&blob, false), Verdict::Applied);
    }
    let rows = victim.history(with);
    let texts: Vec<_> = rows.iter().map(|row| row.text.as_str()).collect();
    assert_eq!(texts, ["I owe you a hundred"]);
}

#[test]
fn m12_who_breaks_the_rules_of_a_group_is_named_once() {
    let (mut victim, mut mallory) = (Victim::new(), Mallory::new(2));
    victim.add_contact(mallory.own.key());
    let package = victim.package();
    let (group, invitation) = mallory.invite(&victim, &package, GroupKind::Group);
    assert_eq!(victim.take(&invitation, false), Verdict::Applied);
    victim.told();
    for _ in 0..3 {
        let broken = mallory.with(|groups, tx| groups.commit_against_the_rules(tx, &group));
        assert!(matches!(victim.take(&broken, false), Verdict::Invalid(_)));
    }
    let refused: Vec<_> = std::iter::from_fn(|| victim.node.poll_output())
        .filter_map(
            |output| if let Output::Event(event) = output { Some(event.body) } else { None },
        )
        .filter_map(|body| {
            let is_refusal = matches!(body, EventBody::Group { change: Change::Refused, .. });
            if let EventBody::Group { by, .. } = body { by.filter(|_| is_refusal) } else { None }
        })
        .collect();
    assert_eq!(refused, [mallory.own.key().to_string()]);
}

/// Their program hands out a key package of another suite alone: the wish ends at once, and its owner reads
/// why.
#[test]
fn who_lacks_the_suite_of_a_group_is_not_added_and_the_reason_is_shown() {
    let (mut victim, mut mallory) = (Victim::new(), Mallory::new(2));
    let who = mallory.own.key();
    victim.add_contact(who);
    let command = Command::GroupCreate {
        name: "ours".into(),
        members: vec![who.to_string()],
        suite: Some(Suite::MlKem768X25519.name().into()),
    };
    let Ok(Reply::Group(group)) = victim.command(command) else { panic!("no group") };
    assert_eq!(group.members.iter().filter(|member| member.pending).count(), 1);
    let leaf = mallory.leaf();
    let key_package = mallory.with(|groups, tx| {
        groups.make_key_package(tx, Suite::X25519, &leaf, true, start()).unwrap()
    });
    let identity = mallory.own.identity().identity().clone();
    let key_package = sremp_common::wire::Bin::new(key_package).unwrap();
    let taken = Message::KeyPackageTaken(KeyPackageTaken { identity, key_package });
    victim.with(|node, tx, now| node.key_package_answered(tx, who, Ok(taken), now)).unwrap();
    let shown = victim.command(Command::GroupShow { group: group.id.clone() });
    let Ok(Reply::Group(view)) = shown else { panic!("{shown:?}") };
    assert_eq!((view.members.len(), view.epoch), (1, group.epoch), "nobody is added or waited for");
    let id = ConversationId::Group(group.id.parse().unwrap());
    let notices: Vec<String> = victim.history(id).into_iter().map(|row| row.text).collect();
    let wanted = "does not support the group's cipher suite mlkem768x25519 (0x004f)";
    assert!(notices.iter().any(|text| text.contains(wanted)), "{notices:?}");
}

/// Many messages of an epoch whose commit comes last: they are read in portions, between which
/// others have their turn.
#[test]
fn what_waited_is_read_in_portions() {
    const COUNT: usize = 1200;
    let (mut victim, mut mallory) = (Victim::new(), Mallory::new(2));
    victim.add_contact(mallory.own.key());
    let package = victim.package();
    let (group, invitation) = mallory.invite(&victim, &package, GroupKind::Group);
    assert_eq!(victim.take(&invitation, false), Verdict::Applied);
    let rename = crate::groups::Change::Rename("later".into());
    let commit =
        mallory.with(|groups, tx| groups.change(tx, &group, rename, start()).unwrap().commit);
    for number in 0..COUNT {
        let id = MessageId::new(std::array::from_fn(|place| number.to_le_bytes()[place % 8]));
        let text = TextBody { text: Text::new(number.to_string()).unwrap(), reply_to: None };
        let content = Content::new(id, &Kind::Text(text), 1, start().wall).to_bytes();
        let sealed = mallory.with(|groups, tx| groups.encrypt(tx, &group, &content, start()));
        assert_eq!(victim.take(&sealed.unwrap().blob, false), Verdict::Deferred);
    }
    assert_eq!(victim.take(&commit, false), Verdict::Applied);
    let mut read = vec![0];
    while read.last() != Some(&COUNT) {
        let at_once = victim.node.poll_timeout() == Some(Instant::default());
        assert!(at_once || !victim.node.retry_deferred, "{read:?}");
        // What is counted here was read in the batches before.
        let rows = victim
            .with(|_, tx, _| History::page(tx, ConversationId::Group(group), None, 2 * COUNT))
            .unwrap();
        read.push(rows.into_iter().filter(|row| row.kind == RowKind::Text).count());
    }
    let portions: Vec<usize> = read.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(portions, [512, 512, 176], "two looks in each batch");
}

/// Real invitations by strangers, many more than may wait. One that finds no room leaves nothing in the
/// store, and so neither do ten thousand.
#[test]
fn m20_a_flood_of_invitations_fills_a_bounded_place_and_joins_nothing() {
    const STRANGERS: u64 = 64;
    let mut victim = Victim::new();
    let package = victim.package();
    let mut flood = Vec::new();
    for seed in 0..STRANGERS {
        let mut stranger = Mallory::new(100 + seed);
        for kind in [GroupKind::Direct, GroupKind::Group, GroupKind::Group] {
            flood.push(stranger.invite(&victim, &package, kind).1);
        }
    }
    let empty = victim.size();
    let mut sizes = Vec::new();
    let mut verdicts = Vec::new();
    for _ in 0..3 {
        verdicts.extend(flood.iter().map(|blob| victim.take(blob, true)));
        sizes.push(victim.size());
    }
    let applied = verdicts.iter().filter(|verdict| **verdict == Verdict::Applied).count();
    let full = verdicts.iter().filter(|verdict| **verdict == Verdict::TooManyRequests).count();
    let twice = verdicts.iter().filter(|verdict| **verdict == Verdict::Duplicate).count();
    assert_eq!(applied, MAX_REQUESTS);
    assert_eq!((applied + full + twice, twice), (verdicts.len(), 2 * MAX_REQUESTS));
    // A request, a verdict and an event for each that waits, and one row that counts events; nobody is
    // answered.
    assert!(sizes[0].0 <= empty.0 + 3 * MAX_REQUESTS + 1, "{empty:?}, {sizes:?}");
    assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]), "{sizes:?}");
    assert_eq!(sizes[0].1, empty.1);
    // Two of one stranger at most, and none of them is a contact or has us in its group.
    let waiting = victim.with(|_, tx, _| Requests::open(tx)).unwrap();
    let mut of_each: BTreeMap<IdentityKey, usize> = BTreeMap::new();
    waiting.iter().for_each(|request| *of_each.entry(request.from).or_default() += 1);
    assert!(of_each.values().all(|count| *count <= 2), "{of_each:?}");
    assert!(victim.with(|node, tx, _| node.groups.groups(tx)).unwrap().is_empty());
    assert!(victim.with(|_, tx, _| Contacts::all(tx)).unwrap().is_empty());
    // Those that wait can still be accepted: looking at them has used up nothing.
    let who = waiting[0].from.to_string();
    victim.command(Command::RequestsAccept { who }).unwrap();
    assert!(!victim.with(|node, tx, _| node.groups.groups(tx)).unwrap().is_empty());
}

/// Whether a text shows part of a secret: as numbers, or in hexadecimal.
fn shows(text: &str, secret: &[u8]) -> bool {
    let as_numbers = |run: &[u8]| run.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
    let as_hex = |run: &[u8]| run.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    secret.windows(6).any(|run| text.contains(&as_numbers(run)) || text.contains(&as_hex(run)))
}

/// Everything that a node has in memory, in both forms of `Debug`.
#[test]
fn c07_nothing_that_a_node_shows_of_itself_is_secret() {
    let (mut victim, mut mallory, group) = acquainted();
    let blob = mallory.say(&group, 1, "hello");
    assert_eq!(victim.take(&blob, false), Verdict::Applied);
    let who = mallory.own.key().to_string();
    let text = "hello".to_owned();
    victim.command(Command::Send { to: who, text, reply_to: None }).unwrap();
    let Ok(Reply::Link(link)) = victim.command(Command::Link { once: false }) else {
        panic!("no link")
    };
    let (package, key) = (victim.package(), victim.node.own.key());
    let checked =
        mallory.groups.check_key_package(&package, &key, Suite::X25519, victim.now).unwrap();
    let own = &victim.node.own;
    let mut secrets = vec![own.identity_secret().to_bytes().to_vec()];
    secrets.push(own.local().noise_secret.to_bytes().to_vec());
    secrets.extend(own.seal_secrets().iter().map(|secret| secret.to_bytes().to_vec()));
    secrets.push(own.leaf_signer().unwrap().to_bytes()[..32].to_vec());
    let tokens = victim.with(|_, tx, _| tx.scan(Table::Tokens, &[], None, usize::MAX)).unwrap();
    secrets.extend(tokens.into_iter().map(|(token, _)| token));
    assert!(secrets.len() >= 6 && secrets.iter().all(|secret| secret.len() >= 16));
    let node = &victim.node;
    let with_link = format!("{checked:?} {link:?}");
    for shown in [format!("{node:?}"), format!("{node:#?}"), with_link] {
        let shown: String = shown.to_lowercase().split_whitespace().collect();
        for (number, secret) in secrets.iter().enumerate() {
            assert!(!shows(&shown, secret), "secret {number}");
        }
        assert!(!shown.contains(&link.link));
    }
}

/// Another version of somebody's identity, with one relay of its own.
fn version_of(own: &Own, version: u64, name: &str) -> VerifiedIdentity {
    let mut data = own.identity().data().clone();
    data.version = version;
    data.username = Username::new(name).unwrap();
    let mut entropy = Entropy::from_number(version);
    let relay = RelayRecord {
        identity_key: IdentitySecret::generate(&mut entropy).public(),
        endpoints: List::new(vec!["127.0.0.1:7".parse().unwrap()]).unwrap(),
    };
    data.set_relays(vec![relay]).unwrap();
    data.sign(own.identity_secret()).unwrap()
}

/// By which way an identity comes in.
#[derive(Clone, Copy, Debug)]
enum By {
    Noise,
    Rendezvous,
    Profile,
    Welcome,
}

fn show(
    victim: &mut Victim,
    mallory: &mut Mallory,
    group: &GroupId,
    identity: &VerifiedIdentity,
    by: By,
) {
    match by {
        By::Noise => {
            victim.with(|node, tx, now| node.session_up(tx, identity, false, now)).unwrap();
        }
        By::Rendezvous => {
            let peer = PeerInfo {
                identity: identity.identity().clone(),
                endpoints: List::default(),
                last_seen: start().wall,
                online: true,
            };
            let peers = List::new(vec![peer]).unwrap();
            let found = Message::LookupResponse(LookupResponse { peers, has_more: false });
            let who = identity.key();
            victim.with(|node, tx, now| node.lookup_answered(tx, who, 0, Ok(found), now)).unwrap();
        }
        By::Profile => {
            let id = MessageId::new(mallory.entropy.array());
            let profile = ProfileBody { identity: identity.identity().clone() };
            let content = Content::new(id, &Kind::Profile(profile), 1, start().wall).to_bytes();
            let blob = mallory
                .with(|groups, tx| groups.encrypt(tx, group, &content, start()))
                .unwrap()
                .blob;
            assert_eq!(victim.take(&blob, false), Verdict::Applied);
        }
        By::Welcome => {
            let package = victim.package();
            let invitation =
                mallory.invite_as(identity.identity(), victim, &package, GroupKind::Group).1;
            assert_eq!(victim.take(&invitation, false), Verdict::Applied);
        }
    }
}

/// By none of the ways an older identity, or a second one of the same version, takes the place of the
/// one that is known; nor do its relays. What came by mail may be old without anybody lying.
#[test]
fn c02_no_way_leads_back_to_an_older_or_a_second_identity() {
    let all = [By::Noise, By::Rendezvous, By::Profile, By::Welcome];
    for by in all {
        let (mut victim, mut mallory, group) = acquainted();
        let key = mallory.own.key();
        let [old, known, rival, newer] = [(4, "old"), (5, "known"), (5, "rival"), (6, "newer")]
            .map(|(version, name)| version_of(&mallory.own, version, name));
        let stands = |victim: &mut Victim| {
            let contact = victim.with(|_, tx, _| Contacts::find(tx, &key)).unwrap().unwrap();
            let relays = victim.with(|_, tx, _| Reach::of(tx, &key)).unwrap().relays;
            (contact.name().to_owned(), relays, contact.doubt.map(|doubt| doubt.kind))
        };
        show(&mut victim, &mut mallory, &group, &known, by);
        let expected = |identity: &VerifiedIdentity, doubt| {
            (identity.data().username.to_string(), identity.data().relays(), doubt)
        };
        assert_eq!(stands(&mut victim), expected(&known, None), "{by:?}");
        let mailed = matches!(by, By::Profile | By::Welcome);
        let doubt = (!mailed).then_some(DoubtKind::OldIdentity);
        show(&mut victim, &mut mallory, &group, &old, by);
        assert_eq!(stands(&mut victim), expected(&known, doubt), "{by:?}");
        // What is known is on disk.
        victim.restart();
        show(&mut victim, &mut mallory, &group, &old, by);
        assert_eq!(stands(&mut victim), expected(&known, doubt), "{by:?}");
        show(&mut victim, &mut mallory, &group, &rival, by);
        let doubt = Some(DoubtKind::SecondIdentity);
        assert_eq!(stands(&mut victim), expected(&known, doubt), "{by:?}");
        show(&mut victim, &mut mallory, &group, &newer, by);
        assert_eq!(stands(&mut victim).0, "newer", "{by:?}");
        assert_eq!(stands(&mut victim).1, newer.data().relays(), "{by:?}");
    }
}

/// What strangers throw in leaves nothing, however much it is; what a contact writes takes the same room
/// for each message, and a page of it is a page.
#[test]
fn c18_a_storm_takes_no_more_room_than_what_is_shown_of_it() {
    const PAGE: u32 = 50;
    let (mut victim, mut mallory, group) = acquainted();
    let mut noise = vec![0; 300];
    let before = victim.size();
    for _ in 0..10_000 {
        mallory.entropy.fill(&mut noise);
        assert_eq!(victim.take(&noise, true), Verdict::NoInvitation);
    }
    assert_eq!(victim.size(), before);
    let mut rows = vec![before.0];
    for round in 0..4_u16 {
        for number in 0..250_u16 {
            let body = TextBody { text: Text::new("spam").unwrap(), reply_to: None };
            let id = MessageId::new(mallory.entropy.array());
            let lamport = u64::from(round * 250 + number);
            let content = Content::new(id, &Kind::Text(body), lamport, start().wall).to_bytes();
            let sealed = mallory.with(|groups, tx| groups.encrypt(tx, &group, &content, start()));
            assert_eq!(victim.take(&sealed.unwrap().blob, false), Verdict::Applied);
        }
        rows.push(victim.size().0);
        let with = mallory.own.key().to_string();
        let Ok(Reply::Messages(page)) =
            victim.command(Command::History { with, limit: PAGE, before: None })
        else {
            panic!("no answer")
        };
        assert_eq!(page.len(), 50);
    }
    let grown: Vec<_> = rows.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Its row and what finds it, its verdict and its event, and a receipt that waits.
    assert!(grown.iter().all(|rows| *rows <= 250 * 7 + 5), "{grown:?}");
}
