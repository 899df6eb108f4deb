//! Secrets in statements: passwords of users, and what a source's options say to prove to Kafka who reads. They are never shown.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::{cursor::is_word, lexer};
use crate::{catalog::is_secret, error::Error};

/// What stands in a secret's place.
const HIDDEN: &str = "'***'";

/// A statement as it may be shown: with stars for secrets. A text that is no statement is not shown at all.
pub fn redacted(text: &str) -> String {
    let Ok(tokens) = lexer::tokens(text) else { return "…".into() };
    let mut shown = String::with_capacity(text.len());
    let mut from = 0;
    for at in secrets(&tokens) {
        let (begin, end) = (lexer::offset(text, tokens[at].span.start), lexer::offset(text, tokens[at].span.end));
        shown.push_str(&text[from..begin]);
        shown.push_str(HIDDEN);
        from = end;
    }
    shown.push_str(&text[from..]);
    shown
}

/// An error of a statement without the statement's secrets.
pub(super) fn scrubbed(error: Error, text: &str) -> Error {
    let Ok(tokens) = lexer::tokens(text) else { return error };
    let secrets: Vec<String> = secrets(&tokens).into_iter().filter_map(|at| value(&tokens[at].token)).collect();
    if secrets.is_empty() {
        return error;
    }
    let scrub = |said: String| {
        secrets.iter().fold(said, |said, secret| {
            // Messages cut long texts short.
            let cut: String = secret.chars().take(50).collect();
            let said = said.replace(secret.as_str(), "***");
            if secret.chars().count() > 50 { said.replace(&cut, "***") } else { said }
        })
    };
    match error {
        Error::Invalid(said) => Error::Invalid(scrub(said)),
        Error::Unsupported(said) => Error::Unsupported(scrub(said)),
        // What else may be said of a syntax error is the engine's, and as text.
        Error::DataFusion(said) => Error::Invalid(scrub(said.to_string())),
        other => other,
    }
}

/// The tokens that are secrets: texts behind the name of a secret option, with or without `=`, behind the word PASSWORD, and all in a statement
/// about a SECRET.
fn secrets(tokens: &[TokenWithSpan]) -> Vec<usize> {
    let mut about_secret = false;
    let about: Vec<bool> = (0..tokens.len())
        .map(|at| {
            let is = |at: usize, word: &str| is_word(&tokens[at].token, word);
            about_secret =
                tokens[at].token != Token::SemiColon && (about_secret || (at > 0 && is(at, "secret") && (is(at - 1, "create") || is(at - 1, "alter"))));
            about_secret
        })
        .collect();
    let names_secret = |at: usize| match &tokens[at].token {
        Token::SingleQuotedString(name) | Token::DoubleQuotedString(name) => is_secret(name),
        // A bare name is words with dots between them.
        Token::Word(word) if word.quote_style.is_some() => is_secret(&word.value),
        token @ Token::Word(_) if is_word(token, "password") => true,
        Token::Word(_) => is_secret(&bare_name(tokens, at)),
        _ => false,
    };
    let is_value = |at: &usize| value(&tokens[*at].token).is_some();
    let follows = |at: &usize| match tokens[..*at].iter().rposition(|token| token.token != Token::Eq) {
        Some(before) => names_secret(before),
        None => false,
    };
    (0..tokens.len()).filter(is_value).filter(|at| about[*at] || follows(at)).collect()
}

/// The words and dots that end at a token, without blanks between them in meaning.
fn bare_name(tokens: &[TokenWithSpan], end: usize) -> String {
    let begin = tokens[..=end].iter().rposition(|token| !matches!(token.token, Token::Word(_) | Token::Period)).map_or(0, |before| before + 1);
    // `WITH (a.b = …` begins at its parenthesis; a column's declaration has blanks, whose words are no option either way.
    tokens[begin..=end].iter().map(|token| token.token.to_string()).collect()
}

/// A token's text, if it is one that a value can be.
fn value(token: &Token) -> Option<String> {
    match token {
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) | Token::NationalStringLiteral(text) => Some(text.clone()),
        Token::DollarQuotedString(text) => Some(text.value.clone()),
        _ => None,
    }
    .filter(|text| !text.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sql::parse_one;

    #[test]
    fn secrets_are_hidden_and_nothing_else() {
        for (text, shown) in [
            ("CREATE USER bob WITH PASSWORD 'geheim' ADMIN", "CREATE USER bob WITH PASSWORD '***' ADMIN"),
            ("WITH ('topic' = 'geheim', 'properties.sasl.password' = 'geheim')", "WITH ('topic' = 'geheim', 'properties.sasl.password' = '***')"),
            ("OPTIONS ('properties.ssl.key.pem' 'geheim' )", "OPTIONS ('properties.ssl.key.pem' '***' )"),
            ("WITH (properties.sasl.password='ñ€geheim', format = 'json')", "WITH (properties.sasl.password='***', format = 'json')"),
            ("WITH (\"properties.SASL.Password\" = 'geheim')", "WITH (\"properties.SASL.Password\" = '***')"),
            ("'sasl.oauthbearer.token.endpoint.url' = 'https://x'", "'sasl.oauthbearer.token.endpoint.url' = 'https://x'"),
            ("SELECT 'password', 'geheim'", "SELECT 'password', 'geheim'"),
            ("CREATE SECRET s AS 'geheim'; SELECT 'x'", "CREATE SECRET s AS '***'; SELECT 'x'"),
            ("alter secret \"a b\" as E'geheim'", "alter secret \"a b\" as '***'"),
            ("WITH ('sasl.password' = SECRET pw, topic = 't')", "WITH ('sasl.password' = SECRET pw, topic = 't')"),
            ("('schema.registry.basic.auth.user.info' = 'u:p')", "('schema.registry.basic.auth.user.info' = '***')"),
            ("SELECT 'open", "…"),
        ] {
            assert_eq!(redacted(text), shown);
        }
    }

    #[test]
    fn errors_hold_no_secrets() {
        for text in [
            "CREATE USER bob PASSWORD 'geheim'",
            "CREATE USER bob WITH PASSWORD = 'geheim'",
            "CREATE USER bob WITH PASSWORD 'geheim' 'geheim'",
            "CREATE USR bob WITH PASSWORD 'geheim'",
            "ALTER USER bob SET PASSWORD 'geheim'",
            "CREATE SOURCE s (a INT) WITH (connector = 'kafka', 'properties.sasl.password' 'geheim')",
            "CREATE SOURCE s (a INT) WITH (connector = 'kafka', 'properties.sasl.password' = 'geheim' 'x')",
            "CREATE SOURCE s (a INT) WITH (connector = 'kafka', 'sasl.password' = 'geheim', topic = 't')",
        ] {
            let said = parse_one(text).map(|_| ()).unwrap_err().to_string();
            assert!(!said.contains("geheim"), "{text}: {said}");
        }
    }
}
