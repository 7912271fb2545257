//! Every domain-separation label, version string and protocol name, in one place.
//!
//! A label never means two things: signatures and hashes made under one are useless under another.

/// First bytes of every connection: protocol name, major and minor version (specification 10.2).
pub const VERSION_HEADER: [u8; 7] = *b"SREMP\x01\x00";

/// The Noise handshake pattern. This spelling is hashed into the handshake.
pub const NOISE_PATTERN: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";

/// Start of the Noise prologue; the initiator's version header follows.
pub const NOISE_PROLOGUE: &[u8] = b"SREMP-noise-v1\0";

/// Start of everything that is signed or hashed under a label.
pub const INPUT_PREFIX: &[u8] = b"SREMP-v1\0";

/// Label of the TLS exporter that a registration is signed over (RFC 8446 section 7.5).
pub const TLS_EXPORTER: &[u8] = b"EXPORTER-SREMP-v1";

/// Application protocol of the rendezvous server (ALPN, RFC 7301).
pub const RENDEZVOUS_ALPN: &[u8] = b"sremp-rendezvous/1";

/// Label of the MLS exporter secret that the outer wrap of an epoch is derived from.
pub const MLS_EXPORTER: &str = "sremp wrap v1";

/// HPKE `info` of blobs that are sealed to one node.
pub const SEAL_INFO: &[u8] = b"SREMP-seal-v1";

/// What a signature may be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureLabel {
    /// An identity, by its own key.
    Identity,
    /// Proof of both keys in the payloads of Noise messages 2 and 3.
    ChannelAuth,
    /// A registration at a rendezvous server.
    RendezvousRegister,
    /// The certificate of an MLS leaf key.
    MlsLeaf,
    /// A receipt, by the MLS leaf key.
    Delivery,
    /// A note from one member of a group to another, by the MLS leaf key.
    GroupNote,
}

impl SignatureLabel {
    /// All of them, for tests that cross them.
    pub const ALL: [Self; 6] = [
        Self::Identity,
        Self::ChannelAuth,
        Self::RendezvousRegister,
        Self::MlsLeaf,
        Self::Delivery,
        Self::GroupNote,
    ];

    /// The label as it enters the signed bytes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::ChannelAuth => "channel-auth",
            Self::RendezvousRegister => "rdv-register",
            Self::MlsLeaf => "mls-leaf",
            Self::Delivery => "delivery",
            Self::GroupNote => "group-note",
        }
    }
}

/// What a hash may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashLabel {
    /// Name of a stored blob, per recipient.
    BlobId,
    /// Proof of work of an unknown sender.
    Pow,
    /// Key of the outer wrap of one epoch.
    Wrap,
    /// Key, and value, of the tag by which a member finds the epoch of a blob.
    Tag,
    /// Number that two people compare aloud.
    SafetyNumber,
    /// What a mailbox owner registers instead of a delivery token.
    TokenHash,
    /// Name of a group's state: parent state and commit.
    StateId,
    /// Checksum of a record in a relay's journal; never on the wire.
    RelayJournal,
}

impl HashLabel {
    /// The label as it enters the hashed bytes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobId => "blob-id",
            Self::Pow => "pow",
            Self::Wrap => "wrap",
            Self::Tag => "tag",
            Self::SafetyNumber => "safety-number",
            Self::TokenHash => "token-hash",
            Self::StateId => "state-id",
            Self::RelayJournal => "relay-journal",
        }
    }
}
