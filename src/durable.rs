//! Files that outlive a power cut: replaced as a whole, and with their names on the disk.

use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Result, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Replaces a file, or makes it: after a crash it is the old one or the new one.
pub fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    replace_with(file, bytes, OpenOptions::new().write(true).create_new(true))
}

/// The same; at no moment anybody but the server's own user can read it.
pub fn replace_private(file: &Path, bytes: &[u8]) -> Result<()> {
    replace_with(file, bytes, OpenOptions::new().write(true).create_new(true).mode(0o600))
}

fn replace_with(file: &Path, bytes: &[u8], options: &OpenOptions) -> Result<()> {
    let mut fresh = file.as_os_str().to_owned();
    fresh.push(".new");
    // What a crash has left may have other rights.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut out = options.open(&fresh)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&fresh, file)?;
    file.parent().map_or(Ok(()), sync_folder)
}

/// Makes a folder: also the entries that lead to it.
pub fn make_folder(folder: &Path) -> Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|f| !f.as_os_str().is_empty() && !f.exists()).collect();
    std::fs::create_dir_all(folder)?;
    missing.iter().filter_map(|made| made.parent()).try_for_each(sync_folder)
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> Result<()> {
    let here = folder.as_os_str().is_empty();
    File::open(if here { Path::new(".") } else { folder })?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_replaced_whatever_a_crash_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        make_folder(&deep).unwrap();
        make_folder(&deep).unwrap();
        let file = deep.join("key");
        std::fs::write(deep.join("key.new"), "half").unwrap();
        replace(&file, b"one").unwrap();
        replace_private(&file, b"two").unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 1);
        assert!(replace(&folder.path().join("none/file"), b"x").is_err());
    }
}
