//! Requests to a registry, and what their answers mean.

use std::{sync::LazyLock, time::Duration};

use serde_json::Value;

use super::Registry;
use crate::error::{Error, Result};

/// How long a registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer.
const MOST_BYTES: usize = 16 << 20;
/// What the interface speaks.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// What a registry answers.
pub(super) enum Answer {
    Found(Value),
    /// It knows no such thing; what it says of that.
    Nothing(String),
}

/// The client for all registries, or why there can be none.
static CLIENT: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(|| {
    let made = reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build();
    made.map_err(|error| error.to_string())
});

fn client() -> Result<&'static reqwest::Client> {
    CLIENT.as_ref().map_err(|why| Error::External(format!("no client for schema registries can be made: {why}")))
}

impl Registry {
    /// Asks for what is at a path of these parts.
    pub(super) async fn get(&self, path: &[&str]) -> Result<Answer> {
        let request = client()?.get(self.address(path)?);
        self.answer(request).await
    }

    /// Sends something to a path of these parts.
    pub(super) async fn post(&self, path: &[&str], body: &Value) -> Result<Value> {
        let request = client()?.post(self.address(path)?).header("Content-Type", MEDIA_TYPE).body(body.to_string());
        match self.answer(request).await? {
            Answer::Found(value) => Ok(value),
            Answer::Nothing(said) => Err(self.refused(&format!("404: {said}"))),
        }
    }

    fn address(&self, path: &[&str]) -> Result<reqwest::Url> {
        let wrong = || Error::Invalid(format!("'{}' is no address of a schema registry: write one like http://localhost:8081", self.def.url));
        let mut url = reqwest::Url::parse(&self.def.url).map_err(|_| wrong())?;
        // The parts are escaped: a subject may have any name.
        url.path_segments_mut().map_err(|()| wrong())?.pop_if_empty().extend(path);
        Ok(url)
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Result<Answer> {
        let request = match &self.def.user {
            Some(user) => request.basic_auth(user, self.def.password.as_ref()),
            None => request,
        };
        let sent = request.header("Accept", format!("{MEDIA_TYPE}, application/json")).send().await;
        let mut response = sent.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let mut bytes = vec![];
        while let Some(part) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            bytes.extend_from_slice(&part);
            if bytes.len() > MOST_BYTES {
                return Err(self.odd(&format!("it has more than {MOST_BYTES} bytes")));
            }
        }
        let value: Option<Value> = serde_json::from_slice(&bytes).ok();
        if status.is_success() {
            return value.map(Answer::Found).ok_or_else(|| self.odd("it is no JSON"));
        }
        let said = value.as_ref().and_then(|value| value["message"].as_str()).unwrap_or("it says no more").chars().take(300).collect::<String>();
        let code = value.as_ref().and_then(|value| value["error_code"].as_i64());
        // Any server answers 404 to what it doesn't know; a registry's has a code of its own.
        if status == reqwest::StatusCode::NOT_FOUND && code.is_some_and(|code| (40_401..=40_499).contains(&code)) {
            return Ok(Answer::Nothing(said));
        }
        Err(match status.as_u16() {
            401 | 403 => self.refused(&format!("{status}: {said}; check 'schema.registry.username' and 'schema.registry.password'")),
            404 => self.refused(&format!("{status}: {said}; is this the address of a schema registry?")),
            _ => self.refused(&format!("{status}: {said}")),
        })
    }

    fn refused(&self, said: &str) -> Error {
        Error::External(format!("the schema registry at {} answers {said}", self.def.url))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Error {
        // The innermost cause says what happened; those around it, that it happened.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let why = if error.is_timeout() { format!("no answer within {} s", PATIENCE.as_secs()) } else { cause.to_string() };
        Error::External(format!("the schema registry at {} can't be reached: {why}", self.def.url))
    }
}
