//! Every key of the relay's configuration has an effect: with another value the real program does
//! something else. A test here, or one elsewhere that is named, stands for each key.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sremp_common::id::BlobId;
use sremp_common::io::Clock;
use sremp_common::pow::Work;
use sremp_common::text::{decode_relay_link, encode_identity_key};
use sremp_common::wire::{
    Admission, Bin, ErrorCode, Message, Ping, Recipient, RelayCapabilities, RelayInfo,
    RelayRegister, StoreMessage, StoreResult, TakeKeyPackage,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use crate::every_key::{Elsewhere, assert_shown};
use crate::relay_client::{Client, person, token_of};
use crate::relay_program::{Relay, command, run};

const EXAMPLE: &str = include_str!("../../deploy/relay.toml");
const HERE: &str = include_str!("relay_settings.rs");

/// Keys whose effect another test shows.
const ELSEWHERE: [Elsewhere; 2] = [
    (
        "network.max_half_open",
        include_str!("relay_flood.rs"),
        "n17_known_users_get_through_a_flood_of_half_open_connections",
    ),
    (
        "mailboxes.pow_per_minute",
        include_str!("../../relay-server/src/engine/demand.rs"),
        "the_price_follows_demand_up_and_down",
    ),
];

#[test]
fn every_key_has_an_effect_that_a_test_shows() {
    assert_shown(EXAMPLE, HERE, &ELSEWHERE);
}

/// The program with these keys, each `section.key`, from the environment.
fn settings(data: &Path, listen: bool, keys: &[(&str, &str)]) -> Command {
    let mut arguments = vec!["--json", "run"];
    let data = data.to_str().unwrap();
    if listen {
        arguments.extend(["--data", data, "--listen", "127.0.0.1:0"]);
    }
    let mut command = command(&arguments);
    command.stderr(Stdio::null());
    for (key, value) in keys {
        let name = key.replace('.', "__").to_ascii_uppercase();
        command.env(format!("SREMP_RELAY__{name}"), value);
    }
    command
}

/// A relay with these keys, and what is to be seen there.
fn with<R>(keys: &[(&str, &str)], test: impl AsyncFnOnce(&Relay) -> R) -> R {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::run(settings(directory.path(), true, keys));
    Runtime::new().unwrap().block_on(test(&relay))
}

async fn client(relay: &Relay, number: u64, seed: u64) -> std::io::Result<Client> {
    Client::dial(relay.address, relay.key, person(number), number == 0, seed).await
}

/// An owner with a mailbox, and a sender.
async fn two(relay: &Relay, window: u32) -> (Client, Client) {
    let mut owner = client(relay, 1, 1).await.unwrap();
    owner.open_mailbox(1, window).await.unwrap();
    (owner, client(relay, 0, 2).await.unwrap())
}

async fn register(relay: &Relay, number: u64) -> (Option<ErrorCode>, Option<u32>) {
    let capabilities = RelayCapabilities { max_message_size: 9, max_storage_duration: 9 };
    let message = Message::RelayRegister(RelayRegister { capabilities, invite: None });
    let answer = client(relay, number, 50 + number).await.unwrap().ask(&message).await.unwrap();
    if let Message::Error(error) = answer {
        (Some(error.code), error.retry_after)
    } else {
        (None, None)
    }
}

async fn info(relay: &Relay) -> RelayInfo {
    let mut client = client(relay, 0, 90).await.unwrap();
    let answer = client.ask(&Message::RelayInfoRequest(Ping())).await.unwrap();
    let Message::RelayInfo(info) = answer else { panic!("{answer:?}") };
    info
}

/// How many of `count` blobs of so many bytes are taken, and why the next one is not.
async fn taken(sender: &mut Client, count: u8, bytes: usize) -> (u8, Option<StoreResult>) {
    for number in 0..count {
        let result = sender.store(1, vec![number; bytes]).await.unwrap();
        if result.refused.is_some() {
            return (number, Some(result));
        }
    }
    (count, None)
}

fn why(result: Option<StoreResult>) -> Option<ErrorCode> {
    result.and_then(|result| result.refused)
}

fn id(number: u64) -> String {
    encode_identity_key(&person(number).identity.key())
}

#[test]
fn server_listen() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let keys = [("server.listen", "127.0.0.3:0"), ("server.data", data)];
    let relay = Relay::run(settings(directory.path(), false, &keys));
    assert_eq!(relay.address.ip(), Ipv4Addr::new(127, 0, 0, 3));
}

#[test]
fn server_advertise() {
    with(&[("server.advertise", "[\"relay.example.org:7\"]")], async |relay| {
        let link = decode_relay_link(&relay.link).unwrap();
        assert_eq!(link.endpoints.first().unwrap().to_string(), "relay.example.org:7");
    });
}

#[test]
fn server_data() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("elsewhere");
    let text = data.to_str().unwrap();
    let keys = [("server.listen", "127.0.0.1:0"), ("server.data", text)];
    drop(Relay::run(settings(directory.path(), false, &keys)));
    assert!(data.join("relay.key").exists());
}

#[test]
fn server_max_connections() {
    with(&[("server.max_connections", "2")], async |relay| {
        let both = (client(relay, 0, 1).await.unwrap(), client(relay, 0, 2).await.unwrap());
        assert!(client(relay, 0, 3).await.is_err());
        drop(both);
    });
}

#[test]
fn server_max_connections_per_network() {
    with(&[("server.max_connections_per_network", "1")], async |relay| {
        let first = client(relay, 0, 1).await.unwrap();
        assert!(client(relay, 0, 2).await.is_err());
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, 9), 0).into()).unwrap();
        let stream = socket.connect(relay.address).await.unwrap();
        assert!(Client::over(stream, relay.key, person(0), true, 3).await.is_ok());
        drop(first);
    });
}

#[test]
fn access_mode() {
    for (mode, expected) in [
        ("open", None),
        ("invite", Some(ErrorCode::NotAdmitted)),
        ("closed", Some(ErrorCode::NotAllowed)),
    ] {
        let found = with(&[("access.mode", mode)], async |relay| register(relay, 1).await.0);
        assert_eq!(found, expected, "{mode}");
    }
}

#[test]
fn access_allowed() {
    let list = format!("[\"{}\"]", id(1));
    with(&[("access.allowed", &list), ("access.mode", "open")], async |relay| {
        assert_eq!(register(relay, 2).await.0, None, "the list is for its own mode");
    });
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    fs::write(&file, format!("[access]\nmode = \"list\"\nallowed = {list}\n")).unwrap();
    let relay = Relay::start(directory.path(), &["--config", file.to_str().unwrap()]);
    Runtime::new().unwrap().block_on(async {
        assert_eq!(register(&relay, 1).await.0, None);
        assert_eq!(register(&relay, 2).await.0, Some(ErrorCode::NotAllowed));
    });
}

#[test]
fn access_banned() {
    with(&[("access.banned", &format!("[\"{}\"]", id(1)))], async |relay| {
        assert_eq!(register(relay, 1).await.0, Some(ErrorCode::NotAllowed));
        assert_eq!(register(relay, 2).await.0, None);
    });
}

#[test]
fn mailboxes_max_mailboxes() {
    with(&[("mailboxes.max_mailboxes", "1")], async |relay| {
        assert_eq!(register(relay, 1).await, (None, None));
        assert_eq!(register(relay, 2).await, (Some(ErrorCode::Unavailable), Some(60)));
    });
}

/// Room for one mailbox in all: the second owner's gets nothing.
#[test]
fn mailboxes_max_total_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    let text = "[mailboxes]\nmax_blob = 65536\nmax_bytes = 65536\nmax_total_bytes = 65536\n\
        sender_share = 100\n";
    fs::write(&file, text).unwrap();
    let relay = Relay::start(directory.path(), &["--config", file.to_str().unwrap()]);
    Runtime::new().unwrap().block_on(async {
        let (_owner, mut sender) = two(&relay, 1).await;
        client(&relay, 2, 3).await.unwrap().open_mailbox(2, 1).await.unwrap();
        assert_eq!(sender.store(1, vec![1; 60_000]).await.unwrap().refused, None);
        let result = sender.store(2, vec![2; 60_000]).await.unwrap();
        assert_eq!((result.refused, result.retry_after), (Some(ErrorCode::Unavailable), Some(60)));
    });
}

#[test]
fn mailboxes_max_messages() {
    let keys = [("mailboxes.max_messages", "3"), ("mailboxes.sender_share", "100")];
    with(&keys, async |relay| {
        let (_owner, mut sender) = two(relay, 1).await;
        let (count, refused) = taken(&mut sender, 9, 100).await;
        assert_eq!((count, why(refused)), (3, Some(ErrorCode::QuotaExceeded)));
        assert!(refused.unwrap().retry_after.is_some());
    });
}

#[test]
fn mailboxes_max_bytes() {
    let keys = [("mailboxes.max_bytes", "4000000"), ("mailboxes.sender_share", "100")];
    with(&keys, async |relay| {
        let (_owner, mut sender) = two(relay, 1).await;
        let (count, refused) = taken(&mut sender, 9, 1_500_000).await;
        assert_eq!((count, why(refused)), (2, Some(ErrorCode::QuotaExceeded)));
    });
}

#[test]
fn mailboxes_max_blob() {
    with(&[("mailboxes.max_blob", "65536")], async |relay| {
        let (_owner, mut sender) = two(relay, 1).await;
        assert_eq!(sender.store(1, vec![1; 65_536]).await.unwrap().refused, None);
        let refused = sender.store(1, vec![1; 65_537]).await.unwrap().refused;
        assert_eq!(refused, Some(ErrorCode::TooLarge));
        assert_eq!(info(relay).await.limits.max_blob, 65_536);
    });
}

#[test]
fn mailboxes_retention() {
    let kept = |seconds: &str| {
        with(&[("mailboxes.retention", seconds)], async |relay| {
            let (_owner, mut sender) = two(relay, 1).await;
            let until = sender.store(1, vec![1; 9]).await.unwrap().expires_at.unwrap();
            until.since(Clock::start().now().wall)
        })
    };
    assert!(kept("3600") <= Duration::from_secs(3_600));
    assert!(kept("36000") > Duration::from_secs(30_000));
}

/// A store by somebody who has worked so much.
async fn store_by_work(relay: &Relay, bits: u8, fill: u8) -> Option<ErrorCode> {
    let mut sender = client(relay, 0, 70).await.unwrap();
    let (owner, blob, hour) = (person(1).identity.key(), vec![fill; 200], info(relay).await.time);
    let hour = hour.hour();
    let blob_id = Some(BlobId::of(&owner, &blob));
    let work = Work { relay: &relay.key, recipient: &owner, blob: blob_id, hour };
    // Enough zero bits, and not one more: more would open more.
    let nonce = (0..).find(|nonce| work.zero_bits(*nonce) == u32::from(bits)).unwrap();
    let admission = Admission::ProofOfWork { hour, nonce };
    let recipient = Recipient { identity_key: owner, admission };
    sender.store_for(recipient, blob).await.unwrap().refused
}

#[test]
fn mailboxes_pow_difficulty() {
    with(&[("mailboxes.pow_difficulty", "9")], async |relay| {
        let _both = two(relay, 1).await;
        assert_eq!(info(relay).await.pow_difficulty, 9);
        assert_eq!(store_by_work(relay, 8, 1).await, Some(ErrorCode::NotAdmitted));
        assert_eq!(store_by_work(relay, 9, 1).await, None);
    });
}

#[test]
fn mailboxes_stranger_share() {
    // Half of it is for those who have a link, and one place there always is.
    for (share, expected) in [("6", 3), ("0", 1)] {
        let keys = [
            ("mailboxes.pow_difficulty", "4"),
            ("mailboxes.max_messages", "100"),
            ("mailboxes.stranger_share", share),
        ];
        with(&keys, async |relay| {
            let _both = two(relay, 1).await;
            let mut taken = 0;
            while store_by_work(relay, 4, taken).await.is_none() {
                taken += 1;
            }
            assert_eq!(taken, expected, "{share} %");
        });
    }
}

#[test]
fn mailboxes_sender_share() {
    for (share, expected) in [("100", 8), ("25", 4)] {
        let keys = [("mailboxes.max_messages", "8"), ("mailboxes.sender_share", share)];
        with(&keys, async |relay| {
            let (_owner, mut sender) = two(relay, 1).await;
            assert_eq!(taken(&mut sender, 9, 100).await.0, expected, "{share} %");
        });
    }
}

#[test]
fn mailboxes_push_window() {
    for (window, expected) in [("65536", 2), ("1048576", 5)] {
        with(&[("mailboxes.push_window", window)], async |relay| {
            let (mut owner, mut sender) = two(relay, 1 << 20).await;
            assert_eq!(taken(&mut sender, 5, 32_000).await.0, 5);
            let mut pushed = 0;
            while pushed < expected {
                pushed += owner.batch().await.unwrap().messages.len();
            }
            // Whatever else is pushed has come before the answer to this.
            owner.ask(&Message::RelayInfoRequest(Ping())).await.unwrap();
            assert_eq!(pushed + owner.messages_here(), expected);
        });
    }
}

#[test]
fn rates_new_mailboxes_per_hour() {
    with(&[("rates.new_mailboxes_per_hour", "1")], async |relay| {
        assert_eq!(register(relay, 1).await, (None, None));
        let (code, wait) = register(relay, 2).await;
        assert!(code == Some(ErrorCode::RateLimited) && wait > Some(3_000), "{wait:?}");
    });
}

#[test]
fn rates_stores_per_minute() {
    with(&[("rates.stores_per_minute", "2")], async |relay| {
        let (_owner, mut sender) = two(relay, 1).await;
        let (count, refused) = taken(&mut sender, 9, 100).await;
        assert_eq!((count, why(refused)), (2, Some(ErrorCode::RateLimited)));
        assert!(refused.unwrap().retry_after.is_some());
    });
}

#[test]
fn rates_key_packages_per_minute() {
    with(&[("rates.key_packages_per_minute", "1")], async |relay| {
        let (_owner, mut sender) = two(relay, 1).await;
        let admission = Admission::Token(token_of(1));
        let owner = person(1).identity.key();
        for expected in [ErrorCode::NotFound, ErrorCode::RateLimited] {
            let take = Message::TakeKeyPackage(TakeKeyPackage { owner, admission });
            let answer = sender.ask(&take).await.unwrap();
            assert!(matches!(&answer, Message::Error(error) if error.code == expected));
        }
    });
}

#[test]
fn rates_changes_per_minute() {
    with(&[("rates.changes_per_minute", "3")], async |relay| {
        // To register, to set tokens and to begin to read are three.
        let _both = two(relay, 1).await;
        assert_eq!(register(relay, 1).await.0, Some(ErrorCode::RateLimited));
        assert_eq!(register(relay, 2).await.0, None, "another owner");
    });
}

#[test]
fn network_arrivals_per_minute() {
    with(&[("network.arrivals_per_minute", "2")], async |relay| {
        drop((client(relay, 0, 1).await.unwrap(), client(relay, 0, 2).await.unwrap()));
        assert!(client(relay, 0, 3).await.is_err());
    });
}

#[test]
fn network_banned() {
    with(&[("network.banned", "[\"127.0.0.0/8\"]")], async |relay| {
        assert!(client(relay, 0, 1).await.is_err());
    });
}

#[test]
fn network_trusted_proxies() {
    with(&[("network.trusted_proxies", "[\"127.0.0.1/32\"]")], async |relay| {
        assert!(client(relay, 0, 1).await.is_err(), "it must say for whom it comes");
        let mut stream = TcpStream::connect(relay.address).await.unwrap();
        stream.write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 5 80\r\n").await.unwrap();
        let mut client = Client::over(stream, relay.key, person(0), true, 2).await.unwrap();
        let answer = client.ask(&Message::RelayInfoRequest(Ping())).await.unwrap();
        let Message::RelayInfo(info) = answer else { panic!("{answer:?}") };
        assert_eq!(info.observed.unwrap().to_string(), "192.0.2.1:5");
    });
}

/// The service manager is told how long a stop may take.
#[test]
fn network_drain_timeout() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify.sock");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut command = settings(directory.path(), true, &[("network.drain_timeout", "7")]);
    command.env("NOTIFY_SOCKET", &path);
    let relay = Relay::run(command);
    assert_eq!(relay.terminate(), Some(0));
    let mut buffer = [0; 1_024];
    loop {
        let length = manager.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        if text.contains("STOPPING=1") {
            // Ten seconds more, for what comes after the last client.
            assert!(text.contains("EXTEND_TIMEOUT_USEC=17000000"), "{text}");
            break;
        }
    }
}

#[test]
fn metrics_listen() {
    with(&[("metrics.listen", "127.0.0.1:0")], async |relay| {
        let mut stream = TcpStream::connect(relay.metrics.unwrap()).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    });
    with(&[], async |relay| assert!(relay.metrics.is_none()));
}

#[test]
fn metrics_allow_remote() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    let checked = |allowed: bool| {
        let text = format!("[metrics]\nlisten = \"0.0.0.0:0\"\nallow_remote = {allowed}\n");
        fs::write(&file, text).unwrap();
        run(&["check", "--config", file.to_str().unwrap(), "--data", "/d"])
    };
    let (code, _, stderr) = checked(false);
    assert!(code == 2 && stderr.contains("metrics.allow_remote"), "{stderr}");
    let (code, stdout, _) = checked(true);
    assert!(code == 0 && stdout.contains("without a password"), "{stdout}");
}

/// What is read stays in memory, as far as the cache allows.
#[test]
fn store_cache_bytes() {
    let resident = |bytes: &str| {
        with(&[("store.cache_bytes", bytes)], async |relay| {
            let (_owner, mut sender) = two(relay, 1).await;
            for number in 0..16 {
                let result = sender.store(1, vec![number; 2_000_000]).await.unwrap();
                assert_eq!(result.refused, None);
            }
            relay.resident()
        })
    };
    let (small, large) = (resident("1048576"), resident("134217728"));
    assert!(large > small + (10 << 20), "{small} and {large} bytes");
}

/// More than any disk has.
const TOO_MUCH: &str = "4611686018427387904";

#[test]
fn store_free_for_mailboxes() {
    with(&[("store.free_for_mailboxes", TOO_MUCH)], async |relay| {
        assert_eq!(register(relay, 1).await, (Some(ErrorCode::Unavailable), Some(60)));
    });
}

#[test]
fn store_free_for_messages() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    fs::write(&file, "").unwrap();
    let data = directory.path().join("data");
    let relay = Relay::start(&data, &["--config", file.to_str().unwrap()]);
    Runtime::new().unwrap().block_on(async {
        let (_owner, mut sender) = two(&relay, 1).await;
        let text =
            format!("[store]\nfree_for_mailboxes = {TOO_MUCH}\nfree_for_messages = {TOO_MUCH}\n");
        fs::write(&file, text).unwrap();
        let (code, _, stderr) = run(&["reload", "--data", data.to_str().unwrap()]);
        assert_eq!(code, 0, "{stderr}");
        let message = StoreMessage {
            blob: Bin::new(vec![1; 9]).unwrap(),
            recipients: sremp_common::wire::List::new(vec![Recipient {
                identity_key: person(1).identity.key(),
                admission: Admission::Token(token_of(1)),
            }])
            .unwrap(),
        };
        // The keeper looks at the free space once a second: a message may slip in before.
        let refusal = async {
            loop {
                let answer = sender.ask(&Message::StoreMessage(message.clone())).await.unwrap();
                let Message::StoreResponse(response) = answer else { panic!("{answer:?}") };
                let result = response.results[0];
                if result.refused.is_some() {
                    return result;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let result = tokio::time::timeout(Duration::from_secs(60), refusal).await.unwrap();
        assert_eq!((result.refused, result.retry_after), (Some(ErrorCode::Unavailable), Some(60)));
    });
}

#[test]
fn store_reserve_bytes() {
    for (bytes, expected) in [("5000000", Some(5_000_000)), ("0", Some(0))] {
        let directory = tempfile::tempdir().unwrap();
        let relay = Relay::run(settings(directory.path(), true, &[("store.reserve_bytes", bytes)]));
        // The disk is looked at before anybody is served.
        Runtime::new().unwrap().block_on(async { register(&relay, 1).await });
        let found = fs::metadata(directory.path().join("reserve")).map(|file| file.len());
        assert_eq!(found.ok().or(Some(0)), expected);
    }
}

#[test]
fn store_journal_bytes() {
    for (bytes, expected) in [("70000", Some(70_000)), ("0", None)] {
        let directory = tempfile::tempdir().unwrap();
        let _relay =
            Relay::run(settings(directory.path(), true, &[("store.journal_bytes", bytes)]));
        let found = fs::metadata(directory.path().join("relay.journal")).map(|file| file.len());
        assert_eq!(found.ok(), expected);
    }
}

/// What is logged until the relay is ready, at this level and in this form.
fn logged(keys: &[(&str, &str)]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    let mut run_line = command(&["run", "--data", data, "--listen", "127.0.0.1:0"]);
    for (key, value) in keys {
        let name = key.replace('.', "__").to_ascii_uppercase();
        run_line.env(format!("SREMP_RELAY__{name}"), value);
    }
    let mut child = run_line.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stderr).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn log_level() {
    assert!(logged(&[("log.level", "error")]).is_empty());
    assert!(logged(&[("log.level", "info")]).iter().any(|line| line.contains("ready")));
}

#[test]
fn log_format() {
    let forms: BTreeSet<bool> = ["text", "json"]
        .map(|form| {
            let lines = logged(&[("log.format", form)]);
            let is_json = |line: &String| serde_json::from_str::<serde_json::Value>(line).is_ok();
            assert!(!lines.is_empty());
            assert_eq!(lines.iter().all(is_json), form == "json", "{lines:?}");
            lines.iter().all(is_json)
        })
        .into();
    assert_eq!(forms.len(), 2);
}
