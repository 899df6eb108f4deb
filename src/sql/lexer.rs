//! A text as statements, and a statement as tokens: numbers `?`, refuses reserved names and expressions that would exhaust the stack.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    keywords::Keyword,
    parser::ParserError,
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
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

/// A chain of operators becomes a tree as deep as the chain is long, and trees are walked and dropped by recursion. On a worker's stack of
/// 2 MiB a chain of 3,000 words passes from text to rows in an unoptimised build, one of 4,000 doesn't.
const LONGEST_EXPRESSION: usize = 2_000;
/// The same for joins, UNION, EXCEPT and INTERSECT, which make a plan deep.
const MOST_RELATIONS: usize = 200;
/// The same for queries, those in WITH and in parentheses among them.
const MOST_QUERIES: usize = 500;
/// Planning takes as long as the square of the number of a query's columns: some seconds with this many in an unoptimised build.
const MOST_COLUMNS: usize = 4_000;
/// EXPLAIN of an EXPLAIN is an error that only shows at the end of the road; the way there is a level deeper with each.
const MOST_EXPLAINS: usize = 8;

/// Cuts a text into tokens without blanks and comments.
pub(super) fn tokens(text: &str) -> Result<Vec<TokenWithSpan>> {
    let all = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().map_err(|e| syntax::from_parser(ParserError::from(e)))?;
    refuse_hints(text, &all)?;
    Ok(all.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect())
}

/// Where in a text a token's place is, in bytes.
pub(super) fn offset(text: &str, at: Location) -> usize {
    Places::new(text).offset(at)
}

/// The end of a statement's text, from the token on that has so many behind it, less one.
pub(super) fn last_tokens(text: &str, count: usize) -> Result<String> {
    let tokens = tokens(text)?;
    let begin = tokens.len().checked_sub(count).and_then(|first| tokens.get(first)).map_or(text.len(), |token| offset(text, token.span.start));
    Ok(text[begin..].to_string())
}

/// Cuts a text into statements, each checked as far as tokens show.
pub(super) fn statements(text: &str) -> Result<Vec<Piece>> {
    let mut places = Places::new(text);
    let tokens = tokens(text)?;
    let mut pieces = vec![];
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

/// How deep the expressions within one pair of parentheses are, counted in words.
#[derive(Default)]
struct Level {
    /// The expression that is being read.
    current: usize,
    /// The deepest one so far.
    deepest: usize,
    /// Whether commas separate relations here.
    in_from: bool,
    /// How many columns the SELECT has that is being read, if it is its list.
    selected: Option<usize>,
}

impl Level {
    fn next_expression(&mut self) {
        self.deepest = self.deepest.max(self.current);
        self.current = 0;
    }
}

fn refuse_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut outer: Vec<Level> = vec![];
    let mut level = Level::default();
    let (mut relations, mut queries, mut explains) = (0, 0, 0);
    for token in tokens {
        level.current += 1;
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => outer.push(std::mem::take(&mut level)),
            Token::RParen | Token::RBracket | Token::RBrace => {
                if let Some(around) = outer.pop() {
                    level.next_expression();
                    let inner = level.deepest;
                    level = around;
                    level.current += inner;
                }
            }
            Token::Comma => {
                if let Some(selected) = &mut level.selected {
                    *selected += 1;
                    if *selected > MOST_COLUMNS {
                        return Err(Error::Invalid(format!("a SELECT can have {MOST_COLUMNS} columns{}: select fewer, or an array", syntax::place(token))));
                    }
                }
                relations += usize::from(level.in_from);
                level.next_expression();
            }
            Token::Word(word) => match word.keyword {
                Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::MINUS | Keyword::JOIN => {
                    relations += 1;
                    level.next_expression();
                }
                Keyword::FROM => {
                    level.in_from = true;
                    level.selected = None;
                    level.next_expression();
                }
                Keyword::EXPLAIN => explains += 1,
                Keyword::SELECT => {
                    queries += 1;
                    level.in_from = false;
                    level.selected = Some(1);
                    level.next_expression();
                }
                Keyword::WHERE | Keyword::GROUP | Keyword::ORDER | Keyword::HAVING | Keyword::WINDOW | Keyword::LIMIT => {
                    level.in_from = false;
                    level.selected = None;
                    level.next_expression();
                }
                Keyword::ON | Keyword::WHEN | Keyword::THEN | Keyword::ELSE => level.next_expression(),
                _ => {}
            },
            _ => {}
        }
        if queries > MOST_QUERIES {
            return Err(Error::Invalid(format!("a statement can have {MOST_QUERIES} SELECTs{}: use VALUES, or views for its parts", syntax::place(token))));
        }
        if explains > MOST_EXPLAINS {
            return Err(Error::Invalid(format!("an EXPLAIN can't be explained{}", syntax::place(token))));
        }
        if level.current > LONGEST_EXPRESSION {
            return Err(Error::Invalid(format!(
                "an expression is longer than {LONGEST_EXPRESSION} words{}: use IN (…), a join with VALUES, or views for its parts",
                syntax::place(token)
            )));
        }
        if relations > MOST_RELATIONS {
            return Err(Error::Invalid(format!(
                "a statement can have {MOST_RELATIONS} joins, UNION, EXCEPT and INTERSECT{}: use VALUES, or views for its parts",
                syntax::place(token)
            )));
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
