//! Bare OpenMLS, with the settings that ours has and credentials as long as ours: what ours is measured
//! beside. It keeps its groups in its own memory store.

use openmls::group::{JoinBuilder, ProcessedWelcome};
use openmls::prelude::tls_codec::Deserialize as _;
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialType, CredentialWithKey, Extension,
    ExtensionType, Extensions, KeyPackage, LeafNodeIndex, LeafNodeParameters, Lifetime, MlsGroup,
    MlsGroupCreateConfig, MlsGroupJoinConfig, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    OpenMlsProvider as _, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, ProcessedMessageContent,
    SenderRatchetConfiguration, UnknownExtension,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use sremp_common::io::Clock;
use sremp_common::time::Now;
use sremp_node::groups::{Suite, credential};

use super::super::parts::Member;
use super::{TEXT, timed};

/// Bare OpenMLS: the first member and one that receives.
pub struct Bare {
    first: (OpenMlsRustCrypto, Member, MlsGroup),
    second: (OpenMlsRustCrypto, Member, MlsGroup),
    suite: Ciphersuite,
    now: Now,
    number: u64,
    pub join: Vec<f64>,
    /// What an application does besides: it verifies the credential of every member.
    pub verify: Vec<f64>,
    /// Bytes of the Welcome.
    pub welcome: usize,
}

const LEAF: u16 = 0xF0A1;

fn capabilities(suite: Ciphersuite) -> Capabilities {
    Capabilities::new(
        None,
        Some(&[suite]),
        Some(&[ExtensionType::Unknown(LEAF)]),
        Some(&[]),
        Some(&[CredentialType::Basic]),
    )
}

fn credential(member: &Member) -> CredentialWithKey {
    CredentialWithKey {
        // Our certificate: behind the secret half of the leaf key.
        credential: BasicCredential::new(member.signer.to_bytes()[32..].to_vec()).into(),
        signature_key: member.signer.leaf_key().to_vec().into(),
    }
}

fn bare_package(provider: &OpenMlsRustCrypto, member: &Member, suite: Ciphersuite) -> KeyPackage {
    KeyPackage::builder()
        .leaf_node_capabilities(capabilities(suite))
        .leaf_node_extensions(
            Extensions::single(Extension::Unknown(LEAF, UnknownExtension(vec![8; 56]))).unwrap(),
        )
        .key_package_lifetime(Lifetime::init(0, u64::MAX))
        .build(suite, provider, &member.signer, credential(member))
        .unwrap()
        .into_key_package()
}

impl Bare {
    pub fn new(suite: Suite, size: usize, rounds: usize) -> Self {
        let now = Clock::start().now();
        let suite = Ciphersuite::try_from(suite.number()).unwrap();
        let (first, second) = (Member::new(1, now), Member::new(2, now));
        let provider = OpenMlsRustCrypto::default();
        let ratchet = SenderRatchetConfiguration::new(256, 4096);
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(suite)
            .capabilities(capabilities(suite))
            .lifetime(Lifetime::init(0, u64::MAX))
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .sender_ratchet_configuration(ratchet)
            .with_leaf_node_extensions(
                Extensions::single(Extension::Unknown(LEAF, UnknownExtension(vec![8; 56])))
                    .unwrap(),
            )
            .unwrap()
            .build();
        let mut group =
            MlsGroup::new(&provider, &first.signer, &config, credential(&first)).unwrap();
        let receiver = OpenMlsRustCrypto::default();
        let mut packages = vec![bare_package(&receiver, &second, suite)];
        let others = OpenMlsRustCrypto::default();
        for number in 3..=size {
            packages.push(bare_package(&others, &Member::new(number as u64, now), suite));
        }
        let (_, welcome, _) = group.add_members(&provider, &first.signer, &packages).unwrap();
        group.merge_pending_commit(&provider).unwrap();
        let welcome = welcome.to_bytes().unwrap();
        let join_config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .sender_ratchet_configuration(ratchet)
            .build();
        let stored = receiver.storage().values.read().unwrap().clone();
        let (mut join, mut verify) = (Vec::new(), Vec::new());
        let mut joined = None;
        for _ in 0..rounds {
            // Each round joins anew: the key package stands again.
            *receiver.storage().values.write().unwrap() = stored.clone();
            let (group, took) = timed(|| {
                let message = MlsMessageIn::tls_deserialize_exact(&welcome).unwrap();
                let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { panic!() };
                let processed =
                    ProcessedWelcome::new_from_welcome(&receiver, &join_config, welcome).unwrap();
                JoinBuilder::new(&receiver, processed)
                    .skip_lifetime_validation()
                    .build()
                    .unwrap()
                    .into_group(&receiver)
                    .unwrap()
            });
            join.push(took);
            let ((), took) = timed(|| {
                for member in group.members() {
                    let content = member.credential.serialized_content();
                    credential::verify(content, &member.signature_key).unwrap();
                }
            });
            verify.push(took);
            joined = Some(group);
        }
        let second = (receiver, second, joined.unwrap());
        let first = (provider, first, group);
        let welcome = welcome.len();
        Self { first, second, suite, now, number: 20_000, join, verify, welcome }
    }

    pub fn send(&mut self) -> (Vec<u8>, f64) {
        let (provider, member, group) = &mut self.first;
        timed(|| {
            let text = vec![5; TEXT];
            group.create_message(provider, &member.signer, &text).unwrap().to_bytes().unwrap()
        })
    }

    pub fn process(&mut self, bytes: &[u8]) -> f64 {
        let (provider, _, group) = &mut self.second;
        let (_, took) = timed(|| {
            let message = MlsMessageIn::tls_deserialize_exact(bytes).unwrap();
            let message = message.try_into_protocol_message().unwrap();
            let processed = group.process_message(provider, message).unwrap();
            if let ProcessedMessageContent::StagedCommitMessage(staged) = processed.into_content() {
                group.merge_staged_commit(provider, *staged).unwrap();
            }
        });
        took
    }

    fn commit(
        &mut self,
        make: impl FnOnce(&OpenMlsRustCrypto, &Member, &mut MlsGroup) -> MlsMessageOut,
    ) -> (Vec<u8>, f64) {
        let (provider, member, group) = &mut self.first;
        timed(|| {
            let bytes = make(provider, member, group).to_bytes().unwrap();
            group.merge_pending_commit(provider).unwrap();
            bytes
        })
    }

    pub fn update(&mut self) -> (Vec<u8>, f64) {
        self.commit(|provider, member, group| {
            let parameters = LeafNodeParameters::default();
            group.self_update(provider, &member.signer, parameters).unwrap().into_commit()
        })
    }

    /// Also answers the length of the Welcome.
    pub fn add(&mut self) -> (Vec<u8>, usize, f64) {
        self.number += 1;
        let new = Member::new(self.number, self.now);
        let package = bare_package(&OpenMlsRustCrypto::default(), &new, self.suite);
        let mut welcome = 0;
        let (commit, took) = self.commit(|provider, member, group| {
            let (commit, made, _) =
                group.add_members(provider, &member.signer, &[package]).unwrap();
            welcome = made.to_bytes().unwrap().len();
            commit
        });
        (commit, welcome, took)
    }

    pub fn remove_last(&mut self) -> (Vec<u8>, f64) {
        let last = self.first.2.members().last().unwrap().index;
        self.commit(|provider, member, group| {
            let index = LeafNodeIndex::new(last.u32());
            group.remove_members(provider, &member.signer, &[index]).unwrap().0
        })
    }
}
