//! What this server adds to what every operator sees and does: the registry's figures, the
//! certificate's age, and the upkeep of its store. Numbers only, never who is registered.

use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};
use sremp_common::io::control::{Answer, Request};
use sremp_common::io::invitations;
use sremp_common::io::metrics::{Family, Page};
use sremp_common::io::operator::{self, Operated, unknown};
use sremp_common::text::{decode_invite, encode_invite};

use super::connection::Shared;
use super::storage::InviteOrder;
use crate::registry::{Counters, RegistryStatus};

const ENTRIES: Family =
    Family::gauge("sremp_rendezvous_entries", "Identities that are kept, standing and expired.");
const ONLINE: Family = Family::gauge("sremp_rendezvous_online", "Registrations that stand.");
const LISTED: Family =
    Family::gauge("sremp_rendezvous_listed", "Registrations that a listing shows.");
const BYTES: Family = Family::gauge("sremp_rendezvous_bytes", "Bytes of all entries.");
const MAX_ENTRIES: Family =
    Family::gauge("sremp_rendezvous_max_entries", "Bound of sremp_rendezvous_entries.");
const MAX_BYTES: Family =
    Family::gauge("sremp_rendezvous_max_bytes", "Bound of sremp_rendezvous_bytes.");
const STRETCH: Family = Family::gauge(
    "sremp_rendezvous_renewal_stretch_percent",
    "How much the intervals of renewals are stretched; 100 without load.",
);
const REGISTRATIONS: Family =
    Family::counter("sremp_rendezvous_registrations_total", "Registrations, by what came of them.")
        .by("result");
const REQUESTS: Family = Family::counter(
    "sremp_rendezvous_requests_total",
    "Answered requests other than registrations.",
)
.by("kind");
const RATE_LIMITED: Family =
    Family::counter("sremp_rendezvous_rate_limited_total", "Requests that came too soon.");
const GONE: Family = Family::counter(
    "sremp_rendezvous_gone_total",
    "Registrations that expired, identities forgotten.",
)
.by("kind");
const FAILED: Family =
    Family::counter("sremp_rendezvous_connections_failed_total", "Connections that broke.");
const COMMIT: Family = Family::histogram(
    "sremp_rendezvous_commit_seconds",
    "Time of a transaction with its requests.",
);
const STORE_UP: Family = Family::gauge("sremp_store_up", "1 when the store answers, otherwise 0.");
const CERTIFICATE: Family = Family::gauge(
    "sremp_tls_certificate_expires_timestamp_seconds",
    "When the certificate expires, in seconds since 1970.",
);

/// Every figure that this program exports.
#[must_use]
pub fn families() -> Vec<Family> {
    let mut all = operator::families();
    all.extend([STORE_UP, ENTRIES, ONLINE, LISTED, BYTES, MAX_ENTRIES, MAX_BYTES, STRETCH]);
    all.extend([REGISTRATIONS, REQUESTS, RATE_LIMITED, GONE, FAILED, COMMIT, CERTIFICATE]);
    all
}

impl Operated for Shared {
    async fn is_alive(&self) -> bool {
        self.jobs.status().await.is_some()
    }

    async fn trouble(&self) -> Option<String> {
        let answers = self.jobs.status().await.is_some();
        (!answers).then(|| "the store does not answer".to_owned())
    }

    async fn status(&self) -> Map<String, Value> {
        let failed = self.failed.load(Ordering::Relaxed);
        let registry = self.jobs.status().await.unwrap_or_default();
        Map::from_iter([
            ("connections_failed".to_owned(), failed.into()),
            ("registry".to_owned(), json!(registry)),
        ])
    }

    async fn put(&self, page: &mut Page) {
        let answered = self.jobs.status().await;
        page.put(&STORE_UP, answered.is_some().into());
        put_registry(page, &answered.unwrap_or_default());
        page.put(&FAILED, self.failed.load(Ordering::Relaxed));
        page.put_histogram(&COMMIT, self.jobs.commits());
        page.put(&CERTIFICATE, self.certificates.expires().as_millis() / 1_000);
    }

    async fn carry_out(&self, request: &Request) -> Answer {
        match request.command.as_str() {
            "invite new" => self.invite(request).await,
            "invite list" => self.jobs.invitation(InviteOrder::List).await,
            "invite revoke" => {
                let given = |text: &str| Some(decode_invite(text).ok()?.hash());
                let token = invitations::meant(request, given)?;
                self.jobs.invitation(InviteOrder::Revoke(token)).await
            }
            "expire" => Ok(json!({"removed": self.jobs.expire().await})),
            "compact" => Ok(json!({"compacted": self.jobs.compact().await?})),
            "backup" => {
                let file: std::path::PathBuf = request.argument("file")?;
                let rows = self.jobs.backup(file.clone()).await?;
                Ok(json!({"file": file, "rows": rows}))
            }
            _ => Err(unknown(request)),
        }
    }
}

impl Shared {
    /// Makes an invitation: a token that only whoever gets it knows.
    async fn invite(&self, request: &Request) -> Answer {
        let invite = invitations::asked(request, self.clock.now().wall)?;
        let token = invitations::token()?;
        let made = self.jobs.invitation(InviteOrder::Add(token.hash(), invite)).await?;
        Ok(invitations::with_gift(made, "invite", encode_invite(&token)))
    }
}

fn put_registry(page: &mut Page, status: &RegistryStatus) {
    let Counters {
        registered,
        renewed,
        forged,
        rollbacks,
        equivocations,
        full,
        network_full,
        not_admitted,
        lookups,
        list_pages,
        rate_limited,
        expired,
        forgotten,
    } = status.counters;
    page.put(&ENTRIES, status.entries);
    page.put(&ONLINE, status.online);
    page.put(&LISTED, status.listed);
    page.put(&BYTES, status.bytes);
    page.put(&MAX_ENTRIES, status.max_entries);
    page.put(&MAX_BYTES, status.max_bytes);
    page.put(&STRETCH, status.stretch_percent.into());
    let results = [
        ("new", registered),
        ("renewed", renewed),
        ("forged", forged),
        ("rollback", rollbacks),
        ("equivocation", equivocations),
        ("full", full),
        ("network_full", network_full),
        ("not_admitted", not_admitted),
    ];
    page.put_each(&REGISTRATIONS, results);
    page.put_each(&REQUESTS, [("lookup", lookups), ("list_page", list_pages)]);
    page.put(&RATE_LIMITED, rate_limited);
    page.put_each(&GONE, [("expired", expired), ("forgotten", forgotten)]);
}
