//! Columns of messages, repeated fields and maps.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, ListArray, StructArray},
    buffer::Buffer,
    datatypes::{DataType, FieldRef, Fields},
};
use prost_reflect::{FieldDescriptor, MessageDescriptor};

use super::{
    super::{json::text::offsets, nulls::Nulls},
    column::{Column, Field, Payload, one},
    fault::{Judged, misfit},
    scalar::Scalar,
    tree::{Leaf, Slots, Tree},
    wire::{Raw, Wire, WireType},
};
use crate::{
    catalog::TimeFormat,
    error::{Error, Result},
};

/// A column of messages with the fields that are declared.
#[derive(Debug)]
pub(super) struct Struct {
    fields: Fields,
    tree: Tree,
    leaves: Vec<Leaf>,
    slots: Slots,
    columns: Vec<Field>,
    nulls: Nulls,
}

impl Struct {
    /// An empty column; text that is a timestamp is RFC 3339.
    pub(super) fn new(name: &str, message: &MessageDescriptor, fields: &Fields) -> Result<Self> {
        let names: Vec<[String; 1]> = fields.iter().map(|field| [field.name().clone()]).collect();
        let (tree, leaves) = Tree::compile(message, &names.iter().map(<[String; 1]>::as_slice).collect::<Vec<_>>())
            .map_err(|error| Error::Invalid(format!("column {name}: {error}")))?;
        let column =
            |(field, leaf): (&FieldRef, &Leaf)| Field::new(&format!("{name}.{}", field.name()), &leaf.field, field.data_type(), &TimeFormat::default());
        let columns = fields.iter().zip(&leaves).map(column).collect::<Result<_>>()?;
        Ok(Self { fields: fields.clone(), slots: Slots::of(&tree), tree, leaves, columns, nulls: Nulls::default() })
    }
}

impl Column for Struct {
    fn put(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        self.slots.clear();
        for raw in raws {
            let Some((start, end)) = raw.extent() else { return misfit("a number", "STRUCT".into()) };
            self.tree.walk(payload.bytes, start, end, &mut self.slots)?;
        }
        for (column, leaf) in self.columns.iter_mut().zip(&self.leaves) {
            column.append(payload, self.slots.get(leaf.node))?;
        }
        self.nulls.push(true);
        Ok(())
    }

    fn put_null(&mut self) {
        self.columns.iter_mut().for_each(|column| column.column().put_null());
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.nulls.len()
    }

    fn truncate(&mut self, len: usize) {
        self.columns.iter_mut().for_each(|column| column.column().truncate(len));
        self.nulls.truncate(len);
    }

    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef> {
        self.slots.shrink();
        let rows = self.len();
        let columns = self.columns.iter_mut().map(|column| column.column().finish(records)).collect::<Result<_>>()?;
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), columns, self.nulls.finish(), rows)?))
    }
}

/// A column of repeated fields. One that a message lacks is an empty array, since the format tells no difference.
#[derive(Debug)]
pub(super) struct List {
    item: FieldRef,
    /// How items are written when they are packed; `None`: they never are.
    packed: Option<WireType>,
    /// One past each row's last item.
    ends: Vec<usize>,
    items: Box<dyn Column>,
    nulls: Nulls,
}

impl List {
    /// An empty column.
    pub(super) fn new(name: &str, field: &FieldDescriptor, item: &FieldRef) -> Result<Self> {
        let packed = Scalar::of(&field.kind()).map(|scalar| scalar.wire_type()).filter(|wire_type| *wire_type != WireType::Bytes);
        let items = one(&format!("{name}[]"), field, item.data_type(), &TimeFormat::default())?;
        Ok(Self { item: item.clone(), packed, ends: vec![], items, nulls: Nulls::default() })
    }
}

impl Column for List {
    fn put(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        for raw in raws {
            match (self.packed, raw) {
                (Some(wire_type), Raw::Bytes(start, end)) => {
                    let mut wire = Wire::new(payload.bytes, *start as usize, *end as usize);
                    while let Some(raw) = wire.packed(wire_type)? {
                        self.items.put(payload, &[raw])?;
                    }
                }
                _ => self.items.put(payload, std::slice::from_ref(raw))?,
            }
        }
        self.ends.push(self.items.len());
        self.nulls.push(true);
        Ok(())
    }

    fn put_null(&mut self) {
        self.ends.push(self.items.len());
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.items.truncate(self.ends.last().copied().unwrap_or(0));
        self.nulls.truncate(len);
    }

    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef> {
        let offsets = offsets(&std::mem::take(&mut self.ends))?;
        let items = self.items.finish(records)?;
        Ok(Arc::new(ListArray::try_new(self.item.clone(), offsets, items, self.nulls.finish())?))
    }
}

/// A column of maps, as an array of structs of key and value. Of equal keys the last one counts.
#[derive(Debug)]
pub(super) struct Map {
    item: FieldRef,
    entry: Fields,
    /// What keys are.
    key: Scalar,
    tree: Tree,
    slots: Slots,
    /// One past each row's last entry.
    ends: Vec<usize>,
    keys: Field,
    values: Field,
    nulls: Nulls,
}

/// The nodes of an entry's two fields in its tree.
const KEY: usize = 0;
const VALUE: usize = 1;

/// What tells the keys of one map apart.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    Number(i128),
    Text(&'a [u8]),
    /// Left out: zero, or the empty text.
    Absent,
}

impl Map {
    /// An empty column of an array of structs of two fields.
    pub(super) fn new(name: &str, field: &FieldDescriptor, data_type: &DataType) -> Result<Self> {
        let refuse = || {
            Error::Unsupported(format!(
                "column {name} has type {data_type}, but its field is a map: declare it as ARRAY<STRUCT<key …, value …>>, or as TEXT for its JSON"
            ))
        };
        let DataType::List(item) = data_type else { return Err(refuse()) };
        let DataType::Struct(entry) = item.data_type() else { return Err(refuse()) };
        let [key, value] = entry.as_ref() else { return Err(refuse()) };
        let prost_reflect::Kind::Message(message) = field.kind() else { return Err(refuse()) };
        let names = [[message.map_entry_key_field().name().to_string()], [message.map_entry_value_field().name().to_string()]];
        let (tree, _) = Tree::compile(&message, &[&names[KEY], &names[VALUE]])?;
        let keys = Field::new(&format!("{name}.key"), &message.map_entry_key_field(), key.data_type(), &TimeFormat::default())?;
        let values = Field::new(&format!("{name}.value"), &message.map_entry_value_field(), value.data_type(), &TimeFormat::default())?;
        let key = Scalar::of(&message.map_entry_key_field().kind()).ok_or_else(refuse)?;
        Ok(Self { item: item.clone(), entry: entry.clone(), key, slots: Slots::of(&tree), tree, ends: vec![], keys, values, nulls: Nulls::default() })
    }

    fn walk(&mut self, payload: &Payload<'_>, raw: Raw) -> Judged {
        let Some((start, end)) = raw.extent() else { return misfit("a number", "an entry of a map".into()) };
        self.slots.clear();
        self.tree.walk(payload.bytes, start, end, &mut self.slots)
    }
}

impl Column for Map {
    fn put(&mut self, payload: &Payload<'_>, raws: &[Raw]) -> Judged {
        let mut last: HashMap<Key<'_>, usize> = HashMap::with_capacity(raws.len());
        for (at, raw) in raws.iter().enumerate() {
            self.walk(payload, *raw)?;
            let key = match self.slots.get(KEY).last() {
                None => Key::Absent,
                Some(Raw::Bytes(start, end) | Raw::Group(start, end)) if start == end => Key::Absent,
                Some(Raw::Bytes(start, end) | Raw::Group(start, end)) => Key::Text(&payload.bytes[*start as usize..*end as usize]),
                // A number may be written in more bytes than it needs.
                Some(raw) => match self.key.integer(*raw) {
                    None | Some(0) => Key::Absent,
                    Some(number) => Key::Number(number),
                },
            };
            last.insert(key, at);
        }
        let mut last: Vec<usize> = last.into_values().collect();
        last.sort_unstable();
        for at in last {
            self.walk(payload, raws[at])?;
            self.keys.append(payload, self.slots.get(KEY))?;
            match self.slots.get(VALUE) {
                // A message that an entry lacks is one without fields.
                [] if self.values.is_message() => self.values.column().put(payload, &[Raw::Bytes(0, 0)])?,
                raws => self.values.append(payload, raws)?,
            }
        }
        self.ends.push(self.keys.len());
        self.nulls.push(true);
        Ok(())
    }

    fn put_null(&mut self) {
        self.ends.push(self.keys.len());
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        let entries = self.ends.last().copied().unwrap_or(0);
        self.keys.column().truncate(entries);
        self.values.column().truncate(entries);
        self.nulls.truncate(len);
    }

    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef> {
        self.slots.shrink();
        let offsets = offsets(&std::mem::take(&mut self.ends))?;
        let (keys, values) = (self.keys.column().finish(records)?, self.values.column().finish(records)?);
        let rows = keys.len();
        let entries = StructArray::try_new_with_length(self.entry.clone(), vec![keys, values], None, rows)?;
        Ok(Arc::new(ListArray::try_new(self.item.clone(), offsets, Arc::new(entries), self.nulls.finish())?))
    }
}
