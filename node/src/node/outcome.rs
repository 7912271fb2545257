//! What the keeper of mailboxes answers to a store, and what that means for each recipient.

use std::time::Duration;

use sremp_common::wire::{ErrorCode, Message, StoreResponse, StoreResult};

use crate::delivery::Trouble;
use crate::transport::CallError;

/// Longest wait that a keeper of mailboxes can make us keep.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What became of a store for one recipient.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// A mailbox of theirs has it.
    Stored,
    /// Not now: to be tried again after so long at least.
    TryAgain(Duration, Trouble),
    /// Never.
    Hopeless(&'static str),
}

/// What became of a store for each of `count` recipients.
pub(super) fn outcomes(result: Result<Message, CallError>, count: usize) -> Vec<Outcome> {
    let whole = match result {
        Ok(Message::StoreResponse(StoreResponse { results })) => {
            let outcomes = results.iter().map(outcome);
            let missing = std::iter::repeat(Outcome::TryAgain(Duration::ZERO, Trouble::Broken));
            return outcomes.chain(missing).take(count).collect();
        }
        Ok(_) => Outcome::TryAgain(Duration::ZERO, Trouble::Broken),
        Err(error) => {
            let at_least = match &error {
                CallError::Refused(body) => refused_for(body.retry_after),
                // Answered at once, without anything having left: trying again at once would never
                // end.
                CallError::Busy | CallError::Unsendable | CallError::Rejected => refused_for(None),
                CallError::Unreachable(_)
                | CallError::TimedOut
                | CallError::Closed
                | CallError::Misbehaved(_) => Duration::ZERO,
            };
            Outcome::TryAgain(at_least, Trouble::of_call(&error))
        }
    };
    vec![whole; count]
}

fn outcome(result: &StoreResult) -> Outcome {
    match result.refused {
        None => Outcome::Stored,
        Some(ErrorCode::TooLarge) => {
            Outcome::Hopeless("it is larger than the recipient's mailboxes take")
        }
        Some(code) => Outcome::TryAgain(refused_for(result.retry_after), Trouble::of_refusal(code)),
    }
}

/// Whether the message was answered, but not for each recipient: one of them may be the reason.
pub(super) const fn is_refused_as_a_whole(result: &Result<Message, CallError>) -> bool {
    matches!(result, Err(CallError::Refused(_) | CallError::Misbehaved(_) | CallError::Unsendable))
}

/// A refusal is never answered by trying the same again at once.
fn refused_for(retry_after: Option<u32>) -> Duration {
    wait_of(retry_after.unwrap_or(1))
}

/// The wait that a keeper asks for, within what it may ask for.
pub(super) fn wait_of(retry_after: u32) -> Duration {
    Duration::from_secs(retry_after.max(1).into()).min(MAX_RETRY_AFTER)
}
