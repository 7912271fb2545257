//! OpenMLS' storage on our store: rows of one state of one group under that state's own prefix.
//!
//! ```text
//! table Mls:  state id (16) || label (1) || MessagePack of OpenMLS' key   ->   named MessagePack of the value
//! ```
//! Key packages, and keys that no group owns, live under the all-zero prefix. Since nothing but the
//! prefix says which state a row belongs to, a state is copied, moved and deleted as a range of rows.
//! Values are encoded with field names: OpenMLS' types need a self-describing format.

use openmls_traits::storage::{CURRENT_VERSION, StorageProvider, traits};
use rmp_serde::config::BytesMode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StateId;
use crate::store::{StoreError, Table, Tx};

/// Prefix of rows that belong to no state.
const GLOBAL: StateId = StateId::new([0; 16]);

/// Rows of one state: OpenMLS writes about a dozen, and one for each pending proposal.
const MAX_STATE_ROWS: usize = 4096;

/// What a row holds. Numbers are part of the stored format.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Label {
    JoinConfig = 1,
    OwnLeafNodes = 2,
    Proposal = 3,
    ProposalRefs = 4,
    Tree = 5,
    InterimTranscriptHash = 6,
    Context = 7,
    ConfirmationTag = 8,
    GroupState = 9,
    MessageSecrets = 10,
    ResumptionPsks = 11,
    OwnLeafIndex = 12,
    EpochSecrets = 13,
    EpochKeys = 14,
    /// Ours: proposals that wait for a commit (see [`Storage::keep_proposal`]).
    KeptProposals = 15,
    SignatureKey = 32,
    EncryptionKey = 33,
    KeyPackage = 34,
    Psk = 35,
}

impl Label {
    /// Whether the row belongs to the device, not to a state.
    const fn is_global(self) -> bool {
        matches!(self, Self::SignatureKey | Self::EncryptionKey | Self::KeyPackage | Self::Psk)
    }

    #[expect(clippy::as_conversions, reason = "the discriminant of a u8 enum")]
    const fn byte(self) -> u8 {
        self as u8
    }
}

/// One state's view of the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage<'t> {
    tx: &'t Tx,
    state: StateId,
}

type Done = Result<(), StoreError>;

impl<'t> Storage<'t> {
    pub(super) const fn new(tx: &'t Tx, state: StateId) -> Self {
        Self { tx, state }
    }

    #[cfg(test)]
    pub(super) const fn tx(&self) -> &'t Tx {
        self.tx
    }

    pub(super) const fn state(&self) -> StateId {
        self.state
    }

    /// Copies all rows of `from` into this state.
    pub(super) fn copy_from(&self, from: StateId) -> Done {
        for (key, value) in self.tx.scan_prefix(Table::Mls, from.as_bytes(), MAX_STATE_ROWS)? {
            let rest = key.get(from.as_bytes().len()..).unwrap_or_default();
            let target = [self.state.as_bytes().as_slice(), rest].concat();
            self.tx.put(Table::Mls, &target, value);
        }
        Ok(())
    }

    /// Deletes all rows of this state.
    pub(super) fn delete_all(&self) -> Done {
        for (key, _) in self.tx.scan_prefix(Table::Mls, self.state.as_bytes(), MAX_STATE_ROWS)? {
            self.tx.delete(Table::Mls, &key);
        }
        Ok(())
    }

    /// Keeps a proposal beside OpenMLS' own queue: with proposals in that queue nothing can be
    /// encrypted in the state, although the proposal takes effect in the next one only.
    pub(super) fn keep_proposal(&self, proposal: &impl Serialize) -> Done {
        let mut kept = self.list(Label::KeptProposals, &())?;
        kept.push(encode(proposal)?);
        self.write(Label::KeptProposals, &(), &kept)
    }

    /// What was kept, oldest first.
    pub(super) fn kept_proposals<T: DeserializeOwned>(&self) -> Result<Vec<T>, StoreError> {
        self.list(Label::KeptProposals, &())?.iter().map(|bytes| decode(bytes)).collect()
    }

    /// Forgets what was kept.
    pub(super) fn drop_kept_proposals(&self) -> Done {
        self.remove(Label::KeptProposals, &())
    }

    fn key(&self, label: Label, key: &impl Serialize) -> Result<Vec<u8>, StoreError> {
        let prefix = if label.is_global() { &GLOBAL } else { &self.state };
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(prefix.as_bytes());
        bytes.push(label.byte());
        rmp_serde::encode::write(&mut bytes, key).map_err(|_| StoreError::Encode(Table::Mls))?;
        Ok(bytes)
    }

    fn write(&self, label: Label, key: &impl Serialize, value: &(impl Serialize + ?Sized)) -> Done {
        self.tx.put(Table::Mls, &self.key(label, key)?, encode(value)?);
        Ok(())
    }

    fn read<T: DeserializeOwned>(
        &self,
        label: Label,
        key: &impl Serialize,
    ) -> Result<Option<T>, StoreError> {
        let bytes = self.tx.get(Table::Mls, &self.key(label, key)?)?;
        bytes.map(|bytes| decode(&bytes)).transpose()
    }

    fn remove(&self, label: Label, key: &impl Serialize) -> Done {
        self.tx.delete(Table::Mls, &self.key(label, key)?);
        Ok(())
    }

    fn list(&self, label: Label, key: &impl Serialize) -> Result<Vec<Vec<u8>>, StoreError> {
        Ok(self.read(label, key)?.unwrap_or_default())
    }

    fn append(&self, label: Label, key: &impl Serialize, element: &impl Serialize) -> Done {
        let mut list = self.list(label, key)?;
        list.push(encode(element)?);
        self.write(label, key, &list)
    }
}

/// OpenMLS' byte strings call themselves lists of numbers: they are written as what they are, which takes
/// less room and time. Both forms are read.
fn encode(value: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::with_capacity(128);
    let serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
    let mut serializer = serializer.with_bytes(BytesMode::ForceIterables);
    value.serialize(&mut serializer).map_err(|_| StoreError::Encode(Table::Mls))?;
    Ok(bytes)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    rmp_serde::from_slice(bytes).map_err(|_| StoreError::Row(Table::Mls))
}

const V: u16 = CURRENT_VERSION;

/// Rows with one value for each key: writer, reader and deleter, as far as OpenMLS asks for them.
macro_rules! row {
    (write $name:ident($key:ident, $value:ident) $label:ident) => {
        fn $name<K: traits::$key<V>, T: traits::$value<V>>(&self, key: &K, value: &T) -> Done {
            self.write(Label::$label, key, value)
        }
    };
    (read $name:ident() -> $value:ident $label:ident) => {
        fn $name<G: traits::GroupId<V>, T: traits::$value<V>>(
            &self,
            group: &G,
        ) -> Result<Option<T>, StoreError> {
            self.read(Label::$label, group)
        }
    };
    (delete $name:ident($key:ident) $label:ident) => {
        fn $name<K: traits::$key<V>>(&self, key: &K) -> Done {
            self.remove(Label::$label, key)
        }
    };
}

impl StorageProvider<V> for Storage<'_> {
    type Error = StoreError;

    row!(write write_mls_join_config(GroupId, MlsGroupJoinConfig) JoinConfig);
    row!(write write_tree(GroupId, TreeSync) Tree);
    row!(write write_interim_transcript_hash(GroupId, InterimTranscriptHash) InterimTranscriptHash);
    row!(write write_context(GroupId, GroupContext) Context);
    row!(write write_confirmation_tag(GroupId, ConfirmationTag) ConfirmationTag);
    row!(write write_message_secrets(GroupId, MessageSecrets) MessageSecrets);
    row!(write write_resumption_psk_store(GroupId, ResumptionPskStore) ResumptionPsks);
    row!(write write_own_leaf_index(GroupId, LeafNodeIndex) OwnLeafIndex);
    row!(write write_group_epoch_secrets(GroupId, GroupEpochSecrets) EpochSecrets);
    row!(write write_signature_key_pair(SignaturePublicKey, SignatureKeyPair) SignatureKey);
    row!(write write_encryption_key_pair(EncryptionKey, HpkeKeyPair) EncryptionKey);
    row!(write write_key_package(HashReference, KeyPackage) KeyPackage);
    row!(write write_psk(PskId, PskBundle) Psk);

    fn write_group_state<S: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
        state: &S,
    ) -> Done {
        self.write(Label::GroupState, group, state)
    }

    fn append_own_leaf_node<G: traits::GroupId<V>, N: traits::LeafNode<V>>(
        &self,
        group: &G,
        leaf: &N,
    ) -> Done {
        self.append(Label::OwnLeafNodes, group, leaf)
    }

    fn queue_proposal<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        Q: traits::QueuedProposal<V>,
    >(
        &self,
        group: &G,
        reference: &R,
        proposal: &Q,
    ) -> Done {
        self.write(Label::Proposal, &(group, reference), proposal)?;
        self.append(Label::ProposalRefs, group, reference)
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        H: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
        pairs: &[H],
    ) -> Done {
        self.write(Label::EpochKeys, &(group, epoch, leaf), pairs)
    }

    row!(read mls_group_join_config() -> MlsGroupJoinConfig JoinConfig);
    row!(read tree() -> TreeSync Tree);
    row!(read group_context() -> GroupContext Context);
    row!(read interim_transcript_hash() -> InterimTranscriptHash InterimTranscriptHash);
    row!(read confirmation_tag() -> ConfirmationTag ConfirmationTag);
    row!(read message_secrets() -> MessageSecrets MessageSecrets);
    row!(read resumption_psk_store() -> ResumptionPskStore ResumptionPsks);
    row!(read own_leaf_index() -> LeafNodeIndex OwnLeafIndex);
    row!(read group_epoch_secrets() -> GroupEpochSecrets EpochSecrets);

    fn group_state<S: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
    ) -> Result<Option<S>, StoreError> {
        self.read(Label::GroupState, group)
    }

    fn own_leaf_nodes<G: traits::GroupId<V>, N: traits::LeafNode<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<N>, StoreError> {
        self.list(Label::OwnLeafNodes, group)?.iter().map(|bytes| decode(bytes)).collect()
    }

    fn queued_proposal_refs<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<R>, StoreError> {
        self.list(Label::ProposalRefs, group)?.iter().map(|bytes| decode(bytes)).collect()
    }

    fn queued_proposals<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        Q: traits::QueuedProposal<V>,
    >(
        &self,
        group: &G,
    ) -> Result<Vec<(R, Q)>, StoreError> {
        let references: Vec<R> = self.queued_proposal_refs(group)?;
        let with_proposal = |reference: R| {
            let proposal = self.read(Label::Proposal, &(group, &reference))?;
            Ok((reference, proposal.ok_or(StoreError::Row(Table::Mls))?))
        };
        references.into_iter().map(with_proposal).collect()
    }

    fn signature_key_pair<K: traits::SignaturePublicKey<V>, T: traits::SignatureKeyPair<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, StoreError> {
        self.read(Label::SignatureKey, key)
    }

    fn encryption_key_pair<T: traits::HpkeKeyPair<V>, K: traits::EncryptionKey<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, StoreError> {
        self.read(Label::EncryptionKey, key)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        H: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<Vec<H>, StoreError> {
        Ok(self.read(Label::EpochKeys, &(group, epoch, leaf))?.unwrap_or_default())
    }

    fn key_package<K: traits::HashReference<V>, T: traits::KeyPackage<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, StoreError> {
        self.read(Label::KeyPackage, key)
    }

    fn psk<T: traits::PskBundle<V>, K: traits::PskId<V>>(
        &self,
        key: &K,
    ) -> Result<Option<T>, StoreError> {
        self.read(Label::Psk, key)
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
        reference: &R,
    ) -> Done {
        self.remove(Label::Proposal, &(group, reference))?;
        let gone = encode(reference)?;
        let mut list = self.list(Label::ProposalRefs, group)?;
        list.retain(|bytes| *bytes != gone);
        self.write(Label::ProposalRefs, group, &list)
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
    ) -> Done {
        for reference in self.queued_proposal_refs::<G, R>(group)? {
            self.remove(Label::Proposal, &(group, reference))?;
        }
        self.remove(Label::ProposalRefs, group)
    }

    row!(delete delete_own_leaf_nodes(GroupId) OwnLeafNodes);
    row!(delete delete_group_config(GroupId) JoinConfig);
    row!(delete delete_tree(GroupId) Tree);
    row!(delete delete_confirmation_tag(GroupId) ConfirmationTag);
    row!(delete delete_group_state(GroupId) GroupState);
    row!(delete delete_context(GroupId) Context);
    row!(delete delete_interim_transcript_hash(GroupId) InterimTranscriptHash);
    row!(delete delete_message_secrets(GroupId) MessageSecrets);
    row!(delete delete_all_resumption_psk_secrets(GroupId) ResumptionPsks);
    row!(delete delete_own_leaf_index(GroupId) OwnLeafIndex);
    row!(delete delete_group_epoch_secrets(GroupId) EpochSecrets);
    row!(delete delete_signature_key_pair(SignaturePublicKey) SignatureKey);
    row!(delete delete_encryption_key_pair(EncryptionKey) EncryptionKey);
    row!(delete delete_key_package(HashReference) KeyPackage);
    row!(delete delete_psk(PskId) Psk);

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<V>, E: traits::EpochKey<V>>(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Done {
        self.remove(Label::EpochKeys, &(group, epoch, leaf))
    }
}
