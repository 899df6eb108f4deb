//! The epoch log: before an epoch runs, what it will read and what the clock said is appended here. Replaying the entries over the
//! same offsets gives the same answers; after a crash it tells which epoch numbers have been used.
//!
//! One line an epoch: eight hexadecimal digits of checksum, a space, JSON. A line that does not verify is the end: the process died
//! while writing it. A new file begins with each checkpoint; older ones go when no kept checkpoint needs them.
//!
//! Whoever follows a view remembers numbers, so one that was published is never used again. A line outlives the process but perhaps
//! not the machine: it is with the operating system when the epoch runs, and synced only with the next checkpoint. The file `origin`
//! tells the two apart: it names the machine's boot, and is marked when the log is closed in order. After another boot without that
//! mark, or where a checkpoint came without its log, numbers start [`JUMP`] above all that is known; no log goes further than a
//! quarter of that above the last checkpoint.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    durable,
    error::{Error, Result},
};

/// One epoch's inputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochEntry {
    /// Its number: rises, never reused.
    pub epoch: u64,
    /// The wall clock when it was cut, in milliseconds since 1970.
    pub now_ms: i64,
    /// For each source and partition the half-open range of offsets it reads.
    pub ranges: BTreeMap<String, BTreeMap<i32, (i64, i64)>>,
    /// Partitions that are idle in it.
    pub idle: BTreeMap<String, Vec<i32>>,
    /// Sources of which everything that there is has been read with it.
    #[serde(default)]
    pub caught_up: Vec<String>,
    /// Each source's watermark before it, in nanoseconds since 1970.
    pub watermarks: BTreeMap<String, i64>,
}

/// The log of one pipeline.
#[derive(Debug)]
pub struct EpochLog {
    folder: PathBuf,
    file: File,
    /// Bytes of whole lines in `file`.
    length: u64,
    /// The last epoch of which it is certain that a crash of the machine does not forget it.
    floor: u64,
    /// First epochs of the files there are, oldest first.
    files: Vec<u64>,
}

/// So many files are kept: as many as checkpoints.
const KEPT: usize = 4;

/// How far numbers are moved on where those in use may have been forgotten.
pub const JUMP: u64 = 1 << 32;
/// So many epochs may follow a checkpoint: the kept checkpoints, of which the newest may be damaged, are together less than [`JUMP`] apart.
const REACH: u64 = JUMP / (KEPT as u64 + 1);
/// Says whose log it is.
const ORIGIN: &str = "origin";
/// What `origin` says of a log that was closed in order.
const CLOSED: &str = "closed";

impl EpochLog {
    /// Opens the log for appending; returns it with the number after which epochs go on. `checkpoint` is the epoch of the checkpoint
    /// that was restored, if there was one.
    pub fn open(folder: PathBuf, checkpoint: Option<u64>) -> Result<(Self, u64)> {
        Self::open_on(folder, checkpoint, &boot())
    }

    fn open_on(folder: PathBuf, checkpoint: Option<u64>, boot: &str) -> Result<(Self, u64)> {
        let failed = |e: std::io::Error| Error::External(format!("the epoch log in {} can't be used: {e}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let mut files: Vec<u64> = std::fs::read_dir(&folder)
            .map_err(failed)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("epochs-")?.strip_suffix(".log")?.parse().ok())
            .collect();
        files.sort_unstable();
        let mut greatest = checkpoint.unwrap_or_default();
        for first in &files {
            // A file is named after the first epoch that may be in it.
            greatest = greatest.max(first.saturating_sub(1));
            for entry in read(&folder.join(name(*first))).map_err(failed)? {
                greatest = greatest.max(entry.epoch);
            }
        }
        let complete = match std::fs::read_to_string(folder.join(ORIGIN)) {
            Ok(origin) => origin == boot || origin == CLOSED,
            // A log of before there was an origin is believed; a checkpoint without any log is another server's.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => checkpoint.is_none() || !files.is_empty(),
            Err(error) => return Err(failed(error)),
        };
        if !complete {
            greatest += JUMP;
            tracing::warn!("epochs go on at {}: the machine may have forgotten numbers that were published", greatest + 1);
        }
        // The file first, since its name remembers where numbers went on, then whose it is.
        let file = begin(&folder, greatest + 1).map_err(failed)?;
        durable::sync_folder(&folder).map_err(failed)?;
        durable::replace(&folder.join(ORIGIN), boot.as_bytes()).map_err(failed)?;
        files.retain(|first| *first != greatest + 1);
        files.push(greatest + 1);
        Ok((Self { folder, file, length: 0, floor: greatest, files }, greatest))
    }

    /// Appends an epoch. The line is with the operating system when this returns: it outlives the process; it is synced with the
    /// next checkpoint. After an error the log is as it was, and the same epoch can be tried again.
    pub fn append(&mut self, entry: &EpochEntry) -> Result<()> {
        if entry.epoch > self.floor + REACH {
            return Err(Error::External(format!(
                "epoch {} is not begun: no checkpoint could be written since epoch {}, the log of this server says why",
                entry.epoch, self.floor
            )));
        }
        let json = serde_json::to_string(entry).map_err(|e| Error::Internal(format!("an epoch could not be written as JSON: {e}")))?;
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        if let Err(error) = self.file.write_all(line.as_bytes()) {
            // A full disk takes half a line: what follows must not stand behind it.
            let mended = self.file.set_len(self.length).and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            return Err(mended.map_or_else(|e| self.failed(e), |_| self.failed(error)));
        }
        self.length += line.len() as u64;
        Ok(())
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::External(format!("the epoch log in {} can't be written: {error}", self.folder.display()))
    }

    /// A checkpoint of everything before `next_epoch` is about to be taken: begin a new file, drop the oldest. Returns the file
    /// before, which has to be synced before the checkpoint counts; that may take longer than an epoch can wait.
    pub fn rotate(&mut self, next_epoch: u64) -> Result<Option<File>> {
        if self.files.last() == Some(&next_epoch) {
            return Ok(None);
        }
        let fresh = begin(&self.folder, next_epoch).map_err(|e| self.failed(e))?;
        let before = std::mem::replace(&mut self.file, fresh);
        self.length = 0;
        self.files.push(next_epoch);
        while self.files.len() > KEPT {
            let oldest = self.files.remove(0);
            std::fs::remove_file(self.folder.join(name(oldest))).map_err(|e| self.failed(e))?;
        }
        Ok(Some(before))
    }

    /// A checkpoint of this epoch counts.
    pub fn checkpointed(&mut self, epoch: u64) {
        self.floor = self.floor.max(epoch);
    }

    /// Closes the log in order: all of it is durable.
    pub fn close(self) -> Result<()> {
        self.file.sync_all().map_err(|e| self.failed(e))?;
        durable::replace(&self.folder.join(ORIGIN), CLOSED.as_bytes()).map_err(|e| self.failed(e))
    }
}

/// Names this boot of the machine; where the system tells none, each start counts as another boot.
fn boot() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => format!("boot {}", id.trim()),
        Err(_) => format!("process {}", uuid::Uuid::new_v4()),
    }
}

fn name(first: u64) -> String {
    format!("epochs-{first:020}.log")
}

fn begin(folder: &Path, first: u64) -> std::io::Result<File> {
    // A file of that name can only hold a line torn by a crash: a whole one would have raised the number.
    OpenOptions::new().create(true).write(true).truncate(true).open(folder.join(name(first)))
}

/// The entries of a file up to the first line that does not verify.
fn read(path: &Path) -> std::io::Result<Vec<EpochEntry>> {
    let mut entries = vec![];
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        let line = line?;
        let Some(entry) = std::str::from_utf8(&line).ok().and_then(parse) else { break };
        entries.push(entry);
    }
    Ok(entries)
}

fn parse(line: &str) -> Option<EpochEntry> {
    let (crc, json) = line.split_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(json.as_bytes()) {
        return None;
    }
    serde_json::from_str(json).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(epoch: u64) -> EpochEntry {
        EpochEntry {
            epoch,
            now_ms: 1_700_000_000_000,
            ranges: BTreeMap::from([("events".into(), BTreeMap::from([(0, (5, 9)), (3, (0, 1))]))]),
            idle: BTreeMap::from([("events".into(), vec![2])]),
            caught_up: vec![],
            watermarks: BTreeMap::from([("events".into(), i64::MIN)]),
        }
    }

    #[test]
    fn numbers_are_never_reused() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, greatest) = EpochLog::open(folder.path().into(), None).unwrap();
        assert_eq!(greatest, 0);
        for epoch in 1..=10 {
            log.append(&entry(epoch)).unwrap();
            if epoch % 3 == 0 {
                log.rotate(epoch + 1).unwrap();
            }
        }
        drop(log);
        let (_, greatest) = EpochLog::open(folder.path().into(), Some(6)).unwrap();
        assert_eq!(greatest, 10);
        assert_eq!(read(&folder.path().join(name(1))).unwrap(), [entry(1), entry(2), entry(3)]);
    }

    /// What the log says after a crash of the machine may be less than what was published.
    #[test]
    fn a_number_that_the_machine_may_have_forgotten_is_not_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = || folder.path().to_path_buf();
        let open = |checkpoint, boot| EpochLog::open_on(place(), checkpoint, boot).unwrap();
        let (mut log, _) = open(None, "boot a");
        (1..=9).for_each(|epoch| log.append(&entry(epoch)).unwrap());
        drop(log);
        // The process died, the machine did not.
        let (log, greatest) = open(Some(5), "boot a");
        assert_eq!(greatest, 9);
        drop(log);
        // The machine died, and its log with it.
        std::fs::write(place().join(name(1)), b"").unwrap();
        let (log, first) = open(Some(5), "boot b");
        assert!(first >= 5 + JUMP);
        drop(log);
        // Again, before any checkpoint or epoch: the numbers in between may have been used.
        let (log, second) = open(Some(5), "boot c");
        assert!(second >= first + JUMP);
        log.close().unwrap();
        // Stopped in order, then the machine too: nothing was forgotten.
        assert_eq!(open(Some(5), "boot d").1, second);
    }

    #[test]
    fn a_checkpoint_without_its_log_came_from_another_server() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(EpochLog::open(folder.path().join("other"), Some(70)).unwrap().1, 70 + JUMP);
        assert_eq!(EpochLog::open(folder.path().join("new"), None).unwrap().1, 0);
    }

    #[test]
    fn no_log_outruns_the_jump() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = EpochLog::open(folder.path().into(), None).unwrap();
        log.append(&entry(REACH)).unwrap();
        assert!(log.append(&entry(REACH + 1)).unwrap_err().to_string().contains("no checkpoint"));
        log.checkpointed(REACH);
        log.append(&entry(REACH + 1)).unwrap();
        assert!(REACH * (super::super::checkpoint::KEPT as u64 + 1) <= JUMP);
    }

    #[test]
    fn a_torn_line_is_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = EpochLog::open(folder.path().into(), None).unwrap();
        log.append(&entry(1)).unwrap();
        log.append(&entry(2)).unwrap();
        let path = folder.path().join(name(1));
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|b| **b == b'\n').count();
            let entries = read(&path).unwrap();
            assert!(entries.len() == whole || entries.len() == whole + 1, "at {cut}: {}", entries.len());
            assert_eq!(entries, (1..=entries.len() as u64).map(entry).collect::<Vec<_>>());
        }
    }
}
