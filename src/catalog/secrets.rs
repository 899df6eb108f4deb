//! Which options are secrets, and how a source is told without them.

use std::{collections::BTreeMap, fmt};

use super::KafkaDef;

/// Parts of the names of options whose values are secrets: `sasl.password`, `ssl.key.pem`, `sasl.oauthbearer.client.secret`, ….
const SECRET_WORDS: [&str; 11] =
    ["password", "passwd", "passphrase", "secret", "token", "credential", "ssl.key", "private.key", "user.info", "jaas", "oauthbearer.config"];

/// Whether the value of an option is a secret, which is never shown.
pub fn is_secret(option: &str) -> bool {
    let option = option.to_ascii_lowercase();
    // `sasl.oauthbearer.token.endpoint.url` is an address.
    SECRET_WORDS.iter().any(|word| option.contains(word)) && !option.ends_with(".url") && !option.ends_with(".mechanism")
}

impl fmt::Debug for KafkaDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): (&String, &String)| (name.clone(), if is_secret(name) { "***".into() } else { value.clone() });
        let properties: BTreeMap<String, String> = self.properties.iter().map(shown).collect();
        let mut out = f.debug_struct("KafkaDef");
        out.field("topic", &self.topic).field("brokers", &self.brokers).field("startup", &self.startup);
        out.field("on_data_loss", &self.on_data_loss).field("properties", &properties).field("link", &self.link).finish()
    }
}
