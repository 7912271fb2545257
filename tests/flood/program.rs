//! The relay under attack: the program beside this one, killed when dropped.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use sremp_common::id::IdentityKey;
use sremp_common::text::decode_relay_link;

/// A relay that runs.
pub(crate) struct Relay {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Who it is.
    pub(crate) key: IdentityKey,
}

impl Relay {
    /// Starts it with this configuration, and waits until it is ready.
    pub(crate) fn start(data: &Path, config: &str) -> Self {
        let file = data.with_extension("toml");
        fs::write(&file, config).unwrap();
        let program = std::env::current_exe().unwrap().with_file_name("sremp-relay");
        let mut child = Command::new(program)
            .args(["--json", "run", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .arg("--config")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sremp-relay beside this program");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).expect("a ready line");
        let address = ready["listening"].as_str().unwrap().parse().unwrap();
        let key = decode_relay_link(ready["link"].as_str().unwrap()).unwrap().identity_key;
        Self { child, address, key }
    }

    /// Its number at the system.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The most that a process ever had resident, in bytes.
pub(crate) fn resident_peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
}
