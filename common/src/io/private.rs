//! Files that hold secrets: created closed (directory 0700, file 0600, whatever the umask), and
//! not read when anybody else could have read or planted them.
//!
//! What this is not: a defence against the same user, or against the superuser. Checks go by path
//! and are repeated on the opened file; inside a directory of mode 0700 nobody else can race them.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Mode of a directory that holds secrets.
const PRIVATE_DIR: u32 = 0o700;
/// Mode of a file that holds a secret.
const PRIVATE_FILE: u32 = 0o600;
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;
/// Write permission of group and others.
const OTHERS_WRITE: u32 = 0o022;

/// Why a directory or file is not used for secrets.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// Others have permissions that they must not have.
    #[error("{} is open to others (mode {mode:o}); run: chmod {wanted:o} {}", path.display(), path.display())]
    Open {
        /// What was looked at.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they must be.
        wanted: u32,
    },
    /// A symbolic link, FIFO, device or directory where a file was expected.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Something other than a directory.
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// Belongs to another user, who could change it at any time.
    #[error("{} belongs to another user; do this as that user (sudo -u USER ...)", .0.display())]
    OtherOwner(PathBuf),
    /// There is one already, and it is not overwritten.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// Longer than such a file can be.
    #[error("{} is longer than {max} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// The bound.
        max: usize,
    },
    /// The operating system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl PrivateError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Whether the file simply is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}

/// Makes sure that `path` is a directory of ours with mode 0700, with its parents.
///
/// A directory that is there already may be reached through a symbolic link (service managers do
/// that). If others may read it, it is closed to them; if others may write to it, it is taken only
/// while it is empty, because anything in it could have been planted.
///
/// # Errors
/// [`PrivateError`], naming the broken rule.
pub fn create_private_dir(path: &Path) -> Result<(), PrivateError> {
    let created = DirBuilder::new().recursive(true).mode(PRIVATE_DIR).create(path);
    let metadata = match created.and_then(|()| fs::metadata(path)) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(PrivateError::NotADirectory(path.to_owned()));
        }
        Err(error) => return Err(PrivateError::io("create", path)(error)),
    };
    if !metadata.is_dir() {
        return Err(PrivateError::NotADirectory(path.to_owned()));
    }
    check_owner(path, &metadata)?;
    let mode = mode(&metadata);
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let is_empty = fs::read_dir(path).map_err(PrivateError::io("list", path))?.next().is_none();
    if mode & OTHERS_WRITE != 0 && !is_empty {
        return Err(PrivateError::Open { path: path.to_owned(), mode, wanted: PRIVATE_DIR });
    }
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_DIR))
        .map_err(PrivateError::io("close to others", path))
}

/// Writes a file that does not exist yet, with mode 0600. When this returns, the whole file is on
/// disk; after a crash in between there is either no such file or all of it.
///
/// # Errors
/// [`PrivateError::Exists`] for anything that is there already, even a dangling link.
pub fn write_private_new(path: &Path, bytes: &[u8]) -> Result<(), PrivateError> {
    if fs::symlink_metadata(path).is_ok() {
        return Err(PrivateError::Exists(path.to_owned()));
    }
    let draft = write_draft(path, bytes)?;
    // A hard link never replaces; where the file system has none, the check above must do.
    match fs::hard_link(&draft, path) {
        Ok(()) => fs::remove_file(&draft).map_err(PrivateError::io("remove", &draft))?,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            // The draft is of no use to anybody; if it stays, the next one replaces it.
            let _ = fs::remove_file(&draft);
            return Err(PrivateError::Exists(path.to_owned()));
        }
        Err(_) => fs::rename(&draft, path).map_err(PrivateError::io("create", path))?,
    }
    sync_parent(path)
}

/// Writes a file with mode 0600, in place of the one that may be there. When this returns, the new
/// content is on disk; after a crash in between the file holds the old or the new content.
///
/// # Errors
/// [`PrivateError::NotAFile`] when something else than a file has the name.
pub fn replace_private(path: &Path, bytes: &[u8]) -> Result<(), PrivateError> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(PrivateError::NotAFile(path.to_owned()));
    }
    let draft = write_draft(path, bytes)?;
    fs::rename(&draft, path).map_err(PrivateError::io("replace", path))?;
    sync_parent(path)
}

/// Reads a file of at most `max` bytes that only we can have read or written.
///
/// # Errors
/// [`PrivateError`], naming the broken rule; [`PrivateError::is_not_found`] tells a missing file.
pub fn read_private(path: &Path, max: usize) -> Result<Zeroizing<Vec<u8>>, PrivateError> {
    let named = fs::symlink_metadata(path).map_err(PrivateError::io("read", path))?;
    // Before opening: to open a FIFO would wait for a writer.
    if !named.is_file() {
        return Err(PrivateError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(PrivateError::io("read", path))?;
    let opened = file.metadata().map_err(PrivateError::io("read", path))?;
    if (opened.dev(), opened.ino()) != (named.dev(), named.ino()) || !opened.is_file() {
        return Err(PrivateError::NotAFile(path.to_owned()));
    }
    check_owner(path, &opened)?;
    let mode = mode(&opened);
    if mode & OTHERS != 0 {
        return Err(PrivateError::Open { path: path.to_owned(), mode, wanted: PRIVATE_FILE });
    }
    let too_long = || PrivateError::TooLong { path: path.to_owned(), max };
    let length = usize::try_from(opened.len()).map_err(|_| too_long())?;
    if length > max {
        return Err(too_long());
    }
    // The exact room at once: a growing buffer would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.saturating_add(1)));
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(PrivateError::io("read", path))?;
    if bytes.len() > max { Err(too_long()) } else { Ok(bytes) }
}

/// Writes the bytes into a file of mode 0600 beside `path`, and waits until they are on disk.
fn write_draft(path: &Path, bytes: &[u8]) -> Result<PathBuf, PrivateError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    // One that a crash left behind.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(PrivateError::io("remove", &draft)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(&draft)
        .map_err(PrivateError::io("create", &draft))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(PrivateError::io("write", &draft))?;
    Ok(draft)
}

/// A name is on disk only when its directory is.
fn sync_parent(path: &Path) -> Result<(), PrivateError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(PrivateError::io("sync", parent))
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), PrivateError> {
    match current_user() {
        Some(user) if metadata.uid() != user => Err(PrivateError::OtherOwner(path.to_owned())),
        _ => Ok(()),
    }
}

/// The effective user of this process, where the system shows it as the owner of `/proc/self`.
/// Elsewhere the owner is not checked: the standard library has no call for it.
pub(super) fn current_user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.permissions().mode() & 0o777
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn mode_of(path: &Path) -> u32 {
        mode(&fs::metadata(path).unwrap())
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn c05_created_with_the_right_modes() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        create_private_dir(&dir).unwrap();
        assert_eq!((mode_of(&dir), mode_of(&root.path().join("a"))), (0o700, 0o700));
        let file = dir.join("secret");
        write_private_new(&file, b"one").unwrap();
        assert_eq!(mode_of(&file), 0o600);
        replace_private(&file, b"two").unwrap();
        assert_eq!(mode_of(&file), 0o600);
        assert_eq!(read_private(&file, 3).unwrap().as_slice(), b"two");
        assert!(matches!(read_private(&file, 2), Err(PrivateError::TooLong { .. })));
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no draft is left");
    }

    /// Runs the test above once more, in a process whose umask closes nothing.
    #[test]
    fn c05_created_with_the_right_modes_under_umask_000() {
        let status = Command::new("sh")
            .args(["-c", r#"umask 000 && exec "$0" --exact "$1""#])
            .arg(std::env::current_exe().unwrap())
            .arg("io::private::tests::c05_created_with_the_right_modes")
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.status.success() && printed.contains("1 passed"), "{printed}");
    }

    #[test]
    fn c05_open_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("secret");
        for mode in [0o644, 0o640, 0o604, 0o602, 0o660] {
            fs::write(&file, b"planted").unwrap();
            set_mode(&file, mode);
            assert!(matches!(read_private(&file, 100), Err(PrivateError::Open { .. })), "{mode:o}");
            assert!(matches!(write_private_new(&file, b"x"), Err(PrivateError::Exists(_))));
        }
        // To replace such a file closes it.
        replace_private(&file, b"ours").unwrap();
        assert_eq!(read_private(&file, 100).unwrap().as_slice(), b"ours");
    }

    #[test]
    fn c05_links_and_fifos_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        write_private_new(&target, b"private").unwrap();
        let link = root.path().join("link");
        symlink(&target, &link).unwrap();
        let dangling = root.path().join("dangling");
        symlink(root.path().join("nowhere"), &dangling).unwrap();
        let fifo = root.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        set_mode(&fifo, 0o600);
        for path in [&link, &dangling, &fifo] {
            assert!(matches!(read_private(path, 100), Err(PrivateError::NotAFile(_))), "{path:?}");
            assert!(matches!(write_private_new(path, b"x"), Err(PrivateError::Exists(_))));
            assert!(matches!(replace_private(path, b"x"), Err(PrivateError::NotAFile(_))));
        }
        assert!(read_private(&root.path().join("missing"), 1).unwrap_err().is_not_found());
        assert_eq!(read_private(&target, 100).unwrap().as_slice(), b"private");
    }

    #[test]
    fn c05_directories_are_closed_or_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        fs::create_dir(&dir).unwrap();
        set_mode(&dir, 0o755);
        fs::write(dir.join("x"), b"").unwrap();
        create_private_dir(&dir).unwrap();
        assert_eq!(mode_of(&dir), 0o700);
        set_mode(&dir, 0o770);
        assert!(matches!(create_private_dir(&dir), Err(PrivateError::Open { .. })));
        fs::remove_file(dir.join("x")).unwrap();
        create_private_dir(&dir).unwrap();
        assert_eq!(mode_of(&dir), 0o700);
        fs::write(dir.join("x"), b"").unwrap();
        assert!(matches!(create_private_dir(&dir.join("x")), Err(PrivateError::NotADirectory(_))));
    }
}
