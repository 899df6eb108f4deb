//! The EMIT clause at the end of a query.
//!
//! `emit` is no keyword of SQL: it may be a column, a table or an alias, and sqlparser takes `FROM t EMIT` for an alias. So the clause is
//! found among the tokens, before the query is parsed: an unquoted EMIT outside of all parentheses, behind a word that a query can end
//! with, with nothing but the clause's own words up to the end of the statement.

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan},
};

use super::{cursor::is_word, syntax};
use crate::{
    catalog::Emit,
    error::{Error, Result},
};

/// Takes the EMIT clause off the end of a query's tokens.
pub(super) fn take(tokens: &mut Vec<TokenWithSpan>) -> Result<Option<Emit>> {
    let Some(at) = clause_start(tokens)? else { return Ok(None) };
    let clause = tokens.split_off(at);
    let said = |words: &[&str]| clause.len() == words.len() + 1 && words.iter().zip(&clause[1..]).all(|(word, token)| is_word(&token.token, word));
    if said(&["CHANGES"]) {
        return Ok(Some(Emit::Changes));
    }
    if said(&["ON", "WINDOW", "CLOSE"]) {
        return Ok(Some(Emit::OnWindowClose));
    }
    Err(Error::Unsupported(format!(
        "EMIT EVERY is not supported yet{}: write EMIT CHANGES, which emits with each epoch, or EMIT ON WINDOW CLOSE",
        syntax::place(&clause[0])
    )))
}

fn clause_start(tokens: &[TokenWithSpan]) -> Result<Option<usize>> {
    let mut depth = 0_i32;
    for at in (1..tokens.len()).rev() {
        match tokens[at].token {
            Token::RParen | Token::RBracket | Token::RBrace => depth += 1,
            Token::LParen | Token::LBracket | Token::LBrace => depth -= 1,
            _ => {}
        }
        if !is_word(&tokens[at].token, "EMIT") || !may_end_query(&tokens[at - 1].token) {
            continue;
        }
        let rest = &tokens[at + 1..];
        if depth == 0 && is_clause(rest) {
            return Ok(Some(at));
        }
        let closing = rest.iter().take(4).position(|t| t.token == Token::RParen);
        if depth > 0 && closing.is_some_and(|closing| is_clause(&rest[..closing])) {
            let place = syntax::place(&tokens[at]);
            return Err(Error::Invalid(format!("EMIT stands at the end of the whole query, not inside of parentheses{place}: leave it out there")));
        }
    }
    Ok(None)
}

fn is_clause(words: &[TokenWithSpan]) -> bool {
    let all = |wanted: &[&str]| wanted.len() == words.len() && wanted.iter().zip(words).all(|(word, token)| is_word(&token.token, word));
    // `emit every` alone would be a table or column with an alias.
    all(&["CHANGES"]) || all(&["ON", "WINDOW", "CLOSE"]) || (words.len() > 1 && is_word(&words[0].token, "EVERY"))
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
