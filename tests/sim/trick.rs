//! Relays that do not do what they promise: they reorder, repeat, answer members differently, keep
//! answers to themselves. All of it stays within what the sessions authenticate.

use std::collections::BTreeSet;

use sremp_common::entropy::Entropy;
use sremp_common::id::IdentityKey;
use sremp_common::wire::{List, Message, MessageBatch};

/// What a relay does wrong at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tricks {
    /// Hands over each batch backwards.
    pub reorders: bool,
    /// Hands over each batch twice.
    pub repeats: bool,
    /// Stores, and half of the time does not say so.
    pub keeps_answers: bool,
    /// Says that it stores, and half of the time does not.
    pub loses: bool,
    /// Hands over to these only about half of what it has for them, until the trick ends.
    pub withholds_from: BTreeSet<IdentityKey>,
    /// Of what it has for these, it hands over nothing that is longer than so many bytes, until the
    /// trick ends.
    pub longest: Option<usize>,
}

/// What becomes of something that the relay was about to say.
#[derive(Debug, Default)]
pub(crate) struct Twisted {
    /// Said now, in this order.
    pub(crate) said: Vec<Message>,
    /// Said when the trick has ended.
    pub(crate) held: Option<Message>,
}

impl Tricks {
    /// Whether it behaves.
    #[must_use]
    pub fn is_honest(&self) -> bool {
        *self == Self::default()
    }

    /// What the relay says instead of `message` to `owner`.
    pub(crate) fn twist(
        &self,
        owner: Option<IdentityKey>,
        message: Message,
        entropy: &mut Entropy,
    ) -> Twisted {
        let batch = match message {
            Message::MessageBatch(batch) if !self.is_honest() => batch,
            Message::StoreResponse(_) if self.keeps_answers && entropy.below(2) == 0 => {
                return Twisted::default();
            }
            honest => return Twisted { said: vec![honest], held: None },
        };
        let withholds = owner.is_some_and(|owner| self.withholds_from.contains(&owner));
        let has_more = batch.has_more;
        let is_empty = batch.messages.is_empty();
        let (held, mut said): (Vec<_>, Vec<_>) =
            batch.messages.into_iter().partition(|stored| match self.longest {
                Some(longest) => withholds && stored.blob.len() > longest,
                None => withholds && entropy.below(2) == 0,
            });
        if self.reorders {
            said.reverse();
        }
        let batch = |messages| {
            Message::MessageBatch(MessageBatch { messages: List::truncated(messages), has_more })
        };
        let times = if self.repeats { 2 } else { 1 };
        let speaks = is_empty || !said.is_empty();
        Twisted {
            said: if speaks { vec![batch(said); times] } else { Vec::new() },
            held: (!held.is_empty()).then(|| batch(held)),
        }
    }

    /// Whether a request to store is thrown away, and answered as if it were not.
    pub(crate) fn throws_away(&self, message: &Message, entropy: &mut Entropy) -> bool {
        self.loses && matches!(message, Message::StoreMessage(_)) && entropy.below(2) == 0
    }
}
