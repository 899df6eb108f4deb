//! Which files are a table: a text of one checksum line and JSON.

use serde::{Deserialize, Serialize};

/// The format of manifests; another one is refused.
const VERSION: u32 = 1;

const PREFIX: &str = "manifest-";
const SUFFIX: &str = ".json";

/// A table as of one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    version: u32,
    /// Rises with every change.
    pub(super) sequence: u64,
    /// The files that are the table.
    pub(super) files: Vec<Entry>,
}

/// A file of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Its name in the table's folder.
    pub(super) name: String,
    /// How many rows it has.
    pub(super) rows: u64,
    /// How long it is.
    pub(super) bytes: u64,
}

impl Manifest {
    pub(super) fn new(sequence: u64, files: Vec<Entry>) -> Self {
        Self { version: VERSION, sequence, files }
    }

    /// The file's name.
    pub(super) fn name(sequence: u64) -> String {
        format!("{PREFIX}{sequence:012}{SUFFIX}")
    }

    /// The number in a manifest's name.
    pub(super) fn sequence_of(name: &str) -> Option<u64> {
        name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        let json = serde_json::to_string(self).map_err(|error| error.to_string())?;
        Ok(format!("crc32 {:08x}\n{json}\n", crc32fast::hash(json.as_bytes())).into_bytes())
    }

    /// Reads one back; an error says why it can't be.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let (first, json) = text.split_once('\n').ok_or("it ends within its first line")?;
        let json = json.strip_suffix('\n').ok_or("its end is missing")?;
        let checksum = first.strip_prefix("crc32 ").and_then(|hex| u32::from_str_radix(hex, 16).ok()).ok_or("its first line is no checksum")?;
        if checksum != crc32fast::hash(json.as_bytes()) {
            return Err("its checksum is another one".into());
        }
        let manifest: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        if manifest.version != VERSION {
            return Err(format!("it has format {}, this version reads format {VERSION}", manifest.version));
        }
        if let Some(odd) = manifest.files.iter().find(|file| file.name.contains(['/', '\\']) || file.name.starts_with('.')) {
            return Err(format!("it names {:?}, which is no file of the table", odd.name));
        }
        Ok(manifest)
    }
}

/// Reads a manifest whose checksum is right, for the fuzz targets.
#[doc(hidden)]
pub fn read_manifest(json: &[u8]) {
    let _ = Manifest::decode(json);
    let _ = Manifest::decode(&[format!("crc32 {:08x}\n", crc32fast::hash(json)).as_bytes(), json, b"\n"].concat());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_written_and_nothing_else() {
        let manifest = Manifest::new(7, vec![Entry { name: "a.parquet".into(), rows: 3, bytes: 4 }]);
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
        for end in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..end]).is_err(), "{end} bytes of it");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Manifest::decode(&damaged).is_err(), "damaged at {at}");
        }
        let outside = Manifest::new(1, vec![Entry { name: "../../etc/passwd".into(), rows: 0, bytes: 0 }]);
        assert!(Manifest::decode(&outside.encode().unwrap()).is_err());
        assert_eq!(Manifest::sequence_of(&Manifest::name(42)), Some(42));
        assert_eq!(Manifest::sequence_of("manifest-000000000001.json.new"), None);
    }
}
