//! What the client library says on its own: to the log, and what of it explains why a broker does not answer.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, TopicPartitionList,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
};

use super::{
    refusal::{Refusal, refusal},
    token::TokenSource,
};
use crate::catalog::ClientSettings;

/// For so long a refusal explains why nothing is answered.
const FRESH: Duration = Duration::from_secs(30);

/// What librdkafka says on its own goes to the log at a level that fits: the end of a partition is no error, and a lost connection
/// is told by the reader's state. A refusal is kept: what comes of it is only told as an answer that does not come.
#[derive(Debug, Default)]
pub struct Told {
    refused: Mutex<Option<(Instant, Refusal)>>,
    /// Why offsets can't be shown to the consumer group.
    group: Mutex<Option<Refusal>>,
    /// Where tokens come from, if the client logs in with such.
    tokens: Option<TokenSource>,
}

impl Told {
    /// What a client with these settings says.
    pub fn of(settings: &ClientSettings) -> Self {
        Self { tokens: TokenSource::of(settings).0, ..Self::default() }
    }

    /// Whether the client waits for a token, which is fetched when it is polled.
    pub fn needs_polls(&self) -> bool {
        self.tokens.is_some()
    }

    /// The token that the client library asks for.
    pub fn token(&self) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        match &self.tokens {
            Some(source) => Ok(source.fetch()?),
            None => Err("nothing says where OAUTHBEARER tokens come from".into()),
        }
    }

    /// What the broker, or the way to it, has had against this client lately.
    pub fn refused(&self) -> Option<Refusal> {
        self.refused.lock().as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, refusal)| refusal.clone())
    }

    /// The client gets on again.
    pub fn forget(&self) {
        *self.refused.lock() = None;
    }

    /// Why offsets can't be shown to the consumer group, if the broker refuses that.
    pub fn group_refused(&self) -> Option<Refusal> {
        self.group.lock().clone()
    }

    /// The group is refused; the first time that is worth a warning.
    pub fn refuse_group(&self, code: Code) {
        let Some(refusal) = refusal(code, "") else { return };
        if self.group.lock().replace(refusal.clone()).is_none() {
            tracing::warn!("offsets can't be shown to the consumer group: {refusal}");
        }
    }

    fn hear(&self, code: Option<Code>, reason: &str) {
        if let Some(refusal) = refusal(code.unwrap_or(Code::Unknown), reason) {
            *self.refused.lock() = Some((Instant::now(), refusal));
        }
    }
}

impl ClientContext for Told {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => tracing::error!(target: "librdkafka", facility, "{message}"),
            _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
        // Lines at this level come at once, events only when somebody polls. What is quoted in them is for people, so only its meaning is kept.
        if matches!(level, RDKafkaLogLevel::Error) {
            self.hear(None, message);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", "{error}: {reason}");
        self.hear(error.rdkafka_error_code(), reason);
    }
}

impl ConsumerContext for Told {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        // Nothing depends on it: where to read is decided by checkpoints alone.
        match result {
            Ok(()) => *self.group.lock() = None,
            Err(error) => match error.rdkafka_error_code() {
                Some(code @ Code::GroupAuthorizationFailed) => self.refuse_group(code),
                _ => tracing::warn!("offsets could not be shown to the consumer group, the next checkpoint tries again: {error}"),
            },
        }
    }
}
