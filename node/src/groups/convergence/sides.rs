//! Which side of a split stands when no member keeps a state from before it any more.
//!
//! The rules for rival commits need the state that the rivals leave. When that is gone on both sides,
//! members compare who stands where: what each member says about itself, signed. The side with more
//! admins stands, then the one with more members, then the higher epoch, then the lower authenticator.
//! Members of the other side come back by an external commit. A single member who lies cannot draw an
//! admin away, and no admin's decision gives way to members who are none.

use std::collections::{BTreeMap, BTreeSet};

use sremp_common::id::IdentityKey;

use super::marks::Mark;

/// What is known about a split.
#[derive(Debug)]
pub struct Split<'a> {
    /// Ourselves.
    pub own: IdentityKey,
    /// Where we stand; none when our own state may not be used any more (a restored copy).
    pub mark: Option<Mark>,
    /// The admins, as our tip has them.
    pub admins: &'a BTreeSet<IdentityKey>,
    /// All other members at our tip.
    pub others: usize,
    /// Where others say that they stand.
    pub heard: &'a BTreeMap<IdentityKey, Mark>,
    /// Those who say that they came through our tip: we are behind, not on another side.
    pub ahead: &'a BTreeSet<IdentityKey>,
}

/// Where we have to go; none when we stay, or do not know enough yet.
#[must_use]
pub fn choose(split: &Split<'_>) -> Option<Mark> {
    let mut sides: BTreeMap<Mark, BTreeSet<IdentityKey>> = BTreeMap::new();
    for (who, mark) in split.heard {
        sides.entry(*mark).or_default().insert(*who);
    }
    if let Some(mark) = split.mark {
        sides.entry(mark).or_default().insert(split.own);
    }
    // Whoever is behind has no side: an admin says so, or most of the others.
    let says_ahead = |who: &&IdentityKey| split.ahead.contains(*who);
    let admin_ahead = split.ahead.iter().any(|who| split.admins.contains(who));
    let most_ahead = split.heard.keys().filter(says_ahead).count().saturating_mul(2) > split.others;
    let no_side = split.mark.is_none() || admin_ahead || most_ahead;
    if no_side && let Some(mark) = split.mark {
        sides.remove(&mark);
    }
    let weight = |members: &BTreeSet<IdentityKey>| {
        let admins = members.iter().filter(|who| split.admins.contains(*who)).count();
        (admins, members.len())
    };
    let (mark, members) = sides.into_iter().max_by_key(|(mark, members)| {
        (weight(members), mark.epoch, std::cmp::Reverse(mark.authenticator))
    })?;
    if Some(mark) == split.mark {
        return None;
    }
    // With a side of our own the comparison decides; without one, somebody has to be believed.
    let (admins, count) = weight(&members);
    let believed = !no_side || admins > 0 || count.saturating_mul(2) > split.others;
    believed.then_some(mark)
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteArray;
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;

    use super::*;

    fn people<const N: usize>() -> [IdentityKey; N] {
        let mut entropy = Entropy::from_number(9);
        std::array::from_fn(|_| IdentitySecret::generate(&mut entropy).public())
    }

    fn mark(number: u8, epoch: u64) -> Mark {
        Mark { epoch, authenticator: ByteArray::new([number; 32]) }
    }

    /// What each member chooses who hears all others.
    fn choices(stand: &[(IdentityKey, Mark)], admins: &[IdentityKey]) -> Vec<Option<Mark>> {
        let admins = admins.iter().copied().collect();
        let choice = |(own, mark): &(IdentityKey, Mark)| {
            let heard = stand.iter().filter(|(who, _)| who != own).copied().collect();
            let ahead = BTreeSet::new();
            let others = stand.len() - 1;
            choose(&Split {
                own: *own,
                mark: Some(*mark),
                admins: &admins,
                others,
                heard: &heard,
                ahead: &ahead,
            })
        };
        stand.iter().map(choice).collect()
    }

    #[test]
    fn all_members_choose_one_side() {
        let [a, b, c, d] = people();
        let (left, right) = (mark(1, 30), mark(2, 12));
        // The only admin's side stands, though it is smaller and shallower.
        let stand = [(a, right), (b, left), (c, left), (d, left)];
        assert_eq!(choices(&stand, &[a]), [None, Some(right), Some(right), Some(right)]);
        // Admins on both sides: the larger one; then the higher epoch; then the lower authenticator.
        assert_eq!(choices(&stand, &[a, b]), [Some(left), None, None, None]);
        let even = [(a, right), (b, right), (c, left), (d, left)];
        assert_eq!(choices(&even, &[a, c]), [Some(left), Some(left), None, None]);
        let equal = [(a, mark(2, 30)), (b, mark(2, 30)), (c, left), (d, left)];
        assert_eq!(choices(&equal, &[]), [Some(left), Some(left), None, None]);
    }

    #[test]
    fn one_member_cannot_draw_an_admin_away() {
        let [admin, liar, c, d] = people();
        let admins = BTreeSet::from([admin]);
        let heard = BTreeMap::from([(liar, mark(9, 99))]);
        let ahead = BTreeSet::from([liar]);
        let mut split = Split {
            own: admin,
            mark: Some(mark(1, 5)),
            admins: &admins,
            others: 3,
            heard: &heard,
            ahead: &ahead,
        };
        assert_eq!(choose(&split), None);
        // Nor a restored one, which has no side.
        split.mark = None;
        assert_eq!(choose(&split), None);
        // Most of the others can: the admin was away for long.
        let heard = BTreeMap::from([(liar, mark(9, 99)), (c, mark(3, 40)), (d, mark(3, 40))]);
        let ahead = BTreeSet::from([c, d]);
        let split = Split {
            own: admin,
            mark: Some(mark(1, 5)),
            admins: &admins,
            others: 3,
            heard: &heard,
            ahead: &ahead,
        };
        assert_eq!(choose(&split), Some(mark(3, 40)));
    }

    #[test]
    fn whoever_is_behind_follows_an_admin() {
        let [a, b] = people();
        let admins = BTreeSet::from([a, b]);
        let heard = BTreeMap::from([(b, mark(7, 20))]);
        let ahead = BTreeSet::from([b]);
        let split = Split {
            own: a,
            mark: Some(mark(1, 5)),
            admins: &admins,
            others: 9,
            heard: &heard,
            ahead: &ahead,
        };
        assert_eq!(choose(&split), Some(mark(7, 20)));
    }
}
