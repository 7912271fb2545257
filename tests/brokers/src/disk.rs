//! What the disk below the temporary files takes for what everybody here waits for.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::time::{Duration, Instant};

use sremp_common::entropy::Entropy;
use sremp_common::id::IdentityKey;
use sremp_common::key::IdentitySecret;
use sremp_common::wire::RelayCapabilities;
use sremp_relay::store::{Mailboxes as _, RedbMailboxes, RedbStore};

use crate::figure::{Report, micros, percentile};

/// Times that each is done in one round.
const TIMES: usize = 40;

pub fn measure(report: &mut Report, rounds: usize) {
    let mut values = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        values.0.push(micros(sync()));
        values.1.push(micros(commit()));
    }
    report.add("disk: fdatasync after 8 KiB", "us", &values.0, None);
    report.add("disk: the relay's smallest commit", "us", &values.1, None);
}

/// One fdatasync, as the writer of a log would do it: over what is there already.
fn sync() -> Duration {
    let mut file = tempfile::tempfile().unwrap();
    let write = |file: &mut File| {
        file.rewind().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        file.sync_data().unwrap();
    };
    write(&mut file);
    median(|| write(&mut file))
}

/// One durable commit of one small row.
fn commit() -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(&directory.path().join("store"), 64 << 20).unwrap();
    let owner: IdentityKey = IdentitySecret::generate(&mut Entropy::from_number(1)).public();
    let mut size = 0;
    let mut write = || {
        size += 1;
        let wishes = RelayCapabilities { max_message_size: size, max_storage_duration: 3600 };
        let transaction = store.begin().unwrap();
        RedbMailboxes::within(&transaction, |mailboxes| mailboxes.register(&owner, wishes))
            .unwrap();
        transaction.commit().unwrap();
    };
    write();
    median(write)
}

fn median(mut what: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..TIMES)
        .map(|_| {
            let began = Instant::now();
            what();
            began.elapsed()
        })
        .collect();
    percentile(&mut times, 50)
}
