//! Encryption of what may not lie readable on a disk: AES-256-GCM with one master key, which comes from outside the catalog's file.
//!
//! What is sealed is bound to what it is about, so that one sealed text can't be put in another's place.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine as _, alphabet, engine::GeneralPurpose, engine::general_purpose::PAD, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use super::Hidden;
use crate::{
    durable,
    error::{Error, Result},
};

/// The file in the data directory that holds the key if nobody gives one.
pub const KEY_FILE: &str = "secret.key";
/// How many bytes the key has.
const KEY_BYTES: usize = 32;

/// Where the master key comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum KeySource {
    /// The file `secret.key` in the data directory, which is made if there is none.
    #[default]
    DataDir,
    /// A file that somebody else takes care of.
    File(PathBuf),
    /// The key itself.
    Given(Hidden),
}

/// Encrypts and decrypts texts with the master key.
pub struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
    /// Where the key is from, for messages.
    from: String,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Seal").field("from", &self.from).finish_non_exhaustive()
    }
}

impl Seal {
    /// Takes the master key from where it is; `needed`: something was sealed with it already, so a lost one is not replaced by another.
    pub fn open(source: &KeySource, data_dir: &Path, needed: bool) -> Result<Self> {
        match source {
            KeySource::Given(text) => Self::with(&text.0, "TIDEGATE_SECRET_KEY".into()),
            KeySource::File(path) => Self::read(path),
            KeySource::DataDir => {
                let path = data_dir.join(KEY_FILE);
                match path.try_exists() {
                    Ok(false) if needed => Err(Error::External(format!(
                        "secrets in the catalog are encrypted with a key that is not there: restore {}, or give the key with --secret-key-file or TIDEGATE_SECRET_KEY",
                        path.display()
                    ))),
                    Ok(false) => {
                        make(&path).map_err(|e| Error::External(format!("the key for secrets {} can't be made: {e}", path.display())))?;
                        Self::read(&path)
                    }
                    _ => Self::read(&path),
                }
            }
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let failed = |e: std::io::Error| Error::External(format!("the key for secrets {} can't be read: {e}", path.display()));
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!("the key for secrets {} can be read by others: chmod 600 it", path.display());
        }
        Self::with(&text, path.display().to_string())
    }

    fn with(text: &str, from: String) -> Result<Self> {
        let wrong =
            || Error::Invalid(format!("the key for secrets in {from} is not {KEY_BYTES} bytes in base64 or hex: make one with `openssl rand -base64 32`"));
        let bytes = bytes_of(text.trim()).filter(|bytes| bytes.len() == KEY_BYTES).ok_or_else(wrong)?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| wrong())?;
        Ok(Self { key: LessSafeKey::new(key), random: SystemRandom::new(), from })
    }

    /// Encrypts a text that belongs to `about`.
    pub fn seal(&self, text: &str, about: &str) -> Result<String> {
        let failed = |_| Error::Internal("a secret could not be encrypted".into());
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).map_err(failed)?;
        let mut sealed = text.as_bytes().to_vec();
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about.as_bytes()), &mut sealed).map_err(failed)?;
        Ok(STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Decrypts what was sealed for `about`.
    pub fn unseal(&self, sealed: &str, about: &str) -> Result<String> {
        let wrong = || {
            Error::External(format!(
                "the secret of {about} can't be decrypted with the key in {}: it was encrypted with another key, start the server with that one",
                self.from
            ))
        };
        let mut bytes = STANDARD.decode(sealed).map_err(|_| wrong())?;
        if bytes.len() < NONCE_LEN {
            return Err(wrong());
        }
        let mut text = bytes.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&bytes).map_err(|_| wrong())?;
        let plain = self.key.open_in_place(nonce, Aad::from(about.as_bytes()), &mut text).map_err(|_| wrong())?;
        String::from_utf8(plain.to_vec()).map_err(|_| wrong())
    }
}

/// Makes a key that only the server's own user can read.
fn make(path: &Path) -> std::io::Result<()> {
    let mut key = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut key).map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
    durable::replace_private(path, STANDARD.encode(key).as_bytes())
}

/// The bytes of a key in hex, or in base64 of either alphabet.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    if text.len() == KEY_BYTES * 2 && text.bytes().all(|c| c.is_ascii_hexdigit()) {
        return (0..KEY_BYTES).map(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()).collect();
    }
    let padded = format!("{:=<44}", text.trim_end_matches('='));
    [alphabet::STANDARD, alphabet::URL_SAFE].iter().find_map(|alphabet| GeneralPurpose::new(alphabet, PAD).decode(&padded).ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_comes_back_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let seal = Seal::open(&KeySource::DataDir, folder.path(), false).unwrap();
        let sealed = seal.seal("geheim", "object 7").unwrap();
        assert!(!sealed.contains("geheim"));
        assert_ne!(sealed, seal.seal("geheim", "object 7").unwrap(), "a nonce is used once");
        assert_eq!(Seal::open(&KeySource::DataDir, folder.path(), true).unwrap().unseal(&sealed, "object 7").unwrap(), "geheim");
        assert!(seal.unseal(&sealed, "object 8").is_err(), "it belongs to another");
        let mut broken = sealed.clone().into_bytes();
        broken[30] = if broken[30] == b'A' { b'B' } else { b'A' };
        for wrong in [String::from_utf8(broken).unwrap(), sealed[..8].to_string(), "…".into(), String::new()] {
            assert!(seal.unseal(&wrong, "object 7").is_err(), "{wrong}");
        }
        let other = Seal::open(&KeySource::Given(Hidden(STANDARD.encode([7; 32]))), folder.path(), true).unwrap();
        assert!(other.unseal(&sealed, "object 7").unwrap_err().to_string().contains("TIDEGATE_SECRET_KEY"));
        let mode = std::fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn keys_are_hex_or_base64() {
        let folder = tempfile::tempdir().unwrap();
        let key = |text: &str| Seal::open(&KeySource::Given(Hidden(text.into())), folder.path(), false);
        let hex = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff";
        let bytes: Vec<u8> = (0..31).chain([255]).collect();
        let sealed = key(hex).unwrap().seal("x", "y").unwrap();
        let base64 = STANDARD.encode(&bytes);
        for same in [base64.clone(), base64.trim_end_matches('=').into(), base64.replace('/', "_").replace('+', "-"), format!("{hex}\n")] {
            assert_eq!(key(&same).unwrap().unseal(&sealed, "y").unwrap(), "x", "{same}");
        }
        for wrong in ["", "short", &hex[1..], "zz"] {
            let said = key(wrong).unwrap_err().to_string();
            assert!(said.contains("openssl rand -base64 32"), "{said}");
        }
        let path = folder.path().join("k");
        std::fs::write(&path, hex).unwrap();
        assert_eq!(Seal::open(&KeySource::File(path), folder.path(), true).unwrap().unseal(&sealed, "y").unwrap(), "x");
        let gone = Seal::open(&KeySource::DataDir, folder.path(), true).unwrap_err().to_string();
        assert!(gone.contains("secret.key"), "{gone}");
    }
}
