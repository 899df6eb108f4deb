//! Writes rows as Parquet files below a folder, or a bucket's prefix, that a manifest lists.
//!
//! `_tidegate/manifest.json` is replaced as a whole: it has the sink's cursor and all files whose rows count. Files are written first, under
//! names made of the numbers of their rows, and synced; then the manifest is replaced. So a reader of the manifest sees each row once, whatever
//! happens. What a crash has left beyond the manifest is removed when the sink begins again, before it writes the same rows anew.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, UInt64Array},
    compute::{cast, take_record_batch},
    datatypes::DataType,
    record_batch::RecordBatch,
};
use datafusion::parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use futures::TryStreamExt;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, local::LocalFileSystem, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    durable,
    error::{Error, Result},
};

/// The manifest's format; another one is refused.
const FORMAT: u32 = 1;
/// Where the manifest is, and lists of files that it names.
const OWN: &str = "_tidegate";
/// So many files stand in the manifest itself; then they go to a list of their own, which is never written again.
const TAIL: usize = 1000;
/// What stands for NULL in the name of a folder, as with Hive.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// A folder that a sink writes to.
pub struct FolderWriter {
    store: Arc<dyn ObjectStore>,
    /// Below which path of the store.
    prefix: Path,
    /// For a folder of this machine where it is, so that what was written can be synced.
    local: Option<PathBuf>,
    /// As the user knows it.
    place: String,
    /// The columns whose values are folders.
    partition_by: Vec<usize>,
    manifest: Manifest,
}

/// Which files count.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// Whose folder it is.
    sink: String,
    /// The number behind the last row.
    pub cursor: u64,
    /// The epoch of the last row.
    epoch: u64,
    /// Rows in all files.
    rows: u64,
    /// Lists of older files, beside the manifest.
    lists: Vec<String>,
    /// The files that stand in no list.
    files: Vec<File>,
}

/// A file of rows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct File {
    /// Its path below the folder.
    path: String,
    rows: u64,
    bytes: u64,
    /// The epoch of the last row of its commit.
    epoch: u64,
}

impl FolderWriter {
    /// Opens a folder for the sink of this identity, whose next row has the number `next`; removes what a crash has left. A folder that has lost
    /// its manifest is left as it is, unless the sink is to go on without it.
    pub async fn open(place: &str, sink: &str, partition_by: Vec<usize>, next: u64, without_manifest: bool) -> Result<Self> {
        let (store, prefix, local): (Arc<dyn ObjectStore>, Path, Option<PathBuf>) = match place.starts_with("s3://") {
            true => {
                let (store, prefix) = crate::stream::checkpoint::open_s3(place)?;
                (store, prefix, None)
            }
            false => {
                let folder = PathBuf::from(place);
                let made = std::fs::create_dir_all(&folder).and_then(|()| folder.canonicalize());
                let folder = made.map_err(|e| Error::External(format!("the folder {place} can't be made: {e}")))?;
                let store = LocalFileSystem::new_with_prefix(&folder).map_err(|e| Error::External(format!("the folder {place} can't be opened: {e}")))?;
                (Arc::new(store), Path::default(), Some(folder))
            }
        };
        let mut writer = Self { store, prefix, local, place: place.into(), partition_by, manifest: Manifest::default() };
        let manifest = match writer.manifest_there().await? {
            Some(found) => found,
            None if next > 0 && !without_manifest => {
                return Err(Error::Invalid(format!(
                    "the folder {place} has no manifest, though the sink has written there: restore it, or RESUME SINK to go on without what was there"
                )));
            }
            None => {
                // Whoever comes first has the folder. What is there is not the sink's, or no longer.
                let fresh = Manifest { format: FORMAT, sink: sink.into(), cursor: next, ..Manifest::default() };
                writer.claim(&fresh).await?;
                let gone = || Error::External(format!("the folder {place} has lost its manifest just now"));
                let claimed = writer.manifest_there().await?.ok_or_else(gone)?;
                if claimed.sink == sink {
                    writer.manifest = claimed;
                    return Ok(writer);
                }
                claimed
            }
        };
        if manifest.sink != sink {
            return Err(Error::Invalid(format!("the folder {place} is another sink's: name one of this sink's own")));
        }
        writer.manifest = manifest;
        writer.clean().await?;
        Ok(writer)
    }

    /// The number behind the last row that was written.
    pub fn cursor(&self) -> u64 {
        self.manifest.cursor
    }

    /// Rows that count.
    pub fn rows(&self) -> u64 {
        self.manifest.rows
    }

    /// Writes rows, the last of them of this epoch and with the number before `cursor`; they count when this returns. How many bytes there were.
    pub async fn write(&mut self, rows: &RecordBatch, epoch: u64, cursor: u64) -> Result<u64> {
        let mut next = self.manifest.clone();
        let mut bytes = 0;
        for (folder, part) in partitions(rows, &self.partition_by)? {
            let path = format!("{folder}part-{:020}-{cursor:020}.parquet", self.manifest.cursor);
            let encoded = parquet(&part)?;
            bytes += encoded.len() as u64;
            next.files.push(File { path: path.clone(), rows: part.num_rows() as u64, bytes: encoded.len() as u64, epoch });
            self.put(&path, encoded).await?;
        }
        next.rows += rows.num_rows() as u64;
        (next.cursor, next.epoch) = (cursor, epoch);
        if next.files.len() >= TAIL {
            let list = format!("files-{:06}.json", next.lists.len() + 1);
            self.put(&format!("{OWN}/{list}"), json(&next.files)?).await?;
            next.lists.push(list);
            next.files.clear();
        }
        self.put(&manifest_path(), json(&next)?).await?;
        self.manifest = next;
        Ok(bytes)
    }

    /// Makes the manifest if there is none.
    async fn claim(&self, manifest: &Manifest) -> Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.path(&manifest_path())?, json(manifest)?.into(), options).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => Ok(()),
            Err(error) => Err(self.failed("written", &error)),
        }
    }

    async fn manifest_there(&self) -> Result<Option<Manifest>> {
        let Some(text) = self.get(&manifest_path()).await? else { return Ok(None) };
        let broken = |why: String| Error::External(format!("the manifest {}/{} can't be understood: {why}", self.place, manifest_path()));
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
        match manifest.format {
            FORMAT => Ok(Some(manifest)),
            other => Err(broken(format!("it has format {other}, this version writes format {FORMAT}"))),
        }
    }

    /// Removes files that were written and never counted.
    async fn clean(&self) -> Result<()> {
        let listed: Vec<_> = self.store.list(Some(&self.prefix)).try_collect().await.map_err(|e| self.failed("listed", &e))?;
        for meta in listed {
            if meta.location.filename().and_then(first_row).is_some_and(|begin| begin >= self.manifest.cursor) {
                tracing::info!(file = %meta.location, "a file that a crash has left of a sink is removed");
                self.store.delete(&meta.location).await.map_err(|e| self.failed("cleaned", &e))?;
            }
        }
        // What was being written, by us or by object_store, which puts a number behind the name.
        if let Some(folder) = &self.local {
            remove_unfinished(folder).map_err(|e| self.failed("cleaned", &e))?;
        }
        Ok(())
    }

    fn path(&self, below: &str) -> Result<Path> {
        let path = if self.prefix.as_ref().is_empty() { below.to_string() } else { format!("{}/{below}", self.prefix) };
        Path::parse(&path).map_err(|e| Error::Invalid(format!("{path} can't be a file's name: {e}")))
    }

    async fn put(&self, below: &str, bytes: Vec<u8>) -> Result<()> {
        let path = self.path(below)?;
        let Some(folder) = &self.local else {
            return self.store.put(&path, bytes.into()).await.map(drop).map_err(|e| self.failed("written", &e));
        };
        // What counts must outlive a power cut: the server's checkpoints do, and forget the rows.
        let file = folder.join(path.as_ref());
        let written = tokio::task::spawn_blocking(move || {
            file.parent().map_or(Ok(()), durable::make_folder)?;
            durable::replace(&file, &bytes)
        });
        written.await.map_err(|e| Error::Internal(format!("writing a file panicked: {e}")))?.map_err(|e| self.failed("written", &e))
    }

    async fn get(&self, below: &str) -> Result<Option<Vec<u8>>> {
        match self.store.get(&self.path(below)?).await {
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.failed("read", &error)),
            Ok(found) => Ok(Some(found.bytes().await.map_err(|e| self.failed("read", &e))?.to_vec())),
        }
    }

    fn failed(&self, what: &str, error: &dyn std::fmt::Display) -> Error {
        Error::External(format!("the folder {} could not be {what}: {error}", self.place))
    }
}

/// The number of the first row of a file that a sink has written; others have other names.
fn first_row(name: &str) -> Option<u64> {
    let (begin, end) = name.strip_prefix("part-")?.strip_suffix(".parquet")?.split_once('-')?;
    let number = |text: &str| if text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit()) { text.parse::<u64>().ok() } else { None };
    number(end).and(number(begin))
}

fn manifest_path() -> String {
    format!("{OWN}/manifest.json")
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|e| Error::Internal(format!("a manifest could not be written as JSON: {e}")))
}

/// Below a folder of ours there is nothing else that ends so.
fn remove_unfinished(folder: &std::path::Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            remove_unfinished(&entry.path())?;
        } else if let Some(whole) = unfinished(&name)
            && (whole.starts_with("part-") || whole.ends_with(".json"))
        {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// The name that a file was to have which is being written.
fn unfinished(name: &str) -> Option<&str> {
    let numbered = name.rsplit_once('#').filter(|(_, number)| number.bytes().all(|b| b.is_ascii_digit())).map(|(whole, _)| whole);
    name.strip_suffix(".new").or(numbered)
}

fn parquet(rows: &RecordBatch) -> Result<Vec<u8>> {
    let failed = |e: datafusion::parquet::errors::ParquetError| Error::Internal(format!("rows could not be written as Parquet: {e}"));
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut bytes = vec![];
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties)).map_err(failed)?;
    writer.write(rows).map_err(failed)?;
    writer.close().map_err(failed)?;
    Ok(bytes)
}

/// The rows of each folder, without the columns that are in its name, in the order of their names.
fn partitions(rows: &RecordBatch, by: &[usize]) -> Result<Vec<(String, RecordBatch)>> {
    if by.is_empty() {
        return Ok(if rows.num_rows() == 0 { vec![] } else { vec![(String::new(), rows.clone())] });
    }
    let texts = by.iter().map(|at| Ok(cast(rows.column(*at), &DataType::Utf8)?)).collect::<Result<Vec<ArrayRef>>>()?;
    let mut places: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for row in 0..rows.num_rows() {
        let mut folder = String::new();
        for (at, text) in by.iter().zip(&texts) {
            let value = if text.is_null(row) { NULL.to_string() } else { escaped(text.as_string::<i32>().value(row)) };
            folder.push_str(&format!("{}={value}/", escaped(rows.schema_ref().field(*at).name())));
        }
        places.entry(folder).or_default().push(row as u64);
    }
    let kept: Vec<usize> = (0..rows.num_columns()).filter(|at| !by.contains(at)).collect();
    let part = |(folder, rows_of): (String, Vec<u64>)| {
        let rows = take_record_batch(rows, &UInt64Array::from(rows_of))?;
        Ok((folder, rows.project(&kept)?))
    };
    places.into_iter().map(part).collect()
}

/// A text as a part of a path, as Hive writes it: everything but letters, digits and a few signs as `%20`.
fn escaped(text: &str) -> String {
    if text.is_empty() {
        // A folder must have a name.
        return NULL.into();
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'+');
    text.bytes().fold(String::new(), |mut all, b| {
        match plain(b) {
            true => all.push(b as char),
            // Dots may stand within a name, but `..` is no name.
            false if b == b'.' && !all.is_empty() && !all.ends_with('.') => all.push('.'),
            false => all.push_str(&format!("%{b:02X}")),
        }
        all
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{
        array::{Int64Array, StringViewArray},
        datatypes::{Field, Schema, SchemaRef},
    };
    use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("day", DataType::Utf8View, true), Field::new("v", DataType::Int64, true)]))
    }

    fn rows(rows: &[(Option<&str>, i64)]) -> RecordBatch {
        let days: ArrayRef = Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.0)));
        RecordBatch::try_new(schema(), vec![days, Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.1)))]).unwrap()
    }

    /// All values that the manifest's files have.
    fn listed(folder: &std::path::Path, writer: &FolderWriter) -> Vec<i64> {
        let mut files: Vec<File> = vec![];
        for list in &writer.manifest.lists {
            files.extend(serde_json::from_slice::<Vec<File>>(&std::fs::read(folder.join(OWN).join(list)).unwrap()).unwrap());
        }
        files.extend(writer.manifest.files.clone());
        let mut values = vec![];
        for file in files {
            let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(folder.join(&file.path)).unwrap()).unwrap().build().unwrap();
            for batch in reader {
                let batch = batch.unwrap();
                values.extend(batch.column(batch.num_columns() - 1).as_primitive::<arrow::datatypes::Int64Type>().values());
            }
        }
        values.sort_unstable();
        values
    }

    #[tokio::test]
    async fn what_was_written_and_not_listed_is_removed_and_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let mut writer = FolderWriter::open(place, "a", vec![0], 0, false).await.unwrap();
        writer.write(&rows(&[(Some("2024-01-01"), 1), (None, 2), (Some("a/../b"), 3)]), 4, 3).await.unwrap();
        assert!(folder.path().join("day=2024-01-01/part-00000000000000000000-00000000000000000003.parquet").exists());
        // A crash between the files and the manifest, and one within a file.
        std::fs::write(folder.path().join("day=2024-01-01/part-00000000000000000003-00000000000000000005.parquet"), b"torn").unwrap();
        std::fs::write(folder.path().join("day=2024-01-01/part-00000000000000000003-00000000000000000005.parquet#1"), b"torn").unwrap();
        let mut again = FolderWriter::open(place, "a", vec![0], 0, false).await.unwrap();
        assert_eq!((again.cursor(), again.rows()), (3, 3));
        assert_eq!(std::fs::read_dir(folder.path().join("day=2024-01-01")).unwrap().count(), 1);
        again.write(&rows(&[(Some("2024-01-01"), 4)]), 5, 4).await.unwrap();
        assert_eq!(listed(folder.path(), &again), [1, 2, 3, 4]);
        let other = FolderWriter::open(place, "b", vec![0], 0, false).await.err().unwrap();
        assert!(other.to_string().contains("another sink's"), "{other}");
    }

    #[tokio::test]
    async fn what_is_there_without_a_manifest_is_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        // Another program's.
        let foreign = folder.path().join("part-00000-8b1e4c2a.c000.snappy.parquet");
        std::fs::write(&foreign, b"not ours").unwrap();
        let mut writer = FolderWriter::open(place, "a", vec![], 0, false).await.unwrap();
        for n in 0..2 {
            writer.write(&rows(&[(None, n)]), 1, n as u64 + 1).await.unwrap();
        }
        FolderWriter::open(place, "a", vec![], 2, false).await.unwrap();
        let files = || std::fs::read_dir(folder.path()).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some()).count();
        assert_eq!((files(), foreign.exists()), (3, true));
        std::fs::remove_dir_all(folder.path().join(OWN)).unwrap();
        let refused = FolderWriter::open(place, "a", vec![], 2, false).await.err().unwrap();
        assert!(refused.to_string().contains("has no manifest"), "{refused}");
        assert_eq!(files(), 3);
        // Somebody says that the sink is to go on: behind what was there.
        let mut again = FolderWriter::open(place, "a", vec![], 2, true).await.unwrap();
        assert_eq!((again.cursor(), files()), (2, 3));
        again.write(&rows(&[(None, 2)]), 1, 3).await.unwrap();
        assert_eq!(listed(folder.path(), &FolderWriter::open(place, "a", vec![], 3, false).await.unwrap()), [2]);
        assert_eq!(files(), 4);
    }

    #[tokio::test]
    async fn many_files_are_listed_beside_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let mut writer = FolderWriter::open(place, "a", vec![1], 0, false).await.unwrap();
        let all: Vec<(Option<&str>, i64)> = (0..600).map(|v| (None, v)).collect();
        writer.write(&rows(&all), 1, 600).await.unwrap();
        writer.write(&rows(&all), 2, 1200).await.unwrap();
        assert_eq!((writer.manifest.lists.len(), writer.manifest.files.len()), (1, 0));
        writer.write(&rows(&all[..5]), 3, 1205).await.unwrap();
        let again = FolderWriter::open(place, "a", vec![1], 0, false).await.unwrap();
        assert_eq!((again.manifest.lists.len(), again.manifest.files.len(), again.rows()), (1, 5, 1205));
    }

    #[test]
    fn values_are_names_of_folders() {
        assert_eq!(escaped("2024-01-01"), "2024-01-01");
        assert_eq!(escaped("a b/c=d"), "a%20b%2Fc%3Dd");
        assert_eq!(escaped(".."), "%2E.");
        assert_eq!(escaped("1.5"), "1.5");
        assert_eq!(escaped(""), NULL);
    }
}
