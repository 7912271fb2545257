//! What a server program prints: text for people or JSON on standard output, problems and the log
//! on standard error. The only place of the servers that writes to either.
//!
//! Whoever started the program may have closed them, or their disk may be full. That is no reason for
//! a server to end, so a line that cannot be written is lost.

use std::error::Error;
use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt, reload};

use super::commands::CommandError;
use super::control::ControlError;
use super::doors::StartError;
use super::settings::{ConfigError, LogFormat, LogLevel, LogSection};

/// Text or JSON.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    program: &'static str,
    json: bool,
}

/// A way to change what is logged while the program runs.
#[derive(Clone, Debug)]
pub struct LogFilter(reload::Handle<LevelFilter, Registry>);

impl LogFilter {
    /// Logs at this level from now on.
    pub fn set(&self, level: LogLevel) {
        // Fails only when there is no log any more.
        let _ = self.0.reload(filter_of(level));
    }
}

const fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
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

    /// A configuration that cannot be used: as wrong as wrong arguments, the process ends with 2.
    #[must_use]
    pub fn config(error: &dyn Error) -> Self {
        Self { exit: 2, ..Self::new("config", error) }
    }

    /// A failure without a code of its own.
    pub fn failed(error: impl Error) -> Self {
        Self::new("failed", &error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::config(&error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::NotRunning(_) => Self { exit: 3, ..Self::new("not_running", &error) },
            ControlError::Refused(_) => Self { exit: 5, ..Self::new("refused", &error) },
            ControlError::Io { .. } => Self::failed(error),
        }
    }
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Config(error) => error.into(),
            CommandError::Control(error) => error.into(),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Config(error) => error.into(),
            error @ (StartError::DataDirectory(_)
            | StartError::Bans(_)
            | StartError::Listen { .. }
            | StartError::System { .. }) => Self::failed(error),
        }
    }
}

/// One line: what happened, and because of what.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Output {
    /// JSON, or text for people, of the program with this name.
    #[must_use]
    pub const fn new(program: &'static str, json: bool) -> Self {
        Self { program, json }
    }

    /// Arguments that cannot be understood, or a request for help.
    #[must_use]
    pub fn usage(program: &'static str, error: &clap::Error) -> ExitCode {
        if !error.use_stderr() {
            // Help and version: standard output.
            say(error.render().to_string().trim_end());
            return ExitCode::SUCCESS;
        }
        if std::env::args_os().any(|argument| argument == "--json") {
            let text = error.render().to_string();
            complain(json!({"error": {"code": "usage", "message": text.trim()}}));
        } else {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
            complain(format_args!("{program}: {text}"));
        }
        ExitCode::from(2)
    }

    /// Says what failed, and gives the exit code for it.
    #[must_use]
    pub fn failure(self, failure: &Failure) -> ExitCode {
        if self.json {
            let error = json!({"code": failure.code, "message": failure.message});
            complain(json!({ "error": error }));
        } else {
            complain(format_args!("{}: {}", self.program, failure.message));
        }
        ExitCode::from(failure.exit)
    }

    /// Shows a result in one of its two forms; the other one is not made.
    pub fn show(self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        if self.json {
            say(json());
        } else {
            say(text());
        }
    }

    /// As [`Self::show`], for what scripts wait for: it leaves the process at once.
    pub fn announce(self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        self.show(json, text);
        // Whoever started us without reading along does not need the line.
        let _ = std::io::stdout().flush();
    }

    /// A configuration is good, and this is what its operator should think about all the same.
    pub fn checked(self, listen: &str, data: &Path, risks: &[String]) {
        self.show(
            || json!({"ok": true, "listen": listen, "data": data, "risks": risks}),
            || {
                let data = data.display();
                let good =
                    format!("The configuration is good: listen on {listen}, data in {data}.");
                risks.iter().fold(good, |text, risk| format!("{text}\nTo think about: {risk}."))
            },
        );
    }

    /// Shows what the running server answered: as it stands, or its fields one below the other.
    pub fn answer(self, value: &Value) {
        if self.json {
            say(value);
        } else {
            print_value(value, 0);
        }
    }

    /// Sends log lines to standard error. With JSON as output they are JSON, whatever the
    /// configuration says.
    pub fn init_log(self, section: &LogSection) -> LogFilter {
        let (filter, handle) = reload::Layer::new(filter_of(section.level));
        let registry = tracing_subscriber::registry().with(filter);
        // A line that cannot be written must not be complained about on standard error, where the
        // complaint cannot be written either, and would end the thread that wrote the line.
        let lines = fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .log_internal_errors(false);
        let format = if self.json { LogFormat::Json } else { section.format };
        // A second subscriber in one process can only come from a test; the first one stays.
        let _ = match format {
            LogFormat::Text => registry.with(lines).try_init(),
            LogFormat::Json => registry.with(lines.json()).try_init(),
        };
        LogFilter(handle)
    }
}

/// A line on standard output.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line on standard error.
fn complain(line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Fields with their values; what is in them is indented; a list has one item a line.
fn print_value(value: &Value, depth: usize) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = name.replace('_', " ");
                if value.is_object() || value.as_array().is_some_and(|items| !items.is_empty()) {
                    say(format_args!("{:depth$}{name}", ""));
                    print_value(value, depth.saturating_add(2));
                } else {
                    say(format_args!("{:depth$}{name}: {}", "", plain(value)));
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                match item.as_object() {
                    Some(fields) => {
                        let fields = fields.iter();
                        let line: Vec<String> = fields
                            .map(|(name, value)| format!("{name}={}", plain(value)))
                            .collect();
                        say(format_args!("{:depth$}{}", "", line.join(" ")));
                    }
                    None => say(format_args!("{:depth$}{}", "", plain(item))),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            say(format_args!("{:depth$}{}", "", plain(value)));
        }
    }
}

fn plain(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
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
        assert_eq!((failure.code, failure.exit), ("config", 2));
        let failure = Failure::from(ControlError::NotRunning(PathBuf::from("d")));
        assert_eq!((failure.code, failure.exit), ("not_running", 3));
    }
}
