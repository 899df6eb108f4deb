//! Batches of whatever types to a table's columns, or a sentence that names column and value.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatchOptions, new_null_array},
    compute::{CastOptions, can_cast_types, cast_with_options},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use datafusion::scalar::ScalarValue;

use crate::{
    catalog::TableDef,
    error::{Error, Result},
};

/// The longest value that a sentence shows whole.
const SHOWN: usize = 60;

/// Where a column's values come from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// The column of the batch at this position.
    Column(usize),
    /// This value, of the column's type.
    Value(ScalarValue),
}

/// Makes rows of a table of batches.
#[derive(Debug, Clone)]
pub struct Conform {
    /// Whose columns they are, for sentences: `table t`.
    owner: String,
    schema: SchemaRef,
    origins: Vec<Origin>,
    /// How many rows came before, to say which one is wrong.
    before: u64,
}

impl Conform {
    /// By position: as many columns as there are in the schema of the owner (`table t`).
    pub fn by_position(owner: &str, schema: &SchemaRef) -> Self {
        Self { owner: owner.into(), schema: schema.clone(), origins: (0..schema.fields().len()).map(Origin::Column).collect(), before: 0 }
    }

    /// By name: columns that are missing get their default, those that the table lacks are an error.
    /// `kind` is what the owner is called.
    pub fn by_name(kind: &str, def: &TableDef, given: &SchemaRef) -> Result<Self> {
        let owner = format!("{kind} {}", def.name);
        let unknown: Vec<&str> =
            given.fields().iter().map(|f| f.name().as_str()).filter(|name| !def.columns.iter().any(|column| column.name == **name)).collect();
        let known = || def.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        if !unknown.is_empty() {
            return Err(Error::Invalid(format!("{owner} has no column {}: it has {}", unknown.join(", "), known())));
        }
        let mut origins = vec![];
        for column in &def.columns {
            let found: Vec<usize> = (0..given.fields().len()).filter(|at| given.field(*at).name() == &column.name).collect();
            origins.push(match found.as_slice() {
                [] => Origin::Value(column.default.clone().unwrap_or(ScalarValue::try_from(&column.data_type)?)),
                [at] => Origin::Column(*at),
                _ => return Err(Error::Invalid(format!("the column {} of {owner} is given twice: leave one out", column.name))),
            });
        }
        Ok(Self { owner, schema: def.schema(), origins, before: 0 })
    }

    /// The rows of a batch as rows of the table.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let count = batch.num_rows();
        let mut columns = Vec::with_capacity(self.origins.len());
        for (origin, field) in self.origins.iter().zip(self.schema.fields()) {
            let column: ArrayRef = match origin {
                Origin::Column(at) => {
                    let given =
                        batch.columns().get(*at).ok_or_else(|| Error::Internal(format!("a batch of {} columns has none at {at}", batch.num_columns())))?;
                    cast(given, field.data_type()).map_err(|wrong| self.wrong(field.name(), wrong))?
                }
                Origin::Value(value) if value.is_null() => new_null_array(field.data_type(), count),
                Origin::Value(value) => value.to_array_of_size(count)?,
            };
            if !field.is_nullable()
                && let Some(row) = first_null(&column)
            {
                return Err(Error::Invalid(format!(
                    "column {} of {} is NOT NULL, and NULL in row {}: give it a value",
                    field.name(),
                    self.owner,
                    self.before + row as u64 + 1
                )));
            }
            columns.push(column);
        }
        self.before += count as u64;
        Ok(RecordBatch::try_new_with_options(self.schema.clone(), columns, &RecordBatchOptions::new().with_row_count(Some(count)))?)
    }

    fn wrong(&self, column: &str, Wrong { row, value, why }: Wrong) -> Error {
        let place = row.map(|row| format!(" in row {}", self.before + row as u64 + 1)).unwrap_or_default();
        let value = value.map(|value| format!(" can't be {value}{place},")).unwrap_or_default();
        Error::Invalid(format!("column {column} of {}{value} {why}", self.owner))
    }
}

struct Wrong {
    row: Option<usize>,
    value: Option<String>,
    why: String,
}

fn cast(given: &ArrayRef, wanted: &arrow::datatypes::DataType) -> Result<ArrayRef, Wrong> {
    if given.data_type() == wanted {
        return Ok(given.clone());
    }
    if !can_cast_types(given.data_type(), wanted) {
        return Err(Wrong { row: None, value: None, why: format!("is {wanted}, and {} can't be made that", given.data_type()) });
    }
    let strictly = CastOptions { safe: false, ..Default::default() };
    let error = match cast_with_options(given, wanted, &strictly) {
        Ok(cast) => return Ok(cast),
        Err(error) => error,
    };
    // Which value it was: the first that turns NULL where NULL is allowed.
    let loosely = CastOptions { safe: true, ..Default::default() };
    let row = cast_with_options(given, wanted, &loosely).ok().and_then(|cast| {
        let (before, after) = (given.logical_nulls(), cast.logical_nulls()?);
        (0..cast.len()).find(|row| after.is_null(*row) && before.as_ref().is_none_or(|before| before.is_valid(*row)))
    });
    let value = row.and_then(|row| {
        let shown = ArrayFormatter::try_new(given, &FormatOptions::default()).ok()?.value(row).to_string();
        Some(match shown.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("'{}…'", &shown[..end]),
            None => format!("'{shown}'"),
        })
    });
    let why = match &value {
        Some(_) => format!("it is {wanted}"),
        None => format!("is {wanted}: {error}"),
    };
    Err(Wrong { row, value, why })
}

fn first_null(column: &Arc<dyn Array>) -> Option<usize> {
    let nulls = column.logical_nulls()?;
    (0..column.len()).find(|row| nulls.is_null(*row))
}
