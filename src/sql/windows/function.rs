//! Window functions in FROM: their arguments, in the short form and in Flink's.

use datafusion::sql::sqlparser::ast::{Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, TableAlias, TableFactor};

use tidegate_udfs::proctime::PROCTIME;

use super::{
    PARTITION_BY,
    subquery::{self, Kind, Windowed},
    window_function,
};
use crate::error::{Error, Result};

/// Rewrites a table factor if it is a window function.
pub(super) fn rewrite(factor: &mut TableFactor) -> Result<()> {
    let (name, args, alias, plain) = match &*factor {
        TableFactor::Table { name, args: Some(args), alias, with_hints, version, with_ordinality, sample, .. } => {
            let plain = args.settings.is_none() && with_hints.is_empty() && version.is_none() && !with_ordinality && sample.is_none();
            (name, args.args.as_slice(), alias, plain)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => (name, args.as_slice(), alias, !with_ordinality),
        TableFactor::TableFunction { expr: Expr::Function(function), alias } => match &function.args {
            FunctionArguments::List(list) => (&function.name, list.args.as_slice(), alias, list.clauses.is_empty() && function.over.is_none()),
            _ => (&function.name, [].as_slice(), alias, false),
        },
        _ => return Ok(()),
    };
    let Some(kind) = window_function(name) else { return Ok(()) };
    if !plain {
        return Err(Error::Invalid(format!("{name} takes no such clause in {factor}: write {}", kind.form())));
    }
    let Arguments { table, time, lengths, keys } = arguments(kind, args)?;
    let (source, own_name) = source(kind, table)?;
    let alias = alias.clone().or_else(|| own_name.map(|name| TableAlias { explicit: true, name, columns: vec![], at: None }));
    let windowed = Windowed {
        kind,
        source,
        time: time_column(kind, time)?,
        lengths: lengths.into_iter().cloned().collect(),
        keys: keys.into_iter().cloned().collect(),
        filter: None,
        alias,
    };
    *factor = windowed.subquery()?;
    Ok(())
}

/// What stands in a window function's parentheses.
struct Arguments<'a> {
    table: &'a Expr,
    time: &'a Expr,
    lengths: Vec<&'a Expr>,
    keys: Vec<&'a Expr>,
}

fn wrong_count(kind: Kind, count: usize) -> Error {
    let lengths = match kind {
        Kind::Tumble => "an INTERVAL and perhaps an offset",
        Kind::Hop | Kind::Cumulate => "two INTERVALs and perhaps an offset",
        Kind::Session => "an INTERVAL",
    };
    Error::Invalid(format!("{} takes a table, a timestamp column, {lengths}, not {count} arguments: write {}", kind.name(), kind.form()))
}

/// The arguments in order; Flink's may be named.
fn arguments(kind: Kind, args: &[FunctionArg]) -> Result<Arguments<'_>> {
    let (args, keys) = without_keys(kind, args)?;
    let names: Vec<&str> = ["data", "timecol"].iter().chain(kind.lengths()).copied().collect();
    let mut slots: Vec<Option<&Expr>> = vec![None; names.len()];
    for (position, arg) in args.iter().enumerate() {
        let (slot, value) = match arg {
            FunctionArg::Unnamed(value) => (position, value),
            FunctionArg::Named { name: Ident { value: name, .. }, arg, .. }
            | FunctionArg::ExprNamed { name: Expr::Identifier(Ident { value: name, .. }), arg, .. } => {
                match names.iter().position(|known| name.eq_ignore_ascii_case(known)) {
                    Some(slot) => (slot, arg),
                    None => {
                        let known = names.join(", ").to_uppercase();
                        return Err(Error::Invalid(format!("{} has no argument called {name}: they are {known}", kind.name())));
                    }
                }
            }
            other => return Err(Error::Invalid(format!("{} can't take {other} as an argument: write {}", kind.name(), kind.form()))),
        };
        let FunctionArgExpr::Expr(value) = value else {
            return Err(Error::Invalid(format!("{} can't take {value} as an argument: write {}", kind.name(), kind.form())));
        };
        match slots.get_mut(slot) {
            None => return Err(wrong_count(kind, args.len())),
            Some(Some(_)) => {
                return Err(Error::Invalid(format!("{} has its {} twice: write {}", kind.name(), names[slot].to_uppercase(), kind.form())));
            }
            Some(empty) => *empty = Some(value),
        }
    }
    // Only an offset may be left out.
    let needed = names.len() - usize::from(names.last() == Some(&"offset"));
    let mut values = slots[..needed].iter().copied().collect::<Option<Vec<_>>>().ok_or_else(|| wrong_count(kind, args.len()))?;
    values.extend(slots[needed..].iter().flatten().copied());
    match values.as_slice() {
        [table, time, lengths @ ..] => Ok(Arguments { table, time, lengths: lengths.to_vec(), keys }),
        _ => Err(wrong_count(kind, args.len())),
    }
}

/// Takes the PARTITION BY columns out. They stand between a marker and the first named argument; where none is named, and no parentheses
/// are around the columns, the last two arguments are the time and the gap.
fn without_keys(kind: Kind, args: &[FunctionArg]) -> Result<(Vec<&FunctionArg>, Vec<&Expr>)> {
    let is_marker = |arg: &FunctionArg| matches!(unnamed(arg), Some(Expr::Identifier(name)) if name.value == PARTITION_BY);
    let Some(marker) = args.iter().position(is_marker) else { return Ok((args.iter().collect(), vec![])) };
    if kind != Kind::Session {
        return Err(Error::Invalid(format!("only SESSION takes PARTITION BY, rows of {} windows are grouped by the query: leave it out", kind.name())));
    }
    let form = || Error::Invalid(format!("SESSION's PARTITION BY stands once, behind the table, before the column and the gap: write {}", kind.form()));
    let after = &args[marker + 1..];
    let first_named = after.iter().position(|arg| unnamed(arg).is_none());
    let count = match (first_named, after.first().and_then(unnamed)) {
        (_, Some(Expr::Tuple(_) | Expr::Nested(_))) => 1,
        (Some(named), _) => named,
        (None, _) => after.len().checked_sub(2).ok_or_else(form)?,
    };
    let mut keys = vec![];
    for arg in &after[..count] {
        match unnamed(arg) {
            Some(Expr::Tuple(several)) => keys.extend(several),
            Some(Expr::Nested(one)) => keys.push(one.as_ref()),
            Some(one) => keys.push(one),
            None => return Err(form()),
        }
    }
    if keys.is_empty() || after.iter().any(is_marker) {
        return Err(form());
    }
    if let Some(odd) = keys.iter().find(|key| !matches!(key, Expr::Identifier(_) | Expr::CompoundIdentifier(_))) {
        return Err(Error::Invalid(format!("SESSION is partitioned by columns, not by {odd}: compute it in a subquery")));
    }
    Ok((args[..marker].iter().chain(&after[count..]).collect(), keys))
}

fn unnamed(arg: &FunctionArg) -> Option<&Expr> {
    match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => Some(value),
        _ => None,
    }
}

/// The table argument as something that can stand in FROM, and the name that it goes by without an alias.
fn source(kind: Kind, table: &Expr) -> Result<(TableFactor, Option<Ident>)> {
    let parts = match table {
        Expr::Identifier(name) => vec![name.clone()],
        Expr::CompoundIdentifier(parts) => parts.clone(),
        Expr::Subquery(query) => return Ok((TableFactor::Derived { lateral: false, subquery: query.clone(), alias: None, sample: None }, None)),
        Expr::Nested(inner) => return source(kind, inner),
        Expr::Function(function) => {
            return Err(Error::Invalid(format!(
                "the first argument of {} is a table, not {function}: put it into a subquery, (SELECT * FROM {function})",
                kind.name()
            )));
        }
        other => return Err(Error::Invalid(format!("the first argument of {} is a table, not {other}: write {}", kind.name(), kind.form()))),
    };
    let own_name = parts.last().cloned();
    Ok((subquery::table(parts)?, own_name))
}

fn time_column(kind: Kind, time: &Expr) -> Result<Expr> {
    match time {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(time.clone()),
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. })
            if list.args.is_empty() && name.to_string().eq_ignore_ascii_case(PROCTIME) =>
        {
            Ok(time.clone())
        }
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) if name.to_string().eq_ignore_ascii_case("descriptor") => {
            match list.args.as_slice() {
                [FunctionArg::Unnamed(FunctionArgExpr::Expr(column @ Expr::Identifier(_)))] => Ok(column.clone()),
                _ => Err(Error::Invalid(format!("DESCRIPTOR takes one column: write DESCRIPTOR(ts), not {time}"))),
            }
        }
        other => Err(Error::Invalid(format!(
            "the second argument of {} is a timestamp column or proctime(), not {other}: write {}, or compute the column in a subquery",
            kind.name(),
            kind.form()
        ))),
    }
}
