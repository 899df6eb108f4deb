//! The subquery that a window function becomes, out of a template with stand-ins for the user's parts.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::{
    ast::{Expr, Ident, ObjectName, ObjectNamePart, SetExpr, TableAlias, TableFactor, VisitMut, VisitorMut},
    parser::Parser,
};
use tidegate_udfs::window::Windows;

use super::super::{dialect::dialect_of, interval, lexer, syntax};
use crate::error::{Error, Result};

/// The window functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Tumble, Self::Hop, Self::Cumulate, Self::Session];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE",
            Self::Hop => "HOP",
            Self::Cumulate => "CUMULATE",
            Self::Session => "SESSION",
        }
    }

    /// How it is written.
    pub(super) fn form(self) -> &'static str {
        match self {
            Self::Tumble => "TUMBLE(table, timestamp column, INTERVAL '1 minute') in FROM",
            Self::Hop => "HOP(table, timestamp column, INTERVAL '1 minute', INTERVAL '5 minutes') in FROM, the slide first, then the size",
            Self::Cumulate => "CUMULATE(table, timestamp column, INTERVAL '10 minutes', INTERVAL '1 hour') in FROM, the step first, then the size",
            Self::Session => "SESSION(table PARTITION BY key, timestamp column, INTERVAL '5 minutes') in FROM",
        }
    }

    /// Its lengths in the order in which they are written, by the names that Flink gives them. The last may be left out if it is an offset.
    pub(super) fn lengths(self) -> &'static [&'static str] {
        match self {
            Self::Tumble => &["size", "offset"],
            Self::Hop => &["slide", "size", "offset"],
            Self::Cumulate => &["step", "size", "offset"],
            Self::Session => &["gap"],
        }
    }
}

/// A relation with windows.
#[derive(Debug)]
pub(super) struct Windowed {
    pub(super) kind: Kind,
    /// What the rows come from.
    pub(super) source: TableFactor,
    /// Their time.
    pub(super) time: Expr,
    /// As in [`Kind::lengths`], as many as are said.
    pub(super) lengths: Vec<Expr>,
    /// What sessions are apart by.
    pub(super) keys: Vec<Expr>,
    /// Which rows take part; sessions only, elsewhere the rows can be filtered as well outside.
    pub(super) filter: Option<Expr>,
    /// What the result goes by.
    pub(super) alias: Option<TableAlias>,
}

impl Windowed {
    /// The subquery; the lengths are checked.
    pub(super) fn subquery(mut self) -> Result<TableFactor> {
        self.check_lengths()?;
        if matches!(self.kind, Kind::Hop | Kind::Cumulate) {
            // The functions take the size first.
            self.lengths.swap(0, 1);
        }
        let lengths = stand_ins("length", self.lengths.len());
        let keys = stand_ins("key", self.keys.len());
        let select = match self.kind {
            Kind::Tumble => format!("SELECT *, __window_start(__time, {lengths}) AS window_start, __window_end(__time, {lengths}) AS window_end FROM __source"),
            Kind::Hop | Kind::Cumulate => {
                let prefix = if self.kind == Kind::Hop { "__hop" } else { "__cumulate" };
                format!(
                    "SELECT * EXCLUDE (__window), {prefix}_start(__window, {lengths}) AS window_start, __window AS window_end \
                     FROM (SELECT *, unnest({prefix}_ends(__time, {lengths})) AS __window FROM __source)"
                )
            }
            Kind::Session => {
                let partition = if keys.is_empty() { String::new() } else { format!("PARTITION BY {keys} ") };
                let filter = if self.filter.is_some() { " WHERE __filter" } else { "" };
                format!(
                    "SELECT *, __session_start(__time, {lengths}) OVER ({partition}ORDER BY __time) AS window_start, \
                     __session_end(__time, {lengths}) OVER ({partition}ORDER BY __time) AS window_end FROM __source{filter}"
                )
            }
        };
        let mut factor = relation(&format!("SELECT * FROM ({select})"))?;
        let TableFactor::Derived { alias, .. } = &mut factor else { return Err(unlike()) };
        *alias = self.alias.take();
        match VisitMut::visit(&mut factor, &mut Filler(self)) {
            ControlFlow::Continue(()) => Ok(factor),
            ControlFlow::Break(error) => Err(error),
        }
    }

    fn check_lengths(&self) -> Result<()> {
        let names = self.kind.lengths();
        let mut ns = [0_i64; 3];
        for ((ns, name), length) in ns.iter_mut().zip(names).zip(&self.lengths) {
            let what = if *name == "offset" { "the offset of windows".to_string() } else { format!("the {name} of a window") };
            *ns = interval::literal_ns(&what, length)?;
        }
        let windows = match (self.kind, ns) {
            (Kind::Tumble, [size, offset, _]) => Windows::tumble(size, offset),
            (Kind::Hop, [slide, size, offset]) => Windows::hop(size, slide, offset),
            (Kind::Cumulate, [step, size, offset]) => Windows::cumulate(size, step, offset),
            (Kind::Session, [gap, ..]) if gap > 0 => return Ok(()),
            (Kind::Session, _) => return Err(Error::Invalid(format!("the gap of sessions must be positive, not {}", self.lengths[0]))),
        };
        match windows {
            Ok(_) => Ok(()),
            Err(why) => Err(Error::Invalid(format!("{why}; this is {}", self.kind.form()))),
        }
    }
}

/// A table by its name, as it can stand in FROM.
pub(super) fn table(parts: Vec<Ident>) -> Result<TableFactor> {
    let mut factor = relation("SELECT * FROM __source")?;
    if let TableFactor::Table { name, .. } = &mut factor {
        *name = ObjectName(parts.into_iter().map(ObjectNamePart::Identifier).collect());
    }
    Ok(factor)
}

/// An expression that has no part of the user's.
pub(super) fn expression(text: &str) -> Result<Expr> {
    let tokens = lexer::tokens(text)?;
    Parser::new(dialect_of(&tokens)).with_tokens_with_locations(tokens).parse_expr().map_err(syntax::from_parser)
}

fn stand_ins(what: &str, count: usize) -> String {
    (0..count).map(|n| format!("__{what}{n}")).collect::<Vec<_>>().join(", ")
}

/// The one relation of a query.
fn relation(query: &str) -> Result<TableFactor> {
    let tokens = lexer::tokens(query)?;
    let mut parser = Parser::new(dialect_of(&tokens)).with_tokens_with_locations(tokens);
    match *parser.parse_query().map_err(syntax::from_parser)?.body {
        SetExpr::Select(mut select) => select.from.pop().map(|from| from.relation).ok_or_else(unlike),
        _ => Err(unlike()),
    }
}

/// Puts the user's parts in the place of their stand-ins. After the children were visited, so that it never looks into a user's part.
struct Filler(Windowed);

impl VisitorMut for Filler {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Identifier(Ident { value, .. }) = expr else { return ControlFlow::Continue(()) };
        let numbered = |prefix: &str, values: &[Expr]| value.strip_prefix(prefix).and_then(|n| values.get(n.parse::<usize>().ok()?).cloned());
        let part = match value.as_str() {
            "__time" => Some(self.0.time.clone()),
            "__filter" => self.0.filter.clone(),
            _ => numbered("__length", &self.0.lengths).or_else(|| numbered("__key", &self.0.keys)),
        };
        if let Some(part) = part {
            *expr = part;
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        if matches!(factor, TableFactor::Table { name, .. } if name.to_string() == "__source") {
            *factor = self.0.source.clone();
        }
        ControlFlow::Continue(())
    }
}

fn unlike() -> Error {
    Error::Internal("the template of a window function reads unlike it was written".into())
}
