//! Files and folders that go when nobody needs them any more.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A table's folder. Removed with the last holder, once the table was dropped or if it never came to be.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    unwanted: AtomicBool,
}

impl Folder {
    pub(super) fn new(path: PathBuf, unwanted: bool) -> Arc<Self> {
        Arc::new(Self { path, unwanted: AtomicBool::new(unwanted) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn set_unwanted(&self, unwanted: bool) {
        self.unwanted.store(unwanted, Ordering::Release);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.unwanted.load(Ordering::Acquire)
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            // The next start removes it.
            tracing::warn!("{} of a table that was dropped stays for now: {error}", self.path.display());
        }
    }
}

/// An immutable file of rows. It goes with its last holder, unless it belongs to the table.
#[derive(Debug)]
pub struct DataFile {
    name: String,
    rows: u64,
    bytes: u64,
    folder: Arc<Folder>,
    belongs: AtomicBool,
}

impl DataFile {
    pub(super) fn new(name: String, rows: u64, bytes: u64, folder: Arc<Folder>, belongs: bool) -> Arc<Self> {
        Arc::new(Self { name, rows, bytes, folder, belongs: AtomicBool::new(belongs) })
    }

    /// Its name in the table's folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How long it is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// It is part of the table from now on, or no longer.
    pub(super) fn set_belongs(&self, belongs: bool) {
        self.belongs.store(belongs, Ordering::Release);
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        if !self.belongs.load(Ordering::Acquire) && !self.folder.unwanted.load(Ordering::Acquire) {
            let path = self.path();
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    // The next start removes it.
                    tracing::warn!("{} is needed no more and stays for now: {error}", path.display());
                }
                _ => {}
            }
        }
    }
}
