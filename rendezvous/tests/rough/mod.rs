//! What a server on the open internet meets: rubbish, silence, floods, and its own sudden death.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};

use sremp_common::entropy::Entropy;
use sremp_common::wire::{ListServers, Message};

use super::support::{Client, PATIENCE, Person, Server, connect_from, home, lookup, run};

/// People who register while the server is killed.
const CROWD: u64 = 8;

#[test]
fn sigkill_in_the_middle_of_registrations_loses_none_that_was_acknowledged() {
    let home = home();
    let mut known: Vec<Person> = Vec::new();
    for round in 0..3 {
        let server = Server::start(&home);
        // Everybody who was told so before is still here.
        let mut client = Client::connect(&server);
        for person in &known {
            assert!(lookup(&mut client, person).is_some_and(|found| found.online));
        }
        let done = AtomicU64::new(0);
        let acknowledged = std::thread::scope(|scope| {
            let crowd: Vec<_> = (0..CROWD)
                .map(|place| {
                    let (server, done) = (&server, &done);
                    scope.spawn(move || {
                        let mut client = Client::connect(server);
                        let mut people = Vec::new();
                        for number in 0.. {
                            let person = Person::new((round * CROWD + place) << 32 | number);
                            if client.try_register(&person).is_none() {
                                break;
                            }
                            people.push(person);
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                        people
                    })
                })
                .collect();
            // Some have been told, and others are in the middle of it.
            while done.load(Ordering::SeqCst) < 3 * CROWD {
                std::thread::yield_now();
            }
            server.kill();
            crowd.into_iter().flat_map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        assert!(acknowledged.len() >= 24);
        known.extend(acknowledged);
    }
    let server = Server::start(&home);
    let mut client = Client::connect(&server);
    for person in &known {
        assert!(lookup(&mut client, person).is_some_and(|found| found.online));
    }
}

#[test]
fn rubbish_ends_its_connection_and_nothing_else() {
    let home = home();
    let server = Server::start(&home);
    let mut honest = Client::connect(&server);
    // On the port: plain text, a record that never ends, noise.
    let mut noise = vec![0; 20_000];
    let mut entropy = Entropy::from_number(7);
    noise.fill_with(|| entropy.below(256).try_into().unwrap());
    let endless = [&[22, 3, 1, 0x40, 0][..], &[1; 16_384]].concat();
    for rubbish in [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), noise.clone(), endless] {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may be closed before all is written.
        let _ = stream.write_all(&rubbish);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // At most an alert of TLS.
        assert!(answer.len() <= 64, "{answer:?}");
    }
    // Inside a good TLS session, behind a good header.
    for rubbish in [noise, vec![0xff; 64], vec![0; 64], [4, 0, 0, 0].repeat(4_096)] {
        let mut client = Client::connect(&server);
        client.write_raw(&rubbish);
        while client.read_any().is_some() {}
    }
    // Whoever behaves is not disturbed, and what went wrong was counted.
    assert!(lookup(&mut honest, &Person::new(1)).is_none());
    let data = home.path().join("data");
    let status = run(&["--json", "status", "--data", data.to_str().unwrap()], 0).json();
    assert_eq!(status["connections_failed"], 7);
    server.wait_for_open_connections(&home, 1);
}

#[test]
fn n17_known_networks_get_through_a_flood_of_half_open_connections() {
    let home = home();
    let limit = [("SREMP_RENDEZVOUS__NETWORK__MAX_HALF_OPEN", "8")];
    let server = Server::start_with(&home, &limit);
    Client::connect(&server).register(&Person::new(1), 3_600, false).unwrap();
    // Strangers connect and say nothing, from addresses of their own.
    let connect = |own: [u8; 4]| connect_from(server.address, own.into());
    let flood: Vec<TcpStream> = (1..=64).map(|number| connect([127, 0, 2, number])).collect();
    // More of them are closed at once, without a byte.
    let mut late = connect([127, 0, 3, 1]);
    assert_eq!(late.read(&mut [0; 16]).unwrap_or(0), 0);
    // Somebody from a network that has registered here is served meanwhile.
    assert!(lookup(&mut Client::connect(&server), &Person::new(1)).is_some());
    drop(flood);
}

#[test]
fn requests_that_come_together_are_all_answered_in_order() {
    const MANY: u64 = 300;
    let home = home();
    let server = Server::start(&home);
    let mut client = Client::connect(&server);
    let alice = Person::new(1);
    // A registration in the middle is seen by what comes behind it, and by nothing before.
    let mut requests = Vec::new();
    for _ in 0..MANY {
        requests.push(alice.lookup());
    }
    requests.push(Message::Register(client.signed(&alice, 600, false)));
    for _ in 0..MANY {
        requests.push(alice.lookup());
        requests.push(Message::ListServers(ListServers()));
    }
    let answers = client.ask_all(&requests);
    let found = |message: &Message| match message {
        Message::LookupResponse(response) => Some(response.peers.len()),
        _ => None,
    };
    let counts: Vec<usize> = answers.iter().filter_map(found).collect();
    let half = usize::try_from(MANY).unwrap();
    assert!(counts == [vec![0; half], vec![1; half]].concat(), "{answers:?}");
}

#[test]
fn a_certificate_that_changes_is_loaded_without_being_asked() {
    let home = home();
    let server = Server::start(&home);
    let renewed = home.path().join("renewed");
    run(&["dev-cert", renewed.to_str().unwrap(), "127.0.0.1"], 0);
    // As renewal tools do it: first one file, then the other.
    for name in ["cert.pem", "key.pem"] {
        fs::copy(renewed.join(name), home.path().join("certs").join(name)).unwrap();
    }
    server.wait_for_log("new certificate loaded");
    fs::copy(renewed.join("ca.pem"), home.path().join("certs/ca.pem")).unwrap();
    assert!(lookup(&mut Client::connect(&server), &Person::new(1)).is_none());
}
