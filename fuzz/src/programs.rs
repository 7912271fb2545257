//! Decoders that belong to one program: sessions of servers, configuration, and what a node reads
//! after the outer layers are off.

use std::time::Duration;

use openmls_rust_crypto::RustCrypto;
use sremp_common::connection::Connection;
use sremp_common::entropy::Entropy;
use sremp_common::id::IdentityKey;
use sremp_common::key::{IdentitySecret, SealSecret};
use sremp_common::time::{Instant, Now, Timestamp};
use sremp_common::wire::{decode, encode};
use sremp_node::conversations::Content;
use sremp_node::groups::{Groups, LeafInfo, LeafSigner, credential, seal};
use sremp_node::store::{Store, Tx};

use super::local;

/// Both ends of a Noise connection, fed in pieces whose length the first byte chooses.
pub fn connection(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let accepted = Connection::accept(local(), Entropy::from_number(3), NOW);
    let dialled = Connection::dial(local(), None, true, Entropy::from_number(4), NOW);
    for mut end in [accepted, dialled] {
        for bytes in stream.chunks(usize::from(*piece).max(1)) {
            end.handle_bytes(bytes, NOW);
            while end.poll_transmit().is_some() {}
        }
        assert!(!end.is_established(), "nobody has proved anything");
        end.handle_eof(NOW);
        while end.poll_event().is_some() {}
    }
}

/// A client's stream at a rendezvous server, in pieces in the same way.
pub fn rendezvous_session(data: &[u8]) {
    let Some((piece, stream)) = data.split_first() else { return };
    let mut session =
        sremp_rendezvous::protocol::Session::new(Duration::from_secs(60), NOW.instant);
    for bytes in stream.chunks(usize::from(*piece).max(1)) {
        session.handle_bytes(bytes, NOW.instant);
        while session.poll_wanted().is_some() {}
        while session.poll_transmit().is_some() {}
    }
    session.handle_eof();
}

/// Configuration: a node's file, and `KEY=VALUE` from a server's environment.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = sremp_node::config::Config::parse(text, []);
    let Some((key, value)) = text.split_once('=') else { return };
    let variable = |prefix: &str| [(format!("{prefix}{key}"), value.to_owned())];
    let _ = sremp_relay::config::load(None, variable(sremp_relay::config::ENV_PREFIX));
    let name = variable(sremp_rendezvous::config::ENV_PREFIX);
    let _: Result<sremp_rendezvous::config::Config, _> =
        sremp_common::io::sources::load(None, name);
    let _ = sremp_node::config::Config::parse("", variable(sremp_node::config::ENVIRONMENT_PREFIX));
}

/// What MLS decrypted.
pub fn content(data: &[u8]) {
    if let Ok((content, _)) = Content::from_bytes(data) {
        assert_eq!(content.to_bytes(), data, "a content has one form");
    }
}

/// The credential of a leaf: a certificate by its owner's identity key.
pub fn leaf_certificate(data: &[u8]) {
    let key = data.last_chunk().copied().unwrap_or([7; 32]);
    if let Ok(certified) = credential::verify(data, &key) {
        let _ = certified.check_time(NOW.wall);
    }
    let _ = LeafSigner::from_bytes(data);
}

/// Our extension of a leaf: relays, sealing key, token.
pub fn leaf_info(data: &[u8]) {
    if let Ok(leaf) = decode::<LeafInfo>(data) {
        assert_eq!(encode(&leaf), data, "a leaf's extension has one form");
    }
}

/// A blob sealed for one node.
pub fn sealed_blob(data: &[u8]) {
    let crypto = RustCrypto::default();
    let secret = SealSecret::generate(&mut Entropy::from_number(5));
    assert!(seal::open(&crypto, &[secret], data).is_none(), "nobody has sealed anything");
}

/// A blob wrapped for a group, as it comes out of a mailbox.
pub fn group_blob(data: &[u8]) {
    with_groups(|groups, tx, _| {
        assert!(groups.open(tx, data, NOW).is_err(), "there is no group");
    });
}

/// An invitation, unsealed.
pub fn welcome(data: &[u8]) {
    with_groups(|groups, tx, _| {
        assert!(groups.join(tx, data, NOW).is_err(), "nobody was invited");
    });
}

/// A key package that a relay hands out.
pub fn key_package(data: &[u8]) {
    with_groups(|groups, _, own| {
        assert!(
            groups.check_key_package(data, own, sremp_node::groups::Suite::X25519, NOW).is_err(),
            "there is none of ours"
        );
    });
}

/// A node that is in no group, and forgets afterwards what it was shown.
fn with_groups(show: impl FnOnce(&mut Groups, &Tx, &IdentityKey)) {
    thread_local! {
        static STORE: Store = Store::in_memory().expect("a store in memory");
    }
    let mut entropy = Entropy::from_number(6);
    let identity = IdentitySecret::generate(&mut entropy);
    let until = NOW.wall + Duration::from_secs(3600);
    let signer = LeafSigner::generate(&identity, [1; 16], NOW.wall, until, &mut entropy);
    let own = identity.public();
    let mut groups = Groups::new(signer, own, entropy);
    STORE.with(|store| {
        let tx = store.begin().expect("a transaction");
        show(&mut groups, &tx, &own);
        tx.refuse();
        groups.refused();
    });
}

const NOW: Now =
    Now { instant: Instant::from_millis(1), wall: Timestamp::from_millis(1_700_000_000_000) };
