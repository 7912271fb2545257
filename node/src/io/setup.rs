//! Making a home, and opening one: the private key file, the data file, the configuration.

use std::path::Path;

use sremp_common::io::private::{
    create_private_dir, read_private, replace_private, write_private_new,
};
use sremp_common::io::{Clock, system_entropy};
use sremp_common::key::IdentitySecret;

use super::tls;
use crate::api::{ApiError, Command, InitOptions, InitReply, Reply, ServerOptions};
use crate::cli::run::Checked;
use crate::config::{Home, initial};
use crate::identity::{Own, OwnError};
use crate::node::{Input, Node, NodeConfig, Output, check_invite, check_relay_link};
use crate::store::{Store, StoreError};

/// The identity's secret key, in the home.
const KEY_FILE: &str = "identity.key";

/// Makes a home with a fresh identity. A home that has one already is left as it is.
///
/// Interrupted at any moment, it can be repeated: the key file comes first, and what is made of it
/// stands in one transaction.
///
/// # Errors
/// [`ApiError`] that says what is in the way.
pub fn init(home: &Home, options: &InitOptions) -> Result<InitReply, ApiError> {
    // Everything that can be wrong with the words is found before anything is written.
    for link in &options.relays {
        check_relay_link(link)?;
    }
    for ServerOptions { ca, invite, .. } in &options.rendezvous {
        check_authority(ca.as_deref())?;
        check_invite(invite.as_deref())?;
    }
    create_private_dir(home.path()).map_err(explain)?;
    refuse_lost_key(home)?;
    let mut entropy = system_entropy().map_err(explain)?;
    let now = Clock::start().now();
    let secret = match read_secret(home.path()) {
        Ok(secret) => secret,
        Err(error) if error.is_not_found() => {
            let secret = IdentitySecret::generate(&mut entropy);
            write_private_new(&home.path().join(KEY_FILE), &*secret.to_bytes()).map_err(explain)?;
            secret
        }
        Err(error) => return Err(explain(error)),
    };
    let store = Store::open(&home.database()).map_err(explain)?;
    let tx = store.begin().map_err(explain)?;
    match Own::load(&tx, secret.clone()) {
        Err(OwnError::Missing) => {}
        Ok(_) => {
            return Err(ApiError::refused(format!(
                "{} has an identity already; use another --home for a second one",
                home.path().display()
            )));
        }
        Err(error) => return Err(explain(error)),
    }
    let own = Own::create(&tx, secret, options.name.clone(), &mut entropy, now).map_err(explain)?;
    tx.accept().map_err(explain)?;
    let config = NodeConfig { advertise: options.advertise.clone(), ..NodeConfig::default() };
    let mut node = Node::load(&tx, own, config, entropy, now).map_err(explain)?;
    let mut commands: Vec<Command> =
        options.relays.iter().map(|link| Command::RelayAdd { link: link.clone() }).collect();
    commands.extend(options.rendezvous.iter().cloned().map(Command::RendezvousAdd));
    commands.push(Command::Link { once: false });
    let mut link = String::new();
    for command in commands {
        node.handle(&tx, Input::Command { reply_to: 0, command }, now).map_err(explain)?;
        while let Some(output) = node.poll_output() {
            if let Output::Reply { result, .. } = output
                && let Reply::Link(view) = result?
            {
                link = view.link;
            }
        }
    }
    node.finish(&tx, now).map_err(explain)?;
    replace_private(&home.config(), initial(options).as_bytes()).map_err(explain)?;
    tx.commit().map_err(explain)?;
    let data = node.own().identity().data();
    Ok(InitReply { id: node.own().key().to_string(), name: data.username.to_string(), link })
}

/// Opens a home: its store, and its identity.
///
/// # Errors
/// [`ApiError`] that says what to do.
pub fn open(home: &Home) -> Result<(Store, Own), ApiError> {
    let secret = read_secret_of(home)?;
    let store = Store::open(&home.database()).map_err(explain)?;
    let tx = store.begin().map_err(explain)?;
    let own = match Own::load(&tx, secret) {
        Ok(own) => own,
        Err(OwnError::Missing) => return Err(no_identity(home)),
        Err(error) => return Err(explain(error)),
    };
    drop(tx);
    Ok((store, own))
}

fn read_secret_of(home: &Home) -> Result<IdentitySecret, ApiError> {
    match read_secret(home.path()) {
        Ok(secret) => Ok(secret),
        Err(error) if error.is_not_found() => {
            refuse_lost_key(home)?;
            Err(no_identity(home))
        }
        Err(error) => Err(explain(error)),
    }
}

/// A data file without a key file: another key would make it unreadable for good.
fn refuse_lost_key(home: &Home) -> Result<(), ApiError> {
    let lost = home.database().exists() && !home.path().join(KEY_FILE).exists();
    if !lost {
        return Ok(());
    }
    Err(ApiError::failed(format!(
        "{}/{KEY_FILE} is missing although {} is there; restore the key file from a backup",
        home.path().display(),
        home.database().display()
    )))
}

/// Whether a certificate authority can be used for a rendezvous server.
///
/// # Errors
/// [`ApiError`] that says what is wrong with the file.
pub fn check_authority(ca: Option<&Path>) -> Result<(), ApiError> {
    let Some(ca) = ca else { return Ok(()) };
    tls::client_config(Some(ca)).map(|_| ()).map_err(|error| {
        let error = explain(error);
        ApiError::usage(error.message)
    })
}

fn no_identity(home: &Home) -> ApiError {
    ApiError::not_found(format!(
        "{} has no identity yet; make one with: sremp --home {} init --name NAME",
        home.path().display(),
        home.path().display()
    ))
}

fn read_secret(home: &Path) -> Result<IdentitySecret, sremp_common::io::private::PrivateError> {
    let path = home.join(KEY_FILE);
    let bytes = read_private(&path, 32)?;
    let seed: &[u8; 32] =
        bytes.as_slice().try_into().map_err(|_| sremp_common::io::private::PrivateError::Io {
            action: "use",
            path: path.clone(),
            source: std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "a key file has exactly 32 bytes; restore it from a backup",
            ),
        })?;
    Ok(IdentitySecret::from_bytes(seed))
}

/// The error with its causes, in one line.
pub(super) fn explain(error: impl std::error::Error) -> ApiError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    ApiError::failed(text)
}

/// Validates a home: key file, store, identity. While a node runs, the store is the node's.
///
/// # Errors
/// [`ApiError`] that says what is wrong.
pub fn check(home: &Home) -> Result<Checked, ApiError> {
    read_secret_of(home)?;
    match Store::open(&home.database()) {
        Err(StoreError::InUse(_)) => Ok(Checked::Running),
        // Opened again below: who used it is gone, or never was.
        Ok(store) => {
            drop(store);
            open(home).map(|_| Checked::All)
        }
        Err(error) => Err(explain(error)),
    }
}
