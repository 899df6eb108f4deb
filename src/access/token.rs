//! Tokens that this server gives: JSON Web Tokens signed with a key of its own (HS256), which only it can check.
//!
//! A token names the user, a session, when it ends, and the user's credential: that is another one with each password, so a new password
//! or a dropped user ends all tokens at once.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};

use crate::{
    durable,
    error::{Error, Result},
};

/// The one header that such a token has: a token that says another algorithm is none of ours.
const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// How many bytes the key has.
const KEY_BYTES: usize = 32;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    /// The user.
    pub sub: String,
    /// The user's credential when the token was made.
    pub credential: String,
    /// The session.
    pub sid: String,
    /// When it was made, in seconds since 1970.
    pub iat: u64,
    /// When it ends.
    pub exp: u64,
}

/// Why a token does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// It is not one of this server.
    Foreign,
    /// It was one.
    Expired,
}

/// Signs tokens and checks them.
pub(super) struct Signer {
    key: hmac::Key,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// A signer whose tokens end with the process.
    pub fn fleeting() -> Result<Self> {
        Ok(Self::with(&random::<KEY_BYTES>()?))
    }

    /// The signer of a data directory; its key is made if there is none yet.
    pub fn open(path: &Path) -> Result<Self> {
        let broken = |why: String| Error::External(format!("the key of tokens {} can't be used: {why}; remove it, and everybody logs in anew", path.display()));
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let key = URL_SAFE_NO_PAD.decode(text.trim()).map_err(|e| broken(e.to_string()))?;
                if key.len() == KEY_BYTES { Ok(Self::with(&key)) } else { Err(broken(format!("it has {} bytes and not {KEY_BYTES}", key.len()))) }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = random::<KEY_BYTES>()?;
                durable::replace_private(path, URL_SAFE_NO_PAD.encode(key).as_bytes()).map_err(|e| broken(e.to_string()))?;
                Ok(Self::with(&key))
            }
            Err(error) => Err(broken(error.to_string())),
        }
    }

    fn with(key: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// A token that says this.
    pub fn sign(&self, claims: &Claims) -> Result<String> {
        let claims = serde_json::to_vec(claims).map_err(|e| Error::Internal(format!("a token could not be written: {e}")))?;
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(HEADER), URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.key, signed.as_bytes());
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says, if this server has signed it and it has not ended.
    pub fn check(&self, token: &str, now: u64) -> std::result::Result<Claims, Bad> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Bad::Foreign)?;
        let (header, claims) = signed.split_once('.').ok_or(Bad::Foreign)?;
        if URL_SAFE_NO_PAD.decode(header).ok().as_deref() != Some(HEADER.as_bytes()) {
            return Err(Bad::Foreign);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Bad::Foreign)?;
        // In constant time.
        hmac::verify(&self.key, signed.as_bytes(), &signature).map_err(|_| Bad::Foreign)?;
        let claims: Claims = URL_SAFE_NO_PAD.decode(claims).ok().and_then(|claims| serde_json::from_slice(&claims).ok()).ok_or(Bad::Foreign)?;
        if claims.exp <= now { Err(Bad::Expired) } else { Ok(claims) }
    }

    /// A fingerprint under the key: the same text has the same, and nothing of the text can be read from it.
    pub fn fingerprint(&self, parts: &[&str]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        context.sign().as_ref().to_vec()
    }
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Internal("the system gives no random bytes".into()))?;
    Ok(bytes)
}

/// A random text of 128 bits.
pub(super) fn random_text() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random::<16>()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims { sub: "alice".into(), credential: "c".into(), sid: "s".into(), iat: 100, exp: 200 }
    }

    #[test]
    fn what_was_signed_is_read() {
        let signer = Signer::fleeting().unwrap();
        let token = signer.sign(&claims()).unwrap();
        assert_eq!(signer.check(&token, 150), Ok(claims()));
        assert_eq!(signer.check(&token, 200), Err(Bad::Expired));
    }

    #[test]
    fn nothing_else_is() {
        let signer = Signer::fleeting().unwrap();
        let token = signer.sign(&claims()).unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let forged = serde_json::to_string(&Claims { sub: "root".into(), ..claims() }).unwrap();
        let payload = signed.split_once('.').unwrap().1;
        for bad in [
            String::new(),
            "a.b.c".into(),
            signed.into(),
            format!("{signed}."),
            format!("{}.{payload}.", encode(r#"{"alg":"none","typ":"JWT"}"#)),
            format!("{}.{payload}.{signature}", encode(r#"{"alg":"none","typ":"JWT"}"#)),
            format!("{}.{}.{signature}", encode(HEADER), encode(&forged)),
            Signer::fleeting().unwrap().sign(&claims()).unwrap(),
        ] {
            assert_eq!(signer.check(&bad, 150), Err(Bad::Foreign), "{bad}");
        }
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last letter of the signature holds two bits that say nothing; the decoder wants them to be zero.
            assert!(changed == token || signer.check(&changed, 150).is_err(), "{at}");
        }
    }

    #[test]
    fn the_key_is_kept_and_nobody_elses() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token.key");
        let token = Signer::open(&path).unwrap().sign(&claims()).unwrap();
        assert!(Signer::open(&path).unwrap().check(&token, 150).is_ok());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "short").unwrap();
        assert!(Signer::open(&path).unwrap_err().to_string().contains("token.key"));
    }
}
