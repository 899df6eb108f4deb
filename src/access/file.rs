//! Files that only the server's own user may read, replaced as a whole.

use std::{
    fs::{File, OpenOptions},
    io::{Result, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Replaces a file, or makes it: after a crash it is the old one or the new one, and at no moment anybody else can read it.
pub(super) fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(".new");
    // What a crash has left may have other rights.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&fresh, file)?;
    match file.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
