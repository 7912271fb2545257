//! A configuration that changes while the server runs: which keys are different, which of them are
//! taken over at once, and which wait for the next start. What taking over means is the server's
//! affair.

use serde::Serialize;
use serde_json::json;
use toml::{Table, Value};

use super::control::{Answer, Refused};
use super::settings::ConfigError;
use super::sources::Sourced;

/// The configuration that the server runs with.
#[derive(Debug)]
pub struct Reloader<C> {
    running: C,
    live: &'static [&'static str],
}

/// One key with another value than the server runs with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `section.key`
    pub key: String,
    /// Taken over; otherwise it waits for the next start.
    pub applied: bool,
}

impl<C: Sourced> Reloader<C> {
    /// For a server that runs with `running`, and can take over the keys in `live` (`section.key`,
    /// or a whole `section`).
    #[must_use]
    pub const fn new(running: C, live: &'static [&'static str]) -> Self {
        Self { running, live }
    }

    /// What the server runs with.
    #[must_use]
    pub const fn running(&self) -> &C {
        &self.running
    }

    /// What the server would run with if it took over `fresh` as far as it can, and every key in
    /// which `fresh` differs from what it runs with now.
    ///
    /// # Errors
    /// What is taken over and what stays may not fit together.
    pub fn compare(&self, fresh: &C) -> Result<(C, Vec<Change>), C::Error> {
        let as_table = |config: &C| Table::try_from(config).map_err(|error| broken(&error));
        let (mut merged, fresh) = (as_table(&self.running)?, as_table(fresh)?);
        let mut changes = Vec::new();
        for (section, key) in keys(&merged, &fresh) {
            let new = at(&fresh, &section, &key).cloned();
            if at(&merged, &section, &key) == new.as_ref() {
                continue;
            }
            let name = format!("{section}.{key}");
            let applied = self.live.iter().any(|live| *live == section || *live == name);
            if applied && let Some(keys) = merged.get_mut(&section).and_then(Value::as_table_mut) {
                match new {
                    Some(new) => keys.insert(key, new),
                    None => keys.remove(&key),
                };
            }
            changes.push(Change { key: name, applied });
        }
        let merged: C = merged.try_into().map_err(|error| broken(&error))?;
        merged.check()?;
        Ok((merged, changes))
    }

    /// Reads the configuration by `load`, has `apply` take over what can be, and says what came of
    /// it, to the log and in the answer. When anything fails, everything stays as it was; `apply`
    /// keeps to that, too.
    ///
    /// # Errors
    /// Why the old configuration stays.
    pub async fn reload(
        &mut self,
        load: impl FnOnce() -> Result<C, C::Error>,
        apply: impl AsyncFnOnce(&C) -> Result<(), Refused>,
    ) -> Answer {
        let taken = async {
            let compared = load().and_then(|fresh| self.compare(&fresh));
            let (merged, changes) = compared.map_err(|error| Refused::failed(&error))?;
            apply(&merged).await?;
            Ok((merged, changes))
        };
        match taken.await {
            Ok((merged, changes)) => {
                self.running = merged;
                let said = summary(&changes);
                tracing::info!("the configuration was read again: {said}");
                Ok(json!({"summary": said, "changes": changes}))
            }
            Err(refused) => {
                tracing::error!(error = %refused, "the configuration cannot be taken over; the old one stays");
                Err(refused)
            }
        }
    }
}

/// For the log and for the operator: what came of it.
#[must_use]
pub fn summary(changes: &[Change]) -> String {
    let named = |applied: bool| -> Vec<&str> {
        let changes = changes.iter().filter(|change| change.applied == applied);
        changes.map(|change| change.key.as_str()).collect()
    };
    let (taken, waiting) = (named(true), named(false));
    let mut text = match taken.as_slice() {
        [] => "nothing is taken over".to_owned(),
        taken => format!("taken over: {}", taken.join(", ")),
    };
    if !waiting.is_empty() {
        text.push_str(&format!("; these need a restart: {}", waiting.join(", ")));
    }
    text
}

/// Every key of either.
fn keys(a: &Table, b: &Table) -> Vec<(String, String)> {
    let of = |table: &Table| -> Vec<(String, String)> {
        let sections = table.iter().filter_map(|(name, keys)| Some((name, keys.as_table()?)));
        sections
            .flat_map(|(name, keys)| keys.keys().map(move |key| (name.clone(), key.clone())))
            .collect()
    };
    let mut all = of(a);
    all.extend(of(b));
    all.sort();
    all.dedup();
    all
}

fn at<'t>(table: &'t Table, section: &str, key: &str) -> Option<&'t Value> {
    table.get(section)?.get(key)
}

/// Cannot happen with a configuration that was read from a table; but files are others' work.
fn broken(error: &dyn std::error::Error) -> ConfigError {
    ConfigError::Parse { origin: "the configuration".to_owned(), problem: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde::Deserialize;

    use super::*;

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Config {
        a: Part,
        b: Part,
    }

    #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default)]
    struct Part {
        least: u32,
        most: u32,
        text: Option<String>,
    }

    impl Sourced for Config {
        const PROGRAM: &'static str = "test";
        const ENV_PREFIX: &'static str = "TEST__";
        type Error = ConfigError;

        fn resolve_paths(&mut self, _: &Path) {}

        fn check(&self) -> Result<(), ConfigError> {
            super::super::settings::value(self.a.least <= self.b.most, "a.least", "small")
        }

        fn data(&self) -> Option<&Path> {
            None
        }
    }

    fn part(least: u32, most: u32, text: Option<&str>) -> Part {
        Part { least, most, text: text.map(str::to_owned) }
    }

    #[test]
    fn what_can_be_taken_over_is_and_the_rest_is_named() {
        let running = Config { a: part(1, 2, Some("x")), b: part(3, 4, None) };
        let mut reloader = Reloader::new(running.clone(), &["a", "b.text"]);
        assert_eq!(reloader.compare(&running).unwrap(), (running.clone(), Vec::new()));
        let fresh = Config { a: part(2, 2, None), b: part(9, 4, Some("y")) };
        let (merged, changes) = reloader.compare(&fresh).unwrap();
        assert_eq!(merged, Config { a: part(2, 2, None), b: part(3, 4, Some("y")) });
        assert_eq!(
            summary(&changes),
            "taken over: a.least, a.text, b.text; these need a restart: b.least"
        );
        reloader.running = merged;
        // What waits is said again the next time; what was taken over is not.
        let (_, changes) = reloader.compare(&fresh).unwrap();
        assert_eq!(summary(&changes), "nothing is taken over; these need a restart: b.least");
    }

    #[tokio::test]
    async fn a_reload_that_fails_leaves_everything() {
        let mut reloader = Reloader::new(Config::default(), &["a"]);
        let fresh = Config { b: part(0, 9, None), a: part(0, 7, None) };
        let unread = || Err(ConfigError::NoDataDirectory);
        assert!(reloader.reload(unread, async |_| Ok(())).await.is_err());
        let refusal = async |_: &Config| Err(Refused::new("failed", "no"));
        assert!(reloader.reload(|| Ok(fresh.clone()), refusal).await.is_err());
        assert_eq!(*reloader.running(), Config::default());
        let answer = reloader.reload(|| Ok(fresh.clone()), async |_| Ok(())).await.unwrap();
        assert_eq!(answer["changes"][1], json!({"key": "b.most", "applied": false}));
        assert_eq!(reloader.running().a, fresh.a);
        assert_eq!(reloader.running().b, part(0, 0, None));
    }

    #[test]
    fn what_would_not_fit_together_is_refused() {
        let reloader = Reloader::new(Config { b: part(0, 4, None), ..Config::default() }, &["a"]);
        // Good by itself, but the running part of it stays.
        let fresh = Config { a: part(5, 0, None), b: part(0, 9, None) };
        fresh.check().unwrap();
        assert!(reloader.compare(&fresh).is_err());
    }
}
