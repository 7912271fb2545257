//! The real relay and its operator: invitations, bans, mailboxes, backup, monitoring, reload, and
//! what the log tells of people.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use sremp_common::connection::{Closed, Event};
use sremp_common::io::Clock;
use sremp_common::text::{decode_relay_link, encode_identity_key};
use sremp_common::wire::{
    ErrorCode, Message, Ping, RelayCapabilities, RelayInfo, RelayRegister, RetrieveMessages,
};
use sremp_relay::config::LIVE;
use tokio::runtime::Runtime;

use crate::relay_client::{Client, person, token_of};
use crate::relay_program::{Relay, command, error_code, run};

const EXAMPLE: &str = include_str!("../../deploy/relay.toml");

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn id(number: u64) -> String {
    encode_identity_key(&person(number).identity.key())
}

/// A command of the operator that must succeed.
fn order(data: &Path, words: &[&str]) -> Value {
    let (code, stdout, stderr) = run(&[&["--json"], words, &["--data", path(data)]].concat());
    assert_eq!(code, 0, "{words:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{words:?}: {stdout}"))
}

/// One that must be refused, and says why.
fn refused(data: &Path, words: &[&str], why: &str) {
    let (code, _, stderr) = run(&[&["--json"], words, &["--data", path(data)]].concat());
    assert_eq!((code, error_code(&stderr).as_str()), (5, "refused"), "{words:?}");
    assert!(stderr.contains(why), "{words:?}: {stderr}");
}

async fn client(relay: &Relay, number: u64, seed: u64) -> Client {
    Client::dial(relay.address, relay.key, person(number), number == 0, seed).await.unwrap()
}

async fn info(relay: &Relay, seed: u64) -> RelayInfo {
    let mut client = client(relay, 0, seed).await;
    let answer = client.ask(&Message::RelayInfoRequest(Ping())).await.unwrap();
    let Message::RelayInfo(info) = answer else { panic!("{answer:?}") };
    info
}

async fn register(client: &mut Client, link: Option<&str>) -> Result<(), ErrorCode> {
    let capabilities = RelayCapabilities { max_message_size: 1 << 20, max_storage_duration: 9999 };
    let invite = link.and_then(|link| decode_relay_link(link).unwrap().invite);
    let message = Message::RelayRegister(RelayRegister { capabilities, invite });
    let answer = client.ask(&message).await.unwrap();
    if let Message::Error(error) = &answer {
        return Err(error.code);
    }
    assert!(matches!(answer, Message::RelayRegistered(_)), "{answer:?}");
    Ok(())
}

#[test]
fn an_invitation_is_made_used_shown_and_taken_back() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let file = directory.path().join("relay.toml");
    fs::write(&file, "[access]\nmode = \"invite\"\n").unwrap();
    let relay = Relay::start(&data, &["--config", path(&file)]);
    let runtime = Runtime::new().unwrap();
    let link = |value: &Value| value["link"].as_str().unwrap().to_owned();
    let once = order(&data, &["invite", "new"]);
    let twice = link(&order(&data, &["invite", "new", "--uses", "2", "--days", "1"]));
    assert!(once["uses"] == 1 && once["expires_at_ms"].is_u64());
    let once = link(&once);
    let record = decode_relay_link(&once).unwrap();
    assert_eq!((record.identity_key, record.invite.is_some()), (relay.key, true));
    assert_eq!(record.endpoints.first().unwrap().to_string(), relay.address.to_string());
    // People see the link alone, to pass it on.
    let text = run(&["invite", "new", "--data", path(&data)]).1;
    assert!(decode_relay_link(text.trim()).unwrap().invite.is_some());
    refused(&data, &["invite", "revoke", "nonsense"], "neither what was given");
    refused(&data, &["invite", "revoke", &relay.link], "neither what was given");
    order(&data, &["invite", "revoke", text.trim()]);
    refused(&data, &["invite", "revoke", text.trim()], "used up");
    runtime.block_on(async {
        let mut first = client(&relay, 1, 1).await;
        assert_eq!(register(&mut first, None).await, Err(ErrorCode::NotAdmitted));
        assert_eq!(register(&mut first, Some(text.trim())).await, Err(ErrorCode::NotAdmitted));
        assert_eq!(register(&mut first, Some(&once)).await, Ok(()));
        assert_eq!(register(&mut first, None).await, Ok(()), "in for good");
        let mut second = client(&relay, 2, 2).await;
        assert_eq!(register(&mut second, Some(&once)).await, Err(ErrorCode::NotAdmitted));
        assert_eq!(register(&mut second, Some(&twice)).await, Ok(()));
    });
    let list = order(&data, &["invite", "list"]);
    let list = list["invitations"].as_array().unwrap();
    assert!(list.len() == 1 && list[0]["uses"] == 1, "{list:?}");
    let name = list[0]["name"].as_str().unwrap().to_owned();
    // What is left of it holds over a crash.
    relay.kill();
    let relay = Relay::start(&data, &["--config", path(&file)]);
    assert!(order(&data, &["invite", "list"]).to_string().contains(&name));
    order(&data, &["invite", "revoke", &name]);
    runtime.block_on(async {
        let mut third = client(&relay, 3, 3).await;
        assert_eq!(register(&mut third, Some(&twice)).await, Err(ErrorCode::NotAdmitted));
    });
}

#[test]
fn mailboxes_are_shown_dropped_and_banned() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path();
    let relay = Relay::start(data, &[]);
    let runtime = Runtime::new().unwrap();
    let (mut first, mut second) = runtime.block_on(async {
        let mut owners = Vec::new();
        for number in [1, 2] {
            let mut owner = client(&relay, number, number).await;
            owner.open_mailbox(number, 1 << 20).await.unwrap();
            owners.push(owner);
        }
        let mut sender = client(&relay, 0, 10).await;
        for number in [1, 2] {
            assert_eq!(sender.store(number, vec![7; 100]).await.unwrap().refused, None);
        }
        let second = owners.pop().unwrap();
        (owners.pop().unwrap(), second)
    });
    let shown = order(data, &["mailbox", "show", &id(1)]);
    assert_eq!((&shown["messages"], &shown["bytes"]), (&1.into(), &100.into()));
    assert_eq!(shown["banned"], false);
    refused(data, &["mailbox", "show", &id(3)], "nobody with this id");
    assert_eq!(run(&["mailbox", "show", "nobody", "--data", path(data)]).0, 2);

    order(data, &["mailbox", "drop", &id(1)]);
    refused(data, &["mailbox", "drop", &id(1)], "nobody with this id");
    let banned = order(data, &["mailbox", "ban", &id(2)]);
    assert!(banned["added"].to_string().contains(&id(2)));
    runtime.block_on(async {
        for owner in [&mut first, &mut second] {
            loop {
                let event = owner.event().await.unwrap();
                if let Event::Closed(Closed::Clean(code)) = event {
                    assert_eq!(code, ErrorCode::NotAllowed);
                    break;
                }
            }
        }
        // Who was dropped may come again, who was banned may not; to senders neither has one.
        let mut sender = client(&relay, 0, 11).await;
        for number in [1, 2] {
            let result = sender.store(number, vec![8; 10]).await.unwrap();
            assert_eq!(result.refused, Some(ErrorCode::NotAdmitted));
        }
        assert_eq!(register(&mut client(&relay, 1, 12).await, None).await, Ok(()));
        let mut again = client(&relay, 2, 13).await;
        assert_eq!(register(&mut again, None).await, Err(ErrorCode::NotAllowed));
    });
    relay.kill();
    let relay = Relay::start(data, &[]);
    runtime.block_on(async {
        let mut again = client(&relay, 2, 14).await;
        assert_eq!(register(&mut again, None).await, Err(ErrorCode::NotAllowed));
    });
    assert_eq!(order(data, &["mailbox", "banned"]), banned, "also after a restart");
    order(data, &["mailbox", "unban", &id(2)]);
    refused(data, &["mailbox", "unban", &id(2)], "not banned");
    runtime.block_on(async {
        let mut again = client(&relay, 2, 15).await;
        assert_eq!(register(&mut again, None).await, Ok(()));
    });
    assert_eq!(order(data, &["mailbox", "show", &id(2)])["messages"], 1, "it was kept");
}

/// A copy made under load is a relay of its own: with everything that was acknowledged before it
/// was asked for, and another incarnation, so that senders notice.
#[test]
fn a_backup_made_under_load_is_a_whole_relay() {
    let directory = tempfile::tempdir().unwrap();
    let (data, copy) = (directory.path().join("data"), directory.path().join("copy"));
    let relay = Relay::start(&data, &[]);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut owner = client(&relay, 1, 1).await;
        owner.open_mailbox(1, 1).await.unwrap();
        let mut sender = client(&relay, 0, 2).await;
        for number in 0..50 {
            let result = sender.store(1, vec![number; 2000]).await.unwrap();
            assert_eq!(result.refused, None);
        }
    });
    let sending = {
        let (address, key) = (relay.address, relay.key);
        runtime.spawn(async move {
            let mut sender = Client::dial(address, key, person(0), true, 3).await.unwrap();
            let mut stored = 0_u64;
            // Until the relay is killed.
            loop {
                let mut blob = vec![200; 2000];
                blob[..8].copy_from_slice(&stored.to_le_bytes());
                match sender.store(1, blob).await {
                    Ok(result) if result.refused.is_none() => stored += 1,
                    Ok(_) | Err(_) => return stored,
                }
            }
        })
    };
    fs::create_dir(&copy).unwrap();
    let file = copy.join("relay.redb");
    let written = order(&data, &["backup", path(&file)]);
    assert_eq!(written["bytes"], fs::metadata(&file).unwrap().len());
    refused(&data, &["backup", path(&file)], "exists");
    let before = runtime.block_on(info(&relay, 4)).incarnation;
    // Room in the file can be given back while it is used, too.
    order(&data, &["compact"]);
    assert!(order(&data, &["expire"])["messages"] == 0);
    relay.kill();
    assert!(runtime.block_on(sending).unwrap() > 0);

    fs::copy(data.join("relay.key"), copy.join("relay.key")).unwrap();
    // The copy of a private directory is private.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&copy, private).unwrap();
    let restored = Relay::start(&copy, &[]);
    assert_eq!(restored.key, decode_relay_link(&restored.link).unwrap().identity_key);
    runtime.block_on(async {
        assert_ne!(info(&restored, 5).await.incarnation, before);
        let mut owner = client(&restored, 1, 6).await;
        owner.open_mailbox(1, 1 << 22).await.unwrap();
        let mut first = Vec::new();
        while first.len() < 50 {
            let batch = owner.batch().await.unwrap();
            first.extend(batch.messages.iter().map(|message| message.blob[0]));
            owner.acknowledge(&batch).await.unwrap();
        }
        first.truncate(50);
        assert_eq!(first, (0..50).collect::<Vec<u8>>());
    });
}

fn get(address: SocketAddr, what: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {what} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn monitoring_sees_every_figure_and_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    fs::write(&file, "[metrics]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    let data = directory.path().join("data");
    let relay = Relay::start(&data, &["--config", path(&file)]);
    let metrics = relay.metrics.unwrap();
    Runtime::new().unwrap().block_on(async {
        let mut owner = client(&relay, 1, 1).await;
        owner.open_mailbox(1, 1 << 20).await.unwrap();
        let mut sender = client(&relay, 0, 2).await;
        assert_eq!(sender.store(1, vec![1; 100]).await.unwrap().refused, None);
        let refused = sender.store(2, vec![1; 100]).await.unwrap().refused;
        assert_eq!(refused, Some(ErrorCode::NotAdmitted));
        owner.batch().await.unwrap();
    });
    assert_eq!(get(metrics, "/livez").0, 200);
    assert_eq!(get(metrics, "/readyz").0, 200);
    let (code, page) = get(metrics, "/metrics");
    assert_eq!(code, 200);
    for family in sremp_relay::io::operated::families() {
        assert!(page.contains(&format!("# TYPE {} ", family.name)), "{}", family.name);
    }
    for line in [
        "sremp_relay_mailboxes 1\n",
        "sremp_relay_messages 1\n",
        "sremp_relay_bytes 100\n",
        "sremp_relay_room 2\n",
        "sremp_relay_stores_total{result=\"ok\"} 1\n",
        "sremp_relay_stores_total{result=\"not_admitted\"} 1\n",
        "sremp_relay_registrations_total 1\n",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    let status = order(&data, &["status"]);
    for text in [page, status["counts"].to_string()] {
        assert!(!text.contains("sremp1") && !text.contains("127.0.0.1"), "{text}");
    }
}

/// Every key is either taken over at once, or marked in the example.
#[test]
fn what_needs_a_restart_is_marked_in_the_example() {
    let mut section = String::new();
    let mut is_marked = false;
    let mut keys = 0;
    for line in EXAMPLE.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if line.starts_with('#') {
            is_marked |= line.contains("(restart)");
        } else if let Some((key, _)) = line.split_once(" = ") {
            let name = format!("{section}.{key}");
            let is_live = LIVE.iter().any(|live| *live == section || *live == name);
            assert_ne!(is_live, is_marked, "{name}");
            keys += 1;
            continue;
        }
        if line.is_empty() {
            is_marked = false;
        }
    }
    assert!(keys > 30, "{keys}");
}

#[test]
fn a_reload_takes_over_what_it_can_and_says_what_it_cannot() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("[mailboxes]\npow_difficulty = 3\n");
    let data = directory.path().join("data");
    let relay = Relay::start(&data, &["--config", path(&file)]);
    let runtime = Runtime::new().unwrap();
    write(
        "[mailboxes]\npow_difficulty = 5\n[access]\nmode = \"closed\"\n\
         [store]\ncache_bytes = 9000000\n[log]\nlevel = \"debug\"\n",
    );
    let answer = order(&data, &["reload"]);
    let summary = answer["summary"].as_str().unwrap();
    assert!(summary.contains("access.mode") && summary.contains("log.level"), "{summary}");
    assert!(summary.ends_with("restart: store.cache_bytes"), "{summary}");
    runtime.block_on(async {
        assert_eq!(info(&relay, 1).await.pow_difficulty, 5);
        let mut new = client(&relay, 1, 2).await;
        assert_eq!(register(&mut new, None).await, Err(ErrorCode::NotAllowed));
    });
    // A failed one is loud and changes nothing.
    write("[mailboxes]\npow_difficulty = 300\n[access]\nmode = \"open\"\n");
    refused(&data, &["reload"], "pow_difficulty");
    runtime.block_on(async {
        assert_eq!(info(&relay, 3).await.pow_difficulty, 5);
        let mut new = client(&relay, 1, 4).await;
        assert_eq!(register(&mut new, None).await, Err(ErrorCode::NotAllowed));
    });
}

/// At the most talkative level: no id, no key, no address.
#[test]
fn the_log_names_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let mut run_line = command(&["run", "--data", path(&directory.path().join("data"))]);
    run_line.args(["--listen", "127.0.0.1:0", "--json"]);
    run_line.env("SREMP_RELAY__LOG__LEVEL", "trace").stderr(fs::File::create(&log).unwrap());
    let relay = Relay::run(run_line);
    Runtime::new().unwrap().block_on(async {
        let mut owner = client(&relay, 1, 1).await;
        owner.open_mailbox(1, 1 << 20).await.unwrap();
        let mut sender = client(&relay, 0, 2).await;
        sender.store(1, vec![1; 100]).await.unwrap();
        owner.batch().await.unwrap();
        // One that breaks the protocol, and one that is cut off.
        let mut bad = TcpStream::connect(relay.address).unwrap();
        bad.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        drop(client(&relay, 3, 3).await);
    });
    assert_eq!(relay.terminate(), Some(0));
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("127.0.0.x") && log.contains("established") | log.contains("ended"));
    let key = person(1).identity.key();
    let token = token_of(1);
    for secret in [
        id(1),
        key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
        token.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect(),
        "127.0.0.1".to_owned(),
        "person 1".to_owned(),
    ] {
        assert!(!log.contains(&secret), "{secret} in\n{log}");
    }
}

/// L17: whoever asks and does not read is let go, holds no memory, and disturbs nobody.
#[test]
fn l17_a_slow_reader_is_bounded_and_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let relay = Relay::start(directory.path(), &[]);
    Runtime::new().unwrap().block_on(async {
        let mut slow = client(&relay, 1, 1).await;
        slow.open_mailbox(1, 1 << 20).await.unwrap();
        let mut other = client(&relay, 2, 2).await;
        other.open_mailbox(2, 1 << 20).await.unwrap();
        let mut sender = client(&relay, 0, 3).await;
        for number in 0..10 {
            let result = sender.store(1, vec![number; 100_000]).await.unwrap();
            assert_eq!(result.refused, None);
        }
        let before = relay.resident();
        // Each of these has a mebibyte sent, and nothing of it is read.
        let retrieve = Message::RetrieveMessages(RetrieveMessages { window: 1 << 20 });
        for _ in 0..50 {
            if slow.send(&retrieve).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let clock = Clock::start();
        let deadline = clock.now().instant + Duration::from_secs(60);
        let mut worst = Duration::ZERO;
        let mut number = 0_u64;
        while order(directory.path(), &["status"])["connections"]["open"] != 2 {
            assert!(clock.now().instant < deadline, "it is still there");
            number += 1;
            let began = clock.now().instant;
            let mut blob = vec![9; 100];
            blob[..8].copy_from_slice(&number.to_le_bytes());
            assert_eq!(sender.store(2, blob).await.unwrap().refused, None);
            worst = worst.max(clock.now().instant.since(began));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(worst < Duration::from_secs(5), "others waited {worst:?}");
        let grown = relay.resident().saturating_sub(before);
        assert!(grown < 40 << 20, "{grown} bytes more than before");
        // Nothing was lost by it: everything comes again.
        let mut again = client(&relay, 1, 4).await;
        again.open_mailbox(1, 1 << 20).await.unwrap();
        let mut read = 0;
        while read < 10 {
            let batch = again.batch().await.unwrap();
            read += batch.messages.len();
            again.acknowledge(&batch).await.unwrap();
        }
        let batch = other.batch().await.unwrap();
        assert!(batch.messages.len() < 1000);
    });
}
