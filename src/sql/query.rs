//! Queries: from tokens to a rewritten syntax tree, and to text that reads back as that tree.

use datafusion::sql::{
    parser::Statement as DataFusionStatement,
    sqlparser::{
        ast::{Query, Statement, TableObject},
        parser::Parser,
        tokenizer::{Token, TokenWithSpan},
    },
};

use super::{dialect::dialect_of, expansion, lexer, names, syntax, system_time, windows};
use crate::error::{Error, Result};

/// Parses the text of a query that was rewritten already, as it stands in [`crate::catalog::ViewDef::query`].
pub fn parse_query(text: &str) -> Result<Query> {
    from_tokens(lexer::tokens(text)?)
}

/// Parses a user's query, rewrites its window functions and writes it as text.
pub(super) fn rewritten(tokens: Vec<TokenWithSpan>) -> Result<String> {
    let mut query = from_tokens(windows::plain_arguments(system_time::plain(tokens)))?;
    expansion::check_tree(&query)?;
    windows::rewrite(&mut query)?;
    let text = query.to_string();
    // A query is kept as text. If sqlparser read its own writing as something else, a view would silently be another one after a restart.
    match parse_query(&text) {
        Ok(again) if again == query => Ok(text),
        _ => Err(Error::Unsupported(format!("the query can't be kept as text, it would read back as another one: write it in simpler words; it is {text}"))),
    }
}

fn from_tokens(tokens: Vec<TokenWithSpan>) -> Result<Query> {
    if tokens.is_empty() {
        return Err(Error::Invalid("syntax error: expected a query, found the end of the statement".into()));
    }
    let mut parser = Parser::new(dialect_of(&tokens)).with_tokens_with_locations(tokens);
    let query = parser.parse_query().map_err(syntax::from_parser)?;
    match parser.peek_token_ref() {
        found if found.token == Token::EOF => Ok(*query),
        found => Err(syntax::expected("the end of the query", found)),
    }
}

/// The table that a statement adds rows to.
pub fn inserted_into(statement: &DataFusionStatement) -> Option<String> {
    let DataFusionStatement::Statement(statement) = statement else { return None };
    let Statement::Insert(insert) = statement.as_ref() else { return None };
    let TableObject::TableName(name) = &insert.table else { return None };
    name.0.last().and_then(|part| part.as_ident()).map(names::fold)
}

/// Where the rows come from that a statement adds.
pub fn inserted_from(statement: &DataFusionStatement) -> Option<DataFusionStatement> {
    let DataFusionStatement::Statement(statement) = statement else { return None };
    let Statement::Insert(insert) = statement.as_ref() else { return None };
    insert.source.as_ref().map(|query| query_statement((**query).clone()))
}

/// A query as a statement that DataFusion plans.
pub fn query_statement(query: Query) -> DataFusionStatement {
    DataFusionStatement::Statement(Box::new(Statement::Query(Box::new(query))))
}
