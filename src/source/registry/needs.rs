//! Which schemas must be known before a source's records can be decoded.

use std::{collections::HashSet, sync::Arc};

use super::Registry;
use crate::{
    catalog::{KeyFormat, SourceDef, Subject},
    error::Result,
    source::{Records, framing},
};

/// The registries of a source's payloads and keys.
#[derive(Debug, Clone)]
pub struct Needs {
    value: Option<Arc<Registry>>,
    key: Option<Arc<Registry>>,
}

impl Needs {
    /// What a source needs.
    pub fn of(source: &SourceDef) -> Result<Self> {
        let key = match source.key.as_ref().map(|key| &key.format) {
            Some(KeyFormat::As(format)) => format.subject(),
            _ => None,
        };
        let registry = |subject: &Subject| subject.registry(&source.kafka.link).map(|def| Registry::of(&def));
        Ok(Self { value: source.format.subject().map(registry).transpose()?, key: key.map(registry).transpose()? })
    }

    /// Whether records can be decoded as they are.
    pub fn is_nothing(&self) -> bool {
        self.value.is_none() && self.key.is_none()
    }

    /// Asks for what one record needs; see [`Registry::fetch_blocking`].
    pub fn fetch_for(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<()> {
        for (registry, bytes) in [(&self.key, key), (&self.value, value)] {
            if let (Some(registry), Some(id)) = (registry, bytes.and_then(id_of)) {
                registry.fetch_blocking(&HashSet::from([id]))?;
            }
        }
        Ok(())
    }

    /// Asks for what records need; see [`Registry::fetch_blocking`].
    pub fn fetch_for_all(&self, records: &Records) -> Result<()> {
        if let Some(registry) = &self.key {
            registry.fetch_blocking(&records.iter().filter_map(|record| id_of(record.key?)).collect())?;
        }
        if let Some(registry) = &self.value {
            registry.fetch_blocking(&records.iter().filter_map(|record| id_of(record.value?)).collect())?;
        }
        Ok(())
    }
}

/// The id in a payload's header, if it has one.
fn id_of(payload: &[u8]) -> Option<u32> {
    framing::split(payload).ok().map(|(id, _)| id)
}
