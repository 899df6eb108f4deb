//! How the brokers of a topic are reached: what the declaration says itself, over what its connection and secrets say at the moment.
//!
//! A declaration names connections and secrets, and nothing of them is copied into it: whoever makes a client asks for the settings then,
//! so that a password that was changed counts from the next client on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use super::{ConnectionDef, KafkaDef, SecretDef, is_secret};
use crate::error::{Error, Result};

/// Beginning of options that are about a schema registry, not for Kafka's client.
const REGISTRY: &str = "schema.registry.";

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The value of an option: a text, or the name of a secret whose value it is.
#[derive(Clone, PartialEq, Eq)]
pub enum OptionValue {
    /// As it was written.
    Text(String),
    /// `SECRET name`.
    Secret(String),
}

impl fmt::Debug for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Which option it is of is not known here.
            Self::Text(_) => f.write_str("'***'"),
            Self::Secret(name) => write!(f, "SECRET {name}"),
        }
    }
}

/// Knows connections and secrets as they are now.
pub trait Keeper: Send + Sync {
    /// The connection of this name.
    fn connection(&self, name: &str) -> Option<Arc<ConnectionDef>>;
    /// The secret of this name.
    fn secret(&self, name: &str) -> Option<Arc<SecretDef>>;
}

/// What a declaration names beside itself.
#[derive(Clone, Default)]
pub struct Link {
    /// The connection that says where the brokers are.
    pub connection: Option<String>,
    /// Properties (and options of a schema registry) whose values are secrets: the names of those.
    pub secrets: BTreeMap<String, String>,
    /// Who knows them; the catalog gives it to what it holds.
    keeper: Option<Arc<dyn Keeper>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("connection", &self.connection).field("secrets", &self.secrets).finish()
    }
}

/// Two are the same that name the same.
impl PartialEq for Link {
    fn eq(&self, other: &Self) -> bool {
        (&self.connection, &self.secrets) == (&other.connection, &other.secrets)
    }
}

impl Link {
    /// One that names these.
    pub fn to(connection: Option<String>, secrets: BTreeMap<String, String>) -> Self {
        Self { connection, secrets, keeper: None }
    }

    /// The names of all connections and secrets that it names.
    pub fn names(&self) -> Vec<String> {
        self.connection.iter().chain(self.secrets.values()).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The same, asking somebody.
    pub fn asking(self, keeper: Arc<dyn Keeper>) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// Whether it has somebody to ask.
    pub fn is_asking(&self) -> bool {
        self.keeper.is_some()
    }

    fn keeper(&self) -> Result<&dyn Keeper> {
        self.keeper.as_deref().ok_or_else(|| Error::Internal("connections and secrets were asked for before the catalog knew the declaration".into()))
    }

    /// The connection, if there is one.
    pub fn connection(&self) -> Result<Option<Arc<ConnectionDef>>> {
        let Some(name) = &self.connection else { return Ok(None) };
        let missing = || Error::NotFound(format!("there is no connection {name}: CREATE CONNECTION {name} TO KAFKA (…) first"));
        self.keeper()?.connection(name).map(Some).ok_or_else(missing)
    }

    /// The value of an option, wherever it comes from.
    pub fn value(&self, value: &OptionValue) -> Result<String> {
        match value {
            OptionValue::Text(text) => Ok(text.clone()),
            OptionValue::Secret(name) => self.secret(name),
        }
    }

    /// The value of a secret.
    pub fn secret(&self, name: &str) -> Result<String> {
        let missing = || Error::NotFound(format!("there is no secret {name}: CREATE SECRET {name} AS '…' first"));
        Ok(self.keeper()?.secret(name).ok_or_else(missing)?.value.0.clone())
    }

    /// What connection and secrets say of the schema registry: `schema.registry.url` and what else begins with `schema.registry.`.
    pub fn registry(&self) -> Result<BTreeMap<String, String>> {
        let mut options: BTreeMap<String, String> = match self.connection()? {
            Some(connection) => connection.registry.iter().map(|(name, value)| Ok((name.clone(), self.value(value)?))).collect::<Result<_>>()?,
            None => BTreeMap::new(),
        };
        options.extend(self.own_registry()?);
        Ok(options)
    }

    /// What the definition's own secrets say of it.
    pub fn own_registry(&self) -> Result<BTreeMap<String, String>> {
        let own = self.secrets.iter().filter(|(name, _)| name.starts_with(REGISTRY));
        own.map(|(name, secret)| Ok((name.clone(), self.secret(secret)?))).collect()
    }

    /// Whether it names neither a connection nor a secret.
    pub fn is_empty(&self) -> bool {
        self.connection.is_none() && self.secrets.is_empty()
    }
}

/// What a Kafka client is configured with.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// `bootstrap.servers`.
    pub brokers: String,
    /// Further librdkafka properties.
    pub properties: BTreeMap<String, String>,
    /// Those of them whose values are those of a SECRET, whatever their names.
    pub hidden: BTreeSet<String>,
}

impl ClientSettings {
    fn is_hidden(&self, name: &str) -> bool {
        is_secret(name) || self.hidden.contains(name)
    }

    /// A message of the client library, which may repeat what it was told, without secrets.
    pub fn without_secrets(&self, message: &str) -> String {
        let secrets = self.properties.iter().filter(|(name, value)| self.is_hidden(name) && !value.is_empty());
        secrets.fold(message.to_owned(), |message, (_, value)| message.replace(value.as_str(), "***"))
    }
}

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(name, value): (&String, &String)| (name.clone(), if self.is_hidden(name) { "***".into() } else { value.clone() });
        let properties: BTreeMap<String, String> = self.properties.iter().map(shown).collect();
        f.debug_struct("ClientSettings").field("brokers", &self.brokers).field("properties", &properties).finish()
    }
}

impl KafkaDef {
    /// What a client for this topic is configured with now.
    pub fn settings(&self) -> Result<ClientSettings> {
        let mut settings = match self.link.connection()? {
            Some(connection) => connection.settings(&self.link)?,
            None => ClientSettings { brokers: self.brokers.clone(), properties: BTreeMap::new(), hidden: BTreeSet::new() },
        };
        settings.properties.extend(self.properties.clone());
        for (property, secret) in self.link.secrets.iter().filter(|(name, _)| !name.starts_with(REGISTRY)) {
            settings.properties.insert(property.clone(), self.link.secret(secret)?);
            settings.hidden.insert(property.clone());
        }
        Ok(settings)
    }

    /// Where the brokers are, for messages and lists: it stays a sentence where nobody knows.
    pub fn place(&self) -> String {
        match self.link.connection() {
            Ok(Some(connection)) => connection.brokers.clone(),
            Ok(None) => self.brokers.clone(),
            Err(_) => format!("connection {}", self.link.connection.as_deref().unwrap_or_default()),
        }
    }
}

impl ConnectionDef {
    /// What a client of this connection is configured with now.
    pub fn settings(&self, link: &Link) -> Result<ClientSettings> {
        let properties = self.properties.iter().map(|(name, value)| Ok((name.clone(), link.value(value)?))).collect::<Result<_>>()?;
        let secret = |(name, value): (&String, &OptionValue)| matches!(value, OptionValue::Secret(_)).then(|| name.clone());
        Ok(ClientSettings { brokers: self.brokers.clone(), properties, hidden: self.properties.iter().filter_map(secret).collect() })
    }

    /// The names of the secrets that it needs.
    pub fn secrets(&self) -> Vec<String> {
        let names = self.options.iter().filter_map(|(_, value)| match value {
            OptionValue::Secret(name) => Some(name.clone()),
            OptionValue::Text(_) => None,
        });
        names.collect::<BTreeSet<_>>().into_iter().collect()
    }
}
