//! The command line. Exit codes: 0 done, 1 failed, 2 usage, 3 no server running.

mod output;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sremp_common::io::Clock;
use sremp_common::io::commands::OperatorCommand;
use sremp_common::io::invitations::{self, InviteCommand};
use sremp_common::io::output::{Failure, Output};
use sremp_common::io::sources::{Sourced as _, data_dir, environment, read};

use crate::config::{Config, ConfigError};
use crate::io::certificates::Certificates;
use crate::io::{Ready, dev_cert, run};

/// Name of the program.
const PROGRAM: &str = "sremp-rendezvous";

/// A registry over TLS 1.3: who is online, and where. It holds no secret and no message.
#[derive(Debug, Parser)]
#[command(name = "sremp-rendezvous", version, arg_required_else_help = true)]
struct Cli {
    /// Print JSON, on standard output and for errors.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server in the foreground; SIGTERM drains, SIGHUP reads the configuration again.
    Run(Setup),
    /// Check the configuration, the certificate included, without running; say what is risky.
    Check(Setup),
    /// Make a private authority and a certificate by it: ca.pem, cert.pem, key.pem.
    DevCert {
        /// Where to write the three files; made if need be.
        dir: PathBuf,
        /// DNS names and IP addresses of the server.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Make, show or take back invitations, for `access.mode = "invite"`.
    #[command(subcommand)]
    Invite(InviteCommand),
    #[command(flatten)]
    Operator(OperatorCommand),
}

/// Where the configuration comes from: flag over environment over file over default.
#[derive(Debug, Args)]
struct Setup {
    /// A TOML file; deploy/rendezvous.toml is an annotated example.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Certificate chain, PEM.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Private key, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
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
        Command::Run(setup) => serve(&setup, output),
        Command::Check(setup) => check(&setup, output),
        Command::DevCert { dir, names } => {
            let now = Clock::start().now().wall;
            let written = dev_cert::write(&dir, &names, now).map_err(Failure::failed)?;
            output::dev_cert(output, &written);
            Ok(())
        }
        Command::Invite(command) => {
            invitations::show(output, &command.carry_out::<Config>()?, "invite");
            Ok(())
        }
        Command::Operator(command) => {
            output.answer(&command.carry_out::<Config>()?);
            Ok(())
        }
    }
}

fn serve(setup: &Setup, output: Output) -> Result<(), Failure> {
    let config = setup.load()?;
    let data = data_dir(&config)?;
    let log = output.init_log(&config.log);
    let ready = |ready: Ready| {
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
        output::ready(output, ready);
    };
    Ok(run(&config, &data, ready, || setup.load(), &log)?)
}

fn check(setup: &Setup, output: Output) -> Result<(), Failure> {
    let config = setup.load()?;
    let data = data_dir(&config)?;
    let (cert, key) = config.certificate()?;
    Certificates::load(cert, key).map_err(|error| Failure::config(&error))?;
    output.checked(&config.server.listen, &data, &config.risks());
    Ok(())
}

impl Setup {
    fn load(&self) -> Result<Config, ConfigError> {
        let mut config: Config = read(self.config.as_deref(), environment())?;
        if let Some(listen) = &self.listen {
            config.server.listen.clone_from(listen);
        }
        for (flag, key) in [
            (&self.data, &mut config.server.data),
            (&self.cert, &mut config.tls.cert),
            (&self.key, &mut config.tls.key),
        ] {
            if flag.is_some() {
                key.clone_from(flag);
            }
        }
        config.check()?;
        Ok(config)
    }
}
