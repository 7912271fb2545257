//! The real `sremp-relay`, started, killed and asked by tests.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use sremp_common::id::IdentityKey;
use sremp_common::text::decode_relay_link;

/// A binary, built from the present sources into the directory that this test was built into.
pub(crate) fn build(program: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).expect("target/PROFILE/deps/test");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    // The same features as a build of everything, so that nothing is built twice.
    build.args(["build", "--quiet", "--locked", "--workspace", "--bin", program]);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    build.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
    build.arg("--target-dir").arg(profile.parent().unwrap());
    assert!(build.status().unwrap().success(), "{program} does not build");
    profile.join(program)
}

fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build("sremp-relay"))
}

/// A command of the program.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments);
    without_settings(command)
}

/// Settings of whoever runs the tests stay out of them.
pub(crate) fn without_settings(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SREMP_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a command to its end: exit code, standard output, standard error.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// The code in an error that was printed as JSON.
pub(crate) fn error_code(stderr: &str) -> String {
    let last = stderr.lines().last().unwrap_or_default();
    let error: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("no JSON: {stderr}"));
    assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()));
    error["error"]["code"].as_str().unwrap().to_owned()
}

/// A relay that runs, and is killed when it is dropped.
pub(crate) struct Relay {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// As printed in the ready line.
    pub(crate) link: String,
    /// Who it is.
    pub(crate) key: IdentityKey,
    /// Where monitoring finds it, if it is on.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Relay {
    /// Starts a relay on a free port and waits until it is ready.
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        Self::start_logging(data, arguments, Stdio::null())
    }

    /// As [`Self::start`], with somewhere to put what it logs.
    pub(crate) fn start_logging(data: &Path, arguments: &[&str], log: Stdio) -> Self {
        let data = data.to_str().unwrap();
        let fixed = ["--json", "run", "--data", data, "--listen", "127.0.0.1:0"];
        let mut command = command(&[&fixed, arguments].concat());
        command.stderr(log);
        Self::run(command)
    }

    /// Starts it by this command line, which must ask for JSON, and waits until it is ready.
    pub(crate) fn run(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line:?}"));
        assert_eq!(ready["event"], "ready");
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        let key = decode_relay_link(&text("link")).unwrap().identity_key;
        assert_eq!(text("id"), key.to_string());
        let address = text("listening").parse().unwrap();
        let metrics = ready["metrics"].as_str().map(|text| text.parse().unwrap());
        Self { child, address, link: text("link"), key, metrics }
    }

    /// Resident bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// SIGKILL: no time for anything.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// SIGTERM; the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        self.signal("-TERM");
        self.child.wait().unwrap().code()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
