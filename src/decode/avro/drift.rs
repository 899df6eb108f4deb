//! What a writer's schema has that the reader's has no place for, and what it lacks. That is the same for all records of the schema.

use std::sync::Arc;

use super::{
    super::{
        drift::{Drift, FieldPath, Retyped},
        payload::PayloadColumn,
    },
    resolve::{Plan, position},
};
use crate::source::avro::{AvroSchema, Kind, Record, TypeId};

/// How a writer's schema differs from the reader's, and how many records of a run are written by it.
#[derive(Debug)]
pub(super) struct SchemaDrift {
    /// Fields of the writer's top record that no field of the reader's takes, as positions.
    pub(super) new: Vec<usize>,
    /// The same by name; with the value in the first record of the run, once that has been looked at.
    fields: Vec<(String, Option<String>)>,
    /// Paths of declared columns on which the writer has nothing.
    missing: Vec<Vec<String>>,
    /// The first column that the writer has as a type which it can't be read from.
    pub(super) retyped: Option<Retyped>,
    /// Records of the run.
    records: u64,
    /// Whether their values have been looked at.
    looked: bool,
}

impl SchemaDrift {
    /// Compares the two.
    pub(super) fn of(writer: &Arc<AvroSchema>, reader: &AvroSchema, declared: &[PayloadColumn]) -> Self {
        let (top, wanted) = (record(writer, writer.root()), record(reader, reader.root()));
        let mut new = vec![];
        if let (Some(top), Some(wanted)) = (top, wanted) {
            let taken: Vec<usize> = wanted.fields.iter().filter_map(|field| position(&top.fields, field)).collect();
            new = (0..top.fields.len()).filter(|at| !taken.contains(at)).collect();
        }
        let fields = new.iter().filter_map(|&at| Some((top?.fields.get(at)?.name.clone(), None))).collect();
        let (mut missing, mut retyped): (Vec<Vec<String>>, _) = (vec![], None);
        for column in declared.iter().filter(|_| top.is_some() && wanted.is_some()) {
            if lacks(writer, reader, &column.path) {
                if !missing.contains(&column.path) {
                    missing.push(column.path.clone());
                }
            } else if retyped.is_none() && Plan::new(writer, reader, std::slice::from_ref(column)).is_err() {
                // Of a whole schema there is no value to show.
                retyped = Some(Retyped { path: FieldPath::of(&column.path), example: None });
            }
        }
        Self { new, fields, missing, retyped, records: 0, looked: false }
    }

    /// A record is written by this schema.
    pub(super) fn count(&mut self) {
        self.records += 1;
    }

    /// Whether the values of its new fields are wanted.
    pub(super) fn wants_values(&self) -> bool {
        !self.looked && !self.new.is_empty()
    }

    /// The values of its new fields.
    pub(super) fn show(&mut self, values: Vec<Option<String>>) {
        self.looked = true;
        self.fields.iter_mut().zip(values).for_each(|((_, shown), value)| *shown = value);
    }

    /// Adds what the records of the run have and lack; the next run begins.
    pub(super) fn add_to(&mut self, drift: &mut Drift) {
        self.looked = false;
        let records = std::mem::take(&mut self.records);
        if records == 0 {
            return;
        }
        if !self.fields.is_empty() {
            drift.new.records += records;
            self.fields.iter_mut().for_each(|(name, value)| drift.new.add(FieldPath::top(name.clone()), records, value.take()));
        }
        if !self.missing.is_empty() {
            drift.missing.records += records;
            self.missing.iter().for_each(|path| drift.missing.add(FieldPath::of(path), records, None));
        }
    }
}

/// The record that a type is, or that a union has as its first one.
fn record(schema: &AvroSchema, of: TypeId) -> Option<&Record> {
    match &schema.at(of).kind {
        Kind::Record(record) => Some(record),
        Kind::Union(branches) => branches.iter().find_map(|&branch| if let Kind::Record(record) = &schema.at(branch).kind { Some(record) } else { None }),
        _ => None,
    }
}

/// Whether the writer has no such field as a path of the reader's goes through.
fn lacks(writer: &AvroSchema, reader: &AvroSchema, path: &[String]) -> bool {
    let (mut written, mut wanted) = (writer.root(), reader.root());
    for part in path {
        let (Some(writes), Some(wants)) = (record(writer, written), record(reader, wanted)) else { return false };
        let Some(field) = wants.fields.iter().find(|field| field.name == *part) else { return false };
        let Some(at) = position(&writes.fields, field) else { return true };
        (written, wanted) = (writes.fields[at].of, field.of);
    }
    false
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;
    use crate::catalog::TimeFormat;

    fn schema(fields: &str) -> Arc<AvroSchema> {
        Arc::new(AvroSchema::parse(&format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#), []).unwrap())
    }

    fn columns(paths: &[(&str, DataType)]) -> Vec<PayloadColumn> {
        let column = |(path, data_type): &(&str, DataType)| PayloadColumn {
            name: (*path).into(),
            data_type: data_type.clone(),
            path: path.split('.').map(String::from).collect(),
            known: vec![],
            time: TimeFormat::default(),
            needed: true,
        };
        paths.iter().map(column).collect()
    }

    /// Names of new, missing and retyped fields.
    fn compare(writer: &str, reader: &str, declared: &[(&str, DataType)]) -> (Vec<String>, Vec<String>, Option<String>) {
        let drift = SchemaDrift::of(&schema(writer), &schema(reader), &columns(declared));
        let new = drift.fields.iter().map(|(name, _)| name.clone()).collect();
        (new, drift.missing.iter().map(|path| path.join(".")).collect(), drift.retyped.map(|retyped| retyped.path.parts.join(".")))
    }

    const READER: &str = r#"{"name": "id", "type": "long"}, {"name": "client", "type": "string", "aliases": ["customer"]}, {"name": "note", "type": "string", "default": ""},
        {"name": "unread", "type": "int", "default": 0}, {"name": "in", "type": ["null", {"type": "record", "name": "I", "fields": [{"name": "x", "type": "int", "default": 0}]}], "default": null}"#;

    #[test]
    fn schemas_are_compared_by_name_and_alias() {
        let declared = [("id", DataType::Int64), ("client", DataType::Utf8View), ("note", DataType::Utf8View), ("in.x", DataType::Int32)];
        let none = (vec![], vec![], None);
        assert_eq!(compare(READER, READER, &declared), none);
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let other = r#"{"name": "id", "type": "int"}, {"name": "customer", "type": "string"}, {"name": "amount", "type": "float"},
            {"name": "in", "type": {"type": "record", "name": "I", "fields": [{"name": "y", "type": "int"}]}}"#;
        assert_eq!(compare(other, READER, &declared), (names(&["amount"]), names(&["note", "in.x"]), None));
        // Of another type, and there not at all without a default.
        let retyped = r#"{"name": "id", "type": "string"}, {"name": "in", "type": "int"}"#;
        assert_eq!(compare(retyped, READER, &declared), (vec![], names(&["client", "note"]), Some("id".into())));
        assert_eq!(compare(other, READER, &[]), (names(&["amount"]), vec![], None));
    }

    #[test]
    fn records_count_for_their_schema_once_a_run() {
        let mut drift = SchemaDrift::of(&schema(r#"{"name": "more", "type": "int"}"#), &schema(READER), &columns(&[("note", DataType::Utf8View)]));
        let mut sum = Drift::default();
        drift.add_to(&mut sum);
        assert!(sum.is_empty());
        drift.count();
        assert!(drift.wants_values());
        drift.show(vec![Some("7".into())]);
        drift.count();
        assert!(!drift.wants_values());
        drift.add_to(&mut sum);
        drift.add_to(&mut sum);
        assert_eq!((sum.new.records, sum.missing.records, sum.new.fields[0].example.as_deref(), sum.missing.fields[0].records), (2, 2, Some("7"), 2));
        assert!(drift.wants_values());
    }
}
