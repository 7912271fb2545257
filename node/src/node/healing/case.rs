//! One group that is being healed: why, since when, what was heard, and when it is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sremp_common::entropy::Entropy;
use sremp_common::id::IdentityKey;
use sremp_common::time::{Instant, Now, Timestamp};

use super::FIRST_LOOK;
use crate::api::HealingStep;
use crate::groups::{Mark, Offer, StateId};

/// Pause after the first question; it doubles with each,
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Rounds in which commits are brought in vain before they are taken for ones that we cannot follow.
const MAX_FUTILE: u32 = 3;
/// Time for which the word that we are no member any more must stand before it is believed: that of a
/// member that lacks our invitation is mended sooner.
const GONE_PATIENCE: Duration = Duration::from_secs(60);
/// Time after which such a word has to be said anew: longer than the pauses in that time.
const GONE_FORGOTTEN: Duration = Duration::from_secs(300);

/// Why a group is in doubt, the gravest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Doubt {
    /// A blob came that no state opens: it may be of this group.
    Unread,
    /// A member has commits that we have not.
    Behind,
    /// A member stands in a state that has nothing in common with ours.
    Forked,
    /// This home is an old copy: what was done since is not known here.
    OldCopy,
}

/// One group that is being healed.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) doubt: Doubt,
    pub(super) since: Timestamp,
    /// When it is looked at again, and when members are asked again.
    pub(super) next_at: Instant,
    pub(super) round_at: Instant,
    pub(super) rounds: u32,
    /// The step that the user was told of.
    pub(super) told: Option<HealingStep>,
    pub(super) waiting: bool,
    /// Rounds in which members had commits for us, and having brought them did not help.
    pub(super) futile: u32,
    /// Members have commits for us, as was said in this round.
    pub(super) behind: bool,
    /// The tip when members were asked first, and when they were asked last.
    pub(super) state: StateId,
    pub(super) asked_in: StateId,
    /// Before this no way back is taken; none until one is wanted.
    pub(super) rejoin_at: Option<Instant>,
    /// Ways back that were taken.
    pub(super) rejoins: u32,
    /// Where members stand who have nothing in common with us, or us all when we are an old copy;
    /// and those who agree with us.
    pub(super) heard: BTreeMap<IdentityKey, Mark>,
    /// Those who came through our state.
    pub(super) ahead: BTreeSet<IdentityKey>,
    pub(super) offers: BTreeMap<Mark, Offer>,
    /// Who says that we are no member any more, in which state: since when, and when last.
    gone: BTreeMap<IdentityKey, (Instant, Instant)>,
    gone_in: StateId,
}

impl Case {
    pub(super) fn new(doubt: Doubt, now: Now) -> Self {
        Self {
            doubt,
            since: now.wall,
            next_at: now.instant + FIRST_LOOK,
            round_at: now.instant,
            rounds: 0,
            told: None,
            waiting: false,
            futile: 0,
            behind: false,
            state: StateId::new([0; 16]),
            asked_in: StateId::new([0; 16]),
            rejoin_at: None,
            rejoins: 0,
            heard: BTreeMap::new(),
            ahead: BTreeSet::new(),
            offers: BTreeMap::new(),
            gone: BTreeMap::new(),
            gone_in: StateId::new([0; 16]),
        }
    }

    /// Whether somebody has commits for us, and none of them has helped yet.
    pub(super) fn is_behind(&self, tip: &StateId) -> bool {
        (self.behind || self.futile > 0) && self.asked_in == *tip
    }

    /// The step that people are shown; none while it may be nothing.
    pub(super) fn step(&self) -> Option<HealingStep> {
        if self.doubt == Doubt::Unread || self.rounds == 0 && self.doubt != Doubt::OldCopy {
            return None;
        }
        Some(match (self.waiting, self.doubt) {
            (true, _) => HealingStep::WaitingForAdmin,
            (false, Doubt::OldCopy) => HealingStep::Rejoining,
            (false, Doubt::Forked) if !self.heard.is_empty() => HealingStep::Rejoining,
            (false, _) => HealingStep::Checking,
        })
    }

    /// Whether members' commits were brought in vain, or nothing of ours may be used any more.
    pub(super) fn is_stuck(&self) -> bool {
        self.doubt == Doubt::OldCopy || self.futile >= MAX_FUTILE
    }

    /// Whether it woke up only because a way back may be taken now.
    pub(super) fn wakes_to_rejoin(&self, now: Now) -> bool {
        self.rejoin_at.is_some_and(|at| at <= now.instant) && self.round_at > now.instant
    }

    /// We stand elsewhere now, by a way back or an invitation: what was heard before says nothing about
    /// it, and members are asked soon whether all is well.
    pub(super) fn restart(&mut self, now: Now) {
        self.offers.clear();
        self.heard.clear();
        self.ahead.clear();
        self.waiting = false;
        self.rejoin_at = None;
        self.forget_gone();
        self.rounds = self.rounds.min(1);
        self.round_at = now.instant + FIRST_LOOK;
        self.next_at = self.round_at;
    }

    /// A member says that we are none any more. Answers who has said so for long enough; nobody, as long
    /// as there is a better witness: commits that lead on from where we stand.
    pub(super) fn told_gone(
        &mut self,
        by: IdentityKey,
        tip: &StateId,
        now: Now,
    ) -> Vec<IdentityKey> {
        if self.gone_in != *tip {
            self.gone.clear();
            self.gone_in = *tip;
        }
        let said = self.gone.entry(by).or_insert((now.instant, now.instant));
        if said.1 + GONE_FORGOTTEN < now.instant {
            said.0 = now.instant;
        }
        said.1 = now.instant;
        if self.doubt < Doubt::Forked && self.is_behind(tip) {
            return Vec::new();
        }
        let long_ago = |who: &IdentityKey| {
            self.gone.get(who).is_some_and(|(since, _)| *since + GONE_PATIENCE <= now.instant)
        };
        self.say_gone(tip, now).filter(long_ago).collect()
    }

    /// Who says, and has said lately, that we are no member any more.
    pub(super) fn say_gone(
        &self,
        tip: &StateId,
        now: Now,
    ) -> impl Iterator<Item = IdentityKey> + '_ {
        let lately = move |last: Instant| last + GONE_FORGOTTEN >= now.instant;
        let is_here = self.gone_in == *tip;
        let said = self.gone.iter().filter(move |(_, (_, last))| is_here && lately(*last));
        said.map(|(who, _)| *who)
    }

    /// An admin stands where we do: whoever says that we are no member any more is elsewhere.
    pub(super) fn forget_gone(&mut self) {
        self.gone.clear();
    }

    /// Members are asked once more. What they brought since the last time has helped, or not.
    pub(super) fn begin_round(&mut self, tip: StateId, now: Now, entropy: &mut Entropy) {
        if self.rounds == 0 {
            self.state = tip;
        }
        let in_vain = std::mem::take(&mut self.behind) && self.asked_in == tip;
        self.futile = if in_vain { self.futile.saturating_add(1) } else { 0 };
        if self.futile >= MAX_FUTILE {
            // A path that was made wrong for us alone, or keys that we have lost.
            self.doubt = self.doubt.max(Doubt::Forked);
        }
        self.asked_in = tip;
        self.rounds = self.rounds.saturating_add(1);
        let pause = pause(self.rounds);
        self.round_at = now.instant + pause + up_to(pause / 4, entropy);
        self.next_at = self.round_at;
    }
}

/// A random part of a time.
pub(in crate::node) fn up_to(most: Duration, entropy: &mut Entropy) -> Duration {
    let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(entropy.below(most))
}

/// Pause after so many rounds: 5 s, 10 s, 20 s, up to an hour.
pub(super) fn pause(rounds: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(rounds.saturating_sub(1).min(16));
    FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE)
}
