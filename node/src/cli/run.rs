//! Does what was typed, and decides where its outcome is printed and with which exit code.
//!
//! Answers go to standard output, problems to standard error; `--json` changes the form of both
//! and nothing else. Streams are handed in, so that tests see what a person would.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;
use sremp_common::limit::{MAX_PICTURE, MAX_TEXT};

pub use super::log::LogFilter;
use super::plan::{Plan, Show, plan};
use super::print::parse;
use super::{CommandLine, log, print, safe};
use crate::api::route::Request;
use crate::api::{
    ApiError, Command, ErrorBody, ErrorKind, InitOptions, InitReply, MessageState, MessageView,
    SentView, json,
};
use crate::config::{Config, Home};
use crate::io::client::Client;

/// What is done without asking a running node.
#[derive(Clone, Copy, Debug)]
pub struct Shell {
    /// Makes a home.
    pub init: fn(&Home, &InitOptions) -> Result<InitReply, ApiError>,
    /// Is the node, until a signal; the last argument asks for JSON on standard output.
    pub run: fn(&Home, &Config, &LogFilter, bool) -> Result<(), ApiError>,
    /// Validates the data directory.
    pub check: fn(&Home) -> Result<Checked, ApiError>,
}

/// What was found in a data directory that is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Everything was looked at.
    All,
    /// A node uses it at this moment: its data file is open, so that only the rest was looked at.
    Running,
}

/// The three standard streams.
pub struct Streams<'a> {
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Whether somebody types there.
    pub input_is_terminal: bool,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
}

impl std::fmt::Debug for Streams<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Streams")
    }
}

/// Reads this process's command line, does it, and answers with the exit code.
#[must_use]
pub fn main(shell: Shell) -> ExitCode {
    use std::io::IsTerminal as _;
    let mut input = std::io::stdin();
    let streams = Streams {
        input_is_terminal: input.is_terminal(),
        input: &mut input,
        out: &mut std::io::stdout(),
        err: &mut std::io::stderr(),
    };
    ExitCode::from(execute(std::env::args_os(), shell, streams))
}

/// Does what `arguments` say (the first is the program's name), and gives the exit code.
pub fn execute(
    arguments: impl IntoIterator<Item = OsString>,
    shell: Shell,
    mut streams: Streams<'_>,
) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let line = match CommandLine::try_parse_from(&arguments) {
        Ok(line) => line,
        Err(error) => return refused_arguments(&error, wants_json(&arguments), &mut streams),
    };
    let json = line.json;
    match act(line, shell, &mut streams) {
        Ok(()) => 0,
        Err(error) => {
            print_error(&error, json, streams.err);
            error.code.exit_code()
        }
    }
}

/// Whether JSON is asked for on a command line that could not be read.
fn wants_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|word| *word != "--").any(|word| word == "--json")
}

fn act(line: CommandLine, shell: Shell, streams: &mut Streams<'_>) -> Result<(), ApiError> {
    let home = home(line.home)?;
    let json = line.json;
    // Only relative paths need it, and only when it is known.
    let here = std::env::current_dir().unwrap_or_default();
    match plan(line.action, &here) {
        Plan::Init(options) => {
            let reply = (shell.init)(&home, &options)?;
            let run = format!("sremp --home {} run", home.path().display());
            show(streams, json, &reply, || print::init(&reply, &run))
        }
        Plan::Run => {
            let config = Config::load(&home)?;
            let filter = log::start(config.log);
            (shell.run)(&home, &config, &filter, json)
        }
        Plan::Check => {
            Config::load(&home)?;
            let running = (shell.check)(&home)? == Checked::Running;
            let path = home.path().display().to_string();
            let found = serde_json::json!({ "home": path, "ok": true, "running": running });
            show(streams, json, &found, || {
                if running {
                    format!(
                        "{path}: the configuration is in order; the node is running and uses the data directory"
                    )
                } else {
                    format!("{path}: configuration and data directory are in order")
                }
            })
        }
        Plan::Ask { command, show } => ask(&home, json, command, show, streams),
        Plan::Picture { file } => {
            let bytes = read_picture(&file)?;
            ask(&home, json, Command::IdentityPicture { bytes }, Show::default(), streams)
        }
        Plan::Send { to, text, reply_to, wait, timeout } => {
            let text = text.map_or_else(|| read_text(streams), Ok)?;
            let command = Command::Send { to, text: checked(text)?, reply_to };
            let wait = wait.map(|state| Wait { state: state.into(), timeout });
            send(&home, json, command, wait, streams)
        }
        Plan::Edit { with, message, text } => {
            let text = checked(text.map_or_else(|| read_text(streams), Ok)?)?;
            ask(&home, json, Command::Edit { with, message, text }, Show::default(), streams)
        }
        Plan::Watch { after } => watch(&home, after, streams),
        Plan::Chat { .. } => Err(not_yet("the terminal user interface")),
        Plan::Export { .. } => Err(not_yet("the export of an identity")),
        Plan::Import { .. } => Err(not_yet("the import of an identity")),
    }
}

fn not_yet(what: &str) -> ApiError {
    ApiError::failed(format!("{what} is not part of this version"))
}

fn home(given: Option<PathBuf>) -> Result<Home, ApiError> {
    let path = given.filter(|path| !path.as_os_str().is_empty()).or_else(Home::default_path);
    path.map(Home::new)
        .ok_or_else(|| ApiError::usage("this system has no data directory; say --home DIR"))
}

fn ask(
    home: &Home,
    json: bool,
    command: Command,
    how: Show,
    streams: &mut Streams<'_>,
) -> Result<(), ApiError> {
    let answer = Client::connect(home)?.ask(&Request::Command(command.clone()))?;
    let text = if json { answer } else { print::answer(&command, &answer, how)? };
    write_out(streams, &text)
}

/// What `send` waits for, and how many seconds.
#[derive(Clone, Copy)]
struct Wait {
    state: MessageState,
    timeout: u32,
}

/// The message is shown whatever becomes of the wait: it is queued, and goes its way.
fn send(
    home: &Home,
    json: bool,
    command: Command,
    wait: Option<Wait>,
    streams: &mut Streams<'_>,
) -> Result<(), ApiError> {
    let mut client = Client::connect(home)?;
    let mut sent: SentView = parse(&client.ask(&Request::Command(command))?)?;
    let outcome = match wait {
        None => Ok(()),
        Some(wait) => wait_for(&mut client, &mut sent, wait),
    };
    show(streams, json, &sent, || print::sent(&sent))?;
    outcome
}

fn wait_for(client: &mut Client, sent: &mut SentView, wait: Wait) -> Result<(), ApiError> {
    let Wait { state: wanted, timeout } = wait;
    let id = sent.message_id.clone();
    let answer = client.ask(&Request::Wait { id, state: wanted, timeout })?;
    let view: MessageView = parse(&answer)?;
    sent.state = view.state;
    if view.state.has_reached(wanted) {
        return Ok(());
    }
    if view.state == MessageState::Failed {
        let why = view.error.unwrap_or_else(|| "it will not arrive".to_owned());
        return Err(ApiError::failed(format!("the message failed: {why}")));
    }
    if view.state >= view.final_state {
        return Err(ApiError::refused(format!(
            "the message is {}, and will never be known to be {wanted}: members of a group this large do not confirm",
            view.state
        )));
    }
    Err(ApiError::timed_out(print::waited_in_vain(sent, view.error.as_deref(), wanted, timeout)))
}

fn watch(home: &Home, after: Option<u64>, streams: &mut Streams<'_>) -> Result<(), ApiError> {
    let out = &mut *streams.out;
    // Nobody reads the other end of the pipe any more: that is how a watch ends well.
    let show = |line: &str| writeln!(out, "{line}").and_then(|()| out.flush()).is_ok();
    Client::connect(home)?.follow(&Request::Watch { after }, show)
}

/// The text on standard input, without its last line feed.
fn read_text(streams: &mut Streams<'_>) -> Result<String, ApiError> {
    if streams.input_is_terminal {
        // A hint for whoever types; it is no harm if it cannot be shown.
        let _ = writeln!(streams.err, "Type the message; end it with Ctrl-D on a line of its own.");
    }
    let mut bytes = Vec::new();
    // Two bytes more than allowed: a last line feed, and one to notice that it is too long.
    let limit = u64::try_from(MAX_TEXT).unwrap_or(u64::MAX).saturating_add(2);
    (&mut *streams.input)
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| ApiError::failed(format!("cannot read standard input: {error}")))?;
    let mut text = String::from_utf8(bytes)
        .map_err(|_| ApiError::usage("the text on standard input is not UTF-8, or too long"))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

fn checked(text: String) -> Result<String, ApiError> {
    match text.len() {
        0 => Err(ApiError::usage("the message is empty")),
        length if length > MAX_TEXT => {
            Err(ApiError::usage(format!("a message has at most {MAX_TEXT} bytes")))
        }
        _ => Ok(text),
    }
}

fn read_picture(file: &Path) -> Result<Vec<u8>, ApiError> {
    let shown = file.display();
    let limit = u64::try_from(MAX_PICTURE).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(limit).read_to_end(&mut bytes))
        .map_err(|error| ApiError::usage(format!("cannot read {shown}: {error}")))?;
    if bytes.len() > MAX_PICTURE {
        return Err(ApiError::usage(format!(
            "{shown} is too large: a picture has at most {MAX_PICTURE} bytes"
        )));
    }
    Ok(bytes)
}

fn show(
    streams: &mut Streams<'_>,
    as_json: bool,
    value: &impl serde::Serialize,
    text: impl FnOnce() -> String,
) -> Result<(), ApiError> {
    let text = if as_json {
        json::to_string(value).map_err(|error| ApiError::failed(error.to_string()))?
    } else {
        text()
    };
    write_out(streams, &text)
}

/// The one place where standard output is written to, but for the lines of `watch`. A closed pipe
/// is no failure: whoever closed it has seen enough.
fn write_out(streams: &mut Streams<'_>, text: &str) -> Result<(), ApiError> {
    let out = &mut *streams.out;
    match writeln!(out, "{}", safe::block(text)).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(ApiError::failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn print_error(error: &ApiError, as_json: bool, err: &mut dyn Write) {
    let text = if as_json {
        json::to_string(&ErrorBody { error: error.clone() }).unwrap_or_default()
    } else {
        format!("sremp: {}", safe::block(&error.message))
    };
    // Where standard error is closed, the exit code still tells.
    let _ = writeln!(err, "{text}");
}

/// Help and version are no errors; everything else is a wrong use.
fn refused_arguments(error: &clap::Error, as_json: bool, streams: &mut Streams<'_>) -> u8 {
    let text = error.render().to_string();
    if !error.use_stderr() {
        // As in `write_out`: a closed pipe is no failure.
        let _ = writeln!(streams.out, "{}", text.trim_end());
        return 0;
    }
    let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end();
    print_error(&ApiError::usage(message), as_json, streams.err);
    ErrorKind::Usage.exit_code()
}

#[cfg(test)]
mod tests;
