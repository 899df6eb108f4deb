//! The columns that every topic has without declaring them: `_partition`, `_offset` and `_timestamp`. A table has those that its
//! statement names, so `SELECT *` alone stays as declared.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::sql::{
    parser::Statement as DataFusionStatement,
    sqlparser::ast::{Expr, Ident, Visit, visit_expressions},
};

use crate::catalog::{ColumnDef, Metadata, Origin};

/// Those that a statement names, in a fixed order.
pub fn named_metadata(statement: &DataFusionStatement) -> Vec<ColumnDef> {
    match statement {
        DataFusionStatement::Statement(statement) => named_in(statement.as_ref()),
        DataFusionStatement::Explain(explain) => named_metadata(&explain.statement),
        _ => vec![],
    }
}

fn named_in(tree: &impl Visit) -> Vec<ColumnDef> {
    let mut named = all();
    let mut found = vec![];
    let ControlFlow::<()>::Continue(()) = visit_expressions(tree, |expr| {
        let mut take = |ident: &Ident| {
            let is = |name: &str| if ident.quote_style.is_some() { ident.value == name } else { ident.value.eq_ignore_ascii_case(name) };
            found.extend(named.iter().filter(|column| is(&column.name)).map(|column| column.name.clone()));
        };
        match expr {
            Expr::Identifier(ident) => take(ident),
            Expr::CompoundIdentifier(idents) => idents.iter().for_each(&mut take),
            _ => {}
        }
        ControlFlow::Continue(())
    }) else {
        return named;
    };
    named.retain(|column| found.contains(&column.name));
    named
}

/// The column that tells where a record stands in its partition.
pub fn offset_column() -> Option<ColumnDef> {
    all().into_iter().find(|column| column.origin == Origin::Metadata(Metadata::Offset))
}

fn all() -> Vec<ColumnDef> {
    let column = |name: &str, data_type, metadata| ColumnDef { name: name.into(), data_type, origin: Origin::Metadata(metadata) };
    vec![
        column("_partition", DataType::Int32, Metadata::Partition),
        column("_offset", DataType::Int64, Metadata::Offset),
        // Milliseconds hold whatever Kafka has, so no record turns bad because a statement names the column.
        column("_timestamp", DataType::Timestamp(TimeUnit::Millisecond, None), Metadata::Timestamp),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sql::{Statement, parse_one};

    fn named(text: &str) -> Vec<String> {
        let Statement::DataFusion(statement) = parse_one(text).unwrap() else { panic!("{text}") };
        named_metadata(&statement).into_iter().map(|column| column.name).collect()
    }

    #[test]
    fn only_what_is_named() {
        assert!(named("SELECT * FROM t").is_empty());
        assert_eq!(named("SELECT * FROM t WHERE _offset > 3"), ["_offset"]);
        assert_eq!(named("SELECT _TIMESTAMP, x._partition FROM t AS x ORDER BY _offset"), ["_partition", "_offset", "_timestamp"]);
        assert_eq!(named("EXPLAIN SELECT max(_offset) FROM t"), ["_offset"]);
        assert_eq!(named("WITH a AS (SELECT a FROM t WHERE _partition IN (1, 2)) SELECT * FROM a"), ["_partition"]);
        assert!(named("SELECT '_offset' AS a, \"_OFFSET\" FROM t").is_empty());
    }
}
