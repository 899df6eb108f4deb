//! Options of DataFusion that a session sets for its own statements: `SET datafusion.optimizer.… = …`, `SET TIME ZONE = …`, `RESET …`.
//!
//! What they change is how the session's queries are planned and run. What belongs to the server (its catalog, its memory, its files) and what
//! its own parser decides is refused. Continuous views never see them: a view means the same whoever has declared it.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use datafusion::{
    config::ConfigOptions,
    execution::{FunctionRegistry, SessionState},
    logical_expr::{LogicalPlan, Statement as PlanStatement},
    sql::{
        parser::Statement as DataFusionStatement,
        sqlparser::ast::{Set, Statement as SqlStatement},
    },
};

use crate::error::{Error, Result};

/// What all options of a group are for; those of other groups are the server's.
const GROUPS: &[&str] = &["datafusion.execution.", "datafusion.optimizer.", "datafusion.explain.", "datafusion.sql_parser."];

/// Options of these groups that our own parser decides, or that would let one session take what is everybody's.
const REFUSED: &[&str] = &[
    "datafusion.sql_parser.dialect",
    "datafusion.sql_parser.enable_ident_normalization",
    "datafusion.sql_parser.recursion_limit",
    // A join by it takes memory by the range of keys, not by their number.
    "datafusion.execution.perfect_hash_join",
    "datafusion.execution.parquet.crypto.",
];

const TIME_ZONE: &str = "datafusion.execution.time_zone";

/// Options that are numbers, and how large they may be: each partition is a task, and operators reserve room for a batch before they fill it.
const LARGEST: &[(&str, usize)] =
    &[("datafusion.execution.target_partitions", 1024), ("datafusion.execution.planning_concurrency", 1024), ("datafusion.execution.batch_size", 1 << 20)];

/// The options that a session has set, in this order: some set others as well.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineOptions(Vec<(String, String)>);

/// A statement that changes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// `SET name = value`.
    Set(String, String),
    /// `RESET name`.
    Reset(String),
}

/// Whether a statement is to change an option: then [`change`] of its plan says which.
pub(super) fn is_change(statement: &DataFusionStatement) -> bool {
    match statement {
        DataFusionStatement::Statement(statement) => {
            matches!(**statement, SqlStatement::Set(Set::SingleAssignment { .. } | Set::SetTimeZone { .. } | Set::MultipleAssignments { .. }))
        }
        DataFusionStatement::Reset(_) => true,
        _ => false,
    }
}

/// What a plan changes, if it may; `None` if it changes no option.
pub(super) fn change(plan: LogicalPlan) -> Result<Option<Change>> {
    let change = match plan {
        LogicalPlan::Statement(PlanStatement::SetVariable(set)) => Change::Set(set.variable.to_ascii_lowercase(), set.value),
        LogicalPlan::Statement(PlanStatement::ResetVariable(reset)) => Change::Reset(reset.variable.to_ascii_lowercase()),
        _ => return Ok(None),
    };
    match &change {
        Change::Set(name, value) => check(name, value)?,
        Change::Reset(name) => check_name(name)?,
    }
    Ok(Some(change))
}

impl EngineOptions {
    /// Makes a change that [`change`] has found.
    pub(super) fn make(&mut self, change: Change) {
        let (Change::Set(name, _) | Change::Reset(name)) = &change;
        self.0.retain(|(set, _)| set != name);
        if let Change::Set(name, value) = change {
            self.0.push((name, value));
        }
    }

    /// Has a statement planned and run with them.
    pub(super) fn apply(&self, state: &mut SessionState) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        for (name, value) in &self.0 {
            state.config_mut().options_mut().set(name, value)?;
        }
        // Some functions hold options, like `now()` the time zone.
        let options = state.config().options().clone();
        let changed: Vec<_> = state.scalar_functions().values().filter_map(|function| function.inner().with_updated_config(&options)).collect();
        for function in changed {
            state.register_udf(Arc::new(function))?;
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<()> {
    if !ConfigOptions::new().entries().iter().any(|entry| entry.key == name) {
        return Err(Error::NotFound(format!(
            "there is no setting {name}: SHOW ALL lists those of the engine, SELECT * FROM system.settings those of Tidegate"
        )));
    }
    if !GROUPS.iter().any(|group| name.starts_with(group)) || REFUSED.iter().any(|refused| name.starts_with(refused)) {
        return Err(Error::Unsupported(format!(
            "{name} is the server's, and a session can't change it: of the engine's options it sets those that begin with datafusion.execution, optimizer, explain or sql_parser"
        )));
    }
    Ok(())
}

fn check(name: &str, value: &str) -> Result<()> {
    check_name(name)?;
    // The innermost sentence names neither the option nor the value.
    let wrong = |error: datafusion::error::DataFusionError| Error::Invalid(format!("{name} can't be '{value}': {}", error.find_root().message()));
    ConfigOptions::new().set(name, value).map_err(wrong)?;
    if name == TIME_ZONE && value.parse::<Tz>().is_err() {
        return Err(Error::Invalid(format!("'{value}' is no time zone: write an offset like '+02:00', or a name of the IANA list, like 'Europe/Madrid'")));
    }
    if let Some((_, largest)) = LARGEST.iter().find(|(limited, _)| *limited == name)
        && value.parse::<usize>().is_ok_and(|number| number > *largest)
    {
        return Err(Error::Invalid(format!("{name} is at most {largest}, not {value}")));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_servers_is_refused() {
        for (name, value, sentence) in [
            ("datafusion.catalog.location", "/etc", "the server's"),
            ("datafusion.sql_parser.dialect", "mysql", "the server's"),
            ("datafusion.runtime.memory_limit", "100G", "there is no setting"),
            ("datafusion.optimizer.nonsense", "true", "there is no setting"),
            ("datafusion.execution.time_zone", "Madrid", "no time zone"),
            ("datafusion.execution.target_partitions", "100000", "at most 1024"),
            ("datafusion.execution.batch_size", "0", "batch_size can't be '0'"),
            ("datafusion.optimizer.max_passes", "many", "max_passes can't be 'many'"),
        ] {
            let error = check(name, value).unwrap_err().to_string();
            assert!(error.contains(sentence), "{name}: {error}");
        }
        for (name, value) in [("datafusion.execution.time_zone", "+02:00"), ("datafusion.execution.batch_size", "3"), ("datafusion.explain.format", "tree")] {
            check(name, value).unwrap();
        }
    }

    #[test]
    fn a_change_is_there_until_it_is_reset() {
        let mut options = EngineOptions::default();
        options.make(Change::Set("datafusion.execution.batch_size".into(), "7".into()));
        let mut state = datafusion::execution::SessionStateBuilder::new().with_default_features().build();
        options.apply(&mut state).unwrap();
        assert_eq!(state.config().batch_size(), 7);
        options.make(Change::Reset("datafusion.execution.batch_size".into()));
        assert_eq!(options, EngineOptions::default());
    }
}
