//! Checkpoints: everything of a pipeline at one epoch, on an object store.
//!
//! A checkpoint is a *pack* (the segments made since the last one, one after the other as Arrow IPC streams) and a *manifest*
//! (which segments live, where each lies, who died in them, and the rest of the state as JSON). The pack is written and synced
//! first; the manifest comes last, created only if it does not exist, with a checksum over itself and over every part. The newest
//! manifest that verifies, parts included, is the state. Nothing is ever changed in place.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use arrow::{
    ipc::{reader::StreamReader, writer::StreamWriter},
    record_batch::RecordBatch,
};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, local::LocalFileSystem, path::Path};
use serde::{Deserialize, Serialize};

use super::segments::{Segment, StoredSegment};
use crate::error::{Error, Result};

/// The format's version; a manifest of another one is refused.
const VERSION: u32 = 1;
/// DataFusion's accumulator states are private to it: another version may not understand them.
const ENGINE: &str = datafusion::DATAFUSION_VERSION;
/// So many manifests are kept.
const KEPT: usize = 3;
/// A pack of which less than this share is still needed is written anew.
const PACK_USE: f64 = 0.25;

/// A pipeline's state at one epoch, by reference: taking one copies no row.
#[derive(Debug)]
pub struct Image {
    /// The epoch.
    pub epoch: u64,
    /// Everything small: offsets, clocks, counters, what an operator keeps beside its rows.
    pub meta: serde_json::Value,
    /// The rows, by log.
    pub logs: BTreeMap<String, Vec<(u32, Arc<Segment>)>>,
}

/// A checkpoint that was read back.
#[derive(Debug)]
pub struct Restored {
    /// The epoch.
    pub epoch: u64,
    /// See [`Image::meta`].
    pub meta: serde_json::Value,
    /// The rows, by log.
    pub logs: BTreeMap<String, Vec<StoredSegment>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    engine: String,
    epoch: u64,
    meta: serde_json::Value,
    logs: BTreeMap<String, Vec<ManifestSegment>>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ManifestSegment {
    id: u32,
    place: PackPlace,
    /// See [`Segment::tombstones`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tombstones: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct PackPlace {
    pack: u64,
    offset: u64,
    length: u64,
    crc: u32,
}

/// The checkpoints of one pipeline.
#[derive(Debug)]
pub struct CheckpointStore {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// For a local store the folder, so that what was written can be synced.
    folder: Option<PathBuf>,
    /// Where each segment of the last checkpoint lies.
    placed: HashMap<(String, u32), PackPlace>,
    next: u64,
    /// Bytes and files of the last checkpoint, as far as they were written.
    written: (u64, u64),
}

impl CheckpointStore {
    /// The checkpoints below a local folder, which is made if need be.
    pub fn local(folder: PathBuf) -> Result<Self> {
        let failed = |e: &dyn std::fmt::Display| Error::External(format!("the checkpoint folder {} can't be used: {e}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(|e| failed(&e))?;
        let store = LocalFileSystem::new_with_prefix(&folder).map_err(|e| failed(&e))?;
        Ok(Self { store: Arc::new(store), prefix: Path::default(), folder: Some(folder), placed: HashMap::new(), next: 1, written: (0, 0) })
    }

    fn pack_path(&self, number: u64) -> Path {
        self.prefix.clone().join(format!("pack-{number:012}.arrows"))
    }

    fn manifest_path(&self, number: u64) -> Path {
        self.prefix.clone().join(format!("manifest-{number:012}.json"))
    }

    async fn numbers(&self, kind: &str) -> Result<Vec<u64>> {
        let listed: Vec<_> = self.store.list(Some(&self.prefix)).try_collect().await.map_err(|e| self.failed("listed", &e))?;
        let mut numbers: Vec<u64> =
            listed.iter().filter_map(|object| object.location.filename()?.strip_prefix(kind)?.strip_prefix('-')?.split('.').next()?.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn failed(&self, what: &str, error: &dyn std::fmt::Display) -> Error {
        let place = self.folder.as_ref().map_or_else(|| self.prefix.to_string(), |f| f.display().to_string());
        Error::External(format!("checkpoints at {place} could not be {what}: {error}"))
    }

    /// The newest checkpoint that verifies; `None` if there is none at all. Damaged ones are skipped and named in the log.
    pub async fn newest(&mut self) -> Result<Option<Restored>> {
        let manifests = self.numbers("manifest").await?;
        let packs = self.numbers("pack").await?;
        self.next = manifests.iter().chain(&packs).max().map_or(1, |n| n + 1);
        let mut damage = None;
        for number in manifests.iter().rev() {
            match self.load(*number).await {
                Ok((restored, placed)) => {
                    self.placed = placed;
                    return Ok(Some(restored));
                }
                Err(Error::Unsupported(sentence)) => return Err(Error::Unsupported(sentence)),
                Err(error) => {
                    tracing::error!("checkpoint {number} is damaged and skipped: {error}");
                    damage = Some(error);
                }
            }
        }
        match damage {
            Some(error) => Err(self.failed("read: none of them verifies", &error)),
            None => Ok(None),
        }
    }

    async fn load(&self, number: u64) -> Result<(Restored, HashMap<(String, u32), PackPlace>)> {
        let bytes = self.get(&self.manifest_path(number)).await?;
        let text = std::str::from_utf8(&bytes).map_err(|e| Error::External(format!("manifest {number} is not text: {e}")))?;
        let (crc, body) = text.split_once('\n').ok_or_else(|| Error::External(format!("manifest {number} has no checksum")))?;
        if u32::from_str_radix(crc, 16) != Ok(crc32fast::hash(body.as_bytes())) {
            return Err(Error::External(format!("manifest {number} does not match its checksum")));
        }
        let header: serde_json::Value = serde_json::from_str(body).map_err(|e| Error::External(format!("manifest {number}: {e}")))?;
        if header["version"] != VERSION || header["engine"] != ENGINE {
            return Err(Error::Unsupported(format!(
                "the checkpoint was written by another version (format {}, engine {}; this one reads format {VERSION}, engine {ENGINE}): start that version, or remove the checkpoint to rebuild the views from the topic",
                header["version"], header["engine"]
            )));
        }
        let manifest: Manifest = serde_json::from_value(header).map_err(|e| Error::External(format!("manifest {number}: {e}")))?;
        let mut packs: HashMap<u64, Bytes> = HashMap::new();
        let mut logs = BTreeMap::new();
        let mut placed = HashMap::new();
        for (log, segments) in manifest.logs {
            let mut stored = vec![];
            for segment in segments {
                let pack = segment.place.pack;
                if let std::collections::hash_map::Entry::Vacant(entry) = packs.entry(pack) {
                    entry.insert(self.get(&self.pack_path(pack)).await?);
                }
                let (from, to) = (segment.place.offset as usize, (segment.place.offset + segment.place.length) as usize);
                let part = packs
                    .get(&pack)
                    .filter(|p| p.len() >= to)
                    .map(|p| p.slice(from..to))
                    .ok_or_else(|| Error::External(format!("pack {pack} is cut short")))?;
                if crc32fast::hash(&part) != segment.place.crc {
                    return Err(Error::External(format!("segment {} of {log} in pack {pack} does not match its checksum", segment.id)));
                }
                placed.insert((log.clone(), segment.id), segment.place);
                stored.push(StoredSegment { id: segment.id, batch: decode_batch(&part)?, tombstones: segment.tombstones });
            }
            logs.insert(log, stored);
        }
        Ok((Restored { epoch: manifest.epoch, meta: manifest.meta, logs }, placed))
    }

    async fn get(&self, path: &Path) -> Result<Bytes> {
        let failed = |e: object_store::Error| self.failed("read", &e);
        self.store.get(path).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    /// Bytes and files of the last checkpoint, as far as they were written.
    pub fn written(&self) -> (u64, u64) {
        self.written
    }

    /// Writes a checkpoint; it counts once this returns.
    pub async fn write(&mut self, image: Image) -> Result<()> {
        self.written = (0, 0);
        let number = self.next;
        // Segments in packs that are mostly dead are written anew, so that old packs can go.
        let mut used: HashMap<u64, u64> = HashMap::new();
        for (log, segments) in &image.logs {
            for (id, _) in segments {
                if let Some(place) = self.placed.get(&(log.clone(), *id)) {
                    *used.entry(place.pack).or_default() += place.length;
                }
            }
        }
        let mut sizes: HashMap<u64, u64> = HashMap::new();
        for place in self.placed.values() {
            let size = sizes.entry(place.pack).or_default();
            *size = (*size).max(place.offset + place.length);
        }
        let sparse = |pack: u64| used.get(&pack).copied().unwrap_or(0) as f64 <= PACK_USE * sizes.get(&pack).copied().unwrap_or(0) as f64;
        let mut pack: Vec<u8> = vec![];
        let mut logs = BTreeMap::new();
        let mut placed = HashMap::new();
        for (log, segments) in image.logs {
            let mut listed = vec![];
            for (id, segment) in segments {
                let key = (log.clone(), id);
                let place = match self.placed.get(&key) {
                    Some(place) if !sparse(place.pack) => place.clone(),
                    _ => {
                        let offset = pack.len() as u64;
                        encode_batch(&segment.batch, &mut pack)?;
                        let part = &pack[offset as usize..];
                        PackPlace { pack: number, offset, length: part.len() as u64, crc: crc32fast::hash(part) }
                    }
                };
                listed.push(ManifestSegment { id, place: place.clone(), tombstones: segment.tombstones().to_vec() });
                placed.insert(key, place);
            }
            logs.insert(log, listed);
        }
        self.next += 1;
        if !pack.is_empty() {
            self.put(&self.pack_path(number), pack.into()).await?;
        }
        let manifest = Manifest { version: VERSION, engine: ENGINE.into(), epoch: image.epoch, meta: image.meta, logs };
        let body = serde_json::to_string(&manifest).map_err(|e| Error::Internal(format!("a manifest could not be written as JSON: {e}")))?;
        let text = format!("{:08x}\n{body}", crc32fast::hash(body.as_bytes()));
        self.put(&self.manifest_path(number), text.into_bytes().into()).await?;
        self.placed = placed;
        if let Err(error) = self.clean().await {
            // Old files cost space, not truth: the next checkpoint tries again.
            tracing::warn!("{error}");
        }
        Ok(())
    }

    async fn put(&mut self, path: &Path, bytes: PutPayload) -> Result<()> {
        let length = bytes.content_length() as u64;
        self.store.put_opts(path, bytes, PutOptions::from(PutMode::Create)).await.map_err(|e| self.failed("written", &e))?;
        self.written = (self.written.0 + length, self.written.1 + 1);
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let file = folder.join(path.as_ref());
        let synced = tokio::task::spawn_blocking(move || {
            std::fs::File::open(&file)?.sync_all()?;
            std::fs::File::open(&folder)?.sync_all()
        });
        match synced.await {
            Ok(result) => result.map_err(|e| self.failed("synced", &e)),
            Err(error) => Err(Error::Internal(format!("syncing a checkpoint panicked: {error}"))),
        }
    }

    /// Removes manifests beyond the newest few, and packs that none of those names.
    async fn clean(&self) -> Result<()> {
        let manifests = self.numbers("manifest").await?;
        let split = manifests.len().saturating_sub(KEPT);
        for old in &manifests[..split] {
            self.store.delete(&self.manifest_path(*old)).await.map_err(|e| self.failed("removed", &e))?;
        }
        let mut needed = HashSet::new();
        for number in &manifests[split..] {
            let bytes = self.get(&self.manifest_path(*number)).await?;
            let body = std::str::from_utf8(&bytes).ok().and_then(|t| t.split_once('\n')).map(|(_, body)| body);
            let Some(manifest) = body.and_then(|b| serde_json::from_str::<Manifest>(b).ok()) else { continue };
            needed.extend(manifest.logs.into_values().flatten().map(|s| s.place.pack));
        }
        for pack in self.numbers("pack").await? {
            if pack < self.next.saturating_sub(1) && !needed.contains(&pack) {
                self.store.delete(&self.pack_path(pack)).await.map_err(|e| self.failed("removed", &e))?;
            }
        }
        Ok(())
    }
}

fn encode_batch(batch: &RecordBatch, into: &mut Vec<u8>) -> Result<()> {
    let mut writer = StreamWriter::try_new(into, batch.schema_ref())?;
    writer.write(batch)?;
    writer.finish()?;
    Ok(())
}

fn decode_batch(bytes: &[u8]) -> Result<RecordBatch> {
    match StreamReader::try_new(bytes, None)?.next() {
        Some(batch) => Ok(batch?),
        None => Err(Error::External("a segment holds no batch".into())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::{
        array::Int64Array,
        datatypes::{DataType, Field, Schema},
    };

    use super::{super::segments::SegmentLog, *};

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from_iter_values(values))]).unwrap()
    }

    fn image(epoch: u64, log: &SegmentLog) -> Image {
        Image { epoch, meta: serde_json::json!({ "epoch": epoch }), logs: BTreeMap::from([("rows".into(), log.segments().collect())]) }
    }

    fn rows(restored: Restored) -> usize {
        let schema = batch(0..0).schema();
        restored.logs.into_values().map(|stored| SegmentLog::restore(schema.clone(), stored).unwrap().rows()).sum()
    }

    #[tokio::test]
    async fn the_newest_comes_back_and_old_files_go() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = CheckpointStore::local(folder.path().into()).unwrap();
        assert!(store.newest().await.unwrap().is_none());
        let mut log = SegmentLog::new(batch(0..0).schema());
        for epoch in 0..20 {
            let ids = log.append(batch(epoch * 100..epoch * 100 + 100));
            log.remove(ids[0]);
            log.compact().unwrap();
            store.write(image(epoch as u64, &log)).await.unwrap();
        }
        let mut again = CheckpointStore::local(folder.path().into()).unwrap();
        let restored = again.newest().await.unwrap().unwrap();
        assert_eq!(restored.epoch, 19);
        assert_eq!(rows(restored), 20 * 99);
        let manifests = again.numbers("manifest").await.unwrap();
        assert_eq!(manifests.len(), KEPT);
        log.append(batch(0..5));
        again.write(image(20, &log)).await.unwrap();
        assert_eq!(rows(CheckpointStore::local(folder.path().into()).unwrap().newest().await.unwrap().unwrap()), 20 * 99 + 5);
    }

    /// Whatever happens to the newest files, the state is the newest one that verifies, or a clear error: never a wrong one.
    #[tokio::test]
    async fn damage_falls_back_to_the_one_before() {
        for kind in ["manifest", "pack"] {
            for damage in ["flip", "cut", "empty"] {
                let folder = tempfile::tempdir().unwrap();
                let mut store = CheckpointStore::local(folder.path().into()).unwrap();
                let mut log = SegmentLog::new(batch(0..0).schema());
                for epoch in 1..=2 {
                    log.append(batch(0..50));
                    store.write(image(epoch, &log)).await.unwrap();
                }
                let newest = folder.path().join(format!("{kind}-{:012}.{}", 2, if kind == "manifest" { "json" } else { "arrows" }));
                let mut bytes = std::fs::read(&newest).unwrap();
                match damage {
                    "flip" => {
                        let middle = bytes.len() / 2;
                        bytes[middle] ^= 4;
                    }
                    "cut" => bytes.truncate(bytes.len() / 2),
                    _ => bytes.clear(),
                }
                std::fs::write(&newest, bytes).unwrap();
                let restored = CheckpointStore::local(folder.path().into()).unwrap().newest().await.unwrap().unwrap();
                assert_eq!((restored.epoch, rows(restored)), (1, 50), "{kind} {damage}");
            }
        }
    }

    #[tokio::test]
    async fn another_version_is_refused_in_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let body = r#"{"version":99,"engine":"1.0.0","epoch":1,"meta":null,"logs":{}}"#;
        std::fs::write(folder.path().join("manifest-000000000001.json"), format!("{:08x}\n{body}", crc32fast::hash(body.as_bytes()))).unwrap();
        let error = CheckpointStore::local(folder.path().into()).unwrap().newest().await.unwrap_err();
        assert!(error.to_string().contains("another version"), "{error}");
    }
}
