//! What the configurations of the server programs have in common: the sections `[log]`,
//! `[metrics]` and `[network]`, checks of values, the place for data, and why a configuration is
//! refused. Where the values come from is told by [`sources`](super::sources).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize};

use super::bans::parse;
use super::gate::GateLimits;
use super::metrics::process::max_files;
use crate::rate::Rate;
use crate::wire::Endpoint;

/// File descriptors that a server needs beside those of its connections.
const RESERVED_FILES: u64 = 64;

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogSection {
    /// What is logged.
    pub level: LogLevel,
    /// Lines for people, or one JSON object a line.
    pub format: LogFormat,
}

/// How much is logged. Addresses and identities appear at `debug` and below only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What stops the server.
    Error,
    /// What an operator should look at.
    Warn,
    /// Start, stop, reload.
    Info,
    /// Connections.
    Debug,
    /// Everything.
    Trace,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSection {
    /// IP:PORT of `/livez`, `/readyz` and `/metrics`, or `off`.
    pub listen: String,
    /// Whether that may be an address that other machines reach.
    pub allow_remote: bool,
}

/// `[network]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkSection {
    /// Connections at a time whose handshake is not done.
    pub max_half_open: u32,
    /// New connections of one network (an IPv4 address, an IPv6 /64) in a minute.
    pub arrivals_per_minute: u32,
    /// Networks from which nobody may connect.
    #[serde(deserialize_with = "networks")]
    pub banned: Vec<IpNet>,
    /// Networks of load balancers that say for whom they connect, by the PROXY protocol.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Seconds that a stop may take until the last client is cut off.
    pub drain_timeout: u32,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("{origin}: {problem}")]
    Parse {
        /// The file, or the variable.
        origin: String,
        /// What the parser says.
        problem: String,
    },
    /// A value out of its bounds.
    #[error("{key} must be {wanted}")]
    Value {
        /// `section.key`
        key: &'static str,
        /// What would be right.
        wanted: &'static str,
    },
    /// No place for data.
    #[error("no data directory: give --data DIR or server.data")]
    NoDataDirectory,
}

impl Default for LogSection {
    fn default() -> Self {
        Self { level: LogLevel::Info, format: LogFormat::Text }
    }
}

impl Default for NetworkSection {
    fn default() -> Self {
        Self {
            max_half_open: 1_024,
            arrivals_per_minute: 600,
            banned: Vec::new(),
            trusted_proxies: Vec::new(),
            drain_timeout: 30,
        }
    }
}

impl NetworkSection {
    /// Checks the bounds.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        for (number, key) in [
            (self.max_half_open, "network.max_half_open"),
            (self.arrivals_per_minute, "network.arrivals_per_minute"),
        ] {
            value((1..=1_000_000).contains(&number), key, "from 1 to 1000000")?;
        }
        let drain = (1..=3_600).contains(&self.drain_timeout);
        value(drain, "network.drain_timeout", "from 1 to 3600 seconds")
    }

    /// The bounds of a gate, together with those on connections.
    #[must_use]
    pub fn gate(&self, max: u32, max_per_network: u32) -> GateLimits {
        let arrivals = Rate { count: self.arrivals_per_minute, per: Duration::from_secs(60) };
        GateLimits { max, max_per_network, max_half_open: self.max_half_open, arrivals }
    }

    /// Time that a stop may take.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.drain_timeout.into())
    }

    /// What an operator should think about, for a server with so many connections.
    #[must_use]
    pub fn risks(&self, max_connections: u32) -> Vec<String> {
        let mut risks = Vec::new();
        let is_wide = |network: &&IpNet| network.prefix_len() < 8;
        for network in self.trusted_proxies.iter().filter(is_wide) {
            risks.push(format!(
                "network.trusted_proxies: anybody in {network} can pretend to be any address"
            ));
        }
        for network in self.banned.iter().filter(|network| network.prefix_len() == 0) {
            risks.push(format!("network.banned: {network} is everybody"));
        }
        let wanted = u64::from(max_connections).saturating_add(RESERVED_FILES);
        if let Some(files) = max_files().filter(|files| *files < wanted) {
            risks.push(format!(
                "server.max_connections: {max_connections} connections need {wanted} open files, and \
                 this shell allows {files} (LimitNOFILE= in the service decides there)"
            ));
        }
        risks
    }
}

impl Default for MetricsSection {
    fn default() -> Self {
        Self { listen: "off".to_owned(), allow_remote: false }
    }
}

impl MetricsSection {
    /// Where to listen, if at all.
    ///
    /// # Errors
    /// [`ConfigError::Value`]: not an address, or one that other machines reach without leave.
    pub fn address(&self) -> Result<Option<SocketAddr>, ConfigError> {
        if self.listen == "off" {
            return Ok(None);
        }
        let parsed = self.listen.parse::<SocketAddr>();
        let address = parsed.map_err(|_| ConfigError::Value {
            key: "metrics.listen",
            wanted: "IP:PORT, for example 127.0.0.1:9330, or \"off\"",
        })?;
        let is_safe = address.ip().to_canonical().is_loopback() || self.allow_remote;
        let wanted = "a loopback address, because whoever reaches it sees all figures; if a \
                      firewall keeps others out, set metrics.allow_remote = true";
        value(is_safe, "metrics.listen", wanted)?;
        Ok(Some(address))
    }

    /// What an operator should think about.
    #[must_use]
    pub fn risks(&self) -> Vec<String> {
        let is_remote = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
        match self.address() {
            Ok(Some(address)) if is_remote(address) => vec![format!(
                "metrics.listen: {address} can be reached from other machines, without a password"
            )],
            Ok(None) => vec!["metrics.listen: off, so nobody notices when the server ails".into()],
            _ => Vec::new(),
        }
    }
}

/// Networks, each as an address or with the length of its prefix.
fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let network = |text: &String| {
        let wrong = || format!("`{text}` is neither an address nor a network like 192.0.2.0/24");
        parse(text).ok_or_else(|| serde::de::Error::custom(wrong()))
    };
    texts.iter().map(network).collect()
}

/// Refuses a value that does not hold its bounds.
///
/// # Errors
/// [`ConfigError::Value`].
pub const fn value(
    holds: bool,
    key: &'static str,
    wanted: &'static str,
) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Value { key, wanted }) }
}

/// HOST:PORT with a name or an address; unlike an endpoint's, the port may be 0.
#[must_use]
pub fn is_listen_address(text: &str) -> bool {
    let is_name_and_port = || {
        let (name, port) = text.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        // Any port will do for the check of the name.
        format!("{name}:1").parse::<Endpoint>().ok()
    };
    text.parse::<SocketAddr>().is_ok() || is_name_and_port().is_some()
}

/// Where the data of `program` goes when nothing is said: what the service manager made, or the
/// user's own place.
#[must_use]
pub fn default_data_dir(
    program: &str,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let in_home = || Some(set("HOME")?.join(".local/share"));
    let of_user = || Some(set("XDG_DATA_HOME").or_else(in_home)?.join(program));
    set("STATE_DIRECTORY").or_else(of_user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_where_the_service_manager_or_the_user_keeps_it() {
        let with = |pairs: &'static [(&str, &str)]| {
            default_data_dir("sremp-x", move |name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("HOME", "/h")]), Some("/h/.local/share/sremp-x".into()));
        assert_eq!(with(&[("HOME", "/h"), ("XDG_DATA_HOME", "/x")]), Some("/x/sremp-x".into()));
        assert_eq!(with(&[("HOME", "/h"), ("STATE_DIRECTORY", "/s")]), Some("/s".into()));
    }

    #[test]
    fn what_is_risky_is_said() {
        let network = |text: &str| text.parse::<IpNet>().unwrap();
        let section = NetworkSection {
            banned: vec![network("0.0.0.0/0"), network("192.0.2.0/24")],
            trusted_proxies: vec![network("::/0"), network("10.0.0.0/8")],
            ..NetworkSection::default()
        };
        let risks = section.risks(u32::MAX);
        assert_eq!(risks.len(), 3, "{risks:?}");
        assert!(risks[0].contains("::/0") && risks[1].contains("0.0.0.0/0"));
        assert!(risks[2].contains("open files"));
        assert!(NetworkSection::default().risks(10).is_empty());
    }

    #[test]
    fn a_network_may_be_one_address_and_what_is_none_is_named() {
        let banned = |text: &str| {
            toml::from_str::<NetworkSection>(&format!("banned = [\"{text}\"]"))
                .map(|section| section.banned[0].to_string())
        };
        assert_eq!(banned("192.0.2.1").unwrap(), "192.0.2.1/32");
        assert_eq!(banned("2001:db8::/32").unwrap(), "2001:db8::/32");
        let refused = banned("300.0.0.1").unwrap_err().to_string();
        assert!(refused.contains("`300.0.0.1` is neither an address nor a network"), "{refused}");
    }

    #[test]
    fn figures_are_shown_to_this_machine_only_unless_allowed() {
        let with = |listen: &str, allow_remote| {
            MetricsSection { listen: listen.to_owned(), allow_remote }.address()
        };
        assert_eq!(MetricsSection::default().address().unwrap(), None);
        for local in ["127.0.0.1:9330", "[::1]:0", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(with(local, false).unwrap(), Some(local.parse().unwrap()));
        }
        for remote in ["0.0.0.0:9330", "[::]:9330", "192.0.2.1:9330"] {
            let refused = with(remote, false).unwrap_err().to_string();
            assert!(refused.contains("allow_remote"), "{refused}");
            assert_eq!(with(remote, true).unwrap(), Some(remote.parse().unwrap()));
            let listen = remote.to_owned();
            assert_eq!(MetricsSection { listen, allow_remote: true }.risks().len(), 1);
        }
        for nonsense in ["", "on", "localhost", "127.0.0.1", "9330"] {
            assert!(with(nonsense, true).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_server_listens_on_a_name_or_an_address_with_a_port() {
        for text in ["[::]:7331", "0.0.0.0:0", "relay.example:0", "localhost:1"] {
            assert!(is_listen_address(text), "{text}");
        }
        for text in ["", "7331", ":1", "relay.example", "relay.example:", "a:65536", "a b:1"] {
            assert!(!is_listen_address(text), "{text}");
        }
    }
}
