//! Who appears in the vectors: the same few identities everywhere, from fixed seeds.

use sremp_common::identity::{Extensions, Flags, IdentityData, RelayRecord, VerifiedIdentity};
use sremp_common::key::{IdentitySecret, NoiseSecret, SealSecret};
use sremp_common::name::Username;
use sremp_common::time::Timestamp;
use sremp_common::wire::{Endpoint, List};

/// 2026-01-02T03:04:05.678Z.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_767_323_045_678);

/// One identity with all its secrets.
pub(super) struct Actor {
    pub(super) identity: VerifiedIdentity,
    pub(super) identity_secret: IdentitySecret,
    pub(super) noise_secret: NoiseSecret,
}

/// A person with relays and a seal key.
pub(super) fn alice() -> Actor {
    actor(0xA1, "Alice", |data| {
        data.flags.prefers_async = true;
        data.set_relays(vec![relay_record()]).unwrap();
        data.set_seal_key(SealSecret::from_bytes([0xA3; 32]).public()).unwrap();
    })
}

/// A person without extensions.
pub(super) fn bob() -> Actor {
    actor(0xB1, "Bøb 🚲", |_| {})
}

/// A relay server.
pub(super) fn relay() -> Actor {
    actor(0xC1, "relay", |data| data.flags.is_relay_server = true)
}

/// Somebody who lies.
pub(super) fn mallory() -> Actor {
    actor(0xD1, "Alice", |_| {})
}

/// Alice's relay as it stands in links and identities.
pub(super) fn relay_record() -> RelayRecord {
    let endpoints = ["relay.example.org:7331", "192.0.2.7:7331", "[2001:db8::7]:443"];
    RelayRecord { identity_key: relay().identity.key(), endpoints: endpoint_list(&endpoints) }
}

/// Endpoints from their text forms.
pub(super) fn endpoint_list<const MAX: usize>(texts: &[&str]) -> List<Endpoint, MAX> {
    List::new(texts.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
}

/// The extensions of an identity that has none but a picture.
pub(super) fn picture_only() -> Extensions {
    Extensions {
        profile_picture: Some(sremp_common::wire::Bin::new(b"not really an image".into()).unwrap()),
        additional_metadata: None,
    }
}

fn actor(seed: u8, name: &str, change: impl FnOnce(&mut IdentityData)) -> Actor {
    let identity_secret = IdentitySecret::from_bytes(&[seed; 32]);
    let noise_secret = NoiseSecret::from_bytes([seed.wrapping_add(1); 32]);
    let mut data = IdentityData {
        username: Username::new(name).unwrap(),
        identity_key: identity_secret.public(),
        noise_key: noise_secret.public(),
        flags: Flags::default(),
        extensions: None,
        version: 1,
        created: NOW,
    };
    change(&mut data);
    let identity = data.sign(&identity_secret).unwrap();
    Actor { identity, identity_secret, noise_secret }
}
