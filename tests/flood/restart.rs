//! A relay that is killed with much in its mailboxes, and started again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::millis;
use crate::program::Relay;
use crate::relay_client::{Client, person};

/// What a restart may take.
const PROMISED: Duration = Duration::from_secs(2);
/// Bytes of a blob.
const BLOB: usize = 1 << 20;
/// Blobs of one mailbox.
const PER_OWNER: u64 = 60;

/// Stores so many MiB, kills the relay, and measures until it is ready and hands a message out.
pub(crate) async fn measure(mib: u64) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = "[mailboxes]\nsender_share = 100\n[rates]\nnew_mailboxes_per_hour = 0\n";
    eprintln!("restart with {mib} MiB ...");
    let relay = Relay::start(&data, config);
    let mut sender = Client::dial(relay.address, relay.key, person(0), true, 1).await.unwrap();
    let owners = mib.div_ceil(PER_OWNER);
    for number in 1..=owners {
        let owner = Client::dial(relay.address, relay.key, person(number), false, number).await;
        owner.unwrap().open_mailbox(number, 1).await.unwrap();
        let count = PER_OWNER.min(mib - (number - 1) * PER_OWNER);
        for which in 0..count {
            let mut blob = vec![7; BLOB - 1024];
            blob[..8].copy_from_slice(&which.to_le_bytes());
            assert_eq!(sender.store(number, blob).await.unwrap().refused, None);
        }
    }
    // Dropped is killed.
    drop(relay);
    let began = Instant::now();
    let relay = Relay::start(&data, config);
    let ready = began.elapsed();
    let mut owner = Client::dial(relay.address, relay.key, person(1), false, 99).await.unwrap();
    owner.open_mailbox(1, 1).await.unwrap();
    let is_there = !owner.batch().await.unwrap().messages.is_empty();
    json!({
        "phase": format!("restart after a kill with {mib} MiB stored"),
        "ready_ms": millis(ready), "first_message_ms": millis(began.elapsed()),
        "kept": ready <= PROMISED && is_there,
    })
}
