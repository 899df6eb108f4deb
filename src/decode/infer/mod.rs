//! The columns of a source that declares none, where its format has no schema of its own: what a sample of the topic shows, or a JSON Schema.
//! A guess, which its user sees before it counts.

mod json_schema;
mod shape;
mod tree;

use self::{shape::Shape, tree::Tree};
use super::debezium::Debezium;
use crate::{
    catalog::{ColumnDef, Format},
    error::Result,
    source::framing,
};

/// What some records show.
#[derive(Debug, Default)]
pub struct Sampled {
    /// A column for each field of the payloads.
    pub columns: Vec<ColumnDef>,
    /// And for each of the keys, where those are objects.
    pub key_columns: Vec<ColumnDef>,
    /// So many payloads could be read.
    pub read: usize,
    /// So many could not.
    pub unread: usize,
}

/// Whether a sample shows columns of this format.
pub fn can_be_sampled(format: &Format) -> bool {
    matches!(format, Format::Json | Format::RegistryJson | Format::DebeziumJson)
}

/// The columns that some records show, each a key and a payload.
pub fn columns_of_sample<'a>(format: &Format, records: impl Iterator<Item = (Option<&'a [u8]>, Option<&'a [u8]>)>) -> Result<Sampled> {
    let mut envelope = (*format == Format::DebeziumJson).then(Debezium::new).transpose()?;
    let (mut values, mut keys, mut read, mut unread) = (Shape::default(), Shape::default(), 0, 0);
    for (mut key, mut value) in records {
        if let Some(envelope) = &mut envelope {
            match envelope.open(key, value) {
                Ok(opened) => {
                    let part = |whole: Option<&'a [u8]>, at: Option<(usize, usize)>| whole.zip(at).and_then(|(whole, (start, end))| whole.get(start..end));
                    (key, value) = (part(key, opened.key), part(value, opened.value));
                }
                Err(_) => {
                    unread += 1;
                    continue;
                }
            }
        }
        if let Some(Ok(key @ Tree::Object(_))) = key.map(serde_json::from_slice) {
            keys.add(&key);
        }
        let Some(value) = value else { continue };
        let value = match format {
            Format::RegistryJson => framing::split(value).map_or(&[][..], |(_, behind)| behind),
            _ => value,
        };
        match objects(value) {
            Some(rows) => {
                read += 1;
                rows.iter().for_each(|row| values.add(row));
            }
            None => unread += 1,
        }
    }
    Ok(Sampled { columns: values.columns("a record of the topic")?, key_columns: keys.columns("a key of the topic")?, read, unread })
}

/// The columns that a JSON Schema tells; none if what it describes are no objects.
pub fn columns_of_json_schema(text: &str) -> Result<Vec<ColumnDef>> {
    json_schema::columns(text)
}

/// The rows of a payload, as JSON is read; `None` if it is bad.
fn objects(payload: &[u8]) -> Option<Vec<Tree>> {
    let mut rows = vec![];
    for value in serde_json::Deserializer::from_slice(payload).into_iter() {
        match value.ok()? {
            Tree::List(items) if rows.is_empty() => rows = items,
            value => rows.push(value),
        }
    }
    (!rows.is_empty() && rows.iter().all(|row| matches!(row, Tree::Object(_)))).then_some(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::datatypes::{DataType, TimeUnit};

    use super::*;
    use crate::catalog::Origin;

    fn spelled(data_type: &DataType) -> String {
        match data_type {
            DataType::Boolean => "BOOLEAN".into(),
            DataType::Int64 => "BIGINT".into(),
            DataType::Float64 => "DOUBLE".into(),
            DataType::Utf8View => "TEXT".into(),
            DataType::Date32 => "DATE".into(),
            DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP".into(),
            DataType::Decimal128(digits, scale) => format!("DECIMAL({digits}, {scale})"),
            DataType::List(item) => format!("ARRAY<{}>", spelled(item.data_type())),
            DataType::Struct(fields) => {
                let fields: Vec<String> = fields.iter().map(|field| format!("{} {}", field.name(), spelled(field.data_type()))).collect();
                format!("STRUCT<{}>", fields.join(", "))
            }
            other => other.to_string(),
        }
    }

    fn declared(columns: &[ColumnDef]) -> String {
        let one = |column: &ColumnDef| {
            assert!(matches!(&column.origin, Origin::Payload { path, .. } if *path == [column.name.clone()]));
            format!("{} {}", column.name, spelled(&column.data_type))
        };
        columns.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn sampled(format: Format, payloads: &[&str]) -> (String, usize) {
        let sampled = columns_of_sample(&format, payloads.iter().map(|payload| (None, Some(payload.as_bytes())))).unwrap();
        (declared(&sampled.columns), sampled.unread)
    }

    #[test]
    fn a_sample_shows_columns() {
        for (payloads, columns, unread) in [
            (&[r#"{"id": 1, "b": true, "x": 1.5, "t": "a"}"#][..], "id BIGINT, b BOOLEAN, x DOUBLE, t TEXT", 0),
            (&[r#"{"z": 1, "a": null}"#, r#"{"a": 2, "m": "2024-01-01", "z": 2.5}"#], "z DOUBLE, a BIGINT, m DATE", 0),
            (&[r#"{"at": "2024-01-01T10:00:00Z", "d": "2024-01-01"}"#, r#"{"at": "2024-01-01 10:00:00.5+02:00", "d": "soon"}"#], "at TIMESTAMP, d TEXT", 0),
            (&[r#"{"at": "2024-01-01T10:00:00"}"#], "at TEXT", 0),
            (&[r#"{"n": 18446744073709551615}"#, r#"{"n": -1}"#], "n DECIMAL(38, 0)", 0),
            (&[r#"{"n": 18446744073709551615}"#, r#"{"n": 0.5}"#], "n DOUBLE", 0),
            (
                &[r#"{"a": [1, 2.5], "b": [], "c": [[{"x": 1}], []], "d": [1, "a"]}"#],
                "a ARRAY<DOUBLE>, b TEXT, c ARRAY<ARRAY<STRUCT<x BIGINT>>>, d ARRAY<TEXT>",
                0,
            ),
            (&[r#"{"team": {"id": 1}}"#, r#"{"team": {"name": "a"}}"#, r#"{"team": null}"#], "team STRUCT<id BIGINT, name TEXT>", 0),
            (&[r#"{"a": {}, "b": 1, "c": {"x": 1}}"#, r#"{"a": null, "b": "1", "c": 5}"#], "a TEXT, b TEXT, c TEXT", 0),
            // Several rows in a payload, and what is none.
            (&["[{\"a\": 1}, {\"b\": 2}]", "{\"a\": 1}\n{\"c\": 2}", "{\"d\"", "5", "[1]", "", "{} 5"], "a BIGINT, b BIGINT, c BIGINT", 5),
            (
                &[r#"{"userId": 1, "Odd one": 2, "a.b": 3, " a b": 4, "": 5, "__x": {"a b": 1, "a.b": 2}, "a_b": 6}"#],
                "userId BIGINT, Odd one BIGINT, a.b BIGINT,  a b BIGINT,  BIGINT, __x STRUCT<a b BIGINT, a.b BIGINT>, a_b BIGINT",
                0,
            ),
        ] {
            assert_eq!(sampled(Format::Json, payloads), (columns.to_owned(), unread), "{payloads:?}");
        }
        assert_eq!(sampled(Format::RegistryJson, &["\0\0\0\0\u{7}{\"a\": 1}", "{\"b\": 1}"]), ("a BIGINT".to_owned(), 1));
        let changes = [r#"{"op": "c", "after": {"id": 1}}"#, r#"{"schema": {}, "payload": {"op": "u", "after": {"id": 1, "x": "a"}}}"#, r#"{"op": "d"}"#, "{}"];
        assert_eq!(sampled(Format::DebeziumJson, &changes), ("id BIGINT, x TEXT".to_owned(), 1));
    }

    #[test]
    fn what_is_too_much_is_text_or_refused() {
        let map = format!("{{\"m\": {{{}}}}}", (0..500).map(|n| format!("\"k{n}\": 1")).collect::<Vec<_>>().join(", "));
        assert_eq!(sampled(Format::Json, &[&map]).0, "m TEXT");
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(20), "]".repeat(20));
        assert_eq!(sampled(Format::Json, &[&deep]).0, format!("a {}TEXT{}", "ARRAY<".repeat(8), ">".repeat(8)));
        let wide = format!("{{{}}}", (0..20_000).map(|n| format!("\"k{n}\": 1")).collect::<Vec<_>>().join(", "));
        let refused = columns_of_sample(&Format::Json, [(None, Some(wide.as_bytes()))].into_iter()).unwrap_err().to_string();
        assert!(refused.contains("more than 10000 parts: declare the columns that you need"), "{refused}");
    }

    #[test]
    fn keys_are_looked_at_as_well() {
        let records = [(Some(&br#"{"id": 1, "part": "a"}"#[..]), None), (Some(b"plain"), Some(&b"{\"x\": 1}"[..]))];
        let sampled = columns_of_sample(&Format::Json, records.into_iter()).unwrap();
        assert_eq!((declared(&sampled.key_columns).as_str(), declared(&sampled.columns).as_str()), ("id BIGINT, part TEXT", "x BIGINT"));
    }

    #[test]
    fn a_schema_shows_columns() {
        let schema = r##"{"$schema": "http://json-schema.org/draft-07/schema#", "title": "Order", "type": "object", "required": ["id"],
          "definitions": {"address": {"type": "object", "properties": {"city": {"type": "string"}, "next": {"$ref": "#/definitions/address"}}},
                          "a/b": {"type": "boolean"}},
          "properties": {
            "id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}, "day": {"type": ["null", "string"], "format": "date"},
            "price": {"oneOf": [{"type": "null"}, {"type": "number"}]}, "sizes": {"type": "array", "items": {"type": "integer"}},
            "kind": {"enum": ["a", "b"]}, "one": {"const": 1}, "mixed": {"type": ["integer", "string"]}, "any": {}, "yes": true, "gift": {"$ref": "#/definitions/a~1b"},
            "away": {"$ref": "other.json"}, "open": {"type": "object"}, "home": {"allOf": [{"$ref": "#/definitions/address"}]}}}"##;
        let columns = declared(&columns_of_json_schema(schema).unwrap());
        assert!(columns.starts_with(
            "id BIGINT, at TIMESTAMP, day DATE, price DOUBLE, sizes ARRAY<BIGINT>, kind TEXT, one BIGINT, mixed TEXT, any TEXT, yes TEXT, gift BOOLEAN, away TEXT, \
             open TEXT, home STRUCT<city TEXT, next STRUCT<city TEXT"
        ), "{columns}");
        for (schema, why) in [("{", "can't be read"), (r#"{"type": "string"}"#, "")] {
            match columns_of_json_schema(schema) {
                Ok(columns) => assert!(columns.is_empty() && why.is_empty(), "{schema}"),
                Err(error) => assert!(!why.is_empty() && error.to_string().contains(why), "{error}"),
            }
        }
        // Alternatives that name one another end.
        let doubling = r##"{"properties": {"a": {"$ref": "#"}, "b": {"anyOf": [{"$ref": "#"}, {"$ref": "#"}]}}}"##;
        assert!(columns_of_json_schema(doubling).is_ok_and(|columns| columns.len() == 2) || columns_of_json_schema(doubling).is_err());
    }
}
