//! A place in a statement's tokens, with the few moves that our own statements are read by.

use datafusion::sql::sqlparser::{
    ast::{Expr, Ident},
    parser::Parser,
    tokenizer::{Token, TokenWithSpan},
};

use super::{dialect::dialect_of, names, syntax};
use crate::error::{Error, Result};

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
        Self { parser: Parser::new(dialect_of(&tokens)).with_tokens_with_locations(tokens) }
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
