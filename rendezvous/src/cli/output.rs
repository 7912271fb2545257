//! What the server says: its own results in both forms, and the codes of its own failures.

use serde_json::json;
use sremp_common::io::output::{Failure, Output};

use super::dev_cert::Written;
use crate::config::ConfigError;
use crate::io::{Ready, ServeError};

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::config(&error)
    }
}

impl From<ServeError> for Failure {
    fn from(error: ServeError) -> Self {
        match error {
            ServeError::Config(error) => error.into(),
            ServeError::Start(error) => error.into(),
            ServeError::Certificate(error) => Self::config(&error),
            error @ ServeError::Store { .. } => Self::failed(error),
        }
    }
}

/// The one line that scripts wait for.
pub(super) fn ready(output: Output, ready: Ready) {
    let Ready { listening, metrics } = ready;
    output.announce(
        || json!({"event": "ready", "listening": listening, "metrics": metrics}),
        || match metrics {
            None => format!("sremp-rendezvous ready: listening on {listening}"),
            Some(at) => {
                format!("sremp-rendezvous ready: listening on {listening}, metrics on {at}")
            }
        },
    );
}

pub(super) fn dev_cert(output: Output, written: &Written) {
    output.show(
        || json!(written),
        || {
            let (cert, key) = (written.cert.display(), written.key.display());
            let ca = written.ca.display();
            format!(
                "For the server:  --cert {cert} --key {key}\n\
                 For its clients: --rendezvous HOST:PORT,ca={ca}"
            )
        },
    );
}
