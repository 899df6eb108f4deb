//! Which of the statements it is, by its first words.

use datafusion::sql::{
    parser::{DFParserBuilder, Statement as DataFusionStatement},
    sqlparser::{
        keywords::Keyword,
        tokenizer::{Token, TokenWithSpan, Word},
    },
};

use super::{
    ExplainView, ObjectKind, Statement, alter_source, alter_view, analyze, as_of, clauses, connection, create_sink, create_source, create_table, create_view,
    cursor::Cursor, dialect::dialect_of, dml, expansion, external_table, grants, kill, lexer::Piece, pause, secret, show, subscribe, syntax, system_time,
    users, windows,
};
use crate::error::{Error, Result};

/// Words that statements begin with, to guess what a misspelt one was to be.
const BEGINNINGS: &[&str] = &[
    "SELECT",
    "WITH",
    "VALUES",
    "CREATE",
    "DROP",
    "ALTER",
    "SHOW",
    "EXPLAIN",
    "SET",
    "RESET",
    "INSERT",
    "UPDATE",
    "DELETE",
    "SUBSCRIBE",
    "GRANT",
    "REVOKE",
    "KILL",
    "PAUSE",
    "RESUME",
    "DESCRIBE",
    "COPY",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
];

/// Parses one statement.
pub(super) fn statement(piece: Piece) -> Result<Statement> {
    let Piece { text, tokens, has_parameters } = piece;
    let mut cursor = Cursor::new(tokens.clone());
    if cursor.take(&["CREATE"]) {
        let or_replace = cursor.take(&["OR", "REPLACE"]);
        let external = external_table::is_kafka(&tokens) && (cursor.take(&["UNBOUNDED", "EXTERNAL", "TABLE"]) || cursor.take(&["EXTERNAL", "TABLE"]));
        if external || cursor.take(&["SOURCE"]) {
            return match or_replace {
                true => {
                    Err(Error::Unsupported("a source can't be replaced, views hold state that came from it: DROP SOURCE … CASCADE and create it anew".into()))
                }
                false if external => external_table::parse(cursor, text),
                false => create_source::parse(cursor, text),
            };
        }
        if cursor.take(&["SINK"]) {
            return match or_replace {
                true => Err(Error::Unsupported("a sink can't be replaced, what it has written stays: DROP SINK it and create it anew".into())),
                false => create_sink::parse(cursor, text, has_parameters),
            };
        }
        if !or_replace && cursor.take(&["USER"]) {
            return users::create_user(cursor);
        }
        if !or_replace && cursor.take(&["ROLE"]) {
            return users::create_role(cursor);
        }
        if let Some(word) = ["CONNECTION", "SECRET"].into_iter().find(|word| or_replace && cursor.at(&[word])) {
            return Err(Error::Unsupported(format!("a {} isn't replaced but changed, for all that uses it: say ALTER {word} name …", word.to_lowercase())));
        }
        if cursor.take(&["CONNECTION"]) {
            return connection::create(cursor);
        }
        if cursor.take(&["SECRET"]) {
            return secret::create(cursor);
        }
        if cursor.take(&["TABLE"]) {
            return create_table::parse(cursor, text, or_replace);
        }
        if cursor.take(&["TEMPORARY", "TABLE"]) || cursor.take(&["TEMP", "TABLE"]) {
            return Err(Error::Unsupported("there are no temporary tables: leave TEMPORARY out, and DROP TABLE it when it is no longer needed".into()));
        }
        let continuous = !cursor.at(&["VIEW"]);
        if show::object_kind(&mut cursor).is_some() {
            return create_view::parse(cursor, text, has_parameters, continuous, or_replace);
        }
        if cursor.at(&["CONTINUOUS"]) {
            cursor.expect(&["CONTINUOUS", "VIEW"])?;
        }
    } else if cursor.take(&["ALTER", "SOURCE"]) {
        return alter_source::parse(cursor, &text);
    } else if cursor.take(&["ALTER", "USER"]) {
        return users::alter_user(cursor);
    } else if cursor.take(&["ALTER", "CONNECTION"]) {
        return connection::alter(cursor);
    } else if cursor.take(&["ALTER", "SECRET"]) {
        return secret::alter(cursor);
    } else if cursor.at(&["DESCRIBE", "TOPIC"]) && cursor.remaining() > 2 {
        // `DESCRIBE topic` alone is about a table of that name.
        cursor.expect(&["DESCRIBE", "TOPIC"])?;
        return connection::describe_topic(cursor);
    } else if cursor.take(&["ALTER", "TABLE"]) {
        let name = cursor.name("the name of a table")?;
        if let Some(owned) = show::owner(&mut cursor, ObjectKind::Table, &name)? {
            return Ok(owned);
        }
        return Err(Error::Unsupported("a table can't be altered: CREATE OR REPLACE TABLE … AS SELECT … makes one with other columns of its rows".into()));
    } else if cursor.take(&["ALTER"]) {
        match show::object_kind(&mut cursor) {
            Some(ObjectKind::View) => return alter_view::parse(cursor),
            Some(kind @ ObjectKind::Sink) => {
                let name = cursor.name("the name of a sink")?;
                if let Some(owned) = show::owner(&mut cursor, kind, &name)? {
                    return Ok(owned);
                }
                return Err(Error::Unsupported("a sink can't be altered: DROP SINK it and create it anew".into()));
            }
            _ => {}
        }
    } else if cursor.take(&["DROP", "USER"]) {
        return users::drop_user(cursor);
    } else if cursor.take(&["DROP", "ROLE"]) {
        return users::drop_role(cursor);
    } else if cursor.take(&["GRANT"]) {
        return grants::parse(cursor, true);
    } else if cursor.take(&["REVOKE"]) {
        return grants::parse(cursor, false);
    } else if cursor.take(&["DROP"]) {
        if cursor.take(&["TABLE"]) {
            return show::drop(cursor, ObjectKind::Table);
        }
        if cursor.take(&["CONNECTION"]) {
            return show::drop(cursor, ObjectKind::Connection);
        }
        if cursor.take(&["SECRET"]) {
            return show::drop(cursor, ObjectKind::Secret);
        }
        if let Some(kind) = show::object_kind(&mut cursor) {
            return show::drop(cursor, kind);
        }
    } else if cursor.take(&["SHOW"]) {
        if let Some(shown) = show::show(&mut cursor)? {
            return Ok(shown);
        }
    } else if cursor.take(&["EXPLAIN"]) {
        if let Some(explained) = explain(cursor, tokens.clone(), &text, has_parameters)? {
            return Ok(explained);
        }
    } else if cursor.take(&["SET"]) {
        if show::at_setting(&cursor) {
            return show::set(cursor);
        }
    } else if cursor.take(&["KILL"]) {
        return kill::parse(cursor);
    } else if cursor.take(&["PAUSE"]) {
        return pause::parse(cursor, false);
    } else if cursor.take(&["RESUME"]) {
        return pause::parse(cursor, true);
    } else if cursor.take(&["SUBSCRIBE"]) {
        return subscribe::parse(cursor);
    } else if begins_query(cursor.peek()) {
        if let Some(subscription) = subscribe::of_query(tokens.clone())? {
            return Ok(subscription);
        }
        let mut tokens = tokens.clone();
        if let Some(epoch) = as_of::take(&mut tokens)? {
            return at_epoch(tokens, epoch);
        }
    }
    datafusion(tokens)
}

fn begins_query(token: &TokenWithSpan) -> bool {
    match &token.token {
        Token::LParen => true,
        Token::Word(Word { keyword, .. }) => matches!(keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::FROM | Keyword::TABLE),
        _ => false,
    }
}

/// What follows `EXPLAIN`, if it is about a view.
fn explain(mut cursor: Cursor, mut tokens: Vec<TokenWithSpan>, text: &str, has_parameters: bool) -> Result<Option<Statement>> {
    if let Some(analyzed) = analyze::parse(&mut cursor)? {
        return Ok(Some(analyzed));
    }
    if begins_query(cursor.peek()) || cursor.at(&["ANALYZE"]) || cursor.at(&["VERBOSE"]) {
        return match clauses::take(&mut cursor.rest())?.only_emit()? {
            Some(_) => Err(Error::Unsupported("a subscription can't be explained: leave out EMIT, or write EXPLAIN CREATE CONTINUOUS VIEW x AS …".into())),
            None => match as_of::take(&mut tokens)? {
                Some(epoch) => at_epoch(tokens, epoch).map(Some),
                None => Ok(None),
            },
        };
    }
    if !cursor.at(&["CREATE"]) {
        // `EXPLAIN source`, if any, is for DataFusion to refuse.
        return match cursor.at(&["SOURCE"]) || cursor.at(&["SINK"]) {
            false if show::object_kind(&mut cursor).is_some() => {
                let name = cursor.name("the name of a view")?;
                cursor.end()?;
                Ok(Some(Statement::ExplainView(ExplainView::Named(name))))
            }
            _ => Ok(None),
        };
    }
    cursor.expect(&["CREATE"])?;
    if cursor.at(&["SOURCE"]) {
        // The declaration's own text is what follows the word EXPLAIN.
        cursor.expect(&["SOURCE"])?;
        let declaration = text.get("EXPLAIN".len()..).unwrap_or_default().trim_start().to_string();
        return Ok(Some(Statement::ExplainSource(Box::new(create_source::parse(cursor, declaration)?))));
    }
    let or_replace = cursor.take(&["OR", "REPLACE"]);
    if !cursor.take(&["CONTINUOUS", "VIEW"]) && !cursor.take(&["MATERIALIZED", "VIEW"]) {
        return Ok(None);
    }
    // The declaration's own text is what follows the word EXPLAIN.
    let declaration = text.get("EXPLAIN".len()..).unwrap_or_default().trim_start().to_string();
    match create_view::parse(cursor, declaration, has_parameters, true, or_replace)? {
        Statement::CreateContinuousView { def, or_replace, .. } => Ok(Some(Statement::ExplainView(ExplainView::Declared { def, or_replace }))),
        _ => Err(Error::Internal("a continuous view parsed as something else".into())),
    }
}

fn at_epoch(tokens: Vec<TokenWithSpan>, epoch: u64) -> Result<Statement> {
    match datafusion(tokens)? {
        Statement::DataFusion(statement) => Ok(Statement::AsOf { epoch, statement }),
        other => Err(Error::Internal(format!("a query parsed as something else: {other:?}"))),
    }
}

/// Everything that isn't ours.
pub(super) fn datafusion(tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let misspelt = misspelt(&tokens);
    let dialect = dialect_of(&tokens);
    let mut parser = DFParserBuilder::new(windows::plain_arguments(system_time::plain(tokens))).with_dialect(dialect).build()?;
    let mut statement: DataFusionStatement = parser.parse_statement().map_err(|error| match (syntax::from_datafusion(error), misspelt) {
        (Error::Invalid(message), Some(meant)) => Error::Invalid(format!("{message}; did you mean {meant}?")),
        (error, _) => error,
    })?;
    let next = parser.parser.peek_token_ref();
    if next.token != Token::EOF {
        return Err(syntax::expected("the end of the statement", next));
    }
    expansion::check(&statement)?;
    windows::rewrite_statement(&mut statement)?;
    dml::fold_assignments(&mut statement)?;
    dml::name_selected(&mut statement);
    Ok(Statement::DataFusion(Box::new(statement)))
}

/// What the first word was to be, if it begins no statement.
fn misspelt(tokens: &[TokenWithSpan]) -> Option<&'static str> {
    match &tokens.first()?.token {
        Token::Word(word) if word.keyword == Keyword::NoKeyword => syntax::nearest(&word.value, BEGINNINGS.iter().copied()),
        _ => None,
    }
}
