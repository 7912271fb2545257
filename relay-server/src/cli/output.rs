//! What the relay says: its own results in both forms, and the codes of its own failures.

use serde_json::json;
use sremp_common::io::output::{Failure, Output};

use crate::io::{Ready, ServeError};

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        let code = match &error {
            ServeError::Config(_) => return Self::config(&error),
            ServeError::NoRelay(_) | ServeError::NoEndpoint => "no_link",
            ServeError::DataDirectory(_)
            | ServeError::Key(_)
            | ServeError::Store { .. }
            | ServeError::Listen { .. }
            | ServeError::System { .. } => "failed",
        };
        Self::new(code, &error)
    }
}

/// What scripts wait for.
pub(super) fn ready(output: Output, ready: &Ready) {
    let Ready { listening, id, link } = ready;
    output.announce(
        || {
            let id = id.to_string();
            json!({"event": "ready", "listening": listening, "link": link, "id": id})
        },
        || {
            let link = link.as_deref().unwrap_or("No link yet: give --advertise HOST:PORT.");
            format!("sremp-relay ready: listening on {listening}\n{link}")
        },
    );
}

pub(super) fn link(output: Output, link: &str) {
    output.show(|| json!({ "link": link }), || link.to_owned());
}
