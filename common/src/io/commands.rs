//! The operator's part of a server's command line: what it can ask a running server for, the same
//! at every server. Each server adds commands of its own.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::Value;

use super::control::{self, ControlError, Request};
use super::settings::ConfigError;
use super::sources::{Sourced, data_dir, environment, read};

/// Which server is meant: the one with this data directory.
#[derive(Clone, Debug, Default, Args)]
pub struct Place {
    /// The server's TOML file, which names its data directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
}

/// What every running server can be asked for.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Show what the running server does and holds.
    Status(Place),
    /// Show who is connected.
    Connections {
        /// How many to show.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: u32,
        /// Which server.
        #[command(flatten)]
        place: Place,
    },
    /// Let nobody connect from a network, also after a restart; who is connected stays.
    Ban {
        /// An address, or a network like 192.0.2.0/24.
        network: IpOrNet,
        /// Which server.
        #[command(flatten)]
        place: Place,
    },
    /// Let them connect again.
    Unban {
        /// As it was banned.
        network: IpOrNet,
        /// Which server.
        #[command(flatten)]
        place: Place,
    },
    /// Show the banned networks.
    Bans(Place),
    /// Have the configuration and the certificate read again, as by SIGHUP, and show what came of it.
    Reload(Place),
    /// Say goodbye to all clients and end, as by SIGTERM.
    Drain(Place),
    /// Remove now what has expired.
    Expire(Place),
    /// Give space in the store's file back to the system; clients wait meanwhile.
    Compact(Place),
    /// Write a consistent copy of the store while the server runs.
    Backup {
        /// The new file; nothing is overwritten.
        file: PathBuf,
        /// Which server.
        #[command(flatten)]
        place: Place,
    },
}

/// An address or a network.
#[derive(Clone, Copy, Debug)]
pub struct IpOrNet(IpNet);

impl std::str::FromStr for IpOrNet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let wrong = |_| "neither an address nor a network like 192.0.2.0/24".to_owned();
        network.map(Self).map_err(wrong)
    }
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration does not say which server.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The server does not answer, or refuses.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Place {
    /// The data directory of a server with the configuration `C`. Values are not checked: a running
    /// server can be asked while its file is being edited.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn data_dir<C: Sourced>(&self) -> Result<PathBuf, ConfigError> {
        match &self.data {
            Some(data) => Ok(data.clone()),
            None => data_dir(&read::<C>(self.config.as_deref(), environment())?),
        }
    }

    /// Asks the server.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn ask<C: Sourced>(&self, request: &Request) -> Result<Value, CommandError> {
        Ok(control::ask(&self.data_dir::<C>()?, request)?)
    }
}

impl OperatorCommand {
    /// Has it carried out by the running server.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn carry_out<C: Sourced>(&self) -> Result<Value, CommandError> {
        let (place, request) = self.request();
        place.ask::<C>(&request)
    }

    fn request(&self) -> (&Place, Request) {
        let plain = |place, command| (place, Request::new(command));
        match self {
            Self::Status(place) => plain(place, "status"),
            Self::Connections { limit, place } => {
                (place, Request::new("connections").with("limit", *limit))
            }
            Self::Ban { network, place } => {
                (place, Request::new("ban").with("network", network.0.to_string()))
            }
            Self::Unban { network, place } => {
                (place, Request::new("unban").with("network", network.0.to_string()))
            }
            Self::Bans(place) => plain(place, "bans"),
            Self::Reload(place) => plain(place, "reload"),
            Self::Drain(place) => plain(place, "drain"),
            Self::Expire(place) => plain(place, "expire"),
            Self::Compact(place) => plain(place, "compact"),
            Self::Backup { file, place } => {
                // Meant from where the operator is, not from where the server is.
                let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
                (place, Request::new("backup").with("file", text_of(&file)))
            }
        }
    }
}

/// A path that is not text cannot go over the socket; the server refuses what comes of it.
fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(subcommand)]
        command: OperatorCommand,
    }

    fn parsed(arguments: &[&str]) -> Result<Request, clap::Error> {
        let all = std::iter::once("server").chain(arguments.iter().copied());
        Cli::try_parse_from(all).map(|cli| cli.command.request().1)
    }

    #[test]
    fn what_is_typed_becomes_a_request() {
        for (typed, command, arguments) in [
            (&["status", "--data", "/d"][..], "status", ""),
            (&["connections"], "connections", "limit=100"),
            (&["ban", "192.0.2.1"], "ban", "network=\"192.0.2.1/32\""),
            (&["unban", "2001:db8::/32"], "unban", "network=\"2001:db8::/32\""),
            (&["bans"], "bans", ""),
            (&["reload"], "reload", ""),
            (&["drain"], "drain", ""),
            (&["expire"], "expire", ""),
            (&["compact"], "compact", ""),
            (&["backup", "/b"], "backup", "file=\"/b\""),
        ] {
            let request = parsed(typed).unwrap();
            assert_eq!(request.command, command);
            let pairs = request.arguments.iter().map(|(name, value)| format!("{name}={value}"));
            assert_eq!(pairs.collect::<Vec<_>>().join(" "), arguments);
        }
        let relative = parsed(&["backup", "b"]).unwrap();
        assert!(relative.argument::<PathBuf>("file").unwrap().is_absolute());
        for wrong in
            [&["ban"][..], &["ban", "everybody"], &["backup"], &["connections", "--limit", "x"]]
        {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
