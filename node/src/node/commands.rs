//! Commands of the owner: each is carried out whole, or changes nothing and says why.

use sremp_common::time::Now;

use super::{Node, NodeError, Output};
use crate::api::{ApiError, Command, ErrorKind, Reply, Trust};
use crate::groups::{Change, GroupError, Role};
use crate::identity::{Contacts, Lookalikes, Tokens};
use crate::store::{StoreError, Tx};

impl Node {
    pub(super) fn handle_command(
        &mut self,
        tx: &Tx,
        reply_to: u64,
        command: Command,
        now: Now,
    ) -> Result<(), StoreError> {
        let name = command.name();
        let result = match self.command(tx, reply_to, command, now) {
            Ok(Some(reply)) => {
                self.accept(tx)?;
                Ok(reply)
            }
            // Answered later, when others have answered.
            Ok(None) => return self.accept(tx),
            Err(NodeError::Store(error)) => return Err(error),
            Err(error) => {
                tracing::debug!(command = name, %error, "a command was refused");
                self.refuse(tx);
                Err(api_error(error))
            }
        };
        self.outputs.push_back(Output::Reply { reply_to, result });
        Ok(())
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the second half, where a forgotten command is refused and its test fails"
    )]
    fn command(
        &mut self,
        tx: &Tx,
        reply_to: u64,
        command: Command,
        now: Now,
    ) -> Result<Option<Reply>, NodeError> {
        let reply = match command {
            Command::Status => self.status(tx, now),
            Command::Link { once } => self.link(tx, once, now),
            Command::LinkRevoke => {
                Tokens::revoke_links(tx)?;
                self.admission_changed = true;
                Ok(Reply::Done {})
            }
            Command::Peers { name } => {
                self.search_peers(reply_to, name, now)?;
                return Ok(None);
            }
            Command::Send { to, text, reply_to } => {
                self.send(tx, &to, &text, reply_to.as_deref(), now)
            }
            Command::MessageShow { id } => self.message_show(tx, &id),
            Command::History { with, limit, before } => {
                self.history(tx, &with, limit, before.as_deref())
            }
            Command::MarkRead { with } => self.mark_read(tx, &with, now),
            Command::React { with, message, reaction } => {
                self.react(tx, &with, &message, reaction.as_deref(), now)
            }
            Command::Edit { with, message, text } => self.edit(tx, &with, &message, &text, now),
            Command::Delete { with, message } => self.delete(tx, &with, &message, now),
            Command::TypingShow { with } => self.typing_show(tx, &with),
            Command::TypingTell { with, typing } => self.typing_tell(tx, &with, typing, now),
            Command::TimerShow { with } => self.timer_show(tx, &with),
            Command::TimerSet { with, seconds } => self.timer_set(tx, &with, seconds, now),
            Command::Events { after, limit } => Self::events(tx, after, limit, now),
            Command::RequestsList => self.requests_list(tx),
            Command::RequestsAccept { who } => self.request_accept(tx, &who, now),
            Command::RequestsDecline { who } => self.request_decline(tx, &who, now),
            Command::RelayAdd { link } => self.relay_add(tx, &link, now),
            Command::RelayMigrate { relay, link } => self.relay_migrate(tx, &relay, &link, now),
            Command::RelayRemove { relay } => self.relay_remove(tx, &relay, now),
            Command::RelayList => Ok(Reply::Relays(self.relay_views(tx)?)),
            Command::RelayAllow { who } => self.relay_allow(tx, &who, true, now),
            Command::RelayDisallow { who } => self.relay_allow(tx, &who, false, now),
            Command::RendezvousAdd(options) => self.rendezvous_add(tx, options, now),
            Command::RendezvousRemove { server } => self.rendezvous_remove(tx, &server, now),
            Command::RendezvousList => Ok(self.rendezvous_list()),
            Command::IdentityShow => Ok(self.identity_view()),
            Command::IdentityRename { name } => self.identity_rename(tx, name, now),
            Command::IdentityFlag { flag, on } => self.identity_flag(tx, flag, on, now),
            Command::IdentityPicture { bytes } => self.identity_picture(tx, bytes, now),
            Command::IdentityRotateNoiseKey => self.rotate_noise_key(tx, now),
            Command::IdentityRotateTokens => self.rotate_tokens(tx, now),
            other => self.people_command(tx, other, now),
        };
        reply.map(Some)
    }

    /// The second half of the commands: contacts and groups.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the first half has the others")]
    fn people_command(&mut self, tx: &Tx, command: Command, now: Now) -> Result<Reply, NodeError> {
        match command {
            Command::ContactAdd { what, alias } => {
                self.contact_add(tx, &what, alias.as_deref(), now)
            }
            Command::ContactList => {
                let mut views = Vec::new();
                let contacts = Contacts::all(tx)?;
                let names = Lookalikes::of(&contacts);
                for contact in &contacts {
                    views.push(self.contact_view_among(tx, contact, &names)?);
                }
                Ok(Reply::Contacts(views))
            }
            Command::ContactShow { who } => {
                let key = self.resolve_contact(tx, &who)?;
                let contact = Contacts::find(tx, &key)?
                    .ok_or_else(|| ApiError::not_found("no such contact"))?;
                Ok(Reply::Contact(Box::new(self.contact_view(tx, &contact)?)))
            }
            Command::ContactAlias { who, alias } => self.contact_alias(tx, &who, &alias, now),
            Command::ContactTrust { who } => {
                self.contact_trust(tx, &who, Trust::Trusted, None, now)
            }
            Command::ContactVerify { who } => {
                self.contact_trust(tx, &who, Trust::Trusted, Some(true), now)
            }
            Command::ContactReject { who } => {
                self.contact_trust(tx, &who, Trust::Rejected, Some(false), now)
            }
            Command::ContactReset { who } => {
                self.contact_trust(tx, &who, Trust::Unknown, Some(false), now)
            }
            Command::ContactPath { who, path } => self.contact_path(tx, &who, path, now),
            Command::ContactRemove { who } => self.contact_remove(tx, &who, now),
            Command::GroupCreate { name, members, suite } => {
                self.group_create(tx, &name, &members, suite.as_deref(), now)
            }
            Command::GroupList => self.group_list(tx),
            Command::GroupShow { group } => {
                let group = self.resolve_group(tx, &group)?;
                self.group_view(tx, group)
            }
            Command::GroupAdd { group, who } => self.group_add(tx, &group, &who, now),
            Command::GroupRemove { group, who } => self.group_remove(tx, &group, &who, now),
            Command::GroupPromote { group, who } => {
                let change = |node: &mut Self, group: &_| {
                    let key = node.resolve_member(tx, group, &who)?;
                    node.refuse_role(tx, group, &key, Role::Admin, "is an admin already")?;
                    Ok(Change::Promote(key))
                };
                self.group_edit(tx, &group, change, now)
            }
            Command::GroupDemote { group, who } => {
                let change = |node: &mut Self, group: &_| {
                    let key = node.resolve_member(tx, group, &who)?;
                    node.refuse_role(tx, group, &key, Role::Member, "is no admin")?;
                    Ok(Change::Demote(key))
                };
                self.group_edit(tx, &group, change, now)
            }
            Command::GroupRename { group, name } => self.group_rename(tx, &group, &name, now),
            Command::GroupLeave { group } => self.group_leave(tx, &group, now),
            other => Err(ApiError::failed(format!("`{}` is not served here", other.name())).into()),
        }
    }

    fn relay_allow(
        &mut self,
        tx: &Tx,
        who: &str,
        allowed: bool,
        now: Now,
    ) -> Result<Reply, NodeError> {
        let reply = self.contact_edit(
            tx,
            who,
            |_, contact| {
                contact.relay_allowed = allowed;
                Ok(())
            },
            now,
        )?;
        self.load_keeper(tx)?;
        Ok(reply)
    }
}

/// What the owner is told of an error.
fn api_error(error: NodeError) -> ApiError {
    match error {
        NodeError::Api(error) => error,
        NodeError::Group(error) => {
            let kind = match &error {
                GroupError::NoSuchGroup => ErrorKind::NotFound,
                GroupError::NotMember
                | GroupError::Stale
                | GroupError::TooManyRivals
                | GroupError::Leaving
                | GroupError::Policy(_)
                | GroupError::NothingToCommit => ErrorKind::Refused,
                GroupError::Credential(_)
                | GroupError::KeyPackage(_)
                | GroupError::Welcome(_)
                | GroupError::Offer(_)
                | GroupError::TooLong(_)
                | GroupError::NotMemberThen(_)
                | GroupError::StateGone
                | GroupError::Mls(_)
                | GroupError::Store(_) => ErrorKind::Failed,
            };
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            ApiError::new(kind, format!("{error}{}", cause.unwrap_or_default()))
        }
        NodeError::Store(error) => ApiError::failed(error.to_string()),
    }
}
