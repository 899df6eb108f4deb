//! Statements that make tables and change their rows. The rows themselves are the business of `crate::tables`.
//!
//! * `create`: `CREATE TABLE`, also of a query's rows or of an upload.
//! * `dml`: `INSERT`, `DELETE`, `UPDATE`, `TRUNCATE`.
//! * `many`: an INSERT with many rows of parameters.
//! * `produce`: rows for a source, as records of its topic.
//! * `ingest`: what clients upload.

mod create;
pub(super) mod dml;
mod ingest;
pub(super) mod many;
pub(super) mod produce;

pub use ingest::{There, Upload};

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;

use crate::{
    catalog::{Catalog, Definition},
    error::{Error, Result},
    stream::failpoints::{Point, pass},
    tables::{Hook, Step, TableStore},
};

/// The files of all tables.
#[derive(Debug)]
pub(super) struct OpenTables {
    folder: PathBuf,
    /// By the table's number; those that can't be read with the reason.
    open: RwLock<BTreeMap<u64, std::result::Result<Arc<TableStore>, String>>>,
}

impl OpenTables {
    /// Opens the tables that a catalog has, and removes the files of those that it has no more or never had.
    pub(super) fn open(data_dir: &Path, catalog: &Catalog) -> Result<Self> {
        let folder = data_dir.join("tables");
        let failed = |error: std::io::Error| Error::External(format!("the tables below {} can't be read: {error}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let mut open = BTreeMap::new();
        for object in catalog.list() {
            let Definition::Table(def) = &object.definition else { continue };
            let store = TableStore::open(&def.name, def.schema(), folder.join(object.id.to_string()), hook()).map_err(|error| {
                // One that can't be read must not keep the others from it.
                tracing::error!(table = def.name, "{error}");
                error.to_string()
            });
            open.insert(object.id, store);
        }
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            // What is no number is not ours.
            if let Some(id) = id
                && !open.contains_key(&id)
                && let Err(error) = std::fs::remove_dir_all(&path)
            {
                tracing::warn!("{} belongs to no table and could not be removed: {error}", path.display());
            }
        }
        Ok(Self { folder, open: RwLock::new(open) })
    }

    /// The files of a table.
    pub(super) fn get(&self, id: u64) -> Result<Arc<TableStore>> {
        match self.open.read().get(&id) {
            Some(Ok(store)) => Ok(store.clone()),
            Some(Err(reason)) => Err(Error::External(reason.clone())),
            None => Err(Error::NotFound("the table was dropped meanwhile".into())),
        }
    }

    /// Where the files of the table of this number are.
    fn folder_of(&self, id: u64) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// The table of this number has been declared.
    fn add(&self, id: u64, store: Arc<TableStore>) {
        self.open.write().insert(id, Ok(store));
    }

    /// The table of this number is no longer declared: its files go when nobody reads them any more.
    pub(super) fn forget(&self, id: u64) {
        match self.open.write().remove(&id) {
            Some(Ok(store)) => store.drop_files(),
            Some(Err(_)) => {
                let folder = self.folder_of(id);
                if let Err(error) = std::fs::remove_dir_all(&folder) {
                    tracing::warn!("{} belongs to no table and could not be removed: {error}", folder.display());
                }
            }
            None => {}
        }
    }
}

/// Lets a test end the process at a step of a change.
fn hook() -> Hook {
    Arc::new(|step| {
        match step {
            Step::SyncFile => pass(Point::TableRows),
            Step::WriteManifest => pass(Point::TableFiles),
            Step::RenameManifest => pass(Point::TableManifest),
            Step::SyncRename => pass(Point::TableRenamed),
            Step::Committed => pass(Point::TableCommitted),
            Step::CreateFile | Step::WriteFile | Step::SyncNames | Step::SyncManifest => {}
        }
        Ok(())
    })
}
