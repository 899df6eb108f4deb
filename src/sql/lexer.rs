//! A text as statements, and a statement as tokens: numbers `?`, refuses reserved names and expressions that would exhaust the stack.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    parser::ParserError,
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer, Word},
};

use super::syntax;
use crate::error::{Error, Result};

/// One statement of a text.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// Its text, without the semicolon and the blanks and comments around it.
    pub(super) text: String,
    /// Its tokens without blanks and comments; never empty.
    pub(super) tokens: Vec<TokenWithSpan>,
    /// Whether it has parameters.
    pub(super) has_parameters: bool,
}

/// Names that begin with this are ours: columns and functions of rewritten queries.
pub(super) const RESERVED: &str = "__";

/// A chain of operators becomes a tree as deep as the chain is long, and trees are walked by recursion. A chain of this many words
/// stays well within the 2 MiB of a worker's stack.
const LONGEST_EXPRESSION: usize = 4_000;
/// The same for UNION, EXCEPT and INTERSECT, whose steps are larger.
const MOST_SET_OPERATORS: usize = 200;

/// Cuts a text into tokens without blanks and comments.
pub(super) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>> {
    let all = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().map_err(|e| syntax::from_parser(ParserError::from(e)))?;
    Ok(all.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect())
}

/// Cuts a text into statements, each checked as far as tokens show.
pub(super) fn statements(text: &str) -> Result<Vec<Piece>> {
    let mut places = Places::new(text);
    let tokens = tokens(text)?;
    let mut pieces = vec![];
    refuse_hints(text, &tokens)?;
    for tokens in tokens.split(|t| t.token == Token::SemiColon) {
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { continue };
        let (begin, end) = (places.offset(first.span.start), places.offset(last.span.end));
        let mut tokens = tokens.to_vec();
        refuse_reserved(&tokens)?;
        refuse_depth(&tokens)?;
        let has_parameters = number_parameters(&mut tokens)?;
        pieces.push(Piece { text: text[begin..end].to_string(), tokens, has_parameters });
    }
    Ok(pieces)
}

/// Turns the tokenizer's line and column, which count characters, into a byte offset. Goes on from the place last asked for, so that
/// rising places cost one walk over the text.
struct Places<'a> {
    text: &'a str,
    lines: Vec<usize>,
    last: (usize, usize, usize),
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, lines, last: (0, 0, 0) }
    }

    fn offset(&mut self, at: Location) -> usize {
        let (line, column) = ((at.line as usize).saturating_sub(1), (at.column as usize).saturating_sub(1));
        let Some(&start) = self.lines.get(line) else { return self.text.len() };
        let (walked, from) = match self.last {
            (last_line, last_column, offset) if last_line == line && last_column <= column => (last_column, offset),
            _ => (0, start),
        };
        let offset = self.text[from..].char_indices().nth(column - walked).map_or(self.text.len(), |(offset, _)| from + offset);
        self.last = (line, column, offset);
        offset
    }
}

/// The tokenizer reads `/*! … */` as MySQL does, as code; its tokens then have places inside a comment.
fn refuse_hints(text: &str, tokens: &[TokenWithSpan]) -> Result<()> {
    if !text.contains("/*!") {
        return Ok(());
    }
    let mut places = Places::new(text);
    match tokens.iter().find(|t| text[places.offset(t.span.start)..].starts_with("/*!")) {
        Some(hint) => Err(Error::Invalid(format!("a comment that begins with /*! is code in MySQL{}: write /* … */", syntax::place(hint)))),
        None => Ok(()),
    }
}

fn refuse_reserved(tokens: &[TokenWithSpan]) -> Result<()> {
    for token in tokens {
        if let Token::Word(word) = &token.token
            && word.value.starts_with(RESERVED)
        {
            return Err(Error::Invalid(format!(
                "names that begin with two underscores are reserved: {}{}; use another name",
                syntax::shown(&token.token),
                syntax::place(token)
            )));
        }
    }
    Ok(())
}

fn refuse_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut chain = vec![0_usize];
    let mut set_operators = 0;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => chain.push(0),
            Token::RParen | Token::RBracket | Token::RBrace if chain.len() > 1 => {
                chain.pop();
            }
            Token::Comma => {
                if let Some(top) = chain.last_mut() {
                    *top = 0;
                }
            }
            Token::Word(Word { keyword: Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS, .. }) => set_operators += 1,
            _ => {}
        }
        if let Some(top) = chain.last_mut() {
            *top += 1;
            if *top > LONGEST_EXPRESSION {
                return Err(Error::Invalid(format!(
                    "an expression is longer than {LONGEST_EXPRESSION} words{}: use IN (…), a join with VALUES, or views for its parts",
                    syntax::place(token)
                )));
            }
        }
        if set_operators > MOST_SET_OPERATORS {
            return Err(Error::Invalid(format!("a statement can have {MOST_SET_OPERATORS} UNION, EXCEPT and INTERSECT: use VALUES, or views for its parts")));
        }
    }
    Ok(())
}

/// Numbers `?` as `$1`, `$2`, … in the order of the text. True if there are parameters of either spelling.
fn number_parameters(tokens: &mut [TokenWithSpan]) -> Result<bool> {
    let mut count = 0;
    let mut named = false;
    for token in tokens {
        let at = syntax::place(token);
        let Token::Placeholder(spelling) = &mut token.token else { continue };
        match spelling.as_str() {
            "?" => {
                count += 1;
                *spelling = format!("${count}");
            }
            s if s.starts_with('$') && s[1..].parse::<u16>().is_ok_and(|n| n > 0) => named = true,
            other => return Err(Error::Invalid(format!("a parameter is written ? or $1, $2, …, not {other}{at}"))),
        }
        if count > 0 && named {
            return Err(Error::Invalid(format!("the statement mixes ? and $n as parameters{at}: use one of them throughout")));
        }
    }
    Ok(count > 0 || named)
}
