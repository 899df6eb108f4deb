//! The clauses behind a query: `EMIT …`, and behind a view's also `ALLOW LATENESS INTERVAL …`,
//! `CLOSE AFTER INTERVAL …` or `CLOSE NEVER`, and `LATE DATA TO name`, in any order.
//!
//! Their words are no keywords of SQL: `emit` may be a column, a table or an alias, and sqlparser takes `FROM t EMIT` for an alias. So
//! clauses are found among the tokens, before the query is parsed: unquoted words outside of all parentheses, behind a token that a query
//! can end with, with nothing but the clause's own words up to the end of the statement or to the next clause.

use std::time::Duration;

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan},
};

use super::{
    cursor::{Cursor, is_word},
    interval, names, syntax,
};
use crate::{
    catalog::{Close, Emit},
    error::{Error, Result},
};

/// What the clauses behind a query say.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Clauses {
    /// `EMIT …`.
    pub(super) emit: Option<Emit>,
    /// `ALLOW LATENESS INTERVAL …`.
    pub(super) lateness: Option<Duration>,
    /// `CLOSE AFTER INTERVAL …`, positive, or `CLOSE NEVER`.
    pub(super) close: Option<Close>,
    /// `LATE DATA TO name`; a name that can be given.
    pub(super) late_to: Option<String>,
}

impl Clauses {
    /// The EMIT clause of a query that is no view; there the other clauses have no place.
    pub(super) fn only_emit(self) -> Result<Option<Emit>> {
        let other = match self {
            Self { lateness: Some(_), .. } => Clause::Lateness,
            Self { close: Some(Close::Never), .. } => Clause::CloseNever,
            Self { close: Some(_), .. } => Clause::CloseAfter,
            Self { late_to: Some(_), .. } => Clause::LateTo,
            Self { emit, .. } => return Ok(emit),
        };
        Err(Error::Invalid(format!("{} belongs to a view that is kept up to date: leave it out, or write CREATE CONTINUOUS VIEW", other.beginning().join(" "))))
    }
}

/// Takes the clauses off the end of a query's tokens.
pub(super) fn take(tokens: &mut Vec<TokenWithSpan>) -> Result<Clauses> {
    let mut clauses = Clauses::default();
    while let Some((at, clause)) = last_clause(tokens)? {
        let words = tokens.split_off(at);
        let place = syntax::place(&words[0]);
        let (beginning, rest) = words.split_at(clause.beginning().len());
        let repeated = match clause {
            Clause::Changes => clauses.emit.replace(Emit::Changes).is_some(),
            Clause::OnWindowClose => clauses.emit.replace(Emit::OnWindowClose).is_some(),
            Clause::Every => clauses.emit.replace(Emit::Every(positive(clause, rest)?)).is_some(),
            Clause::Lateness => clauses.lateness.replace(length(clause, rest)?).is_some(),
            Clause::CloseAfter => clauses.close.replace(Close::After(positive(clause, rest)?)).is_some(),
            Clause::CloseNever => clauses.close.replace(Close::Never).is_some(),
            Clause::LateTo => clauses.late_to.replace(late_table(rest)?).is_some(),
        };
        if repeated {
            return Err(Error::Invalid(format!("{} stands twice{place}: leave one out", syntax::shown(&beginning[0].token).trim_matches('`').to_uppercase())));
        }
    }
    Ok(clauses)
}

/// One of the clauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clause {
    Changes,
    OnWindowClose,
    Every,
    Lateness,
    CloseAfter,
    CloseNever,
    LateTo,
}

impl Clause {
    const ALL: [Self; 7] = [Self::Changes, Self::OnWindowClose, Self::Every, Self::Lateness, Self::CloseAfter, Self::CloseNever, Self::LateTo];

    /// The words that it begins with.
    fn beginning(self) -> &'static [&'static str] {
        match self {
            Self::Changes => &["EMIT", "CHANGES"],
            Self::OnWindowClose => &["EMIT", "ON", "WINDOW", "CLOSE"],
            Self::Every => &["EMIT", "EVERY"],
            Self::Lateness => &["ALLOW", "LATENESS"],
            Self::CloseAfter => &["CLOSE", "AFTER"],
            Self::CloseNever => &["CLOSE", "NEVER"],
            Self::LateTo => &["LATE", "DATA", "TO"],
        }
    }

    /// Which clause these tokens are, from the first to the last.
    fn of(tokens: &[TokenWithSpan]) -> Option<Self> {
        Self::ALL.into_iter().find(|clause| {
            let words = clause.beginning();
            let begins = tokens.len() >= words.len() && words.iter().zip(tokens).all(|(word, token)| is_word(&token.token, word));
            // `emit every` alone would be a table or column with an alias.
            let ends = match clause {
                Self::Changes | Self::OnWindowClose | Self::CloseNever => tokens.len() == words.len(),
                Self::Every | Self::Lateness | Self::CloseAfter | Self::LateTo => tokens.len() > words.len(),
            };
            begins && ends
        })
    }
}

/// The last clause and where it begins.
fn last_clause(tokens: &[TokenWithSpan]) -> Result<Option<(usize, Clause)>> {
    let mut depth = 0_i32;
    for at in (1..tokens.len()).rev() {
        match tokens[at].token {
            Token::RParen | Token::RBracket | Token::RBrace => depth += 1,
            Token::LParen | Token::LBracket | Token::LBrace => depth -= 1,
            _ => {}
        }
        if !may_end_query(&tokens[at - 1].token) {
            continue;
        }
        let rest = &tokens[at..];
        if depth == 0 {
            if let Some(clause) = Clause::of(rest) {
                return Ok(Some((at, clause)));
            }
        } else if let Some(closing) = rest.iter().take(7).position(|t| t.token == Token::RParen)
            && let Some(clause) = Clause::of(&rest[..closing])
        {
            let (word, place) = (clause.beginning()[0], syntax::place(&tokens[at]));
            return Err(Error::Invalid(format!("{word} stands at the end of the whole query, not inside of parentheses{place}: leave it out there")));
        }
    }
    Ok(None)
}

/// A length of time, perhaps nothing.
fn length(clause: Clause, tokens: &[TokenWithSpan]) -> Result<Duration> {
    let what = format!("the length of {}", clause.beginning().join(" "));
    let mut cursor = Cursor::new(tokens.to_vec());
    let ns = interval::literal_ns(&what, &cursor.expression()?)?;
    cursor.end()?;
    match u64::try_from(ns) {
        Ok(ns) => Ok(Duration::from_nanos(ns)),
        Err(_) => Err(Error::Invalid(format!("{what} can't be negative: write a positive INTERVAL"))),
    }
}

fn positive(clause: Clause, tokens: &[TokenWithSpan]) -> Result<Duration> {
    match length(clause, tokens)? {
        Duration::ZERO => Err(Error::Invalid(format!("the length of {} must be longer than nothing", clause.beginning().join(" ")))),
        length => Ok(length),
    }
}

fn late_table(tokens: &[TokenWithSpan]) -> Result<String> {
    let mut cursor = Cursor::new(tokens.to_vec());
    let name = cursor.name("the name that late rows can be read by")?;
    cursor.end()?;
    names::check_new("the table of late rows", &name)?;
    Ok(name)
}

/// Whether a query can end with this token; if not, the `emit` behind it is a name.
fn may_end_query(token: &Token) -> bool {
    match token {
        Token::Word(word) => !matches!(
            word.keyword,
            Keyword::SELECT
                | Keyword::DISTINCT
                | Keyword::ALL
                | Keyword::FROM
                | Keyword::JOIN
                | Keyword::LATERAL
                | Keyword::AS
                | Keyword::BY
                | Keyword::WHERE
                | Keyword::HAVING
                | Keyword::QUALIFY
                | Keyword::ON
                | Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IN
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::CASE
                | Keyword::WHEN
                | Keyword::THEN
                | Keyword::ELSE
                | Keyword::UNION
                | Keyword::EXCEPT
                | Keyword::INTERSECT
                | Keyword::WITH
                | Keyword::LIMIT
                | Keyword::OFFSET
        ),
        Token::RParen | Token::RBracket | Token::RBrace | Token::Mul | Token::Number(..) | Token::Placeholder(_) => true,
        Token::SingleQuotedString(_) | Token::EscapedStringLiteral(_) | Token::DollarQuotedString(_) => true,
        _ => false,
    }
}
