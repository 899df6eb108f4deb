//! Columns that travel through a plan beside the user's: their names are reserved, and a projection passes them on.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::{common::DFSchema, logical_expr::Expr};

/// The weight of a change: `+1` adds the row, `-1` takes it away.
pub const WEIGHT: &str = "__w";
/// Which row of the epoch's input this is: see [`super::epoch::row_locator`].
pub const ROW: &str = "__row";
/// The partition of the record that the row came from.
pub const PARTITION: &str = "__partition";
/// The offset of the record that the row came from.
pub const OFFSET: &str = "__offset";
/// Which update of the epoch a change belongs to; the two halves of an update share it, any other change has `-1`.
pub const PAIR: &str = "__pair";

/// Whether a record of a source with a primary key says that its row is gone; only between the leaf and what keeps the newest rows.
pub const GONE: &str = "__gone";
/// The logged time of the epoch that reads the row.
pub const NOW: &str = "__now";

/// The field of [`WEIGHT`].
pub fn weight_field() -> FieldRef {
    Arc::new(Field::new(WEIGHT, DataType::Int64, false))
}

/// The field of [`ROW`].
pub fn row_field() -> FieldRef {
    Arc::new(Field::new(ROW, DataType::UInt64, false))
}

/// The fields of [`PARTITION`] and [`OFFSET`].
pub fn position_fields() -> [FieldRef; 2] {
    [Arc::new(Field::new(PARTITION, DataType::Int32, false)), Arc::new(Field::new(OFFSET, DataType::Int64, false))]
}

/// The field of [`PAIR`].
pub fn pair_field() -> FieldRef {
    Arc::new(Field::new(PAIR, DataType::Int64, false))
}

/// The field of [`NOW`].
pub fn now_field() -> FieldRef {
    Arc::new(Field::new(NOW, tidegate_udfs::proctime::TYPE, false))
}

/// The field of [`GONE`].
pub fn gone_field() -> FieldRef {
    Arc::new(Field::new(GONE, DataType::Boolean, false))
}

/// Whether a column is one of these.
pub fn is_hidden(name: &str) -> bool {
    matches!(name, WEIGHT | ROW | PAIR | PARTITION | OFFSET | NOW | GONE)
}

/// The hidden columns of a schema, as expressions.
pub fn hidden_columns(schema: &DFSchema) -> Vec<Expr> {
    schema.columns().into_iter().filter(|c| is_hidden(&c.name)).map(Expr::Column).collect()
}

/// Whether a schema has a column of this name.
pub fn has(schema: &DFSchema, name: &str) -> bool {
    schema.fields().iter().any(|f| f.name() == name)
}
