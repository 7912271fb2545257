//! The node's configuration: one TOML file in its home, every key with an environment override.
//!
//! Precedence: environment over file over default. What a command changes while the node runs
//! (relays, rendezvous servers, contacts) is not here but in the database.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use sremp_common::limit::{MAX_ENDPOINTS, PORT_NODE};
use sremp_common::wire::Endpoint;

use crate::api::{ApiError, InitOptions, PathPolicy};

/// The annotated example, with every key at its default.
pub const EXAMPLE: &str = include_str!("../../deploy/node.toml");
/// What every overriding variable begins with: `SREMP__SECTION__KEY`.
pub const ENVIRONMENT_PREFIX: &str = "SREMP__";
/// Bytes of a configuration file.
const MAX_FILE: u64 = 64 * 1024;
/// Relays that somebody names at most.
const MAX_COPIES: u8 = 4;

/// A node's directory, and what lies where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// The home at this path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The platform's data directory.
    #[must_use]
    pub fn default_path() -> Option<PathBuf> {
        Some(directories::ProjectDirs::from("", "", "sremp")?.data_dir().to_owned())
    }

    /// The directory itself: 0700.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The database: identity, keys, contacts, history. 0600.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.0.join("node.redb")
    }

    /// The socket of the local interface. 0600.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("api.sock")
    }
}

/// Everything that the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How the node meets the network.
    pub node: NodeConfig,
    /// What it writes to standard error.
    pub log: LogConfig,
}

/// How the node meets the network.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where others may dial it; at most eight. Empty: what rendezvous servers and relays observe.
    #[serde(deserialize_with = "endpoints")]
    pub advertise: Vec<Endpoint>,
    /// Which paths are used to reach contacts that have no policy of their own.
    pub path: PathPolicy,
    /// At how many of a recipient's relays a message is left; 1 to 4.
    #[serde(deserialize_with = "copies")]
    pub relay_copies: u8,
    /// Whether addresses of private networks are dialled when a stranger or server names them.
    pub allow_private_addresses: bool,
    /// Whether rendezvous servers show the node to everybody who browses them.
    pub listed: bool,
    /// Whether others are told when the owner writes, and the owner when they do.
    pub typing: bool,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), PORT_NODE),
            advertise: Vec::new(),
            path: PathPolicy::Auto,
            relay_copies: 1,
            allow_private_addresses: false,
            listed: false,
            typing: false,
        }
    }
}

/// What is written to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Up to which level.
    pub level: LogLevel,
    /// In which form.
    pub format: LogFormat,
}

/// Levels, each with those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What may fail next.
    Warn,
    /// What an operator wants to know.
    #[default]
    Info,
    /// Identities and addresses, too.
    Debug,
    /// Every frame.
    Trace,
}

/// Forms of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// Larger than any sensible configuration.
    #[error("{0} is longer than {MAX_FILE} bytes")]
    TooLong(PathBuf),
    /// Not TOML, an unknown key, or a value that the key does not take.
    #[error("the configuration is wrong: {0}")]
    Wrong(String),
    /// A variable that overrides no key.
    #[error("the variable {0} overrides nothing; sections and keys are those of config.toml")]
    UnknownVariable(String),
}

impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> Self {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        Self::usage(format!("{error}{}", source.unwrap_or_default()))
    }
}

/// How a variable's text becomes a value.
#[derive(Clone, Copy, Debug)]
enum Form {
    Text,
    Switch,
    Number,
    /// Separated by commas.
    List,
}

/// Every key there is, for the environment.
const KEYS: &[(&str, &str, Form)] = &[
    ("node", "listen", Form::Text),
    ("node", "advertise", Form::List),
    ("node", "path", Form::Text),
    ("node", "relay_copies", Form::Number),
    ("node", "allow_private_addresses", Form::Switch),
    ("node", "listed", Form::Switch),
    ("node", "typing", Form::Switch),
    ("log", "level", Form::Text),
    ("log", "format", Form::Text),
];

impl Config {
    /// The configuration of a home, with this process's environment. No file: the defaults.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(home: &Home) -> Result<Self, ConfigError> {
        let path = home.config();
        let text = match std::fs::metadata(&path) {
            Ok(found) if found.len() > MAX_FILE => return Err(ConfigError::TooLong(path)),
            Ok(_) => std::fs::read_to_string(&path).map_err(|why| ConfigError::Read(path, why))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(ConfigError::Read(path, error)),
        };
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        Self::parse(&text, variables)
    }

    /// The configuration of a file's text and some variables; other programs' are passed over.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`], [`ConfigError::UnknownVariable`].
    pub fn parse(
        text: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        // Parsed on its own first: then an error names the line of the file.
        let _: Self = toml::from_str(text).map_err(wrong)?;
        let mut table: BTreeMap<String, toml::Table> = toml::from_str(text).map_err(wrong)?;
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let (section, key, form) = KEYS
                .iter()
                .find(|(section, key, _)| {
                    rest == format!("{}__{}", section.to_uppercase(), key.to_uppercase())
                })
                .ok_or_else(|| ConfigError::UnknownVariable(name.clone()))?;
            let value = to_value(&value, *form).ok_or_else(|| {
                let wanted =
                    if matches!(form, Form::Number) { "a number" } else { "true or false" };
                ConfigError::Wrong(format!("{name} must be {wanted}"))
            })?;
            table.entry((*section).to_owned()).or_default().insert((*key).to_owned(), value);
        }
        let table: toml::Table =
            table.into_iter().map(|(section, keys)| (section, toml::Value::Table(keys))).collect();
        table.try_into().map_err(wrong)
    }
}

/// What `init` writes: the example, with what was asked for filled in.
#[must_use]
pub fn initial(options: &InitOptions) -> String {
    let quoted = |text: String| toml::Value::String(text).to_string();
    let advertise: Vec<String> = options.advertise.iter().map(|e| quoted(e.to_string())).collect();
    EXAMPLE.lines().fold(String::new(), |text, line| {
        let line = match (line.split('=').next().map(str::trim), options.listen) {
            (Some("listen"), Some(listen)) => format!("listen = {}", quoted(listen.to_string())),
            (Some("advertise"), _) => format!("advertise = [{}]", advertise.join(", ")),
            _ => line.to_owned(),
        };
        text + &line + "\n"
    })
}

fn wrong(error: toml::de::Error) -> ConfigError {
    ConfigError::Wrong(error.to_string().trim_end().to_owned())
}

fn to_value(text: &str, form: Form) -> Option<toml::Value> {
    let string = |text: &str| toml::Value::String(text.trim().to_owned());
    Some(match form {
        Form::Text => string(text),
        Form::Switch => toml::Value::Boolean(text.trim().parse().ok()?),
        Form::Number => toml::Value::Integer(text.trim().parse().ok()?),
        Form::List => toml::Value::Array(
            text.split(',').filter(|item| !item.trim().is_empty()).map(string).collect(),
        ),
    })
}

/// How many relays.
fn copies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    let copies = u8::deserialize(deserializer)?;
    if !(1..=MAX_COPIES).contains(&copies) {
        return Err(serde::de::Error::custom(format!("from 1 to {MAX_COPIES} copies")));
    }
    Ok(copies)
}

/// Endpoints in their text form.
fn endpoints<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    if texts.len() > MAX_ENDPOINTS {
        return Err(serde::de::Error::custom(format!("at most {MAX_ENDPOINTS} addresses")));
    }
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [(String, String); 0] = [];

    fn with(name: &str, value: &str) -> Result<Config, ConfigError> {
        Config::parse("", [(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn the_example_is_the_default() {
        assert_eq!(Config::parse(EXAMPLE, NONE).unwrap(), Config::default());
        assert_eq!(Config::parse("", NONE).unwrap(), Config::default());
    }

    #[test]
    fn the_example_has_every_key_and_no_other() {
        let example: BTreeMap<String, toml::Table> = toml::from_str(EXAMPLE).unwrap();
        let mut found: Vec<(&str, &str)> = Vec::new();
        for (section, keys) in &example {
            found.extend(keys.keys().map(|key| (section.as_str(), key.as_str())));
        }
        let mut known: Vec<(&str, &str)> = KEYS.iter().map(|(s, k, _)| (*s, *k)).collect();
        found.sort_unstable();
        known.sort_unstable();
        assert_eq!(found, known);
    }

    #[test]
    fn every_key_has_an_override_that_wins() {
        for (name, value, effect) in [
            ("SREMP__NODE__LISTEN", "127.0.0.1:0", "listen"),
            ("SREMP__NODE__ADVERTISE", "a.example:1, 192.0.2.1:2", "advertise"),
            ("SREMP__NODE__PATH", "direct", "path"),
            ("SREMP__NODE__RELAY_COPIES", "2", "copies"),
            ("SREMP__NODE__ALLOW_PRIVATE_ADDRESSES", "true", "private"),
            ("SREMP__NODE__TYPING", "true", "typing"),
            ("SREMP__LOG__LEVEL", "trace", "level"),
            ("SREMP__LOG__FORMAT", "json", "format"),
        ] {
            let over_default = with(name, value).unwrap();
            assert_ne!(over_default, Config::default(), "{effect}");
            let over_file = Config::parse(EXAMPLE, [(name.to_owned(), value.to_owned())]).unwrap();
            assert_eq!(over_file, over_default, "{effect}");
        }
        let listed = with("SREMP__NODE__ADVERTISE", "a.example:1, 192.0.2.1:2").unwrap();
        assert_eq!(listed.node.advertise.len(), 2);
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "[node]\nlisten = 7330",
            "[node]\nlisten = \"nowhere\"",
            "[node]\nadvertise = [\"x\"]",
            "[node]\nrelay_copies = 0",
            "[node]\nrelay_copies = 5",
            "[node]\nadvertize = []",
            "[nodes]",
            "listen = \"[::]:1\"",
            "[node]\npath = \"sideways\"",
            "[log]\nlevel = \"loud\"",
            "[node",
        ] {
            assert!(matches!(Config::parse(text, NONE), Err(ConfigError::Wrong(_))), "{text}");
        }
        let nine = format!("[node]\nadvertise = [{}]", "\"a.example:1\",".repeat(9));
        assert!(matches!(Config::parse(&nine, NONE), Err(ConfigError::Wrong(_))));
        assert!(matches!(with("SREMP__NODE__X", "1"), Err(ConfigError::UnknownVariable(_))));
        assert!(matches!(with("SREMP__", "1"), Err(ConfigError::UnknownVariable(_))));
        let switch = with("SREMP__NODE__ALLOW_PRIVATE_ADDRESSES", "perhaps");
        assert!(matches!(switch, Err(ConfigError::Wrong(_))));
        assert_eq!(with("SREMP_HOME", "/x").unwrap(), Config::default());
    }

    #[test]
    fn init_fills_in_what_was_asked_for() {
        let options = InitOptions {
            name: sremp_common::name::Username::new("ann").unwrap(),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            advertise: vec!["a.example:7330".parse().unwrap(), "[::1]:7".parse().unwrap()],
            rendezvous: Vec::new(),
            relays: Vec::new(),
        };
        let config = Config::parse(&initial(&options), NONE).unwrap();
        assert_eq!(config.node.listen, "127.0.0.1:0".parse().unwrap());
        assert_eq!(config.node.advertise, options.advertise);
        let defaults = InitOptions { listen: None, advertise: Vec::new(), ..options };
        assert_eq!(initial(&defaults), EXAMPLE);
    }
}
