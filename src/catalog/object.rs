//! What stands in the catalog under a name.

use std::{collections::BTreeMap, sync::Arc};

use super::{PlainViewDef, SourceDef, ViewDef};

/// Something that has a name in the catalog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectKind {
    /// A source.
    Source,
    /// A view, continuous or plain.
    View,
}

/// What was declared under a name.
#[derive(Debug, Clone, PartialEq)]
pub enum Definition {
    /// A source.
    Source(Arc<SourceDef>),
    /// A continuous view.
    View(Arc<ViewDef>),
    /// A plain view.
    PlainView(Arc<PlainViewDef>),
}

impl Definition {
    /// The declared name.
    pub fn name(&self) -> &str {
        match self {
            Self::Source(def) => &def.name,
            Self::View(def) => &def.name,
            Self::PlainView(def) => &def.name,
        }
    }

    /// The statement that declared it.
    pub fn text(&self) -> &str {
        match self {
            Self::Source(def) => &def.text,
            Self::View(def) => &def.text,
            Self::PlainView(def) => &def.text,
        }
    }

    /// What kind of thing it is, as `DROP` and `SHOW CREATE` tell kinds apart.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Source(_) => ObjectKind::Source,
            Self::View(_) | Self::PlainView(_) => ObjectKind::View,
        }
    }

    /// What it is, in words.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Source(_) => "source",
            Self::View(_) => "continuous view",
            Self::PlainView(_) => "view",
        }
    }
}

/// A declaration in the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Its number: stays the same as long as the object lives, and is never given to another one. State on disk is kept under it.
    pub id: u64,
    /// What was declared.
    pub definition: Definition,
    /// Names of the objects that it reads.
    pub reads: Vec<String>,
    /// For a source: the offsets that reading began at, per partition; what a view's answer is right from. Empty until they are known.
    pub start_offsets: BTreeMap<i32, i64>,
}

impl Object {
    /// Its name.
    pub fn name(&self) -> &str {
        self.definition.name()
    }
}
