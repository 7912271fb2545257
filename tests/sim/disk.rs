//! A disk that loses what was not synced when its machine crashes.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

#[derive(Debug, Default)]
struct Image {
    bytes: Vec<u8>,
    /// What stood where since the last sync, newest last: undone by a crash.
    undo: Vec<Undo>,
}

#[derive(Debug)]
enum Undo {
    Write { offset: usize, before: Vec<u8> },
    Length(usize),
}

/// Shared between the machine that uses it and the world that crashes it.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Image>>);

impl Disk {
    /// Takes back everything since the last sync.
    pub fn crash(&self) {
        let mut image = self.0.lock().unwrap();
        while let Some(undo) = image.undo.pop() {
            match undo {
                Undo::Write { offset, before } => {
                    let end = (offset + before.len()).min(image.bytes.len());
                    if offset < end {
                        image.bytes[offset..end].copy_from_slice(&before[..end - offset]);
                    }
                }
                Undo::Length(length) => image.bytes.resize(length, 0),
            }
        }
    }

    /// A disk with this content.
    #[must_use]
    pub fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Image { bytes, undo: Vec::new() })))
    }

    /// Everything that is written on it.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.0.lock().unwrap().bytes.clone()
    }

    /// A copy of what is on it: a backup.
    #[must_use]
    pub fn copy(&self) -> Self {
        let bytes = self.0.lock().unwrap().bytes.clone();
        Self(Arc::new(Mutex::new(Image { bytes, undo: Vec::new() })))
    }

    /// Bytes on the disk.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().bytes.len()
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let image = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&image.bytes[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut image = self.0.lock().unwrap();
        let length = usize::try_from(length).unwrap();
        let before = image.bytes.len();
        if length < before {
            let cut = image.bytes[length..].to_vec();
            image.undo.push(Undo::Write { offset: length, before: cut });
        }
        image.undo.push(Undo::Length(before));
        image.bytes.resize(length, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().unwrap().undo.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut image = self.0.lock().unwrap();
        let offset = usize::try_from(offset).unwrap();
        let end = offset + data.len();
        let before = image.bytes[offset..end].to_vec();
        image.undo.push(Undo::Write { offset, before });
        image.bytes[offset..end].copy_from_slice(data);
        Ok(())
    }
}
