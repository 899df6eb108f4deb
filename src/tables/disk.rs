//! The steps of a write. Each passes a hook, where a test lets it fail, or the process die.

use std::{
    fs::File,
    io::{self, Write},
    path::Path,
    sync::Arc,
};

/// A step of a change to a table, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// A data file is made.
    CreateFile,
    /// Bytes go into a data file.
    WriteFile,
    /// A data file is complete and made durable.
    SyncFile,
    /// The names of the data files are made durable.
    SyncNames,
    /// The manifest is written under a name that does not count.
    WriteManifest,
    /// It is made durable.
    SyncManifest,
    /// It gets the name that counts.
    RenameManifest,
    /// That name is made durable.
    SyncRename,
    /// The change counts.
    Committed,
}

/// Is asked before each step (and after the last): an error is one of the disk's.
pub type Hook = Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

/// Where a table's files are written.
#[derive(Clone)]
pub(super) struct Disk {
    hook: Hook,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    pub(super) fn new(hook: Hook) -> Self {
        Self { hook }
    }

    pub(super) fn pass(&self, step: Step) -> io::Result<()> {
        (self.hook)(step)
    }

    /// A file that was not there before.
    pub(super) fn create(&self, path: &Path) -> io::Result<WatchedFile> {
        self.pass(Step::CreateFile)?;
        let file = File::options().write(true).create_new(true).open(path)?;
        Ok(WatchedFile { file, disk: self.clone() })
    }
}

/// A data file that is being written.
#[derive(Debug)]
pub(super) struct WatchedFile {
    file: File,
    disk: Disk,
}

impl WatchedFile {
    /// Makes it durable, and tells how long it is.
    pub(super) fn sync(&self) -> io::Result<u64> {
        self.disk.pass(Step::SyncFile)?;
        self.file.sync_all()?;
        Ok(self.file.metadata()?.len())
    }
}

impl Write for WatchedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.pass(Step::WriteFile)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
