//! Tokens of an external issuer: JSON Web Tokens, checked with the issuer's published keys.
//!
//! Keys come from a file or over HTTP. They are kept, and asked for again when they are old or a token names one that is not among them; neither
//! more often than [`PAUSE`], whatever tokens come.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::Jwk};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::error::{Error, Result};

/// Keys are not asked for more often.
const PAUSE: Duration = Duration::from_secs(30);
/// Keys that are older are asked for again.
const OLD: Duration = Duration::from_secs(300);
/// How long the issuer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A set of keys is not larger.
const MOST_BYTES: usize = 1 << 20;
/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 30;
/// Algorithms whose keys can be published.
const POSSIBLE: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// Where an issuer's keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// In a file, which is read again like a URL is asked again.
    File(PathBuf),
    /// At an `http://` or `https://` address.
    Url(String),
}

/// Whose tokens count, and what they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What `iss` has to be.
    pub issuer: String,
    /// One of these has to be in `aud`.
    pub audience: Vec<String>,
    /// Where its keys are.
    pub keys: KeySource,
    /// The algorithms that it signs with.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the user.
    pub user_claim: String,
    /// The claim that lists roles; dots go into objects.
    pub role_claim: String,
}

impl IssuerConfig {
    /// The algorithm of this name, if it is one whose keys can be published.
    pub fn algorithm(name: &str) -> Result<Algorithm> {
        let found = POSSIBLE.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm);
        found.ok_or_else(|| Error::Invalid(format!("auth.jwt.algorithms has '{name}': there is {}", POSSIBLE.map(|(known, _)| known).join(", "))))
    }
}

/// An issuer with its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub config: IssuerConfig,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    known: Vec<Jwk>,
    /// When they were got.
    got: Option<Instant>,
    /// When they were asked for last.
    asked: Option<Instant>,
}

impl Issuer {
    pub fn new(config: IssuerConfig) -> Self {
        Self { config, keys: Mutex::default() }
    }

    /// The user and the roles that a token names; else why it does not count, for the log.
    pub async fn check(&self, token: &str) -> std::result::Result<(String, BTreeSet<String>), String> {
        let header = decode_header(token).map_err(|error| format!("it is no JWT: {error}"))?;
        if !self.config.algorithms.contains(&header.alg) {
            return Err(format!("it is signed with {:?}, which is not among auth.jwt.algorithms", header.alg));
        }
        let key = self.key(header.kid.as_deref()).await?;
        if key.common.key_algorithm.is_some_and(|algorithm| algorithm.to_string() != format!("{:?}", header.alg)) {
            return Err("its key is for another algorithm".into());
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&self.config.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        let key = DecodingKey::from_jwk(&key).map_err(|error| format!("its key can't be used: {error}"))?;
        let claims = decode::<Value>(token, &key, &validation).map_err(|error| error.to_string())?.claims;
        let user = claim(&claims, &self.config.user_claim).and_then(Value::as_str).unwrap_or_default();
        if user.is_empty() || user.len() > 256 || user.chars().any(char::is_control) {
            return Err(format!("its claim {} names nobody", self.config.user_claim));
        }
        let roles = match claim(&claims, &self.config.role_claim) {
            Some(Value::Array(roles)) => roles.iter().filter_map(Value::as_str).map(String::from).collect(),
            Some(Value::String(roles)) => roles.split([' ', ',']).filter(|role| !role.is_empty()).map(String::from).collect(),
            _ => BTreeSet::new(),
        };
        Ok((user.to_owned(), roles))
    }

    /// The key of a number; of none, if there is only one.
    async fn key(&self, kid: Option<&str>) -> std::result::Result<Jwk, String> {
        let mut keys = self.keys.lock().await;
        let is_old = keys.got.is_none_or(|got| got.elapsed() > OLD);
        if (is_old || keys.find(kid).is_none()) && keys.asked.is_none_or(|asked| asked.elapsed() > PAUSE) {
            keys.asked = Some(Instant::now());
            match self.fetch().await {
                Ok(known) => (keys.known, keys.got) = (known, Some(Instant::now())),
                // Those that are known go on counting: an issuer that is down for a while keeps nobody out.
                Err(error) => tracing::warn!("the keys of {} could not be got: {error}", self.config.issuer),
            }
        }
        keys.find(kid).cloned().ok_or_else(|| "the issuer has no such key".into())
    }

    async fn fetch(&self) -> std::result::Result<Vec<Jwk>, String> {
        let bytes = match &self.config.keys {
            KeySource::File(path) => tokio::fs::read(path).await.map_err(|error| format!("{}: {error}", path.display()))?,
            KeySource::Url(url) => {
                let client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build();
                let client = client.map_err(|error| error.to_string())?;
                let mut answer = client.get(url).send().await.and_then(reqwest::Response::error_for_status).map_err(|error| error.to_string())?;
                let mut bytes = vec![];
                while let Some(part) = answer.chunk().await.map_err(|error| error.to_string())? {
                    bytes.extend_from_slice(&part);
                    if bytes.len() > MOST_BYTES {
                        return Err(format!("{url} answers more than {MOST_BYTES} bytes"));
                    }
                }
                bytes
            }
        };
        known_keys(&bytes)
    }
}

/// The keys of a set, as far as their kinds are known.
fn known_keys(bytes: &[u8]) -> std::result::Result<Vec<Jwk>, String> {
    let set: Value = serde_json::from_slice(bytes).map_err(|error| format!("it is no set of keys: {error}"))?;
    let listed = set["keys"].as_array().ok_or("it is no set of keys: it has no list 'keys'")?;
    // A key of a kind that is not known here is no reason to refuse the others.
    Ok(listed.iter().filter_map(|key| serde_json::from_value(key.clone()).ok()).collect())
}

/// Reads a set of keys, for the fuzz targets.
#[doc(hidden)]
pub fn read_keys(bytes: &[u8]) {
    let known = known_keys(bytes).unwrap_or_default();
    let _ = known.iter().map(DecodingKey::from_jwk).filter(std::result::Result::is_ok).count();
}

impl Keys {
    fn find(&self, kid: Option<&str>) -> Option<&Jwk> {
        match (kid, self.known.as_slice()) {
            (Some(kid), known) => known.iter().find(|key| key.common.key_id.as_deref() == Some(kid)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

/// A claim by its name, dots going into objects; a name that has dots itself counts first.
fn claim<'a>(claims: &'a Value, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| name.split('.').try_fold(claims, |value, part| value.get(part)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use jsonwebtoken::{EncodingKey, Header, encode};
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    struct Signed {
        _folder: tempfile::TempDir,
        pkcs8: Vec<u8>,
        issuer: Issuer,
    }

    fn signed() -> Signed {
        let folder = tempfile::tempdir().unwrap();
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "1", "alg": "EdDSA", "x": URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())});
        let file = folder.path().join("keys.json");
        std::fs::write(&file, json!({"keys": [{"kty": "odd"}, key]}).to_string()).unwrap();
        let config = IssuerConfig {
            issuer: "https://id".into(),
            audience: vec!["tidegate".into()],
            keys: KeySource::File(file),
            algorithms: vec![Algorithm::EdDSA],
            user_claim: "sub".into(),
            role_claim: "realm.roles".into(),
        };
        Signed { _folder: folder, pkcs8: pkcs8.as_ref().to_vec(), issuer: Issuer::new(config) }
    }

    fn in_seconds(seconds: i64) -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 + seconds
    }

    fn claims() -> Value {
        json!({"iss": "https://id", "aud": "tidegate", "sub": "eve", "exp": in_seconds(60), "realm": {"roles": ["a", "b"]}})
    }

    fn token(pkcs8: &[u8], kid: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: kid.map(String::from), ..Header::new(Algorithm::EdDSA) };
        encode(&header, claims, &EncodingKey::from_ed_der(pkcs8)).unwrap()
    }

    #[tokio::test]
    async fn what_the_issuer_signed_counts() {
        let Signed { pkcs8, issuer, _folder } = signed();
        let roles: BTreeSet<String> = ["a".to_string(), "b".to_string()].into();
        for kid in [Some("1"), None] {
            assert_eq!(issuer.check(&token(&pkcs8, kid, &claims())).await.unwrap(), ("eve".to_string(), roles.clone()));
        }
    }

    #[tokio::test]
    async fn nothing_else_does() {
        let Signed { pkcs8, issuer, _folder } = signed();
        let other = signed();
        let mut bad = vec![token(&other.pkcs8, Some("1"), &claims()), token(&pkcs8, Some("2"), &claims()), "a.b.c".into(), String::new()];
        for (name, value) in [
            ("iss", json!("https://other")),
            ("aud", json!("other")),
            ("exp", json!(in_seconds(-100))),
            ("exp", Value::Null),
            ("nbf", json!(in_seconds(1000))),
            ("sub", json!("")),
            ("sub", json!(7)),
            ("sub", json!("a\nb")),
        ] {
            let mut claims = claims();
            claims[name] = value;
            bad.push(token(&pkcs8, Some("1"), &claims));
        }
        // Signed with what everybody knows: the public key as a secret.
        let set = std::fs::read_to_string(match &issuer.config.keys {
            KeySource::File(file) => file.clone(),
            KeySource::Url(_) => unreachable!(),
        });
        let header = Header { kid: Some("1".into()), ..Header::new(Algorithm::HS256) };
        bad.push(encode(&header, &claims(), &EncodingKey::from_secret(set.unwrap().as_bytes())).unwrap());
        let none = |text: &str| URL_SAFE_NO_PAD.encode(text);
        bad.push(format!("{}.{}.", none(r#"{"alg":"none","kid":"1"}"#), none(&claims().to_string())));
        for token in bad {
            assert!(issuer.check(&token).await.is_err(), "{token}");
        }
    }

    #[tokio::test]
    async fn keys_are_not_asked_for_with_every_token() {
        let Signed { pkcs8, issuer, _folder } = signed();
        assert!(issuer.check(&token(&pkcs8, Some("1"), &claims())).await.is_ok());
        let asked = issuer.keys.lock().await.asked;
        for _ in 0..5 {
            assert!(issuer.check(&token(&pkcs8, Some("unknown"), &claims())).await.is_err());
        }
        assert_eq!(issuer.keys.lock().await.asked, asked);
        assert!(IssuerConfig::algorithm("HS256").is_err() && IssuerConfig::algorithm("none").is_err());
    }
}
