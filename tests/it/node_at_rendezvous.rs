//! The real node at the real rendezvous server: it is let in by an invitation, and it obeys.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::node_process::{Node, ask};
use crate::relay_program::{build, without_settings};

fn program() -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    without_settings(Command::new(BINARY.get_or_init(|| build("sremp-rendezvous"))))
}

/// A server, killed when the test ends.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(home: &Path, settings: &[(&str, &str)]) -> Self {
        let mut command = program();
        command.args(["--json", "run", "--listen", "127.0.0.1:0", "--data"]).arg(home.join("data"));
        command.arg("--cert").arg(home.join("cert.pem")).arg("--key").arg(home.join("key.pem"));
        for (key, value) in settings {
            command.env(format!("SREMP_RENDEZVOUS__{key}"), value);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
        Self { child, address: ready["listening"].as_str().unwrap().to_owned() }
    }

    /// What the operator is told.
    fn ask(home: &Path, arguments: &[&str]) -> Value {
        let mut command = program();
        command.arg("--json").args(arguments).arg("--data").arg(home.join("data"));
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks until the node's only server is as wanted: what a registration came to is told later.
fn wait_for(home: &Path, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let (code, listed) = ask(home, &["rendezvous", "list"]);
        assert_eq!(code, 0);
        let listed: Value = serde_json::from_str(&listed).unwrap();
        if wanted(&listed[0]) {
            return listed[0].clone();
        }
        assert!(!listed[0]["registered"].as_bool().unwrap(), "{listed}");
    }
}

#[test]
fn a_node_comes_in_by_an_invitation_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (home, there) = (directory.path().join("home"), directory.path().join("server"));
    let made = program().arg("dev-cert").arg(&there).arg("127.0.0.1").output().unwrap();
    assert!(made.status.success());
    let server = Server::start(&there, &[("ACCESS__MODE", "invite")]);
    let place = format!("{},ca={}", server.address, there.join("ca.pem").display());
    let init = ["init", "--name", "ann", "--listen", "127.0.0.1:0", "--rendezvous", &place];
    assert_eq!(ask(&home, &init).0, 0);
    let node = Node::start(&home);
    let refused = wait_for(&home, |server| server["error"].is_string());
    let error = refused["error"].as_str().unwrap();
    assert!(error.contains("wants an invitation"), "{error}");

    // It was told to come again in ten minutes, and does not come before, whatever happens here.
    for name in ["anna", "anne", "annie"] {
        assert_eq!(ask(&home, &["identity", "rename", name]).0, 0);
    }
    assert_ne!(ask(&home, &["peers"]).0, 0, "nor to search");
    let counters = || Server::ask(&there, &["status"])["registry"]["counters"].clone();
    assert_eq!((&counters()["not_admitted"], &counters()["list_pages"]), (&1.into(), &0.into()));

    let invited = |word: &str| format!("{place},invite={word}");
    let nonsense = invited("srempinvite1nonsense");
    assert_eq!(ask(&home, &["rendezvous", "add", &nonsense]).0, 2);
    let made = Server::ask(&there, &["invite", "new"]);
    let good = invited(made["invite"].as_str().unwrap());
    assert_eq!(ask(&home, &["rendezvous", "add", &good]).0, 0);
    wait_for(&home, |server| server["registered"] == true);
    let left = Server::ask(&there, &["invite", "list"]);
    assert!(left["invitations"].as_array().unwrap().is_empty(), "used up: {left}");

    // What is used up is shown again, and does no harm.
    drop(node);
    let _node = Node::start(&home);
    wait_for(&home, |server| server["registered"] == true);
}
