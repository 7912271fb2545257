//! What the relay adds to what every operator sees and does: what its mailboxes hold, who may have
//! one, and the upkeep of its store. Monitoring sees numbers only, never whose.

use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, json};
use sremp_common::id::{IdentityKey, TokenHash};
use sremp_common::io::Clock;
use sremp_common::io::control::{Answer, Refused, Request};
use sremp_common::io::invitations;
use sremp_common::io::metrics::{Family, Histogram, Page};
use sremp_common::io::operator::{self, Operated, unknown};
use sremp_common::text::{RelayLink, decode_identity_key, decode_relay_link, encode_relay_link};
use tokio::sync::{mpsc, oneshot};

use super::Ready;
use super::keeper::{Figures, Job, KeeperStatus, Order};
use crate::engine::Room;

const STORE_UP: Family = Family::gauge("sremp_store_up", "1 when the store answers, otherwise 0.");
const MAILBOXES: Family = Family::gauge("sremp_relay_mailboxes", "Open mailboxes.");
const MESSAGES: Family = Family::gauge("sremp_relay_messages", "Messages that wait.");
const BYTES: Family = Family::gauge("sremp_relay_bytes", "Bytes of messages that wait.");
const SESSIONS: Family = Family::gauge("sremp_relay_sessions", "Sessions that are established.");
const DIFFICULTY: Family =
    Family::gauge("sremp_relay_pow_difficulty", "Zero bits that strangers must show now.");
const ROOM: Family = Family::gauge(
    "sremp_relay_room",
    "What the disk allows: 2 everything, 1 no new mailboxes, 0 no new messages either.",
);
const DISK_FREE: Family =
    Family::gauge("sremp_relay_disk_free_bytes", "Free bytes on the store's disk.");
const FILE: Family = Family::gauge("sremp_relay_store_file_bytes", "Bytes of the store's file.");
const STORES: Family =
    Family::counter("sremp_relay_stores_total", "Messages offered, by what came of them.")
        .by("result");
const REFUSED: Family =
    Family::counter("sremp_relay_requests_refused_total", "Other requests refused.").by("code");
const REGISTRATIONS: Family =
    Family::counter("sremp_relay_registrations_total", "Mailboxes opened or renewed.");
const PUSHED: Family =
    Family::counter("sremp_relay_pushed_total", "Messages sent to their owners.");
const GONE: Family =
    Family::counter("sremp_relay_gone_total", "Messages deleted, by why.").by("reason");
const KEY_PACKAGES: Family =
    Family::counter("sremp_relay_key_packages_total", "Key packages handed out.");
const SLOW: Family = Family::counter(
    "sremp_relay_slow_readers_total",
    "Sessions given up because they did not take their answers.",
);
const DISK_FULL: Family =
    Family::counter("sremp_relay_disk_full_total", "Times that the disk was full.");
const COMMIT: Family = Family::histogram(
    "sremp_relay_commit_seconds",
    "Time until a batch is durable, in the journal or in the database.",
);

/// Every figure that this program exports.
#[must_use]
pub fn families() -> Vec<Family> {
    let mut all = operator::families();
    all.extend([STORE_UP, MAILBOXES, MESSAGES, BYTES, SESSIONS, DIFFICULTY, ROOM, DISK_FREE, FILE]);
    all.extend([STORES, REFUSED, REGISTRATIONS, PUSHED, GONE, KEY_PACKAGES, SLOW, DISK_FULL]);
    all.push(COMMIT);
    all
}

/// The relay as its operator meets it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) ready: Ready,
    pub(super) data: PathBuf,
    pub(super) jobs: mpsc::Sender<Job>,
    pub(super) commits: Arc<Histogram>,
    pub(super) clock: Clock,
}

/// What `status` shows of the relay.
#[derive(Serialize)]
struct Shown {
    id: String,
    link: Option<String>,
    #[serde(flatten)]
    keeper: KeeperStatus,
}

impl Operated for Served {
    async fn is_alive(&self) -> bool {
        self.keeper().await.is_some()
    }

    async fn trouble(&self) -> Option<String> {
        match self.keeper().await {
            None => Some("the store does not answer".to_owned()),
            Some(status) if status.room == Room::NoNewMessages => {
                Some("the disk is full".to_owned())
            }
            Some(_) => None,
        }
    }

    async fn status(&self) -> Map<String, Value> {
        let Ready { id, link, .. } = &self.ready;
        let keeper = self.keeper().await.unwrap_or_default();
        let shown = Shown { id: id.to_string(), link: link.clone(), keeper };
        match serde_json::to_value(shown) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) | Err(_) => Map::new(),
        }
    }

    async fn put(&self, page: &mut Page) {
        let keeper = self.keeper().await;
        page.put(&STORE_UP, keeper.is_some().into());
        put_keeper(page, &keeper.unwrap_or_default());
        page.put_histogram(&COMMIT, &self.commits);
    }

    async fn carry_out(&self, request: &Request) -> Answer {
        match request.command.as_str() {
            "mailbox show" => self.order(Order::ShowMailbox(key_of(request)?)).await,
            "mailbox drop" => self.order(Order::DropMailbox(key_of(request)?)).await,
            "mailbox ban" => self.order(Order::Ban(key_of(request)?)).await,
            "mailbox unban" => self.order(Order::Unban(key_of(request)?)).await,
            "mailbox banned" => self.order(Order::Banned).await,
            "invite new" => self.invite(request).await,
            "invite list" => self.order(Order::Invites).await,
            "invite revoke" => {
                self.order(Order::Revoke(invitations::meant(request, given_away)?)).await
            }
            "expire" => self.order(Order::Expire).await,
            "compact" => self.compact().await,
            "backup" => self.backup(request.argument("file")?).await,
            _ => Err(unknown(request)),
        }
    }
}

impl Served {
    async fn ask<R>(&self, job: impl FnOnce(oneshot::Sender<R>) -> Job) -> Result<R, Refused> {
        let (answer, told) = oneshot::channel();
        let gone = || Refused::new("unavailable", "the relay is about to end, or its disk is full");
        self.jobs.send(job(answer)).await.map_err(|_| gone())?;
        told.await.map_err(|_| gone())
    }

    async fn keeper(&self) -> Option<KeeperStatus> {
        self.ask(Job::Status).await.ok()
    }

    async fn order(&self, order: Order) -> Answer {
        self.ask(|answer| Job::Order(order, answer)).await?
    }

    /// Makes an invitation: a token that only the link knows.
    async fn invite(&self, request: &Request) -> Answer {
        let invite = invitations::asked(request, self.clock.now().wall)?;
        let text = self.ready.link.as_deref().ok_or_else(|| {
            let text = "this relay does not know where it is reached: set server.advertise";
            Refused::new("no_link", text)
        })?;
        let link = decode_relay_link(text).map_err(|error| Refused::failed(&error))?;
        let token = invitations::token()?;
        let made = self.order(Order::Invite(token.hash(), invite)).await?;
        let link = RelayLink { invite: Some(token), ..link };
        Ok(invitations::with_gift(made, "link", encode_relay_link(&link)))
    }

    async fn compact(&self) -> Answer {
        let before = self.keeper().await.map(|status| status.disk.file);
        let done = self.ask(Job::Compact).await?;
        let compacted = done.map_err(|error| Refused::failed(&error))?;
        Ok(json!({"compacted": compacted, "bytes_before": before}))
    }

    /// Copies the store, and the relay's key with it: both together are the relay.
    async fn backup(&self, file: PathBuf) -> Answer {
        let failed = |error: &dyn std::error::Error| Refused::failed(error);
        let snapshot = self.ask(Job::Snapshot).await?.map_err(|error| failed(&error))?;
        let written = file.clone();
        let copying = tokio::task::spawn_blocking(move || snapshot.write(&written));
        let copied = copying.await.map_err(|error| failed(&error))?;
        let bytes = copied.map_err(|error| failed(&error))?;
        let key = self.data.join(super::keys::KEY_FILE);
        Ok(json!({"file": file, "bytes": bytes, "key_not_included": key}))
    }
}

fn key_of(request: &Request) -> Result<IdentityKey, Refused> {
    let text: String = request.argument("id")?;
    decode_identity_key(&text).map_err(|error| Refused::new("usage", format!("{text}: {error}")))
}

/// The invitation of a link.
fn given_away(text: &str) -> Option<TokenHash> {
    Some(decode_relay_link(text).ok()?.invite?.hash())
}

fn put_keeper(page: &mut Page, status: &KeeperStatus) {
    page.put(&MAILBOXES, status.mailboxes);
    page.put(&MESSAGES, status.messages);
    page.put(&BYTES, status.bytes);
    page.put(&SESSIONS, u64::try_from(status.sessions).unwrap_or(u64::MAX));
    page.put(&DIFFICULTY, status.pow_difficulty.into());
    let room = match status.room {
        Room::Plenty => 2,
        Room::NoNewOwners => 1,
        Room::NoNewMessages => 0,
    };
    page.put(&ROOM, room);
    page.put(&DISK_FREE, status.disk.free);
    page.put(&FILE, status.disk.file);
    let Figures {
        stored,
        stores_refused,
        requests_refused,
        registrations,
        pushed,
        key_packages,
        slow_readers,
        disk_full,
    } = &status.counts;
    let refused = stores_refused.iter().map(|(code, count)| (*code, *count));
    page.put_each(&STORES, [("ok", *stored)].into_iter().chain(refused));
    page.put_each(&REFUSED, requests_refused.iter().map(|(code, count)| (*code, *count)));
    page.put(&REGISTRATIONS, *registrations);
    page.put(&PUSHED, *pushed);
    page.put_each(&GONE, [("acknowledged", status.acknowledged), ("expired", status.expired)]);
    page.put(&KEY_PACKAGES, *key_packages);
    page.put(&SLOW, *slow_readers);
    page.put(&DISK_FULL, *disk_full);
}
