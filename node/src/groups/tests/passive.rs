//! The passive-client vectors of the MLS working group, run through our store and provider.
//!
//! Of our two suites the vectors know only suite 1; the hybrid one has none. They are of plain MLS: members
//! have no certificates of ours and the group no policy, so OpenMLS is driven here as `join` and `open`
//! drive it, with each epoch on a copy of its parent's rows, read back from the store.

use openmls::group::{JoinBuilder, ProcessedWelcome};
use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::{
    KeyPackage, KeyPackageBundle, MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY, MlsGroup,
    MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, ProcessedMessageContent, RatchetTreeIn,
};
use openmls::schedule::PreSharedKeyId;
use openmls_traits::OpenMlsProvider as _;
use openmls_traits::storage::StorageProvider as _;
use serde_json::Value;
use sremp_common::entropy::Entropy;
use sremp_common::id::unhex;

use crate::groups::StateId;
use crate::groups::provider::{Engine, Provider};
use crate::store::{Store, Tx};

fn bytes(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap()).unwrap()
}

fn message(value: &Value) -> MlsMessageIn {
    MlsMessageIn::tls_deserialize_exact(bytes(value)).unwrap()
}

fn body(value: &Value) -> MlsMessageBodyIn {
    message(value).extract()
}

/// What the vector's client has before it is invited.
fn store_own(provider: &Provider<'_>, vector: &Value) {
    let MlsMessageBodyIn::KeyPackage(key_package) = body(&vector["key_package"]) else {
        panic!("no key package")
    };
    // OpenMLS makes bundles only with keys of its own, and refuses key packages that have expired, as some
    // of these have: they come in the form in which it stores them.
    let key_package: KeyPackage =
        serde_json::from_value(serde_json::to_value(key_package).unwrap()).unwrap();
    let reference = key_package.hash_ref(provider.crypto()).unwrap();
    let secret = |name: &str| serde_json::json!({ "vec": bytes(&vector[name]) });
    let bundle: KeyPackageBundle = serde_json::from_value(serde_json::json!({
        "key_package": key_package,
        "private_init_key": secret("init_priv"),
        "private_encryption_key": { "key": secret("encryption_priv") },
    }))
    .unwrap();
    provider.storage().write_key_package(&reference, &bundle).unwrap();
    for psk in vector["external_psks"].as_array().unwrap() {
        let id = PreSharedKeyId::external(bytes(&psk["psk_id"]), Vec::new());
        id.store(provider, &bytes(&psk["psk"])).unwrap();
    }
}

/// One client: every epoch has rows of its own, as our states have.
struct Client<'t> {
    engine: &'t Engine,
    tx: &'t Tx,
    state: u8,
    group: MlsGroup,
}

impl<'t> Client<'t> {
    fn join(engine: &'t Engine, tx: &'t Tx, vector: &Value) -> Self {
        let state = 1;
        let provider = engine.provider(tx, StateId::new([state; 16]));
        store_own(&provider, vector);
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(MIXED_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .number_of_resumption_psks(16)
            .build();
        let MlsMessageBodyIn::Welcome(welcome) = body(&vector["welcome"]) else {
            panic!("no Welcome")
        };
        let processed = ProcessedWelcome::new_from_welcome(&provider, &config, welcome).unwrap();
        let mut builder = JoinBuilder::new(&provider, processed).skip_lifetime_validation();
        if let Some(tree) = vector["ratchet_tree"].as_str() {
            let tree = RatchetTreeIn::tls_deserialize_exact(unhex(tree).unwrap()).unwrap();
            builder = builder.with_ratchet_tree(tree);
        }
        let group = builder.build().unwrap().into_group(&provider).unwrap();
        Self { engine, tx, state, group }
    }

    /// Everything in memory is lost, and the parent's rows are copied.
    fn begin(&mut self) {
        let parent = StateId::new([self.state; 16]);
        self.state += 1;
        let provider = self.engine.provider(self.tx, StateId::new([self.state; 16]));
        provider.storage.copy_from(parent).unwrap();
        let id = self.group.group_id().clone();
        self.group = MlsGroup::load(&provider.storage, &id).unwrap().unwrap();
    }

    fn process(&mut self, value: &Value) {
        let provider = self.engine.provider(self.tx, StateId::new([self.state; 16]));
        let protocol_message = message(value).try_into_protocol_message().unwrap();
        let processed = self.group.process_message(&provider, protocol_message).unwrap();
        let content = processed.into_content();
        if let ProcessedMessageContent::ProposalMessage(proposal) = content {
            self.group.store_pending_proposal(provider.storage(), *proposal).unwrap();
        } else if let ProcessedMessageContent::StagedCommitMessage(staged) = content {
            self.group.merge_staged_commit(&provider, *staged).unwrap();
        } else {
            panic!("neither a proposal nor a commit: {content:?}");
        }
    }

    fn authenticator(&self) -> Vec<u8> {
        let provider = self.engine.provider(self.tx, StateId::new([self.state; 16]));
        let stored = MlsGroup::load(&provider.storage, self.group.group_id()).unwrap().unwrap();
        let authenticator = stored.epoch_authenticator().as_slice().to_vec();
        assert_eq!(authenticator, self.group.epoch_authenticator().as_slice());
        authenticator
    }
}

#[test]
fn passive_clients_of_the_working_group_follow_in_our_store() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/mls/passive_client.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let (mut joins, mut epochs) = (0, 0);
    for name in ["welcome", "handling_commit", "random"] {
        for (place, vector) in file[name].as_array().unwrap().iter().enumerate() {
            assert_eq!(vector["cipher_suite"], 1);
            let engine = Engine::new(Entropy::from_number(1));
            let store = Store::in_memory().unwrap();
            let tx = store.begin().unwrap();
            let mut client = Client::join(&engine, &tx, vector);
            let first = bytes(&vector["initial_epoch_authenticator"]);
            assert_eq!(client.authenticator(), first, "{name} {place}");
            joins += 1;
            for (number, epoch) in vector["epochs"].as_array().unwrap().iter().enumerate() {
                client.begin();
                for proposal in epoch["proposals"].as_array().unwrap() {
                    client.process(proposal);
                }
                client.process(&epoch["commit"]);
                let expected = bytes(&epoch["epoch_authenticator"]);
                assert_eq!(client.authenticator(), expected, "{name} {place}, epoch {number}");
                epochs += 1;
            }
        }
    }
    assert_eq!((joins, epochs), (22, 38));
}
