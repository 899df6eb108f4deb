//! How large a query becomes once each name in it that WITH explains, and each plain view, is written out: two uses of one that uses another one
//! twice are four.

use std::{collections::HashMap, ops::ControlFlow};

use datafusion::{
    common::tree_node::TreeNodeRecursion,
    logical_expr::LogicalPlan,
    sql::{
        parser::Statement as DataFusionStatement,
        sqlparser::ast::{ObjectName, Query, Visit, Visitor, visit_relations},
    },
};

use crate::error::{Error, Result};

/// The most relations of a query that is written out.
const MOST: u64 = 2_000;
/// The most steps of a plan in which views are written out. A UNION ALL of the most relations has less than half as many.
const MOST_STEPS: usize = 20_000;
/// Of one plain view: the planner copies it for each use before the whole is counted.
const MOST_STEPS_OF_VIEW: usize = 4_000;

/// Refuses a query's plan that is too large to be optimized.
pub fn check_plan(plan: &LogicalPlan) -> Result<()> {
    check_steps(plan, MOST_STEPS, "query")
}

/// Refuses a plain view's plan that is too large to be a part of others.
pub fn check_view_plan(plan: &LogicalPlan) -> Result<()> {
    check_steps(plan, MOST_STEPS_OF_VIEW, "view's query")
}

fn check_steps(plan: &LogicalPlan, most: usize, what: &str) -> Result<()> {
    let mut steps = 0usize;
    plan.apply_with_subqueries(|_| {
        steps += 1;
        Ok(if steps > most { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match steps > most {
        true => Err(Error::Invalid(format!(
            "with its views written out, the {what} has more than {most} steps: name each view fewer times, or keep a part of it as a continuous view or a table"
        ))),
        false => Ok(()),
    }
}

/// Refuses a statement whose queries become too large.
pub(super) fn check(statement: &DataFusionStatement) -> Result<()> {
    let statement = match statement {
        DataFusionStatement::Statement(statement) => statement,
        DataFusionStatement::Explain(explain) => return check(&explain.statement),
        _ => return Ok(()),
    };
    check_tree(statement.as_ref())
}

/// The same of a query, or of what else has queries in it.
pub(super) fn check_tree(tree: &impl Visit) -> Result<()> {
    let mut explained = Explained::default();
    let _ = tree.visit(&mut explained);
    if explained.names.is_empty() {
        return Ok(());
    }
    let all = explained.size(&used(tree), &mut vec![]);
    if all > MOST {
        return Err(Error::Invalid(format!(
            "written out, the names that WITH explains make more than {MOST} relations of the query: use views for its parts, or each name fewer times"
        )));
    }
    Ok(())
}

/// The names that WITH explains, anywhere in a statement, each with the relations that its query names. Two of one name count as one that
/// names the relations of both: too many rather than too few.
#[derive(Default)]
struct Explained {
    names: HashMap<String, Vec<String>>,
    sizes: HashMap<String, u64>,
}

impl Visitor for Explained {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.names.entry(cte.alias.name.value.to_lowercase()).or_default().extend(used(&*cte.query));
        }
        ControlFlow::Continue(())
    }
}

impl Explained {
    fn size(&mut self, used: &[String], around: &mut Vec<String>) -> u64 {
        let mut all = 0u64;
        for name in used {
            all = all.saturating_add(self.size_of(name, around));
        }
        all
    }

    fn size_of(&mut self, name: &String, around: &mut Vec<String>) -> u64 {
        if let Some(size) = self.sizes.get(name) {
            return *size;
        }
        // Within its own query it is the table of that name, or the query itself where it is recursive.
        let Some(inner) = self.names.get(name).filter(|_| !around.contains(name)).cloned() else { return 1 };
        around.push(name.clone());
        let size = self.size(&inner, around).saturating_add(1);
        around.pop();
        self.sizes.insert(name.clone(), size);
        size
    }
}

/// The relations that are named, as often as they are.
fn used(what: &impl Visit) -> Vec<String> {
    let mut names = vec![];
    let _ = visit_relations(what, |name: &ObjectName| {
        if let [part] = name.0.as_slice()
            && let Some(ident) = part.as_ident()
        {
            names.push(ident.value.to_lowercase());
        }
        ControlFlow::<()>::Continue(())
    });
    names
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::sql::parse_one;

    fn doubling(levels: usize) -> String {
        let mut text = "WITH c0 AS (SELECT 1 AS x)".to_owned();
        for level in 1..levels {
            text += &format!(", c{level} AS (SELECT p.x FROM c{0} p, C{0} q)", level - 1);
        }
        text + &format!(" SELECT * FROM c{}", levels - 1)
    }

    #[test]
    fn what_doubles_often_is_refused() {
        assert!(parse_one(&doubling(6)).is_ok());
        for sql in [doubling(40), format!("EXPLAIN {}", doubling(12)), format!("INSERT INTO t {}", doubling(12)), format!("SELECT * FROM ({}) s", doubling(12))]
        {
            let error = parse_one(&sql).unwrap_err().to_string();
            assert!(error.contains("written out"), "{error}");
        }
    }

    #[test]
    fn what_is_ordinary_is_not() {
        for sql in [
            "WITH t AS (SELECT * FROM t) SELECT * FROM t, t AS u",
            "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n WHERE x < 9) SELECT * FROM n",
            "WITH a AS (WITH b AS (SELECT 1) SELECT * FROM b), b AS (SELECT * FROM a) SELECT * FROM b, a",
        ] {
            parse_one(sql).unwrap();
        }
    }
}
