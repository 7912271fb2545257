//! What somebody on the wire can do with a session that they recorded: nothing.
#![allow(clippy::disallowed_methods, reason = "the recorder is a task of the test's own")]

use std::net::SocketAddr;
use std::path::Path;

use sremp_common::wire::{Done, ErrorCode, List, Message, Ping, SetAdmission};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::relay_client::{Client, person};
use crate::relay_program::{Relay, run};

/// Forwards one connection, and keeps what its client sent.
async fn recorder(to: SocketAddr) -> (SocketAddr, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let relay = TcpStream::connect(to).await.unwrap();
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_relay, mut to_relay) = relay.into_split();
        let back = tokio::spawn(async move {
            // To a client that is gone it cannot be copied.
            let _ = tokio::io::copy(&mut from_relay, &mut to_client).await;
        });
        let mut recorded = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            // The client goes away without a farewell; a reset is an end, too.
            let count = from_client.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                break;
            }
            recorded.extend_from_slice(&buffer[..count]);
            to_relay.write_all(&buffer[..count]).await.unwrap();
        }
        drop(to_relay);
        back.await.unwrap();
        recorded
    });
    (address, task)
}

/// Sends recorded bytes, and waits until the relay hangs up.
async fn replay(address: SocketAddr, recorded: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The relay may hang up before it has read everything.
    let _ = stream.write_all(recorded).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
}

fn count(data: &Path, what: &str) -> u64 {
    let (_, stdout, stderr) = run(&["--json", "status", "--data", data.to_str().unwrap()]);
    let status: serde_json::Value =
        serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}{stderr}"));
    status[what].as_u64().unwrap()
}

/// A recorded session, with RELAY_REGISTER, SET_ADMISSION and RETRIEVE_MESSAGES in it, opens no
/// mailbox at another relay and no session at the same one.
#[test]
fn l08_replayed_register_and_retrieve() {
    let directory = tempfile::tempdir().unwrap();
    let [first_data, second_data] = ["first", "second"].map(|name| directory.path().join(name));
    let [first, second] = [&first_data, &second_data].map(|data| Relay::start(data, &[]));
    Runtime::new().unwrap().block_on(async {
        let (address, task) = recorder(first.address).await;
        let mut owner = Client::dial(address, first.key, person(1), false, 1).await.unwrap();
        owner.open_mailbox(1, 1000).await.unwrap();
        owner.batch().await.unwrap();
        drop(owner);
        let recorded = task.await.unwrap();
        assert!(recorded.len() > 300, "{} bytes: a handshake and three requests", recorded.len());
        assert_eq!(count(&first_data, "mailboxes"), 1);
        // Since then, the owner has withdrawn the token that the recorded session admitted.
        let mut owner = Client::dial(first.address, first.key, person(1), false, 2).await.unwrap();
        let withdraw = Message::SetAdmission(SetAdmission { entries: List::default() });
        assert_eq!(owner.ask(&withdraw).await.unwrap(), Message::Done(Done()));

        replay(second.address, &recorded).await;
        assert_eq!(count(&second_data, "mailboxes"), 0, "another relay");
        replay(first.address, &recorded).await;
        let sender = Client::dial(first.address, first.key, person(2), true, 3).await;
        let stored = sender.unwrap().store(1, b"blob".to_vec()).await.unwrap();
        assert_eq!(stored.refused, Some(ErrorCode::NotAdmitted), "the same relay");

        // Both still serve.
        for relay in [&first, &second] {
            let client = Client::dial(relay.address, relay.key, person(2), true, 4).await;
            let answer = client.unwrap().ask(&Message::RelayInfoRequest(Ping())).await.unwrap();
            assert!(matches!(answer, Message::RelayInfo(_)));
        }
    });
}
