//! Kernels ready to load: compiled for the device by NVRTC, kept on disk for the next start, or else as they were compiled beforehand.
//! Those that are made at run time were not, and without NVRTC there are none.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    kernel::{Source, hash},
    nvrtc::{Nvrtc, Target},
};

/// How many kernels made at run time are kept on disk; the oldest go.
const MOST_MADE: usize = 1000;
/// What stands in front of a kept file of theirs.
const MADE: &[u8; 8] = b"tidegate";

/// Where a device's kernels come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// NVRTC compiled them at this start.
    Compiled,
    /// NVRTC compiled them at an earlier start.
    Cached,
    /// They are part of this program and were translated by the driver; here is why they weren't compiled.
    Prebuilt(String),
}

/// One source's machine code or PTX, as the driver loads it.
pub(super) struct Image {
    pub(super) bytes: Vec<u8>,
    pub(super) origin: Origin,
    /// Where it is kept.
    kept: Option<PathBuf>,
}

/// A kernel's text that was made at run time.
pub(super) struct Text<'a> {
    /// The beginning of the name that it is kept by, and that the compiler calls it by.
    pub(super) kind: &'static str,
    pub(super) text: &'a str,
}

/// Why there is no image of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum MakeError {
    /// There is no NVRTC, or none that works.
    NoCompiler(String),
    /// NVRTC or the driver doesn't take the text.
    Refused(String),
}

/// Makes images for devices of one compute capability.
pub(super) struct Images<'a> {
    nvrtc: Result<Nvrtc, String>,
    capability: (u32, u32),
    /// The folder on disk.
    cache: Option<&'a Path>,
}

impl<'a> Images<'a> {
    pub(super) fn new(capability: (u32, u32), cache: Option<&'a Path>) -> Self {
        Self { nvrtc: Nvrtc::load(), capability, cache }
    }

    /// The best image there is: kept, compiled, prebuilt.
    pub(super) fn get(&self, source: &Source) -> Image {
        let nvrtc = match &self.nvrtc {
            Ok(nvrtc) => nvrtc,
            Err(reason) => return Self::prebuilt(source, reason.clone()),
        };
        let kept = self.cache.map(|folder| folder.join(self.file_name(source.name, source.text, nvrtc)));
        if let Some(bytes) = kept.as_deref().and_then(|path| fs::read(path).ok()).filter(|bytes| !bytes.is_empty()) {
            return Image { bytes, origin: Origin::Cached, kept };
        }
        self.compile(source, nvrtc, kept)
    }

    /// What to try after an image that the driver refused: a fresh one instead of a kept one, the prebuilt one instead of a fresh one.
    pub(super) fn instead(&self, source: &Source, refused: Image, reason: String) -> Option<Image> {
        match (refused.origin, &self.nvrtc) {
            (Origin::Cached, Ok(nvrtc)) => Some(self.compile(source, nvrtc, refused.kept)),
            (Origin::Prebuilt(_), _) => None,
            _ => Some(Self::prebuilt(source, reason)),
        }
    }

    fn compile(&self, source: &Source, nvrtc: &Nvrtc, kept: Option<PathBuf>) -> Image {
        let (major, minor) = self.capability;
        match nvrtc.compile(&format!("{}.cu", source.name), source.text, Target::Cubin(major, minor)) {
            Ok(bytes) => {
                // A cache that can't be written costs the next start a second, nothing else.
                if let Some(path) = &kept {
                    let _ = write_whole(path, &bytes);
                }
                Image { bytes, origin: Origin::Compiled, kept }
            }
            Err(reason) => Self::prebuilt(source, reason),
        }
    }

    fn prebuilt(source: &Source, reason: String) -> Image {
        let mut bytes = source.ptx.as_bytes().to_vec();
        // The driver reads PTX up to a NUL.
        bytes.push(0);
        Image { bytes, origin: Origin::Prebuilt(reason), kept: None }
    }

    /// The image of a text that was made at run time: kept or compiled.
    pub(super) fn make(&self, text: &Text<'_>) -> Result<Image, MakeError> {
        let nvrtc = self.nvrtc.as_ref().map_err(|reason| MakeError::NoCompiler(reason.clone()))?;
        let kept = self.cache.map(|folder| folder.join(self.file_name(text.kind, text.text, nvrtc)));
        match kept.as_deref().and_then(|path| fs::read(path).ok()).and_then(|kept| read_made(&kept, text.text)) {
            Some(bytes) => Ok(Image { bytes, origin: Origin::Cached, kept }),
            None => self.compile_made(text, nvrtc, kept),
        }
    }

    /// What to try after one that the driver refused for a reason: a fresh one instead of a kept one.
    pub(super) fn make_instead(&self, text: &Text<'_>, refused: Image, reason: String) -> Result<Image, MakeError> {
        match (refused.origin, &self.nvrtc) {
            (Origin::Cached, Ok(nvrtc)) => self.compile_made(text, nvrtc, refused.kept),
            _ => Err(MakeError::Refused(reason)),
        }
    }

    fn compile_made(&self, text: &Text<'_>, nvrtc: &Nvrtc, kept: Option<PathBuf>) -> Result<Image, MakeError> {
        let (major, minor) = self.capability;
        let bytes = nvrtc.compile(&format!("{}.cu", text.kind), text.text, Target::Cubin(major, minor)).map_err(MakeError::Refused)?;
        if let (Some(path), Some(folder)) = (&kept, self.cache) {
            // As in `compile`.
            let _ = write_whole(path, &made_file(text.text, &bytes)).and_then(|()| forget_oldest(folder, text.kind, MOST_MADE));
        }
        Ok(Image { bytes, origin: Origin::Compiled, kept })
    }

    /// A name that changes with all that the content depends on.
    fn file_name(&self, name: &str, text: &str, nvrtc: &Nvrtc) -> String {
        let ((major, minor), version) = (self.capability, nvrtc.version);
        format!("{name}-{:016x}-sm_{major}{minor}-nvrtc-{}.{}.cubin", hash(text), version.0, version.1)
    }
}

/// A kept file of a text made at run time. There are any number of such texts, some made on purpose, so two may have one hash: the file
/// holds its text as well.
fn made_file(text: &str, image: &[u8]) -> Vec<u8> {
    [MADE, &(text.len() as u64).to_le_bytes()[..], text.as_bytes(), image].concat()
}

/// The image in such a file, if it is this text's.
fn read_made(file: &[u8], text: &str) -> Option<Vec<u8>> {
    let rest = file.strip_prefix(MADE)?.strip_prefix(&(text.len() as u64).to_le_bytes())?;
    let image = rest.strip_prefix(text.as_bytes())?;
    (!image.is_empty()).then(|| image.to_vec())
}

/// Removes the oldest files of a kind, so that at most so many are left.
fn forget_oldest(folder: &Path, kind: &str, most: usize) -> std::io::Result<()> {
    let prefix = format!("{kind}-");
    let entries = fs::read_dir(folder)?.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let mut files: Vec<(SystemTime, PathBuf)> = entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    files.sort();
    files.iter().rev().skip(most).try_for_each(|(_, path)| fs::remove_file(path))
}

/// Writes a file so that nobody sees half of it.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    fs::write(&beside, bytes)?;
    fs::rename(&beside, path).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_files_are_of_one_text() {
        let file = made_file("a text", b"an image");
        assert_eq!(read_made(&file, "a text").as_deref(), Some(&b"an image"[..]));
        assert_eq!(read_made(&file, "b text"), None, "of the same length, and so in its place");
        assert_eq!(read_made(&file, "a text "), None);
        assert_eq!(read_made(&file[..file.len() - 8], "a text"), None, "without an image");
        assert_eq!(read_made(b"\x7fELF", "a text"), None);
        assert_eq!(read_made(b"", "a text"), None);
    }

    #[test]
    fn without_a_compiler_nothing_is_made() {
        let images = Images { nvrtc: Err("NVRTC is not installed".into()), capability: (9, 0), cache: None };
        let made = images.make(&Text { kind: "expr", text: "" }).err();
        assert_eq!(made, Some(MakeError::NoCompiler("NVRTC is not installed".into())));
    }

    #[test]
    fn the_oldest_files_go() {
        let folder = std::env::temp_dir().join(format!("tidegate-kept-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        for (age, name) in ["expr-4", "expr-2", "expr-3", "expr-1", "forest-1"].iter().enumerate() {
            let file = fs::File::create(folder.join(name)).expect("a file");
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(100 * age as u64)).expect("its time");
        }
        forget_oldest(&folder, "expr", 2).expect("a folder that can be written");
        let mut left: Vec<_> = fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, ["expr-2", "expr-4", "forest-1"]);
        fs::remove_dir_all(&folder).expect("a folder");
    }
}
