//! What a table's declaration becomes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef};
use datafusion::scalar::ScalarValue;

/// A declared table: rows that the server itself keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct TableDef {
    /// The table's name, as in SQL (unquoted names are folded to lower case).
    pub name: String,
    /// Its columns in order; at least one.
    pub columns: Vec<TableColumn>,
    /// The statement that declares it, for `SHOW CREATE` and for the durable catalog. One made by `AS SELECT` or by an upload is written out.
    pub text: String,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its Arrow type, one that a file keeps: see [`crate::catalog::kept_type`].
    pub data_type: DataType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// What it is where a statement gives no value, of the column's type; `None`: NULL.
    pub default: Option<ScalarValue>,
}

impl TableDef {
    /// The table's columns as an Arrow schema.
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|c| Field::new(&c.name, c.data_type.clone(), c.nullable)).collect::<Vec<_>>()))
    }
}

/// The type in which a table keeps values of a type; an error says what to write instead.
///
/// Text is `Utf8View` and bytes are `Binary`, however long their offsets were; parts of nested types may be NULL. Dictionaries of text or bytes stay
/// dictionaries, others and run ends are written out; lists of all kinds are `List`, but those of one size. Everything else stays what it is.
pub fn kept_type(data_type: &DataType) -> Result<DataType, String> {
    use DataType::*;
    Ok(match data_type {
        Null | Utf8 | LargeUtf8 | Utf8View => Utf8View,
        Binary | LargeBinary | BinaryView => Binary,
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) => DataType::new_list(kept_type(item.data_type())?, true),
        FixedSizeList(item, size) => FixedSizeList(Arc::new(Field::new_list_field(kept_type(item.data_type())?, true)), *size),
        Struct(fields) if fields.is_empty() => return Err("a STRUCT without fields can't be stored: leave the column out".into()),
        Struct(fields) => {
            let kept = fields.iter().map(|field| Ok(Field::new(field.name(), kept_type(field.data_type())?, true))).collect::<Result<Vec<_>, String>>()?;
            Struct(kept.into())
        }
        Map(entries, sorted) => match entries.data_type() {
            Struct(parts) if parts.len() == 2 => {
                let key = Field::new("key", kept_type(parts[0].data_type())?, false);
                let value = Field::new("value", kept_type(parts[1].data_type())?, true);
                Map(Arc::new(Field::new("entries", Struct(vec![key, value].into()), false)), *sorted)
            }
            other => return Err(format!("a map of {other} can't be stored: cast it to text")),
        },
        Dictionary(key, value) => match value.as_ref() {
            Utf8 | LargeUtf8 | Utf8View => Dictionary(key.clone(), Box::new(Utf8)),
            Binary | LargeBinary | BinaryView => Dictionary(key.clone(), Box::new(Binary)),
            other => kept_type(other)?,
        },
        RunEndEncoded(_, values) => kept_type(values.data_type())?,
        Interval(IntervalUnit::MonthDayNano) => {
            return Err("an interval of months, days and nanoseconds has no form in the table's files: cast it to text, or keep a duration or a number".into());
        }
        Union(..) => return Err("a union can't be stored: cast it to one type, as in arrow_cast or CAST".into()),
        Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float16 | Float32 | Float64 | Date32 | Date64 | Time32(_) | Time64(_)
        | Timestamp(..) | Duration(_) | Interval(_) | FixedSizeBinary(_) | Decimal32(..) | Decimal64(..) | Decimal128(..) | Decimal256(..) => data_type.clone(),
    })
}
