//! For tests: the local interface on a real socket, with a core that only pretends.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{broadcast, watch};

use super::serve;
use super::socket::Socket;
use crate::api::{ApiError, Command, Event, Reply};
use crate::config::Home;
use crate::io::handle::{CoreEnd, CoreHandle, channel};

/// A node in a thread, which answers commands as its maker says.
pub(crate) struct FakeNode {
    pub(crate) home: Home,
    pub(crate) events: broadcast::Sender<Arc<Event>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl FakeNode {
    pub(crate) fn start(
        answer: impl FnMut(Command) -> Result<Reply, ApiError> + Send + 'static,
    ) -> Self {
        Self::start_owned_by(None, answer)
    }

    /// As if the socket belonged to another user.
    pub(crate) fn start_owned_by(
        owner: Option<u32>,
        answer: impl FnMut(Command) -> Result<Reply, ApiError> + Send + 'static,
    ) -> Self {
        let directory = private_directory();
        let home = Home::new(directory.path());
        let (handle, end) = channel();
        let events = end.events.clone();
        let (stop, stopping) = watch::channel(false);
        let (bound, is_bound) = std::sync::mpsc::channel();
        let path = home.socket();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut socket = Socket::bind(&path).await.unwrap();
                if let Some(owner) = owner {
                    socket = socket.owned_by(owner);
                }
                bound.send(()).unwrap();
                run(socket, handle, end, stopping, answer).await;
            });
        });
        is_bound.recv().unwrap();
        Self { home, events, stop, thread: Some(thread), _directory: directory }
    }

    /// Stops, and waits for it.
    pub(crate) fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// A directory that only its owner can enter.
pub(crate) fn private_directory() -> tempfile::TempDir {
    let private = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(private).tempdir().unwrap()
}

async fn run(
    socket: Socket,
    handle: CoreHandle,
    mut end: CoreEnd,
    stopping: watch::Receiver<bool>,
    mut answer: impl FnMut(Command) -> Result<Reply, ApiError>,
) {
    let core = async move {
        while let Some(request) = end.requests.recv().await {
            // Nobody may be waiting any more.
            let _ = request.answer.send(answer(request.command));
        }
    };
    tokio::join!(serve(socket, handle, stopping), core);
}
