//! The epoch log: before an epoch runs, what it will read and what the clock said is appended here. Replaying the entries over the
//! same offsets gives the same answers; after a crash it tells which epoch numbers have been used.
//!
//! One line an epoch: eight hexadecimal digits of checksum, a space, JSON. A line that does not verify is the end: the process died
//! while writing it. A new file begins with each checkpoint; older ones go when no kept checkpoint needs them.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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
    /// First epochs of the files there are, oldest first.
    files: Vec<u64>,
}

/// So many files are kept: as many as checkpoints.
const KEPT: usize = 4;

impl EpochLog {
    /// Opens the log for appending; returns it with the greatest epoch number that was ever begun.
    pub fn open(folder: PathBuf, next_epoch: u64) -> Result<(Self, u64)> {
        let failed = |e: std::io::Error| Error::External(format!("the epoch log in {} can't be used: {e}", folder.display()));
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let mut files: Vec<u64> = std::fs::read_dir(&folder)
            .map_err(failed)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix("epochs-")?.strip_suffix(".log")?.parse().ok())
            .collect();
        files.sort_unstable();
        let mut greatest = next_epoch.saturating_sub(1);
        for first in &files {
            for entry in read(&folder.join(name(*first))).map_err(failed)? {
                greatest = greatest.max(entry.epoch);
            }
        }
        let file = begin(&folder, greatest + 1).map_err(failed)?;
        files.push(greatest + 1);
        files.dedup();
        Ok((Self { folder, file, files }, greatest))
    }

    /// Appends an epoch. The line is with the operating system when this returns: it outlives the process; it is synced with the
    /// next checkpoint.
    pub fn append(&mut self, entry: &EpochEntry) -> Result<()> {
        let json = serde_json::to_string(entry).map_err(|e| Error::Internal(format!("an epoch could not be written as JSON: {e}")))?;
        let line = format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes()));
        self.file.write_all(line.as_bytes()).map_err(|e| self.failed(e))
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::External(format!("the epoch log in {} can't be written: {error}", self.folder.display()))
    }

    /// A checkpoint of everything before `next_epoch` is about to be taken: sync, begin a new file, drop the oldest.
    pub fn rotate(&mut self, next_epoch: u64) -> Result<()> {
        self.file.sync_data().map_err(|e| self.failed(e))?;
        if self.files.last() == Some(&next_epoch) {
            return Ok(());
        }
        self.file = begin(&self.folder, next_epoch).map_err(|e| self.failed(e))?;
        self.files.push(next_epoch);
        while self.files.len() > KEPT {
            let oldest = self.files.remove(0);
            std::fs::remove_file(self.folder.join(name(oldest))).map_err(|e| self.failed(e))?;
        }
        Ok(())
    }
}

fn name(first: u64) -> String {
    format!("epochs-{first:020}.log")
}

fn begin(folder: &std::path::Path, first: u64) -> std::io::Result<File> {
    // A file of that name can only hold a line torn by a crash: a whole one would have raised the number.
    OpenOptions::new().create(true).write(true).truncate(true).open(folder.join(name(first)))
}

/// The entries of a file up to the first line that does not verify.
fn read(path: &std::path::Path) -> std::io::Result<Vec<EpochEntry>> {
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
        let (mut log, greatest) = EpochLog::open(folder.path().into(), 1).unwrap();
        assert_eq!(greatest, 0);
        for epoch in 1..=10 {
            log.append(&entry(epoch)).unwrap();
            if epoch % 3 == 0 {
                log.rotate(epoch + 1).unwrap();
            }
        }
        drop(log);
        let (_, greatest) = EpochLog::open(folder.path().into(), 7).unwrap();
        assert_eq!(greatest, 10);
        assert_eq!(read(&folder.path().join(name(1))).unwrap(), [entry(1), entry(2), entry(3)]);
    }

    #[test]
    fn a_torn_line_is_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = EpochLog::open(folder.path().into(), 1).unwrap();
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
