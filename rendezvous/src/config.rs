//! What an operator can set: one TOML file, every key with an override from the environment
//! (`SREMP_RENDEZVOUS__SECTION__KEY`), flags over both. Unknown keys are refused.
//!
//! `deploy/rendezvous.toml` is the annotated example; a test holds it against this file.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sremp_common::id::{IdentityKey, SoughtKey};
use sremp_common::io::settings::{
    self, LogSection, MetricsSection, NetworkSection, is_listen_address, value,
};
use sremp_common::io::sources::Sourced;
use sremp_common::limit::{MAX_SERVERS, PORT_RENDEZVOUS};
use sremp_common::rate::Rate;
use sremp_common::text::decode_identity_key;
use sremp_common::wire::{Endpoint, List};

use crate::registry::{Admission, Limits, RegistryConfig};

/// Start of every variable: `SREMP_RENDEZVOUS__SECTION__KEY`.
pub const ENV_PREFIX: &str = "SREMP_RENDEZVOUS__";

/// Everything. A key that is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen, where to keep data, how many connections.
    pub server: ServerSection,
    /// Who may connect, and how often.
    pub network: NetworkSection,
    /// Who may register.
    pub access: AccessSection,
    /// Certificate and key.
    pub tls: TlsSection,
    /// What is kept and shown.
    pub registry: RegistrySection,
    /// How often one network may ask.
    pub limits: LimitsSection,
    /// Where monitoring asks.
    pub metrics: MetricsSection,
    /// What goes to standard error.
    pub log: LogSection,
}

/// Keys that a running server takes over. The others need a restart.
pub const LIVE: [&str; 17] = [
    "server.max_connections",
    "server.max_connections_per_network",
    "server.idle_timeout",
    "network.max_half_open",
    "network.arrivals_per_minute",
    "network.banned",
    "network.drain_timeout",
    "access",
    "tls",
    "registry.allow_private_endpoints",
    "registry.max_entries",
    "registry.max_bytes",
    "registry.min_free_bytes",
    "registry.listing",
    "registry.peers",
    "limits",
    "log.level",
];

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerSection {
    /// HOST:PORT; port 0 lets the system choose.
    pub listen: String,
    /// The data directory; without it the platform's place.
    pub data: Option<PathBuf>,
    /// Connections at a time.
    pub max_connections: u32,
    /// Connections at a time from one network (an IPv4 address, an IPv6 /64).
    pub max_connections_per_network: u32,
    /// Seconds after which a silent connection is closed.
    pub idle_timeout: u32,
}

/// `[tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSection {
    /// Certificate chain, PEM, the server's own certificate first.
    pub cert: Option<PathBuf>,
    /// Private key, PEM.
    pub key: Option<PathBuf>,
}

/// `[registry]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySection {
    /// Identities that are kept.
    pub max_entries: u64,
    /// Bytes that they may have together.
    pub max_bytes: u64,
    /// Bytes that must be free on the disk for new identities.
    pub min_free_bytes: u64,
    /// Whether those who wish so are listed.
    pub listing: bool,
    /// Other servers to suggest, HOST:PORT.
    pub peers: Vec<String>,
    /// Whether clients from outside may name, and are told, endpoints in private networks.
    pub allow_private_endpoints: bool,
    /// Bytes of the store that are kept in memory.
    pub cache_bytes: u64,
}

/// `[limits]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSection {
    /// Registrations and renewals of one network in a minute.
    pub registrations_per_minute: u32,
    /// The same of one identity, wherever it comes from.
    pub registrations_per_identity_per_minute: u32,
    /// New identities of one network in an hour.
    pub new_identities_per_hour: u32,
    /// Lookups of one network in a minute.
    pub lookups_per_minute: u32,
    /// Pages of a listing for one network in a minute.
    pub list_pages_per_minute: u32,
    /// Identities of one network (an IPv4 address, an IPv6 /48), standing and expired.
    pub identities_per_network: u64,
    /// Registrations of everybody in a second beyond which clients are asked to come less often.
    pub wanted_registrations_per_second: u32,
}

/// `[access]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessSection {
    /// Who may register.
    pub mode: AccessMode,
    /// The ids that may, in mode `list`.
    pub allowed: Vec<String>,
    /// Ids that may not, and are not shown, whatever the mode.
    pub banned: Vec<String>,
}

/// Who may register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessMode {
    /// Everybody.
    #[default]
    Open,
    /// Whoever has an invitation; whoever is known here goes on without.
    Invite,
    /// The ids of a list, and nobody else.
    List,
    /// Nobody new; whoever is known here goes on.
    Closed,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// What every server's configuration may be refused for.
    #[error(transparent)]
    Common(#[from] settings::ConfigError),
    /// A server cannot do without a certificate.
    #[error(
        "no certificate: give --cert FILE --key FILE, or tls.cert and tls.key \
         (`sremp-rendezvous dev-cert DIR NAME` makes one for trying out)"
    )]
    NoCertificate,
}

impl Default for ServerSection {
    fn default() -> Self {
        Self {
            listen: format!("[::]:{PORT_RENDEZVOUS}"),
            data: None,
            max_connections: 4_096,
            max_connections_per_network: 256,
            idle_timeout: 150,
        }
    }
}

impl Default for RegistrySection {
    fn default() -> Self {
        Self {
            max_entries: 100_000,
            max_bytes: 1 << 30,
            min_free_bytes: 64 << 20,
            listing: true,
            peers: Vec::new(),
            allow_private_endpoints: false,
            cache_bytes: 16 << 20,
        }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            registrations_per_minute: 300,
            registrations_per_identity_per_minute: 20,
            new_identities_per_hour: 1_000,
            lookups_per_minute: 1_200,
            list_pages_per_minute: 60,
            identities_per_network: 1_000,
            wanted_registrations_per_second: 500,
        }
    }
}

impl Config {
    fn check_values(&self) -> Result<(), ConfigError> {
        let server = &self.server;
        value(
            is_listen_address(&server.listen),
            "server.listen",
            "HOST:PORT, for example [::]:7332",
        )?;
        value(
            (1..=1_000_000).contains(&server.max_connections),
            "server.max_connections",
            "from 1 to 1000000",
        )?;
        value(
            (1..=1_000_000).contains(&server.max_connections_per_network),
            "server.max_connections_per_network",
            "from 1 to 1000000",
        )?;
        value(
            (10..=86_400).contains(&server.idle_timeout),
            "server.idle_timeout",
            "from 10 to 86400 seconds",
        )?;
        let registry = &self.registry;
        value(registry.max_entries >= 1, "registry.max_entries", "at least 1")?;
        value(registry.max_bytes >= 1 << 20, "registry.max_bytes", "at least 1048576 (1 MiB)")?;
        value(
            (1 << 20..=1 << 40).contains(&registry.cache_bytes),
            "registry.cache_bytes",
            "from 1048576 (1 MiB) to 1 TiB",
        )?;
        self.peers()?;
        self.network.check()?;
        self.metrics.address()?;
        let limits = &self.limits;
        for (rate, key) in [
            (limits.registrations_per_minute, "limits.registrations_per_minute"),
            (
                limits.registrations_per_identity_per_minute,
                "limits.registrations_per_identity_per_minute",
            ),
            (limits.new_identities_per_hour, "limits.new_identities_per_hour"),
            (limits.lookups_per_minute, "limits.lookups_per_minute"),
            (limits.list_pages_per_minute, "limits.list_pages_per_minute"),
            (limits.wanted_registrations_per_second, "limits.wanted_registrations_per_second"),
        ] {
            value((1..=1_000_000).contains(&rate), key, "from 1 to 1000000")?;
        }
        let share = limits.identities_per_network >= 1;
        value(share, "limits.identities_per_network", "at least 1")?;
        let access = &self.access;
        for (list, key) in [(&access.allowed, "access.allowed"), (&access.banned, "access.banned")]
        {
            value(keys(list).is_some(), key, "a list of ids, each beginning with sremp1")?;
        }
        let is_empty_list = access.mode == AccessMode::List && access.allowed.is_empty();
        value(!is_empty_list, "access.allowed", "at least one id when access.mode is \"list\"")?;
        Ok(())
    }

    fn peers(&self) -> Result<List<Endpoint, MAX_SERVERS>, settings::ConfigError> {
        let parsed: Result<Vec<Endpoint>, _> =
            self.registry.peers.iter().map(|peer| peer.parse()).collect();
        parsed.ok().and_then(|peers| List::new(peers).ok()).ok_or(settings::ConfigError::Value {
            key: "registry.peers",
            wanted: "at most 64 servers, each HOST:PORT",
        })
    }

    /// What the registry is told.
    ///
    /// # Errors
    /// [`settings::ConfigError::Value`].
    pub fn registry(&self) -> Result<RegistryConfig, ConfigError> {
        let rate = |count, seconds| Rate { count, per: Duration::from_secs(seconds) };
        let limits = &self.limits;
        Ok(RegistryConfig {
            max_entries: self.registry.max_entries,
            max_bytes: self.registry.max_bytes,
            min_free_bytes: self.registry.min_free_bytes,
            listing: self.registry.listing,
            servers: self.peers()?,
            limits: Limits {
                registrations: rate(limits.registrations_per_minute, 60),
                registrations_of_identity: rate(limits.registrations_per_identity_per_minute, 60),
                new_identities: rate(limits.new_identities_per_hour, 3_600),
                lookups: rate(limits.lookups_per_minute, 60),
                list_pages: rate(limits.list_pages_per_minute, 60),
                identities_per_network: limits.identities_per_network,
                wanted_registrations: limits.wanted_registrations_per_second,
            },
            admission: match self.access.mode {
                AccessMode::Open => Admission::Everybody,
                AccessMode::List => Admission::Only(keys(&self.access.allowed).unwrap_or_default()),
                AccessMode::Invite => Admission::Invited,
                AccessMode::Closed => Admission::Known,
            },
            banned: keys(&self.access.banned).iter().flatten().map(SoughtKey::of).collect(),
            allow_private_endpoints: self.registry.allow_private_endpoints,
        })
    }

    /// What an operator should think about.
    #[must_use]
    pub fn risks(&self) -> Vec<String> {
        let mut risks = self.network.risks(self.server.max_connections);
        risks.extend(self.metrics.risks());
        if self.registry.allow_private_endpoints {
            risks.push(
                "registry.allow_private_endpoints: strangers can send this server's users into \
                 private networks; meant for closed networks"
                    .to_owned(),
            );
        }
        if self.registry.min_free_bytes < 1 << 20 {
            risks.push(
                "registry.min_free_bytes: newcomers may fill the disk, and then nobody can renew"
                    .to_owned(),
            );
        }
        let share = self.limits.identities_per_network.saturating_mul(10);
        if share > self.registry.max_entries {
            risks.push(
                "limits.identities_per_network: less than ten networks can fill the registry"
                    .to_owned(),
            );
        }
        for peer in self.peers().into_iter().flat_map(List::into_vec) {
            if !peer.may_be_public() {
                risks.push(format!("registry.peers: nobody outside can reach {peer}"));
            }
        }
        risks
    }

    /// Silence after which a connection is closed.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.server.idle_timeout.into())
    }

    /// Certificate chain and key.
    ///
    /// # Errors
    /// [`ConfigError::NoCertificate`].
    pub fn certificate(&self) -> Result<(&Path, &Path), ConfigError> {
        match (&self.tls.cert, &self.tls.key) {
            (Some(cert), Some(key)) => Ok((cert, key)),
            _ => Err(ConfigError::NoCertificate),
        }
    }
}

/// The keys of ids; nothing when one of them is no id.
fn keys(ids: &[String]) -> Option<BTreeSet<IdentityKey>> {
    ids.iter().map(|id| decode_identity_key(id).ok()).collect()
}

impl Sourced for Config {
    const PROGRAM: &'static str = "sremp-rendezvous";
    const ENV_PREFIX: &'static str = ENV_PREFIX;
    type Error = ConfigError;

    fn resolve_paths(&mut self, base: &Path) {
        let paths = [&mut self.server.data, &mut self.tls.cert, &mut self.tls.key];
        for path in paths.into_iter().flatten() {
            *path = base.join(&*path);
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_values()
    }

    fn data(&self) -> Option<&Path> {
        self.server.data.as_deref()
    }
}
