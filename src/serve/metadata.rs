//! What a client's catalog tree asks for: catalogs, schemas, tables, their columns and (no) keys.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use arrow_flight::{
    error::Result,
    sql::{CommandGetCatalogs, CommandGetDbSchemas, CommandGetTableTypes, CommandGetTables},
};

use tonic::{Request, Status};

use super::{
    session_options::{CATALOG, SCHEMA},
    status::invalid,
    wire::wire_schema,
};
use crate::session::TableInfo;

/// What sources and tables are called, as the SQL standard does; Grafana asks for just this.
const BASE_TABLE: &str = "BASE TABLE";
/// What JDBC's tools call them.
const TABLE: &str = "TABLE";
/// A client sends this header to say which of the two it wants.
const BASE_TABLE_HEADER: &str = "x-tidegate-base-table-type";

/// What a client wants sources and tables to be called.
pub(crate) fn base_table<T>(request: &Request<T>) -> std::result::Result<&'static str, Status> {
    match request.metadata().get(BASE_TABLE_HEADER).map(|value| value.as_bytes()) {
        None => Ok(BASE_TABLE),
        Some(wanted) if wanted.eq_ignore_ascii_case(BASE_TABLE.as_bytes()) => Ok(BASE_TABLE),
        Some(wanted) if wanted.eq_ignore_ascii_case(TABLE.as_bytes()) => Ok(TABLE),
        Some(_) => Err(invalid(format!("the header {BASE_TABLE_HEADER} is '{BASE_TABLE}' or '{TABLE}'"))),
    }
}

/// The answer to `CommandGetCatalogs`.
pub(crate) fn catalogs(command: CommandGetCatalogs, tables: &[TableInfo]) -> Result<RecordBatch> {
    let names: BTreeSet<&str> = tables.iter().map(|table| table.catalog.as_str()).chain([CATALOG]).collect();
    let mut builder = command.into_builder();
    names.into_iter().for_each(|name| builder.append(name));
    builder.build()
}

/// The answer to `CommandGetDbSchemas`.
pub(crate) fn schemas(command: CommandGetDbSchemas, tables: &[TableInfo]) -> Result<RecordBatch> {
    let names: BTreeSet<(&str, &str)> = tables.iter().map(|table| (table.catalog.as_str(), table.schema.as_str())).chain([(CATALOG, SCHEMA)]).collect();
    let mut builder = command.into_builder();
    names.into_iter().for_each(|(catalog, schema)| builder.append(catalog, schema));
    builder.build()
}

/// The answer to `CommandGetTables`.
pub(crate) fn tables(command: CommandGetTables, tables: &[TableInfo], base_table: &str) -> Result<RecordBatch> {
    let mut builder = command.into_builder();
    for table in tables {
        let kind = if table.kind == BASE_TABLE { base_table } else { table.kind };
        builder.append(&table.catalog, &table.schema, &table.name, kind, &described(table))?;
    }
    builder.build()
}

/// The schema of that answer.
pub(crate) fn tables_schema(command: CommandGetTables) -> SchemaRef {
    command.into_builder().schema()
}

/// The answer to `CommandGetTableTypes`.
pub(crate) fn table_types(command: CommandGetTableTypes, base_table: &str) -> Result<RecordBatch> {
    let mut builder = command.into_builder();
    [base_table, "VIEW", "SYSTEM TABLE"].into_iter().for_each(|name| builder.append(name));
    builder.build()
}

/// The answer to `CommandGetPrimaryKeys`: no table declares any.
pub(crate) fn primary_keys() -> RecordBatch {
    RecordBatch::new_empty(PRIMARY_KEYS.clone())
}

/// The answer to the three commands about foreign keys: there are none.
pub(crate) fn foreign_keys() -> RecordBatch {
    RecordBatch::new_empty(FOREIGN_KEYS.clone())
}

static PRIMARY_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]))
});

static FOREIGN_KEYS: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new("pk_catalog_name", DataType::Utf8, true),
        Field::new("pk_db_schema_name", DataType::Utf8, true),
        Field::new("pk_table_name", DataType::Utf8, false),
        Field::new("pk_column_name", DataType::Utf8, false),
        Field::new("fk_catalog_name", DataType::Utf8, true),
        Field::new("fk_db_schema_name", DataType::Utf8, true),
        Field::new("fk_table_name", DataType::Utf8, false),
        Field::new("fk_column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]))
});

/// A table's columns as they would travel, with what JDBC's `getColumns` reads from their metadata.
fn described(table: &TableInfo) -> Schema {
    let columns = wire_schema(&table.columns);
    let described = columns.fields().iter().map(|field| {
        let mut metadata: HashMap<String, String> = field.metadata().clone();
        let mut tell = |key: &str, value: &str| metadata.insert(format!("ARROW:FLIGHT:SQL:{key}"), value.to_owned());
        tell("CATALOG_NAME", &table.catalog);
        tell("SCHEMA_NAME", &table.schema);
        tell("TABLE_NAME", &table.name);
        tell("TYPE_NAME", &type_name(field.data_type()));
        tell("IS_AUTO_INCREMENT", "0");
        tell("IS_CASE_SENSITIVE", "1");
        tell("IS_READ_ONLY", "1");
        tell("IS_SEARCHABLE", "1");
        if let Some((precision, scale)) = precision_and_scale(field.data_type()) {
            tell("PRECISION", &precision.to_string());
            tell("SCALE", &scale.to_string());
        }
        field.as_ref().clone().with_metadata(metadata)
    });
    Schema::new(described.collect::<Vec<_>>())
}

/// A type as SQL spells it.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INT UNSIGNED".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float16 | DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT".into(),
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) | DataType::BinaryView => "BYTEA".into(),
        DataType::Date32 | DataType::Date64 => "DATE".into(),
        DataType::Time32(_) | DataType::Time64(_) => "TIME".into(),
        DataType::Timestamp(_, None) => "TIMESTAMP".into(),
        DataType::Timestamp(_, Some(_)) => "TIMESTAMP WITH TIME ZONE".into(),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".into(),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => format!("DECIMAL({p}, {s})"),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => format!("{} ARRAY", type_name(item.data_type())),
        DataType::Struct(_) => "STRUCT".into(),
        DataType::Map(..) => "MAP".into(),
        other => other.to_string(),
    }
}

fn precision_and_scale(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => Some((*p, *s)),
        DataType::Int8 | DataType::UInt8 => Some((3, 0)),
        DataType::Int16 | DataType::UInt16 => Some((5, 0)),
        DataType::Int32 | DataType::UInt32 => Some((10, 0)),
        DataType::Int64 => Some((19, 0)),
        DataType::UInt64 => Some((20, 0)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(name: &str, kind: &'static str) -> TableInfo {
        let columns = Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8View, true), Field::new("n", DataType::Decimal128(10, 2), true)]));
        TableInfo { catalog: CATALOG.into(), schema: SCHEMA.into(), name: name.into(), kind, columns }
    }

    #[test]
    fn a_null_filter_lists_everything() {
        let all = [table("t", "BASE TABLE"), table("v", "VIEW")];
        let command =
            || CommandGetTables { catalog: None, db_schema_filter_pattern: None, table_name_filter_pattern: None, table_types: vec![], include_schema: true };
        assert_eq!(tables(command(), &all, BASE_TABLE).unwrap().num_rows(), 2);
        let views = CommandGetTables { table_types: vec!["VIEW".into()], ..command() };
        assert_eq!(tables(views, &all, BASE_TABLE).unwrap().num_rows(), 1);
        // pandas looks for a table whose name is the statement.
        let text = CommandGetTables { table_name_filter_pattern: Some("SELECT 'a\\' || b FROM t WHERE x LIKE '%(['".into()), ..command() };
        assert_eq!(tables(text, &all, BASE_TABLE).unwrap().num_rows(), 0);
    }

    #[test]
    fn columns_are_described_as_they_travel() {
        let schema = described(&table("t", "BASE TABLE"));
        assert_eq!(schema.field(0).data_type(), &DataType::Utf8);
        assert_eq!(schema.field(0).metadata()["ARROW:FLIGHT:SQL:TYPE_NAME"], "TEXT");
        assert_eq!(schema.field(1).metadata()["ARROW:FLIGHT:SQL:SCALE"], "2");
    }

    #[test]
    fn a_server_without_tables_still_has_its_catalog() {
        assert_eq!(catalogs(CommandGetCatalogs {}, &[]).unwrap().num_rows(), 1);
        assert_eq!(schemas(CommandGetDbSchemas { catalog: None, db_schema_filter_pattern: None }, &[]).unwrap().num_rows(), 1);
    }
}
