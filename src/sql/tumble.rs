//! Window functions in FROM, rewritten on the syntax tree.
//!
//! `TUMBLE(t, ts, INTERVAL '1 minute') AS e` and Flink's `TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)) AS e` become
//! `(SELECT *, __window_start(ts, …) AS window_start, __window_end(ts, …) AS window_end FROM t) AS e`.
//!
//! On the syntax tree, since DataFusion looks tables up before it plans, from the relations it sees there, and a table that is named only
//! inside a function's arguments is not among them. Parts of the user's query are moved, never pasted as text.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::{CopyToSource, Statement as DataFusionStatement},
    sqlparser::{
        ast::{
            Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr, TableAlias,
            TableFactor, VisitMut, VisitorMut,
        },
        parser::Parser,
        tokenizer::{Token, TokenWithSpan},
    },
};

use super::{
    cursor::{DIALECT, is_word},
    interval, lexer, syntax,
};
use crate::error::{Error, Result};

const FORM: &str = "TUMBLE(table, timestamp column, INTERVAL '1 minute') in FROM";
/// What the rewriting yields, with stand-ins for the user's parts.
const TEMPLATE: &str = "SELECT * FROM (SELECT *, __window_start(time, size) AS window_start, __window_end(time, size) AS window_end FROM source) AS alias";

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

/// Flink writes `TUMBLE(TABLE t, …)`, where sqlparser expects an expression: the word TABLE goes before parsing.
pub(super) fn without_table_keyword(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let superfluous = |at: usize| {
        let before = |n: usize| at.checked_sub(n).map(|at| &tokens[at].token);
        let opens = matches!(before(1), Some(Token::LParen)) && before(2).is_some_and(is_window_function);
        let named = matches!(before(1), Some(Token::RArrow)) && before(2).is_some_and(|t| is_word(t, "DATA"));
        is_word(&tokens[at].token, "TABLE") && (opens || named) && matches!(tokens.get(at + 1).map(|t| &t.token), Some(Token::Word(_)))
    };
    let drop: Vec<bool> = (0..tokens.len()).map(superfluous).collect();
    tokens.into_iter().zip(drop).filter(|(_, drop)| !drop).map(|(token, _)| token).collect()
}

fn is_window_function(token: &Token) -> bool {
    ["TUMBLE", "HOP", "SESSION", "CUMULATE"].iter().any(|name| is_word(token, name))
}

/// Which window function a name is, in upper case.
fn window_function(name: &ObjectName) -> Option<&'static str> {
    let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
    ["TUMBLE", "HOP", "SESSION", "CUMULATE"].into_iter().find(|known| name.value.eq_ignore_ascii_case(known))
}

struct Rewriter;

impl VisitorMut for Rewriter {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        // sqlparser takes statements that write for queries, so that they can stand in WITH.
        let writes = match query.body.as_ref() {
            SetExpr::Insert(_) => "INSERT",
            SetExpr::Update(_) => "UPDATE",
            SetExpr::Delete(_) => "DELETE",
            SetExpr::Merge(_) => "MERGE",
            SetExpr::Select(select) if select.into.is_some() => "SELECT INTO",
            _ => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(Error::Invalid(format!("a query reads, it can't {writes}: write a SELECT")))
    }

    // Before the parts are visited, so that what is inside of an argument is visited in its new place.
    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        match rewritten(factor) {
            Ok(None) => ControlFlow::Continue(()),
            Ok(Some(new)) => {
                *factor = new;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Function(Function { name, .. }) if window_function(name).is_some() => ControlFlow::Break(Error::Invalid(format!(
                "{name} is a table, not a value: write {FORM}, and group by window_start and window_end, which it adds"
            ))),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// What becomes of a table factor; `None`: it is no window function.
fn rewritten(factor: &TableFactor) -> Result<Option<TableFactor>> {
    let (name, args, alias, plain) = match factor {
        TableFactor::Table { name, args: Some(args), alias, with_hints, version, with_ordinality, sample, .. } => {
            let plain = args.settings.is_none() && with_hints.is_empty() && version.is_none() && !with_ordinality && sample.is_none();
            (name, args.args.as_slice(), alias, plain)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => (name, args.as_slice(), alias, !with_ordinality),
        TableFactor::TableFunction { expr: Expr::Function(function), alias } => match &function.args {
            FunctionArguments::List(list) => (&function.name, list.args.as_slice(), alias, list.clauses.is_empty() && function.over.is_none()),
            _ => (&function.name, [].as_slice(), alias, false),
        },
        _ => return Ok(None),
    };
    match window_function(name) {
        None => Ok(None),
        Some("TUMBLE") if plain => tumble(args, alias.as_ref()).map(Some),
        Some("TUMBLE") => Err(Error::Invalid(format!("TUMBLE takes no such clause in {factor}: write {FORM}"))),
        Some(other) => Err(Error::Unsupported(format!("{other} windows are not supported yet: write {FORM}"))),
    }
}

fn tumble(args: &[FunctionArg], alias: Option<&TableAlias>) -> Result<TableFactor> {
    let args = ordered(args)?;
    let [table, time, lengths @ ..] = args.as_slice() else { return Err(wrong_count(args.len())) };
    if !(1..=2).contains(&lengths.len()) {
        return Err(wrong_count(args.len()));
    }
    if interval::literal_ns("the size of a window", lengths[0])? <= 0 {
        return Err(Error::Invalid(format!("the size of a window must be positive, not {}", lengths[0])));
    }
    if let Some(offset) = lengths.get(1) {
        interval::literal_ns("the offset of windows", offset)?;
    }
    let (source, own_name) = source(table)?;
    let alias = alias.cloned().or_else(|| own_name.map(|name| TableAlias { explicit: true, name, columns: vec![], at: None }));
    let mut values = vec![time_column(time)?];
    values.extend(lengths.iter().map(|length| (*length).clone()));
    fill(source, values, alias)
}

fn wrong_count(count: usize) -> Error {
    Error::Invalid(format!("TUMBLE takes a table, a timestamp column, an INTERVAL and perhaps an offset, not {count} arguments: write {FORM}"))
}

/// The arguments in order; Flink's may be named.
fn ordered(args: &[FunctionArg]) -> Result<Vec<&Expr>> {
    const NAMES: [&str; 4] = ["data", "timecol", "size", "offset"];
    let mut slots: [Option<&Expr>; 4] = [None; 4];
    for (position, arg) in args.iter().enumerate() {
        let (slot, value) = match arg {
            FunctionArg::Unnamed(value) => (position, value),
            FunctionArg::Named { name: Ident { value: name, .. }, arg, .. }
            | FunctionArg::ExprNamed { name: Expr::Identifier(Ident { value: name, .. }), arg, .. } => {
                match NAMES.iter().position(|known| name.eq_ignore_ascii_case(known)) {
                    Some(slot) => (slot, arg),
                    None => return Err(Error::Invalid(format!("TUMBLE has no argument called {name}: they are DATA, TIMECOL, SIZE and OFFSET"))),
                }
            }
            other => return Err(Error::Invalid(format!("TUMBLE can't take {other} as an argument: write {FORM}"))),
        };
        let FunctionArgExpr::Expr(value) = value else {
            return Err(Error::Invalid(format!("TUMBLE can't take {value} as an argument: write {FORM}")));
        };
        match slots.get_mut(slot) {
            None => return Err(wrong_count(args.len())),
            Some(Some(_)) => return Err(Error::Invalid(format!("TUMBLE has its {} twice: write {FORM}", NAMES[slot].to_uppercase()))),
            Some(empty) => *empty = Some(value),
        }
    }
    match slots.iter().rposition(Option::is_some) {
        Some(last) if slots[..last].iter().all(Option::is_some) => Ok(slots.into_iter().flatten().collect()),
        _ => Err(wrong_count(args.len())),
    }
}

/// The table argument as something that can stand in FROM, and the name that it goes by without an alias.
fn source(table: &Expr) -> Result<(TableFactor, Option<Ident>)> {
    let parts = match table {
        Expr::Identifier(name) => vec![name.clone()],
        Expr::CompoundIdentifier(parts) => parts.clone(),
        Expr::Subquery(query) => return Ok((TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None }, None)),
        Expr::Nested(inner) => return source(inner),
        Expr::Function(function) => {
            return Err(Error::Invalid(format!("the first argument of TUMBLE is a table, not {function}: put it into a subquery, (SELECT * FROM {function})")));
        }
        other => return Err(Error::Invalid(format!("the first argument of TUMBLE is a table, not {other}: write {FORM}"))),
    };
    let own_name = parts.last().cloned();
    let mut factor = template_source()?;
    if let TableFactor::Table { name, .. } = &mut factor {
        *name = ObjectName(parts.into_iter().map(ObjectNamePart::Identifier).collect());
    }
    Ok((factor, own_name))
}

fn time_column(time: &Expr) -> Result<Expr> {
    match time {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(time.clone()),
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) if name.to_string().eq_ignore_ascii_case("descriptor") => {
            match list.args.as_slice() {
                [FunctionArg::Unnamed(FunctionArgExpr::Expr(column @ Expr::Identifier(_)))] => Ok(column.clone()),
                _ => Err(Error::Invalid(format!("DESCRIPTOR takes one column: write DESCRIPTOR(ts), not {time}"))),
            }
        }
        other => {
            Err(Error::Invalid(format!("the second argument of TUMBLE is a timestamp column, not {other}: write {FORM}, or compute the column in a subquery")))
        }
    }
}

/// The template with the user's parts in the place of its stand-ins.
fn fill(source: TableFactor, values: Vec<Expr>, new_alias: Option<TableAlias>) -> Result<TableFactor> {
    let mut factor = template()?;
    let TableFactor::Derived { subquery, alias, .. } = &mut factor else { return Err(unlike()) };
    *alias = new_alias;
    let SetExpr::Select(select) = subquery.body.as_mut() else { return Err(unlike()) };
    for item in &mut select.projection {
        if let SelectItem::ExprWithAlias { expr: Expr::Function(Function { args: FunctionArguments::List(list), .. }), .. } = item {
            list.args = values.iter().map(|value| FunctionArg::Unnamed(FunctionArgExpr::Expr(value.clone()))).collect();
        }
    }
    match select.from.first_mut() {
        Some(from) => from.relation = source,
        None => return Err(unlike()),
    }
    Ok(factor)
}

fn template() -> Result<TableFactor> {
    let mut parser = Parser::new(&DIALECT).with_tokens_with_locations(lexer::tokens(TEMPLATE)?);
    match *parser.parse_query().map_err(syntax::from_parser)?.body {
        SetExpr::Select(mut select) => select.from.pop().map(|from| from.relation).ok_or_else(unlike),
        _ => Err(unlike()),
    }
}

fn template_source() -> Result<TableFactor> {
    let TableFactor::Derived { subquery, .. } = template()? else { return Err(unlike()) };
    match *subquery.body {
        SetExpr::Select(mut select) => select.from.pop().map(|from| from.relation).ok_or_else(unlike),
        _ => Err(unlike()),
    }
}

fn unlike() -> Error {
    Error::Internal("the template of a window function reads unlike it was written".into())
}
