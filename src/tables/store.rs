//! One table's folder: snapshots for readers, changes that count as a whole or not at all.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::datatypes::SchemaRef;
use parking_lot::{Mutex, RwLock};

use super::{
    data_file::{DataFile, Folder},
    disk::{Disk, Hook, Step},
    manifest::{Entry, Manifest},
};
use crate::{
    durable::{make_folder, sync_folder},
    error::{Error, Result},
};

/// The rows of a table as of one change. Its files stay as long as it is held.
#[derive(Debug)]
pub struct Snapshot {
    sequence: u64,
    files: Vec<Arc<DataFile>>,
}

impl Snapshot {
    /// The number of the change.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The files with the rows.
    pub fn files(&self) -> &[Arc<DataFile>] {
        &self.files
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows()).sum()
    }

    /// How many bytes the files have.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes()).sum()
    }
}

/// What a change does.
#[derive(Debug, Default)]
pub struct Change {
    /// Files that become part of the table.
    pub add: Vec<Arc<DataFile>>,
    /// Files that no longer are.
    pub remove: Vec<Arc<DataFile>>,
}

/// Whoever holds it changes the table; others wait.
pub type Turn = tokio::sync::OwnedMutexGuard<()>;

/// Why a table takes no changes any more.
#[derive(Debug, Default)]
enum Closed {
    #[default]
    No,
    /// It was dropped.
    Dropped,
    /// Whether the last change counts could not be made sure of.
    InDoubt(String),
}

/// A table's files.
#[derive(Debug)]
pub struct TableStore {
    name: String,
    schema: SchemaRef,
    folder: Arc<Folder>,
    disk: Disk,
    current: RwLock<Arc<Snapshot>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    closed: Mutex<Closed>,
}

impl TableStore {
    /// A new table without rows. Its folder goes with it unless [`Self::keep`] is called; it is empty on disk until the first change.
    pub fn create(name: &str, schema: SchemaRef, folder: PathBuf, hook: Hook) -> Result<Arc<Self>> {
        let failed = |error: std::io::Error| Error::External(format!("table {name} can't be made, its folder {} fails: {error}", folder.display()));
        // Whatever is there belongs to nobody: the number was never given before.
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(failed)?;
        }
        make_folder(&folder).map_err(failed)?;
        let snapshot = Arc::new(Snapshot { sequence: 0, files: vec![] });
        Ok(Self::with(name, schema, Folder::new(folder, true), hook, snapshot))
    }

    /// Opens a table's folder: the newest manifest that verifies is the table. What a crash has left is removed.
    pub fn open(name: &str, schema: SchemaRef, folder: PathBuf, hook: Hook) -> Result<Arc<Self>> {
        let unreadable = |why: String| {
            Error::External(format!("table {name} can't be read, {}: {why}; restore the folder from a backup, or DROP TABLE {name}", folder.display()))
        };
        let names = list(&folder).map_err(|error| unreadable(error.to_string()))?;
        let mut sequences: Vec<u64> = names.iter().filter_map(|name| Manifest::sequence_of(name)).collect();
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        let mut damaged = vec![];
        for &sequence in &sequences {
            match read(&folder, sequence) {
                Ok(manifest) => {
                    let owned = Folder::new(folder.clone(), false);
                    let file = |entry: Entry| DataFile::new(entry.name, entry.rows, entry.bytes, owned.clone(), true);
                    // Numbers go on above all that were ever given, also those of manifests that can't be read.
                    let newest = sequences.first().copied().unwrap_or(sequence);
                    let snapshot = Arc::new(Snapshot { sequence: newest, files: manifest.files.into_iter().map(file).collect() });
                    if damaged.is_empty() {
                        clean(&folder, &names, sequence, &snapshot);
                    } else {
                        tracing::error!("table {name} is as of change {sequence}, newer manifests can't be read: {}; nothing was removed", damaged.join("; "));
                    }
                    return Ok(Self::with(name, schema, owned, hook, snapshot));
                }
                Err(why) => damaged.push(format!("{}: {why}", Manifest::name(sequence))),
            }
        }
        Err(unreadable(if damaged.is_empty() { "it has no manifest".into() } else { damaged.join("; ") }))
    }

    fn with(name: &str, schema: SchemaRef, folder: Arc<Folder>, hook: Hook, snapshot: Arc<Snapshot>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            schema,
            folder,
            disk: Disk::new(hook),
            current: RwLock::new(snapshot),
            turn: Arc::default(),
            closed: Mutex::default(),
        })
    }

    /// The table's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The table's columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The table as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.read().clone()
    }

    /// Waits until nobody else changes the table.
    pub async fn turn(&self) -> Turn {
        self.turn.clone().lock_owned().await
    }

    /// The table has been declared: its folder stays.
    pub fn keep(&self) {
        self.folder.set_unwanted(false);
    }

    /// The table was dropped: it takes no changes any more, and its folder goes when nobody reads it.
    pub fn drop_files(&self) {
        *self.closed.lock() = Closed::Dropped;
        self.folder.set_unwanted(true);
    }

    /// Makes a change, all of it or nothing. Waits for the disk.
    pub fn commit(&self, _turn: &Turn, change: Change) -> Result<Arc<Snapshot>> {
        // Held to the end, so that a table that is dropped meanwhile is dropped before or behind.
        let mut closed = self.closed.lock();
        match &*closed {
            Closed::No => {}
            Closed::Dropped => return Err(Error::NotFound(format!("table {} was dropped meanwhile: nothing was changed", self.name))),
            Closed::InDoubt(why) => return Err(Error::External(why.clone())),
        }
        let before = self.snapshot();
        let removed: BTreeSet<&str> = change.remove.iter().map(|file| file.name()).collect();
        let stays = before.files.iter().filter(|file| !removed.contains(file.name())).cloned();
        let files: Vec<Arc<DataFile>> = stays.chain(change.add.iter().cloned()).collect();
        let sequence = before.sequence + 1;
        let entries = files.iter().map(|file| Entry { name: file.name().into(), rows: file.rows(), bytes: file.bytes() }).collect();
        let failed = |error: std::io::Error| {
            Error::External(format!("table {} could not be changed, {} fails: {error}; nothing was changed", self.name, self.folder.path().display()))
        };
        let bytes = Manifest::new(sequence, entries).encode().map_err(Error::Internal)?;
        let manifest = self.folder.path().join(Manifest::name(sequence));
        let fresh = self.folder.path().join(format!("{}.new", Manifest::name(sequence)));
        self.write_manifest(&fresh, &bytes).map_err(|error| {
            _ = fs::remove_file(&fresh);
            failed(error)
        })?;
        if let Err(error) = self.name_manifest(&fresh, &manifest) {
            // It may have its name already, and that may be durable already: taken back, the change does not count.
            return match take_back(self.folder.path(), &fresh, &manifest) {
                Ok(()) => Err(failed(error)),
                Err(again) => {
                    let why = format!(
                        "whether the last change of table {} counts is not known, since the disk failed while it was made ({error}) and while it was taken back ({again}): restart the server, which finds out",
                        self.name
                    );
                    *closed = Closed::InDoubt(why.clone());
                    Err(Error::External(why))
                }
            };
        }
        let after = Arc::new(Snapshot { sequence, files });
        change.add.iter().for_each(|file| file.set_belongs(true));
        *self.current.write() = after.clone();
        change.remove.iter().for_each(|file| file.set_belongs(false));
        let old = self.folder.path().join(Manifest::name(before.sequence));
        match fs::remove_file(&old) {
            // The next start removes it.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => tracing::warn!("{} is needed no more and stays for now: {error}", old.display()),
            _ => {}
        }
        Ok(after)
    }

    fn write_manifest(&self, fresh: &Path, bytes: &[u8]) -> std::io::Result<()> {
        self.disk.pass(Step::SyncNames)?;
        sync_folder(self.folder.path())?;
        self.disk.pass(Step::WriteManifest)?;
        let mut file = fs::File::create(fresh)?;
        file.write_all(bytes)?;
        self.disk.pass(Step::SyncManifest)?;
        file.sync_all()
    }

    fn name_manifest(&self, fresh: &Path, manifest: &Path) -> std::io::Result<()> {
        self.disk.pass(Step::RenameManifest)?;
        fs::rename(fresh, manifest)?;
        self.disk.pass(Step::SyncRename)?;
        sync_folder(self.folder.path())?;
        self.disk.pass(Step::Committed)
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(super) fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }
}

/// Lets a manifest not count that may have got its name.
fn take_back(folder: &Path, fresh: &Path, manifest: &Path) -> std::io::Result<()> {
    for path in [fresh, manifest] {
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync_folder(folder)
}

fn list(folder: &Path) -> std::io::Result<Vec<String>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// A manifest whose files are all there.
fn read(folder: &Path, sequence: u64) -> Result<Manifest, String> {
    let bytes = fs::read(folder.join(Manifest::name(sequence))).map_err(|error| error.to_string())?;
    let manifest = Manifest::decode(&bytes)?;
    if manifest.sequence != sequence {
        return Err(format!("it is that of change {}", manifest.sequence));
    }
    for file in &manifest.files {
        let found = fs::metadata(folder.join(&file.name)).map_err(|error| format!("its file {}: {error}", file.name))?;
        if found.len() != file.bytes {
            return Err(format!("its file {} has {} bytes instead of {}", file.name, found.len(), file.bytes));
        }
    }
    Ok(manifest)
}

/// Removes what belongs to no table: what was being written, or was needed no more, when a process ended.
fn clean(folder: &Path, names: &[String], sequence: u64, snapshot: &Snapshot) {
    let manifest = Manifest::name(sequence);
    let wanted: BTreeSet<&str> = snapshot.files.iter().map(|file| file.name()).chain([manifest.as_str()]).collect();
    for name in names.iter().filter(|name| !wanted.contains(name.as_str())) {
        let path = folder.join(name);
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!("{} belongs to no table and could not be removed: {error}", path.display());
        }
    }
}
