//! Kernels ready to load: compiled for the device by NVRTC, kept on disk for the next start, or else as they were compiled beforehand.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    kernel::Source,
    nvrtc::{Nvrtc, Target},
};

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
        let kept = self.cache.map(|folder| folder.join(self.file_name(source, nvrtc)));
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

    /// A name that changes with all that the content depends on.
    fn file_name(&self, source: &Source, nvrtc: &Nvrtc) -> String {
        let ((major, minor), version) = (self.capability, nvrtc.version);
        format!("{}-{:016x}-sm_{major}{minor}-nvrtc-{}.{}.cubin", source.name, source.hash(), version.0, version.1)
    }
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
