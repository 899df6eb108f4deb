//! A place in a statement's tokens, with the few moves that our own statements are read by.

use datafusion::sql::sqlparser::{
    ast::{Expr, Ident},
    dialect::{Dialect, DuckDbDialect, GenericDialect},
    parser::Parser,
    tokenizer::{Token, TokenWithSpan},
};

use super::{names, syntax};
use crate::error::{Error, Result};

/// The dialect: DataFusion's default, in which `events$errors` is one name.
pub(super) static DIALECT: GenericDialect = GenericDialect {};

/// What is declared is in this schema of this catalog.
const CATALOG: &str = "tidegate";
const SCHEMA: &str = "public";

/// A place in a statement's tokens.
pub(super) struct Cursor {
    /// sqlparser's own cursor, for expressions and types.
    pub(super) parser: Parser<'static>,
}

impl Cursor {
    pub(super) fn new(tokens: Vec<TokenWithSpan>) -> Self {
        Self { parser: Parser::new(&DIALECT).with_tokens_with_locations(tokens) }
    }

    /// The next token without taking it.
    pub(super) fn peek(&self) -> &TokenWithSpan {
        self.parser.peek_token_ref()
    }

    /// Whether the next tokens are these words, unquoted, in any case.
    pub(super) fn at(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, word)| is_word(&self.parser.peek_nth_token_ref(n).token, word))
    }

    /// Takes these words if they come next.
    pub(super) fn take(&mut self, words: &[&str]) -> bool {
        let found = self.at(words);
        if found {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        found
    }

    /// Takes these words, or says that they were expected.
    pub(super) fn expect(&mut self, words: &[&str]) -> Result<()> {
        for word in words {
            if !self.take(&[word]) {
                return Err(syntax::expected(word, self.peek()));
            }
        }
        Ok(())
    }

    /// Takes this token if it comes next.
    pub(super) fn take_token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    /// Takes this token, or says that it was expected.
    pub(super) fn expect_token(&mut self, token: &Token) -> Result<()> {
        if self.take_token(token) { Ok(()) } else { Err(syntax::expected(&syntax::shown(token), self.peek())) }
    }

    /// An identifier as it was written.
    pub(super) fn identifier(&mut self, what: &str) -> Result<Ident> {
        match self.parser.next_token() {
            TokenWithSpan { token: Token::Word(word), span } => Ok(word.into_ident(span)),
            found => Err(syntax::expected(what, &found)),
        }
    }

    /// The folded name of a source, view or table: one part, or `public.` or `tidegate.public.` before it.
    pub(super) fn name(&mut self, what: &str) -> Result<String> {
        let mut name = names::fold(&self.identifier(what)?);
        if name == CATALOG && self.peek().token == Token::Period && is_word(&self.parser.peek_nth_token_ref(1).token, SCHEMA) {
            self.parser.advance_token();
            name = names::fold(&self.identifier(what)?);
        }
        if name == SCHEMA && self.take_token(&Token::Period) {
            name = names::fold(&self.identifier(what)?);
        }
        match self.peek().token == Token::Period {
            true => Err(Error::Invalid(format!("the name of a source or view has one part: leave out `{name}.`{}", syntax::place(self.peek())))),
            false => Ok(name),
        }
    }

    /// A text in single quotes.
    pub(super) fn text(&mut self, what: &str) -> Result<String> {
        let found = self.parser.next_token();
        match found.token {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => Ok(text),
            _ => Err(syntax::expected(what, &found)),
        }
    }

    /// An expression.
    pub(super) fn expression(&mut self) -> Result<Expr> {
        self.parser.parse_expr().map_err(syntax::from_parser)
    }

    /// The end of the statement.
    pub(super) fn end(&self) -> Result<()> {
        if self.peek().token == Token::EOF { Ok(()) } else { Err(syntax::expected("the end of the statement", self.peek())) }
    }

    /// How many tokens there are from here on.
    pub(super) fn remaining(&self) -> usize {
        (0..).take_while(|&n| self.parser.peek_nth_token_ref(n).token != Token::EOF).count()
    }

    /// All tokens from here on.
    pub(super) fn rest(mut self) -> Vec<TokenWithSpan> {
        std::iter::from_fn(|| Some(self.parser.next_token()).filter(|t| t.token != Token::EOF)).collect()
    }
}

/// Whether a token is this word, unquoted, in any case.
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// The dialect that a query is read in: DuckDB's if it has what the usual one can't read, `x -> x + 1` as a function's argument or `STRUCT(a INT)`
/// as a type. Neither means anything else here: there is no operator `->`.
pub(super) fn dialect_of(tokens: &[TokenWithSpan]) -> &'static dyn Dialect {
    let token = |at: usize| tokens.get(at).map(|token| &token.token);
    let is_duckdbs = (0..tokens.len()).any(|at| match token(at) {
        Some(Token::Arrow) => true,
        Some(Token::LParen) if at >= 2 => {
            let cast = |before: &Token| *before == Token::DoubleColon || is_word(before, "AS");
            token(at - 1).is_some_and(|word| is_word(word, "STRUCT")) && token(at - 2).is_some_and(cast)
        }
        _ => false,
    });
    if is_duckdbs { &DuckDbDialect {} } else { &DIALECT }
}
