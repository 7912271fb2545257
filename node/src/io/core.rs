//! The core thread: takes whatever has come, lets the node handle it in one transaction, commits,
//! and only then lets anything out. It is the only place where a node and its store meet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sremp_common::io::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use super::handle::CoreEnd;
use super::net::{NetEvent, Network};
use crate::api::{ApiError, Reply};
use crate::node::{Input, Node, Output};
use crate::store::{Store, StoreError, Tx};

/// Inputs that share one commit. What waits longer than one commit takes goes into the next.
const MAX_BATCH: usize = 512;
/// How long a batch that lets nothing out may stay uncommitted: nobody waits for it, and what comes
/// next shares its commit. Lost in a crash, it is as if its inputs had not come.
const LAZY: Duration = Duration::from_millis(50);
/// Longest sleep: clocks may be set, and a suspended machine wakes up late.
const MAX_SLEEP: Duration = Duration::from_secs(60);

/// Why the core ended.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The store failed: nothing more is acknowledged; the next start goes on from disk.
    #[error("the data file failed; nothing that was confirmed is lost")]
    Store(#[from] StoreError),
}

/// Everything that the core thread owns.
#[derive(Debug)]
pub struct Core {
    /// The node.
    pub node: Node,
    /// Its store.
    pub store: Store,
    /// Commands and watchers.
    pub end: CoreEnd,
    /// What the network tasks report.
    pub net_events: mpsc::Receiver<NetEvent>,
    /// The network tasks.
    pub network: Network,
    /// Both clocks.
    pub clock: Clock,
    /// Says `true` when the program shall end.
    pub stop: watch::Receiver<bool>,
}

type Answer = oneshot::Sender<Result<Reply, ApiError>>;

impl Core {
    /// Runs until it is told to stop.
    ///
    /// # Errors
    /// [`CoreError`] when the store fails.
    pub async fn run(mut self) -> Result<(), CoreError> {
        let mut answers: BTreeMap<u64, Answer> = BTreeMap::new();
        let mut next_reply = 0_u64;
        loop {
            self.release(&mut answers);
            let Some(first) = self.next_input(MAX_SLEEP, &mut answers, &mut next_reply).await
            else {
                break;
            };
            let tx = self.store.begin()?;
            self.handle_batch(&tx, first, &mut answers, &mut next_reply)?;
            let commit_by = self.clock.now().instant + LAZY;
            while tx.is_dirty() && !self.node.has_output() {
                let left = commit_by.since(self.clock.now().instant);
                if left.is_zero() {
                    break;
                }
                let next = self.next_input(left, &mut answers, &mut next_reply).await;
                // The next one to ask hears it, too.
                let Some(next) = next else { break };
                self.handle_batch(&tx, next, &mut answers, &mut next_reply)?;
            }
            tx.commit()?;
        }
        self.node.shut_down(self.clock.now());
        self.release(&mut answers);
        self.network.drain().await;
        Ok(())
    }

    /// Handles an input, and what waits behind it.
    fn handle_batch(
        &mut self,
        tx: &Tx,
        first: Input,
        answers: &mut BTreeMap<u64, Answer>,
        next_reply: &mut u64,
    ) -> Result<(), CoreError> {
        let now = self.clock.now();
        // Under load something always waits: time must pass all the same.
        if self.node.poll_timeout().is_some_and(|at| at <= now.instant) {
            self.node.handle(tx, Input::Timeout, now)?;
        }
        self.node.handle(tx, first, now)?;
        for count in 1..MAX_BATCH {
            // A flood from the network leaves every eighth place to the owner.
            if count % 8 == 0
                && let Ok(request) = self.end.requests.try_recv()
            {
                let input = command_input(request, answers, next_reply);
                self.node.handle(tx, input, now)?;
            }
            let Some(input) = self.waiting_input(answers, next_reply) else { break };
            self.node.handle(tx, input, now)?;
        }
        Ok(self.node.finish(tx, now)?)
    }

    /// Lets out what the committed batch wants done.
    fn release(&mut self, answers: &mut BTreeMap<u64, Answer>) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Reply { reply_to, result } => {
                    if let Some(answer) = answers.remove(&reply_to) {
                        // Whoever asked may have gone away.
                        let _ = answer.send(result);
                    }
                }
                Output::Event(event) => {
                    // Without watchers there is nobody to tell.
                    let _ = self.end.events.send(Arc::new(event));
                }
                Output::Effect(effect) => self.network.carry_out(effect),
            }
        }
    }

    /// Waits for the next input; `None` when the program shall end.
    async fn next_input(
        &mut self,
        patience: Duration,
        answers: &mut BTreeMap<u64, Answer>,
        next_reply: &mut u64,
    ) -> Option<Input> {
        let now = self.clock.now().instant;
        let sleep = self.node.poll_timeout().map_or(patience, |at| at.since(now)).min(patience);
        tokio::select! {
            biased;
            _ = self.stop.wait_for(|stop| *stop) => None,
            Some(event) = self.net_events.recv() => {
                Some(Input::Transport(self.network.note(event)))
            }
            Some(request) = self.end.requests.recv() => {
                Some(command_input(request, answers, next_reply))
            }
            () = tokio::time::sleep(sleep) => Some(Input::Timeout),
        }
    }

    /// The next input that has come already.
    fn waiting_input(
        &mut self,
        answers: &mut BTreeMap<u64, Answer>,
        next_reply: &mut u64,
    ) -> Option<Input> {
        if let Ok(event) = self.net_events.try_recv() {
            return Some(Input::Transport(self.network.note(event)));
        }
        let request = self.end.requests.try_recv().ok()?;
        Some(command_input(request, answers, next_reply))
    }
}

fn command_input(
    request: super::handle::CoreRequest,
    answers: &mut BTreeMap<u64, Answer>,
    next_reply: &mut u64,
) -> Input {
    let reply_to = *next_reply;
    *next_reply = next_reply.wrapping_add(1);
    answers.insert(reply_to, request.answer);
    Input::Command { reply_to, command: request.command }
}
