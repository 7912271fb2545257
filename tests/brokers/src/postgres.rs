//! PostgreSQL as a mailbox table: append, fetch, delete. Inserts are synced before they are
//! acknowledged; deletions are not, like our acknowledgements of readers.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls, Statement};

use crate::load::{Reader, Sender, System};
use crate::machine::{Server, directory, free_address, run, text};

/// Who runs the server, and owns the table.
const USER: &str = "postgres";
/// Where Debian has its programs.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// Between two looks of a reader who polls.
const POLL: Duration = Duration::from_millis(5);
/// After so long a reader who is told looks all the same.
const LOOK: Duration = Duration::from_secs(1);

const TABLE: &str = "DROP TABLE IF EXISTS mailbox;
    CREATE TABLE mailbox(id bigserial PRIMARY KEY, recipient int NOT NULL, body bytea NOT NULL);
    ALTER TABLE mailbox ALTER body SET STORAGE PLAIN;
    CREATE INDEX ON mailbox(recipient, id);
    CHECKPOINT";

/// How readers learn that something came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Poll,
    Listen,
}

/// Makes a database in a directory of its own.
pub fn create(parent: &Path) -> PathBuf {
    let data = directory(parent, "postgres", Some(USER));
    let arguments =
        ["-D", text(&data), "-U", USER, "--auth=trust", "--encoding=UTF8", "--no-locale"];
    run(&Path::new(PROGRAMS).join("initdb"), &arguments, Some(USER));
    // Everything else is as it is shipped: synced, 128 MiB of buffers.
    let settings = "max_connections = 300\nunix_socket_directories = ''\nlogging_collector = off\n";
    let file = data.join("postgresql.conf");
    fs::write(&file, fs::read_to_string(&file).unwrap() + settings).unwrap();
    data
}

pub fn start(data: &Path) -> (Server, SocketAddr) {
    let address = free_address();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let arguments = ["-D", text(data), "-h", &host, "-p", &port];
    // INT: do not wait for clients.
    let mut server =
        Server::start(&Path::new(PROGRAMS).join("postgres"), &arguments, Some(USER), "INT");
    server.wait_for(address);
    (server, address)
}

#[derive(Clone)]
pub struct Postgres {
    pub address: SocketAddr,
    pub mode: Mode,
}

impl Postgres {
    async fn connect(&self, told: Option<Arc<Notify>>) -> Client {
        let (host, port) = (self.address.ip(), self.address.port());
        let parameters = format!("host={host} port={port} user={USER} dbname=postgres");
        let mut tries = 0;
        let (client, mut connection) = loop {
            match tokio_postgres::connect(&parameters, NoTls).await {
                Ok(connected) => break connected,
                // It listens before it is ready.
                Err(error) => assert!(tries < 100, "{error}"),
            }
            tries += 1;
            sleep(Duration::from_millis(50)).await;
        };
        tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(_))) => {
                        told.iter().for_each(|told| told.notify_one());
                    }
                    Some(Ok(_)) => {}
                    _ => break,
                }
            }
        });
        client
    }
}

impl System for Postgres {
    type Sender = Inserting;
    type Reader = Selecting;

    async fn prepare(&self, _pairs: usize) {
        self.connect(None).await.batch_execute(TABLE).await.unwrap();
    }

    async fn sender(&self, pair: usize) -> Inserting {
        let client = self.connect(None).await;
        let insert = "INSERT INTO mailbox(recipient, body) VALUES($1, $2)";
        let insert = match self.mode {
            Mode::Poll => client.prepare(insert).await,
            Mode::Listen => {
                let text = format!(
                    "WITH stored AS ({insert} RETURNING 1) SELECT pg_notify('reader{pair}', '') FROM stored"
                );
                client.prepare(&text).await
            }
        };
        Inserting { client, insert: insert.unwrap(), recipient: i32::try_from(pair).unwrap() }
    }

    async fn reader(&self, pair: usize) -> Selecting {
        let told = Arc::new(Notify::new());
        let client = self.connect(Some(Arc::clone(&told))).await;
        client
            .batch_execute(
                "SET synchronous_commit = off; SET enable_seqscan = off;
                 SET plan_cache_mode = force_generic_plan",
            )
            .await
            .unwrap();
        if self.mode == Mode::Listen {
            client.batch_execute(&format!("LISTEN reader{pair}")).await.unwrap();
        }
        let select =
            "SELECT id, body FROM mailbox WHERE recipient = $1 AND id > $2 ORDER BY id LIMIT 128";
        let select = client.prepare(select).await.unwrap();
        let delete = client.prepare("DELETE FROM mailbox WHERE id = ANY($1)").await.unwrap();
        let recipient = i32::try_from(pair).unwrap();
        Selecting { client, select, delete, recipient, last: 0, told, mode: self.mode }
    }

    async fn left(&self, _pairs: usize) -> u64 {
        let client = self.connect(None).await;
        let count = client.query_one("SELECT count(*) FROM mailbox", &[]).await.unwrap();
        u64::try_from(count.get::<_, i64>(0)).unwrap()
    }
}

pub struct Inserting {
    client: Client,
    insert: Statement,
    recipient: i32,
}

impl Sender for Inserting {
    async fn send(&mut self, message: Vec<u8>) {
        self.client.execute(&self.insert, &[&self.recipient, &message]).await.unwrap();
    }
}

pub struct Selecting {
    client: Client,
    select: Statement,
    delete: Statement,
    recipient: i32,
    /// The last number that was read. One sender's numbers rise, so nothing comes before it.
    last: i64,
    told: Arc<Notify>,
    mode: Mode,
}

impl Reader for Selecting {
    async fn read(&mut self, mut got: impl FnMut(&[u8]) + Send) -> u64 {
        let rows = loop {
            let rows =
                self.client.query(&self.select, &[&self.recipient, &self.last]).await.unwrap();
            if !rows.is_empty() {
                break rows;
            }
            match self.mode {
                Mode::Poll => sleep(POLL).await,
                // Whether it was told or not, it looks.
                Mode::Listen => drop(timeout(LOOK, self.told.notified()).await),
            }
        };
        let mut read = Vec::with_capacity(rows.len());
        for row in &rows {
            got(row.get(1));
            read.push(row.get::<_, i64>(0));
        }
        self.last = read.last().copied().unwrap_or(self.last);
        let count = self.client.execute(&self.delete, &[&read]).await.unwrap();
        assert_eq!(count, read.len() as u64);
        count
    }
}
