//! Servers as processes of this machine: started by hand in directories of their own, on loopback,
//! ended with this program; and what the system says about them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Time in which a server must be ready, or gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. Asked to end when dropped, and waited for.
pub struct Server {
    child: Child,
    name: String,
    /// How it is asked to end.
    signal: &'static str,
}

impl Server {
    /// Starts a program, as `user` if this is root and it is given. `signal` ends it.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        user: Option<&str>,
        signal: &'static str,
    ) -> Self {
        // Whatever becomes of this program, none of them stays.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", signal]);
        as_user(&mut command, user);
        let name = program.display().to_string();
        let child = command
            .arg("--")
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        Self { child, name, signal }
    }

    /// Waits until it takes connections.
    pub fn wait_for(&mut self, address: SocketAddr) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{} ended: {status}", self.name);
            }
            assert!(Instant::now() < deadline, "{} does not get ready", self.name);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let process = self.child.id().to_string();
        let _ = Command::new("kill").args(["-s", self.signal, &process]).status();
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs a command to its end, as `user` if this is root.
pub fn run(program: &Path, arguments: &[&str], user: Option<&str>) {
    let mut command = Command::new("setpriv");
    as_user(&mut command, user);
    let output = command.arg("--").arg(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed: {said}", program.display());
}

fn as_user(command: &mut Command, user: Option<&str>) {
    if let (Some(user), true) = (user, rustix::process::geteuid().is_root()) {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
}

/// A directory of `user`, if this is root.
pub fn directory(parent: &Path, name: &str, user: Option<&str>) -> PathBuf {
    fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).unwrap();
    let path = parent.join(name);
    fs::create_dir(&path).unwrap();
    if let (Some(user), true) = (user, rustix::process::geteuid().is_root()) {
        assert!(Command::new("chown").arg(user).arg(&path).status().unwrap().success());
    }
    path
}

/// A port that nobody listens on.
pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A program that the system has, wherever it keeps it.
pub fn installed(name: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    found
        .unwrap_or_else(|| panic!("{name} is not installed; scripts/bench relay does that as root"))
}

/// Resident bytes of a process.
pub fn resident(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<f64>().unwrap() * 1024.0
}

/// Time of processors that a process has had.
pub fn cpu(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name of the program, in brackets, may hold anything.
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    // USER_HZ is 100 everywhere that Linux runs on.
    Duration::from_millis(ticks * 10)
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
