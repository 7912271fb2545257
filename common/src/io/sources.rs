//! Where the configuration of a server program comes from: file, then environment. Flags are laid
//! over by the command line. The environment is handed in, so that tests can make one up.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::settings::{ConfigError, default_data_dir};

/// What a program can take from a file and the environment. A key that is absent has its default.
pub trait Sourced: Default + Serialize + DeserializeOwned {
    /// The program's name.
    const PROGRAM: &'static str;

    /// Start of every variable, in capitals: with `PROGRAM__` they are `PROGRAM__SECTION__KEY`.
    const ENV_PREFIX: &'static str;

    /// Why a configuration may be refused.
    type Error: From<ConfigError> + std::error::Error;

    /// Takes relative paths as meant from `base`, the directory of the file.
    fn resolve_paths(&mut self, base: &Path);

    /// Checks every value that its type does not check.
    ///
    /// # Errors
    /// The first one that is wrong, by the name of its key.
    fn check(&self) -> Result<(), Self::Error>;

    /// The data directory, if one is configured.
    fn data(&self) -> Option<&Path>;
}

/// The data directory: as configured, or the default of the platform.
///
/// # Errors
/// [`ConfigError::NoDataDirectory`].
pub fn data_dir<C: Sourced>(config: &C) -> Result<PathBuf, ConfigError> {
    let variable = |name: &str| std::env::var(name).ok();
    let chosen = config.data().map(Path::to_owned);
    let found = chosen.or_else(|| default_data_dir(C::PROGRAM, variable));
    found.ok_or(ConfigError::NoDataDirectory)
}

/// Reads the file, if there is one, lays the environment over it, and checks what comes out.
///
/// # Errors
/// As [`read`] and [`Sourced::check`].
pub fn load<C: Sourced>(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<C, C::Error> {
    let config: C = read(file, environment)?;
    config.check()?;
    Ok(config)
}

/// Reads the file, if there is one, and lays the environment over it. Bounds of values are not
/// checked here.
///
/// # Errors
/// [`ConfigError`]: unreadable, not TOML, unknown keys, wrong types.
pub fn read<C: Sourced>(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<C, ConfigError> {
    let mut config = match file {
        Some(path) => from_file(path)?,
        None => C::default(),
    };
    for (name, value) in environment {
        if let Some(key) = name.strip_prefix(C::ENV_PREFIX) {
            config = with_override(&config, &key.to_ascii_lowercase(), &value)?;
        }
    }
    Ok(config)
}

/// The environment of this process. Names that are not Unicode cannot be ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

fn from_file<C: Sourced>(path: &Path) -> Result<C, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let mut config: C = toml::from_str(&text).map_err(|error| ConfigError::Parse {
        origin: path.display().to_string(),
        problem: error.to_string().trim_end().to_owned(),
    })?;
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    config.resolve_paths(absolute.parent().unwrap_or(Path::new(".")));
    Ok(config)
}

/// Sets `section__key`. The value is read as TOML, or else as plain text; whichever fits the key.
fn with_override<C: Sourced>(config: &C, name: &str, value: &str) -> Result<C, ConfigError> {
    let error = |problem: String| ConfigError::Parse {
        origin: format!("{}{}", C::ENV_PREFIX, name.to_ascii_uppercase()),
        problem,
    };
    let (section, key) =
        name.split_once("__").ok_or_else(|| error("not SECTION__KEY".to_owned()))?;
    let mut table = Table::try_from(config).map_err(|problem| error(problem.to_string()))?;
    let mut set = |value: Value| -> Result<C, String> {
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Settings {
        part: Part,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Part {
        number: u32,
        text: String,
        path: PathBuf,
    }

    impl Sourced for Settings {
        const PROGRAM: &'static str = "test";
        const ENV_PREFIX: &'static str = "TEST__";
        type Error = ConfigError;

        fn resolve_paths(&mut self, base: &Path) {
            self.part.path = base.join(&self.part.path);
        }

        fn check(&self) -> Result<(), ConfigError> {
            super::super::settings::value(self.part.number < 100, "part.number", "below 100")
        }

        fn data(&self) -> Option<&Path> {
            None
        }
    }

    fn with(name: &str, value: &str) -> Result<Settings, ConfigError> {
        load(None, [(name.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_variable_is_a_value_or_else_text() {
        assert_eq!(with("TEST__PART__NUMBER", "7").unwrap().part.number, 7);
        assert_eq!(with("TEST__PART__TEXT", "\"7\"").unwrap().part.text, "7");
        // A number does not fit the key: then the text is meant as it stands.
        assert_eq!(with("TEST__PART__TEXT", "7").unwrap().part.text, "7");
        assert_eq!(with("OTHER__PART__TEXT", "7").unwrap(), Settings::default());
    }

    #[test]
    fn what_overrides_nothing_is_refused_and_named() {
        for (name, value) in [
            ("TEST__PART", "7"),
            ("TEST__PARTS__NUMBER", "7"),
            ("TEST__PART__NUMBERS", "7"),
            ("TEST__PART__NUMBER", "many"),
            ("TEST__PART__NUMBER", "1\ntext = \"two\""),
        ] {
            let refused = with(name, value).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("{name}: ")), "{refused}");
        }
    }

    #[test]
    fn the_environment_wins_and_paths_are_meant_from_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("s.toml");
        std::fs::write(&file, "[part]\nnumber = 1\npath = \"p\"\n").unwrap();
        let variable = ("TEST__PART__NUMBER".to_owned(), "2".to_owned());
        let found: Settings = load(Some(&file), [variable]).unwrap();
        assert_eq!(found.part.number, 2);
        assert_eq!(found.part.path, directory.path().join("p"));
        std::fs::write(&file, "[part]\nnumber = 100\n").unwrap();
        assert!(read::<Settings>(Some(&file), []).is_ok());
        let refused = load::<Settings>(Some(&file), []).unwrap_err();
        assert_eq!(refused.to_string(), "part.number must be below 100");
        let missing = load::<Settings>(Some(&directory.path().join("missing")), []);
        assert!(matches!(missing, Err(ConfigError::Read { .. })));
    }
}
