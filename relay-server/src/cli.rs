//! The command line. Exit codes: 0 done, 1 failed, 2 usage, 3 no relay running, 5 refused.

mod operator;
mod output;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sremp_common::io::commands::OperatorCommand;
use sremp_common::io::invitations::{self, InviteCommand};
use sremp_common::io::output::{Failure, Output};
use sremp_common::io::sources::{data_dir, environment, read};

use self::operator::MailboxCommand;
use crate::config::{Config, ConfigError};
use crate::io::{Ready, link, run};

/// Name of the program.
const PROGRAM: &str = "sremp-relay";

/// Mailboxes over Noise: stores and forwards sealed messages, and can read none of them.
#[derive(Debug, Parser)]
#[command(name = "sremp-relay", version, arg_required_else_help = true)]
struct Cli {
    /// Print JSON, on standard output and for errors.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay in the foreground; SIGTERM drains, SIGHUP reads the configuration again.
    Run(Setup),
    /// Check the configuration without running; say what is risky.
    Check(Setup),
    /// Show the link that people give to `sremp relay add`; works while the relay does not run.
    Link(Setup),
    /// Make, show and take back invitations: links that open a mailbox here.
    #[command(subcommand)]
    Invite(InviteCommand),
    /// Show or drop a mailbox, and ban people by their id.
    #[command(subcommand)]
    Mailbox(MailboxCommand),
    #[command(flatten)]
    Operator(OperatorCommand),
}

/// Where the configuration comes from: flag over environment over file over default.
#[derive(Debug, Args)]
struct Setup {
    /// A TOML file; deploy/relay.toml is an annotated example.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Where clients reach the relay; may be given several times.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Vec<String>,
}

/// Parses the arguments, does what they say, and tells how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return Output::usage(PROGRAM, &error),
    };
    let output = Output::new(PROGRAM, cli.json);
    match carry_out(cli.command, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

fn carry_out(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Run(setup) => {
            let config = setup.load()?;
            let data = data_dir(&config)?;
            let log = output.init_log(&config.log);
            let ready = |ready: &Ready| {
                tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
                output::ready(output, ready);
            };
            run(&config, &data, ready, || setup.load(), &log)?;
        }
        Command::Check(setup) => {
            let config = setup.load()?;
            output.checked(&config.server.listen, &data_dir(&config)?, &config.risks());
        }
        Command::Link(setup) => {
            let config = setup.load()?;
            output::link(output, &link(&config, &data_dir(&config)?)?);
        }
        Command::Invite(command) => {
            invitations::show(output, &command.carry_out::<Config>()?, "link")
        }
        Command::Mailbox(command) => output.answer(&command.carry_out()?),
        Command::Operator(command) => output.answer(&command.carry_out::<Config>()?),
    }
    Ok(())
}

impl Setup {
    fn load(&self) -> Result<Config, ConfigError> {
        let mut config: Config = read(self.config.as_deref(), environment())?;
        if let Some(listen) = &self.listen {
            config.server.listen.clone_from(listen);
        }
        if let Some(data) = &self.data {
            config.server.data = Some(data.clone());
        }
        if !self.advertise.is_empty() {
            config.server.advertise.clone_from(&self.advertise);
        }
        config.check()?;
        Ok(config)
    }
}
