//! A forest's durable form: JSON of a stated version, checked as it is read.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use super::{FlatForest, ForestError, TreeForm};
use crate::classes::Classes;

/// The version that is written and read.
pub const VERSION: u64 = 1;

const FORMAT: &str = "tidegate-forest";

/// What says whether the rest can be read.
#[derive(Deserialize)]
struct Header<'a> {
    format: Cow<'a, str>,
    version: u64,
}

/// The whole of the durable form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form<'a> {
    format: Cow<'a, str>,
    version: u64,
    metadata: Cow<'a, BTreeMap<String, String>>,
    features: Cow<'a, [String]>,
    classes: Cow<'a, Classes>,
    trees: Cow<'a, [TreeForm]>,
}

impl FlatForest {
    /// The forest as JSON. The same forest gives the same bytes.
    pub fn to_json(&self) -> String {
        let form = Form {
            format: FORMAT.into(),
            version: VERSION,
            metadata: Cow::Borrowed(&self.metadata),
            features: Cow::Borrowed(&self.features),
            classes: Cow::Borrowed(&self.classes),
            trees: Cow::Borrowed(&self.trees),
        };
        serde_json::to_string(&form).expect("texts, integers and maps with text keys can always be written")
    }

    /// Reads what [`Self::to_json`] wrote: the same forest to the bit, or why it is none.
    pub fn from_json(json: &str) -> Result<Self, ForestError> {
        let no_form = |error: serde_json::Error| ForestError::Json(error.to_string());
        let header: Header<'_> = serde_json::from_str(json).map_err(no_form)?;
        if header.format != FORMAT {
            return Err(ForestError::Format(header.format.chars().take(40).collect()));
        }
        if header.version != VERSION {
            return Err(ForestError::Version { found: header.version, readable: VERSION });
        }
        let form: Form<'_> = serde_json::from_str(json).map_err(no_form)?;
        Self::new(form.features.into_owned(), form.classes.into_owned(), form.metadata.into_owned(), form.trees.into_owned())
    }
}
