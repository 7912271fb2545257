//! The command line. Exit codes: 0 done, 1 failed, 2 usage, 3 no server running.

mod output;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use sremp_common::io::output::{Failure, Output};
use sremp_common::io::settings;
use sremp_common::io::sources::environment;
use sremp_common::io::{Clock, control};

use crate::config::{Config, ConfigError, default_data_dir, load};
use crate::io::certificates::Certificates;
use crate::io::{dev_cert, run};

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
    /// Run the server in the foreground; SIGTERM drains, SIGHUP looks at the certificate's files.
    Run(Setup),
    /// Check the configuration, the certificate included, without running.
    Check(Setup),
    /// Make a private authority and a certificate by it: ca.pem, cert.pem, key.pem.
    DevCert {
        /// Where to write the three files; made if need be.
        dir: PathBuf,
        /// DNS names and IP addresses of the server.
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Show what the running server has registered.
    Status(Setup),
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
        Err(error) => return Output::usage(&error),
    };
    let output = Output::new(cli.json);
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
        Command::Status(setup) => {
            let status = control::ask(&setup.data_dir(&setup.load()?)?)?;
            output.status(&status)
        }
    }
}

fn serve(setup: &Setup, output: Output) -> Result<(), Failure> {
    let config = setup.load()?;
    let data = setup.data_dir(&config)?;
    output.init_log(&config.log);
    let ready = |listening: SocketAddr| {
        tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
        output::ready(output, listening);
    };
    run(&config, &data, ready).map_err(Failure::failed)
}

fn check(setup: &Setup, output: Output) -> Result<(), Failure> {
    let config = setup.load()?;
    let data = setup.data_dir(&config)?;
    let (cert, key) = config.certificate()?;
    Certificates::load(cert, key).map_err(Failure::failed)?;
    output.checked(&config.server.listen, &data);
    Ok(())
}

impl Setup {
    fn load(&self) -> Result<Config, ConfigError> {
        let mut config = load(self.config.as_deref(), environment())?;
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

    fn data_dir(&self, config: &Config) -> Result<PathBuf, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok();
        let chosen = config.server.data.clone();
        let found = chosen.or_else(|| default_data_dir(variable));
        Ok(found.ok_or(settings::ConfigError::NoDataDirectory)?)
    }
}
