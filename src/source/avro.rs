//! Avro's schemas: JSON to a list of types that name one another by their places in it, so that a schema may speak of itself.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// The place of a type in its schema.
pub type TypeId = usize;

/// A schema, valid: every name in it is defined.
#[derive(Debug, Clone)]
pub struct AvroSchema {
    types: Vec<AvroType>,
    root: TypeId,
}

/// A type, and what its values mean beyond it.
#[derive(Debug, Clone)]
pub struct AvroType {
    /// How values are written.
    pub kind: Kind,
    /// What they stand for.
    pub logical: Logical,
}

/// How values of a type are written.
#[derive(Debug, Clone)]
pub enum Kind {
    /// No value.
    Null,
    /// A byte, 0 or 1.
    Boolean,
    /// A zigzag number of 32 bits.
    Int,
    /// The same of 64 bits.
    Long,
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// Bytes behind their number.
    Bytes,
    /// The same of UTF-8.
    String,
    /// Its fields in order.
    Record(Record),
    /// The number of a symbol.
    Enum(Enum),
    /// So many bytes.
    Fixed(Fixed),
    /// Blocks of items of a type.
    Array(TypeId),
    /// Blocks of keys with values of a type.
    Map(TypeId),
    /// The number of a branch, then its value.
    Union(Vec<TypeId>),
}

/// What values stand for beyond their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logical {
    /// Nothing.
    Plain,
    /// Digits in all, and after the point.
    Decimal(u32, i32),
    /// Days since 1970.
    Date,
    /// Milliseconds since midnight.
    TimeMillis,
    /// Microseconds since midnight.
    TimeMicros,
    /// A count since 1970, of so many to a second as a power of ten.
    Timestamp(u32),
    /// The same on a local clock.
    LocalTimestamp(u32),
    /// A UUID, as text or as sixteen bytes.
    Uuid,
}

/// A record.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its name.
    pub name: Name,
    /// Its fields, in the order in which they are written.
    pub fields: Vec<Field>,
}

/// A field of a record.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Other names under which a writer may have it.
    pub aliases: Vec<String>,
    /// Its type.
    pub of: TypeId,
    /// What it is where the writer's schema has no such field.
    pub default: Option<Value>,
}

/// An enum.
#[derive(Debug, Clone)]
pub struct Enum {
    /// Its name.
    pub name: Name,
    /// Its symbols, in order.
    pub symbols: Vec<String>,
    /// What a symbol stands for that is none of these.
    pub default: Option<String>,
}

/// Bytes of a fixed number.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// Its name.
    pub name: Name,
    /// How many bytes.
    pub size: usize,
}

/// The name of a type with its namespace, and the other names it goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// With its namespace.
    pub full: String,
    /// The others, with theirs.
    pub aliases: Vec<String>,
}

impl Name {
    /// Without the namespace.
    pub fn short(&self) -> &str {
        self.full.rsplit('.').next().unwrap_or(&self.full)
    }
}

/// How many types a schema may have; the text of a larger one is no schema but an attack.
const MOST_TYPES: usize = 100_000;
/// The largest `fixed`.
const LARGEST_FIXED: u64 = 64 << 20;

impl AvroSchema {
    /// Reads a schema. `references` are the texts of those that it refers to by name, each before those that refer to it.
    /// The error is a sentence without a full stop.
    pub fn parse<'a>(text: &str, references: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut parser = Parser { types: vec![], names: HashMap::new() };
        for reference in references {
            parser.text(reference)?;
        }
        let root = parser.text(text)?;
        let parsed = Self { types: parser.types, root };
        parsed.check_unions()?;
        Ok(parsed)
    }

    /// The type of the whole.
    pub fn root(&self) -> TypeId {
        self.root
    }

    /// A type.
    pub fn at(&self, id: TypeId) -> &AvroType {
        &self.types[id]
    }

    /// What a type is called in a reason.
    pub fn name_of(&self, id: TypeId) -> String {
        match &self.at(id).kind {
            Kind::Null => "null".into(),
            Kind::Boolean => "boolean".into(),
            Kind::Int => "int".into(),
            Kind::Long => "long".into(),
            Kind::Float => "float".into(),
            Kind::Double => "double".into(),
            Kind::Bytes => "bytes".into(),
            Kind::String => "string".into(),
            Kind::Record(record) => format!("record {}", record.name.full),
            Kind::Enum(of) => format!("enum {}", of.name.full),
            Kind::Fixed(fixed) => format!("fixed {}", fixed.name.full),
            Kind::Array(_) => "array".into(),
            Kind::Map(_) => "map".into(),
            Kind::Union(branches) => format!("union of {}", branches.iter().map(|&branch| self.name_of(branch)).collect::<Vec<_>>().join(", ")),
        }
    }

    /// Where a type may be NULL and else is one other: that one.
    pub fn nullable(&self, id: TypeId) -> Option<TypeId> {
        let Kind::Union(branches) = &self.at(id).kind else { return None };
        match branches.as_slice() {
            [a, b] if matches!(self.at(*a).kind, Kind::Null) => Some(*b),
            [a, b] if matches!(self.at(*b).kind, Kind::Null) => Some(*a),
            _ => None,
        }
    }

    /// The schema as text that refers to nothing beyond itself.
    pub fn to_json(&self) -> String {
        self.written(self.root, &mut vec![false; self.types.len()]).to_string()
    }

    fn written(&self, id: TypeId, defined: &mut Vec<bool>) -> Value {
        let AvroType { kind, logical } = self.at(id);
        let name = match kind {
            Kind::Record(Record { name, .. }) | Kind::Enum(Enum { name, .. }) | Kind::Fixed(Fixed { name, .. }) => Some(name),
            _ => None,
        };
        if let Some(name) = name
            && std::mem::replace(&mut defined[id], true)
        {
            return json!(qualified(&name.full));
        }
        let mut out = Map::new();
        if let Some(name) = name {
            out.insert("name".into(), json!(qualified(&name.full)));
            if !name.aliases.is_empty() {
                out.insert("aliases".into(), json!(name.aliases.iter().map(|alias| qualified(alias)).collect::<Vec<_>>()));
            }
        }
        let plain = match kind {
            Kind::Union(branches) => return Value::Array(branches.iter().map(|&branch| self.written(branch, defined)).collect()),
            Kind::Record(record) => {
                let field = |field: &Field| {
                    let mut out = Map::new();
                    out.insert("name".into(), json!(field.name));
                    out.insert("type".into(), self.written(field.of, defined));
                    if let Some(default) = &field.default {
                        out.insert("default".into(), default.clone());
                    }
                    if !field.aliases.is_empty() {
                        out.insert("aliases".into(), json!(field.aliases));
                    }
                    Value::Object(out)
                };
                let fields: Vec<Value> = record.fields.iter().map(field).collect();
                out.insert("fields".into(), Value::Array(fields));
                "record"
            }
            Kind::Enum(of) => {
                out.insert("symbols".into(), json!(of.symbols));
                if let Some(default) = &of.default {
                    out.insert("default".into(), json!(default));
                }
                "enum"
            }
            Kind::Fixed(fixed) => {
                out.insert("size".into(), json!(fixed.size));
                "fixed"
            }
            Kind::Array(items) => {
                out.insert("items".into(), self.written(*items, defined));
                "array"
            }
            Kind::Map(values) => {
                out.insert("values".into(), self.written(*values, defined));
                "map"
            }
            Kind::Null => "null",
            Kind::Boolean => "boolean",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::Bytes => "bytes",
            Kind::String => "string",
        };
        let mut logical_name = |name: &str| out.insert("logicalType".into(), json!(name));
        match logical {
            Logical::Plain => {}
            Logical::Decimal(precision, scale) => {
                logical_name("decimal");
                out.insert("precision".into(), json!(precision));
                out.insert("scale".into(), json!(scale));
            }
            Logical::Date => drop(logical_name("date")),
            Logical::TimeMillis => drop(logical_name("time-millis")),
            Logical::TimeMicros => drop(logical_name("time-micros")),
            Logical::Timestamp(digits) => drop(logical_name(&format!("timestamp-{}", unit_name(*digits)))),
            Logical::LocalTimestamp(digits) => drop(logical_name(&format!("local-timestamp-{}", unit_name(*digits)))),
            Logical::Uuid => drop(logical_name("uuid")),
        }
        if out.is_empty() {
            return json!(plain);
        }
        out.insert("type".into(), json!(plain));
        Value::Object(out)
    }

    /// Unions hold no unions and each type once, so that a branch can be found by its type.
    fn check_unions(&self) -> Result<(), String> {
        for union in self.types.iter() {
            let Kind::Union(branches) = &union.kind else { continue };
            let mut seen = std::collections::HashSet::new();
            for &branch in branches {
                if matches!(self.at(branch).kind, Kind::Union(_)) {
                    return Err("a union stands directly in a union".into());
                }
                if !seen.insert(self.name_of(branch)) {
                    return Err(format!("a union has two branches of type {}", self.name_of(branch)));
                }
            }
        }
        Ok(())
    }
}

/// A full name that is read back as it is: one without a namespace begins with a dot, lest it took on that of a type around it.
fn qualified(full: &str) -> String {
    if full.contains('.') { full.into() } else { format!(".{full}") }
}

fn unit_name(digits: u32) -> &'static str {
    match digits {
        3 => "millis",
        6 => "micros",
        _ => "nanos",
    }
}

struct Parser {
    types: Vec<AvroType>,
    names: HashMap<String, TypeId>,
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<TypeId, String> {
        // serde_json bounds how deep a text nests, and so how deep this recurses.
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            // A name alone may stand without quotes.
            Err(_) if !text.trim().is_empty() && text.trim().chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => json!(text.trim()),
            Err(error) => return Err(format!("it is no JSON: {error}")),
        };
        self.any(&value, "")
    }

    fn push(&mut self, kind: Kind, logical: Logical) -> Result<TypeId, String> {
        if self.types.len() >= MOST_TYPES {
            return Err(format!("it has more than {MOST_TYPES} types"));
        }
        self.types.push(AvroType { kind, logical });
        Ok(self.types.len() - 1)
    }

    fn any(&mut self, value: &Value, namespace: &str) -> Result<TypeId, String> {
        match value {
            Value::String(name) => match primitive(name) {
                Some(kind) => self.push(kind, Logical::Plain),
                None => self.named(name, namespace),
            },
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.any(branch, namespace)).collect::<Result<Vec<_>, _>>()?;
                match branches.is_empty() {
                    true => Err("a union has no branches".into()),
                    false => self.push(Kind::Union(branches), Logical::Plain),
                }
            }
            Value::Object(object) => self.object(object, namespace),
            other => Err(format!("{other} is no type")),
        }
    }

    fn named(&self, name: &str, namespace: &str) -> Result<TypeId, String> {
        let within = self.names.get(&full_name(name, None, namespace));
        // Older writers leave the namespace out where a name has none.
        within.or_else(|| self.names.get(name.trim_start_matches('.'))).copied().ok_or_else(|| format!("no type is called {name}"))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let of = match object.get("type") {
            Some(Value::String(name)) => name.as_str(),
            // `{"type": {…}}` is the type within.
            Some(within) => return self.any(within, namespace),
            None => return Err("an object has no \"type\"".into()),
        };
        match of {
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let (name, _) = name_of(object, namespace, "an enum")?;
                let symbols = texts(object.get("symbols")).filter(|symbols| !symbols.is_empty()).ok_or_else(|| format!("enum {} has no symbols", name.full))?;
                let default = object.get("default").and_then(Value::as_str).map(str::to_string);
                if let Some(default) = default.as_ref().filter(|default| !symbols.contains(default)) {
                    return Err(format!("enum {} has the default {default}, which is none of its symbols", name.full));
                }
                self.define(name.clone(), Kind::Enum(Enum { name, symbols, default }), Logical::Plain)
            }
            "fixed" => {
                let (name, _) = name_of(object, namespace, "a fixed")?;
                let size = object.get("size").and_then(Value::as_u64).filter(|size| *size <= LARGEST_FIXED);
                let size = size.ok_or_else(|| format!("fixed {} has no size from 0 to {LARGEST_FIXED}", name.full))? as usize;
                let logical = match object.get("logicalType").and_then(Value::as_str) {
                    Some("decimal") => decimal(object),
                    Some("uuid") if size == 16 => Logical::Uuid,
                    _ => Logical::Plain,
                };
                self.define(name.clone(), Kind::Fixed(Fixed { name, size }), logical)
            }
            "array" => {
                let items = self.any(object.get("items").ok_or("an array has no \"items\"")?, namespace)?;
                self.push(Kind::Array(items), Logical::Plain)
            }
            "map" => {
                let values = self.any(object.get("values").ok_or("a map has no \"values\"")?, namespace)?;
                self.push(Kind::Map(values), Logical::Plain)
            }
            other => match primitive(other) {
                Some(kind) => {
                    let logical = logical(&kind, object);
                    self.push(kind, logical)
                }
                None => self.named(other, namespace),
            },
        }
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<TypeId, String> {
        let (name, namespace) = name_of(object, namespace, "a record")?;
        let listed = object.get("fields").and_then(Value::as_array).ok_or_else(|| format!("record {} has no \"fields\"", name.full))?;
        // Known before its fields are read: they may speak of it.
        let id = self.define(name.clone(), Kind::Record(Record { name: name.clone(), fields: vec![] }), Logical::Plain)?;
        let mut fields: Vec<Field> = vec![];
        for listed in listed {
            let of = listed.get("type").ok_or_else(|| format!("a field of record {} has no \"type\"", name.full))?;
            let field = listed.get("name").and_then(Value::as_str).ok_or_else(|| format!("a field of record {} has no \"name\"", name.full))?;
            if fields.iter().any(|known| known.name == field) {
                return Err(format!("record {} has two fields called {field}", name.full));
            }
            let of = self.any(of, &namespace).map_err(|why| format!("field {field} of record {}: {why}", name.full))?;
            let aliases = texts(listed.get("aliases")).unwrap_or_default();
            fields.push(Field { name: field.into(), aliases, of, default: listed.get("default").cloned() });
        }
        self.types[id].kind = Kind::Record(Record { name, fields });
        Ok(id)
    }

    fn define(&mut self, name: Name, kind: Kind, logical: Logical) -> Result<TypeId, String> {
        let id = self.push(kind, logical)?;
        match self.names.insert(name.full.clone(), id) {
            None => Ok(id),
            Some(_) => Err(format!("two types are called {}", name.full)),
        }
    }
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}

/// A logical type that doesn't fit its type means nothing, as the specification says.
fn logical(kind: &Kind, object: &Map<String, Value>) -> Logical {
    match (kind, object.get("logicalType").and_then(Value::as_str)) {
        (Kind::Bytes, Some("decimal")) => decimal(object),
        (Kind::Int, Some("date")) => Logical::Date,
        (Kind::Int, Some("time-millis")) => Logical::TimeMillis,
        (Kind::Long, Some("time-micros")) => Logical::TimeMicros,
        (Kind::Long, Some("timestamp-millis")) => Logical::Timestamp(3),
        (Kind::Long, Some("timestamp-micros")) => Logical::Timestamp(6),
        (Kind::Long, Some("timestamp-nanos")) => Logical::Timestamp(9),
        (Kind::Long, Some("local-timestamp-millis")) => Logical::LocalTimestamp(3),
        (Kind::Long, Some("local-timestamp-micros")) => Logical::LocalTimestamp(6),
        (Kind::Long, Some("local-timestamp-nanos")) => Logical::LocalTimestamp(9),
        (Kind::String, Some("uuid")) => Logical::Uuid,
        _ => Logical::Plain,
    }
}

fn decimal(object: &Map<String, Value>) -> Logical {
    let precision = object.get("precision").and_then(Value::as_u64).and_then(|precision| u32::try_from(precision).ok()).filter(|precision| *precision > 0);
    let scale = object.get("scale").map_or(Some(0), Value::as_u64);
    match (precision, scale) {
        (Some(precision), Some(scale)) if scale <= u64::from(precision) => Logical::Decimal(precision, scale as i32),
        _ => Logical::Plain,
    }
}

fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    value?.as_array()?.iter().map(|text| text.as_str().map(str::to_string)).collect()
}

/// A named type's name, and the namespace within it.
fn name_of(object: &Map<String, Value>, around: &str, what: &str) -> Result<(Name, String), String> {
    let name = object.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()).ok_or_else(|| format!("{what} has no \"name\""))?;
    let full = full_name(name, object.get("namespace").and_then(Value::as_str), around);
    let namespace = full.rsplit_once('.').map_or(String::new(), |(namespace, _)| namespace.to_string());
    let aliases = texts(object.get("aliases")).unwrap_or_default().iter().map(|alias| full_name(alias, None, &namespace)).collect();
    Ok((Name { full, aliases }, namespace))
}

fn full_name(name: &str, namespace: Option<&str>, around: &str) -> String {
    if name.contains('.') {
        return name.trim_start_matches('.').into();
    }
    match namespace.unwrap_or(around) {
        "" => name.into(),
        namespace => format!("{namespace}.{name}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AvroSchema, String> {
        AvroSchema::parse(text, [])
    }

    #[test]
    fn schemas_are_read_and_written() {
        let text = r#"{"type": "record", "name": "a.b.Event", "aliases": ["Old"], "fields": [
            {"name": "id", "type": "long"},
            {"name": "next", "type": ["null", "Event"], "default": null},
            {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"], "default": "A"}},
            {"name": "again", "type": "a.b.Kind", "aliases": ["was"]},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            {"name": "raw", "type": {"type": "fixed", "name": "Raw", "size": 4, "namespace": ""}},
            {"name": "tags", "type": {"type": "map", "values": {"type": "array", "items": "Raw"}}}]}"#;
        let schema = parse(text).unwrap();
        let Kind::Record(record) = &schema.at(schema.root()).kind else { panic!() };
        assert_eq!(
            (record.name.full.as_str(), record.name.short(), record.name.aliases.as_slice()),
            ("a.b.Event", "Event", ["a.b.Old".to_string()].as_slice())
        );
        assert_eq!(schema.nullable(record.fields[1].of), Some(schema.root()));
        assert_eq!(schema.at(record.fields[4].of).logical, Logical::Decimal(9, 2));
        let again = parse(&schema.to_json()).unwrap();
        assert_eq!(again.to_json(), schema.to_json());
        assert_eq!(again.name_of(again.root()), "record a.b.Event");
        assert!(schema.to_json().contains("\".Raw\""), "{}", schema.to_json());
    }

    #[test]
    fn references_are_written_into_one() {
        let address = r#"{"type": "record", "name": "x.Address", "fields": [{"name": "city", "type": "string"}]}"#;
        let person = r#"{"type": "record", "name": "x.Person", "fields": [{"name": "home", "type": "x.Address"}, {"name": "work", "type": "Address"}]}"#;
        assert!(parse(person).unwrap_err().contains("no type is called x.Address"));
        let whole = AvroSchema::parse(person, [address]).unwrap().to_json();
        assert!(whole.contains("city"));
        parse(&whole).unwrap();
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for (text, why) in [
            ("", "no JSON"),
            ("{", "no JSON"),
            ("7", "7 is no type"),
            ("\"Thing\"", "no type is called Thing"),
            ("[]", "a union has no branches"),
            (r#"["int", ["null"]]"#, "a union stands directly in a union"),
            (r#"["int", "int"]"#, "two branches of type int"),
            (r#"{"type": "record", "name": "R"}"#, "no \"fields\""),
            (r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}"#, "two fields called a"),
            (r#"{"type": "enum", "name": "E", "symbols": []}"#, "no symbols"),
            (r#"{"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}"#, "none of its symbols"),
            (r#"{"type": "fixed", "name": "F", "size": -1}"#, "no size"),
            (r#"{"type": "fixed", "name": "F", "size": 9999999999999}"#, "no size"),
            (r#"{"type": "array"}"#, "no \"items\""),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        assert_eq!(parse("string").unwrap().to_json(), "\"string\"");
        let deep = "[".repeat(100_000);
        assert!(parse(&deep).is_err());
    }
}
