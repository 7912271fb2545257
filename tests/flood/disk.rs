//! A disk that fills up under the relay: a small tmpfs, filled by messages until the relay refuses
//! them, and by somebody else to the last byte.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sremp_common::wire::{ErrorCode, Message, RelayCapabilities, RelayRegister, RetrieveMessages};
use tokio::time::sleep;

use crate::program::Relay;
use crate::relay_client::{Client, person};

/// Marks that fit a disk of 32 MiB.
const CONFIG: &str = "[store]\nfree_for_mailboxes = 12000000\nfree_for_messages = 8000000\n\
    reserve_bytes = 2000000\n[mailboxes]\nsender_share = 100\n[rates]\nstores_per_minute = 0\n";
const SIZE: &str = "size=32m";
const BLOB: usize = 20_000;

/// Unmounts at the end.
struct Mounted<'d>(&'d Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// Fills a disk, drains it, and sees whether everything was there and the service came back.
pub(crate) async fn fill() -> Value {
    let directory = tempfile::tempdir().unwrap();
    let disk = directory.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = ["-t", "tmpfs", "-o", SIZE, "tmpfs"];
    let mounted = Command::new("mount").args(mount).arg(&disk).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return json!({"phase": "full disk", "skipped": "this user may not mount a tmpfs", "kept": true});
    }
    let mounted = Mounted(&disk);
    eprintln!("full disk ...");
    let relay = Relay::start(&disk.join("data"), CONFIG);
    let connect = async |number: u64, seed: u64| {
        Client::dial(relay.address, relay.key, person(number), number == 0, seed).await
    };
    let mut owner = connect(1, 1).await.unwrap();
    owner.open_mailbox(1, 1).await.unwrap();
    drop(owner);
    let mut sender = connect(0, 2).await.unwrap();
    let mut kept = BTreeSet::new();
    let mut next = 0_u64;
    let blob = |number: u64| [&number.to_le_bytes()[..], &[7; BLOB]].concat();
    // Until the relay's own mark is reached.
    while sender.store(1, blob(next)).await.unwrap().refused.is_none() {
        kept.insert(next);
        next += 1;
    }
    let is_refused = refuses_newcomers(&relay).await;
    // Somebody else takes what is left, to the last byte.
    let filler = disk.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    let (drained, sessions) = drain(&relay, &kept).await;
    let lost = kept.difference(&drained).count();
    fs::remove_file(&filler).unwrap();
    // The service comes back by itself.
    let began = Instant::now();
    let is_back = loop {
        if began.elapsed() > Duration::from_secs(90) {
            break false;
        }
        if let Ok(mut sender) = connect(0, 100 + began.elapsed().as_millis() as u64).await
            && sender.store(1, blob(next)).await.is_ok_and(|result| result.refused.is_none())
        {
            break true;
        }
        sleep(Duration::from_millis(200)).await;
    };
    let back_after = began.elapsed().as_secs_f64();
    drop(relay);
    drop(mounted);
    json!({
        "phase": "full disk (tmpfs of 32 MiB)", "stored": kept.len(), "lost": lost,
        "sessions_to_drain": sessions, "newcomers_refused": is_refused,
        "back_after_s": (back_after * 10.0).round() / 10.0,
        "kept": lost == 0 && is_refused && is_back && kept.len() > 100,
    })
}

/// Whether somebody new gets no mailbox.
async fn refuses_newcomers(relay: &Relay) -> bool {
    let dialled = Client::dial(relay.address, relay.key, person(3), false, 33).await;
    let capabilities = RelayCapabilities { max_message_size: 9, max_storage_duration: 9 };
    let register = Message::RelayRegister(RelayRegister { capabilities, invite: None });
    let answer = dialled.unwrap().ask(&register).await.unwrap();
    matches!(answer, Message::Error(error) if error.code == ErrorCode::Unavailable)
}

/// Reads and acknowledges everything, coming again as often as the relay ends the session.
async fn drain(relay: &Relay, kept: &BTreeSet<u64>) -> (BTreeSet<u64>, u32) {
    let mut drained = BTreeSet::new();
    let began = Instant::now();
    let mut sessions = 0;
    while drained.len() < kept.len() && began.elapsed() < Duration::from_secs(60) {
        sessions += 1;
        let seed = 1_000 + u64::from(sessions);
        let dialled = Client::dial(relay.address, relay.key, person(1), false, seed).await;
        let Ok(mut owner) = dialled else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        if read(&mut owner, &mut drained, kept.len()).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    }
    (drained, sessions)
}

async fn read(owner: &mut Client, drained: &mut BTreeSet<u64>, all: usize) -> std::io::Result<()> {
    let retrieve = RetrieveMessages { window: 1 << 20 };
    owner.send(&Message::RetrieveMessages(retrieve)).await?;
    while drained.len() < all {
        let batch = owner.batch().await?;
        for message in batch.messages.iter() {
            drained.insert(u64::from_le_bytes(message.blob[..8].try_into().unwrap()));
        }
        owner.acknowledge(&batch).await?;
    }
    Ok(())
}
