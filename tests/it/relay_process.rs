//! The real relay: killed at any moment it loses nothing that it acknowledged and hands out nothing
//! twice; asked to end it ends in order; its files are private.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sremp_common::connection::{Closed, Event};
use sremp_common::id::IdentityKey;
use sremp_common::wire::{
    Admission, Bin, ErrorCode, KeyPackageStock, List, Message, Ping, PublishKeyPackages,
    TakeKeyPackage,
};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::relay_client::{Client, person, token_of};
use crate::relay_program::{Relay, command, error_code, run};

const KILLS: usize = 5;
/// Acknowledged stores between two kills.
const STORES_BETWEEN_KILLS: usize = 60;
const SENDERS: u64 = 6;
const OWNERS: u64 = 2;
/// Small enough that most of what is stored waits in the relay while it is killed.
const WINDOW: u32 = 20_000;

/// What the world outside knows: what was acknowledged, what was delivered, what was handed out.
#[derive(Debug, Default)]
struct Ledger {
    next: u64,
    /// Owner and blob.
    acknowledged: BTreeSet<(u64, Vec<u8>)>,
    /// Owner and blob, with how often.
    delivered: BTreeMap<(u64, Vec<u8>), usize>,
    key_packages: Vec<Vec<u8>>,
}

type Shared = Arc<Mutex<Ledger>>;

/// D.3, level 2, for the relay: G1 and G4 of the crash safety guarantees.
#[test]
fn l22_kill_nine_loses_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let ledger = Shared::default();
    let runtime = Runtime::new().unwrap();
    let mut keys = BTreeSet::new();
    let mut incarnations = BTreeSet::new();
    for round in 0..=KILLS {
        let relay = Relay::start(&data, &[]);
        keys.insert(relay.key);
        let (address, key) = (relay.address, relay.key);
        let seed = 1000 * u64::try_from(round).unwrap();
        incarnations.insert(runtime.block_on(incarnation(address, key, seed)));
        if round == KILLS {
            runtime.block_on(drain(address, key, seed, &ledger));
            break;
        }
        runtime.block_on(traffic(address, key, seed, &ledger, relay));
    }
    assert_eq!((keys.len(), incarnations.len()), (1, 1), "the same relay, with the same store");
    let ledger = ledger.lock().unwrap();
    assert!(ledger.acknowledged.len() >= KILLS * STORES_BETWEEN_KILLS);
    let lost: Vec<_> =
        ledger.acknowledged.iter().filter(|kept| !ledger.delivered.contains_key(kept)).collect();
    assert!(lost.is_empty(), "{} of {} lost", lost.len(), ledger.acknowledged.len());
    let distinct: BTreeSet<_> = ledger.key_packages.iter().collect();
    assert!(distinct.len() >= KILLS && distinct.len() == ledger.key_packages.len(), "M09");
}

async fn incarnation(address: SocketAddr, key: IdentityKey, seed: u64) -> String {
    let mut client = Client::dial(address, key, person(0), true, seed + 500).await.unwrap();
    let answer = client.ask(&Message::RelayInfoRequest(Ping())).await.unwrap();
    let Message::RelayInfo(info) = answer else { panic!("{answer:?}") };
    info.incarnation.to_string()
}

/// Owners read, senders send and takers take until enough was acknowledged; then the relay is
/// killed under them.
async fn traffic(address: SocketAddr, key: IdentityKey, seed: u64, ledger: &Shared, relay: Relay) {
    let mut tasks = JoinSet::new();
    for number in 1..=OWNERS {
        let mut owner =
            Client::dial(address, key, person(number), false, seed + number).await.unwrap();
        owner.open_mailbox(number, WINDOW).await.unwrap();
        if number == 1 {
            publish(&mut owner, seed).await;
        }
        let ledger = Arc::clone(ledger);
        tasks.spawn(async move {
            // Until the relay is killed.
            while read_once(&mut owner, number, &ledger).await.is_some() {}
        });
    }
    for sender in 1..=SENDERS {
        let client = Client::dial(address, key, person(0), true, seed + 100 + sender).await;
        tasks.spawn(send(client.unwrap(), Arc::clone(ledger)));
    }
    let taker = Client::dial(address, key, person(0), true, seed + 200).await;
    tasks.spawn(take(taker.unwrap(), Arc::clone(ledger)));

    let target = ledger.lock().unwrap().acknowledged.len() + STORES_BETWEEN_KILLS;
    while ledger.lock().unwrap().acknowledged.len() < target {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    relay.kill();
    while tasks.join_next().await.is_some() {}
}

/// Reads a batch, writes it down, and acknowledges it. Nothing at the end of the connection.
async fn read_once(owner: &mut Client, number: u64, ledger: &Shared) -> Option<bool> {
    let batch = owner.batch().await.ok()?;
    for message in batch.messages.iter() {
        let blob = (number, message.blob.to_vec());
        *ledger.lock().unwrap().delivered.entry(blob).or_default() += 1;
    }
    owner.acknowledge(&batch).await.ok()?;
    Some(batch.messages.is_empty())
}

async fn send(mut client: Client, ledger: Shared) {
    loop {
        let number = {
            let mut ledger = ledger.lock().unwrap();
            ledger.next += 1;
            ledger.next
        };
        let owner = 1 + number % OWNERS;
        let mut blob = vec![7; 1000];
        blob[..8].copy_from_slice(&number.to_le_bytes());
        let Ok(result) = client.store(owner, blob.clone()).await else { return };
        assert_eq!(result.refused, None);
        ledger.lock().unwrap().acknowledged.insert((owner, blob));
    }
}

async fn publish(owner: &mut Client, seed: u64) {
    // Every package of every round is another one, but for those of the round before: as if its
    // answer had been lost.
    let package = |number: u64| Bin::new(number.to_le_bytes().to_vec()).unwrap();
    let numbers = (seed.saturating_sub(1000)..seed.saturating_sub(900)).chain(seed..seed + 20);
    let key_packages = List::new(numbers.map(package).collect()).unwrap();
    let identity = person(1).identity.identity().clone();
    let message = PublishKeyPackages { identity, key_packages, last_resort: None, replace: false };
    let answer = owner.ask(&Message::PublishKeyPackages(message)).await.unwrap();
    assert!(matches!(answer, Message::KeyPackageStock(KeyPackageStock { .. })), "{answer:?}");
}

async fn take(mut client: Client, ledger: Shared) {
    let admission = Admission::Token(token_of(1));
    let owner = person(1).identity.key();
    for _ in 0..20 {
        let asked = Message::TakeKeyPackage(TakeKeyPackage { owner, admission });
        let Ok(answer) = client.ask(&asked).await else { return };
        let Message::KeyPackageTaken(taken) = answer else { return };
        ledger.lock().unwrap().key_packages.push(taken.key_package.into_vec());
    }
}

/// Reads everything that waits.
async fn drain(address: SocketAddr, key: IdentityKey, seed: u64, ledger: &Shared) {
    for number in 1..=OWNERS {
        let mut owner =
            Client::dial(address, key, person(number), false, seed + number).await.unwrap();
        owner.open_mailbox(number, WINDOW).await.unwrap();
        loop {
            let batch = owner.batch().await.unwrap();
            for message in batch.messages.iter() {
                let blob = (number, message.blob.to_vec());
                *ledger.lock().unwrap().delivered.entry(blob).or_default() += 1;
            }
            owner.acknowledge(&batch).await.unwrap();
            if !batch.has_more {
                break;
            }
        }
    }
}

#[test]
fn sigterm_ends_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path(), &[]);
    let runtime = Runtime::new().unwrap();
    let mut owner = runtime
        .block_on(async {
            let mut owner = Client::dial(relay.address, relay.key, person(1), false, 1).await?;
            owner.open_mailbox(1, WINDOW).await?;
            owner.batch().await?;
            owner.store(1, b"kept".to_vec()).await?;
            let batch = owner.batch().await?;
            assert_eq!(&*batch.messages[0].blob, b"kept");
            std::io::Result::Ok(owner)
        })
        .unwrap();
    let link = relay.link.clone();
    let ended = runtime.spawn_blocking(move || relay.terminate());
    let end = runtime.block_on(owner.event()).unwrap();
    assert!(matches!(end, Event::Closed(Closed::Clean(ErrorCode::Goodbye))), "{end:?}");
    drop(owner);
    assert_eq!(runtime.block_on(ended).unwrap(), Some(0));

    let relay = Relay::start(directory.path(), &["--advertise", "relay.example.org:7331"]);
    assert_ne!(relay.link, link, "another place");
    let status = run(&["--json", "status", "--data", path(directory.path())]);
    let status: serde_json::Value = serde_json::from_str(&status.1).unwrap();
    let fields = ["mailboxes", "messages", "bytes", "sessions"].map(|field| status[field].as_u64());
    assert_eq!(fields, [Some(1), Some(1), Some(4), Some(0)], "not acknowledged, not deleted");
    assert!(status["uptime_ms"].is_u64() && status["link"] == relay.link.as_str());
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn the_command_line_keeps_its_promises() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = path(&data);
    // Usage, nobody running, no relay yet.
    assert_eq!(run(&["--json", "run", "--nonsense"]).0, 2);
    let (code, _, stderr) = run(&["--json", "status", "--data", data]);
    assert_eq!((code, error_code(&stderr).as_str()), (3, "not_running"));
    let (code, _, stderr) = run(&["--json", "link", "--data", data]);
    assert_eq!((code, error_code(&stderr).as_str()), (1, "no_link"));

    let relay = Relay::start(Path::new(data), &[]);
    // The lock keeps a second one out, and the first one is not disturbed.
    let (code, stdout, stderr) = run(&["--json", "run", "--data", data, "--listen", "127.0.0.1:0"]);
    assert_eq!((code, stdout.as_str(), error_code(&stderr).as_str()), (1, "", "failed"));
    assert_eq!(run(&["status", "--data", data]).0, 0);
    let link = relay.link.clone();
    assert_eq!(run(&["link", "--data", data]).1.trim(), link);
    relay.kill();
    // Without the daemon, too; and what a killed one left behind disturbs nobody.
    assert_eq!(run(&["--json", "status", "--data", data]).0, 3);
    let (code, stdout, _) = run(&["--json", "link", "--data", data]);
    let object: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, object["link"].as_str()), (0, Some(link.as_str())));
    let elsewhere = run(&["link", "--data", data, "--advertise", "relay.example.org:7331"]).1;
    assert!(elsewhere.starts_with("sremprelay1") && elsewhere.trim() != link);
    let occupied = Relay::start(Path::new(data), &[]);
    let listen = occupied.address.to_string();
    let other = directory.path().join("other");
    let (code, _, stderr) = run(&["--json", "run", "--data", path(&other), "--listen", &listen]);
    assert_eq!((code, error_code(&stderr).as_str()), (1, "failed"));
}

#[test]
fn check_finds_what_is_wrong_with_a_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    let file = path(&file);
    let (code, _, stderr) = run(&["--json", "check", "--config", file]);
    assert_eq!((code, error_code(&stderr).as_str()), (2, "config"), "missing");
    fs::write(file, "[mailboxes]\nmax_messages = 5\n").unwrap();
    assert_eq!(run(&["check", "--config", file]).0, 0);
    let checked = |name: &str, value: &str| {
        command(&["check", "--config", file]).env(name, value).output().unwrap().status.success()
    };
    assert!(checked("SREMP_RELAY__MAILBOXES__POW_DIFFICULTY", "12"));
    assert!(!checked("SREMP_RELAY__MAILBOXES__POW_DIFFICULTY", "77"));
    assert!(!checked("SREMP_RELAY__MAILBOXES__NOTHING", "1"));
    fs::write(file, "[mailboxes]\nmax_mesages = 5\n").unwrap();
    let (code, _, stderr) = run(&["check", "--config", file]);
    assert!(code == 2 && stderr.contains("max_mesages"), "{stderr}");
}

#[test]
fn sighup_takes_over_new_quotas() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("[mailboxes]\npow_difficulty = 3\n");
    let relay = Relay::start(&directory.path().join("data"), &["--config", path(&file)]);
    Runtime::new().unwrap().block_on(async {
        let mut client = Client::dial(relay.address, relay.key, person(0), true, 1).await.unwrap();
        let mut difficulty = async || {
            let answer = client.ask(&Message::RelayInfoRequest(Ping())).await.unwrap();
            let Message::RelayInfo(info) = answer else { panic!("{answer:?}") };
            info.pow_difficulty
        };
        assert_eq!(difficulty().await, 3);
        // A wrong file changes nothing, and does not end the relay.
        write("[mailboxes]\npow_difficulty = 300\n");
        relay.signal("-HUP");
        write("[mailboxes]\npow_difficulty = 5\n");
        relay.signal("-HUP");
        while difficulty().await != 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn c05_files_of_a_relay_are_private_whatever_the_umask() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // The program itself runs under umask 000.
    let run_line = command(&["run", "--data", path(&data), "--listen", "127.0.0.1:0"]);
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", r#"umask 000 && exec "$0" "$@""#]).arg(run_line.get_program());
    shell.args(run_line.get_args()).stdout(std::process::Stdio::piped());
    let mut child = shell.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let ready = lines.next().unwrap().unwrap();
    assert!(ready.starts_with("sremp-relay ready: listening on 127.0.0.1:"), "{ready}");
    assert!(lines.next().unwrap().unwrap().starts_with("sremprelay1"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(mode(&entry.path()), 0o600, "{entry:?}");
        names.insert(entry.file_name().into_string().unwrap());
    }
    for name in ["relay.key", "relay.redb", "relay.link", "control.sock"] {
        assert!(names.contains(name), "{names:?}");
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let key = data.join("relay.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let arguments = ["--json", "run", "--data", path(&data), "--listen", "127.0.0.1:0"];
    let (code, _, stderr) = run(&arguments);
    assert!(code == 1 && stderr.contains("chmod 600"), "{stderr}");
    fs::remove_file(&key).unwrap();
    std::os::unix::fs::symlink("/dev/null", &key).unwrap();
    assert_eq!(run(&arguments).0, 1);
    fs::remove_file(&key).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&key).status().unwrap().success());
    assert_eq!(run(&arguments).0, 1);
}
