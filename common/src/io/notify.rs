//! What a server tells the service manager that started it (systemd's `Type=notify`), and when the
//! manager wants a sign of life. Without such a manager all of it does nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// The server listens, or has taken over a new configuration.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// A new configuration is being taken over; [`ready`] follows, whatever comes of it.
pub fn reloading() {
    // Newer managers want to know when it began, by the clock that both share.
    match NotifyState::monotonic_usec_now() {
        Ok(since) => tell(&[NotifyState::Reloading, since]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The server says goodbye to its clients, for at most so long.
pub fn stopping(limit: Duration) {
    let microseconds = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// A sign of life.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often the manager should hear [`alive`], if it wants to: twice as often as it demands.
#[must_use]
pub fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .and_then(|limit| limit.checked_div(2))
        .filter(|every| !every.is_zero())
}

/// A manager that cannot be reached will notice by itself; the server goes on serving.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
