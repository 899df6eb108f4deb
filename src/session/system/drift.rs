//! `system.drift`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, StringArray, TimestampMillisecondArray},
    datatypes::{Schema, SchemaRef},
};

use super::{moment, text, whole};
use crate::{
    access::{Privilege, Who},
    decode::FieldPath,
    session::engine::Engine,
    sql::written_path,
};

/// Columns of `system.drift`.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![text("source"), text("field"), text("kind"), whole("records"), moment("first_seen"), moment("last_seen"), text("example")]))
}

/// Rows of `system.drift`.
pub fn rows(engine: &Arc<Engine>, who: &Who) -> Vec<ArrayRef> {
    let mut rows = vec![];
    for (_, driver) in engine.running_pipelines() {
        for (name, source) in &driver.board().current().sources {
            // Names and values are what was in the topic.
            if engine.catalog().get(name).is_some_and(|source| engine.may(who, Privilege::Select, &source)) {
                rows.extend(source.drift.fields().into_iter().map(|field| (name.clone(), field)));
            }
        }
    }
    vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(source, _)| source))),
        Arc::new(StringArray::from_iter(rows.iter().map(|(_, field)| field.path.as_ref().map(written)))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, field)| field.kind.name()))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, field)| field.records as i64))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|(_, field)| field.first_ms))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|(_, field)| field.last_ms))),
        Arc::new(StringArray::from_iter(rows.iter().map(|(_, field)| field.example.as_deref()))),
    ]
}

/// A field's path as a declaration has it; one of a record's key begins with `key` in place of `$`.
fn written(path: &FieldPath) -> String {
    let text = written_path(&path.parts);
    if path.in_key { text.replacen('$', "key", 1) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_they_are_declared() {
        let field = |in_key, parts: &[&str]| written(&FieldPath { in_key, parts: parts.iter().map(|part| part.to_string()).collect() });
        assert_eq!(field(false, &["team", "odd name"]), "$.team.\"odd name\"");
        assert_eq!((field(true, &["id"]), field(true, &[]), field(false, &[])), ("key.id".into(), "key".into(), "$".into()));
    }
}
