//! A flood of strangers at the real relay: whoever has a mailbox gets in, what strangers begin is
//! bounded, and what they do not finish is cut off.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use sremp_common::io::Clock;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;

use crate::relay_client::{Client, person};
use crate::relay_program::{Relay, run};

/// Connections whose handshake is not done, at most.
const HALF_OPEN: u64 = 40;

async fn from(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source, 0).into())?;
    socket.connect(to).await
}

#[test]
fn n17_known_users_get_through_a_flood_of_half_open_connections() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("relay.toml");
    fs::write(&file, format!("[network]\nmax_half_open = {HALF_OPEN}\n")).unwrap();
    let data = directory.path().join("data");
    let relay = Relay::start(&data, &["--config", file.to_str().unwrap()]);
    let status = || -> serde_json::Value {
        let (code, stdout, _) = run(&["--json", "status", "--data", data.to_str().unwrap()]);
        assert_eq!(code, 0);
        serde_json::from_str(&stdout).unwrap()
    };
    Runtime::new().unwrap().block_on(async {
        let own = Ipv4Addr::new(127, 9, 9, 9);
        let dial = async |seed: u64| {
            let stream = from(own, relay.address).await?;
            Client::over(stream, relay.key, person(1), false, seed).await
        };
        let mut owner = dial(1).await.unwrap();
        owner.open_mailbox(1, 1 << 20).await.unwrap();
        owner.batch().await.unwrap();
        // Strangers from fifty addresses, who connect and say nothing.
        let clock = Clock::start();
        let mut strangers = Vec::new();
        for number in 0..300_u16 {
            let [_, low] = (number % 50).to_be_bytes();
            strangers.push(from(Ipv4Addr::new(127, 3, 0, low), relay.address).await.unwrap());
        }
        let counts = status()["connections"].clone();
        assert!(counts["half_open"].as_u64().unwrap() <= HALF_OPEN, "{counts}");
        assert!(counts["refused"]["half_open"].as_u64().unwrap() >= 200, "{counts}");
        // A stranger finds no place now; whoever has a mailbox does, again and again.
        let stranger = from(Ipv4Addr::new(127, 4, 0, 1), relay.address).await.unwrap();
        let refused = Client::over(stranger, relay.key, person(0), true, 2).await;
        assert!(refused.is_err());
        for seed in 10..20 {
            let mut again = dial(seed).await.unwrap();
            again.open_mailbox(1, 1 << 20).await.unwrap();
            again.batch().await.unwrap();
        }
        // Those who did not finish are cut off, and everybody is welcome again.
        let deadline = clock.now().instant + Duration::from_secs(60);
        loop {
            assert!(clock.now().instant < deadline, "the flood never ends");
            let stranger = from(Ipv4Addr::new(127, 4, 0, 1), relay.address).await.unwrap();
            if Client::over(stranger, relay.key, person(0), true, 3).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        drop(strangers);
    });
    let metrics = status();
    assert_eq!(metrics["mailboxes"], 1);
}
