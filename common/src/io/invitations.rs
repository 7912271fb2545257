//! The operator's commands about invitations, the same at every server that has them: what is typed,
//! what is asked for, and how the answer is shown. Where they are kept is the server's concern.

use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::commands::{CommandError, Place};
use super::control::{Refused, Request};
use super::output::Output;
use super::sources::Sourced;
use super::system_entropy;
use crate::id::{Token, TokenHash};
use crate::invite::{Invite, MAX_LASTS, MAX_USES};
use crate::time::Timestamp;

/// Seconds of a day.
const DAY: u64 = 86_400;

/// `invite ...`
#[derive(Debug, Subcommand)]
pub enum InviteCommand {
    /// Make an invitation, and show what to give away.
    New {
        /// New people for whom it is good.
        #[arg(long, value_name = "N", default_value_t = 1)]
        uses: u32,
        /// Days for which it is good.
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        days: u64,
        /// Which server.
        #[command(flatten)]
        place: Place,
    },
    /// Show the invitations that are good.
    List(Place),
    /// Take an invitation back. Who came in by it stays.
    Revoke {
        /// What was given away, or the name that `invite list` shows.
        what: String,
        /// Which server.
        #[command(flatten)]
        place: Place,
    },
}

impl InviteCommand {
    /// Has it carried out by the running server.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn carry_out<C: Sourced>(&self) -> Result<Value, CommandError> {
        let (place, request) = self.request();
        place.ask::<C>(&request)
    }

    fn request(&self) -> (&Place, Request) {
        match self {
            Self::New { uses, days, place } => {
                let seconds = days.saturating_mul(DAY);
                let request = Request::new("invite new").with("uses", *uses);
                (place, request.with("seconds", seconds))
            }
            Self::List(place) => (place, Request::new("invite list")),
            Self::Revoke { what, place } => {
                (place, Request::new("invite revoke").with("what", what.as_str()))
            }
        }
    }
}

/// The invitation that `invite new` asks for.
///
/// # Errors
/// [`Refused`]: beyond a bound.
pub fn asked(request: &Request, now: Timestamp) -> Result<Invite, Refused> {
    let (uses, lasts): (u32, u64) = (request.argument("uses")?, request.argument("seconds")?);
    if !(1..=MAX_USES).contains(&uses) || !(1..=MAX_LASTS).contains(&lasts) {
        let text = "an invitation is good for 1 to 1000000 people and at most ten years";
        return Err(Refused::new("usage", text));
    }
    Ok(Invite { uses, expires_at: now + Duration::from_secs(lasts) })
}

/// The invitation that `invite revoke` means: one that `given` finds in what was given away, or the
/// one of this name.
///
/// # Errors
/// [`Refused`]: neither.
pub fn meant(
    request: &Request,
    given: impl FnOnce(&str) -> Option<TokenHash>,
) -> Result<TokenHash, Refused> {
    let text: String = request.argument("what")?;
    given(&text).or_else(|| text.parse().ok()).ok_or_else(|| {
        let says = "neither what was given away, nor a name that `invite list` shows";
        Refused::new("usage", says)
    })
}

/// A token that only whoever gets it knows.
///
/// # Errors
/// [`Refused`]: the system has no randomness.
pub fn token() -> Result<Token, Refused> {
    let mut entropy = system_entropy()
        .map_err(|error| Refused::new("failed", format!("no randomness: {error}")))?;
    Ok(Token::new(entropy.array()))
}

/// A new invitation as the operator sees it, with what is to be given away under this name.
#[must_use]
pub fn with_gift(mut made: Value, name: &str, gift: String) -> Value {
    if let Some(fields) = made.as_object_mut() {
        fields.insert(name.to_owned(), gift.into());
    }
    made
}

/// Shows an answer about invitations. Of a new one people see what is under this name alone, to pass
/// it on.
pub fn show(output: Output, answer: &Value, name: &str) {
    match answer.get(name).and_then(Value::as_str) {
        Some(gift) => output.show(|| answer.clone(), || gift.to_owned()),
        None => output.answer(answer),
    }
}

/// An invitation as the operator sees it.
#[must_use]
pub fn shown(token: &TokenHash, invite: &Invite) -> Value {
    json!({
        "name": token.to_string(),
        "uses": invite.uses,
        "expires_at_ms": invite.expires_at.as_millis(),
    })
}

/// Those that are good, as the operator sees them.
#[must_use]
pub fn list(invites: &[(TokenHash, Invite)], now: Timestamp) -> Value {
    let good = invites.iter().filter(|(_, invite)| invite.is_good(now));
    let shown: Vec<Value> = good.map(|(token, invite)| shown(token, invite)).collect();
    json!({ "invitations": shown })
}

/// Told when one more would be too many.
#[must_use]
pub fn too_many() -> Refused {
    Refused::new("refused", "there are too many invitations; revoke some first")
}

/// Told when there is none to be revoked.
#[must_use]
pub fn none_such() -> Refused {
    Refused::new("not_found", "there is no such invitation, or it is used up")
}

/// Told when one was revoked.
#[must_use]
pub fn revoked() -> Value {
    json!({"revoked": true})
}
