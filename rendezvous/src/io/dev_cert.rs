//! A private authority and one certificate by it, so that a server can be tried out without any
//! other tool. The authority's key is thrown away: nobody can ever make a second certificate.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use sremp_common::io::private::{PrivateError, write_private_new};
use sremp_common::time::Timestamp;
use sremp_common::wire::Endpoint;

/// Years that the certificates are valid.
const YEARS: i32 = 10;

/// Names in one certificate.
const MAX_NAMES: usize = 64;

/// Days of a year, on average.
const DAYS_OF_400_YEARS: u64 = 146_097;

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum DevCertError {
    /// Neither a DNS name nor an address.
    #[error("`{0}` is neither a DNS name nor an IP address")]
    Name(String),
    /// None, or too many.
    #[error("give 1 to {MAX_NAMES} names or addresses")]
    NameCount,
    /// Nothing is overwritten.
    #[error("{} exists already; remove it, or choose another directory", .0.display())]
    Exists(PathBuf),
    /// The library refuses.
    #[error("cannot make the certificate")]
    Make(#[from] rcgen::Error),
    /// The system refuses a file.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The same for the private key.
    #[error("cannot write the private key")]
    Key(#[from] PrivateError),
}

/// Where the three files are.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Written {
    /// The authority's certificate: what clients are given (`ca=`).
    pub ca: PathBuf,
    /// The server's certificate.
    pub cert: PathBuf,
    /// Its private key, mode 0600.
    pub key: PathBuf,
}

/// Makes an authority and a certificate for `names`, and writes both into `directory`, which is
/// made if need be.
///
/// # Errors
/// [`DevCertError`]; files that exist are never touched.
pub fn write(directory: &Path, names: &[String], now: Timestamp) -> Result<Written, DevCertError> {
    let names = checked(names)?;
    let written = Written {
        ca: directory.join("ca.pem"),
        cert: directory.join("cert.pem"),
        key: directory.join("key.pem"),
    };
    for path in [&written.ca, &written.cert, &written.key] {
        if fs::symlink_metadata(path).is_ok() {
            return Err(DevCertError::Exists(path.clone()));
        }
    }
    let made = make(names, now)?;
    fs::create_dir_all(directory)
        .map_err(|source| DevCertError::Write { path: directory.to_owned(), source })?;
    write_private_new(&written.key, made.key.as_bytes())?;
    write_new(&written.cert, &made.cert)?;
    write_new(&written.ca, &made.ca)?;
    Ok(written)
}

/// The three files' contents, as PEM.
struct Made {
    ca: String,
    cert: String,
    key: String,
}

fn make(names: Vec<String>, now: Timestamp) -> Result<Made, DevCertError> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "SREMP private authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];

    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "SREMP rendezvous server");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;

    let year = year_of(now);
    for params in [&mut authority, &mut server] {
        // From the year before, so that a slow clock does no harm.
        params.not_before = date_time_ymd(year.saturating_sub(1), 1, 1);
        params.not_after = date_time_ymd(year.saturating_add(YEARS), 1, 1);
    }
    let authority_key = KeyPair::generate()?;
    let key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?.pem();
    let cert = server.signed_by(&key, &Issuer::new(authority, authority_key))?.pem();
    Ok(Made { ca, cert, key: key.serialize_pem() })
}

/// Lower-case names, and addresses, that a client could dial.
fn checked(names: &[String]) -> Result<Vec<String>, DevCertError> {
    if names.is_empty() || names.len() > MAX_NAMES {
        return Err(DevCertError::NameCount);
    }
    let check = |name: &String| {
        let name = name.trim_matches(['[', ']']).to_ascii_lowercase();
        let is_address = name.parse::<std::net::IpAddr>().is_ok();
        let is_name = || format!("{name}:1").parse::<Endpoint>().is_ok();
        if is_address || is_name() { Ok(name) } else { Err(DevCertError::Name(name)) }
    };
    names.iter().map(check).collect()
}

fn write_new(path: &Path, text: &str) -> Result<(), DevCertError> {
    let written =
        OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|source| DevCertError::Write { path: path.to_owned(), source })
}

/// The year, to within a day at its ends.
fn year_of(now: Timestamp) -> i32 {
    let years = now.day().saturating_mul(400) / DAYS_OF_400_YEARS;
    // Certificates cannot name a later year (RFC 5280 section 4.1.2.5).
    i32::try_from(years.saturating_add(1970)).unwrap_or(i32::MAX).min(9_900)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn nothing_is_overwritten_and_the_key_is_private() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("new/certs");
        let now = Timestamp::from_millis(1_795_000_000_000);
        let written = write(&directory, &names(&["localhost", "127.0.0.1", "::1"]), now).unwrap();
        let mode = fs::metadata(&written.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for keep in [&written.ca, &written.cert, &written.key] {
            for path in [&written.ca, &written.cert, &written.key] {
                if path != keep {
                    let _ = fs::remove_file(path);
                }
            }
            fs::write(keep, "mine").unwrap();
            assert!(matches!(
                write(&directory, &names(&["localhost"]), now),
                Err(DevCertError::Exists(path)) if path == *keep
            ));
            assert_eq!(fs::read_to_string(keep).unwrap(), "mine");
            assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for bad in [&["a b"][..], &["-x"], &["x:1"], &["*"], &[""], &["ok", "1.2.3"], &[]] {
            let result = write(root.path(), &names(bad), Timestamp::default());
            assert!(matches!(result, Err(DevCertError::Name(_) | DevCertError::NameCount)));
        }
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn years_are_counted_right() {
        for (ms, year) in
            [(0, 1970), (1_795_132_800_000, 2026), (4_102_531_200_000, 2100), (u64::MAX, 9_900)]
        {
            assert_eq!(year_of(Timestamp::from_millis(ms)), year);
        }
    }
}
