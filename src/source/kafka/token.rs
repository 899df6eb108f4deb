//! Tokens for OAUTHBEARER: fetched from an identity provider with OIDC's client credentials, whenever the client library asks for one.
//!
//! The library could fetch them itself if it were built with curl. Done here they go the way of all other requests of this server, and count
//! the authorities that the system trusts.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rdkafka::client::OAuthToken;
use serde_json::Value;

use crate::catalog::ClientSettings;

/// How long an identity provider may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer is at most this long.
const MOST_BYTES: usize = 1 << 20;
/// How long a token counts that does not say so.
const USUAL_LIFETIME: u64 = 300;

/// Properties that are about fetching tokens, which the library is not told.
const OWN: [&str; 6] = [
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.scope",
    "https.ca.pem",
];

/// Where tokens come from, and as whom.
#[derive(Clone)]
pub(super) struct TokenSource {
    url: String,
    id: String,
    secret: String,
    scope: Option<String>,
    ca: Option<String>,
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSource").field("url", &self.url).field("id", &self.id).finish_non_exhaustive()
    }
}

impl TokenSource {
    /// What settings say of it, if they do; and the properties that are left for the library.
    pub fn of(settings: &ClientSettings) -> (Option<Self>, BTreeMap<String, String>) {
        let said = |name: &str| settings.properties.get(name).cloned();
        let is_oidc = said("sasl.mechanisms").or_else(|| said("sasl.mechanism")).is_some_and(|m| m.eq_ignore_ascii_case("OAUTHBEARER"))
            && said("sasl.oauthbearer.method").is_some_and(|m| m == "oidc");
        let (Some(url), Some(id), Some(secret), true) =
            (said("sasl.oauthbearer.token.endpoint.url"), said("sasl.oauthbearer.client.id"), said("sasl.oauthbearer.client.secret"), is_oidc)
        else {
            return (None, settings.properties.clone());
        };
        let left = settings.properties.iter().filter(|(name, _)| !OWN.contains(&name.as_str())).map(|(name, value)| (name.clone(), value.clone()));
        (Some(Self { url, id, secret, scope: said("sasl.oauthbearer.scope"), ca: said("https.ca.pem") }), left.collect())
    }

    /// Asks for a token and waits for it. The reason why there is none holds no secret.
    pub fn fetch(&self) -> Result<OAuthToken, String> {
        // A thread of its own: whoever asks may be one that must not wait for a runtime.
        let fetched = std::thread::scope(|scope| {
            let run = || -> Result<Value, String> {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
                runtime.block_on(self.ask())
            };
            scope.spawn(run).join().unwrap_or_else(|_| Err("asking for it panicked".into()))
        });
        let answer = fetched.map_err(|why| format!("OIDC token from {}: {why}", self.url).replace(&self.secret, "***"))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        token_of(&answer, &self.id, now).ok_or_else(|| format!("OIDC token from {}: the answer has no access_token", self.url))
    }

    async fn ask(&self) -> Result<Value, String> {
        let mut client = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none());
        if let Some(ca) = &self.ca {
            client = client.tls_built_in_root_certs(false);
            for certificate in
                reqwest::Certificate::from_pem_bundle(ca.as_bytes()).map_err(|e| format!("'https.ca.pem' holds no certificates: {}", causes(&e)))?
            {
                client = client.add_root_certificate(certificate);
            }
        }
        let client = client.build().map_err(|e| causes(&e))?;
        let mut form = String::from("grant_type=client_credentials");
        if let Some(scope) = &self.scope {
            form.push_str("&scope=");
            form.push_str(&escaped(scope));
        }
        let request = client.post(&self.url).basic_auth(escaped(&self.id), Some(escaped(&self.secret)));
        let request = request.header("Content-Type", "application/x-www-form-urlencoded").header("Accept", "application/json").body(form);
        let mut answer = request.send().await.map_err(|e| causes(&e.without_url()))?;
        let status = answer.status();
        let mut bytes = vec![];
        while let Some(part) = answer.chunk().await.map_err(|e| causes(&e.without_url()))? {
            bytes.extend_from_slice(&part);
            if bytes.len() > MOST_BYTES {
                return Err(format!("the answer is longer than {MOST_BYTES} bytes"));
            }
        }
        let said: Option<Value> = serde_json::from_slice(&bytes).ok();
        if !status.is_success() {
            // The standard's own word for what is wrong.
            let word = said.as_ref().and_then(|said| said["error"].as_str()).map(|word| format!(": {}", word.chars().take(100).collect::<String>()));
            return Err(format!("it answers {status}{}", word.unwrap_or_default()));
        }
        said.ok_or_else(|| "the answer is no JSON".into())
    }
}

/// The token of an answer, with whose it is and when it ends.
fn token_of(answer: &Value, id: &str, now: u64) -> Option<OAuthToken> {
    let token = answer["access_token"].as_str().filter(|token| !token.is_empty())?.to_string();
    let claims: Option<Value> =
        token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let claim = |name: &str| claims.as_ref().map(|claims| claims[name].clone()).unwrap_or_default();
    let lasts = answer["expires_in"].as_u64().or_else(|| claim("exp").as_u64().map(|exp| exp.saturating_sub(now))).unwrap_or(USUAL_LIFETIME);
    let lifetime_ms = i64::try_from(now.saturating_add(lasts.max(1)).saturating_mul(1_000)).unwrap_or(i64::MAX);
    let principal_name = claim("sub").as_str().filter(|sub| !sub.contains('\0')).unwrap_or(id).to_string();
    Some(OAuthToken { token, principal_name, lifetime_ms })
}

/// What the form of a request, and credentials in its header, are written in.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// An error with what it came of: the first alone says no more than that sending failed.
fn causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        said = format!("{said}: {inner}");
        cause = inner.source();
    }
    said
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_library_is_told_the_rest() {
        let properties =
            [("sasl.mechanisms", "OAUTHBEARER"), ("sasl.oauthbearer.method", "oidc"), ("sasl.oauthbearer.token.endpoint.url", "u"), ("linger.ms", "1")];
        let mut settings =
            ClientSettings { brokers: "b".into(), properties: properties.map(|(a, b)| (a.to_string(), b.to_string())).into(), hidden: Default::default() };
        assert!(TokenSource::of(&settings).0.is_none(), "as whom is not said");
        for (name, value) in [("id", "app"), ("secret", "geheim")] {
            settings.properties.insert(format!("sasl.oauthbearer.client.{name}"), value.into());
        }
        let (source, left) = TokenSource::of(&settings);
        assert_eq!(left.keys().collect::<Vec<_>>(), ["linger.ms", "sasl.mechanisms"]);
        assert!(!format!("{source:?}").contains("geheim"));
    }

    #[test]
    fn what_a_token_says_of_itself() {
        let jwt = format!("h.{}.s", URL_SAFE_NO_PAD.encode(r#"{"sub":"app","exp":1500}"#));
        for (answer, principal, ends) in [
            (json!({"access_token": jwt, "expires_in": 60}), "app", 1060),
            (json!({"access_token": jwt}), "app", 1500),
            (json!({"access_token": "opaque"}), "id", 1300),
        ] {
            let token = token_of(&answer, "id", 1000).unwrap();
            assert_eq!((token.principal_name.as_str(), token.lifetime_ms), (principal, ends * 1000));
        }
        for wrong in [json!({}), json!({"access_token": ""}), json!([]), json!({"access_token": 1})] {
            assert!(token_of(&wrong, "id", 1000).is_none());
        }
        assert_eq!(escaped("a b+ñ:/"), "a%20b%2B%C3%B1%3A%2F");
    }
}
