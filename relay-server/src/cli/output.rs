//! What the program prints: text for people or JSON on standard output, problems on standard
//! error. The only place that writes to either.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the place")]

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};
use sremp_common::io::control::ControlError;
use sremp_common::io::settings::{LogFormat, LogLevel, LogSection};
use tracing_subscriber::filter::LevelFilter;

use super::log_format;
use crate::config::{Config, ConfigError};
use crate::io::{Ready, ServeError};

/// Text or JSON.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    json: bool,
}

/// Why a command did not do what it should.
#[derive(Debug)]
pub(super) struct Failure {
    code: &'static str,
    exit: u8,
    /// The error and its causes.
    message: String,
}

impl Failure {
    fn new(code: &'static str, exit: u8, error: &dyn Error) -> Self {
        Self { code, exit, message: with_causes(error) }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new("config", 1, &error)
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let code = match &error {
            ServeError::Config(_) => "config",
            ServeError::NoRelay(_) | ServeError::NoEndpoint => "no_link",
            ServeError::DataDirectory(_)
            | ServeError::Key(_)
            | ServeError::Store { .. }
            | ServeError::Listen { .. }
            | ServeError::System { .. } => "failed",
        };
        Self::new(code, 1, &error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::NotRunning(_) => Self::new("not_running", 3, &error),
            ControlError::Io { .. } => Self::new("failed", 1, &error),
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
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    pub(super) const fn is_json(self) -> bool {
        self.json
    }

    /// Arguments that cannot be understood, or a request for help.
    pub(super) fn usage(error: &clap::Error) -> ExitCode {
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

    pub(super) fn failure(self, failure: &Failure) -> ExitCode {
        if self.json {
            let error = json!({"code": failure.code, "message": failure.message});
            eprintln!("{}", json!({ "error": error }));
        } else {
            eprintln!("error: {}", failure.message);
        }
        ExitCode::from(failure.exit)
    }

    /// What scripts wait for.
    pub(super) fn ready(self, ready: &Ready) {
        let Ready { listening, id, link } = ready;
        if self.json {
            let id = id.to_string();
            let ready = json!({"event": "ready", "listening": listening, "link": link, "id": id});
            println!("{ready}");
        } else {
            println!("sremp-relay ready: listening on {listening}");
            match link {
                Some(link) => println!("{link}"),
                None => println!("No link yet: give --advertise HOST:PORT."),
            }
        }
        // Whoever started us without reading along does not need the line.
        let _ = std::io::stdout().flush();
    }

    pub(super) fn checked(self, config: &Config, data: &Path) {
        let listen = &config.server.listen;
        if self.json {
            println!("{}", json!({"ok": true, "listen": listen, "data": data}));
        } else {
            println!("The configuration is good: listen on {listen}, data in {}.", data.display());
        }
    }

    pub(super) fn link(self, link: &str) {
        if self.json {
            println!("{}", json!({ "link": link }));
        } else {
            println!("{link}");
        }
    }

    /// Shows the relay's own object, or its fields one below the other.
    pub(super) fn status(self, status: &str) -> Result<(), Failure> {
        let value: Value =
            serde_json::from_str(status).map_err(|error| Failure::new("failed", 1, &error))?;
        if self.json {
            println!("{value}");
        } else {
            print_fields(&value, 0);
        }
        Ok(())
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

/// Sends log lines to standard error.
pub(super) fn init_log(section: &LogSection, output: Output) {
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
    // A second subscriber in one process can only come from a test; the first one stays.
    let _ = match log_format(section.format, output) {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
