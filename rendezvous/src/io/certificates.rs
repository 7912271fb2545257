//! The server's certificate: read from files, and again when they change or others are named. A new
//! one that cannot be used leaves the old one in place.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use sremp_common::hash::sha256;
use sremp_common::label::RENDEZVOUS_ALPN;
use sremp_common::time::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Bytes of a certificate chain or key.
const MAX_FILE: u64 = 1 << 20;

/// Permission bits of everybody but owner and group.
const OTHERS: u32 = 0o007;

/// Why certificate or key are unusable.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Longer than any certificate.
    #[error("{} is longer than 1 MiB", .0.display())]
    TooLong(PathBuf),
    /// A private key that everybody on the machine can read.
    #[error("{} can be read by everybody; run: chmod o-rwx {}", .0.display(), .0.display())]
    OpenKey(PathBuf),
    /// No certificate in the file, or a damaged one.
    #[error("{} holds no certificate chain in PEM form", .0.display())]
    NoCertificate(PathBuf),
    /// No private key in the file, or a damaged one.
    #[error("{} holds no private key in PEM form", .0.display())]
    NoKey(PathBuf),
    /// They do not fit together, or are of a kind that is not supported.
    #[error("certificate and key do not fit together, or are not supported")]
    Refused(#[source] rustls::Error),
}

/// What looking at the files came to.
#[derive(Debug)]
pub enum Reload {
    /// As before. A state that has failed is reported only once.
    Unchanged,
    /// New connections get the new certificate.
    Loaded,
    /// The new state cannot be used; the old certificate stays.
    Failed(CertificateError),
}

/// The certificate in use and where it comes from.
#[derive(Debug)]
pub struct Certificates(Mutex<State>);

#[derive(Debug)]
struct State {
    cert: PathBuf,
    key: PathBuf,
    current: Arc<ServerConfig>,
    expires: Timestamp,
    /// Digest of the files, or of the error, when they were last looked at.
    seen: [u8; 32],
}

impl Certificates {
    /// Reads both files.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn load(cert: &Path, key: &Path) -> Result<Self, CertificateError> {
        let files = read_both(cert, key)?;
        let (current, expires) = tls_config(cert, key, &files)?;
        Ok(Self(Mutex::new(State {
            cert: cert.to_owned(),
            key: key.to_owned(),
            current,
            expires,
            seen: digest(&files),
        })))
    }

    /// TLS for the next connection.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.state().current)
    }

    /// When the certificate in use expires.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.state().expires
    }

    /// Looks at the files, and loads them when their content is not the one seen last.
    pub fn reload(&self) -> Reload {
        let (cert, key) = {
            let state = self.state();
            (state.cert.clone(), state.key.clone())
        };
        let files = read_both(&cert, &key);
        let seen = match &files {
            Ok(files) => digest(files),
            Err(error) => sha256(format!("{error:?}").as_bytes()),
        };
        let mut state = self.state();
        if state.seen == seen {
            return Reload::Unchanged;
        }
        state.seen = seen;
        match files.and_then(|files| tls_config(&cert, &key, &files)) {
            Ok((current, expires)) => {
                (state.current, state.expires) = (current, expires);
                Reload::Loaded
            }
            Err(error) => Reload::Failed(error),
        }
    }

    /// Takes these files from now on, if they can be used.
    ///
    /// # Errors
    /// [`CertificateError`]: everything stays as it was.
    pub fn replace(&self, cert: &Path, key: &Path) -> Result<(), CertificateError> {
        let fresh = Self::load(cert, key)?;
        *self.state() = fresh.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(())
    }

    /// The fields are set without a panic in between.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// TLS 1.3 only, this protocol only, and every session by a full handshake: registrations are
/// bound to the session's exporter, so that nothing of one session may live on in another.
fn tls_config(
    cert: &Path,
    key: &Path,
    (cert_pem, key_pem): &(Vec<u8>, Vec<u8>),
) -> Result<(Arc<ServerConfig>, Timestamp), CertificateError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert_pem)
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::NoCertificate(cert.to_owned()))?;
    let Some(own) = chain.first() else {
        return Err(CertificateError::NoCertificate(cert.to_owned()));
    };
    let expires = expiry(own).ok_or_else(|| CertificateError::NoCertificate(cert.to_owned()))?;
    let secret = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|_| CertificateError::NoKey(key.to_owned()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(CertificateError::Refused)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(CertificateError::Refused)?;
    config.alpn_protocols = vec![RENDEZVOUS_ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok((Arc::new(config), expires))
}

/// The end of a certificate's validity.
fn expiry(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Some(Timestamp::from_millis(seconds.saturating_mul(1_000)))
}

fn read_both(cert: &Path, key: &Path) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
    let cert = read(cert, false)?;
    let key = read(key, true)?;
    Ok((cert, key))
}

fn read(path: &Path, secret: bool) -> Result<Vec<u8>, CertificateError> {
    let failed = |source| CertificateError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if secret && mode & OTHERS != 0 {
        return Err(CertificateError::OpenKey(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err(CertificateError::TooLong(path.to_owned()));
    }
    Ok(bytes)
}

fn digest((cert, key): &(Vec<u8>, Vec<u8>)) -> [u8; 32] {
    let mut both = Vec::with_capacity(64);
    both.extend(sha256(cert));
    both.extend(sha256(key));
    sha256(&both)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::dev_cert;
    use super::*;

    fn made(directory: &Path) -> dev_cert::Written {
        let names = ["localhost".to_owned()];
        dev_cert::write(directory, &names, Timestamp::default()).unwrap()
    }

    #[test]
    fn changed_files_are_loaded_and_broken_ones_leave_the_old() {
        let root = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| made(&root.path().join(name)));
        let certificates = Certificates::load(&first.cert, &first.key).unwrap();
        let before = certificates.current();
        assert!(matches!(certificates.reload(), Reload::Unchanged));

        // A certificate without its key, as in the middle of a renewal.
        fs::copy(&second.cert, &first.cert).unwrap();
        assert!(matches!(certificates.reload(), Reload::Failed(CertificateError::Refused(_))));
        assert!(matches!(certificates.reload(), Reload::Unchanged));
        assert!(Arc::ptr_eq(&certificates.current(), &before));

        fs::remove_file(&first.key).unwrap();
        assert!(matches!(certificates.reload(), Reload::Failed(CertificateError::Read { .. })));
        assert!(matches!(certificates.reload(), Reload::Unchanged));
        assert!(Arc::ptr_eq(&certificates.current(), &before));

        fs::copy(&second.key, &first.key).unwrap();
        assert!(matches!(certificates.reload(), Reload::Loaded));
        assert!(!Arc::ptr_eq(&certificates.current(), &before));
        // Ten years from the beginning of time, when these were made.
        let ten_years = certificates.expires().as_millis() / 1_000 / 86_400 / 365;
        assert_eq!(ten_years, 10);
    }

    #[test]
    fn other_files_are_taken_only_when_they_can_be_used() {
        let root = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| made(&root.path().join(name)));
        let certificates = Certificates::load(&first.cert, &first.key).unwrap();
        let before = certificates.current();
        assert!(certificates.replace(&second.cert, &first.key).is_err());
        assert!(Arc::ptr_eq(&certificates.current(), &before));
        certificates.replace(&second.cert, &second.key).unwrap();
        assert!(!Arc::ptr_eq(&certificates.current(), &before));
        assert!(matches!(certificates.reload(), Reload::Unchanged));
        fs::write(&second.cert, "nothing").unwrap();
        assert!(matches!(certificates.reload(), Reload::Failed(_)));
    }

    #[test]
    fn unusable_files_are_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        let made = made(root.path());
        let load = || Certificates::load(&made.cert, &made.key).map(|_| ()).unwrap_err();
        let good = fs::read(&made.key).unwrap();

        fs::set_permissions(&made.key, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(load(), CertificateError::OpenKey(_)));
        fs::set_permissions(&made.key, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(&made.key, "nothing").unwrap();
        assert!(matches!(load(), CertificateError::NoKey(_)));
        fs::write(&made.key, &good).unwrap();
        Certificates::load(&made.cert, &made.key).unwrap();
        fs::write(&made.cert, "nothing").unwrap();
        assert!(matches!(load(), CertificateError::NoCertificate(_)));
        fs::write(&made.cert, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert!(matches!(load(), CertificateError::TooLong(_)));
    }
}
