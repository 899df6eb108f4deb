//! What is read into which column, and what is stepped over: a writer's schema resolved to the reader's, for the declared columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};

use super::{super::payload::PayloadColumn, constant::Constant};
use crate::source::avro::{AvroSchema, Field, Kind, Logical, TypeId};

/// How records of one writer's schema are read.
#[derive(Debug)]
pub(super) struct Plan {
    /// The writer's schema, for what is stepped over.
    pub(super) writer: Arc<AvroSchema>,
    /// What is at the top.
    pub(super) top: Walk,
}

/// What is done with a value that columns lie in.
#[derive(Debug)]
pub(super) enum Walk {
    /// A record: each of its fields.
    Record(Fields),
    /// By branch; `None`: null, so that the columns below are NULL.
    Union(Vec<Result<Option<Walk>, String>>),
}

/// What is done with a record's fields.
#[derive(Debug)]
pub(super) struct Fields {
    /// For each of the writer's fields its type, and where its value goes; nowhere: it is stepped over.
    pub(super) written: Vec<(TypeId, Vec<Take>)>,
    /// What the reader's defaults give, by column (or by part of a struct).
    pub(super) missing: Vec<(usize, Constant)>,
}

/// Where a value goes.
#[derive(Debug)]
pub(super) enum Take {
    /// Into a column (or a part of a struct).
    Put(usize, Read),
    /// Into columns that lie in it.
    Into(Walk),
}

/// How a value is read into a column.
#[derive(Debug)]
pub(super) enum Read {
    Null,
    Bool,
    /// A number, which the reader's schema may want as one of another kind.
    Int(As),
    Long(As),
    Float(As),
    Double,
    /// Bytes, and text that the reader's schema has as bytes.
    Bytes,
    /// Text, and bytes that the reader's schema has as text.
    Text,
    /// So many bytes.
    Fixed(usize),
    /// Bytes that are a decimal with so many digits after the point; so many of them, where that is fixed.
    Decimal(i32, Option<usize>),
    /// Sixteen bytes.
    Uuid,
    /// Symbols by number.
    Enum(Vec<Result<String, String>>),
    Array(Box<Read>),
    /// An array of structs of key and value.
    Map(Box<Read>),
    /// A struct.
    Record(Fields),
    /// By branch.
    Union(Vec<Result<Read, String>>),
    /// A nested value, of the writer's type, as JSON.
    Json(TypeId),
}

/// What a number is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    Number,
    Float,
    Double,
    Date,
    Timestamp(TimeUnit),
    TimeOfDay(TimeUnit),
}

/// A declared column, as far as its path has not been followed.
#[derive(Clone, Copy)]
struct Below<'a> {
    column: usize,
    path: &'a [String],
    data_type: &'a DataType,
}

impl Plan {
    /// Resolves a writer's schema to the reader's. The error says why the writer's records can't be read.
    pub(super) fn new(writer: &Arc<AvroSchema>, reader: &AvroSchema, declared: &[PayloadColumn]) -> Result<Self, String> {
        let below: Vec<Below<'_>> =
            declared.iter().enumerate().map(|(column, declared)| Below { column, path: &declared.path, data_type: &declared.data_type }).collect();
        let resolver = Resolver { writer, reader };
        let top = resolver.walk(writer.root(), reader.root(), &below)?;
        match top {
            Some(top) => Ok(Self { writer: writer.clone(), top }),
            None => Err("its records are null".into()),
        }
    }
}

struct Resolver<'a> {
    writer: &'a AvroSchema,
    reader: &'a AvroSchema,
}

impl Resolver<'_> {
    /// The way to the columns that lie in a value; `None`: it is null.
    fn walk(&self, w: TypeId, r: TypeId, below: &[Below<'_>]) -> Result<Option<Walk>, String> {
        if let Kind::Union(branches) = &self.writer.at(w).kind {
            let branches: Vec<_> = branches.iter().map(|&branch| self.walk(branch, r, below)).collect();
            return match branches.iter().any(|branch| matches!(branch, Ok(Some(_)))) {
                true => Ok(Some(Walk::Union(branches))),
                false => Err(branches.into_iter().find_map(Result::err).unwrap_or_else(|| "it is always null".into())),
            };
        }
        let r = self.branch(w, r)?;
        match (&self.writer.at(w).kind, &self.reader.at(r).kind) {
            (Kind::Null, Kind::Null) => Ok(None),
            (Kind::Record(_), Kind::Record(_)) => Ok(Some(Walk::Record(self.fields_below(w, r, below)?))),
            (_, Kind::Record(record)) => Err(format!("it is {} where record {} is read", self.writer.name_of(w), record.name.full)),
            _ => match below.first() {
                Some(Below { path: [next, ..], .. }) => Err(format!("{} is no record that a column's PATH could go on in with {next}", self.reader.name_of(r))),
                _ => Err(format!("{} is no record", self.reader.name_of(r))),
            },
        }
    }

    /// The fields of a record that columns lie in.
    fn fields_below(&self, w: TypeId, r: TypeId, below: &[Below<'_>]) -> Result<Fields, String> {
        let (Kind::Record(writer), Kind::Record(reader)) = (&self.writer.at(w).kind, &self.reader.at(r).kind) else { return Err("it is no record".into()) };
        let mut fields = Fields { written: writer.fields.iter().map(|field| (field.of, vec![])).collect(), missing: vec![] };
        // Columns of one field together, in order of appearance.
        let mut by_field: Vec<(&Field, Vec<Below<'_>>)> = vec![];
        for &column in below {
            let Some((first, rest)) = column.path.split_first() else { return Err("a column has no PATH".into()) };
            let Some(field) = reader.fields.iter().find(|field| field.name == *first) else {
                return Err(unknown_field(first, &reader.name.full, &reader.fields));
            };
            let rest = Below { path: rest, ..column };
            match by_field.iter_mut().find(|(known, _)| known.name == field.name) {
                Some((_, columns)) => columns.push(rest),
                None => by_field.push((field, vec![rest])),
            }
        }
        for (field, columns) in by_field {
            let within = |why: String| format!("field {} of record {}: {why}", field.name, reader.name.full);
            let (ends, on): (Vec<Below<'_>>, Vec<Below<'_>>) = columns.into_iter().partition(|column| column.path.is_empty());
            match position(&writer.fields, field) {
                Some(at) => {
                    let (of, takes) = &mut fields.written[at];
                    for column in ends {
                        takes.push(Take::Put(column.column, self.read(*of, field.of, column.data_type).map_err(within)?));
                    }
                    if !on.is_empty()
                        && let Some(walk) = self.walk(*of, field.of, &on).map_err(within)?
                    {
                        takes.push(Take::Into(walk));
                    }
                }
                None => {
                    let default = field.default.as_ref().ok_or_else(|| within("the writer's schema lacks it, and it has no default".into()))?;
                    for column in ends.into_iter().chain(on) {
                        let constant = Constant::below(self.reader, field.of, default, column.path, column.data_type).map_err(within)?;
                        fields.missing.push((column.column, constant));
                    }
                }
            }
        }
        Ok(fields)
    }

    /// How a value is read into a column of a type.
    fn read(&self, w: TypeId, r: TypeId, target: &DataType) -> Result<Read, String> {
        if let Kind::Union(branches) = &self.writer.at(w).kind {
            let reads: Vec<_> = branches.iter().map(|&branch| self.read(branch, r, target)).collect();
            let null = |(branch, read): (&TypeId, &Result<Read, String>)| matches!(self.writer.at(*branch).kind, Kind::Null) && read.is_ok();
            let some = branches.iter().zip(&reads).any(|pair| pair.1.is_ok() && !null(pair));
            let only_null = branches.iter().all(|&branch| matches!(self.writer.at(branch).kind, Kind::Null));
            return match some || only_null {
                true => Ok(Read::Union(reads)),
                false => Err(reads.into_iter().find_map(Result::err).unwrap_or_else(|| "no branch of its union can be read".into())),
            };
        }
        let r = self.branch(w, r)?;
        let (written, wanted) = (self.writer.at(w), self.reader.at(r));
        let is_text = matches!(target, DataType::Utf8View | DataType::Utf8);
        let mismatch = || Err(format!("it is {} where {} is read", self.writer.name_of(w), self.reader.name_of(r)));
        let undeclarable = |advice: &str| Err(format!("{} can't be read into a column of type {target}: {advice}", self.reader.name_of(r)));
        let nested = target.is_nested();
        let plain = |read: Read| if nested { undeclarable("declare a plain type") } else { Ok(read) };
        match (&written.kind, &wanted.kind) {
            (Kind::Record(_), Kind::Record(_)) => match target {
                DataType::Struct(fields) => {
                    let below: Vec<[String; 1]> = fields.iter().map(|field| [field.name().clone()]).collect();
                    let below = below.iter().zip(fields.iter()).enumerate();
                    let below: Vec<Below<'_>> = below.map(|(column, (path, field))| Below { column, path, data_type: field.data_type() }).collect();
                    Ok(Read::Record(self.fields_below(w, r, &below)?))
                }
                _ if is_text => Ok(Read::Json(w)),
                _ => undeclarable("declare a STRUCT, TEXT (as JSON), or its parts with PATH"),
            },
            (Kind::Array(items), Kind::Array(wanted_items)) => match target {
                DataType::List(item) => Ok(Read::Array(Box::new(self.read(*items, *wanted_items, item.data_type())?))),
                _ if is_text => Ok(Read::Json(w)),
                _ => undeclarable("declare an ARRAY, or TEXT (as JSON)"),
            },
            (Kind::Map(values), Kind::Map(wanted_values)) => match map_value(target) {
                Some(value) => Ok(Read::Map(Box::new(self.read(*values, *wanted_values, value)?))),
                None if is_text => Ok(Read::Json(w)),
                None => undeclarable("declare ARRAY<STRUCT<key TEXT, value …>>, or TEXT (as JSON)"),
            },
            (Kind::Enum(writer), Kind::Enum(reader)) => {
                let symbol = |symbol: &String| match (reader.symbols.contains(symbol), &reader.default) {
                    (true, _) => Ok(symbol.clone()),
                    (false, Some(default)) => Ok(default.clone()),
                    (false, None) => Err(format!("enum {} has no symbol {symbol} in the reader's schema, and no default", reader.name.full)),
                };
                plain(Read::Enum(writer.symbols.iter().map(symbol).collect()))
            }
            (Kind::Fixed(a), Kind::Fixed(b)) if a.size == b.size => plain(match (written.logical, wanted.logical) {
                (Logical::Decimal(_, scale), Logical::Decimal(..)) | (Logical::Plain, Logical::Decimal(_, scale)) => Read::Decimal(scale, Some(a.size)),
                (_, Logical::Uuid) => Read::Uuid,
                _ => Read::Fixed(a.size),
            }),
            (Kind::Null, Kind::Null) => Ok(Read::Null),
            (Kind::Boolean, Kind::Boolean) => plain(Read::Bool),
            (Kind::Int, Kind::Int | Kind::Long | Kind::Float | Kind::Double) => plain(Read::Int(taken_for(&wanted.kind, wanted.logical))),
            (Kind::Long, Kind::Long | Kind::Float | Kind::Double) => plain(Read::Long(taken_for(&wanted.kind, wanted.logical))),
            (Kind::Float, Kind::Float) => plain(Read::Float(As::Float)),
            (Kind::Float, Kind::Double) => plain(Read::Float(As::Double)),
            (Kind::Double, Kind::Double) => plain(Read::Double),
            (Kind::Bytes, Kind::Bytes) => plain(match (written.logical, wanted.logical) {
                // The writer's digits after the point are what its bytes mean, whatever the reader's schema has.
                (Logical::Decimal(_, scale), Logical::Decimal(..)) | (Logical::Plain, Logical::Decimal(_, scale)) => Read::Decimal(scale, None),
                _ => Read::Bytes,
            }),
            (Kind::String, Kind::Bytes) => plain(Read::Bytes),
            (Kind::String | Kind::Bytes, Kind::String) => plain(Read::Text),
            _ => mismatch(),
        }
    }

    /// The reader's type that a writer's, itself no union, is read as.
    fn branch(&self, w: TypeId, r: TypeId) -> Result<TypeId, String> {
        let Kind::Union(branches) = &self.reader.at(r).kind else { return Ok(r) };
        let fits = |degree: Fit| branches.iter().copied().find(|&branch| self.fit(w, branch) == Some(degree));
        [Fit::Same, Fit::Alike, Fit::Promoted]
            .into_iter()
            .find_map(fits)
            .ok_or_else(|| format!("it is {} where {} is read", self.writer.name_of(w), self.reader.name_of(r)))
    }

    /// How well a writer's type is a branch of a reader's union.
    fn fit(&self, w: TypeId, r: TypeId) -> Option<Fit> {
        let (writer, reader) = (&self.writer.at(w).kind, &self.reader.at(r).kind);
        let names = match (writer, reader) {
            (Kind::Record(a), Kind::Record(b)) => Some((&a.name, &b.name)),
            (Kind::Enum(a), Kind::Enum(b)) => Some((&a.name, &b.name)),
            (Kind::Fixed(a), Kind::Fixed(b)) if a.size == b.size => Some((&a.name, &b.name)),
            _ => None,
        };
        if let Some((a, b)) = names {
            return match a.full == b.full || b.aliases.contains(&a.full) {
                true => Some(Fit::Same),
                false => Some(if a.short() == b.short() { Fit::Alike } else { Fit::Promoted }),
            };
        }
        match (writer, reader) {
            (Kind::Null, Kind::Null)
            | (Kind::Boolean, Kind::Boolean)
            | (Kind::Int, Kind::Int)
            | (Kind::Long, Kind::Long)
            | (Kind::Float, Kind::Float)
            | (Kind::Double, Kind::Double)
            | (Kind::Bytes, Kind::Bytes)
            | (Kind::String, Kind::String)
            | (Kind::Array(_), Kind::Array(_))
            | (Kind::Map(_), Kind::Map(_)) => Some(Fit::Same),
            (Kind::Int, Kind::Long | Kind::Float | Kind::Double)
            | (Kind::Long, Kind::Float | Kind::Double)
            | (Kind::Float, Kind::Double)
            | (Kind::String, Kind::Bytes)
            | (Kind::Bytes, Kind::String) => Some(Fit::Promoted),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// The same type, of the same name if it has one.
    Same,
    /// Of the same name but for the namespace.
    Alike,
    /// Another type that can be read as it; also one of another name, where nothing fits better.
    Promoted,
}

/// Where the writer has a field of the reader: under its name, else under an alias.
pub(super) fn position(written: &[Field], wanted: &Field) -> Option<usize> {
    let named = |name: &String| written.iter().position(|field| field.name == *name);
    named(&wanted.name).or_else(|| wanted.aliases.iter().find_map(named))
}

fn taken_for(kind: &Kind, logical: Logical) -> As {
    match (kind, logical) {
        (Kind::Float, _) => As::Float,
        (Kind::Double, _) => As::Double,
        (_, Logical::Date) => As::Date,
        (_, Logical::TimeMillis) => As::TimeOfDay(TimeUnit::Millisecond),
        (_, Logical::TimeMicros) => As::TimeOfDay(TimeUnit::Microsecond),
        (_, Logical::Timestamp(digits) | Logical::LocalTimestamp(digits)) => As::Timestamp(unit(digits)),
        _ => As::Number,
    }
}

/// The unit of which there are so many to a second, as a power of ten.
pub(super) fn unit(digits: u32) -> TimeUnit {
    match digits {
        0 => TimeUnit::Second,
        3 => TimeUnit::Millisecond,
        6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

/// The type of the values, if a type is one that a map can be read as.
pub(super) fn map_value(target: &DataType) -> Option<&DataType> {
    let DataType::List(item) = target else { return None };
    let DataType::Struct(fields) = item.data_type() else { return None };
    match fields.as_ref() {
        [key, value] if matches!(key.data_type(), DataType::Utf8View | DataType::Utf8) => Some(value.data_type()),
        _ => None,
    }
}

fn unknown_field(name: &str, record: &str, fields: &[Field]) -> String {
    let alike = fields.iter().find(|field| field.name.eq_ignore_ascii_case(name));
    match alike {
        Some(field) => format!(
            "record {record} has no field {name}, but {}: name it with PATH '$.{}', or declare the column as \"{}\"",
            field.name, field.name, field.name
        ),
        None => {
            let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            format!("record {record} has no field {name}; it has {}", known.join(", "))
        }
    }
}
