//! `CREATE [OR REPLACE] CONTINUOUS VIEW | MATERIALIZED VIEW | VIEW [IF NOT EXISTS] name [WITH (…)] AS query [clauses]`.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{
    Statement,
    clauses::{self, Clauses},
    cursor::Cursor,
    names,
    options::Options,
    query, syntax,
};
use crate::{
    catalog::{PlainViewDef, ViewDef, ViewOptions},
    error::{Error, Result},
};

pub(super) const OPTIONS: &[&str] = &["unbounded_state", "state_ttl", "retention", "memory_limit", "late_rows", "device"];

/// Parses what follows `VIEW`. `continuous` is what stood before it.
pub(super) fn parse(mut cursor: Cursor, text: String, has_parameters: bool, continuous: bool, or_replace: bool) -> Result<Statement> {
    let if_not_exists = cursor.take(&["IF", "NOT", "EXISTS"]);
    let name = cursor.name("the name of the view")?;
    names::check_new("a view", &name)?;
    let owner = format!("view {name}");
    if or_replace && if_not_exists {
        return Err(Error::Invalid(format!("{owner}: OR REPLACE and IF NOT EXISTS exclude each other: leave one out")));
    }
    if has_parameters {
        return Err(Error::Invalid(format!("{owner}: a view can't have parameters like ? or $1: write the value")));
    }
    if cursor.peek().token == Token::LParen {
        return Err(Error::Unsupported(format!("{owner}: a view takes no list of columns: name them in its SELECT, as in SELECT a AS b")));
    }
    let options = match cursor.take(&["WITH"]) {
        true => Some(Options::parse(&owner, &mut cursor)?),
        false => None,
    };
    if !cursor.take(&["AS"]) {
        return Err(syntax::expected("AS and the view's query", cursor.peek()));
    }
    let mut tokens = cursor.rest();
    let clauses = clauses::take(&mut tokens)?;
    let query = query::rewritten(tokens)?;
    if continuous {
        let def = ViewDef { emit: clauses.emit, options: view_options(&name, options, clauses)?, name, query, text };
        return Ok(Statement::CreateContinuousView { def, if_not_exists, or_replace });
    }
    if clauses != Clauses::default() || options.is_some() {
        return Err(Error::Invalid(format!(
            "{owner}: WITH, EMIT, ALLOW LATENESS, CLOSE and LATE DATA TO are for views that are kept up to date: write CREATE CONTINUOUS VIEW {name}"
        )));
    }
    Ok(Statement::CreateView { def: PlainViewDef { name, query, text }, if_not_exists, or_replace })
}

fn view_options(name: &str, options: Option<Options>, clauses: Clauses) -> Result<ViewOptions> {
    if clauses.late_to.as_deref() == Some(name) {
        return Err(Error::Invalid(format!("view {name}: LATE DATA TO needs a name of its own: write another one than the view's")));
    }
    let mut read = ViewOptions {
        lateness: clauses.lateness.unwrap_or_default(),
        close: clauses.close.unwrap_or_default(),
        late_to: clauses.late_to,
        ..ViewOptions::default()
    };
    let Some(mut options) = options else { return Ok(read) };
    read.unbounded_state = options.take_bool("unbounded_state")?.unwrap_or(false);
    read.state_ttl = options.take_duration("state_ttl")?;
    read.retention = options.take_duration("retention")?;
    read.memory_limit = options.take_size("memory_limit")?;
    read.late_rows = options.take_count("late_rows")?;
    read.device = options.take_device("device")?;
    if read.unbounded_state && read.state_ttl.is_some() {
        return Err(Error::Invalid(format!("view {name}: 'state_ttl' bounds the state that 'unbounded_state' lets grow: leave one out")));
    }
    options.finish(OPTIONS)?;
    Ok(read)
}
