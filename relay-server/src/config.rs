//! What an operator can set: one TOML file, every key with an override from the environment
//! (`SREMP_RELAY__SECTION__KEY`), flags over both. Unknown keys are refused.
//!
//! `deploy/relay.toml` is the annotated example; a test holds it against this file.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sremp_common::id::IdentityKey;
pub use sremp_common::io::settings::ConfigError;
use sremp_common::io::settings::{
    LogSection, MetricsSection, NetworkSection, is_listen_address, value,
};
use sremp_common::io::sources::{self, Sourced};
use sremp_common::limit::{MAX_BLOB, MAX_BLOB_STRANGER, MAX_ENDPOINTS, MAX_WINDOW, PORT_RELAY};
use sremp_common::text::decode_identity_key;
use sremp_common::wire::{Endpoint, List, RelayLimits};

use crate::engine::{EngineConfig, RateLimits, Registration};
use crate::store::journal::MAX_JOURNAL;

/// What is taken over while the relay runs; the rest waits for the next start.
pub const LIVE: [&str; 13] = [
    "access",
    "mailboxes",
    "rates",
    "server.max_connections",
    "server.max_connections_per_network",
    "store.free_for_mailboxes",
    "store.free_for_messages",
    "store.reserve_bytes",
    "network.max_half_open",
    "network.arrivals_per_minute",
    "network.banned",
    "network.drain_timeout",
    "log.level",
];

/// Start of every variable: `SREMP_RELAY__SECTION__KEY`.
pub const ENV_PREFIX: &str = "SREMP_RELAY__";

/// Everything. A key that is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen, where to keep data, how many connections.
    pub server: ServerSection,
    /// Who may have a mailbox.
    pub access: AccessSection,
    /// Quotas of mailboxes, and who may put what into them.
    pub mailboxes: MailboxesSection,
    /// How often something may be asked.
    pub rates: RatesSection,
    /// Who may connect, and how often.
    pub network: NetworkSection,
    /// What monitoring sees.
    pub metrics: MetricsSection,
    /// The database.
    pub store: StoreSection,
    /// What goes to standard error.
    pub log: LogSection,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSection {
    /// HOST:PORT; port 0 lets the system choose.
    pub listen: String,
    /// Where clients reach it, HOST:PORT each; without any, the listening address if that is one.
    pub advertise: Vec<String>,
    /// The data directory; without it the first of `$STATE_DIRECTORY` and the user's data directory.
    pub data: Option<PathBuf>,
    /// Connections at a time.
    pub max_connections: u32,
    /// Connections at a time from one network (an IPv4 address, an IPv6 /64).
    pub max_connections_per_network: u32,
}

/// `[access]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSection {
    /// Who may open a mailbox.
    pub mode: AccessMode,
    /// The ids that may have one in mode `list`.
    pub allowed: Vec<String>,
    /// Ids for whom nothing is done, whatever the mode.
    pub banned: Vec<String>,
}

/// Who may open a mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// Everybody.
    #[default]
    Open,
    /// Who has an invitation; whoever has a mailbox already keeps it.
    Invite,
    /// The ids of a list, and nobody else.
    List,
    /// Nobody new; whoever has a mailbox already keeps it.
    Closed,
}

impl AccessSection {
    fn registration(&self) -> Registration {
        match self.mode {
            AccessMode::Open => Registration::Everyone,
            AccessMode::Invite => Registration::Invited,
            AccessMode::List => Registration::Only(keys(&self.allowed).unwrap_or_default()),
            AccessMode::Closed => Registration::Nobody,
        }
    }

    /// The ids for whom nothing is done.
    #[must_use]
    pub fn banned_keys(&self) -> BTreeSet<IdentityKey> {
        // Checked when the configuration was loaded.
        keys(&self.banned).unwrap_or_default()
    }
}

/// The keys of ids; nothing when one of them is no id.
fn keys(ids: &[String]) -> Option<BTreeSet<IdentityKey>> {
    ids.iter().map(|id| decode_identity_key(id).ok()).collect()
}

/// `[rates]`. 0 for as often as anybody likes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RatesSection {
    /// Mailboxes that one network may open in an hour.
    pub new_mailboxes_per_hour: u32,
    /// Messages that one network may store in a minute.
    pub stores_per_minute: u32,
    /// Key packages that one network may ask for in a minute.
    pub key_packages_per_minute: u32,
    /// Changes that one owner may make to its mailbox in a minute.
    pub changes_per_minute: u32,
}

impl Default for RatesSection {
    fn default() -> Self {
        Self {
            new_mailboxes_per_hour: 60,
            stores_per_minute: 60_000,
            key_packages_per_minute: 600,
            changes_per_minute: 60,
        }
    }
}

/// `[mailboxes]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MailboxesSection {
    /// Mailboxes in all.
    pub max_mailboxes: u64,
    /// Bytes of blobs in all mailboxes.
    pub max_total_bytes: u64,
    /// Messages in one mailbox.
    pub max_messages: u32,
    /// Bytes in one mailbox.
    pub max_bytes: u64,
    /// Bytes of one blob.
    pub max_blob: u32,
    /// Seconds that an unacknowledged message is kept.
    pub retention: u32,
    /// Percentage of a mailbox that strangers may fill.
    pub stranger_share: u8,
    /// Percentage of a mailbox that one token may fill in a day, once the mailbox is half full.
    pub sender_share: u8,
    /// Leading zero bits of a stranger's proof of work; 0 takes nothing from strangers without
    /// a link.
    pub pow_difficulty: u8,
    /// Proofs in a minute beyond which they become dearer; 0 for a fixed price.
    pub pow_per_minute: u32,
    /// Bytes that may be under way to one reader.
    pub push_window: u32,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// Bytes of the database that are kept in memory.
    pub cache_bytes: u64,
    /// Bytes of the journal in front of the database; 0 for none.
    pub journal_bytes: u64,
    /// Bytes that must be free on the disk for new mailboxes.
    pub free_for_mailboxes: u64,
    /// Bytes that must be free on the disk for new messages.
    pub free_for_messages: u64,
    /// Bytes that a file keeps occupied, to be given up when the disk is full.
    pub reserve_bytes: u64,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: format!("[::]:{PORT_RELAY}"),
            advertise: Vec::new(),
            data: None,
            max_connections: 10_000,
            max_connections_per_network: 1_000,
        }
    }
}

impl Default for MailboxesSection {
    fn default() -> Self {
        let EngineConfig { limits, max_mailboxes, max_total_bytes, max_window, .. } =
            EngineConfig::default();
        Self {
            max_mailboxes,
            max_total_bytes,
            max_messages: limits.max_messages,
            max_bytes: limits.max_bytes,
            max_blob: limits.max_blob,
            retention: limits.retention,
            stranger_share: 10,
            sender_share: 25,
            // About a second of one core.
            pow_difficulty: 20,
            pow_per_minute: 60,
            push_window: max_window,
        }
    }
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            journal_bytes: 8 << 20,
            free_for_mailboxes: 1 << 30,
            free_for_messages: 512 << 20,
            reserve_bytes: 32 << 20,
        }
    }
}

impl Config {
    /// Checks every value that its type does not check.
    ///
    /// # Errors
    /// [`ConfigError`], naming the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let server = &self.server;
        let is_listen = is_listen_address(&server.listen);
        value(is_listen, "server.listen", "HOST:PORT, for example [::]:7331")?;
        self.advertised()?;
        for (number, key) in [
            (server.max_connections, "server.max_connections"),
            (server.max_connections_per_network, "server.max_connections_per_network"),
        ] {
            value((1..=1_000_000).contains(&number), key, "from 1 to 1000000")?;
        }
        self.network.check()?;
        self.metrics.address()?;
        let boxes = &self.mailboxes;
        value(boxes.max_mailboxes >= 1, "mailboxes.max_mailboxes", "at least 1")?;
        let total = boxes.max_total_bytes >= boxes.max_bytes;
        value(total, "mailboxes.max_total_bytes", "at least mailboxes.max_bytes")?;
        value(boxes.max_messages >= 1, "mailboxes.max_messages", "at least 1")?;
        let bytes = boxes.max_bytes >= boxes.max_blob.into();
        value(bytes, "mailboxes.max_bytes", "at least mailboxes.max_blob")?;
        let longest = usize::try_from(boxes.max_blob).unwrap_or(usize::MAX);
        let blob = (MAX_BLOB_STRANGER..=MAX_BLOB).contains(&longest);
        value(blob, "mailboxes.max_blob", "from 65536 to 3932160 bytes")?;
        let retention = (3_600..=31_536_000).contains(&boxes.retention);
        value(retention, "mailboxes.retention", "from 3600 to 31536000 seconds")?;
        let share = boxes.stranger_share <= 100;
        value(share, "mailboxes.stranger_share", "from 0 to 100 per cent")?;
        let share = (1..=100).contains(&boxes.sender_share);
        value(share, "mailboxes.sender_share", "from 1 to 100 per cent")?;
        for (ids, key) in
            [(&self.access.allowed, "access.allowed"), (&self.access.banned, "access.banned")]
        {
            value(keys(ids).is_some(), key, "a list of ids, each beginning with sremp1")?;
        }
        let is_list = self.access.mode == AccessMode::List;
        let wanted = "at least one id when access.mode is \"list\"";
        value(!is_list || !self.access.allowed.is_empty(), "access.allowed", wanted)?;
        let difficulty = boxes.pow_difficulty <= 40;
        value(difficulty, "mailboxes.pow_difficulty", "from 0 to 40 bits")?;
        let window = (65_536..=MAX_WINDOW).contains(&boxes.push_window);
        value(window, "mailboxes.push_window", "from 65536 to 4194304 bytes")?;
        let cache = (1 << 20..=1 << 40).contains(&self.store.cache_bytes);
        value(cache, "store.cache_bytes", "from 1048576 (1 MiB) to 1 TiB")?;
        let store = &self.store;
        let journal =
            store.journal_bytes == 0 || (1 << 16..=MAX_JOURNAL).contains(&store.journal_bytes);
        value(journal, "store.journal_bytes", "0, or from 65536 (64 KiB) to 67108864 (64 MiB)")?;
        let ordered = store.free_for_mailboxes >= store.free_for_messages;
        let wanted = "at least store.free_for_messages: new mailboxes are refused first";
        value(ordered, "store.free_for_mailboxes", wanted)?;
        value(store.reserve_bytes <= 1 << 30, "store.reserve_bytes", "at most 1073741824 (1 GiB)")
    }

    /// Where clients reach the relay, as configured.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn advertised(&self) -> Result<List<Endpoint, MAX_ENDPOINTS>, ConfigError> {
        let parsed: Result<Vec<Endpoint>, _> =
            self.server.advertise.iter().map(|endpoint| endpoint.parse()).collect();
        parsed.ok().and_then(|endpoints| List::new(endpoints).ok()).ok_or(ConfigError::Value {
            key: "server.advertise",
            wanted: "at most 8 places, each HOST:PORT",
        })
    }

    /// What an operator should think about.
    #[must_use]
    pub fn risks(&self) -> Vec<String> {
        let mut risks = self.network.risks(self.server.max_connections);
        risks.extend(self.metrics.risks());
        if self.access.mode == AccessMode::Open {
            risks.push(
                "access.mode: open, so everybody may have a mailbox here (\"invite\" asks for a link \
                 that you make)"
                    .to_owned(),
            );
        }
        if self.server.advertise.is_empty() {
            let text =
                "server.advertise: empty, so the link names the listening address if it is one";
            risks.push(text.to_owned());
        }
        let (all, one) = (self.mailboxes.max_total_bytes, self.mailboxes.max_bytes);
        if one.saturating_mul(self.mailboxes.max_mailboxes.min(10)) > all {
            risks.push(format!(
                "mailboxes.max_total_bytes: fewer than ten full mailboxes of {one} bytes fit"
            ));
        }
        if self.store.reserve_bytes < 1 << 20 {
            let text =
                "store.reserve_bytes: less than 1 MiB may be too little to drain a full disk";
            risks.push(text.to_owned());
        }
        if self.store.reserve_bytes < self.store.journal_bytes.saturating_mul(4) {
            let text = "store.reserve_bytes: less than four times store.journal_bytes may be too \
                        little to write the journal to the database when the disk is full";
            risks.push(text.to_owned());
        }
        risks
    }

    /// What the engine is told.
    #[must_use]
    pub fn engine(&self) -> EngineConfig {
        let boxes = &self.mailboxes;
        EngineConfig {
            limits: RelayLimits {
                max_blob: boxes.max_blob,
                max_messages: boxes.max_messages,
                max_bytes: boxes.max_bytes,
                retention: boxes.retention,
            },
            pow_difficulty: boxes.pow_difficulty,
            pow_per_minute: boxes.pow_per_minute,
            registration: self.access.registration(),
            max_mailboxes: boxes.max_mailboxes,
            max_total_bytes: boxes.max_total_bytes,
            max_window: boxes.push_window,
            stranger_share: boxes.stranger_share,
            sender_share: boxes.sender_share,
            rates: RateLimits {
                new_mailboxes_per_hour: self.rates.new_mailboxes_per_hour,
                stores_per_minute: self.rates.stores_per_minute,
                key_packages_per_minute: self.rates.key_packages_per_minute,
                changes_per_minute: self.rates.changes_per_minute,
            },
        }
    }
}

impl Sourced for Config {
    const PROGRAM: &'static str = "sremp-relay";
    const ENV_PREFIX: &'static str = ENV_PREFIX;
    type Error = ConfigError;

    fn resolve_paths(&mut self, base: &Path) {
        if let Some(path) = &mut self.server.data {
            *path = base.join(&*path);
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        Self::check(self)
    }

    fn data(&self) -> Option<&Path> {
        self.server.data.as_deref()
    }
}

/// Reads the file, if there is one, lays the environment over it, and checks what comes out.
///
/// # Errors
/// [`ConfigError`]: unreadable, not TOML, unknown keys, wrong types, values out of bounds.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    sources::load(file, environment)
}
