//! Who the relay is: two secret keys in a private file, and the identity that follows from them.
//!
//! The identity is made anew at each start and is the same every time, because everything in it,
//! its moment of creation too, is fixed by the file.

use std::path::Path;

use sremp_common::entropy::Entropy;
use sremp_common::identity::{Flags, IdentityData, IdentityError};
use sremp_common::io::private::{PrivateError, read_private, write_private_new};
use sremp_common::key::{IdentitySecret, NoiseSecret};
use sremp_common::name::Username;
use sremp_common::noise::Local;
use sremp_common::time::Timestamp;
use zeroize::Zeroizing;

/// Name of the file in the data directory.
pub const KEY_FILE: &str = "relay.key";
/// First bytes of the file; then identity secret, Noise secret, moment of creation (u64le ms).
const MAGIC: &[u8; 16] = b"SREMP-relay-key1";
/// Length of the file.
const LENGTH: usize = 16 + 32 + 32 + 8;
/// What a relay calls itself.
const NAME: &str = "relay";

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written, or is open to others.
    #[error("the relay's key file cannot be used")]
    File(#[from] PrivateError),
    /// The file is not one of ours.
    #[error("{KEY_FILE} is damaged")]
    Damaged,
    /// The identity cannot be made; a defect of ours.
    #[error("the relay's identity cannot be made")]
    Identity(#[from] IdentityError),
}

/// The identity in `directory`; a new one when there is none yet.
///
/// # Errors
/// [`KeyError`].
pub fn load_or_create(
    directory: &Path,
    entropy: &mut Entropy,
    now: Timestamp,
) -> Result<Local, KeyError> {
    if let Some(local) = load(directory)? {
        return Ok(local);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(IdentitySecret::generate(entropy).to_bytes().as_slice());
    bytes.extend_from_slice(NoiseSecret::generate(entropy).to_bytes().as_slice());
    bytes.extend_from_slice(&now.as_millis().to_le_bytes());
    write_private_new(&directory.join(KEY_FILE), &bytes)?;
    parse(&bytes)
}

/// The identity in `directory`, if there is one.
///
/// # Errors
/// [`KeyError`].
pub fn load(directory: &Path) -> Result<Option<Local>, KeyError> {
    match read_private(&directory.join(KEY_FILE), LENGTH) {
        Ok(bytes) => parse(&bytes).map(Some),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parse(bytes: &[u8]) -> Result<Local, KeyError> {
    let (magic, rest) = bytes.split_first_chunk::<16>().ok_or(KeyError::Damaged)?;
    let (identity, rest) = rest.split_first_chunk::<32>().ok_or(KeyError::Damaged)?;
    let (noise, rest) = rest.split_first_chunk::<32>().ok_or(KeyError::Damaged)?;
    let created = <[u8; 8]>::try_from(rest).map_err(|_| KeyError::Damaged)?;
    if magic != MAGIC {
        return Err(KeyError::Damaged);
    }
    let identity_secret = IdentitySecret::from_bytes(identity);
    let noise_secret = NoiseSecret::from_bytes(*noise);
    let data = IdentityData {
        username: Username::new(NAME).map_err(|_| KeyError::Damaged)?,
        identity_key: identity_secret.public(),
        noise_key: noise_secret.public(),
        flags: Flags { is_relay_server: true, ..Flags::default() },
        extensions: None,
        version: 1,
        created: Timestamp::from_millis(u64::from_le_bytes(created)),
    };
    let identity = data.sign(&identity_secret)?;
    Ok(Local { identity, identity_secret, noise_secret })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn create(directory: &Path, seed: u64) -> Result<Local, KeyError> {
        let mut entropy = Entropy::from_number(seed);
        load_or_create(directory, &mut entropy, Timestamp::from_millis(seed))
    }

    #[test]
    fn the_identity_is_the_same_at_each_start() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path()).unwrap().is_none());
        let first = create(directory.path(), 1).unwrap();
        let again = create(directory.path(), 2).unwrap();
        assert_eq!(first.identity, again.identity);
        let data = first.identity.data();
        assert_eq!((&*data.username, data.version, data.flags.is_relay_server), (NAME, 1, true));
    }

    #[test]
    fn c05_the_key_file_is_private_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        create(directory.path(), 1).unwrap();
        let path = directory.path().join(KEY_FILE);
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(create(directory.path(), 1), Err(KeyError::File(_))));
        fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        symlink(directory.path().join("elsewhere"), &path).unwrap();
        assert!(matches!(create(directory.path(), 1), Err(KeyError::File(_))));
    }

    #[test]
    fn a_damaged_file_is_not_replaced() {
        for content in [&b""[..], &[0; LENGTH], &MAGIC[..], &[7; LENGTH + 1]] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(KEY_FILE);
            write_private_new(&path, content).unwrap();
            assert!(create(directory.path(), 1).is_err());
            assert_eq!(fs::read(&path).unwrap(), content);
        }
    }
}
