//! The life of a server from its start to its end: whether it is ready, when it has to end, and how
//! its goodbyes are spread, so that its clients do not all come to the next server at once.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::control::Answer;
use super::notify;
use super::signals::{Asked, Signals};

/// Goodbyes in a second: about what the handshakes at another server cost one of its cores.
const GOODBYES_PER_SECOND: u32 = 1_000;

/// Requests for a new configuration that may wait.
const MAX_RELOADS: usize = 4;

/// Where a server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Serving,
    /// Goodbyes are said over this time.
    Draining(Duration),
    /// Whoever is still there is cut off.
    Hurrying,
}

/// The life of one server. Clones are of the same life.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    /// Asks for the end; the answer is given by [`supervise`].
    stop: watch::Sender<bool>,
    reloads: mpsc::Sender<oneshot::Sender<Answer>>,
    reloaded: Arc<Mutex<Reloaded>>,
}

/// What came of reloads.
#[derive(Debug, Default)]
struct Reloaded {
    good: u64,
    bad: u64,
    last_is_bad: bool,
}

/// What [`supervise`] listens to, beside signals.
#[derive(Debug)]
pub struct Wishes(mpsc::Receiver<oneshot::Sender<Answer>>);

impl Lifecycle {
    /// A server that starts.
    #[must_use]
    pub fn new() -> (Self, Wishes) {
        let (reloads, wishes) = mpsc::channel(MAX_RELOADS);
        let life = Self {
            phase: watch::Sender::new(Phase::Starting),
            stop: watch::Sender::new(false),
            reloads,
            reloaded: Arc::default(),
        };
        (life, Wishes(wishes))
    }

    /// The server listens: monitoring and the service manager may know.
    pub fn ready(&self) {
        self.phase.send_replace(Phase::Serving);
        notify::ready();
    }

    /// Whether new clients are welcome.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
    }

    /// Whether the end has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Draining(_) | Phase::Hurrying)
    }

    /// Asks for the end; it begins soon.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until somebody asks for the end.
    pub async fn stopped(&self) {
        // This is one of the senders, so there is always one.
        let _ = self.stop.subscribe().wait_for(|stop| *stop).await;
    }

    /// Asks for the configuration to be read again, and waits for what comes of it.
    ///
    /// # Errors
    /// As the answer says.
    pub async fn reload(&self) -> Answer {
        let (answer, answered) = oneshot::channel();
        let gone = || super::control::Refused::new("unavailable", "the server is about to end");
        self.reloads.send(answer).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// How many reloads were good, how many were not, and whether the last one was.
    #[must_use]
    pub fn reloads(&self) -> (u64, u64, bool) {
        let reloaded = self.reloaded.lock().unwrap_or_else(PoisonError::into_inner);
        (reloaded.good, reloaded.bad, !reloaded.last_is_bad)
    }

    fn note_reload(&self, is_good: bool) {
        let mut reloaded = self.reloaded.lock().unwrap_or_else(PoisonError::into_inner);
        reloaded.last_is_bad = !is_good;
        let count = if is_good { &mut reloaded.good } else { &mut reloaded.bad };
        *count = count.saturating_add(1);
    }

    /// Waits until it is time to say goodbye: each of the `ordinal`s has its own moment.
    pub async fn farewell(&self, ordinal: u64) {
        let mut phase = self.phase.subscribe();
        let window = phase
            .wait_for(|phase| matches!(phase, Phase::Draining(_) | Phase::Hurrying))
            .await
            .map_or(Duration::ZERO, |phase| match *phase {
                Phase::Draining(window) => window,
                Phase::Starting | Phase::Serving | Phase::Hurrying => Duration::ZERO,
            });
        tokio::select! {
            () = sleep(moment(window, ordinal)) => {}
            _ = phase.wait_for(|phase| *phase == Phase::Hurrying) => {}
        }
    }

    /// Says goodbye to everybody in `connections`, who wait for [`Self::farewell`], and lets them
    /// end; whoever is there after `limit`, or when the end is asked for again, is cut off.
    pub async fn drain(&self, connections: &mut JoinSet<()>, limit: Duration) {
        let count = u32::try_from(connections.len()).unwrap_or(u32::MAX);
        // A part of the time is for those who are last.
        let window = spread(count).min(limit.checked_div(2).unwrap_or_default());
        notify::stopping(limit.saturating_add(Duration::from_secs(10)));
        tracing::info!(connections = count, ?window, "draining");
        self.phase.send_replace(Phase::Draining(window));
        let mut phase = self.phase.subscribe();
        tokio::select! {
            () = async { while connections.join_next().await.is_some() {} } => {}
            () = sleep(limit) => tracing::warn!("some connections did not end in time"),
            _ = phase.wait_for(|phase| *phase == Phase::Hurrying) => {
                tracing::warn!("asked twice to end: the remaining connections are cut off");
            }
        }
        connections.shutdown().await;
    }

    /// Cuts everything short.
    fn hurry(&self) {
        self.phase.send_replace(Phase::Hurrying);
    }
}

/// Time for so many goodbyes.
fn spread(count: u32) -> Duration {
    Duration::from_secs(1)
        .saturating_mul(count)
        .checked_div(GOODBYES_PER_SECOND)
        .unwrap_or_default()
}

/// The moment of one goodbye: multiples of the golden ratio, which leave no two close together.
fn moment(window: Duration, ordinal: u64) -> Duration {
    /// 2^64 divided by the golden ratio.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let [a, b, ..] = ordinal.wrapping_mul(STEP).to_be_bytes();
    let part = u32::from(u16::from_be_bytes([a, b]));
    window.saturating_mul(part).checked_div(65_536).unwrap_or_default()
}

/// Listens to signals and wishes until the end is asked for. `reload` reads the configuration again,
/// and says what came of it.
///
/// The second signal to end, while the goodbyes are being said, cuts them short.
pub async fn supervise(
    mut signals: Signals,
    mut wishes: Wishes,
    life: Lifecycle,
    mut reload: impl AsyncFnMut() -> Answer,
) {
    loop {
        let asker = tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop => break,
                Asked::Reload => None,
            },
            () = life.stopped() => break,
            Some(asker) = wishes.0.recv() => Some(asker),
        };
        notify::reloading();
        let answer = reload().await;
        life.note_reload(answer.is_ok());
        notify::ready();
        if let Some(asker) = asker {
            // Whoever asked may have gone.
            let _ = asker.send(answer);
        }
    }
    tracing::info!("stopping");
    life.stop();
    while signals.next().await != Asked::Stop {}
    life.hurry();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodbyes_are_spread_evenly() {
        let window = spread(20_000);
        assert_eq!(window, Duration::from_secs(20));
        let mut moments: Vec<Duration> = (0..1_000).map(|n| moment(window, n)).collect();
        moments.sort();
        assert!(*moments.last().unwrap() < window);
        let widest = moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        assert!(widest < Duration::from_millis(60), "{widest:?}");
        assert_eq!(moment(Duration::ZERO, 7), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_is_told_and_whoever_stays_is_cut_off() {
        let (life, _wishes) = Lifecycle::new();
        assert!(!life.is_ready());
        life.ready();
        assert!(life.is_ready());
        let mut connections = JoinSet::new();
        let (told, mut heard) = mpsc::channel(100);
        for ordinal in 0..50 {
            let (life, told) = (life.clone(), told.clone());
            connections.spawn(async move {
                life.farewell(ordinal).await;
                told.send(ordinal).await.unwrap();
                if ordinal == 7 {
                    std::future::pending::<()>().await;
                }
            });
        }
        drop(told);
        tokio::task::yield_now().await;
        assert!(heard.try_recv().is_err());
        life.drain(&mut connections, Duration::from_secs(5)).await;
        assert!(life.is_draining() && !life.is_ready());
        let mut all = Vec::new();
        while let Some(ordinal) = heard.recv().await {
            all.push(ordinal);
        }
        assert_ne!(all, (0..50).collect::<Vec<_>>());
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_wish_to_end_cuts_the_goodbyes_short() {
        let (life, _wishes) = Lifecycle::new();
        let mut connections = JoinSet::new();
        connections.spawn(std::future::pending());
        let draining = life.drain(&mut connections, Duration::from_secs(3_600));
        let start = tokio::time::Instant::now();
        tokio::join!(draining, async {
            sleep(Duration::from_secs(1)).await;
            life.hurry();
        });
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
