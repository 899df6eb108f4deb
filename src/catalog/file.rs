//! `catalog.json`: read once at the start, replaced as a whole at each change.
//!
//! The new content is written to a file beside it and synced before it takes the name, and the folder is synced after: whatever instruction
//! a crash strikes at, the name holds the old catalog or the new one. A file that can't be read is an error and stays as it is.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const FORMAT: &str = "tidegate-catalog";
const VERSION: u64 = 1;

/// What the file holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Content {
    format: String,
    version: u64,
    /// The id that the next object gets; greater than any id that was ever given.
    pub(super) next_id: u64,
    /// The objects, rising by id.
    pub(super) objects: Vec<Entry>,
}

/// One object in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) id: u64,
    pub(super) statement: String,
    pub(super) reads: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) start_offsets: BTreeMap<i32, i64>,
}

/// The header alone, which any version has.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u64,
}

impl Content {
    pub(super) fn new(next_id: u64, objects: Vec<Entry>) -> Self {
        Self { format: FORMAT.into(), version: VERSION, next_id, objects }
    }
}

/// Where the catalog lies.
#[derive(Debug)]
pub(super) struct CatalogFile {
    folder: PathBuf,
    path: PathBuf,
}

impl CatalogFile {
    /// The catalog of a data directory, which is made if it isn't there.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::External(format!("the data directory {} can't be made: {e}", folder.display())))?;
        Ok(Self { folder: folder.into(), path: folder.join("catalog.json") })
    }

    /// What the file holds; an empty catalog if there is none.
    pub(super) fn load(&self) -> Result<Content> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Content::new(1, vec![])),
            Err(e) => return Err(Error::External(format!("the catalog {} can't be read: {e}", self.path.display()))),
        };
        let header: Header = serde_json::from_slice(&bytes).map_err(|e| self.damaged(&e.to_string()))?;
        if header.format != FORMAT {
            return Err(self.damaged(&format!("it is a {} file", header.format)));
        }
        if header.version > VERSION {
            return Err(Error::External(format!(
                "the catalog {} was written by a newer Tidegate (its version is {}, this one reads up to {VERSION}): start that one, or name another data directory",
                self.path.display(),
                header.version
            )));
        }
        serde_json::from_slice(&bytes).map_err(|e| self.damaged(&e.to_string()))
    }

    /// That the file holds something else than it should.
    pub(super) fn damaged(&self, why: &str) -> Error {
        Error::External(format!(
            "the catalog {} is damaged and was left as it is ({why}): restore it from a backup, or move it away to begin with an empty catalog",
            self.path.display()
        ))
    }

    /// Replaces the file. Durable once this returns.
    pub(super) fn save(&self, content: &Content) -> Result<()> {
        let text = serde_json::to_vec_pretty(content).map_err(|e| Error::Internal(format!("the catalog can't be written as JSON: {e}")))?;
        let path = self.path.display();
        self.replace(&text).map_err(|e| Error::External(format!("the catalog {path} can't be written: {e}; nothing was changed")))?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|e| Error::External(format!("the folder of the catalog {path} can't be synced: {e}; the change may or may not be there after a restart")))
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        let beside = self.folder.join("catalog.json.new");
        let mut file = File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, &self.path)
    }
}
