//! What the operator of a relay can ask for beside what every server has: mailboxes.

use clap::Subcommand;
use serde_json::Value;
use sremp_common::id::IdentityKey;
use sremp_common::io::commands::{CommandError, Place};
use sremp_common::io::control::Request;
use sremp_common::text::{decode_identity_key, encode_identity_key};

use crate::config::Config;

/// `mailbox ...`
#[derive(Debug, Subcommand)]
pub(super) enum MailboxCommand {
    /// Show how much a mailbox holds.
    Show(Whose),
    /// Remove a mailbox with everything in it; its owner may open a new one, unless banned.
    Drop(Whose),
    /// Do nothing for an id any more, also after a restart; its sessions end, its mailbox takes nothing.
    Ban(Whose),
    /// Take that back.
    Unban(Whose),
    /// Show the banned ids.
    Banned(Place),
}

/// Whose mailbox, and at which relay.
#[derive(Debug, clap::Args)]
pub(super) struct Whose {
    /// The owner's id, sremp1...
    #[arg(value_parser = id)]
    id: IdentityKey,
    /// Which relay.
    #[command(flatten)]
    place: Place,
}

fn id(text: &str) -> Result<IdentityKey, String> {
    decode_identity_key(text).map_err(|error| error.to_string())
}

impl MailboxCommand {
    /// Has it carried out by the running relay.
    pub(super) fn carry_out(&self) -> Result<Value, CommandError> {
        let (command, whose) = match self {
            Self::Show(whose) => ("mailbox show", whose),
            Self::Drop(whose) => ("mailbox drop", whose),
            Self::Ban(whose) => ("mailbox ban", whose),
            Self::Unban(whose) => ("mailbox unban", whose),
            Self::Banned(place) => return place.ask::<Config>(&Request::new("mailbox banned")),
        };
        let request = Request::new(command).with("id", encode_identity_key(&whose.id));
        whose.place.ask::<Config>(&request)
    }
}
