//! Spark's form: `GROUP BY window(ts, '10 minutes' [, '5 minutes' [, 'offset']])` and `GROUP BY session_window(ts, '5 minutes')`, with
//! `window`, `window.start` and `window.end` elsewhere in the query.
//!
//! The one relation in FROM is put into the subquery of `TUMBLE`, `HOP` or `SESSION`, the call becomes the columns that it adds, and
//! `window` as a whole a struct of both. Sessions are apart by the other columns of GROUP BY, and made of the rows that pass WHERE.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName, ObjectNamePart, OrderBy, OrderByExpr,
    OrderByKind, Query, Select, SelectItem, TableAlias, TableFactor, Value, ValueWithSpan, VisitMut, VisitorMut,
};

use super::{
    super::interval,
    subquery::{self, Kind, Windowed},
};
use crate::error::{Error, Result};

const WINDOW: &str = "window";
const SESSION_WINDOW: &str = "session_window";

/// Whether a name is one of the two functions.
pub(super) fn is_window(name: &ObjectName) -> bool {
    function_name(name).is_some()
}

fn function_name(name: &ObjectName) -> Option<&'static str> {
    let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
    [WINDOW, SESSION_WINDOW].into_iter().find(|known| name.value.eq_ignore_ascii_case(known))
}

/// Rewrites a SELECT that groups by such a call, with the ORDER BY behind it. One that doesn't stays as it is, so that a column may be
/// called `window`.
pub(super) fn rewrite(select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return Ok(()) };
    let calls: Vec<usize> = (0..groups.len()).filter(|at| call_name(&groups[*at]).is_some()).collect();
    let (at, name) = match calls.as_slice() {
        [] => return Ok(()),
        [at] => match call_name(&groups[*at]) {
            Some(name) => (*at, name),
            None => return Ok(()),
        },
        _ => return Err(Error::Invalid("a query groups by one window: put one of them into a subquery".into())),
    };
    let call = groups.remove(at);
    let columns = ["window_start", "window_end"].map(|column| Expr::Identifier(Ident::new(column)));
    let keys = groups.clone();
    groups.splice(at..at, columns);

    let keys = match name {
        SESSION_WINDOW => keys.iter().map(|key| session_key(key, &select.projection)).collect::<Result<_>>()?,
        _ => vec![],
    };
    let [from] = select.from.as_mut_slice() else { return Err(one_relation(name)) };
    if !from.joins.is_empty() {
        return Err(one_relation(name));
    }
    let windowed = windowed(name, &call, &from.relation)?;
    let filter = if name == SESSION_WINDOW { select.selection.take() } else { None };
    from.relation = Windowed { keys, filter, ..windowed }.subquery()?;

    let mut names = Names { call: &call, name, depth: 0 };
    for item in &mut select.projection {
        names.item(item)?;
    }
    for expr in [&mut select.having, &mut select.qualify].into_iter().flatten() {
        names.replace(expr)?;
    }
    if let Some(OrderBy { kind: OrderByKind::Expressions(order), .. }) = order_by {
        names.order(order)?;
    }
    Ok(())
}

fn one_relation(name: &str) -> Error {
    Error::Invalid(format!(
        "GROUP BY {name}(…) is over one table: put the join into a subquery, FROM (SELECT … FROM a JOIN b ON …) AS j, or use TUMBLE, HOP or SESSION in FROM"
    ))
}

fn call_name(expr: &Expr) -> Option<&'static str> {
    match expr {
        Expr::Function(Function { name, over: None, .. }) => function_name(name),
        _ => None,
    }
}

/// The relation with the windows that a call asks for.
fn windowed(name: &'static str, call: &Expr, relation: &TableFactor) -> Result<Windowed> {
    let form = match name {
        SESSION_WINDOW => "session_window(ts, '5 minutes')",
        _ => "window(ts, '10 minutes'), perhaps with a slide and an offset",
    };
    let wrong = || Error::Invalid(format!("{call} is no window: write {form}"));
    let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = call else { return Err(wrong()) };
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value.clone()),
        _ => None,
    };
    let args = list.args.iter().map(plain).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
    let length = |what: &str, expr: &Expr| interval::spark(&format!("the {what} of a window"), expr);
    let (kind, time, lengths) = match (name, args.as_slice()) {
        (SESSION_WINDOW, [time, gap]) => (Kind::Session, time, vec![length("gap", gap)?]),
        (WINDOW, [time, size]) => (Kind::Tumble, time, vec![length("size", size)?]),
        (WINDOW, [time, size, slide]) => (Kind::Hop, time, vec![length("slide", slide)?, length("size", size)?]),
        (WINDOW, [time, size, slide, offset]) => (Kind::Hop, time, vec![length("slide", slide)?, length("size", size)?, length("offset", offset)?]),
        _ => return Err(wrong()),
    };
    let mut windowed = Windowed { kind, source: relation.clone(), time: time.clone(), lengths, keys: vec![], filter: None, alias: alias(relation) };
    // That is how Spark writes tumbling windows with an offset.
    if kind == Kind::Hop
        && interval::literal_ns("the slide of a window", &windowed.lengths[0])? == interval::literal_ns("the size of a window", &windowed.lengths[1])?
    {
        windowed.kind = Kind::Tumble;
        windowed.lengths.remove(0);
    }
    Ok(windowed)
}

/// The name that a relation goes by, for what it is put into.
fn alias(relation: &TableFactor) -> Option<TableAlias> {
    let named = |name: &Ident| TableAlias { explicit: true, name: name.clone(), columns: vec![], at: None };
    match relation {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. }
        | TableFactor::TableFunction { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. } => Some(named(&alias.name)),
        TableFactor::Table { name, args: None, .. } => match name.0.last() {
            Some(ObjectNamePart::Identifier(name)) => Some(named(name)),
            _ => None,
        },
        _ => None,
    }
}

/// A GROUP BY column as it can be computed before the grouping.
fn session_key(key: &Expr, projection: &[SelectItem]) -> Result<Expr> {
    let refuse = |why: &str| Err(Error::Invalid(format!("GROUP BY {key} beside session_window: {why}")));
    match key {
        Expr::Value(ValueWithSpan { value: Value::Number(number, _), .. }) => {
            let position = number.to_string().parse::<usize>().ok().and_then(|n| n.checked_sub(1));
            match position.and_then(|position| projection.get(position)) {
                Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => Ok(expr.clone()),
                _ => refuse("that place of SELECT holds no expression: write the column's name"),
            }
        }
        Expr::Identifier(name) => {
            let hides = |item: &&SelectItem| match item {
                SelectItem::ExprWithAlias { expr, alias } => same_name(alias, name) && !is_column(expr, name),
                _ => false,
            };
            match projection.iter().find(hides) {
                Some(_) => refuse("that is an alias of SELECT, and sessions are made before it: write the expression itself"),
                None => Ok(key.clone()),
            }
        }
        Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_) => {
            refuse("sessions need to know which columns they are apart by: write one query for each grouping")
        }
        other => Ok(other.clone()),
    }
}

fn same_name(a: &Ident, b: &Ident) -> bool {
    super::super::names::fold(a) == super::super::names::fold(b)
}

fn is_column(expr: &Expr, name: &Ident) -> bool {
    match expr {
        Expr::Identifier(column) => same_name(column, name),
        Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|column| same_name(column, name)),
        _ => false,
    }
}

/// Which end of the window a name or a call with a field stands for, or the window as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    Start,
    End,
}

/// Replaces what names the window.
struct Names<'a> {
    call: &'a Expr,
    name: &'static str,
    /// How many subqueries deep; there `window` is another one's.
    depth: usize,
}

impl Names<'_> {
    fn part(&self, expr: &Expr) -> Option<Part> {
        let field = |field: &Ident| match super::super::names::fold(field).as_str() {
            "start" => Some(Part::Start),
            "end" => Some(Part::End),
            _ => None,
        };
        let is_name = |ident: &Ident| super::super::names::fold(ident) == self.name;
        match expr {
            Expr::Identifier(name) if is_name(name) => Some(Part::Whole),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [name, end] if is_name(name) => field(end),
                _ => None,
            },
            Expr::CompoundFieldAccess { root, access_chain } if root.as_ref() == self.call => match access_chain.as_slice() {
                [AccessExpr::Dot(Expr::Identifier(end))] => field(end),
                _ => None,
            },
            other if other == self.call => Some(Part::Whole),
            _ => None,
        }
    }

    fn replace(&mut self, expr: &mut Expr) -> Result<()> {
        match VisitMut::visit(expr, self) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }

    /// An item of SELECT; without an alias it is called as Spark calls it.
    fn item(&mut self, item: &mut SelectItem) -> Result<()> {
        let part = match item {
            SelectItem::UnnamedExpr(expr) => self.part(expr),
            _ => None,
        };
        match item {
            SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } | SelectItem::ExprWithAliases { expr, .. } => self.replace(expr)?,
            SelectItem::QualifiedWildcard(..) | SelectItem::Wildcard(_) => {}
        }
        let alias = match part {
            None => return Ok(()),
            Some(Part::Whole) => self.name,
            Some(Part::Start) => "start",
            Some(Part::End) => "end",
        };
        if let SelectItem::UnnamedExpr(expr) = item {
            // Quoted, since `window` and `end` are words of SQL.
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', alias) };
        }
        Ok(())
    }

    /// The window as a whole is ordered by its start and then its end.
    fn order(&mut self, order: &mut Vec<OrderByExpr>) -> Result<()> {
        let mut ordered = Vec::with_capacity(order.len());
        for mut item in std::mem::take(order) {
            if self.part(&item.expr) == Some(Part::Whole) {
                for column in ["window_start", "window_end"] {
                    ordered.push(OrderByExpr { expr: Expr::Identifier(Ident::new(column)), ..item.clone() });
                }
            } else {
                self.replace(&mut item.expr)?;
                ordered.push(item);
            }
        }
        *order = ordered;
        Ok(())
    }
}

impl VisitorMut for Names<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Some(part) = self.part(expr).filter(|_| self.depth == 0) else { return ControlFlow::Continue(()) };
        let text = match part {
            Part::Whole => "named_struct('start', window_start, 'end', window_end)",
            Part::Start => "window_start",
            Part::End => "window_end",
        };
        match subquery::expression(text) {
            Ok(replacement) => {
                *expr = replacement;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(error),
        }
    }
}
