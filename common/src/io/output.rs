//! What a server program prints: text for people or JSON on standard output, problems and the log
//! on standard error. The only place of the servers that writes to either.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the place")]

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use tracing_subscriber::filter::LevelFilter;

use super::control::ControlError;
use super::settings::{ConfigError, LogFormat, LogLevel, LogSection};

/// Text or JSON.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub struct Failure {
    code: &'static str,
    exit: u8,
    /// The error and its causes.
    message: String,
}

impl Failure {
    /// A failure with a code of its own, for programs; the process ends with 1.
    #[must_use]
    pub fn new(code: &'static str, error: &dyn Error) -> Self {
        Self { code, exit: 1, message: with_causes(error) }
    }

    /// A failure without a code of its own.
    pub fn failed(error: impl Error) -> Self {
        Self::new("failed", &error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new("config", &error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::NotRunning(_) => Self { exit: 3, ..Self::new("not_running", &error) },
            ControlError::Io { .. } => Self::failed(error),
        }
    }
}

/// One line: what happened, and because of what.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Output {
    /// JSON, or text for people.
    #[must_use]
    pub const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Arguments that cannot be understood, or a request for help.
    #[must_use]
    pub fn usage(error: &clap::Error) -> ExitCode {
        if !error.use_stderr() {
            // Help and version: standard output.
            print!("{}", error.render());
            return ExitCode::SUCCESS;
        }
        if std::env::args_os().any(|argument| argument == "--json") {
            let text = error.render().to_string();
            eprintln!("{}", json!({"error": {"code": "usage", "message": text.trim()}}));
        } else {
            eprint!("{}", error.render());
        }
        ExitCode::from(2)
    }

    /// Says what failed, and gives the exit code for it.
    #[must_use]
    pub fn failure(self, failure: &Failure) -> ExitCode {
        if self.json {
            let error = json!({"code": failure.code, "message": failure.message});
            eprintln!("{}", json!({ "error": error }));
        } else {
            eprintln!("error: {}", failure.message);
        }
        ExitCode::from(failure.exit)
    }

    /// Shows a result in one of its two forms; the other one is not made.
    pub fn show(self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        if self.json {
            println!("{}", json());
        } else {
            println!("{}", text());
        }
    }

    /// As [`Self::show`], for what scripts wait for: it leaves the process at once.
    pub fn announce(self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        self.show(json, text);
        // Whoever started us without reading along does not need the line.
        let _ = std::io::stdout().flush();
    }

    /// A configuration is good.
    pub fn checked(self, listen: &str, data: &Path) {
        self.show(
            || json!({"ok": true, "listen": listen, "data": data}),
            || {
                let data = data.display();
                format!("The configuration is good: listen on {listen}, data in {data}.")
            },
        );
    }

    /// Shows the server's own object, or its fields one below the other.
    ///
    /// # Errors
    /// When what the server said is not JSON.
    pub fn status(self, status: &str) -> Result<(), Failure> {
        let value: Value = serde_json::from_str(status).map_err(Failure::failed)?;
        if self.json {
            println!("{value}");
        } else {
            print_fields(&value, 0);
        }
        Ok(())
    }

    /// Sends log lines to standard error. With JSON as output they are JSON, whatever the
    /// configuration says.
    pub fn init_log(self, section: &LogSection) {
        let level = match section.level {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        };
        let builder = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let format = if self.json { LogFormat::Json } else { section.format };
        // A second subscriber in one process can only come from a test; the first one stays.
        let _ = match format {
            LogFormat::Text => builder.try_init(),
            LogFormat::Json => builder.json().try_init(),
        };
    }
}

fn print_fields(value: &Value, depth: usize) {
    let Some(fields) = value.as_object() else { return };
    for (name, value) in fields {
        let name = name.replace('_', " ");
        match value {
            Value::Object(_) => {
                println!("{:depth$}{name}", "");
                print_fields(value, depth.saturating_add(2));
            }
            Value::String(text) => println!("{:depth$}{name}: {text}", ""),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                println!("{:depth$}{name}: {value}", "");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_failure_names_its_causes_and_has_a_code() {
        let source = std::io::Error::other("the disk is gone");
        let failure = Failure::from(ConfigError::Read { path: "c.toml".into(), source });
        assert_eq!(failure.message, "cannot read c.toml: the disk is gone");
        assert_eq!((failure.code, failure.exit), ("config", 1));
        let failure = Failure::from(ControlError::NotRunning(PathBuf::from("d")));
        assert_eq!((failure.code, failure.exit), ("not_running", 3));
    }

    #[test]
    fn only_an_object_is_a_status() {
        assert!(Output::new(false).status("{}").is_ok());
        assert!(Output::new(true).status("not json").is_err());
    }
}
