//! Columns of arrays and structs.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, ListArray, StructArray},
    datatypes::{FieldRef, Fields},
};

use super::{super::nulls::Nulls, Natural, ValueColumn, new_column, text::offsets};
use crate::{catalog::TimeFormat, error::Result};

/// A column of arrays.
#[derive(Debug)]
pub(in crate::decode) struct Items {
    field: FieldRef,
    item: Box<dyn ValueColumn>,
    /// For each row how many items there are up to its end.
    ends: Vec<usize>,
    nulls: Nulls,
}

impl Items {
    /// An empty column; timestamps in it are written as the column says.
    pub(super) fn new(format: &str, name: &str, field: &FieldRef, time: &TimeFormat) -> Result<Self> {
        let item = new_column(format, name, field.data_type(), time)?;
        Ok(Self { field: field.clone(), item, ends: Vec::new(), nulls: Nulls::default() })
    }

    /// What takes the items of the row at hand.
    pub(in crate::decode) fn item(&mut self) -> &mut dyn ValueColumn {
        self.item.as_mut()
    }

    /// Makes a row of the items since the last one.
    pub(in crate::decode) fn close(&mut self) {
        self.ends.push(self.item.len());
        self.nulls.push(true);
    }
}

impl ValueColumn for Items {
    fn put(&mut self, value: &Natural<'_>) -> Result<(), String> {
        Err(value.misfit(&self.expected()))
    }

    fn put_null(&mut self) {
        self.ends.push(self.item.len());
        self.nulls.push(false);
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.item.truncate(self.ends.last().copied().unwrap_or(0));
        self.nulls.truncate(len);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let offsets = offsets(&std::mem::take(&mut self.ends))?;
        let items = self.item.finish()?;
        Ok(Arc::new(ListArray::try_new(self.field.clone(), offsets, items, self.nulls.finish())?))
    }

    fn items(&mut self) -> Option<&mut Items> {
        Some(self)
    }

    fn expected(&self) -> String {
        "ARRAY".into()
    }
}

/// A column of structs.
#[derive(Debug)]
pub(in crate::decode) struct Parts {
    fields: Fields,
    columns: Vec<Box<dyn ValueColumn>>,
    nulls: Nulls,
}

impl Parts {
    /// An empty column; text that stands for timestamps within is RFC 3339.
    pub(super) fn new(format: &str, name: &str, fields: &Fields) -> Result<Self> {
        let column = |field: &FieldRef| new_column(format, &format!("{name}.{}", field.name()), field.data_type(), &TimeFormat::Rfc3339);
        let columns = fields.iter().map(column).collect::<Result<_>>()?;
        Ok(Self { fields: fields.clone(), columns, nulls: Nulls::default() })
    }

    /// What takes the value of a field in the row at hand.
    pub(in crate::decode) fn part(&mut self, field: usize) -> &mut dyn ValueColumn {
        self.columns[field].as_mut()
    }

    /// Makes a row of what the fields were given; a field that was given nothing is NULL.
    pub(in crate::decode) fn close(&mut self) {
        let row = self.nulls.len();
        self.columns.iter_mut().filter(|column| column.len() == row).for_each(|column| column.put_null());
        self.nulls.push(true);
    }
}

impl ValueColumn for Parts {
    fn put(&mut self, value: &Natural<'_>) -> Result<(), String> {
        Err(value.misfit(&self.expected()))
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

    fn finish(&mut self) -> Result<ArrayRef> {
        let rows = self.nulls.len();
        let columns = self.columns.iter_mut().map(|column| column.finish()).collect::<Result<_>>()?;
        Ok(Arc::new(StructArray::try_new_with_length(self.fields.clone(), columns, self.nulls.finish(), rows)?))
    }

    fn parts(&mut self) -> Option<&mut Parts> {
        Some(self)
    }

    fn expected(&self) -> String {
        "STRUCT".into()
    }
}
