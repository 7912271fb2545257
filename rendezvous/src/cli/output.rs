//! What the server says: its own results in both forms, and the codes of its own failures.

use std::net::SocketAddr;

use serde_json::json;
use sremp_common::io::output::{Failure, Output};

use super::dev_cert::Written;
use crate::config::ConfigError;

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new("config", &error)
    }
}

/// The one line that scripts wait for.
pub(super) fn ready(output: Output, listening: SocketAddr) {
    output.announce(
        || json!({"event": "ready", "listening": listening}),
        || format!("sremp-rendezvous ready: listening on {listening}"),
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
