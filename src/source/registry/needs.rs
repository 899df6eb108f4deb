//! Which schemas must be known before a source's records can be decoded.

use std::{collections::HashSet, sync::Arc};

use super::Registry;
use crate::{
    catalog::{KeyFormat, Link, SourceDef, Subject},
    error::Result,
    source::{Records, framing},
};

/// The registries of a source's payloads and keys.
#[derive(Debug, Clone)]
pub struct Needs {
    value: Option<Need>,
    key: Option<Need>,
}

#[derive(Debug, Clone)]
struct Need {
    subject: Subject,
    link: Link,
    /// Where decoders look schemas up.
    registry: Arc<Registry>,
}

impl Need {
    /// Asks for what is not known, as connection and secrets say now: a password may have been altered.
    fn fetch(&self, ids: HashSet<u32>) -> Result<()> {
        if ids.iter().all(|id| !self.registry.is_open(*id)) {
            return Ok(());
        }
        self.registry.asked_as(self.subject.registry(&self.link)?).fetch_blocking(&ids)
    }
}

impl Needs {
    /// What a source needs.
    pub fn of(source: &SourceDef) -> Result<Self> {
        let key = match source.key.as_ref().map(|key| &key.format) {
            Some(KeyFormat::As(format)) => format.subject(),
            _ => None,
        };
        let link = &source.kafka.link;
        let need = |subject: &Subject| {
            Ok::<_, crate::error::Error>(Need { subject: subject.clone(), link: link.clone(), registry: Registry::of(&subject.registry(link)?) })
        };
        Ok(Self { value: source.format.subject().map(need).transpose()?, key: key.map(need).transpose()? })
    }

    /// Whether records can be decoded as they are.
    pub fn is_nothing(&self) -> bool {
        self.value.is_none() && self.key.is_none()
    }

    /// Asks for what one record needs; see [`Registry::fetch_blocking`].
    pub fn fetch_for(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<()> {
        for (need, bytes) in [(&self.key, key), (&self.value, value)] {
            if let (Some(need), Some(id)) = (need, bytes.and_then(id_of))
                && need.registry.is_open(id)
            {
                need.fetch(HashSet::from([id]))?;
            }
        }
        Ok(())
    }

    /// Asks for what records need; see [`Registry::fetch_blocking`].
    pub fn fetch_for_all(&self, records: &Records) -> Result<()> {
        if let Some(need) = &self.key {
            need.fetch(records.iter().filter_map(|record| id_of(record.key?)).collect())?;
        }
        if let Some(need) = &self.value {
            need.fetch(records.iter().filter_map(|record| id_of(record.value?)).collect())?;
        }
        Ok(())
    }
}

/// The id in a payload's header, if it has one.
fn id_of(payload: &[u8]) -> Option<u32> {
    framing::split(payload).ok().map(|(id, _)| id)
}
