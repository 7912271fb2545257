//! The real node: what it does at signals, and what `check` says while it runs.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::relay_program::{build, without_settings};

fn sremp(home: &Path, arguments: &[&str]) -> Command {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    let mut command = without_settings(Command::new(BINARY.get_or_init(|| build("sremp"))));
    command.arg("--home").arg(home).arg("--json").args(arguments);
    command
}

/// Exit code and standard output of a command.
pub(crate) fn ask(home: &Path, arguments: &[&str]) -> (i32, String) {
    let output = sremp(home, arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// A node that runs, and is killed when it is dropped.
pub(crate) struct Node {
    child: Child,
}

impl Node {
    pub(crate) fn start(home: &Path) -> Self {
        let mut command = sremp(home, &["run"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
        assert_eq!(ready["event"], "ready");
        Self { child }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads the log until a line has this in it.
fn read_until(log: &mut BufReader<ChildStderr>, wanted: &str) -> String {
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "the log ended before {wanted:?}");
        if line.contains(wanted) {
            return line;
        }
    }
}

#[test]
fn a_hangup_neither_ends_a_node_nor_hurts_it_and_check_says_that_it_runs() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    assert_eq!(ask(&home, &["init", "--name", "ann", "--listen", "127.0.0.1:0"]).0, 0);
    let (code, found) = ask(&home, &["check"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!((code, &found["running"]), (0, &Value::Bool(false)));

    let mut node = Node::start(&home);
    let (code, found) = ask(&home, &["check"]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!((code, &found["running"]), (0, &Value::Bool(true)));

    // The configuration is read again: the level at once, the rest is named.
    let file = home.join("config.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let changed = text
        .replace("level = \"info\"", "level = \"debug\"")
        .replace("path = \"auto\"", "path = \"relay\"");
    assert_ne!(text, changed);
    std::fs::write(&file, &changed).unwrap();
    let mut log = BufReader::new(node.child.stderr.take().unwrap());
    node.signal("-HUP");
    assert!(read_until(&mut log, "read again").contains("node.path"));
    assert_ne!(ask(&home, &["contact", "show", "nobody"]).0, 0);
    read_until(&mut log, "a command was refused");

    // One that cannot be used changes nothing, and `check` finds it.
    std::fs::write(&file, "[node").unwrap();
    node.signal("-HUP");
    read_until(&mut log, "not read again");
    assert_eq!(ask(&home, &["check"]).0, 2);
    std::fs::write(&file, &changed).unwrap();

    // As when its terminal is closed: nobody reads what it logs any more.
    drop(log);
    node.signal("-HUP");
    assert_ne!(ask(&home, &["contact", "show", "nobody"]).0, 0);
    assert_eq!(ask(&home, &["status"]).0, 0, "it runs on");
    node.signal("-TERM");
    assert_eq!(node.child.wait().unwrap().code(), Some(0), "it ends in order");
}

#[test]
fn c12_a_second_node_on_one_home_ends_with_a_clear_error_and_leaves_the_first_alone() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("home");
    assert_eq!(ask(&home, &["init", "--name", "ann", "--listen", "127.0.0.1:0"]).0, 0);
    let node = Node::start(&home);
    let identity = ask(&home, &["identity", "show"]);
    assert_eq!(identity.0, 0);
    for _ in 0..3 {
        let second = sremp(&home, &["run"]).output().unwrap();
        assert_ne!(second.status.code(), Some(0));
        assert!(!String::from_utf8_lossy(&second.stdout).contains("ready"));
        let said = String::from_utf8(second.stderr).unwrap();
        assert!(said.contains("in use") && said.contains("--home"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    // The first one answers as before, also where the second one would have put its socket, and writes.
    assert_eq!(ask(&home, &["identity", "show"]), identity);
    assert_eq!(ask(&home, &["identity", "rename", "anne"]).0, 0);
    // Killed, not ended: the lock goes with the process, and a next one starts.
    drop(node);
    let _next = Node::start(&home);
    let (code, found) = ask(&home, &["identity", "show"]);
    assert!(code == 0 && found.contains("anne"), "{found}");
}
