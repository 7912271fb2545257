//! What the relay says: its own results in both forms, and the codes of its own failures.

use serde_json::json;
use sremp_common::io::output::{Failure, Output};

use crate::io::{Ready, ServeError};

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Config(error) => error.into(),
            ServeError::Start(error) => error.into(),
            error @ (ServeError::NoRelay(_) | ServeError::NoEndpoint) => {
                Self::new("no_link", &error)
            }
            error @ (ServeError::Key(_) | ServeError::Note(_) | ServeError::Store { .. }) => {
                Self::failed(error)
            }
        }
    }
}

/// What scripts wait for.
pub(super) fn ready(output: Output, ready: &Ready) {
    let Ready { listening, metrics, id, link } = ready;
    output.announce(
        || {
            let id = id.to_string();
            json!({
                "event": "ready", "listening": listening, "metrics": metrics, "link": link, "id": id
            })
        },
        || {
            let link = link.as_deref().unwrap_or("No link yet: give --advertise HOST:PORT.");
            let metrics = metrics.map_or_else(String::new, |at| format!(", metrics on {at}"));
            format!("sremp-relay ready: listening on {listening}{metrics}\n{link}")
        },
    );
}

pub(super) fn link(output: Output, link: &str) {
    output.show(|| json!({ "link": link }), || link.to_owned());
}
