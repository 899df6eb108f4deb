//! `system.tables`.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, StringArray},
    datatypes::{Schema, SchemaRef},
};

use super::{text, whole};
use crate::{access::Who, catalog::Definition, session::engine::Engine, tables::Snapshot};

/// Columns of `system.tables`.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![text("name"), whole("rows"), whole("bytes"), whole("files"), whole("change"), text("message")]))
}

/// Rows of `system.tables`.
pub fn rows(engine: &Arc<Engine>, who: &Who) -> Vec<ArrayRef> {
    let mut rows: Vec<(String, Option<Arc<Snapshot>>, String)> = vec![];
    for object in engine.all_seen(who) {
        let Definition::Table(def) = object.definition else { continue };
        match engine.tables.get(object.id) {
            Ok(store) => rows.push((def.name.clone(), Some(store.snapshot()), String::new())),
            Err(error) => rows.push((def.name.clone(), None, error.to_string())),
        }
    }
    let number =
        |of: fn(&Snapshot) -> u64| -> ArrayRef { Arc::new(Int64Array::from_iter(rows.iter().map(|(_, snapshot, _)| Some(of(snapshot.as_ref()?) as i64)))) };
    vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(name, _, _)| name))),
        number(Snapshot::rows),
        number(Snapshot::bytes),
        number(|snapshot| snapshot.files().len() as u64),
        number(Snapshot::sequence),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, _, message)| message))),
    ]
}
