//! Where a configuration comes from: file, then environment. Flags are laid over by the command
//! line. The environment is handed in, so that tests can make one up.

use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError};

/// Start of every variable: `SREMP_RELAY__SECTION__KEY`.
pub const ENV_PREFIX: &str = "SREMP_RELAY__";

/// Reads the file, if there is one, and lays the environment over it.
///
/// # Errors
/// [`ConfigError`]: unreadable, not TOML, unknown keys, wrong types, values out of bounds.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Config, ConfigError> {
    let mut config = match file {
        Some(path) => from_file(path)?,
        None => Config::default(),
    };
    for (name, value) in environment {
        if let Some(key) = name.strip_prefix(ENV_PREFIX) {
            config = with_override(&config, &key.to_ascii_lowercase(), &value)?;
        }
    }
    config.check()?;
    Ok(config)
}

fn from_file(path: &Path) -> Result<Config, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let mut config: Config = toml::from_str(&text).map_err(|error| ConfigError::Parse {
        origin: path.display().to_string(),
        problem: error.to_string().trim_end().to_owned(),
    })?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    config.resolve_paths(absolute.parent().unwrap_or(Path::new(".")));
    Ok(config)
}

/// Sets `section__key`. The value is read as TOML, or else as plain text; whichever fits the key.
fn with_override(config: &Config, name: &str, value: &str) -> Result<Config, ConfigError> {
    let error = |problem: String| ConfigError::Parse {
        origin: format!("{ENV_PREFIX}{}", name.to_ascii_uppercase()),
        problem,
    };
    let (section, key) =
        name.split_once("__").ok_or_else(|| error("not SECTION__KEY".to_owned()))?;
    let mut table = Table::try_from(config).map_err(|problem| error(problem.to_string()))?;
    let mut set = |value: Value| -> Result<Config, String> {
        let Some(Value::Table(section)) = table.get_mut(section) else {
            return Err(format!("there is no section `{section}`"));
        };
        section.insert(key.to_owned(), value);
        table.clone().try_into().map_err(|problem: toml::de::Error| problem.message().to_owned())
    };
    let typed = toml::from_str::<Table>(&format!("value = {value}")).ok();
    let typed = typed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    if let Some(config) = typed.and_then(|value| set(value).ok()) {
        return Ok(config);
    }
    set(Value::String(value.to_owned())).map_err(error)
}
