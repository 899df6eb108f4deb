//! The dialect: statements that DataFusion lacks, and window functions in FROM. Text in, plain structs and rewritten text out.
//! Knows neither Kafka nor Flight nor devices.
//!
//! A text is cut into tokens and statements by `lexer`; `dispatch` looks at a statement's first words. What is ours goes to a module of
//! its own (`create_source`, `create_view`, `show`, …), which reads tokens through a `cursor`; everything else goes to DataFusion's parser.
//! Queries, wherever they stand, pass through `windows`, which rewrites window functions on the syntax tree.
//!
//! Invariant: what leaves this module is valid on its own. Names are folded and checked, options known, lengths positive, and the text
//! of a query reads back as the query that it was written from.

mod alter_source;
mod alter_view;
mod analyze;
mod as_of;
mod clauses;
mod complete;
mod connection;
mod create_sink;
mod create_source;
mod create_table;
mod create_view;
mod csv_options;
mod cursor;
mod dead_letters;
mod dialect;
mod dispatch;
mod dml;
mod expansion;
mod external_table;
mod format_options;
mod grants;
mod interval;
mod kafka_options;
mod kafka_properties;
mod kill;
mod lexer;
mod metadata;
mod names;
mod options;
mod path;
mod pause;
mod protobuf_options;
mod query;
mod secret;
mod secrets;
mod show;
mod statement;
mod subscribe;
mod syntax;
mod system_time;
#[cfg(test)]
mod tests;
mod types;
mod users;
mod windows;

pub use alter_source::with_column;
pub use complete::{named_columns, with_columns, with_option};
pub use connection::altered_connection;
pub use create_table::{check_table_name, declaration};
pub use dml::name_insert_columns;
pub use expansion::{check_plan, check_view_plan};
pub use interval::option as duration_option;
pub use metadata::{named_metadata, offset_column};
pub use names::{quote_identifier, quote_literal};
pub use path::written as written_path;
pub use query::{inserted_from, inserted_into, parse_query, query_statement};
pub use secrets::redacted;
pub use statement::*;
pub use subscribe::{SubscribeOptions, WhenBehind};

use crate::{
    catalog::Definition,
    error::{Error, Result},
};
use std::sync::Arc;

/// Parses a text of statements separated by semicolons. Empty statements are left out; a text of nothing gives none.
pub fn parse(text: &str) -> Result<Vec<Statement>> {
    lexer::statements(text)?.into_iter().map(statement).collect()
}

/// Parses a text that holds exactly one statement, perhaps with a semicolon at its end.
pub fn parse_one(text: &str) -> Result<Statement> {
    let mut statements = lexer::statements(text)?;
    match (statements.pop(), statements.len()) {
        (Some(only), 0) => statement(only),
        (None, _) => Err(Error::Invalid("the statement is empty: write one, like SELECT 1".into())),
        (Some(_), others) => Err(Error::Invalid(format!("one statement at a time is run here, not {}: send them one by one", others + 1))),
    }
}

fn statement(piece: lexer::Piece) -> Result<Statement> {
    let text = piece.text.clone();
    dispatch::statement(piece).map_err(|error| secrets::scrubbed(error, &text))
}

/// Cuts a text into the texts of its statements, without semicolons and the comments around them.
pub fn split(text: &str) -> Result<Vec<String>> {
    Ok(lexer::statements(text)?.into_iter().map(|s| s.text).collect())
}

/// Parses the text of a stored declaration: what [`crate::catalog::Catalog`] needs to read its file.
pub fn parse_definition(text: &str) -> Result<Definition> {
    match parse_one(text)? {
        Statement::CreateSource { def, .. } => Ok(Definition::Source(Arc::new(def))),
        Statement::CreateContinuousView { def, .. } => Ok(Definition::View(Arc::new(def))),
        Statement::CreateView { def, .. } => Ok(Definition::PlainView(Arc::new(def))),
        Statement::CreateTable { def, .. } => Ok(Definition::Table(Arc::new(def))),
        Statement::CreateSink { def, .. } => Ok(Definition::Sink(Arc::new(def))),
        Statement::CreateConnection { def, .. } => Ok(Definition::Connection(Arc::new(def))),
        Statement::CreateSecret { def, .. } => Ok(Definition::Secret(Arc::new(def))),
        _ => Err(Error::Invalid("the statement declares neither a source nor a table nor a view nor a sink nor a connection nor a secret".into())),
    }
}
