//! The rewrite of `JOIN … FOR SYSTEM_TIME AS OF …` to a [`TemporalJoin`].

use std::{collections::BTreeSet, sync::Arc};

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::{
    common::{
        Column, JoinType, TableReference,
        tree_node::{Transformed, TreeNode},
    },
    datasource::{provider_as_source, source_as_provider},
    logical_expr::{
        BinaryExpr, Cast, Expr, Extension, Join, LogicalPlan, Operator, Projection, TableScanBuilder,
        utils::{conjunction, split_conjunction_owned},
    },
};
use tidegate_udfs::versions::VALID_AT;

use super::{
    epoch::OperatorId,
    hidden::{self, GONE, ROW, WEIGHT, gone_field, has},
    lineage,
    plan::{OperatorInfo, Rewrite},
    slice::{StreamTable, Wanted},
    temporal_join::{Parts, TemporalJoin, VersionsTable},
    time::{Timeline, nanoseconds},
};
use crate::error::{Error, Result};

/// The condition of a join on when versions are valid, if it has one: when a row asks, and what else must hold.
pub(super) struct Asked {
    time: Expr,
    rest: Vec<Expr>,
}

/// Finds it.
pub(super) fn asked(join: &Join) -> Option<Asked> {
    let (mut time, mut rest) = (None, vec![]);
    for condition in split_conjunction_owned(join.filter.clone()?) {
        match &condition {
            Expr::ScalarFunction(function) if function.func.name() == VALID_AT && time.is_none() => time = function.args.first().cloned(),
            _ => rest.push(condition),
        }
    }
    Some(Asked { time: time?, rest })
}

/// An error of the rewrite, as a sentence where it is about what versions lack in a view.
pub(super) fn told(error: Error) -> Error {
    let text = error.to_string();
    match text.contains("No field named") && text.contains("_valid_to") {
        true => Error::Unsupported(
            "a continuous view can't tell until when a version will be valid (_valid_to): name the columns that it is to show, in place of *".into(),
        ),
        false => error,
    }
}

/// Versions are read in no other way.
pub(super) fn refused() -> Error {
    Error::Unsupported(
        "a continuous view reads the versions of a table's rows only by JOIN table FOR SYSTEM_TIME AS OF row.time AS t ON row.key = t.key, with the columns of its primary key".into(),
    )
}

/// The versions below the right side of a join, and what was asked of them there.
fn below(plan: &LogicalPlan, predicates: &mut Vec<Expr>) -> Option<(StreamTable, TableReference)> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => below(&alias.input, predicates),
        LogicalPlan::Projection(projection) if projection.expr.iter().all(|expr| matches!(expr, Expr::Column(_))) => below(&projection.input, predicates),
        LogicalPlan::Filter(filter) => {
            predicates.push(filter.predicate.clone());
            below(&filter.input, predicates)
        }
        LogicalPlan::TableScan(scan) => {
            predicates.extend(scan.filters.iter().cloned());
            let provider = source_as_provider(&scan.source).ok()?;
            Some((provider.downcast_ref::<VersionsTable>()?.records.clone(), scan.table_name.clone()))
        }
        _ => None,
    }
}

impl Rewrite<'_> {
    /// A join with the versions of a table's rows.
    pub(super) fn temporal_join(&mut self, join: Join, asked: Asked) -> Result<LogicalPlan> {
        let outer = match join.join_type {
            JoinType::Inner => false,
            JoinType::Left => true,
            _ => return Err(Error::Unsupported("FOR SYSTEM_TIME AS OF takes JOIN and LEFT JOIN in a continuous view".into())),
        };
        let mut predicates = vec![];
        let (records, scanned) = below(&join.right, &mut predicates).ok_or_else(refused)?;
        let source = records.name.clone();
        let (key, time) = (records.key.clone(), records.event_time.clone().ok_or_else(refused)?);
        let right_columns = join.right.schema().columns();
        let qualifier = right_columns.iter().find_map(|column| column.relation.clone()).unwrap_or(scanned);
        let of_right = |name: &str| Expr::Column(Column::new(Some(qualifier.clone()), name));
        // What is said of the versions below is said of them here, under the join's names.
        let is_right = |column: &Column| join.right.schema().has_column(column) || !join.left.schema().has_column(column);
        let here = |expr: Expr| -> Result<Expr> {
            let renamed = expr.transform(|expr| {
                Ok(match expr {
                    Expr::Column(column) if is_right(&column) => Transformed::yes(of_right(&column.name)),
                    other => Transformed::no(other),
                })
            })?;
            Ok(renamed.data)
        };
        let mut residual = asked.rest.into_iter().chain(predicates).map(here).collect::<Result<Vec<_>>>()?;
        let (mut on, mut found) = (vec![], BTreeSet::new());
        for (left, right) in join.on {
            let right = here(right)?;
            match column_of(&right).filter(|name| key.contains(name) && !found.contains(name)) {
                Some(name) => {
                    found.insert(name);
                    on.push((left, right));
                }
                None => residual.push(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), Operator::Eq, Box::new(right)))),
            }
        }
        if let Some(missing) = key.iter().find(|name| !found.contains(*name)) {
            return Err(Error::Invalid(format!(
                "FOR SYSTEM_TIME AS OF looks a row of {source} up by its primary key: add AND {qualifier}.{missing} = … to the ON of the join"
            )));
        }
        // The versions: the source's records with what the join asks of them.
        let mut wanted: BTreeSet<String> = right_columns.iter().map(|column| column.name.clone()).collect();
        wanted.extend(key.iter().cloned());
        residual.iter().for_each(|expr| {
            wanted.extend(expr.column_refs().into_iter().filter(|column| column.relation.as_ref() == Some(&qualifier)).map(|c| c.name.clone()))
        });
        let names: Vec<String> = records.schema.fields().iter().map(|field| field.name().clone()).filter(|name| wanted.contains(name)).collect();
        let mut fields = records.schema.fields().to_vec();
        fields.push(gone_field());
        let leaf = StreamTable { schema: Arc::new(Schema::new(fields)), key: vec![], ..records }.with_hidden(Wanted::Locators, false);
        let mut read: BTreeSet<usize> = names.iter().chain([&time]).map(|name| leaf.schema.index_of(name)).collect::<std::result::Result<_, _>>()?;
        read.extend([leaf.schema.index_of(GONE)?, leaf.schema.index_of(ROW)?]);
        let scan = TableScanBuilder::new(source.clone(), provider_as_source(Arc::new(leaf))).with_projection(Some(read.into_iter().collect())).build()?;
        let of_scan = |name: &str| Expr::Column(Column::new(Some(source.clone()), name));
        let mut exprs: Vec<Expr> = names.iter().map(|name| of_scan(name).alias_qualified(Some(qualifier.clone()), name)).collect();
        exprs.push(of_scan(GONE).alias_qualified(Some(qualifier.clone()), "_deleted"));
        let begins = Expr::Cast(Cast::new(Box::new(of_scan(&time)), DataType::Timestamp(TimeUnit::Nanosecond, None)));
        exprs.push(begins.alias_qualified(Some(qualifier.clone()), "_valid_from"));
        exprs.push(of_scan(ROW).alias(ROW));
        let right = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(LogicalPlan::TableScan(scan)))?);

        let left = self.node(Arc::unwrap_or_clone(join.left), Wanted::Locators)?;
        if has(left.schema(), WEIGHT) {
            return Err(Error::Unsupported(
                "FOR SYSTEM_TIME AS OF for rows that change is not supported in a continuous view: join the source's rows, and aggregate above".into(),
            ));
        }
        let left_clock = lineage::timeline_of_expr(&asked.time, &left).map(|followed| (followed.timeline, followed.lag));
        if let Err(reason) = &left_clock {
            self.unbounded(&format!("the join with {source}"), &format!("{} {reason}, so any version may be asked for", asked.time.human_display()))?;
        }
        let id = self.operators.len() as OperatorId;
        let bounded = left_clock.is_ok();
        let parts = Parts {
            on,
            time: asked.time,
            residual: conjunction(residual),
            outer,
            left_clock: left_clock.ok(),
            right_clock: Timeline::Event(vec![source.clone()]),
            lateness: nanoseconds(self.options.lateness),
        };
        let node = TemporalJoin::new(id, [left, right], parts)?;
        self.operators.push(OperatorInfo {
            id,
            description: node.told(),
            bound: format!(
                "left rows are held until the watermark of {source} passes their time; {}",
                match bounded {
                    true => format!("of each row of {source} the versions from the watermarks on, and the one before"),
                    false => "nothing bounds the versions (unbounded_state = true)".into(),
                }
            ),
            windowed: false,
            judges: true,
        });
        // The join's columns in their order; until when a version is valid is never known here.
        let node = LogicalPlan::Extension(Extension { node: Arc::new(node) });
        let mut exprs = vec![];
        for (relation, field) in join.schema.iter() {
            if field.name() == "_valid_to" && relation == Some(&qualifier) {
                continue;
            }
            exprs.push(Expr::Column(Column::new(relation.cloned(), field.name())));
        }
        exprs.extend(hidden::hidden_columns(node.schema()));
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(node))?))
    }
}

/// The column that an expression is, perhaps as another type.
fn column_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Column(column) => Some(column.name.clone()),
        Expr::Cast(Cast { expr, .. }) => column_of(expr),
        _ => None,
    }
}
