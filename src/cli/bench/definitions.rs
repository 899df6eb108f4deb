//! What the benchmarks' own statements define.

use std::sync::Arc;

use crate::{
    catalog::{Definition, SourceDef, ViewDef},
    sql::{self, Statement},
};

/// The source that a statement makes.
pub(super) fn source(statement: &str) -> anyhow::Result<Arc<SourceDef>> {
    match sql::parse_definition(statement)? {
        Definition::Source(source) => Ok(source),
        _ => anyhow::bail!("the benchmark's source is none"),
    }
}

/// The continuous view that a statement makes.
pub(super) fn view(statement: &str) -> anyhow::Result<ViewDef> {
    match sql::parse_one(statement)? {
        Statement::CreateContinuousView { def, .. } => Ok(def),
        _ => anyhow::bail!("the benchmark's view is none"),
    }
}
