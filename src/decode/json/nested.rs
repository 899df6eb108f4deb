//! Columns of structs and lists. All that lies within one is read: parts that no field asks for are held to the grammar.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ListArray, StructArray},
    buffer::Buffer,
    datatypes::{FieldRef, Fields},
};

use super::{
    super::nulls::Nulls,
    column::{AnyColumn, Column, new_column},
    fault::Judged,
    path::{Paths, Rest, Slot},
    text::offsets,
    value::Value,
};
use crate::{catalog::TimeFormat, error::Result};

/// A column of objects with named fields; a field that an object lacks is NULL.
#[derive(Debug)]
pub(super) struct StructColumn {
    fields: Fields,
    paths: Paths,
    /// For each field its node in `paths`.
    nodes: Vec<usize>,
    slots: Vec<Slot>,
    columns: Vec<AnyColumn>,
    nulls: Nulls,
}

impl StructColumn {
    /// An empty column; timestamps within are RFC 3339.
    pub(super) fn new(name: &str, fields: &Fields) -> Result<Self> {
        let names: Vec<[String; 1]> = fields.iter().map(|field| [field.name().clone()]).collect();
        let (paths, nodes) = Paths::compile(&names.iter().map(<[String; 1]>::as_slice).collect::<Vec<_>>())?;
        let column = |field: &FieldRef| new_column(&format!("{name}.{}", field.name()), field.data_type(), &TimeFormat::Rfc3339);
        let columns = fields.iter().map(column).collect::<Result<_>>()?;
        Ok(Self { fields: fields.clone(), slots: vec![Slot::EMPTY; paths.len()], paths, nodes, columns, nulls: Nulls::default() })
    }
}

impl Column for StructColumn {
    fn reserve(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.reserve(rows));
    }

    fn put(&mut self, value: Value<'_>) -> Judged {
        if value.kind() != b'{' {
            return value.misfit("STRUCT".into());
        }
        self.slots.fill(Slot::EMPTY);
        // How deep it all nests was checked when the whole value was found.
        self.paths.walk(value.payload, value.first, 0, Rest::Checked, &mut self.slots)?;
        for (column, &node) in self.columns.iter_mut().zip(&self.nodes) {
            column.append(value.payload, self.slots[node])?;
        }
        self.nulls.push(true);
        Ok(())
    }

    fn put_null(&mut self) {
        self.columns.iter_mut().for_each(|column| column.put_null());
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.nulls.len()
    }

    fn truncate(&mut self, len: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(len));
        self.nulls.truncate(len);
    }

    fn finish(&mut self, records: &Buffer) -> Result<ArrayRef> {
        let rows = self.len();
        let columns = self.columns.iter_mut().map(|column| column.finish(records)).collect::<Result<_>>()?;
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), columns, self.nulls.finish(), rows)?))
    }
}

/// A column of arrays.
#[derive(Debug)]
pub(super) struct ListColumn {
    item: FieldRef,
    /// One past each row's last item.
    ends: Vec<usize>,
    items: AnyColumn,
    nulls: Nulls,
}

impl ListColumn {
    /// An empty column; timestamps within are RFC 3339.
    pub(super) fn new(name: &str, item: &FieldRef) -> Result<Self> {
        let items = new_column(&format!("{name}[]"), item.data_type(), &TimeFormat::Rfc3339)?;
        Ok(Self { item: item.clone(), ends: Vec::new(), items, nulls: Nulls::default() })
    }
}

impl Column for ListColumn {
    fn reserve(&mut self, rows: usize) {
        self.ends.reserve(rows);
    }

    fn put(&mut self, value: Value<'_>) -> Judged {
        if value.kind() != b'[' {
            return value.misfit("ARRAY".into());
        }
        let payload = value.payload;
        let mut at = value.first + 1;
        if payload.kind(at) != b']' {
            loop {
                let past = payload.skip(at, 0)?;
                self.items.append(payload, Slot { first: at as u32, past: past as u32 })?;
                at = past + 1;
                match payload.kind(past) {
                    b',' => {}
                    b']' => break,
                    _ => return payload.malformed(past, "a comma or a closing bracket is missing"),
                }
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
