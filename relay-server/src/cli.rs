//! The command line. Exit codes: 0 done, 1 failed, 2 usage, 3 no relay running.

mod output;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sremp_common::io::commands::OperatorCommand;
use sremp_common::io::output::{Failure, Output};
use sremp_common::io::sources::environment;

use crate::config::{Config, ConfigError, default_data_dir, load};
use crate::io::{Ready, link, run};

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
    /// Run the relay in the foreground; SIGTERM drains, SIGHUP loads quotas anew.
    Run(Setup),
    /// Check the configuration without running.
    Check(Setup),
    /// Show the link that people give to `sremp relay add`; works while the relay does not run.
    Link(Setup),
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
        Err(error) => return Output::usage("sremp-relay", &error),
    };
    let output = Output::new("sremp-relay", cli.json);
    match carry_out(cli.command, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => output.failure(&failure),
    }
}

fn carry_out(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Run(setup) => {
            let config = setup.load()?;
            let data = setup.data_dir(&config)?;
            output.init_log(&config.log);
            let ready = |ready: &Ready| {
                tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
                output::ready(output, ready);
            };
            run(&config, &data, ready, || setup.load())?;
        }
        Command::Check(setup) => {
            let config = setup.load()?;
            output.checked(&config.server.listen, &setup.data_dir(&config)?, &[]);
        }
        Command::Link(setup) => {
            let config = setup.load()?;
            output::link(output, &link(&config, &setup.data_dir(&config)?)?);
        }
        Command::Operator(command) => output.answer(&command.carry_out::<Config>()?),
    }
    Ok(())
}

impl Setup {
    fn load(&self) -> Result<Config, ConfigError> {
        let mut config = load(self.config.as_deref(), environment())?;
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

    fn data_dir(&self, config: &Config) -> Result<PathBuf, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok();
        let chosen = config.server.data.clone();
        chosen.or_else(|| default_data_dir(variable)).ok_or(ConfigError::NoDataDirectory)
    }
}
