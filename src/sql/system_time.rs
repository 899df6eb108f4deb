//! `JOIN table FOR SYSTEM_TIME AS OF row.time AS alias ON …`: a row of a stream meets the version of a table's row that was valid at its time.
//!
//! sqlparser has no such clause in the dialect used here, so the tokens become a table function first. On the syntax tree that becomes the
//! table of all versions, `"table$versions"`, and a condition on when they are valid.

use datafusion::sql::sqlparser::{
    ast::{
        BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, JoinConstraint, JoinOperator, ObjectName,
        ObjectNamePart, Select, TableFactor,
    },
    tokenizer::{Token, TokenWithSpan},
};
use tidegate_udfs::versions::VALID_AT;

use super::cursor::is_word;
use crate::error::{Error, Result};

/// The table function that stands for the clause. Users can't write it: it begins as our reserved names do.
const AS_OF: &str = "__as_of";

const FORM: &str = "JOIN rates FOR SYSTEM_TIME AS OF o.at AS r ON o.currency = r.currency";

/// Puts a table function in the place of each clause.
pub(super) fn plain(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let words = ["FOR", "SYSTEM_TIME", "AS", "OF"];
    let mut plain: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let starts = words.iter().enumerate().all(|(n, word)| tokens.get(at + n).is_some_and(|token| is_word(&token.token, word)));
        // The table's name is the last path before the clause, the time the first one behind it.
        let table = if starts { path(plain.iter().rev()) } else { 0 };
        if table == 0 {
            plain.push(token.clone());
            at += 1;
            continue;
        }
        let time: Vec<TokenWithSpan> = tokens[at + words.len()..].iter().take(path(tokens[at + words.len()..].iter()).max(1)).cloned().collect();
        at += words.len() + time.len();
        let name = plain.split_off(plain.len() - table);
        let span = token.span;
        let one = |token: Token| TokenWithSpan { token, span };
        plain.extend([one(Token::make_word(AS_OF, None)), one(Token::LParen)]);
        plain.extend(name);
        plain.push(one(Token::Comma));
        plain.extend(time);
        plain.push(one(Token::RParen));
    }
    plain
}

/// How many tokens at the beginning are words with periods between them.
fn path<'a>(tokens: impl Iterator<Item = &'a TokenWithSpan>) -> usize {
    let mut wants_word = true;
    let of_path = tokens.take_while(|token| {
        let fits = matches!((&token.token, wants_word), (Token::Word(_), true) | (Token::Period, false));
        wants_word = !wants_word;
        fits
    });
    let count = of_path.count();
    // A period at the end is none of it.
    if count.is_multiple_of(2) { count.saturating_sub(1) } else { count }
}

/// Rewrites the clauses of a SELECT.
pub(super) fn rewrite(select: &mut Select) -> Result<()> {
    for from in &mut select.from {
        if as_of(&from.relation).is_some() {
            return Err(Error::Invalid(format!("FOR SYSTEM_TIME AS OF stands behind a table that rows of a stream are joined with, as in {FORM}")));
        }
        for join in &mut from.joins {
            let Some((table, time)) = as_of(&join.relation) else { continue };
            let constraint = match &mut join.join_operator {
                JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) | JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                    constraint
                }
                _ => return Err(Error::Unsupported(format!("FOR SYSTEM_TIME AS OF takes JOIN and LEFT JOIN, as in {FORM}"))),
            };
            let JoinConstraint::On(condition) = constraint else {
                return Err(Error::Unsupported(format!("FOR SYSTEM_TIME AS OF needs ON in place of USING, as in {FORM}")));
            };
            let TableFactor::Table { name, args, alias, .. } = &mut join.relation else { continue };
            let qualifier = alias.as_ref().map_or_else(|| table.clone(), |alias| alias.name.clone());
            *args = None;
            *name = ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', format!("{}$versions", table.value)))]);
            if alias.is_none() {
                *alias = Some(datafusion::sql::sqlparser::ast::TableAlias { explicit: true, name: table.clone(), columns: vec![], at: None });
            }
            let of = |column: &str| Expr::CompoundIdentifier(vec![qualifier.clone(), Ident::new(column)]);
            let valid = call(vec![time, of("_valid_from"), of("_valid_to"), of("_deleted")]);
            let asked = Expr::Nested(Box::new(condition.clone()));
            *condition = Expr::BinaryOp { left: Box::new(asked), op: BinaryOperator::And, right: Box::new(valid) };
        }
    }
    Ok(())
}

/// The table and the time of a clause.
fn as_of(factor: &TableFactor) -> Option<(Ident, Expr)> {
    let TableFactor::Table { name, args: Some(args), .. } = factor else { return None };
    let [ObjectNamePart::Identifier(function)] = name.0.as_slice() else { return None };
    if function.value != AS_OF {
        return None;
    }
    let argument = |at: usize| match args.args.get(at) {
        Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))) => Some(expr.clone()),
        _ => None,
    };
    let table = match argument(0)? {
        Expr::Identifier(ident) => ident,
        Expr::CompoundIdentifier(idents) => idents.last()?.clone(),
        _ => return None,
    };
    Some((table, argument(1)?))
}

fn call(args: Vec<Expr>) -> Expr {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::new(VALID_AT))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}
