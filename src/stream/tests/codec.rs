//! Plans as bytes. Every plan that a test makes goes through them (`plan.rs`), so that the comparisons with batches are made of plans that
//! have been read; here is that each shows the same in every field, that no operator is left out, and what can't be read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use datafusion::physical_plan::ExecutionPlan;

/// A plan that was read is the one that was written, in every field that it shows.
pub fn assert_same(written: &Arc<dyn ExecutionPlan>, read: &Arc<dyn ExecutionPlan>) {
    let [written, read] = [written, read].map(|plan| format!("{plan:#?}"));
    if written != read {
        let differ = written.lines().zip(read.lines()).enumerate().find(|(_, (written, read))| written != read);
        let at = differ.map_or(0, |(line, _)| line);
        let around = |text: &str| text.lines().skip(at.saturating_sub(30)).take(45).collect::<Vec<_>>().join("\n");
        panic!("a plan is another one when it has been bytes, written:\n{}\n\nread:\n{}", around(&written), around(&read));
    }
}
