//! What DataFusion's planner leaves undone of `INSERT` and `UPDATE`: on the syntax tree.

use std::collections::BTreeSet;

use datafusion::sql::{
    parser::Statement as DataFusionStatement,
    sqlparser::ast::{Assignment, AssignmentTarget, Ident, Insert, ObjectName, ObjectNamePart, SelectItem, SetExpr, Statement, TableObject},
};

use super::names;
use crate::error::{Error, Result};

/// Folds the names of the columns that an UPDATE sets, and refuses one that it sets twice.
pub(super) fn fold_assignments(statement: &mut DataFusionStatement) -> Result<()> {
    let DataFusionStatement::Statement(statement) = statement else { return Ok(()) };
    let Statement::Update(update) = statement.as_mut() else { return Ok(()) };
    let mut set = BTreeSet::new();
    for Assignment { target, .. } in &mut update.assignments {
        let AssignmentTarget::ColumnName(ObjectName(parts)) = target else { continue };
        let Some(ObjectNamePart::Identifier(column)) = parts.last_mut() else { continue };
        let name = names::fold(column);
        if !set.insert(name.clone()) {
            return Err(Error::Invalid(format!("UPDATE sets the column {name} twice: leave one out")));
        }
        *column = Ident::with_quote('"', name);
    }
    Ok(())
}

/// Gives names to what an INSERT selects twice: what it is called doesn't matter there, but DataFusion wants it to be unique.
pub(super) fn name_selected(statement: &mut DataFusionStatement) {
    let DataFusionStatement::Statement(statement) = statement else { return };
    let Statement::Insert(Insert { source: Some(query), .. }) = statement.as_mut() else { return };
    name_in(&mut query.body);
}

fn name_in(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            let mut seen = BTreeSet::new();
            for (at, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expr) = item
                    && !seen.insert(expr.to_string())
                {
                    // As nobody else calls a column: names of ours can't be written.
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', format!("__inserted_{at}")) };
                }
            }
        }
        SetExpr::SetOperation { left, right, .. } => {
            name_in(left);
            name_in(right);
        }
        _ => {}
    }
}

/// Names the columns of an INSERT that names none: those that `columns` gives for its table, if any.
pub fn name_insert_columns(statement: &mut DataFusionStatement, columns: impl FnOnce(&str) -> Option<Vec<String>>) {
    let DataFusionStatement::Statement(statement) = statement else { return };
    let Statement::Insert(Insert { table: TableObject::TableName(ObjectName(parts)), columns: named, .. }) = statement.as_mut() else { return };
    if !named.is_empty() {
        return;
    }
    let Some(ObjectNamePart::Identifier(table)) = parts.last() else { return };
    if let Some(columns) = columns(&names::fold(table)) {
        *named = columns.into_iter().map(|name| ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', name))])).collect();
    }
}
