//! What the operator of a relay can ask for beside what every server has: invitations, and
//! mailboxes.

use clap::Subcommand;
use serde_json::Value;
use sremp_common::id::IdentityKey;
use sremp_common::io::commands::{CommandError, Place};
use sremp_common::io::control::Request;
use sremp_common::text::{decode_identity_key, encode_identity_key};

use crate::config::Config;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// `invite ...`
#[derive(Debug, Subcommand)]
pub(super) enum InviteCommand {
    /// Make an invitation, and show the link to give away: `sremp relay add LINK` opens the mailbox.
    New {
        /// New owners for whom it is good.
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// Days for which it is good.
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        days: u64,
        /// Which relay.
        #[command(flatten)]
        place: Place,
    },
    /// Show the invitations that are good.
    List(Place),
    /// Take an invitation back. Who came in by it stays.
    Revoke {
        /// The link, or the name that `invite list` shows.
        what: String,
        /// Which relay.
        #[command(flatten)]
        place: Place,
    },
}

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

impl InviteCommand {
    /// Has it carried out by the running relay.
    pub(super) fn carry_out(&self) -> Result<Value, CommandError> {
        let (place, request) = match self {
            Self::New { uses, days, place } => {
                let seconds = days.saturating_mul(DAY);
                let request = Request::new("invite new").with("uses", *uses);
                (place, request.with("seconds", seconds))
            }
            Self::List(place) => (place, Request::new("invite list")),
            Self::Revoke { what, place } => {
                (place, Request::new("invite revoke").with("what", what.as_str()))
            }
        };
        place.ask::<Config>(&request)
    }
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
