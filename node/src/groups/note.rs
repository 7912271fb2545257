//! Notes: what one member tells another in private about where it stands in a group.
//!
//! ```text
//! note = [from, group, kind, bin body, signature]      sealed to the recipient
//! ```
//! The signature is the sender's leaf key's, with the recipient in its context: a note cannot be passed
//! on, and nobody but a member can make one. Notes are for members who may have no state in common, so
//! they cannot be wrapped under one.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sremp_common::id::{GroupId, IdentityKey, SealKey, SignatureBytes, Token};
use sremp_common::label::SignatureLabel;
use sremp_common::signed;
use sremp_common::wire::{Bin, decode, encode};

use super::convergence::marks::{Mark, Marks, Standing};
use super::convergence::record::State;
use super::states::own_proposal;
use super::{GroupError, Groups, LeafInfo, LostWork, Offer};
use crate::store::{Table, Tx};

/// Kind of a sealed blob that holds a note.
pub const SEALED_NOTE: u8 = 3;

/// Bytes of a note's body: an offer, with what stands in it besides the tree.
const MAX_BODY: usize = super::MAX_TREE + 8 * 1024;

/// Bytes of commits that are kept in memory for the next member who misses them.
const MAX_KEPT_COMMITS: usize = 1024 * 1024;

/// From which state to which.
pub(super) type Way = (super::StateId, super::StateId);
/// Wrapped commits and proposals, in the order in which they are to be opened.
pub(super) type Commits = Arc<[Vec<u8>]>;

/// What the sender of a probe wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// Nothing: this is an answer.
    Nothing,
    /// To hear where the other one stands.
    Answer,
    /// A way back into the group.
    Offer,
}

/// Where a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its tip and the states before it.
    pub marks: Marks,
    /// See [`Wants`].
    pub wants: Wants,
    /// The highest number of a message of the recipient that the sender has: whoever never wrote it
    /// is an old copy.
    pub yours: u64,
    /// How the sender is reached, when it wants something: its leaf at its tip. The recipient may know
    /// an older one alone, which opens nothing any more.
    pub way: Option<LeafInfo>,
    /// The token in the recipient's leaf at the sender's tip, when something is wanted.
    pub leaf: Option<Token>,
}

/// What a note says.
#[derive(Clone, Debug)]
pub enum NoteBody {
    /// Where the sender stands.
    Probe(Probe),
    /// A way back into the group for the recipient.
    Offer(Box<Offer>),
    /// The sender cannot come back by itself: an admin is to remove and add it.
    ReaddMe,
    /// The recipient, who stands in this state or came through it, is no member any more where the sender
    /// stands.
    NotMember(Mark),
    /// The sender has left, or was removed, and the leaf with this token, which the recipient has as
    /// its own, is of no use to it.
    Out(Token),
}

/// A note that was verified.
#[derive(Clone, Debug)]
pub struct Note {
    /// In which group.
    pub group: GroupId,
    /// The member who wrote it, now or in a state that is still kept; or who asks, and was one.
    pub from: IdentityKey,
    /// What it says.
    pub body: NoteBody,
}

#[derive(Serialize, Deserialize)]
struct ProbeData {
    marks: Marks,
    wants: u8,
    yours: u64,
    way: Option<LeafInfo>,
    leaf: Option<Token>,
}

#[derive(Serialize, Deserialize)]
struct NoteData {
    from: IdentityKey,
    group: GroupId,
    kind: u8,
    body: Bin<MAX_BODY>,
    signature: SignatureBytes,
}

impl NoteData {
    /// What it says to us, if it is signed by this key.
    fn verified(&self, own: &IdentityKey, leaf_key: &[u8; 32]) -> Option<NoteBody> {
        let context = context(&self.group, own, self.kind);
        let label = SignatureLabel::GroupNote;
        signed::verify(leaf_key, label, &context, &self.body, &self.signature).ok()?;
        NoteBody::from_parts(self.kind, &self.body)
    }
}

impl NoteBody {
    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Probe(probe) => {
                let wants = match probe.wants {
                    Wants::Nothing => 0,
                    Wants::Answer => 1,
                    Wants::Offer => 2,
                };
                let Probe { marks, yours, way, leaf, .. } = probe.clone();
                (1, encode(&ProbeData { marks, wants, yours, way, leaf }))
            }
            Self::Offer(offer) => (2, encode(offer)),
            Self::ReaddMe => (3, Vec::new()),
            Self::NotMember(mark) => (4, encode(mark)),
            Self::Out(leaf) => (5, encode(leaf)),
        }
    }

    fn from_parts(kind: u8, body: &[u8]) -> Option<Self> {
        match kind {
            1 => {
                let data: ProbeData = decode(body).ok()?;
                let wants = match data.wants {
                    0 => Wants::Nothing,
                    1 => Wants::Answer,
                    2 => Wants::Offer,
                    _ => return None,
                };
                let ProbeData { marks, yours, way, leaf, .. } = data;
                Some(Self::Probe(Probe { marks, wants, yours, way, leaf }))
            }
            2 => Some(Self::Offer(Box::new(decode(body).ok()?))),
            3 if body.is_empty() => Some(Self::ReaddMe),
            4 => Some(Self::NotMember(decode(body).ok()?)),
            5 => Some(Self::Out(decode(body).ok()?)),
            _ => None,
        }
    }
}

fn context(group: &GroupId, to: &IdentityKey, kind: u8) -> Vec<u8> {
    encode(&(group, to, kind))
}

impl Groups {
    /// Makes a note and seals it.
    ///
    /// # Errors
    /// [`GroupError::TooLong`].
    pub fn note(
        &self,
        group: &GroupId,
        (to, seal_key): (&IdentityKey, &SealKey),
        body: &NoteBody,
    ) -> Result<Vec<u8>, GroupError> {
        let (kind, body) = body.parts();
        let ctx = context(group, to, kind);
        let signature = self.signer.sign_labelled(SignatureLabel::GroupNote, &ctx, &body);
        let body = Bin::new(body).map_err(|_| GroupError::TooLong(MAX_BODY))?;
        let data = NoteData { from: self.own, group: *group, kind, body, signature };
        self.seal(seal_key, SEALED_NOTE, &encode(&data))
    }

    /// Verifies what was sealed with [`SEALED_NOTE`]. None when it is malformed, of a group that we do
    /// not know, or not by a member of any state that is kept, nor a question of a former member.
    ///
    /// # Errors
    /// [`GroupError::Store`], [`GroupError::Mls`].
    pub fn open_note(&mut self, tx: &Tx, bytes: &[u8]) -> Result<Option<Note>, GroupError> {
        let Ok(data) = decode::<NoteData>(bytes) else { return Ok(None) };
        let Some(record) = self.find_record(tx, &data.group)? else { return Ok(None) };
        // The tip first: that is where almost every sender is a member.
        let tip = record.tip();
        let mut states = vec![tip];
        states.extend(record.states().iter().map(|state| state.id));
        let mut tried = Vec::new();
        for state in states {
            let view = self.view(tx, &data.group, state)?;
            let Some(member) = view.member(&data.from) else { continue };
            if tried.contains(&member.leaf_key) {
                continue;
            }
            tried.push(member.leaf_key);
            if let Some(body) = data.verified(&self.own, &member.leaf_key) {
                return Ok(Some(Note { group: data.group, from: data.from, body }));
            }
        }
        // Of whoever is a member now, only what is signed by a key that a kept state knows.
        if self.view(tx, &data.group, tip)?.member(&data.from).is_some() {
            return Ok(None);
        }
        let former = Self::former_leaf_key(tx, &data.group, &data.from)?;
        let body = former.and_then(|leaf_key| data.verified(&self.own, &leaf_key));
        let question = body.filter(|body| matches!(body, NoteBody::Probe(_)));
        Ok(question.map(|body| Note { group: data.group, from: data.from, body }))
    }

    /// Where we stand.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn marks(&mut self, tx: &Tx, group: &GroupId) -> Result<Marks, GroupError> {
        Ok(self.record(tx, group)?.marks())
    }

    /// What another member's marks say about both of us.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn compare(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        theirs: &Marks,
    ) -> Result<Standing, GroupError> {
        let was_ours = match theirs.tip() {
            Some(tip) => Self::was_ours(tx, group, &tip)?,
            None => false,
        };
        Ok(self.record(tx, group)?.compare(theirs, was_ours))
    }

    /// Whether a mark is of a state that is kept, or that we came through.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn knows(&mut self, tx: &Tx, group: &GroupId, mark: &Mark) -> Result<bool, GroupError> {
        let kept = self.record(tx, group)?.states().iter().any(|state| state.mark() == *mark);
        Ok(kept || Self::was_ours(tx, group, mark)?)
    }

    /// The wrapped commits that lead from a state on our branch to the tip, oldest first, each after the
    /// proposals that it may refer to. Members who were away together ask for the same ones, one after
    /// the other: what was read for the last of them is kept, up to a mebibyte.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn commits_after(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        from: super::StateId,
    ) -> Result<Commits, GroupError> {
        // A state's id says by which commits it came about.
        let way = (from, self.record(tx, group)?.tip());
        if let Some((_, kept)) = self.commits.as_ref().filter(|(kept, _)| *kept == way) {
            return Ok(Arc::clone(kept));
        }
        let states = self.record(tx, group)?.after(from);
        let blobs: Commits = self.commits_into(tx, group, &states)?.into();
        let bytes = blobs.iter().map(Vec::len).fold(0, usize::saturating_add);
        self.commits = (bytes <= MAX_KEPT_COMMITS).then(|| (way, Arc::clone(&blobs)));
        Ok(blobs)
    }

    /// We take somebody's word that we are no member any more: nothing is sent here, and any later
    /// invitation is followed.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn give_up(&mut self, tx: &Tx, group: &GroupId) -> Result<(), GroupError> {
        let mut record = self.record(tx, group)?.clone();
        let tip = record.tip();
        if let Some(state) = record.state_mut(tip) {
            state.active = false;
        }
        Ok(self.save_record(tx, group, record)?)
    }

    /// The state that a commit of ours made which added somebody, if it is kept.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn added_in(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        who: &IdentityKey,
    ) -> Result<Option<Mark>, GroupError> {
        let own = self.own;
        let added = |state: &&State| {
            let is_own = state.commit.as_ref().is_some_and(|commit| commit.committer == own);
            let added = |work: &LostWork| matches!(work, LostWork::Added(all) if all.contains(who));
            is_own && state.work.iter().any(added)
        };
        Ok(self.record(tx, group)?.states().iter().rev().find(added).map(State::mark))
    }

    /// The wrapped commits below a state that lost to those of [`Self::commits_after`], as far as they
    /// are kept, at most 64: whoever has not got one of them may choose otherwise.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn rivals_after(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        from: super::StateId,
    ) -> Result<Vec<Vec<u8>>, GroupError> {
        let states = self.record(tx, group)?.rivals_after(from);
        self.commits_into(tx, group, &states)
    }

    /// The wrapped commits that lead into states, each after the proposals that it may refer to.
    fn commits_into(
        &mut self,
        tx: &Tx,
        group: &GroupId,
        states: &[super::StateId],
    ) -> Result<Vec<Vec<u8>>, GroupError> {
        let record = self.record(tx, group)?;
        let mut blobs = Vec::new();
        let mut left = BTreeSet::new();
        for state in states {
            let parent = record.state(*state).and_then(|state| state.parent);
            if let Some(parent) = parent.filter(|parent| left.insert(*parent)) {
                let kept = tx.scan_prefix(Table::GroupProposals, parent.as_bytes(), usize::MAX)?;
                blobs.extend(kept.into_iter().map(|(_, wrapped)| wrapped));
            }
            blobs.extend(tx.get(Table::GroupCommits, state.as_bytes())?);
        }
        Ok(blobs)
    }

    /// Our own wrapped proposal to leave, if it was made at the tip and no commit has carried it out yet.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn own_proposal(
        &mut self,
        tx: &Tx,
        group: &GroupId,
    ) -> Result<Option<Vec<u8>>, GroupError> {
        let tip = self.record(tx, group)?.tip();
        Ok(tx.get(Table::GroupProposals, &own_proposal(tip))?)
    }

    /// What we wanted is so at the tip, by somebody else's commit: should the tip lose, it is lost work of
    /// ours again.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn hold(&mut self, tx: &Tx, group: &GroupId, work: LostWork) -> Result<(), GroupError> {
        if matches!(&work, LostWork::Added(people) | LostWork::Removed(people) if people.is_empty())
        {
            return Ok(());
        }
        let mut record = self.record(tx, group)?.clone();
        let tip = record.tip();
        if let Some(state) = record.state_mut(tip).filter(|state| !state.work.contains(&work)) {
            state.work.push(work);
            self.save_record(tx, group, record)?;
        }
        Ok(())
    }

    /// Our state may have been used elsewhere since: nothing is sent in it any more until
    /// [`Self::rejoin`].
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn distrust(&mut self, tx: &Tx, group: &GroupId) -> Result<(), GroupError> {
        let mut record = self.record(tx, group)?.clone();
        record.stale = true;
        Ok(self.save_record(tx, group, record)?)
    }

    /// Whether [`Self::distrust`] holds.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn is_stale(&mut self, tx: &Tx, group: &GroupId) -> Result<bool, GroupError> {
        Ok(self.record(tx, group)?.stale)
    }

    /// Our own place.
    ///
    /// # Errors
    /// [`GroupError::NoSuchGroup`], [`GroupError::Store`].
    pub fn mark(&mut self, tx: &Tx, group: &GroupId) -> Result<Option<Mark>, GroupError> {
        Ok(self.record(tx, group)?.marks().tip())
    }
}
