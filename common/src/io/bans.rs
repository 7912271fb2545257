//! Networks from which nobody may connect: those of the configuration, and those that the operator
//! banned while the server ran, which are kept in a file of the data directory.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::control::{Answer, Refused, Request};
use super::private::{PrivateError, replace_private};

/// Name of the file in the data directory: one network a line.
const BANS_FILE: &str = "banned-networks.txt";

/// Networks that an operator can ban while the server runs. Whoever needs more has a firewall.
const MAX_BANS: usize = 10_000;

/// Who is banned. Clones share their lists.
#[derive(Clone, Debug, Default)]
pub struct Bans {
    lists: Arc<RwLock<Lists>>,
    file: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Lists {
    /// From the configuration.
    configured: Vec<IpNet>,
    /// By command, in order.
    added: Vec<IpNet>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BansError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A line is not a network.
    #[error("{}: `{line}` is not a network like 192.0.2.0/24; correct or remove that line", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// What stands there.
        line: String,
    },
}

impl Bans {
    /// The lists of the server with this data directory.
    ///
    /// # Errors
    /// [`BansError`]: a file that somebody edited wrongly must not let everybody in.
    pub fn open(data: &Path, configured: Vec<IpNet>) -> Result<Self, BansError> {
        let path = data.join(BANS_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(source) => return Err(BansError::Read { path, source }),
        };
        let mut added = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let network = parse(line);
            added.push(
                network
                    .ok_or_else(|| BansError::Line { path: path.clone(), line: line.to_owned() })?,
            );
        }
        let lists = Arc::new(RwLock::new(Lists { configured, added }));
        Ok(Self { lists, file: Some(path) })
    }

    /// Whether nobody may come from this address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let lists = self.read();
        lists.configured.iter().chain(&lists.added).any(|network| network.contains(&address))
    }

    /// Another list from the configuration.
    pub fn configure(&self, configured: Vec<IpNet>) {
        self.write().configured = configured;
    }

    /// The commands `ban` (with `network`), `unban` and `bans`.
    ///
    /// # Errors
    /// When the network is none, or the file cannot be written.
    pub fn carry_out(&self, request: &Request) -> Answer {
        match request.command.as_str() {
            "ban" => self.change(network_of(request)?, true),
            "unban" => self.change(network_of(request)?, false),
            _ => Ok(self.show()),
        }
    }

    fn show(&self) -> Value {
        let lists = self.read();
        json!({"configured": lists.configured, "added": lists.added})
    }

    /// First to the file, then into force: what is answered holds after a restart, too.
    fn change(&self, network: IpNet, banned: bool) -> Answer {
        let mut lists = self.write();
        let mut added = lists.added.clone();
        if banned {
            added.push(network);
        } else {
            added.retain(|other| *other != network);
            if lists.configured.contains(&network) {
                let text = format!("{network} is banned by the configuration: network.banned");
                return Err(Refused::new("refused", text));
            }
            if added.len() == lists.added.len() {
                return Err(Refused::new("refused", format!("{network} is not banned")));
            }
        }
        added.sort_unstable();
        added.dedup();
        if added.len() > MAX_BANS {
            return Err(Refused::new(
                "refused",
                format!("at most {MAX_BANS} networks; use a firewall"),
            ));
        }
        self.save(&added).map_err(|error| Refused::failed(&error))?;
        lists.added = added;
        drop(lists);
        tracing::info!(banned, "the list of banned networks was changed");
        Ok(self.show())
    }

    fn save(&self, added: &[IpNet]) -> Result<(), PrivateError> {
        let Some(path) = &self.file else { return Ok(()) };
        let text: String = added.iter().map(|network| format!("{network}\n")).collect();
        replace_private(path, text.as_bytes())
    }

    fn read(&self) -> RwLockReadGuard<'_, Lists> {
        self.lists.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Lists> {
        self.lists.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network, or an address as the network of one; without the bits that do not count.
pub(super) fn parse(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.ok().map(|network| network.trunc())
}

fn network_of(request: &Request) -> Result<IpNet, Refused> {
    let text: String = request.argument("network")?;
    parse(&text).ok_or_else(|| {
        Refused::new(
            "usage",
            format!("`{text}` is neither an address nor a network like 192.0.2.0/24"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str, network: &str) -> Request {
        Request::new(name).with("network", network)
    }

    #[test]
    fn bans_hold_over_a_restart() {
        let data = tempfile::tempdir().unwrap();
        let open = |configured: &[&str]| {
            let configured = configured.iter().map(|text| text.parse().unwrap()).collect();
            Bans::open(data.path(), configured)
        };
        let bans = open(&["2001:db8::/32"]).unwrap();
        bans.carry_out(&command("ban", "192.0.2.77/24")).unwrap();
        bans.carry_out(&command("ban", "198.51.100.1")).unwrap();
        bans.carry_out(&command("ban", "198.51.100.1/32")).unwrap();
        let bans = open(&["2001:db8::/32"]).unwrap();
        for (address, is_banned) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.3.1", false),
            ("198.51.100.1", true),
            ("198.51.100.2", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(bans.contains(address.parse().unwrap()), is_banned, "{address}");
        }
        let shown = bans.carry_out(&Request::new("bans")).unwrap();
        assert_eq!(shown["added"], json!(["192.0.2.0/24", "198.51.100.1/32"]));
        bans.carry_out(&command("unban", "192.0.2.0/24")).unwrap();
        assert!(!open(&[]).unwrap().contains("192.0.2.1".parse().unwrap()));
        bans.configure(Vec::new());
        assert!(!bans.contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn nonsense_is_refused_and_a_broken_file_lets_nobody_in() {
        let data = tempfile::tempdir().unwrap();
        let bans = Bans::open(data.path(), vec!["192.0.2.0/24".parse().unwrap()]).unwrap();
        for (name, network) in [
            ("ban", "everybody"),
            ("ban", "192.0.2.0/33"),
            ("unban", "198.51.100.0/24"),
            ("unban", "192.0.2.0/24"),
        ] {
            assert!(bans.carry_out(&command(name, network)).is_err(), "{name} {network}");
        }
        fs::write(data.path().join(BANS_FILE), "192.0.2.0/24\nnot this\n").unwrap();
        let error = Bans::open(data.path(), Vec::new()).unwrap_err().to_string();
        assert!(error.contains("`not this`"), "{error}");
    }
}
