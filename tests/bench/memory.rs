//! Resident memory: of an idle connection at the relay, and of an idle node. Both are processes of
//! their own, the programs as they are shipped; what is read is `VmRSS` in `/proc`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use sremp_common::text::decode_relay_link;

use super::figure::{Report, Target};
use super::relay::relay_client::{Client, person};
use super::{Effort, progress};

/// Rounds: each is a process.
const ROUNDS: usize = 3;
/// Time in which a process comes to rest.
const REST: Duration = Duration::from_millis(1000);

/// All clients have one address.
const LIMITS: &str = "[server]\nmax_connections_per_network = 10000\n\
    [network]\narrivals_per_minute = 1000000\n[rates]\nnew_mailboxes_per_hour = 0\n";

/// A program beside this one, killed when dropped.
pub(super) struct Process(Child);

impl Process {
    /// Starts it, and waits for the line that says that it is ready.
    pub(super) fn start(program: &str, arguments: &[&str]) -> (Self, serde_json::Value) {
        let mut child = Command::new(beside(program))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let process = Self(child);
        let line = lines.next().unwrap_or_else(|| panic!("{program} did not get ready")).unwrap();
        // Its standard output is read by nobody from now on, and nothing more comes there.
        (process, serde_json::from_str(&line).unwrap())
    }

    /// Resident bytes.
    pub(super) fn resident(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() * 1024.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(super) fn beside(program: &str) -> PathBuf {
    std::env::current_exe().unwrap().with_file_name(program)
}

pub fn measure(report: &mut Report, effort: Effort) {
    progress("memory of the relay");
    let (mut idle, mut subscribed) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        idle.push(connection_bytes(effort.connections, false) / 1024.0);
        subscribed.push(connection_bytes(effort.connections, true) / 1024.0);
    }
    let count = effort.connections;
    let name = format!("relay: memory of an idle connection ({count})");
    report.add(&name, "KiB", &idle, Some(Target::AtMost(8.0)));
    report.add("  the same with a mailbox that it reads", "KiB", &subscribed, None);
    progress("memory of a node");
    let node: Vec<f64> = (0..ROUNDS).map(|_| node_bytes() / 1024.0 / 1024.0).collect();
    report.add("node: memory when idle", "MiB", &node, Some(Target::AtMost(40.0)));
}

/// What a connection adds to the relay's memory.
fn connection_bytes(count: usize, with_mailbox: bool) -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("relay.toml");
    fs::write(&config, LIMITS).unwrap();
    let (process, ready) = Process::start(
        "sremp-relay",
        &[
            "--json",
            "run",
            "--listen",
            "127.0.0.1:0",
            "--data",
            text(&directory.path().join("data")),
            "--config",
            text(&config),
        ],
    );
    let address = ready["listening"].as_str().unwrap().parse().unwrap();
    let relay = decode_relay_link(ready["link"].as_str().unwrap()).unwrap().identity_key;
    thread::sleep(REST / 3);
    let before = process.resident();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _clients: Vec<Client> = runtime.block_on(async {
        let mut clients = Vec::with_capacity(count);
        for number in 1..=u64::try_from(count).unwrap() {
            let mut client =
                Client::dial(address, relay, person(number), false, number).await.unwrap();
            if with_mailbox {
                client.open_mailbox(number, 1 << 20).await.unwrap();
                client.batch().await.unwrap();
            }
            clients.push(client);
        }
        clients
    });
    thread::sleep(REST);
    (process.resident() - before) / count as f64
}

/// The memory of a node that does nothing.
fn node_bytes() -> f64 {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    let init = Command::new(beside("sremp"))
        .args(["--home", text(&home), "init", "--name", "idle", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(init.success(), "sremp init failed");
    let (process, _) = Process::start("sremp", &["--home", text(&home), "--json", "run"]);
    thread::sleep(REST);
    process.resident()
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
