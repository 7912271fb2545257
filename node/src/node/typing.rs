//! Who writes at this moment: told on sessions that are open anyway, kept in memory, gone by itself.
//!
//! It is no content of the group: nothing of it may ever wait, be sent again, or lie at a relay, and
//! keys of a ratchet that are spent on what nobody needs would be missing for messages that come late.

use std::collections::BTreeMap;
use std::time::Duration;

use sremp_common::id::{GroupId, IdentityKey};
use sremp_common::limit::MAX_RECEIPT_MEMBERS;
use sremp_common::time::{Instant, Now};
use sremp_common::wire::{Message, Typing};

use super::{Call, Node, NodeError};
use crate::api::{ApiError, EventBody, PathPolicy, PersonView, Reply};
use crate::conversations::{Conversation, ConversationId, Standing};
use crate::identity::Contacts;
use crate::store::Tx;
use crate::transport::Target;

/// That we write is told this often at most.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Nobody is taken to write for longer than this without saying so again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(12);
/// A change of somebody within this time after their last one is passed over.
const CALM: Duration = Duration::from_secs(2);
/// People who are remembered at a time.
const MAX_HEARD: usize = 256;
/// Conversations in which we write at a time.
const MAX_TOLD: usize = 64;

/// Who writes where; in memory only.
#[derive(Debug, Default)]
pub(super) struct Typists {
    /// Where we said last that we write, and when.
    told: BTreeMap<ConversationId, Instant>,
    heard: BTreeMap<(ConversationId, IdentityKey), Heard>,
}

#[derive(Clone, Copy, Debug)]
struct Heard {
    /// They write, as far as known until then.
    until: Option<Instant>,
    /// When that changed last.
    changed: Instant,
}

impl Typists {
    /// When somebody is forgotten next.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.heard.values().filter_map(|heard| heard.until).min()
    }

    /// Takes in what somebody says; answers whether it is news.
    fn hear(&mut self, key: (ConversationId, IdentityKey), typing: bool, now: Instant) -> bool {
        if !self.heard.contains_key(&key) {
            if !typing {
                return false;
            }
            if self.heard.len() >= MAX_HEARD {
                self.heard.retain(|_, heard| heard.until.is_some() || heard.changed + CALM > now);
            }
            if self.heard.len() >= MAX_HEARD {
                return false;
            }
        }
        let until = typing.then_some(now + FORGOTTEN_AFTER);
        let Some(before) = self.heard.get_mut(&key) else {
            self.heard.insert(key, Heard { until, changed: now });
            return true;
        };
        if before.until.is_some() == typing {
            before.until = until;
            return false;
        }
        if before.changed + CALM > now {
            return false;
        }
        *before = Heard { until, changed: now };
        true
    }

    /// Somebody does not write any more, whatever they said; answers whether they did.
    fn end(&mut self, key: (ConversationId, IdentityKey), now: Instant) -> bool {
        let heard = self.heard.get_mut(&key).filter(|heard| heard.until.is_some());
        heard.is_some_and(|heard| {
            *heard = Heard { until: None, changed: now };
            true
        })
    }
}

impl Node {
    /// Who writes in a conversation.
    pub(super) fn typing_show(&self, tx: &Tx, with: &str) -> Result<Reply, NodeError> {
        let id = self.resolve_conversation(tx, with)?;
        let mut people = Vec::new();
        for ((conversation, who), heard) in &self.typists.heard {
            if *conversation == id && heard.until.is_some() {
                people.push(PersonView { id: who.to_string(), name: self.name_of(tx, who)? });
            }
        }
        Ok(Reply::Typing(people))
    }

    /// We write in a conversation, or have stopped: those are told with whom a session is open.
    pub(super) fn typing_tell(
        &mut self,
        tx: &Tx,
        with: &str,
        typing: bool,
        now: Now,
    ) -> Result<Reply, NodeError> {
        if !self.config.typing {
            return Err(ApiError::refused(
                "others are not told when you write, nor you when they do; \
                 to have both, set `typing = true` in config.toml",
            )
            .into());
        }
        let id = self.resolve_conversation(tx, with)?;
        let conversation = self.writable(tx, id)?;
        let last = self.typists.told.get(&id);
        let is_idle = if typing {
            last.is_some_and(|at| *at + TOLD_EVERY > now.instant)
        } else {
            last.is_none()
        };
        if is_idle {
            return Ok(Reply::Done {});
        }
        self.typists.told.retain(|_, at| *at + FORGOTTEN_AFTER > now.instant);
        self.typists.told.remove(&id);
        if typing && self.typists.told.len() < MAX_TOLD {
            self.typists.told.insert(id, now.instant);
        }
        if let Some(group) = self.groups_by_proof(tx, &conversation)?.first() {
            self.tell_typing(tx, *group, typing, now)?;
        }
        Ok(Reply::Done {})
    }

    fn tell_typing(
        &mut self,
        tx: &Tx,
        group: GroupId,
        typing: bool,
        now: Now,
    ) -> Result<(), NodeError> {
        let members = self.groups.summary(tx, &group)?.members;
        if members.len() > MAX_RECEIPT_MEMBERS {
            return Ok(());
        }
        for key in members.iter().map(|member| member.identity_key) {
            let is_direct = self.path_policy(tx, &key)? != PathPolicy::Relay;
            if key == self.own.key()
                || Contacts::is_rejected(tx, &key)?
                || !is_direct
                || !self.transport.has_session(&key)
            {
                continue;
            }
            let message = Message::Typing(Typing { group, typing });
            self.call(Target::Peer(key), &[], message, Call::Ignored, now);
        }
        Ok(())
    }

    /// Somebody says on their session that they write. Whose session it is is proved; that they may
    /// write there is looked up.
    pub(super) fn hear_typing(
        &mut self,
        tx: &Tx,
        who: IdentityKey,
        Typing { group, typing }: Typing,
        now: Now,
    ) -> Result<(), NodeError> {
        if !self.config.typing {
            return Ok(());
        }
        let Some(conversation) = Conversation::of_group(tx, &group)? else { return Ok(()) };
        if Contacts::is_rejected(tx, &who)? || conversation.standing != Standing::Active {
            return Ok(());
        }
        if self.groups.summary(tx, &group)?.member(&who).is_none() {
            return Ok(());
        }
        if self.typists.hear((conversation.id, who), typing, now.instant) {
            self.tell_typist(tx, conversation.id, who, typing, now)?;
        }
        Ok(())
    }

    /// Somebody has written what they wrote.
    pub(super) fn has_written(
        &mut self,
        tx: &Tx,
        conversation: ConversationId,
        who: IdentityKey,
        now: Now,
    ) -> Result<(), NodeError> {
        if self.typists.end((conversation, who), now.instant) {
            self.tell_typist(tx, conversation, who, false, now)?;
        }
        Ok(())
    }

    /// Forgets those who have not said for long that they write.
    pub(super) fn forget_typists(&mut self, tx: &Tx, now: Now) -> Result<(), NodeError> {
        let is_over = |heard: &Heard| heard.until.is_some_and(|until| until <= now.instant);
        let over: Vec<_> = self
            .typists
            .heard
            .iter()
            .filter(|(_, heard)| is_over(heard))
            .map(|(key, _)| *key)
            .collect();
        for (conversation, who) in over {
            self.has_written(tx, conversation, who, now)?;
        }
        Ok(())
    }

    fn tell_typist(
        &mut self,
        tx: &Tx,
        conversation: ConversationId,
        who: IdentityKey,
        typing: bool,
        now: Now,
    ) -> Result<(), NodeError> {
        let body = EventBody::Typing {
            conversation: conversation.text(),
            by: who.to_string(),
            by_name: self.name_of(tx, &who)?,
            typing,
        };
        self.tell_in_passing(tx, body, now)
    }
}

#[cfg(test)]
mod tests {
    use sremp_common::entropy::Entropy;
    use sremp_common::key::IdentitySecret;

    use super::*;

    #[test]
    fn whoever_flutters_is_heard_now_and_then_and_forgotten_by_itself() {
        let mut entropy = Entropy::from_number(1);
        let mut key = |group| {
            let who = IdentitySecret::generate(&mut entropy).public();
            (ConversationId::Group(GroupId::new([group; 16])), who)
        };
        let at = Instant::from_millis;
        let mut typists = Typists::default();
        let bob = key(1);
        assert!(!typists.hear(bob, false, at(0)), "nobody thought so");
        let changes = (0..10_000).filter(|ms| typists.hear(bob, ms % 2 == 0, at(*ms))).count();
        assert_eq!(changes, 5, "every two seconds");
        typists.end(bob, at(10_000));
        assert!(typists.hear(bob, true, at(20_000)));
        assert!(!typists.hear(bob, true, at(25_000)), "no news");
        assert_eq!(typists.wake_at(), Some(at(37_000)));
        assert!(typists.end(bob, at(37_000)) && !typists.end(bob, at(37_000)));
        assert_eq!(typists.wake_at(), None);
        // A crowd fills the list, and those who have stopped make room.
        let crowd: Vec<_> = (0..MAX_HEARD).map(|_| key(2)).collect();
        let heard = crowd.iter().filter(|key| typists.hear(**key, true, at(50_000))).count();
        assert_eq!(heard, MAX_HEARD);
        assert!(!typists.hear(bob, true, at(50_000)));
        typists.end(crowd[0], at(50_000));
        assert!(typists.hear(bob, true, at(53_000)));
    }
}
