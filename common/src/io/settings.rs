//! What the configurations of the server programs have in common: the section `[log]`, checks of
//! values, the place for data, and why a configuration is refused. Where the values come from is
//! told by [`sources`](super::sources).

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::wire::Endpoint;

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
    fn a_server_listens_on_a_name_or_an_address_with_a_port() {
        for text in ["[::]:7331", "0.0.0.0:0", "relay.example:0", "localhost:1"] {
            assert!(is_listen_address(text), "{text}");
        }
        for text in ["", "7331", ":1", "relay.example", "relay.example:", "a:65536", "a b:1"] {
            assert!(!is_listen_address(text), "{text}");
        }
    }
}
