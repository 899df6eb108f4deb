//! `CREATE [OR REPLACE] TABLE [IF NOT EXISTS] name (column TYPE [NOT NULL] [DEFAULT literal], …)`, `… name AS query`, or both.

use datafusion::{
    scalar::ScalarValue,
    sql::sqlparser::{
        ast::{Expr, TypedString, UnaryOperator, Value},
        tokenizer::Token,
    },
};

use super::{Statement, Taken, clauses, cursor::Cursor, dispatch, names, syntax, types};
use crate::{
    catalog::{TableColumn, TableDef},
    error::{Error, Result},
};

/// Parses what follows `TABLE`.
pub(super) fn parse(mut cursor: Cursor, text: String, or_replace: bool) -> Result<Statement> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.name("the name of the table")?;
    check_table_name(&name)?;
    let owner = format!("table {name}");
    let taken = match (or_replace, if_not_exists) {
        (true, true) => return Err(Error::Invalid(format!("{owner}: OR REPLACE and IF NOT EXISTS exclude each other: leave one out"))),
        (true, false) => Taken::Replaced,
        (false, true) => Taken::Left,
        (false, false) => Taken::Refused,
    };
    if cursor.take(&["AS"]) {
        return of_query(cursor, name, taken, None);
    }
    if cursor.peek().token != Token::LParen {
        return Err(syntax::expected("( and the table's columns, or AS and a query", cursor.peek()));
    }
    let columns = columns(&owner, &mut cursor)?;
    if cursor.at(&["WITH"]) || cursor.at(&["STORED"]) || cursor.at(&["PARTITION"]) {
        return Err(Error::Unsupported(format!(
            "{owner}: a table takes no options{}: leave them out, or write CREATE SOURCE for a topic",
            syntax::place(cursor.peek())
        )));
    }
    if cursor.take(&["AS"]) {
        let text = declaration(&name, &columns)?;
        return of_query(cursor, name.clone(), taken, Some(TableDef { name, columns, text }));
    }
    cursor.end()?;
    // What is kept is the table as it is now, however often it was replaced.
    let text = match or_replace || if_not_exists {
        true => declaration(&name, &columns)?,
        false => text,
    };
    Ok(Statement::CreateTable { def: TableDef { name, columns, text }, taken })
}

/// The query that a table is made of, behind `AS`.
fn of_query(cursor: Cursor, name: String, taken: Taken, declared: Option<TableDef>) -> Result<Statement> {
    let mut tokens = cursor.rest();
    if clauses::take(&mut tokens)? != clauses::Clauses::default() {
        return Err(Error::Invalid(format!(
            "table {name}: a table is made of the rows that its query has now, and EMIT goes on: leave it out, or write CREATE CONTINUOUS VIEW {name}"
        )));
    }
    match dispatch::datafusion(tokens)? {
        Statement::DataFusion(query) => Ok(Statement::CreateTableAs { name, taken, declared, query }),
        other => Err(Error::Internal(format!("a query parsed as something else: {other:?}"))),
    }
}

/// Checks a name that a table is to have.
pub fn check_table_name(name: &str) -> Result<()> {
    names::check_new("a table", name)
}

/// The statement that declares a table of these columns, which is checked: it reads back as them.
pub fn declaration(name: &str, columns: &[TableColumn]) -> Result<String> {
    let owner = format!("table {name}");
    let mut parts: Vec<String> = vec![];
    for (at, column) in columns.iter().enumerate() {
        check_column_name(&owner, &column.name)?;
        if columns[..at].iter().any(|other| other.name == column.name) {
            return Err(Error::Invalid(format!("{owner} would have two columns called {}: rename one, as in SELECT a AS b", column.name)));
        }
        let data_type = types::written(&column.data_type).map_err(|error| Error::Unsupported(format!("{owner}, column {}: {error}", column.name)))?;
        let mut part = format!("{} {data_type}", names::quote_identifier(&column.name));
        if !column.nullable {
            part += " NOT NULL";
        }
        if let Some(default) = &column.default {
            let text = default.cast_to(&arrow::datatypes::DataType::Utf8)?;
            match text {
                ScalarValue::Utf8(Some(text)) => part += &format!(" DEFAULT {}", names::quote_literal(&text)),
                _ => part += " DEFAULT NULL",
            }
        }
        parts.push(part);
    }
    if parts.is_empty() {
        return Err(Error::Invalid(format!("{owner} would have no column: add one like id BIGINT")));
    }
    Ok(format!("CREATE TABLE {} ({})", names::quote_identifier(name), parts.join(", ")))
}

fn check_column_name(owner: &str, name: &str) -> Result<()> {
    let refuse = |why: &str| Err(Error::Invalid(format!("{owner}: a column can't be called {name:?}: {why}")));
    match name {
        "" => refuse("a name has at least one letter; name it, as in SELECT a AS b"),
        name if name.starts_with(super::lexer::RESERVED) => refuse("names that begin with two underscores are reserved"),
        name if name.contains('\0') => refuse("a name has no zero byte"),
        _ => Ok(()),
    }
}

fn columns(owner: &str, cursor: &mut Cursor) -> Result<Vec<TableColumn>> {
    let mut columns: Vec<TableColumn> = vec![];
    cursor.expect_token(&Token::LParen)?;
    loop {
        for words in [["PRIMARY", "KEY"].as_slice(), &["CONSTRAINT"], &["FOREIGN", "KEY"], &["CHECK"]] {
            if cursor.at(words) {
                return Err(no_constraint(owner, words, cursor));
            }
        }
        let column = column(owner, cursor)?;
        if columns.iter().any(|c| c.name == column.name) {
            return Err(Error::Invalid(format!("{owner} declares the column {} twice: rename or leave out one", column.name)));
        }
        columns.push(column);
        if cursor.take_token(&Token::RParen) {
            return Ok(columns);
        }
        if !cursor.take_token(&Token::Comma) {
            return Err(syntax::expected("NOT NULL, DEFAULT, a comma or ) after a column", cursor.peek()));
        }
    }
}

fn column(owner: &str, cursor: &mut Cursor) -> Result<TableColumn> {
    let name = names::fold(&cursor.identifier("the name of a column")?);
    check_column_name(owner, &name)?;
    let what = format!("{owner}, column {name}");
    let data_type = types::parse_kept(cursor)?;
    let (mut nullable, mut default): (Option<bool>, Option<ScalarValue>) = (None, None);
    loop {
        let repeated = if cursor.take(&["NOT", "NULL"]) {
            nullable.replace(false).is_some()
        } else if cursor.take(&["NULL"]) {
            nullable.replace(true).is_some()
        } else if cursor.take(&["DEFAULT"]) {
            let expr = cursor.parser.parse_prefix();
            let value = literal(&what, expr.map_err(syntax::from_parser)?)?;
            let fitting = value.cast_to(&data_type).map_err(|error| Error::Invalid(format!("{what}: the default is no {data_type}: {}", short(&error))))?;
            default.replace(fitting).is_some()
        } else {
            break;
        };
        if repeated {
            return Err(Error::Invalid(format!("{what} says twice whether it may be NULL, or what its default is: leave one out")));
        }
    }
    for words in [["PRIMARY", "KEY"].as_slice(), &["UNIQUE"], &["CHECK"], &["REFERENCES"], &["GENERATED"]] {
        if cursor.at(words) {
            return Err(no_constraint(&what, words, cursor));
        }
    }
    let nullable = nullable.unwrap_or(true);
    // DEFAULT NULL is what a column has without saying so.
    let default = default.filter(|value| !value.is_null());
    Ok(TableColumn { name, data_type, nullable, default })
}

fn no_constraint(what: &str, words: &[&str], cursor: &Cursor) -> Error {
    Error::Unsupported(format!(
        "{what}: a table checks NOT NULL and types, and has no {}{}: leave that out, or write CREATE SOURCE … PRIMARY KEY for a topic that is a table",
        words.join(" "),
        syntax::place(cursor.peek())
    ))
}

/// A constant as a value: text or a truth value, which the column's type is made of.
fn literal(what: &str, expr: Expr) -> Result<ScalarValue> {
    let refused = |expr: &Expr| Err(Error::Unsupported(format!("{what}: a default is a constant, like 0, 'none', TRUE or DATE '2024-01-01', not {expr}")));
    match &expr {
        Expr::Value(value) => match &value.value {
            Value::Number(number, _) => Ok(ScalarValue::from(number.as_str())),
            Value::SingleQuotedString(text)
            | Value::EscapedStringLiteral(text)
            | Value::DollarQuotedString(datafusion::sql::sqlparser::ast::DollarQuotedString { value: text, .. }) => Ok(ScalarValue::from(text.as_str())),
            Value::Boolean(truth) => Ok(ScalarValue::Boolean(Some(*truth))),
            Value::Null => Ok(ScalarValue::Null),
            _ => refused(&expr),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr: inner } => match inner.as_ref() {
            Expr::Value(value) => match &value.value {
                Value::Number(number, _) => Ok(ScalarValue::from(format!("-{number}").as_str())),
                _ => refused(&expr),
            },
            _ => refused(&expr),
        },
        Expr::TypedString(TypedString { value, .. }) => match &value.value {
            Value::SingleQuotedString(text) => Ok(ScalarValue::from(text.as_str())),
            _ => refused(&expr),
        },
        Expr::Nested(inner) => literal(what, (**inner).clone()),
        _ => refused(&expr),
    }
}

/// What DataFusion says, without its chain of contexts.
fn short(error: &datafusion::error::DataFusionError) -> String {
    error.strip_backtrace().lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field, IntervalUnit, TimeUnit};

    use super::*;
    use crate::{catalog::kept_type, sql::parse_one};

    fn table(text: &str) -> TableDef {
        match parse_one(text).unwrap() {
            Statement::CreateTable { def, .. } => def,
            other => panic!("{other:?}"),
        }
    }

    fn column(data_type: DataType) -> TableColumn {
        TableColumn { name: "a".into(), data_type, nullable: true, default: None }
    }

    #[test]
    fn every_kept_type_is_written_down_and_read_back() {
        use DataType::*;
        let map = Map(Arc::new(Field::new("entries", Struct(vec![Field::new("k", Utf8, false), Field::new("v", Int64, true)].into()), false)), false);
        let plain = vec![
            Boolean,
            Int8,
            Int16,
            Int32,
            Int64,
            UInt8,
            UInt16,
            UInt32,
            UInt64,
            Float16,
            Float32,
            Float64,
            Utf8,
            LargeUtf8,
            Utf8View,
            Binary,
            LargeBinary,
            BinaryView,
            FixedSizeBinary(3),
            Date32,
            Date64,
            Null,
            Time32(TimeUnit::Second),
            Time64(TimeUnit::Nanosecond),
            Duration(TimeUnit::Millisecond),
            Interval(IntervalUnit::DayTime),
            Interval(IntervalUnit::YearMonth),
            Timestamp(TimeUnit::Second, None),
            Timestamp(TimeUnit::Nanosecond, None),
            Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            Timestamp(TimeUnit::Millisecond, Some("Europe/Madrid".into())),
            Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            Decimal32(5, 2),
            Decimal64(18, 0),
            Decimal128(38, 10),
            Decimal128(10, -2),
            Decimal256(76, 5),
            Dictionary(Box::new(Int8), Box::new(Utf8)),
            Dictionary(Box::new(Int32), Box::new(LargeBinary)),
            Dictionary(Box::new(Int32), Box::new(Int64)),
            map,
            RunEndEncoded(Arc::new(Field::new("run_ends", Int32, false)), Arc::new(Field::new("values", Utf8, true))),
        ];
        let nested = plain.iter().flat_map(|inner| {
            [
                DataType::new_list(inner.clone(), false),
                DataType::new_large_list(inner.clone(), true),
                FixedSizeList(Arc::new(Field::new("x", inner.clone(), true)), 2),
                Struct(vec![Field::new("Odd \"name\"", inner.clone(), false), Field::new("b", DataType::new_list(inner.clone(), true), true)].into()),
            ]
        });
        for data_type in plain.iter().cloned().chain(nested) {
            let kept = kept_type(&data_type).unwrap();
            assert_eq!(kept_type(&kept).as_ref(), Ok(&kept), "{data_type}");
            let text = declaration("t", &[column(kept.clone())]).unwrap_or_else(|error| panic!("{data_type}: {error}"));
            assert_eq!(table(&text).columns[0].data_type, kept, "{text}");
        }
        assert!(kept_type(&DataType::new_list(Interval(IntervalUnit::MonthDayNano), true)).is_err());
        assert!(kept_type(&Union(arrow::datatypes::UnionFields::empty(), arrow::datatypes::UnionMode::Sparse)).is_err());
    }

    #[test]
    fn declarations_read_back() {
        let text = r#"CREATE TABLE IF NOT EXISTS "T x" (a INT NOT NULL DEFAULT -5, "B" TEXT DEFAULT 'it''s', c DECIMAL(5, 2) NULL DEFAULT 1.25, d DATE DEFAULT DATE '2024-02-29',
            e BOOLEAN DEFAULT TRUE NOT NULL, f TIMESTAMP DEFAULT TIMESTAMP '2024-01-01 00:00:00', g DOUBLE DEFAULT (1e3), h INT DEFAULT NULL)"#;
        let def = table(text);
        assert!(def.text.starts_with("CREATE TABLE \"T x\""), "{}", def.text);
        let again = table(&def.text);
        assert_eq!((&again.name, &again.columns), (&def.name, &def.columns));
        assert_eq!(def.columns.iter().map(|c| (c.nullable, c.default.is_some())).collect::<Vec<_>>()[..2], [(false, true), (true, true)]);
        assert_eq!(def.columns[0].default, Some(ScalarValue::Int32(Some(-5))));
        assert_eq!(def.columns[7].default, None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("CREATE TABLE t", "columns"),
            ("CREATE TABLE t ()", "column"),
            ("CREATE TABLE t (a INT,)", "column"),
            ("CREATE TABLE t (a)", "type"),
            ("CREATE TABLE t (a INT NOT NULL NOT NULL)", "twice"),
            ("CREATE TABLE t (a INT UNIQUE)", "UNIQUE"),
            ("CREATE TABLE t (a INT, PRIMARY KEY (a))", "PRIMARY KEY"),
            ("CREATE TABLE t (a INT DEFAULT now())", "constant"),
            ("CREATE TABLE t (a TINYINT DEFAULT 300)", "default"),
            ("CREATE TABLE t (a JSON)", "TEXT"),
            ("CREATE TABLE t (a ARROW('Nonsense'))", "Nonsense"),
            ("CREATE TABLE t (a ARROW('Utf8'))", "TEXT"),
            ("CREATE TABLE t (__a INT)", "reserved"),
            ("CREATE TABLE \"t$errors\" (a INT)", "$errors"),
            ("CREATE OR REPLACE TABLE IF NOT EXISTS t (a INT)", "exclude"),
            ("CREATE TABLE a.b (a INT)", "one part"),
            ("CREATE TABLE tidegate.b (a INT)", "one part"),
            ("CREATE TABLE t (a INT[0])", "length"),
            ("CREATE TABLE t AS SELECT 1 EMIT CHANGES", "EMIT"),
            ("CREATE SOURCE s (a ARROW('Int32')) WITH (connector = 'kafka')", "topic"),
        ] {
            let error = parse_one(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
