//! Passwords: what is kept of them, and how one is checked. Hashing takes tens of milliseconds of a core and 19 MiB, on purpose: never on an
//! async thread.

use std::sync::LazyLock;

use argon2::{
    Argon2, PasswordHash, PasswordHasher, PasswordVerifier,
    password_hash::{Salt, SaltString},
};

use super::token::random;
use crate::error::{Error, Result};

/// Shorter ones are refused.
const SHORTEST: usize = 8;
/// Longer ones, too: hashing takes time with each byte.
const LONGEST: usize = 1024;

/// Checks a password that somebody wants to have.
pub(super) fn check(password: &str) -> Result<()> {
    if password.len() < SHORTEST {
        return Err(Error::Invalid(format!("a password has at least {SHORTEST} bytes: choose a longer one")));
    }
    if password.len() > LONGEST {
        return Err(Error::Invalid(format!("a password has at most {LONGEST} bytes: choose a shorter one")));
    }
    Ok(())
}

/// What is kept of a password: Argon2id, with a salt of its own.
pub(super) fn hash(password: &str) -> Result<String> {
    let failed = |error: argon2::password_hash::Error| Error::Internal(format!("the password could not be hashed: {error}"));
    let salt = SaltString::encode_b64(&random::<{ Salt::RECOMMENDED_LENGTH }>()?).map_err(failed)?;
    Ok(Argon2::default().hash_password(password.as_bytes(), &salt).map_err(failed)?.to_string())
}

/// Whether this is the password. Without a hash (there is no such user) it takes as long, and is not.
pub(super) fn verify(password: &str, hash: Option<&str>) -> bool {
    static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| self::hash("nobody has this password").ok());
    let (hash, known) = match hash {
        Some(hash) => (Some(hash), true),
        None => (NOBODY.as_deref(), false),
    };
    let Some(hash) = hash.and_then(|hash| PasswordHash::new(hash).ok()) else { return false };
    // A password that is too long to be anybody's costs nothing.
    password.len() <= LONGEST && Argon2::default().verify_password(password.as_bytes(), &hash).is_ok() && known
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_is_the_password() {
        let kept = hash("correct horse").unwrap();
        assert!(kept.starts_with("$argon2id$") && !kept.contains("horse"));
        assert!(verify("correct horse", Some(&kept)));
        assert!(!verify("correct horsf", Some(&kept)));
        assert!(!verify("nobody has this password", None));
        assert!(!verify("x", Some("no hash")));
        assert_ne!(kept, hash("correct horse").unwrap(), "salts differ");
        assert!(check("1234567").is_err() && check("12345678").is_ok() && check(&"x".repeat(2000)).is_err());
    }
}
