//! Tests of the rules, one by one.

use sremp_common::entropy::Entropy;
use sremp_common::key::IdentitySecret;

use super::*;

fn people() -> [IdentityKey; 5] {
    let mut entropy = Entropy::from_number(5);
    let mut people = [0; 5].map(|_| IdentitySecret::generate(&mut entropy).public());
    people.sort_unstable();
    people
}

/// A step in a group of the first three people, of whom the first is admin.
struct Case {
    before: Policy,
    committer: usize,
    added: Vec<usize>,
    /// Who, and who proposed it.
    removed: Vec<(usize, usize)>,
    after: Policy,
}

impl Case {
    fn new(committer: usize) -> Self {
        let policy = Policy::new(GroupKind::Group, "team", people()[0]).unwrap();
        let after = policy.clone();
        Self { before: policy, committer, added: Vec::new(), removed: Vec::new(), after }
    }

    fn judge(&self) -> Result<(), PolicyError> {
        let p = people();
        judge(&Step {
            before: &self.before,
            members_before: &p[..3],
            committer: p[self.committer],
            added: &self.added.iter().map(|who| p[*who]).collect::<Vec<_>>(),
            removed: &self
                .removed
                .iter()
                .map(|(who, by)| Removal { who: p[*who], proposer: p[*by] })
                .collect::<Vec<_>>(),
            after: &self.after,
        })
    }
}

#[test]
fn members_may_renew_their_keys_and_carry_out_leaves() {
    assert_eq!(Case::new(1).judge(), Ok(()));
    assert_eq!(Case { removed: vec![(2, 2)], ..Case::new(1) }.judge(), Ok(()));
    // The only admin cannot go without another taking over: the first member that remains.
    let p = people();
    let gone = Case { removed: vec![(0, 0)], ..Case::new(2) };
    assert_eq!(gone.judge(), Err(PolicyError::NotAdmin));
    let after = gone.before.restricted_to(&p[1..3]);
    assert!(after.is_admin(&p[1]) && !after.is_admin(&p[2]));
    assert_eq!(Case { after, ..gone }.judge(), Ok(()));
}

#[test]
fn only_admins_change_members_name_and_roles() {
    let p = people();
    let cases = |who: usize| {
        let case = || Case::new(who);
        let policy = case().before;
        [
            Case { added: vec![3], ..case() },
            Case { removed: vec![(2, who)], ..case() },
            Case { after: policy.clone().renamed("x"), ..case() },
            Case { after: policy.promoted(p[1]), ..case() },
        ]
    };
    for case in cases(0) {
        assert_eq!(case.judge(), Ok(()));
    }
    for case in cases(1) {
        assert_eq!(case.judge(), Err(PolicyError::NotAdmin));
    }
}

#[test]
fn what_nobody_may_do() {
    let p = people();
    let policy = Case::new(0).before;
    let case = || Case::new(0);
    for (case, wanted) in [
        (Case { removed: vec![(0, 0)], ..case() }, PolicyError::RemoveSelf),
        (Case { removed: vec![(4, 0)], ..case() }, PolicyError::NotMember),
        (Case { removed: vec![(2, 1)], ..case() }, PolicyError::Proposal),
        (Case { added: vec![1], ..case() }, PolicyError::AlreadyMember),
        (Case { added: vec![3, 3], ..case() }, PolicyError::AlreadyMember),
        (Case { added: vec![2], removed: vec![(2, 0)], ..case() }, PolicyError::AlreadyMember),
        (Case { after: policy.clone().renamed(""), ..case() }, PolicyError::Name),
        (Case { after: policy.clone().promoted(p[4]), ..case() }, PolicyError::NotMember),
        (Case { after: policy.demoted(&p[0]), ..case() }, PolicyError::LastAdmin),
        (Case { committer: 4, ..case() }, PolicyError::External),
        (
            Case { after: Policy::new(GroupKind::Direct, "", p[0]).unwrap(), ..case() },
            PolicyError::KindChanged,
        ),
    ] {
        assert_eq!(case.judge(), Err(wanted));
    }
}

#[test]
fn a_removed_admin_is_none_any_more() {
    let p = people();
    let policy = Case::new(0).before.promoted(p[1]);
    let kept =
        Case { before: policy.clone(), after: policy, removed: vec![(1, 0)], ..Case::new(0) };
    assert_eq!(kept.judge(), Err(PolicyError::NotMember));
    let after = kept.before.restricted_to(&[p[0], p[2]]);
    assert_eq!(Case { after, ..kept }.judge(), Ok(()));
}

#[test]
fn a_chat_of_two_stays_one() {
    let p = people();
    let direct = Policy::new(GroupKind::Direct, "", p[0]).unwrap();
    let step = |members: &[IdentityKey], added: &[IdentityKey], after: &Policy| {
        judge(&Step {
            before: &direct,
            members_before: members,
            committer: p[0],
            added,
            removed: &[],
            after,
        })
    };
    assert_eq!(step(&p[..1], &p[1..2], &direct), Ok(()));
    assert_eq!(step(&p[..2], &p[2..3], &direct), Err(PolicyError::DirectIsFull));
    let named = direct.clone().renamed("x");
    assert_eq!(step(&p[..2], &[], &named), Err(PolicyError::DirectHasNoPolicy));
    let admins = direct.clone().promoted(p[0]);
    assert_eq!(step(&p[..2], &[], &admins), Err(PolicyError::DirectHasNoPolicy));
    assert!(direct.is_admin(&p[1]));
    assert_eq!(Policy::new(GroupKind::Direct, "x", p[0]), Err(PolicyError::DirectHasNoPolicy));
}

#[test]
fn who_may_leave() {
    let p = people();
    let policy = Policy::new(GroupKind::Group, "team", p[0]).unwrap();
    assert_eq!(may_leave(&policy, &p[..3], &p[1]), Ok(()));
    assert_eq!(may_leave(&policy, &p[..3], &p[0]), Err(PolicyError::LastAdmin));
    assert_eq!(may_leave(&policy.clone().promoted(p[2]), &p[..3], &p[0]), Ok(()));
    assert_eq!(may_leave(&policy, &p[..1], &p[0]), Err(PolicyError::Alone));
    let direct = Policy::new(GroupKind::Direct, "", p[0]).unwrap();
    assert_eq!(may_leave(&direct, &p[..2], &p[0]), Ok(()));
}

#[test]
fn one_encoding() {
    let p = people();
    let policy = Policy::new(GroupKind::Group, "team", p[1]).unwrap().promoted(p[0]);
    let bytes = policy.encode();
    assert_eq!(Policy::decode(&bytes), Ok(policy));
    for bad in [
        encode(&(1_u8, 1_u8, "team", [p[1], p[0]])),
        encode(&(1_u8, 1_u8, "team", [p[0], p[0]])),
        encode(&(1_u8, 2_u8, "team", [p[0]])),
        encode(&(1_u8, 1_u8, "team")),
        [bytes.as_slice(), &[0]].concat(),
        Vec::new(),
    ] {
        assert_eq!(Policy::decode(&bad), Err(PolicyError::Malformed));
    }
    let later = encode(&(2_u8, "whatever these are", [p[0]], 7_u8, 8_u8));
    assert_eq!(Policy::decode(&later), Err(PolicyError::UnknownRules));
    let much_later = encode(&(200_u8, 1_u8, "team", [p[0]]));
    assert_eq!(Policy::decode(&much_later), Err(PolicyError::UnknownRules));
    assert_eq!(Policy::decode(&encode(&(1_u8, 1_u8, "\n", [p[0]]))), Err(PolicyError::Name));
    let many: Vec<IdentityKey> = {
        let mut entropy = Entropy::from_number(6);
        (0..=MAX_ADMINS).map(|_| IdentitySecret::generate(&mut entropy).public()).collect()
    };
    assert_eq!(
        Policy::decode(&encode(&(1_u8, 1_u8, "team", many.clone()))),
        Err(PolicyError::Malformed)
    );
    let crowded = many.into_iter().fold(Case::new(0).before, Policy::promoted);
    assert_eq!(Case { after: crowded, ..Case::new(0) }.judge(), Err(PolicyError::TooManyAdmins));
}
