//! A made-up server, its operator, and its monitoring.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::gate::GateLimits;
use super::*;
use crate::rate::Rate;

const WIDGETS: Family = Family::counter("x_widgets_total", "Widgets.");

#[derive(Default)]
struct Factory {
    is_broken: AtomicBool,
}

impl Operated for Factory {
    async fn is_alive(&self) -> bool {
        !self.is_broken.load(Ordering::Relaxed)
    }

    async fn trouble(&self) -> Option<String> {
        self.is_broken.load(Ordering::Relaxed).then(|| "broken".to_owned())
    }

    async fn status(&self) -> Map<String, Value> {
        Map::from_iter([("widgets".to_owned(), 7.into())])
    }

    async fn put(&self, page: &mut Page) {
        page.put(&WIDGETS, 7);
    }

    async fn carry_out(&self, request: &Request) -> Answer {
        match request.command.as_str() {
            "make" => Ok("made".into()),
            _ => Err(unknown(request)),
        }
    }
}

fn operator(factory: &Arc<Factory>, life: &Lifecycle) -> Operator<Factory> {
    let arrivals = Rate { count: 100, per: Duration::from_secs(1) };
    let limits = GateLimits { max: 9, max_per_network: 9, max_half_open: 9, arrivals };
    let (clock, bans) = (Clock::start(), Bans::default());
    Operator {
        served: Arc::clone(factory),
        version: "1.2.3",
        listening: "127.0.0.1:1".parse().unwrap(),
        life: life.clone(),
        gate: Gate::new(limits, bans.clone(), clock),
        bans,
        clock,
    }
}

async fn get(address: SocketAddr, what: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{what} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn monitoring_sees_life_readiness_and_figures() {
    let (life, _wishes) = Lifecycle::new();
    let factory = Arc::new(Factory::default());
    let directory = tempfile::tempdir().unwrap();
    let control = control::bind(directory.path()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    operator(&factory, &life).start(&mut tasks, control, Some(listener));

    assert_eq!(get(address, "GET /livez").await, (200, "alive\n".to_owned()));
    assert_eq!(get(address, "GET /readyz").await, (503, "starting\n".to_owned()));
    life.ready();
    assert_eq!(get(address, "GET /readyz").await.0, 200);
    let (code, text) = get(address, "GET /metrics").await;
    assert_eq!(code, 200);
    for line in [
        "sremp_build_info{version=\"1.2.3\"} 1\n",
        "sremp_ready 1\n",
        "sremp_reloads_total{result=\"failed\"} 0\n",
        "sremp_connections_open 0\n",
        "x_widgets_total 7\n",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert_eq!(get(address, "POST /metrics").await.0, 405);
    assert_eq!(get(address, "GET /").await.0, 404);
    factory.is_broken.store(true, Ordering::Relaxed);
    assert_eq!(get(address, "GET /livez").await.0, 503);
    assert_eq!(get(address, "GET /readyz").await, (503, "broken\n".to_owned()));
    factory.is_broken.store(false, Ordering::Relaxed);
    life.drain(&mut JoinSet::new(), Duration::from_secs(1)).await;
    assert_eq!(get(address, "GET /livez").await.0, 200);
    assert_eq!(get(address, "GET /readyz").await, (503, "draining\n".to_owned()));
}

#[tokio::test]
async fn a_page_has_the_families_of_every_server_and_its_own() {
    let (life, _wishes) = Lifecycle::new();
    let page = operator(&Arc::default(), &life).page().await;
    let expected: Vec<&str> =
        families().iter().map(|family| family.name).chain([WIDGETS.name]).collect();
    assert_eq!(page.families(), expected);
}

#[tokio::test]
async fn commands_of_every_server_and_its_own() {
    let (life, _wishes) = Lifecycle::new();
    let operator = operator(&Arc::default(), &life);
    let guest = operator.gate.enter("192.0.2.1:5".parse().unwrap()).unwrap();
    let ask = |request: Request| {
        let operator = &operator;
        async move { operator.carry_out(&request).await }
    };
    let status = ask(Request::new("status")).await.unwrap();
    assert_eq!((&status["version"], &status["widgets"]), (&"1.2.3".into(), &7.into()));
    assert_eq!(status["state"], "starting");
    assert_eq!(status["connections"]["open"], 1);
    let shown = ask(Request::new("connections").with("limit", 5)).await.unwrap();
    assert_eq!(shown["connections"][0]["address"], "192.0.2.1:5");
    assert_eq!(ask(Request::new("make")).await.unwrap(), "made");
    assert_eq!(ask(Request::new("dance")).await.unwrap_err().code, "usage");
    ask(Request::new("ban").with("network", "192.0.2.0/24")).await.unwrap();
    assert!(operator.gate.enter("192.0.2.9:5".parse().unwrap()).is_err());
    ask(Request::new("drain")).await.unwrap();
    life.stopped().await;
    drop(guest);
}
