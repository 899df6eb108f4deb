//! The columns that a JSON Schema tells: those that hold whatever it allows, as far as it says so.

use super::{
    shape::{Number, Shape, Text},
    tree::Tree,
};
use crate::{
    catalog::ColumnDef,
    error::{Error, Result},
};

/// References and alternatives are followed so far; what lies deeper may be anything.
const DEEPEST: usize = 40;
/// So many parts are looked at: schemas that name one another have soon more than there is time for.
const MOST_PARTS: usize = 100_000;

/// The columns of payloads that a schema describes; none if those are no objects.
pub(super) fn columns(text: &str) -> Result<Vec<ColumnDef>> {
    let root: Tree = serde_json::from_str(text).map_err(|error| Error::Invalid(format!("the JSON Schema can't be read: {error}")))?;
    let mut shape = Shape::default();
    Schema { root: &root, left: MOST_PARTS }.look(&root, &mut shape, 0);
    shape.columns("the JSON Schema")
}

struct Schema<'a> {
    root: &'a Tree,
    left: usize,
}

impl<'a> Schema<'a> {
    /// Adds what a schema allows.
    fn look(&mut self, schema: &Tree, shape: &mut Shape, depth: usize) {
        self.left = self.left.saturating_sub(1);
        if depth > DEEPEST || self.left == 0 {
            return anything(shape);
        }
        if let Some(at) = schema.get("$ref").and_then(Tree::text) {
            return match self.referred(at) {
                Some(referred) => self.look(referred, shape, depth + 1),
                // It stands in another schema.
                None => anything(shape),
            };
        }
        for word in ["oneOf", "anyOf", "allOf"] {
            if let Some(Tree::List(parts)) = schema.get(word) {
                parts.iter().for_each(|part| self.look(part, shape, depth + 1));
            }
        }
        match schema.get("type") {
            Some(Tree::Text(name)) => self.typed(name, schema, shape, depth),
            Some(Tree::List(names)) => names.iter().filter_map(Tree::text).for_each(|name| self.typed(name, schema, shape, depth)),
            _ if schema.get("properties").is_some() => self.typed("object", schema, shape, depth),
            _ => {
                if let Some(Tree::List(values)) = schema.get("enum") {
                    values.iter().for_each(|value| shape.add(value));
                }
                if let Some(value) = schema.get("const") {
                    shape.add(value);
                }
            }
        }
    }

    fn typed(&mut self, name: &str, schema: &Tree, shape: &mut Shape, depth: usize) {
        match name {
            "boolean" => shape.boolean(),
            "integer" => shape.number(Number::Integer),
            "number" => shape.number(Number::Float),
            "string" => shape.text(match schema.get("format").and_then(Tree::text) {
                Some("date-time") => Text::Timestamp,
                Some("date") => Text::Date,
                _ => Text::Other,
            }),
            "array" => {
                let list = shape.list();
                if let Some(items @ Tree::Object(_)) = schema.get("items") {
                    self.look(items, list, depth + 1);
                }
            }
            "object" => {
                let object = shape.object();
                if let Some(Tree::Object(properties)) = schema.get("properties") {
                    properties.iter().for_each(|(name, property)| self.look(property, object.at(name), depth + 1));
                }
            }
            // NULL is no hint, and an unknown type is for those who come later.
            _ => {}
        }
    }

    /// What `#/definitions/name` means.
    fn referred(&self, at: &str) -> Option<&'a Tree> {
        let steps = at.strip_prefix('#')?.split('/').skip(1);
        steps.map(|step| step.replace("~1", "/").replace("~0", "~")).try_fold(self.root, |node, step| node.get(&step))
    }
}

/// Values of any kind.
fn anything(shape: &mut Shape) {
    shape.boolean();
    shape.text(Text::Other);
}
