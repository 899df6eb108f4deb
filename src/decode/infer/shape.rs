//! What JSON values look like, seen from some of them or from their schema: the SQL types that hold them.

use std::collections::HashMap;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Fields, TimeUnit};

use super::{
    super::{
        payload::{DEEPEST, MOST_PARTS, too_many_parts},
        time,
    },
    tree::Tree,
};
use crate::{
    catalog::{ColumnDef, Origin, TimeFormat},
    error::Result,
};

/// An object within a payload that has more keys than this is taken for a map, whose keys are data.
const MOST_FIELDS: usize = 200;

/// What was seen of the values in one place. NULL is no hint.
#[derive(Debug, Default)]
pub(super) struct Shape {
    boolean: bool,
    number: Option<Number>,
    text: Option<Text>,
    list: Option<Box<Shape>>,
    object: Option<Members>,
}

/// The least that holds the numbers, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Number {
    Integer,
    Wide,
    Float,
}

/// What all texts are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Timestamp,
    Date,
    Other,
}

/// An object's members in the order in which they were first seen.
#[derive(Debug, Default)]
pub(super) struct Members {
    shapes: Vec<(String, Shape)>,
    places: HashMap<String, usize>,
}

impl Members {
    pub(super) fn at(&mut self, name: &str) -> &mut Shape {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None => {
                self.places.insert(name.to_owned(), self.shapes.len());
                self.shapes.push((name.to_owned(), Shape::default()));
                self.shapes.len() - 1
            }
        };
        &mut self.shapes[place].1
    }
}

impl Shape {
    pub(super) fn add(&mut self, value: &Tree) {
        match value {
            Tree::Null => {}
            Tree::Boolean(_) => self.boolean(),
            Tree::Integer => self.number(Number::Integer),
            Tree::Wide => self.number(Number::Wide),
            Tree::Float => self.number(Number::Float),
            Tree::Text(text) => self.text(text_kind(text.as_bytes())),
            Tree::List(items) => {
                let list = self.list();
                items.iter().for_each(|item| list.add(item));
            }
            Tree::Object(members) => {
                let object = self.object();
                members.iter().for_each(|(name, value)| object.at(name).add(value));
            }
        }
    }

    pub(super) fn boolean(&mut self) {
        self.boolean = true;
    }

    pub(super) fn number(&mut self, number: Number) {
        self.number = self.number.max(Some(number));
    }

    pub(super) fn text(&mut self, text: Text) {
        self.text = Some(if self.text.is_none_or(|before| before == text) { text } else { Text::Other });
    }

    pub(super) fn list(&mut self) -> &mut Shape {
        self.list.get_or_insert_default()
    }

    pub(super) fn object(&mut self) -> &mut Members {
        self.object.get_or_insert_default()
    }

    /// A column for each member of the objects; none if there was no object.
    pub(super) fn columns(&self, of: &str) -> Result<Vec<ColumnDef>> {
        let mut left = MOST_PARTS;
        let column = |(name, shape): &(String, Shape)| ColumnDef {
            name: name.clone(),
            data_type: shape.data_type(0, &mut left),
            origin: Origin::Payload { path: vec![name.clone()], time: TimeFormat::default() },
        };
        let columns = self.object.iter().flat_map(|members| &members.shapes).map(column).collect();
        match left {
            0 => Err(too_many_parts(of)),
            _ => Ok(columns),
        }
    }

    /// The type that holds all the values. Where they are of several kinds, or none was seen, it is TEXT, which takes any value, as JSON.
    fn data_type(&self, depth: usize, left: &mut usize) -> DataType {
        *left = left.saturating_sub(1);
        if *left == 0 {
            return DataType::Utf8View;
        }
        match (self.boolean, self.number, self.text, &self.list, &self.object) {
            (true, None, None, None, None) => DataType::Boolean,
            (false, Some(number), None, None, None) => match number {
                Number::Integer => DataType::Int64,
                Number::Wide => DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0),
                Number::Float => DataType::Float64,
            },
            (false, None, Some(Text::Timestamp), None, None) => DataType::Timestamp(TimeUnit::Nanosecond, None),
            (false, None, Some(Text::Date), None, None) => DataType::Date32,
            (false, None, None, Some(items), None) if depth < DEEPEST && items.is_seen() => DataType::new_list(items.data_type(depth + 1, left), true),
            (false, None, None, None, Some(members)) if depth < DEEPEST && (1..=MOST_FIELDS).contains(&members.shapes.len()) => {
                let fields = members.shapes.iter().map(|(name, shape)| Field::new(name, shape.data_type(depth + 1, left), true));
                DataType::Struct(Fields::from_iter(fields))
            }
            _ => DataType::Utf8View,
        }
    }

    fn is_seen(&self) -> bool {
        self.boolean || self.number.is_some() || self.text.is_some() || self.list.is_some() || self.object.is_some()
    }
}

fn text_kind(text: &[u8]) -> Text {
    if time::timestamp(text, &TimeFormat::Rfc3339, TimeUnit::Nanosecond).is_some() {
        Text::Timestamp
    } else if time::date(text).is_some() {
        Text::Date
    } else {
        Text::Other
    }
}
