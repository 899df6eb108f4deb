//! Window functions, rewritten on the syntax tree.
//!
//! * In FROM (`function`): `TUMBLE(t, ts, INTERVAL '1 minute') AS e`, also in Flink's form
//!   `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) AS e`; likewise `HOP`, `CUMULATE` and `SESSION`.
//! * In GROUP BY (`spark`): `window(ts, '10 minutes')` and `session_window(ts, '5 minutes')`.
//!
//! What they become (`subquery`) is a subquery that adds the columns `window_start` and `window_end`, as in
//! `(SELECT *, __window_start(ts, …) AS window_start, __window_end(ts, …) AS window_end FROM t) AS e`.
//!
//! On the syntax tree, since DataFusion looks tables up before it plans, from the relations it sees there, and a table that is named only
//! inside a function's arguments is not among them. Parts of the user's query are moved, never pasted as text.

mod function;
mod spark;
mod subquery;

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::{CopyToSource, Statement as DataFusionStatement},
    sqlparser::{
        ast::{Expr, Function, ObjectName, ObjectNamePart, Query, Select, SetExpr, TableFactor, VisitMut, VisitorMut},
        tokenizer::{Token, TokenWithSpan},
    },
};

use self::subquery::Kind;
use super::{cursor::is_word, system_time};
use crate::error::{Error, Result};

/// Stands between the table of a window function and its PARTITION BY columns, as an argument. Users can't write it: it begins as our
/// reserved names do.
const PARTITION_BY: &str = "__partition_by";

/// Rewrites all window functions of a query.
pub(super) fn rewrite(query: &mut Query) -> Result<()> {
    visit(query)
}

/// Rewrites all window functions of a statement of DataFusion's.
pub(super) fn rewrite_statement(statement: &mut DataFusionStatement) -> Result<()> {
    match statement {
        DataFusionStatement::Statement(inner) => visit(inner.as_mut()),
        DataFusionStatement::Explain(explain) => rewrite_statement(&mut explain.statement),
        DataFusionStatement::CopyTo(copy) => match &mut copy.source {
            CopyToSource::Query(query) => visit(query.as_mut()),
            CopyToSource::Relation(_) => Ok(()),
        },
        DataFusionStatement::CreateExternalTable(_) | DataFusionStatement::Reset(_) => Ok(()),
    }
}

fn visit(tree: &mut impl VisitMut) -> Result<()> {
    match tree.visit(&mut Rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// Flink writes `TUMBLE(TABLE t, …)` and `SESSION(TABLE t PARTITION BY a, …)`, where sqlparser expects plain arguments. So before parsing
/// the word TABLE goes, and PARTITION BY becomes an argument that marks those after it.
pub(super) fn plain_arguments(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut plain = Vec::with_capacity(tokens.len());
    // For each open parenthesis, whether it is a window function's.
    let mut open: Vec<bool> = vec![];
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let after = |n: usize| tokens.get(at + n).map(|t| &t.token);
        let before = |n: usize| at.checked_sub(n).map(|at| &tokens[at].token);
        let in_function = open.last() == Some(&true);
        let begins = matches!(before(1), Some(Token::LParen)) || (matches!(before(1), Some(Token::RArrow)) && before(2).is_some_and(|t| is_word(t, "DATA")));
        match &token.token {
            Token::LParen => open.push(before(1).is_some_and(is_window_function)),
            Token::RParen => {
                open.pop();
            }
            word if in_function && begins && is_word(word, "TABLE") && matches!(after(1), Some(Token::Word(_) | Token::LParen)) => {
                at += 1;
                continue;
            }
            word if in_function && is_word(word, "PARTITION") && after(1).is_some_and(|next| is_word(next, "BY")) => {
                let span = token.span;
                plain.extend([Token::Comma, Token::make_word(PARTITION_BY, None), Token::Comma].map(|token| TokenWithSpan { token, span }));
                at += 2;
                continue;
            }
            _ => {}
        }
        plain.push(token.clone());
        at += 1;
    }
    plain
}

fn is_window_function(token: &Token) -> bool {
    Kind::ALL.iter().any(|kind| is_word(token, kind.name()))
}

/// Which window function a name is.
fn window_function(name: &ObjectName) -> Option<Kind> {
    let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
    Kind::ALL.into_iter().find(|kind| name.value.eq_ignore_ascii_case(kind.name()))
}

struct Rewriter;

impl Rewriter {
    fn go(result: Result<()>) -> ControlFlow<Error> {
        match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

// Before the parts are visited, so that what is inside of an argument is visited in its new place.
impl VisitorMut for Rewriter {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        // sqlparser takes statements that write for queries, so that they can stand in WITH.
        let writes = match query.body.as_mut() {
            SetExpr::Insert(_) => "INSERT",
            SetExpr::Update(_) => "UPDATE",
            SetExpr::Delete(_) => "DELETE",
            SetExpr::Merge(_) => "MERGE",
            SetExpr::Select(select) if select.into.is_some() => "SELECT INTO",
            SetExpr::Select(select) => return Self::go(spark::rewrite(select, query.order_by.as_mut())),
            _ => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(Error::Invalid(format!("a query reads, it can't {writes}: write a SELECT")))
    }

    // For the branches of a UNION; what `pre_visit_query` has rewritten already has no such call any more.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        Self::go(system_time::rewrite(select).and_then(|()| spark::rewrite(select, None)))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        Self::go(function::rewrite(factor))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Function(Function { name, .. }) = expr else { return ControlFlow::Continue(()) };
        let message = match window_function(name) {
            Some(kind) => format!("{name} is a table, not a value: write {}, and group by window_start and window_end, which it adds", kind.form()),
            None if spark::is_window(name) => {
                format!("{name}(…) stands in GROUP BY, and elsewhere only as it stands there: write GROUP BY {name}(ts, '10 minutes')")
            }
            None => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(Error::Invalid(message))
    }
}
