//! `system.pipelines`, `system.epochs`, `system.checkpoints`.

use std::{sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, Float64Array, Int64Array, StringArray, TimestampMillisecondArray},
    datatypes::{Schema, SchemaRef},
};

use super::{milliseconds, moment, real, text, whole};
use crate::{
    access::Who,
    session::engine::Engine,
    stream::figures::{CheckpointFigures, EpochFigures, PHASES},
};

/// Columns of `system.pipelines`.
pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("name"),
        text("state"),
        text("message"),
        whole("views"),
        whole("epoch"),
        whole("checkpoint_epoch"),
        whole("epochs"),
        whole("input_rows"),
        whole("input_bytes"),
        whole("errors"),
        whole("late_rows"),
        whole("checkpoints"),
        whole("failed_checkpoints"),
    ]))
}

/// Rows of `system.pipelines`.
pub fn rows(engine: &Arc<Engine>, who: &Who) -> Vec<ArrayRef> {
    let overview = engine.overview_for(who);
    let mut broken = engine.broken_sources();
    broken.retain(|name, _| engine.sees_name(who, name));
    let running = &overview.pipelines;
    // A pipeline that could not be started has no figures.
    let names = running.iter().map(|p| p.name.as_str()).chain(broken.keys().map(String::as_str));
    let states = running.iter().map(|p| if p.failure.is_some() { "failed" } else { "running" }).chain(broken.keys().map(|_| "broken"));
    let messages = running.iter().map(|p| p.failure.as_deref().unwrap_or_default()).chain(broken.values().map(String::as_str));
    let number = |of: &dyn Fn(&super::PipelineOverview) -> Option<u64>| -> ArrayRef {
        Arc::new(Int64Array::from_iter(running.iter().map(|p| of(p).map(|n| n as i64)).chain(broken.iter().map(|_| None))))
    };
    vec![
        Arc::new(StringArray::from_iter_values(names)),
        Arc::new(StringArray::from_iter_values(states)),
        Arc::new(StringArray::from_iter_values(messages)),
        number(&|p| Some(p.views as u64)),
        number(&|p| Some(p.epoch)),
        number(&|p| p.checkpoint),
        number(&|p| Some(p.totals.epochs)),
        number(&|p| Some(p.totals.records)),
        number(&|p| Some(p.totals.bytes)),
        number(&|p| Some(p.totals.errors)),
        number(&|p| Some(p.totals.late)),
        number(&|p| Some(p.totals.checkpoints)),
        number(&|p| Some(p.totals.failed_checkpoints)),
    ]
}

/// Columns of `system.epochs`.
pub fn epochs_schema() -> SchemaRef {
    let mut fields = vec![
        text("pipeline"),
        whole("epoch"),
        moment("started_at"),
        whole("input_rows"),
        whole("input_bytes"),
        whole("errors"),
        whole("late_rows"),
        real("input_rate"),
        real("process_rate"),
        real("batch_duration_ms"),
        real("scheduling_delay_ms"),
    ];
    fields.extend(PHASES.iter().map(|phase| real(&format!("{phase}_ms"))));
    Arc::new(Schema::new(fields))
}

/// Rows of `system.epochs`.
pub fn epochs(engine: &Arc<Engine>, who: &Who) -> Vec<ArrayRef> {
    let mut rows: Vec<(String, EpochFigures)> = vec![];
    for (name, driver) in engine.pipelines_seen(who) {
        rows.extend(driver.board().figures().epochs().into_iter().map(|epoch| (name.clone(), epoch)));
    }
    let number = |of: fn(&EpochFigures) -> u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, e)| of(e) as i64))) };
    let rate = |over: fn(&EpochFigures) -> Option<Duration>| -> ArrayRef {
        Arc::new(Float64Array::from_iter(rows.iter().map(|(_, e)| rate(e.report.records, over(e)))))
    };
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(name, _)| name))),
        number(|e| e.epoch),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|(_, e)| e.started_ms))),
        number(|e| e.report.records as u64),
        number(|e| e.report.bytes as u64),
        number(|e| e.report.errors as u64),
        number(|e| e.report.late as u64),
        rate(|e| e.since_last),
        rate(|e| Some(e.duration)),
        milliseconds(rows.iter().map(|(_, e)| e.duration)),
        milliseconds(rows.iter().map(|(_, e)| e.delay)),
    ];
    columns.extend((0..PHASES.len()).map(|phase| milliseconds(rows.iter().map(|(_, e)| e.phases()[phase]))));
    columns
}

/// Records a second.
fn rate(records: usize, over: Option<Duration>) -> Option<f64> {
    over.filter(|over| !over.is_zero()).map(|over| records as f64 / over.as_secs_f64())
}

/// Columns of `system.checkpoints`.
pub fn checkpoints_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        text("pipeline"),
        whole("epoch"),
        moment("started_at"),
        real("duration_ms"),
        whole("bytes"),
        whole("parts"),
        text("outcome"),
        text("message"),
    ]))
}

/// Rows of `system.checkpoints`.
pub fn checkpoints(engine: &Arc<Engine>, who: &Who) -> Vec<ArrayRef> {
    let mut rows: Vec<(String, CheckpointFigures)> = vec![];
    for (name, driver) in engine.pipelines_seen(who) {
        rows.extend(driver.board().figures().checkpoints().into_iter().map(|checkpoint| (name.clone(), checkpoint)));
    }
    let number = |of: fn(&CheckpointFigures) -> u64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, c)| of(c) as i64))) };
    vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(name, _)| name))),
        number(|c| c.epoch),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|(_, c)| c.started_ms))),
        milliseconds(rows.iter().map(|(_, c)| c.duration)),
        number(|c| c.bytes),
        number(|c| c.parts),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, c)| if c.failure.is_some() { "failed" } else { "written" }))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, c)| c.failure.as_deref().unwrap_or_default()))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_by_the_second_and_unknown_over_no_time() {
        assert_eq!(rate(500, Some(Duration::from_millis(250))), Some(2000.0));
        assert_eq!(rate(500, Some(Duration::ZERO)), None);
        assert_eq!(rate(500, None), None);
    }
}
