//! From an `authorization` header to whom the call is made for.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD},
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{
    Access, Caller, Outcome, Who, audit, password,
    throttle::Throttle,
    token::{Bad, Claims, random_text},
};
use crate::error::{Error, Result};

/// Go pads nothing, everyone else does: both are read.
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

/// Under this user's name a token is taken as password, for clients that know nothing else.
const TOKEN_USER: &str = "token";
/// So many passwords are hashed at a time: each takes a core and 19 MiB.
const HASHED_AT_ONCE: usize = 2;
/// A password that was right is not hashed again for so long: some clients send it with each call.
const REMEMBERED: Duration = Duration::from_secs(300);
/// The most passwords that are remembered.
const MOST_REMEMBERED: usize = 1024;

/// What an `authorization` header holds.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// No header.
    None,
    /// `Basic`.
    Basic {
        /// Who says to be calling.
        user: String,
        /// The proof.
        password: String,
    },
    /// `Bearer`: a token that the client brings.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Credentials::None => f.write_str("None"),
            Credentials::Basic { user, .. } => write!(f, "Basic({user:?}, …)"),
            Credentials::Bearer(_) => f.write_str("Bearer(…)"),
        }
    }
}

impl Credentials {
    /// Reads a header.
    pub fn read(header: Option<&[u8]>) -> Result<Self, Refused> {
        let Some(header) = header else { return Ok(Credentials::None) };
        let header = std::str::from_utf8(header).map_err(|_| Refused::Malformed)?;
        let (scheme, value) = header.trim().split_once(' ').ok_or(Refused::Malformed)?;
        let value = value.trim();
        if scheme.eq_ignore_ascii_case("bearer") && !value.is_empty() {
            return Ok(Credentials::Bearer(value.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(Refused::Malformed);
        }
        let decoded = String::from_utf8(BASE64.decode(value).map_err(|_| Refused::Malformed)?).map_err(|_| Refused::Malformed)?;
        // A password may hold colons, a user may not.
        let (user, password) = decoded.split_once(':').ok_or(Refused::Malformed)?;
        Ok(match user {
            TOKEN_USER => Credentials::Bearer(password.to_owned()),
            _ => Credentials::Basic { user: user.to_owned(), password: password.to_owned() },
        })
    }
}

/// Why somebody is not let in. Nothing tells whether a user exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The header is none.
    #[error("the authorization header is neither 'Basic <base64 of user:password>' nor 'Bearer <token>'")]
    Malformed,
    /// There is none.
    #[error("credentials are needed: give a user and a password, or a token")]
    Missing,
    /// They are wrong.
    #[error("invalid credentials")]
    Invalid,
    /// The token has ended.
    #[error("the token has expired: log in again")]
    Expired,
    /// Too many were wrong.
    #[error("too many failed logins: wait a minute and try again")]
    Throttled,
    /// The server could not check.
    #[error("the credentials could not be checked: the server's log says why")]
    Broken,
}

/// Somebody who is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Who it is.
    pub who: Who,
    /// The name of the session that their token stands for.
    pub session: Option<String>,
}

/// What logins leave behind.
#[derive(Debug)]
pub(super) struct Logins {
    throttle: Throttle,
    hashing: Semaphore,
    /// Fingerprints of users with passwords that were right, and when.
    remembered: Mutex<HashMap<Vec<u8>, Instant>>,
}

impl Default for Logins {
    fn default() -> Self {
        Self { throttle: Throttle::default(), hashing: Semaphore::new(HASHED_AT_ONCE), remembered: Mutex::default() }
    }
}

impl Access {
    /// Whom these credentials stand for.
    pub async fn admit(self: &Arc<Self>, credentials: Credentials, from: Option<IpAddr>) -> Result<Admitted, Refused> {
        if self.is_open() {
            let session = match credentials {
                Credentials::Bearer(token) => Some(token),
                _ => None,
            };
            return Ok(Admitted { who: Who::Anyone, session });
        }
        match credentials {
            Credentials::None => Err(Refused::Missing),
            Credentials::Bearer(token) => self.admit_token(&token).await.inspect_err(|refused| {
                audit_login("", from, "token", Err(*refused));
            }),
            Credentials::Basic { user, password } => self.admit_password(user, password, from).await,
        }
    }

    /// What a client that shakes hands is to send from now on: a token of its own, which is a session of its own. One that has brought a token
    /// goes on with that.
    pub async fn shake_hands(self: &Arc<Self>, credentials: Credentials, from: Option<IpAddr>) -> Result<String, Refused> {
        let brought = match &credentials {
            Credentials::Bearer(token) => Some(token.clone()),
            _ => None,
        };
        let Admitted { who, .. } = self.admit(credentials, from).await?;
        if let Some(token) = brought {
            return Ok(token);
        }
        let token = match who {
            Who::User { name, .. } => self.give_token(&name),
            Who::Server | Who::Anyone | Who::External { .. } => random_text(),
        };
        token.map_err(broken)
    }

    fn give_token(&self, name: &str) -> Result<String> {
        let (_, credential, _) = self.credential(name).ok_or_else(|| Error::NotFound(format!("there is no user {name}")))?;
        let iat = seconds();
        let exp = iat + self.config.token_lifetime.as_secs();
        self.signer.sign(&Claims { sub: name.to_owned(), credential, sid: random_text()?, iat, exp })
    }

    async fn admit_token(&self, token: &str) -> Result<Admitted, Refused> {
        match self.signer.check(token, seconds()) {
            Ok(claims) => match self.credential(&claims.sub) {
                Some((_, credential, who)) if credential == claims.credential => Ok(Admitted { who, session: Some(claims.sid) }),
                _ => Err(Refused::Invalid),
            },
            Err(Bad::Expired) => Err(Refused::Expired),
            Err(Bad::Foreign) => self.admit_external(token).await,
        }
    }

    /// Whose a token was that does not count any more, since its user has another password, and its session: they may hear that it was done.
    pub fn ended(&self, header: Option<&[u8]>) -> Option<(Who, String)> {
        let Ok(Credentials::Bearer(token)) = Credentials::read(header) else { return None };
        let claims = self.signer.check(&token, seconds()).ok()?;
        Some((self.who(&claims.sub)?, claims.sid))
    }

    async fn admit_external(&self, token: &str) -> Result<Admitted, Refused> {
        let Some(issuer) = &self.issuer else { return Err(Refused::Invalid) };
        let (name, roles) = issuer.check(token).await.map_err(|why| {
            tracing::info!(issuer = issuer.config.issuer, "a token does not count: {why}");
            Refused::Invalid
        })?;
        // A name is one of this server's or one of the issuer's: nobody becomes a user of ours by choosing a name there.
        if self.who(&name).is_some() || self.is_role(&name) {
            tracing::warn!(issuer = issuer.config.issuer, name, "a token names a user of this server, who logs in with a password");
            return Err(Refused::Invalid);
        }
        let who = Who::External { name: name.into(), roles: Arc::new(roles) };
        Ok(Admitted { who, session: Some(URL_SAFE_NO_PAD.encode(self.signer.fingerprint(&[token]))) })
    }

    async fn admit_password(self: &Arc<Self>, user: String, password: String, from: Option<IpAddr>) -> Result<Admitted, Refused> {
        let known = self.credential(&user);
        let credential = known.as_ref().map_or("", |(_, credential, _)| credential);
        // With the credential in it, a new password makes it another one.
        let fingerprint = self.signer.fingerprint(&[&user, credential, &password]);
        if let Some((_, _, who)) = &known
            && self.logins.remembered.lock().get(&fingerprint).is_some_and(|since| since.elapsed() < REMEMBERED)
        {
            return Ok(Admitted { who: who.clone(), session: None });
        }
        let allowed = || self.logins.throttle.allows(&user, from, Instant::now());
        // Before it waits in line, and again when others before it may have failed.
        if !allowed() {
            return Err(Refused::Throttled);
        }
        let permit = self.logins.hashing.acquire().await.map_err(|_| Refused::Broken)?;
        if !allowed() {
            audit_login(&user, from, "password", Err(Refused::Throttled));
            return Err(Refused::Throttled);
        }
        let hash = known.as_ref().map(|(hash, _, _)| hash.clone());
        let verified = tokio::task::spawn_blocking(move || password::verify(&password, hash.as_deref())).await;
        let verified = verified.map_err(|error| broken(Error::Internal(format!("checking a password panicked: {error}"))))?;
        let admitted = match (verified, known) {
            (true, Some((_, _, who))) => {
                self.logins.remember(fingerprint);
                Ok(Admitted { who, session: None })
            }
            _ => {
                self.logins.throttle.failed(&user, from, Instant::now());
                Err(Refused::Invalid)
            }
        };
        drop(permit);
        audit_login(&user, from, "password", admitted.as_ref().map(drop).map_err(|refused| *refused));
        admitted
    }
}

impl Logins {
    fn remember(&self, fingerprint: Vec<u8>) {
        let mut remembered = self.remembered.lock();
        if remembered.len() >= MOST_REMEMBERED {
            remembered.retain(|_, since| since.elapsed() < REMEMBERED);
            if remembered.len() >= MOST_REMEMBERED {
                remembered.clear();
            }
        }
        remembered.insert(fingerprint, Instant::now());
    }
}

/// Under the name that was given, which need not be one that exists.
fn audit_login(user: &str, from: Option<IpAddr>, how: &str, outcome: Result<(), Refused>) {
    let shown: String = user.chars().take(128).collect();
    let caller = Caller { who: Who::External { name: shown.into(), roles: Arc::default() }, from };
    let outcome = match outcome {
        Ok(()) => Outcome::Done,
        Err(_) => Outcome::Denied,
    };
    audit(&caller, "login", how, outcome);
}

fn broken(error: Error) -> Refused {
    tracing::error!("credentials could not be checked: {error}");
    Refused::Broken
}

/// Seconds since 1970.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::access::AccessConfig;

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: user.into(), password: password.into() }
    }

    fn access() -> Arc<Access> {
        let access = Access::fleeting(AccessConfig { token_lifetime: Duration::from_secs(60), issuer: None }).unwrap();
        access.create_user("alice", "pass:word", true, false).unwrap();
        access
    }

    #[test]
    fn headers_are_read() {
        let read = |header: &str| Credentials::read(Some(header.as_bytes()));
        for header in ["Basic YWxpY2U6cHc=", "Basic YWxpY2U6cHc", "basic  YWxpY2U6cHc="] {
            assert_eq!(read(header), Ok(basic("alice", "pw")));
        }
        assert_eq!(read("Basic YWxpY2U6cDp3"), Ok(basic("alice", "p:w")));
        assert_eq!(read("bearer abc"), Ok(Credentials::Bearer("abc".into())));
        assert_eq!(read("Basic dG9rZW46YWJj"), Ok(Credentials::Bearer("abc".into())));
        assert_eq!(Credentials::read(None), Ok(Credentials::None));
        for header in ["Digest x", "Basic", "Basic !!!", "Basic YWxpY2U", "Bearer ", ""] {
            assert_eq!(read(header), Err(Refused::Malformed), "{header}");
        }
        assert_eq!(format!("{:?}", read("Basic YWxpY2U6cHc=").unwrap()), "Basic(\"alice\", …)");
    }

    #[tokio::test]
    async fn without_users_everybody_is_let_in() {
        let access = Access::fleeting(AccessConfig::default()).unwrap();
        for credentials in [Credentials::None, basic("x", "y"), Credentials::Bearer("t".into())] {
            assert_eq!(access.admit(credentials.clone(), None).await.unwrap().who, Who::Anyone);
            assert!(!access.shake_hands(credentials, None).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn passwords_and_tokens() {
        let access = access();
        let alice = access.who("alice").unwrap();
        assert_eq!(access.admit(Credentials::None, None).await, Err(Refused::Missing));
        assert_eq!(access.admit(basic("alice", "pass"), None).await, Err(Refused::Invalid));
        assert_eq!(access.admit(basic("nobody", "pass:word"), None).await, Err(Refused::Invalid));
        assert_eq!(access.admit(basic("alice", "pass:word"), None).await.unwrap().who, alice);
        let token = access.shake_hands(basic("alice", "pass:word"), None).await.unwrap();
        let bearer = || Credentials::Bearer(token.clone());
        let admitted = access.admit(bearer(), None).await.unwrap();
        assert!(admitted.who == alice && admitted.session.is_some());
        assert_eq!(access.shake_hands(bearer(), None).await.unwrap(), token);
        assert_eq!(access.admit(Credentials::Bearer("anything".into()), None).await, Err(Refused::Invalid));
        // A new password ends tokens, and what was remembered of the old one.
        access.set_password("alice", "another one").unwrap();
        assert_eq!(access.admit(bearer(), None).await, Err(Refused::Invalid));
        assert_eq!(access.admit(basic("alice", "pass:word"), None).await, Err(Refused::Invalid));
        assert_eq!(access.admit(basic("alice", "another one"), None).await.unwrap().who, alice);
    }

    #[tokio::test]
    async fn a_dropped_user_is_out_and_one_made_anew_another_one() {
        let access = access();
        access.create_user("root", "long enough", true, false).unwrap();
        let token = access.shake_hands(basic("alice", "pass:word"), None).await.unwrap();
        access.drop_user("alice", false).unwrap();
        assert_eq!(access.admit(Credentials::Bearer(token.clone()), None).await, Err(Refused::Invalid));
        assert_eq!(access.admit(basic("alice", "pass:word"), None).await, Err(Refused::Invalid));
        access.create_user("alice", "pass:word", false, false).unwrap();
        assert_eq!(access.admit(Credentials::Bearer(token), None).await, Err(Refused::Invalid));
    }

    #[tokio::test]
    async fn many_failures_are_too_many() {
        let access = access();
        let mut last = Err(Refused::Invalid);
        for _ in 0..20 {
            last = access.admit(basic("alice", "wrong"), Some(IpAddr::from([10, 0, 0, 9]))).await;
        }
        assert_eq!(last, Err(Refused::Throttled));
        assert_eq!(access.admit(basic("alice", "pass:word"), None).await, Err(Refused::Throttled), "the right one, too");
    }
}
