//! Does what was typed, and decides where its outcome is printed and with which exit code.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;
use sremp_common::limit::{MAX_PICTURE, MAX_TEXT};

use super::client::Client;
use super::plan::{Plan, Show, plan};
use super::{CommandLine, print, safe};
use crate::api::route::Request;
use crate::api::{
    ApiError, Command, ErrorBody, ErrorKind, InitOptions, InitReply, MessageState, MessageView,
    SentView, json,
};
use crate::config::{Config, Home};

/// What needs the shell: handed in by the program's entry, so that the command line does not
/// depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Shell {
    /// Makes a home.
    pub init: fn(&Home, &InitOptions) -> Result<InitReply, ApiError>,
    /// Is the node.
    pub run: fn(&Home, &Config, bool) -> Result<(), ApiError>,
    /// Validates the data directory.
    pub check: fn(&Home) -> Result<(), ApiError>,
}

/// Reads the command line, does it, and answers with the exit code.
#[must_use]
pub fn main(shell: Shell) -> ExitCode {
    let wants_json = std::env::args_os().any(|argument| argument == "--json");
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => return refused_arguments(&error, wants_json),
    };
    let json = line.json;
    match act(line, shell) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Error(error)) => {
            print_error(&error, json);
            ExitCode::from(error.code.exit_code())
        }
        Err(Stop::TimedOut) => ExitCode::from(ErrorKind::TimedOut.exit_code()),
    }
}

/// Why a command ends early.
enum Stop {
    Error(ApiError),
    /// The message is on its way still; it has been printed.
    TimedOut,
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

fn act(line: CommandLine, shell: Shell) -> Result<(), Stop> {
    let home = home(line.home)?;
    let here = std::env::current_dir().unwrap_or_default();
    let json = line.json;
    match plan(line.action, &here) {
        Plan::Init(options) => {
            let reply = (shell.init)(&home, &options)?;
            show(json, &reply, || print::init(&reply, &home))?;
        }
        Plan::Run => {
            let config = Config::load(&home).map_err(ApiError::from)?;
            log(&config);
            (shell.run)(&home, &config, json)?;
        }
        Plan::Check => {
            Config::load(&home).map_err(ApiError::from)?;
            (shell.check)(&home)?;
            let path = home.path().display().to_string();
            show(json, &serde_json::json!({ "home": path, "ok": true }), || {
                format!("{path}: configuration and data directory are in order")
            })?;
        }
        Plan::Ask { command, show: how } => ask(&home, json, command, how)?,
        Plan::Picture { file } => {
            let bytes = read_picture(&file)?;
            ask(&home, json, Command::IdentityPicture { bytes }, Show::default())?;
        }
        Plan::Send { to, text, reply_to, wait, timeout } => {
            let text = text.map_or_else(read_text, Ok)?;
            let command = Command::Send { to, text, reply_to };
            send(&home, json, command, wait.map(MessageState::from), timeout)?;
        }
        Plan::Watch { after } => watch(&home, after)?,
        Plan::Chat { .. } => return Err(not_yet("the terminal interface").into()),
        Plan::Export { .. } | Plan::Import { .. } => {
            return Err(not_yet("export and import of identities").into());
        }
    }
    Ok(())
}

fn not_yet(what: &str) -> ApiError {
    ApiError::failed(format!("{what} is not part of this version yet"))
}

fn home(given: Option<PathBuf>) -> Result<Home, ApiError> {
    given
        .or_else(Home::default_path)
        .map(Home::new)
        .ok_or_else(|| ApiError::usage("this system has no data directory; say --home DIR"))
}

fn ask(home: &Home, json: bool, command: Command, how: Show) -> Result<(), ApiError> {
    let runtime = runtime()?;
    let request = Request::Command(command.clone());
    let answer = runtime.block_on(async {
        Client::connect(home.path(), &home.socket()).await?.ask(&request).await
    })?;
    if json {
        return write_out(&answer);
    }
    write_out(safe::block(&print::answer(&command, &answer, how)?).as_bytes())
}

fn send(
    home: &Home,
    json: bool,
    command: Command,
    wait: Option<MessageState>,
    timeout: u32,
) -> Result<(), Stop> {
    let runtime = runtime()?;
    let (sent, error) = runtime.block_on(async {
        let mut client = Client::connect(home.path(), &home.socket()).await?;
        let answer = client.ask(&Request::Command(command)).await?;
        let sent: SentView = parse(&answer)?;
        let Some(state) = wait else { return Ok((sent, None)) };
        let id = sent.message_id.clone();
        let answer = client.ask(&Request::Wait { id, state, timeout }).await?;
        let view: MessageView = parse(&answer)?;
        Ok::<_, ApiError>((SentView { state: view.state, ..sent }, view.error))
    })?;
    show(json, &sent, || print::sent(&sent, wait))?;
    match wait {
        Some(_) if sent.state == MessageState::Failed => {
            let why = error.unwrap_or_else(|| "it will not arrive".to_owned());
            Err(Stop::Error(ApiError::failed(format!("the message failed: {why}"))))
        }
        Some(wanted) if !sent.state.has_reached(wanted) => Err(Stop::TimedOut),
        _ => Ok(()),
    }
}

fn watch(home: &Home, after: Option<u64>) -> Result<(), ApiError> {
    runtime()?.block_on(async {
        let mut client = Client::connect(home.path(), &home.socket()).await?;
        let mut out = std::io::stdout();
        client
            .follow(&Request::Watch { after }, |bytes| {
                out.write_all(bytes)?;
                out.flush()
            })
            .await
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, ApiError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ApiError::failed(format!("no runtime: {error}")))
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(answer: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(answer).map_err(|_| {
        ApiError::failed("the node answers in another version; use the same version of both")
    })
}

fn read_text() -> Result<String, ApiError> {
    let mut text = String::new();
    if std::io::stdin().is_terminal() {
        // Whoever types sees where the text goes, and how it ends.
        let _ = writeln!(std::io::stderr(), "type the message, end it with Ctrl-D");
    }
    let limit = u64::try_from(MAX_TEXT).unwrap_or(u64::MAX).saturating_add(1);
    std::io::stdin()
        .take(limit)
        .read_to_string(&mut text)
        .map_err(|_| ApiError::usage("the text on standard input is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.len() > MAX_TEXT {
        return Err(ApiError::usage(format!("a message has at most {MAX_TEXT} bytes")));
    }
    Ok(text.to_owned())
}

fn read_picture(file: &std::path::Path) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        ApiError::usage(format!("a picture has at most {MAX_PICTURE} bytes; make it smaller"))
    };
    let bytes = std::fs::read(file)
        .map_err(|error| ApiError::usage(format!("cannot read {}: {error}", file.display())))?;
    if bytes.len() > MAX_PICTURE { Err(too_large()) } else { Ok(bytes) }
}

fn show(
    as_json: bool,
    value: &impl serde::Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), ApiError> {
    let out = if as_json {
        json::to_string(value).map_err(|error| ApiError::failed(error.to_string()))?
    } else {
        safe::block(&text())
    };
    write_out(out.as_bytes())
}

/// Writes a text and a line feed. A closed pipe is no error of ours.
fn write_out(text: &[u8]) -> Result<(), ApiError> {
    let mut out = std::io::stdout().lock();
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let written = out.write_all(text).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(ApiError::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn print_error(error: &ApiError, as_json: bool) {
    let text = if as_json {
        json::to_string(&ErrorBody { error: error.clone() }).unwrap_or_default()
    } else {
        format!("sremp: {}", safe::block(&error.message))
    };
    // Where standard error is closed, the exit code still tells.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Help and version are no errors; everything else is a wrong use.
fn refused_arguments(error: &clap::Error, as_json: bool) -> ExitCode {
    if as_json && error.use_stderr() {
        let text = error.render().to_string();
        let text = text.trim_start_matches("error: ").trim_end();
        print_error(&ApiError::usage(text), true);
    } else {
        let _ = error.print();
    }
    let code = if error.use_stderr() { ErrorKind::Usage.exit_code() } else { 0 };
    ExitCode::from(code)
}

fn log(config: &Config) {
    use crate::config::{LogFormat, LogLevel};
    use tracing::level_filters::LevelFilter;
    let level = match config.log.level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr);
    // A second call would find a log already: then that one stays.
    let _ = match config.log.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}
