//! The sockets of a server, opened in the right order: the operator's, monitoring's, and the one
//! where clients come in, through the gate, in person or by a load balancer.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::JoinSet;

use super::Clock;
use super::bans::{Bans, BansError};
use super::control;
use super::gate::{Gate, Slot};
use super::listen::{listen, pause_after};
use super::private::PrivateError;
use super::proxy::{is_trusted, read_header};
use super::settings::{ConfigError, MetricsSection, NetworkSection};
use crate::neighbourhood::blurred;

/// Connections of load balancers that have not said for whom they are; more wait.
const MAX_UNNAMED: usize = 1_024;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A value of the configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error("the data directory cannot be used")]
    DataDirectory(#[from] PrivateError),
    /// The list of banned networks cannot be used.
    #[error(transparent)]
    Bans(#[from] BansError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// As configured.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The system refuses a thread, a signal handler, a socket or randomness.
    #[error("the system refuses {what}")]
    System {
        /// What was refused.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StartError {
    /// The system refuses something.
    pub fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// What the doors are made of.
#[derive(Debug)]
pub struct Plan<'c> {
    /// The data directory, which exists, and whose store this process has locked.
    pub data: &'c Path,
    /// HOST:PORT for clients.
    pub listen: &'c str,
    /// Connections at a time.
    pub max_connections: u32,
    /// Connections at a time from one network.
    pub max_connections_per_network: u32,
    /// `[network]`
    pub network: &'c NetworkSection,
    /// `[metrics]`
    pub metrics: &'c MetricsSection,
}

/// All sockets of a server, and its gate.
#[derive(Debug)]
pub struct Doors {
    /// Where clients come in.
    pub front: FrontDoor,
    /// The operator's.
    pub control: UnixListener,
    /// Monitoring's, if it is on.
    pub monitoring: Option<TcpListener>,
    /// Counts clients, and lets them in.
    pub gate: Gate,
    /// Whom the gate turns away.
    pub bans: Bans,
}

/// Where clients come in.
#[derive(Debug)]
pub struct FrontDoor {
    listener: TcpListener,
    listening: SocketAddr,
    gate: Gate,
    trusted_proxies: Vec<IpNet>,
}

/// A client that the gate has let in.
#[derive(Debug)]
pub struct Visitor {
    /// Its connection.
    pub stream: TcpStream,
    /// Its address, which is not that of a load balancer.
    pub address: SocketAddr,
    /// Its place; to be kept until the connection has ended.
    pub slot: Slot,
}

impl Doors {
    /// Opens everything; clients may connect from now on, and wait.
    ///
    /// # Errors
    /// [`StartError`], naming the cause.
    pub async fn open(plan: &Plan<'_>, clock: Clock) -> Result<Self, StartError> {
        let Plan { data, network, max_connections, max_connections_per_network, .. } = *plan;
        let control = control::bind(data).map_err(StartError::system("the control socket"))?;
        let bans = Bans::open(data, network.banned.clone())?;
        let limits = network.gate(max_connections, max_connections_per_network);
        let gate = Gate::new(limits, bans.clone(), clock);
        let open = |address: String| async {
            let opened = listen(&address).await;
            opened.map_err(|source| StartError::Listen { address, source })
        };
        let monitoring = match plan.metrics.address()? {
            Some(address) => Some(open(address.to_string()).await?),
            None => None,
        };
        let listener = open(plan.listen.to_owned()).await?;
        let front = FrontDoor {
            listening: listener.local_addr().map_err(StartError::system("the listening socket"))?,
            listener,
            gate: gate.clone(),
            trusted_proxies: network.trusted_proxies.clone(),
        };
        Ok(Self { front, control, monitoring, gate, bans })
    }

    /// Where monitoring is, with the port that the system chose.
    #[must_use]
    pub fn monitoring_at(&self) -> Option<SocketAddr> {
        self.monitoring.as_ref().and_then(|listener| listener.local_addr().ok())
    }
}

impl FrontDoor {
    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub const fn listening(&self) -> SocketAddr {
        self.listening
    }

    /// Lets clients in, each into a task that `serve` makes, until `until` is done; then the door is
    /// closed.
    pub async fn attend<T, F>(
        self,
        connections: &mut JoinSet<()>,
        mut serve: impl FnMut(Visitor) -> F,
        until: impl Future<Output = T>,
    ) -> T
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut unnamed = JoinSet::new();
        tokio::pin!(until);
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if unnamed.len() < MAX_UNNAMED => match accepted {
                    Ok((stream, address)) if is_trusted(&self.trusted_proxies, address.ip()) => {
                        unnamed.spawn(named(stream, self.gate.clone()));
                    }
                    Ok((stream, address)) => {
                        if let Some(visitor) = admitted(stream, address, &self.gate) {
                            connections.spawn(serve(visitor));
                        }
                    }
                    Err(error) => pause_after(error).await,
                },
                Some(visitor) = unnamed.join_next() => {
                    if let Ok(Some(visitor)) = visitor {
                        connections.spawn(serve(visitor));
                    }
                }
                Some(_) = connections.join_next() => {}
                done = &mut until => return done,
            }
        }
    }
}

/// Waits until a load balancer has said for whom it connects.
async fn named(mut stream: TcpStream, gate: Gate) -> Option<Visitor> {
    match read_header(&mut stream).await {
        Ok(Some(address)) => admitted(stream, address, &gate),
        // A health check: that we took the connection is the answer.
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%error, "a connection of a trusted proxy is refused");
            None
        }
    }
}

fn admitted(stream: TcpStream, address: SocketAddr, gate: &Gate) -> Option<Visitor> {
    match gate.enter(address) {
        Ok(slot) => Some(Visitor { stream, address, slot }),
        Err(reason) => {
            tracing::debug!(network = blurred(address.ip()), ?reason, "turned away");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;

    async fn open(network: NetworkSection, data: &Path) -> Result<Doors, StartError> {
        let plan = Plan {
            data,
            listen: "127.0.0.1:0",
            max_connections: 10,
            max_connections_per_network: 10,
            network: &network,
            metrics: &MetricsSection::default(),
        };
        Doors::open(&plan, Clock::start()).await
    }

    /// Tells every client its address, and waits for it to go.
    async fn greet(mut visitor: Visitor) {
        let greeting = format!("{}\n", visitor.address);
        visitor.stream.write_all(greeting.as_bytes()).await.unwrap();
        let _ = visitor.stream.read_u8().await;
        drop(visitor.slot);
    }

    async fn greeting(address: SocketAddr, says: &[u8]) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(says).await.unwrap();
        let mut line = String::new();
        while !line.ends_with('\n') {
            match stream.read_u8().await {
                Ok(byte) => line.push(char::from(byte)),
                Err(_) => break,
            }
        }
        (stream, line)
    }

    async fn with_doors(network: NetworkSection, test: impl AsyncFnOnce(SocketAddr, Gate)) {
        let directory = tempfile::tempdir().unwrap();
        let doors = open(network, directory.path()).await.unwrap();
        let (address, gate) = (doors.front.listening(), doors.gate.clone());
        let mut connections = JoinSet::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let attending = doors.front.attend(&mut connections, greet, stopped);
        let testing = async {
            test(address, gate).await;
            stop.send(()).unwrap();
        };
        let (ended, ()) = tokio::join!(attending, testing);
        ended.unwrap();
        // The door is closed.
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn clients_come_in_through_the_gate() {
        let banned = vec!["192.0.2.0/24".parse().unwrap()];
        with_doors(
            NetworkSection { banned, ..NetworkSection::default() },
            async |address, gate| {
                let (_stream, line) = greeting(address, b"").await;
                assert!(line.starts_with("127.0.0.1:"), "{line}");
                // A stranger's claim is no header.
                let (_stream, line) =
                    greeting(address, b"PROXY TCP4 192.0.2.1 10.0.0.1 5 80\r\n").await;
                assert!(line.starts_with("127.0.0.1:"), "{line}");
                assert_eq!(gate.counts().accepted, 2);
            },
        )
        .await;
    }

    #[tokio::test]
    async fn a_trusted_proxy_says_who_it_is_and_the_gate_judges_that() {
        let network = NetworkSection {
            trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
            banned: vec!["192.0.2.0/24".parse().unwrap()],
            ..NetworkSection::default()
        };
        with_doors(network, async |address, gate| {
            let says = b"PROXY TCP4 198.51.100.1 10.0.0.1 5 80\r\n";
            assert_eq!(greeting(address, says).await.1, "198.51.100.1:5\n");
            // Banned; not the protocol; a health check.
            for says in [
                &b"PROXY TCP4 192.0.2.1 10.0.0.1 5 80\r\n"[..],
                b"SREMP\x01\x00 and more than enough of it",
                b"PROXY UNKNOWN\r\n",
            ] {
                assert_eq!(greeting(address, says).await.1, "");
            }
            assert_eq!((gate.counts().accepted, gate.counts().refused.banned), (1, 1));
        })
        .await;
    }

    #[tokio::test]
    async fn a_broken_list_of_bans_keeps_the_door_shut() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("banned-networks.txt"), "all\n").unwrap();
        let refused = open(NetworkSection::default(), directory.path()).await.unwrap_err();
        assert!(matches!(refused, StartError::Bans(_)), "{refused}");
    }
}
