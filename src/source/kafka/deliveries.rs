//! What becomes of the records that a producer has been given.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use rdkafka::{
    client::{ClientContext, OAuthToken},
    error::KafkaError,
    message::DeliveryResult,
    producer::ProducerContext,
};

use super::{refusal::refusal, told::Told};
use crate::catalog::ClientSettings;

/// Counts what the broker has acknowledged, and keeps the first failure.
#[derive(Debug)]
pub struct Deliveries {
    told: Told,
    acknowledged: AtomicU64,
    failure: OnceLock<String>,
}

impl Deliveries {
    /// Of a producer with these settings.
    pub fn of(settings: &ClientSettings) -> Self {
        Self { told: Told::of(settings), acknowledged: AtomicU64::new(0), failure: OnceLock::new() }
    }

    /// How many records the broker has.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Acquire)
    }

    /// Why the first record that was not taken wasn't.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// An error as a sentence: what the broker has against this client, if that is what lies behind it.
    pub fn why(&self, error: &KafkaError) -> String {
        let refusal = error.rdkafka_error_code().and_then(|code| refusal(code, "")).or_else(|| self.told.refused());
        refusal.map_or_else(|| error.to_string(), |refusal| refusal.to_string())
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.told.token()
    }

    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, text: &str) {
        self.told.log(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.told.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => _ = self.acknowledged.fetch_add(1, Ordering::AcqRel),
            Err((error, _)) => _ = self.failure.get_or_init(|| self.why(error)),
        }
    }
}
